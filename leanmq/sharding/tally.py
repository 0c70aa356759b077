"""Counters of what was sent to each target, and what failed there, as ``stats()`` shows them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping

import attrs

__all__ = ["Tally", "TargetStats"]


@attrs.frozen
class TargetStats:
    """What became of sends to one target, since its router was made.

    Attributes:
        sends: Messages that were sent there.
        failures: Messages whose send to there failed, or was not confirmed.
        state: Of its circuit breaker: ``"closed"``, ``"open"`` or ``"half-open"``.
        last_error: The latest failure in words; None if there was none.
    """

    sends: int
    failures: int
    state: str
    last_error: str | None


class Tally:
    """Counts by target. May be used by any number of threads.

    Examples:
        >>> tally = Tally()
        >>> tally.sent("eu", 3)
        >>> tally.failed("eu", 1, TimeoutError("no answer within 3 s"))
        >>> tally.snapshot({"eu": "open"})["eu"]
        TargetStats(sends=3, failures=1, state='open', last_error='no answer within 3 s')
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sends: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._errors: dict[str, str] = {}

    def sent(self, target: str, n: int) -> None:
        """``n`` messages were stored at a target."""
        with self._lock:
            self._sends[target] += n

    def failed(self, target: str, n: int, error: Exception | str) -> None:
        """``n`` messages were not stored at a target, or not surely, for this reason."""
        # Some exceptions say nothing but by their type.
        text = str(error) or type(error).__name__
        with self._lock:
            self._failures[target] += n
            self._errors[target] = text

    def snapshot(self, states: Mapping[str, str]) -> dict[str, TargetStats]:
        """The counts of one moment.

        Args:
            states: The state of every target to tell of, in the order of the result.
        """
        with self._lock:
            return {
                target: TargetStats(
                    self._sends[target], self._failures[target], state, self._errors.get(target)
                )
                for target, state in states.items()
            }
