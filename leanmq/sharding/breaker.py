"""A circuit breaker: whether a node that failed is asked again, and by whom.

Knows nothing of nodes; its owner makes the calls and the probes, and tells how they ended.
"""

from __future__ import annotations

import random
import threading

from leanmq.clock import Clock

__all__ = ["Breaker"]

ANSWER_WITHIN = 10.0
"""Seconds until a probe or a trial that nobody told the end of is given to another caller."""

SPREAD = 0.2
"""Share by which a pause varies, so that the clients of a node do not all come back at once."""


class Breaker:
    """Keeps calls from a node that fails, until a probe and one real call went well.

    It is *closed* while the node is well. A failure makes it *open*: nothing is sent there for a
    pause. Then one caller probes the node; a good answer makes it *half-open*: one real call, the
    trial, goes there. If that succeeds the breaker is closed, else it is open again for longer.

    Source: Nygard, Release It! (2007), circuit breaker; the probe before the trial is ours, so
    that a node that is still down costs nobody's message a timeout. May be used by any number of
    threads; nothing here waits.

    Args:
        clock: Tells the time.
        first: Seconds of the first pause, and the least of any.
        longest: Seconds that a pause lasts at most. Each failure in a row doubles the pause up to
            this. A pause varies by a fifth either way, between ``first`` and ``longest``.

    Raises:
        ValueError: if ``first`` is not above 0, or ``longest`` is below ``first``.

    Examples:
        >>> from leanmq.clock import SystemClock
        >>> breaker = Breaker(SystemClock())
        >>> breaker.failed()
        >>> breaker.state, breaker.allows()
        ('open', False)
        >>> breaker.succeeded()
        >>> breaker.state, breaker.allows()
        ('closed', True)
    """

    def __init__(self, clock: Clock, first: float = 0.25, longest: float = 2.0) -> None:
        if not 0 < first <= longest:
            raise ValueError(
                f"first is {first} and longest {longest}; give seconds above 0, "
                "longest not below first"
            )
        self._clock = clock
        self._first = first
        self._longest = longest
        self._lock = threading.Lock()
        self._state = "closed"
        self._pause = first
        self._open_until = 0.0
        self._probe_until: float | None = None  # None: nobody probes
        self._trial_until: float | None = None  # None: nobody tries

    @property
    def state(self) -> str:
        """``"closed"``, ``"open"`` or ``"half-open"``."""
        return self._state

    def allows(self) -> bool:
        """Whether the caller may use the node now.

        Half-open, this is true for one caller, whose call is the trial. It must tell the end:
        ``succeeded``, ``failed`` or ``abandon``. If it has not after 10 seconds, another may try.
        """
        now = self._clock.monotonic()
        with self._lock:
            if self._state != "half-open":
                return self._state == "closed"
            if self._trial_until is not None and now < self._trial_until:
                return False
            self._trial_until = now + ANSWER_WITHIN
            return True

    def succeeded(self) -> None:
        """A call went well: the node is used again, and the next pause is the first.

        That holds for a call that began before the breaker opened, too: the node answered.
        """
        with self._lock:
            self._state = "closed"
            self._pause = self._first
            self._probe_until = self._trial_until = None

    def failed(self) -> None:
        """A call failed: the node is left out for a pause.

        While the breaker is open this changes nothing, since many calls fail at once.
        """
        now = self._clock.monotonic()
        with self._lock:
            if self._state != "open":
                self._open(now)

    def abandon(self) -> None:
        """The trial was neither success nor failure (cancelled): another caller may try."""
        with self._lock:
            self._trial_until = None

    def wants_probe(self) -> bool:
        """Whether the caller should probe the node now, and tell the result to ``probed``.

        True for one caller once the pause is over. If it has not told after 10 seconds, it is true
        for another.
        """
        now = self._clock.monotonic()
        with self._lock:
            if self._state != "open" or now < self._open_until:
                return False
            if self._probe_until is not None and now < self._probe_until:
                return False
            self._probe_until = now + ANSWER_WITHIN
            return True

    def probed(self, ok: bool) -> None:
        """How the probe ended: half-open if the node answered well, else open again for longer.

        Nothing changes if no probe is under way: its answer came after another's, or after a call
        that went well.
        """
        now = self._clock.monotonic()
        with self._lock:
            if self._state != "open" or self._probe_until is None:
                return
            if ok:
                self._state = "half-open"
                self._probe_until = None
            else:
                self._open(now)

    def _open(self, now: float) -> None:
        shortest = max(self._first, self._pause * (1 - SPREAD))
        longest = min(self._longest, self._pause * (1 + SPREAD))
        self._open_until = now + random.uniform(shortest, longest)
        self._pause = min(self._pause * 2, self._longest)
        self._state = "open"
        self._probe_until = self._trial_until = None
