"""What waits in a proxy for a certain request, and tells the test when it has struck."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Trap"]


class Trap:
    """A fault that strikes the next ``count`` requests whose bytes contain ``match``.

    Attributes:
        hits: How many requests were struck so far.
        triggered: Set once all ``count`` requests were struck.
    """

    def __init__(
        self,
        match: bytes | None,
        count: int,
        *,
        cut: bool,
        keep: int,
        disarm: Callable[[Trap], None],
    ) -> None:
        if count < 1 or keep < 0 or match == b"":
            raise ValueError(f"no such fault: count={count}, keep={keep}, match={match!r}")
        self.match = match
        self.cut = cut
        self.keep = keep
        self.hits = 0
        self.triggered = threading.Event()
        self._count = count
        self._out = 0  # Requests that were caught and wait for their answer.
        self._disarm = disarm

    def __repr__(self) -> str:
        what = "cut_next_request" if self.cut else "drop_next_reply"
        return f"<{what} match={self.match!r} hits={self.hits}/{self._count}>"

    def wait(self, timeout: float = 5.0) -> bool:
        """Return True once all requests were struck, False after ``timeout`` seconds."""
        return self.triggered.wait(timeout)

    def cancel(self) -> None:
        """Strike no more; harmless if it has struck already."""
        self._disarm(self)

    # -- for the proxy, in the hub's thread ---------------------------------------------------

    @property
    def armed(self) -> bool:
        return self.hits + self._out < self._count

    def catches(self, tail: bytes, data: bytes) -> bool:
        """Return True if ``data``, which follows ``tail`` on the wire, completes the match."""
        if self.match is None or self.match in data:
            return True
        rest = len(self.match) - 1
        return bool(rest) and self.match in tail[-rest:] + data[:rest]

    def caught(self) -> None:
        """A request matched; its answer is awaited."""
        self._out += 1

    def missed(self) -> None:
        """A caught request's connection ended without an answer: wait for the next one."""
        self._out -= 1

    def struck(self) -> None:
        """A caught request has been struck."""
        self._out -= 1
        self.hits += 1
        if self.hits == self._count:
            self.triggered.set()
