"""``AsyncShardedQueueHandle`` and ``AsyncShardedQueue``: a queue in shards, for asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Generic

from leanmq.aio.queue import AsyncQueueHandle
from leanmq.aio.router import AsyncConsistentHashRouter
from leanmq.api import Overflow, Seconds, T
from leanmq.backends.protocol import QueueRef
from leanmq.backends.registry import describe
from leanmq.policy.codec import codec_for
from leanmq.policy.core import DEADLINE, ClientCore, ClientTerms
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import check_name, seconds_of, settings_of
from leanmq.policy.steps import drive_async
from leanmq.sharding.figures import ShardStats
from leanmq.sharding.handles import shard_logic, shards_of
from leanmq.sharding.hashing import shard_of
from leanmq.sharding.members import NodeOf
from leanmq.sharding.placement import Placement
from leanmq.sharding.shards import SHARDS

__all__ = ["AsyncShardedQueue", "AsyncShardedQueueHandle"]


class AsyncShardedQueueHandle(AsyncQueueHandle[T], Generic[T]):
    """``leanmq.ShardedQueueHandle`` for asyncio. Made by ``AsyncLeanMQ.sharded_queue``."""

    @property
    def shards(self) -> tuple[AsyncQueueHandle[T], ...]:
        """Its shards, each a queue."""
        return tuple(self.shard(number) for number in range(shards_of(self._logic)))

    def shard(self, number: int) -> AsyncQueueHandle[T]:
        """One shard, a queue: what is sent there stays there, whatever its key.

        Raises:
            ValueError: if there is no such shard.
        """
        return AsyncQueueHandle(self._backend, shard_logic(self._logic, number))

    def shard_for(self, key: str | bytes) -> AsyncQueueHandle[T]:
        """The shard of the messages of this key."""
        return self.shard(shard_of(key, shards_of(self._logic)))

    async def placement(self) -> Placement:
        """Where the shards are. See ``leanmq.ConsistentHashRouter.placement``."""
        return await (await self._router()).placement(self.name)

    async def stats_by_shard(self) -> Sequence[ShardStats]:
        """What is in each shard. See ``leanmq.ConsistentHashRouter.stats_by_shard``."""
        return await (await self._router()).stats_by_shard(self.name)

    async def readmit(self, node: str) -> bool:
        """Take in a node that lost its data. See ``leanmq.ConsistentHashRouter.readmit``."""
        return await (await self._router()).readmit(self.name, node)

    async def _router(self) -> AsyncConsistentHashRouter:
        await drive_async(self._logic.core.open(), self._backend)
        assert isinstance(self._backend, AsyncConsistentHashRouter)
        return self._backend

    @property
    def dlq(self) -> AsyncShardedQueueHandle[T]:
        """See ``leanmq.AsyncQueue.dlq``; in shards, too."""
        logic = self._logic
        dead = QueueLogic(logic.core, QueueRef(self.name, True), logic.asked, logic.codec)
        return AsyncShardedQueueHandle(self._backend, dead)


class AsyncShardedQueue(AsyncShardedQueueHandle[T], Generic[T]):
    """``leanmq.ShardedQueue`` for asyncio; clients among its nodes are ``AsyncLeanMQ``."""

    def __init__(
        self,
        name: str,
        nodes: Mapping[str, NodeOf],
        *,
        weights: Mapping[str, float] | None = None,
        shards: int = SHARDS,
        type: type[T] | None = None,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
        slot: str | None = None,
        prefix: str | None = None,
        connection_timeout: float | None = None,
        deadline: Seconds = DEADLINE,
    ) -> None:
        asked = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
            slot=slot,
            shards=shards,
        )
        ref = QueueRef(check_name(name))
        router = AsyncConsistentHashRouter(
            nodes,
            weights=weights,
            shards=shards,
            prefix=prefix,
            connection_timeout=connection_timeout,
        )
        terms = ClientTerms(deadline=seconds_of(deadline, "deadline"), prefix=router.prefix)
        core = ClientCore(describe(None, router), terms)
        super().__init__(router, QueueLogic(core, ref, asked, codec_for(type)))

    async def close(self) -> None:
        """Close all connections, but for those of clients that were given."""
        await drive_async(self._logic.core.close(), self._backend)

    async def __aenter__(self) -> AsyncShardedQueue[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
