"""``ShardedQueueHandle`` and ``ShardedQueue``: a queue in shards, for threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Generic

from leanmq.api import Overflow, Seconds, T
from leanmq.backends.protocol import QueueRef
from leanmq.backends.registry import describe
from leanmq.policy.codec import codec_for
from leanmq.policy.core import DEADLINE, ClientCore, ClientTerms
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import check_name, seconds_of, settings_of
from leanmq.policy.queue import QueueHandle
from leanmq.policy.steps import drive
from leanmq.sharding.figures import ShardStats
from leanmq.sharding.handles import shard_logic, shards_of
from leanmq.sharding.hashing import shard_of
from leanmq.sharding.members import NodeOf
from leanmq.sharding.placement import Placement
from leanmq.sharding.router import ConsistentHashRouter
from leanmq.sharding.shards import SHARDS

__all__ = ["ShardedQueue", "ShardedQueueHandle"]


class ShardedQueueHandle(QueueHandle[T], Generic[T]):
    """A queue in shards: ``leanmq.Queue``, and its shards, which are queues, too.

    Made by ``LeanMQ.sharded_queue`` without any I/O.
    """

    @property
    def shards(self) -> tuple[QueueHandle[T], ...]:
        """Its shards, each a queue."""
        return tuple(self.shard(number) for number in range(shards_of(self._logic)))

    def shard(self, number: int) -> QueueHandle[T]:
        """One shard, a queue: what is sent there stays there, whatever its key.

        Raises:
            ValueError: if there is no such shard.
        """
        return QueueHandle(self._backend, shard_logic(self._logic, number))

    def shard_for(self, key: str | bytes) -> QueueHandle[T]:
        """The shard of the messages of this key."""
        return self.shard(shard_of(key, shards_of(self._logic)))

    def placement(self) -> Placement:
        """Where the shards are. See ``leanmq.ConsistentHashRouter.placement``."""
        return self._router().placement(self.name)

    def stats_by_shard(self) -> Sequence[ShardStats]:
        """What is in each shard. See ``leanmq.ConsistentHashRouter.stats_by_shard``."""
        return self._router().stats_by_shard(self.name)

    def readmit(self, node: str) -> bool:
        """Take in a node that lost its data. See ``leanmq.ConsistentHashRouter.readmit``."""
        return self._router().readmit(self.name, node)

    def _router(self) -> ConsistentHashRouter:
        drive(self._logic.core.open(), self._backend)
        assert isinstance(self._backend, ConsistentHashRouter)
        return self._backend

    @property
    def dlq(self) -> ShardedQueueHandle[T]:
        """See ``leanmq.Queue.dlq``; in shards, too."""
        logic = self._logic
        dead = QueueLogic(logic.core, QueueRef(self.name, True), logic.asked, logic.codec)
        return ShardedQueueHandle(self._backend, dead)


class ShardedQueue(ShardedQueueHandle[T], Generic[T]):
    """A queue in shards over several deployments: ``leanmq.Queue``, and its shards.

    The first that uses it decides, by consistent hashing, where the shards are, and writes that
    down on every node. Close it, or use it as a context manager.

    Args:
        name: 1 to 200 ASCII letters, digits and ``. _ : / -``.
        nodes: Deployments by name: URLs, backends, or clients (``LeanMQ``), which stay open.
        weights: How much of the shards a node gets, by name; 1 if not given.
        shards: How many; they stay as many. 64 shards can be spread over up to 64 nodes.
        type: See ``LeanMQ.queue``, also for the settings that follow.
        prefix: What every key begins with, for nodes that are URLs (``mq:``).
        connection_timeout: Seconds, for nodes that are URLs (3).
        deadline: Seconds that an operation is tried again while a node does not serve.

    Raises:
        ValueError: if a name, a weight or a setting cannot be.

    Examples:
        >>> from leanmq import ShardedQueue
        >>> with ShardedQueue("orders", {"a": "memory://a", "b": "memory://b"}, shards=8) as orders:
        ...     _ = orders.send_message({"id": 7}, key="customer 12")
        ...     [message.data for message in orders.shard_for("customer 12").get_messages()]
        [{'id': 7}]
    """

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
        router = ConsistentHashRouter(
            nodes,
            weights=weights,
            shards=shards,
            prefix=prefix,
            connection_timeout=connection_timeout,
        )
        terms = ClientTerms(deadline=seconds_of(deadline, "deadline"), prefix=router.prefix)
        core = ClientCore(describe(None, router), terms)
        super().__init__(router, QueueLogic(core, ref, asked, codec_for(type)))

    def close(self) -> None:
        """Close all connections, but for those of clients that were given."""
        drive(self._logic.core.close(), self._backend)

    def __enter__(self) -> ShardedQueue[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
