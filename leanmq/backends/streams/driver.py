"""The backends of Redis streams: operations, driven on a connection. Sync and asyncio.

A connection is what ``memory.py`` and ``connections.py`` offer: it runs Calls on the nodes of
its topology and knows nothing of queues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import attrs

from leanmq.backends.many import Record, Recorded, Request, Result, Watch, Watched
from leanmq.backends.protocol import (
    Alter,
    Capabilities,
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
    QueueStats,
    Redrive,
    Redriven,
    SendBatch,
    Sent,
    Stats,
    Transact,
)
from leanmq.backends.streams import many
from leanmq.backends.streams.calls import Call, Hub, Many, Outcomes
from leanmq.backends.streams.older import notices
from leanmq.backends.streams.operations import StreamOperations
from leanmq.backends.streams.running import Operation

__all__ = ["AsyncConnection", "AsyncStreamsBackend", "Connection", "StreamsBackend"]

T = TypeVar("T")


class Connection(Protocol):
    """Runs Calls somewhere. Shared by threads."""

    @property
    def hub(self) -> Hub | None:
        """Where to wait if the server cannot be left blocking, else None."""
        ...

    @property
    def wakes(self) -> Hub | None:
        """Where to wait for many queues if no server can be left blocking for them, else None."""
        ...

    def open(self) -> None:
        """One round trip to everywhere; raises a LeanMQError if there is none."""
        ...

    def run(self, call: Call) -> Outcomes:
        """One outcome for each command; trouble is a value, never an exception."""
        ...

    def run_many(self, calls: Sequence[Call]) -> list[Outcomes]:
        """What ``run`` would return for each call; see ``Many`` for what calls these may be."""
        ...

    def close(self) -> None:
        """Close all sockets."""
        ...


class AsyncConnection(Protocol):
    """``Connection`` for asyncio."""

    @property
    def hub(self) -> Hub | None:
        """See ``Connection.hub``."""
        ...

    @property
    def wakes(self) -> Hub | None:
        """See ``Connection.wakes``."""
        ...

    async def open(self) -> None:
        """See ``Connection.open``."""
        ...

    async def run(self, call: Call) -> Outcomes:
        """See ``Connection.run``."""
        ...

    async def run_many(self, calls: Sequence[Call]) -> list[Outcomes]:
        """See ``Connection.run_many``."""
        ...

    async def close(self) -> None:
        """See ``Connection.close``."""
        ...


@attrs.frozen
class StreamsBackend:
    """``Backend`` on Redis streams."""

    connection: Connection
    capabilities: Capabilities
    prefix: str = "mq:"
    _do: StreamOperations = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_do", _operations(self))

    def _drive(self, operation: Operation[T]) -> T:
        outcomes: Outcomes | list[Outcomes] | None = None
        try:
            while True:
                step = operation.send(outcomes)
                if isinstance(step, Call):
                    outcomes = self.connection.run(step)
                elif isinstance(step, Many):
                    outcomes = self.connection.run_many(step.calls)
                else:
                    step.hub.wait(step)
                    outcomes = ()
        except StopIteration as stop:
            result: T = stop.value
            return result

    def open(self) -> Capabilities:
        """Connect everywhere."""
        self.connection.open()
        return attrs.evolve(self.capabilities, notices=self._drive(notices(self.prefix)))

    def close(self) -> None:
        """Close all connections."""
        self.connection.close()

    def ping(self) -> None:
        """One round trip to every node that holds messages."""
        self.connection.open()

    def declare(self, request: Declare) -> Declared:
        """See ``Backend.declare``."""
        return self._drive(self._do.declare(request))

    def alter(self, request: Alter) -> Declared:
        """See ``Backend.alter``."""
        return self._drive(self._do.alter(request))

    def drop(self, request: Drop) -> Dropped:
        """See ``Backend.drop``."""
        return self._drive(self._do.drop(request))

    def list(self, request: ListQueues) -> Listed:
        """See ``Backend.list``."""
        return self._drive(self._do.list(request))

    def send(self, batch: SendBatch) -> Sent:
        """See ``Backend.send``."""
        return self._drive(self._do.send(batch))

    def transact(self, request: Transact) -> Sent:
        """See ``Backend.transact``."""
        return self._drive(self._do.transact(request))

    def exchange(self, request: Exchange) -> Exchanged:
        """See ``Backend.exchange``."""
        return self._drive(self._do.exchange(request))

    def extend(self, request: Extend) -> Extended:
        """See ``Backend.extend``."""
        return self._drive(self._do.extend(request))

    def peek(self, request: Peek) -> Peeked:
        """See ``Backend.peek``."""
        return self._drive(self._do.peek(request))

    def redrive(self, request: Redrive) -> Redriven:
        """See ``Backend.redrive``."""
        return self._drive(self._do.redrive(request))

    def purge(self, request: Purge) -> Purged:
        """See ``Backend.purge``."""
        return self._drive(self._do.purge(request))

    def stats(self, request: Stats) -> QueueStats:
        """See ``Backend.stats``."""
        return self._drive(self._do.stats(request))

    def together(self, requests: Sequence[Request]) -> Sequence[Result]:
        """See ``ManyQueues.together``."""
        return self._drive(many.requested(self._do, requests))

    def watch(self, request: Watch) -> Watched:
        """See ``ManyQueues.watch``."""
        return self._drive(many.watch(self._do, request))

    def record(self, request: Record) -> Recorded:
        """See ``ManyQueues.record``."""
        return self._drive(many.record(self._do, request))


@attrs.frozen
class AsyncStreamsBackend:
    """``AsyncBackend`` on Redis streams."""

    connection: AsyncConnection
    capabilities: Capabilities
    prefix: str = "mq:"
    _do: StreamOperations = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_do", _operations(self))

    async def _drive(self, operation: Operation[T]) -> T:
        outcomes: Outcomes | list[Outcomes] | None = None
        try:
            while True:
                step = operation.send(outcomes)
                if isinstance(step, Call):
                    outcomes = await self.connection.run(step)
                elif isinstance(step, Many):
                    outcomes = await self.connection.run_many(step.calls)
                else:
                    await step.hub.wait_async(step)
                    outcomes = ()
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def open(self) -> Capabilities:
        """Connect everywhere."""
        await self.connection.open()
        found = await self._drive(notices(self.prefix))
        return attrs.evolve(self.capabilities, notices=found)

    async def close(self) -> None:
        """Close all connections."""
        await self.connection.close()

    async def ping(self) -> None:
        """One round trip to every node that holds messages."""
        await self.connection.open()

    async def declare(self, request: Declare) -> Declared:
        """See ``Backend.declare``."""
        return await self._drive(self._do.declare(request))

    async def alter(self, request: Alter) -> Declared:
        """See ``Backend.alter``."""
        return await self._drive(self._do.alter(request))

    async def drop(self, request: Drop) -> Dropped:
        """See ``Backend.drop``."""
        return await self._drive(self._do.drop(request))

    async def list(self, request: ListQueues) -> Listed:
        """See ``Backend.list``."""
        return await self._drive(self._do.list(request))

    async def send(self, batch: SendBatch) -> Sent:
        """See ``Backend.send``."""
        return await self._drive(self._do.send(batch))

    async def transact(self, request: Transact) -> Sent:
        """See ``Backend.transact``."""
        return await self._drive(self._do.transact(request))

    async def exchange(self, request: Exchange) -> Exchanged:
        """See ``Backend.exchange``."""
        return await self._drive(self._do.exchange(request))

    async def extend(self, request: Extend) -> Extended:
        """See ``Backend.extend``."""
        return await self._drive(self._do.extend(request))

    async def peek(self, request: Peek) -> Peeked:
        """See ``Backend.peek``."""
        return await self._drive(self._do.peek(request))

    async def redrive(self, request: Redrive) -> Redriven:
        """See ``Backend.redrive``."""
        return await self._drive(self._do.redrive(request))

    async def purge(self, request: Purge) -> Purged:
        """See ``Backend.purge``."""
        return await self._drive(self._do.purge(request))

    async def stats(self, request: Stats) -> QueueStats:
        """See ``Backend.stats``."""
        return await self._drive(self._do.stats(request))

    async def together(self, requests: Sequence[Request]) -> Sequence[Result]:
        """See ``ManyQueues.together``."""
        return await self._drive(many.requested(self._do, requests))

    async def watch(self, request: Watch) -> Watched:
        """See ``ManyQueues.watch``."""
        return await self._drive(many.watch(self._do, request))

    async def record(self, request: Record) -> Recorded:
        """See ``ManyQueues.record``."""
        return await self._drive(many.record(self._do, request))


def _operations(backend: StreamsBackend | AsyncStreamsBackend) -> StreamOperations:
    connection = backend.connection
    apart = not backend.capabilities.transactions_across_queues
    return StreamOperations(backend.prefix, connection.hub, apart, connection.wakes)
