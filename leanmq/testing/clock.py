"""``ManualClock``: time that tests put forward, for queues on ``memory://``.

Wall time is moved by time-machine, which the server in memory reads too. What LeanMQ measures
with the monotonic clock (timeouts, its record of leases) is moved here.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import attrs

from leanmq.api import Seconds
from leanmq.clock import SystemClock
from leanmq.policy.names import seconds_of

if TYPE_CHECKING:
    import time_machine

__all__ = ["ManualClock"]

SLACK = 0.001
"""Seconds that a reading of the time may be off by rounding."""


class ManualClock:
    """The time of this process: it goes on by itself, and a test can put it forward.

    Delays, times to live, leases and LeanMQ's own timeouts pass with it, for every client on
    ``memory://``, and whoever waits there for messages looks again at once. A real Redis has a
    clock of its own, and so have asyncio and threading: their timeouts pass as ever.

    Use it as a context manager, or as the fixture ``leanmq_clock``. At the end of the block the
    time is right again, so a queue that was used inside should not be used after it.

    Raises:
        ImportError: if time-machine is not installed.

    Examples:
        >>> # Only in memory: a server has a clock of its own.
        >>> from leanmq import LeanMQ
        >>> with ManualClock() as clock, LeanMQ("memory://") as mq:
        ...     mails = mq.queue("mails")
        ...     _ = mails.send_message("in an hour", delay=3600)
        ...     before = len(mails.get_messages())
        ...     clock.advance(3600)
        ...     (before, len(mails.get_messages()))
        (0, 1)
    """

    def __init__(self) -> None:
        try:
            import time_machine
        except ImportError as error:
            raise ImportError(
                "ManualClock needs time-machine, which is not installed: "
                "pip install 'leanmq[testing]'"
            ) from error
        self._travel = time_machine.travel
        self._journeys: list[tuple[time_machine.travel, time_machine.Traveller]] = []

    def advance(self, seconds: Seconds) -> None:
        """Put the time forward.

        Args:
            seconds: How far: seconds as int or float, or a timedelta. 0 changes nothing, but has
                everybody look again.

        Raises:
            ValueError: if ``seconds`` is negative.
            RuntimeError: if the clock does not run, or something else holds the time.
        """
        by = seconds_of(seconds, "seconds")
        if not self._journeys:
            raise RuntimeError(
                "this ManualClock does not run; advance it inside 'with ManualClock() as clock'"
            )
        before = time.time()
        self._journeys[-1][1].shift(by)
        if time.time() - before < by - SLACK:
            self._journeys[-1][1].shift(-by)
            raise RuntimeError(
                "this ManualClock is not the last that took hold of the time (another "
                "ManualClock, or time_machine.travel, began after it); advance that one"
            )
        _monotonic().seconds += by
        # Whoever waits in memory has loaded this. Nobody waits elsewhere.
        hub = sys.modules.get("leanmq.backends.hub")
        if hub is not None:
            hub.wake_everybody()

    def __enter__(self) -> ManualClock:
        # It ticks, for a time that stood still would let no timeout ever end.
        travel = self._travel(time.time(), tick=True)
        self._journeys.append((travel, travel.start()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        travel, _ = self._journeys.pop()
        travel.stop()


@attrs.define
class _Monotonic:
    """The monotonic clock, put forward. It stays so in this process, for it never goes back."""

    seconds: float = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.seconds


def _monotonic() -> _Monotonic:
    """What all clients of this process read."""
    reading: object = vars(SystemClock)["monotonic"]
    if not isinstance(reading, _Monotonic):
        reading = _Monotonic()
        SystemClock.monotonic = reading  # type: ignore[assignment]  # read as it was before
    return reading
