"""The part of the seam for backends that serve many queues at once. Routers build on it.

A backend that has these methods says so by ``Capabilities.many_queues``. One that has not can
still be a target of a round-robin router, which then asks for one thing after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import attrs
import msgspec

from leanmq.backends.protocol import (
    Alter,
    Declare,
    Declared,
    Drop,
    Dropped,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Listed,
    ListQueues,
    Peek,
    Peeked,
    Purge,
    Purged,
    QueueRef,
    QueueStats,
    Redrive,
    Redriven,
    SendBatch,
    Sent,
    Stats,
    Transact,
)
from leanmq.errors import LeanMQError

__all__ = [
    "METHODS",
    "AsyncManyQueues",
    "ManyQueues",
    "Record",
    "Recorded",
    "Request",
    "Result",
    "Watch",
    "Watched",
]


@attrs.frozen
class Record:
    """Read the text that is stored under a name, or replace it.

    Queues and records share their names: what is stored for a queue is read, never replaced.

    Attributes:
        name: A name of a queue, or one that no queue can have.
        value: Store this, if what is stored is ``expected``. None: only read.
        expected: What is thought to be stored; None: nothing.
        forget: Delete it instead, on the same condition.
    """

    name: str
    value: str | None = None
    expected: str | None = None
    forget: bool = False


@attrs.frozen
class Recorded:
    """What is stored now; None: nothing."""

    value: str | None


class Watch(msgspec.Struct, frozen=True):
    """Wait, and take nothing, until a message may be there.

    Attributes:
        queues: Each with the ``Exchanged.mark`` of the last look at it.
        wait: Seconds to wait at most; the backend may return earlier.
    """

    queues: Sequence[tuple[QueueRef, str]]
    wait: float


class Watched(msgspec.Struct, frozen=True):
    """The queues in which something came, as far as is known."""

    awake: Sequence[QueueRef]


Request: TypeAlias = (
    Declare
    | Alter
    | Drop
    | ListQueues
    | SendBatch
    | Transact
    | Exchange
    | Extend
    | Peek
    | Redrive
    | Purge
    | Stats
    | Record
)
"""What ``together`` takes."""

Result: TypeAlias = (
    Declared
    | Dropped
    | Listed
    | Sent
    | Exchanged
    | Extended
    | Peeked
    | Redriven
    | Purged
    | QueueStats
    | Recorded
    | LeanMQError
)
"""What came of a request: what its method would return, or the error that it would raise."""

METHODS = {
    Declare: "declare",
    Alter: "alter",
    Drop: "drop",
    ListQueues: "list",
    SendBatch: "send",
    Transact: "transact",
    Exchange: "exchange",
    Extend: "extend",
    Peek: "peek",
    Redrive: "redrive",
    Purge: "purge",
    Stats: "stats",
    Record: "record",
}
"""The method that a request is for."""


@runtime_checkable
class ManyQueues(Protocol):
    """What a ``Backend`` may have besides."""

    def together(self, requests: Sequence[Request]) -> Sequence[Result]:
        """Carry out requests that do not depend on each other, in as few round trips as can be.

        They are carried out in no order, each as its method would, and fail each by itself. At
        most one of them sends to, or receives from, the same queue; none waits. Raises nothing.
        """
        ...

    def watch(self, request: Watch) -> Watched:
        """Wait for messages that came after the marks. Idempotent; takes nothing.

        What comes between a look and its watch is not missed. A delay or a lease that ends is
        not told; ``Exchanged.soon`` is for that.
        """
        ...

    def record(self, request: Record) -> Recorded:
        """Compare and set, in one atomic step. If the reply was lost, look what is stored."""
        ...


@runtime_checkable
class AsyncManyQueues(Protocol):
    """``ManyQueues`` for asyncio."""

    async def together(self, requests: Sequence[Request]) -> Sequence[Result]:
        """See ``ManyQueues.together``."""
        ...

    async def watch(self, request: Watch) -> Watched:
        """See ``ManyQueues.watch``."""
        ...

    async def record(self, request: Record) -> Recorded:
        """See ``ManyQueues.record``."""
        ...
