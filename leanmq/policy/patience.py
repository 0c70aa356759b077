"""How long and how often to try again."""

from __future__ import annotations

import math
import random

from leanmq.backends.protocol import Settings
from leanmq.clock import Clock
from leanmq.errors import LeanMQError, UnreachableError
from leanmq.policy.steps import Sleep

__all__ = ["Patience", "repeatable_until"]

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.25


def repeatable_until(now: float, settings: Settings) -> float:
    """Until when a send that begins now may be repeated, if nobody knows what became of it.

    For so long the backend surely knows its dedup ids, or its number: to repeat it later could
    store it twice. A quarter of the ``dedup_window`` is for the way there.
    """
    return now + 0.75 * (settings.dedup_window or 0.0)


class Patience:
    """Pauses that grow, with jitter, until a deadline.

    "Full jitter" after Brooker, Exponential Backoff and Jitter (AWS Architecture Blog, 2015),
    with half of each pause fixed, so that a dead server is not asked in a hot loop.

    Args:
        clock: Tells the time.
        deadline: Seconds from now.
        retries: How often an unreachable server is tried again at most; None: until the deadline.
        interval: Seconds that each pause lasts; None: as above.
    """

    def __init__(
        self,
        clock: Clock,
        deadline: float,
        retries: int | None = None,
        interval: float | None = None,
    ) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + deadline
        self._retries = math.inf if retries is None else retries
        self._interval = interval
        self._pause = FIRST_PAUSE

    def pause(self, error: LeanMQError) -> Sleep:
        """The pause before the next try; raises ``error`` if there is to be none."""
        longest = self._pause if self._interval is None else self._interval
        if self._clock.monotonic() + longest > self._ends:
            raise error
        if isinstance(error, UnreachableError):
            if not self._retries:
                raise error
            self._retries -= 1
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        if self._interval is not None:
            return Sleep(longest)
        return Sleep(longest * (0.5 + random.random() / 2))
