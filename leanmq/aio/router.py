"""``AsyncConsistentHashRouter`` and ``AsyncRoundRobinRouter``: the routers for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from leanmq.backends.protocol import (
    Alter,
    AsyncBackend,
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
from leanmq.errors import LeanMQError
from leanmq.sharding.balancing import Balancing
from leanmq.sharding.figures import ShardStats
from leanmq.sharding.members import Member, NodeOf, members_of, prefix_of, weights_of
from leanmq.sharding.nodes import AsyncNodes
from leanmq.sharding.placement import Placement
from leanmq.sharding.shards import SHARDS, Sharding
from leanmq.sharding.steps import Plan
from leanmq.sharding.tally import TargetStats

__all__ = ["AsyncConsistentHashRouter", "AsyncRoundRobinRouter"]

T = TypeVar("T")


class _AsyncRouter:
    """An ``AsyncBackend`` by plans over nodes."""

    def __init__(self, members: Any, routing: Sharding | Balancing) -> None:
        self._members = members
        self._nodes = AsyncNodes([member.backend for member in members], routing.forked)
        self.routing = routing
        self.prefix = prefix_of(members)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self._names}>"

    @property
    def capabilities(self) -> Capabilities:
        """What is known without asking: what it is called."""
        return Capabilities(f"{self.routing.kind} over {self._names}")

    @property
    def _names(self) -> str:
        return ", ".join(f"{member.name} ({member.display})" for member in self._members)

    async def _do(self, plan: Plan[T]) -> T:
        return await self._nodes.drive(plan)

    async def open(self) -> Capabilities:
        """Reach the nodes: one at least, the others when they are back."""
        return await self._do(self.routing.open())

    async def close(self) -> None:
        """Close the nodes, but for those of a client that was given: that stays open."""
        await self._do(self.routing.close())
        await self._nodes.close()
        for member in self._members:
            if member.owned:
                await member.backend.close()

    async def ping(self) -> None:
        """One round trip to every node."""
        await self._do(self.routing.ping())

    async def declare(self, request: Declare) -> Declared:
        """See ``AsyncBackend.declare``."""
        return await self._do(self.routing.declare(request))

    async def alter(self, request: Alter) -> Declared:
        """See ``AsyncBackend.alter``. All nodes must be in reach."""
        return await self._do(self.routing.alter(request))

    async def drop(self, request: Drop) -> Dropped:
        """See ``AsyncBackend.drop``. All nodes must be in reach."""
        return await self._do(self.routing.drop(request))

    async def list(self, request: ListQueues) -> Listed:
        """See ``AsyncBackend.list``. All nodes must be in reach."""
        return await self._do(self.routing.list(request))

    async def send(self, batch: SendBatch) -> Sent:
        """See ``AsyncBackend.send``. The parts of a batch succeed or fail each by itself."""
        return await self._do(self.routing.send(batch))

    async def together(self, batches: Sequence[SendBatch]) -> Sequence[Sent | LeanMQError]:
        """See ``AsyncManyQueues.together``; only for sends."""
        return await self._do(self.routing.together(batches))

    async def transact(self, request: Transact) -> Sent:
        """See ``AsyncBackend.transact``. All of it must be on one node."""
        return await self._do(self.routing.transact(request))

    async def exchange(self, request: Exchange) -> Exchanged:
        """See ``AsyncBackend.exchange``. Receives from those nodes that are in reach."""
        return await self._do(self.routing.exchange(request))

    async def extend(self, request: Extend) -> Extended:
        """See ``AsyncBackend.extend``."""
        return await self._do(self.routing.extend(request))

    async def peek(self, request: Peek) -> Peeked:
        """See ``AsyncBackend.peek``. All nodes must be in reach."""
        return await self._do(self.routing.peek(request))

    async def redrive(self, request: Redrive) -> Redriven:
        """See ``AsyncBackend.redrive``."""
        return await self._do(self.routing.redrive(request))

    async def purge(self, request: Purge) -> Purged:
        """See ``AsyncBackend.purge``. All nodes must be in reach."""
        return await self._do(self.routing.purge(request))

    async def stats(self, request: Stats) -> QueueStats:
        """See ``AsyncBackend.stats``. All nodes must be in reach."""
        return await self._do(self.routing.stats(request))


class AsyncConsistentHashRouter(_AsyncRouter):
    """``leanmq.ConsistentHashRouter`` for asyncio; clients among its nodes are ``AsyncLeanMQ``."""

    routing: Sharding

    def __init__(
        self,
        nodes: Mapping[str, NodeOf],
        *,
        weights: Mapping[str, float] | None = None,
        shards: int = SHARDS,
        prefix: str | None = None,
        connection_timeout: float | None = None,
    ) -> None:
        checked = weights_of(nodes, weights)
        members = members_of(nodes, prefix, connection_timeout, asynchronous=True)
        super().__init__(members, Sharding(checked, shards))

    async def placement(self, queue: str) -> Placement:
        """See ``leanmq.ConsistentHashRouter.placement``."""
        return await self._do(self.routing.placement(queue))

    async def stats_by_shard(self, queue: str) -> Sequence[ShardStats]:
        """See ``leanmq.ConsistentHashRouter.stats_by_shard``."""
        return await self._do(self.routing.stats_by_shard(queue))

    async def readmit(self, queue: str, node: str) -> bool:
        """See ``leanmq.ConsistentHashRouter.readmit``."""
        return await self._do(self.routing.readmit(queue, node))

    @classmethod
    def alone(cls, backend: AsyncBackend, name: str) -> AsyncConsistentHashRouter:
        """A router over one backend, which it does not close: for queues in shards on that."""
        router = cls.__new__(cls)
        member = Member("default", backend, name, owned=False)
        _AsyncRouter.__init__(router, [member], Sharding({member.name: 1.0}, SHARDS))
        return router


class AsyncRoundRobinRouter(_AsyncRouter):
    """``leanmq.RoundRobinRouter`` for asyncio; clients among its nodes are ``AsyncLeanMQ``."""

    routing: Balancing

    def __init__(
        self,
        nodes: Mapping[str, NodeOf],
        *,
        strategy: str = "round-robin",
        weights: Mapping[str, float] | None = None,
        prefix: str | None = None,
        connection_timeout: float | None = None,
    ) -> None:
        checked = weights_of(nodes, weights)
        members = members_of(nodes, prefix, connection_timeout, asynchronous=True)
        super().__init__(members, Balancing(checked, strategy))

    def stats_by_target(self) -> Mapping[str, TargetStats]:
        """What was sent to each target so far, and whether it takes messages. Does no I/O."""
        return self.routing.stats_by_target()
