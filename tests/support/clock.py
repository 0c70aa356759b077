"""A clock for the parts that are handed one."""

from __future__ import annotations

import attrs

__all__ = ["FakeClock"]


@attrs.define
class FakeClock:
    """A clock that stands until it is told."""

    now: float = 1_000.0
    """Seconds, both of the clock on the wall and of the monotonic one."""

    def monotonic(self) -> float:
        """As ``Clock``."""
        return self.now

    def time(self) -> float:
        """As ``Clock``."""
        return self.now
