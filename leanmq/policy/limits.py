"""How much a batching producer gathers and holds, and what it says where that ends."""

from __future__ import annotations

import attrs

from leanmq.api import Seconds
from leanmq.errors import BufferFullError
from leanmq.policy.names import seconds_of

__all__ = ["AT_EXIT", "Limits", "limits_of", "no_room", "not_closed", "not_flushed"]

AT_EXIT = 5.0
"""Seconds that the end of a process, or of its event loop, waits for messages to go at most."""


@attrs.frozen
class Limits:
    """How a producer gathers.

    Attributes:
        linger: Seconds that a batch waits for more messages after its first one.
        max_batch: Messages with which a batch goes at once, and that it has at most.
        max_bytes: Bytes of payloads and headers with which a batch goes at once.
        max_buffered: Messages that are held at most, those under way included.
        max_buffered_bytes: Bytes at which no more messages are taken in.
        max_block: Seconds that a send waits for room.
        dedup: Send a batch again whose outcome is unknown, where that cannot double it.
    """

    linger: float
    max_batch: int
    max_bytes: int
    max_buffered: int
    max_buffered_bytes: int
    max_block: float
    dedup: bool


def limits_of(
    linger: Seconds,
    max_batch: int,
    max_bytes: int,
    max_buffered: int,
    max_buffered_bytes: int,
    max_block: Seconds,
    dedup: bool,
) -> Limits:
    """Limits as given, checked.

    >>> limits_of(0.005, 0, 1, 1, 1, 30, True)
    Traceback (most recent call last):
    ValueError: max_batch is 0; give 1 or more
    """
    counts = {
        "max_batch": max_batch,
        "max_bytes": max_bytes,
        "max_buffered": max_buffered,
        "max_buffered_bytes": max_buffered_bytes,
    }
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if value < 1:
            raise ValueError(f"{name} is {value}; give 1 or more")
    return Limits(
        linger=seconds_of(linger, "linger"),
        max_block=seconds_of(max_block, "max_block"),
        dedup=bool(dedup),
        **counts,
    )


def no_room(queue: str, limits: Limits, count: int, size: int) -> BufferFullError:
    """The buffer, of so many messages and bytes, was full for too long."""
    return BufferFullError(
        f"the producer of queue {queue!r} holds {count:,} of {limits.max_buffered:,} messages, "
        f"{size:,} of {limits.max_buffered_bytes:,} bytes, and had no room within "
        f"{limits.max_block:g} s; send less, or raise max_buffered, max_buffered_bytes or "
        "max_block",
        queue=queue,
    )


def not_flushed(queue: str, count: int, wait: float) -> TimeoutError:
    """So many messages have no result after so many seconds."""
    return TimeoutError(
        f"the producer of queue {queue!r} holds {count:,} messages after {wait:g} s; it goes on "
        "sending them"
    )


def not_closed(queue: str) -> str:
    """What is wrong when a producer is found at the end of its process."""
    return (
        f"the producer of queue {queue!r} was not closed; close it, or use it as a context manager"
    )
