"""How long and how often to try again."""

from __future__ import annotations

import random

from leanmq.clock import Clock
from leanmq.errors import LeanMQError
from leanmq.policy.steps import Sleep

__all__ = ["Patience"]

FIRST_PAUSE = 0.01
LONGEST_PAUSE = 0.25


class Patience:
    """Pauses that grow, with jitter, until a deadline.

    "Full jitter" after Brooker, Exponential Backoff and Jitter (AWS Architecture Blog, 2015),
    with half of each pause fixed, so that a dead server is not asked in a hot loop.
    """

    def __init__(self, clock: Clock, deadline: float) -> None:
        self._clock = clock
        self._ends = clock.monotonic() + deadline
        self._pause = FIRST_PAUSE

    def pause(self, error: LeanMQError) -> Sleep:
        """The pause before the next try; raises ``error`` if the time is used up."""
        if self._clock.monotonic() + self._pause > self._ends:
            raise error
        pause = self._pause * (0.5 + random.random() / 2)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return Sleep(pause)
