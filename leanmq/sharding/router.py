"""``ConsistentHashRouter`` and ``RoundRobinRouter``: backends made of backends, for threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from leanmq.backends.protocol import (
    Alter,
    Backend,
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
from leanmq.sharding.nodes import Nodes
from leanmq.sharding.placement import Placement
from leanmq.sharding.shards import SHARDS, Sharding
from leanmq.sharding.steps import Plan
from leanmq.sharding.tally import TargetStats

__all__ = ["ConsistentHashRouter", "RoundRobinRouter"]

T = TypeVar("T")


class _Router:
    """A ``Backend`` by plans over nodes."""

    def __init__(self, members: Any, routing: Sharding | Balancing) -> None:
        self._members = members
        self._nodes = Nodes([member.backend for member in members], routing.forked)
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

    def _do(self, plan: Plan[T]) -> T:
        return self._nodes.drive(plan)

    def open(self) -> Capabilities:
        """Reach the nodes: one at least, the others when they are back."""
        return self._do(self.routing.open())

    def close(self) -> None:
        """Close the nodes, but for those of a client that was given: that stays open."""
        self._do(self.routing.close())
        self._nodes.close()
        for member in self._members:
            if member.owned:
                member.backend.close()

    def ping(self) -> None:
        """One round trip to every node."""
        self._do(self.routing.ping())

    def declare(self, request: Declare) -> Declared:
        """See ``Backend.declare``."""
        return self._do(self.routing.declare(request))

    def alter(self, request: Alter) -> Declared:
        """See ``Backend.alter``. All nodes must be in reach."""
        return self._do(self.routing.alter(request))

    def drop(self, request: Drop) -> Dropped:
        """See ``Backend.drop``. All nodes must be in reach."""
        return self._do(self.routing.drop(request))

    def list(self, request: ListQueues) -> Listed:
        """See ``Backend.list``. All nodes must be in reach."""
        return self._do(self.routing.list(request))

    def send(self, batch: SendBatch) -> Sent:
        """See ``Backend.send``. The parts of a batch succeed or fail each by itself."""
        return self._do(self.routing.send(batch))

    def together(self, batches: Sequence[SendBatch]) -> Sequence[Sent | LeanMQError]:
        """See ``ManyQueues.together``; only for sends."""
        return self._do(self.routing.together(batches))

    def transact(self, request: Transact) -> Sent:
        """See ``Backend.transact``. All of it must be on one node."""
        return self._do(self.routing.transact(request))

    def exchange(self, request: Exchange) -> Exchanged:
        """See ``Backend.exchange``. Receives from those nodes that are in reach."""
        return self._do(self.routing.exchange(request))

    def extend(self, request: Extend) -> Extended:
        """See ``Backend.extend``."""
        return self._do(self.routing.extend(request))

    def peek(self, request: Peek) -> Peeked:
        """See ``Backend.peek``. All nodes must be in reach."""
        return self._do(self.routing.peek(request))

    def redrive(self, request: Redrive) -> Redriven:
        """See ``Backend.redrive``."""
        return self._do(self.routing.redrive(request))

    def purge(self, request: Purge) -> Purged:
        """See ``Backend.purge``. All nodes must be in reach."""
        return self._do(self.routing.purge(request))

    def stats(self, request: Stats) -> QueueStats:
        """See ``Backend.stats``. All nodes must be in reach."""
        return self._do(self.routing.stats(request))


class ConsistentHashRouter(_Router):
    """Keeps each queue in shards, and each shard on one of several deployments.

    Messages of one key are in one shard, in order; those without a key go round. Where the shards
    are is decided once, by consistent hashing with weights, and written down on every node.
    Opening other nodes than those is a ``PlacementError``.

    Args:
        nodes: Deployments by name: URLs, backends, or clients (``LeanMQ``), which stay open.
        weights: How much of the shards a node gets, by name; 1 if not given.
        shards: Of a new queue that asks for no number itself.
        prefix: What every key begins with, for nodes that are URLs (``mq:``).
        connection_timeout: Seconds, for nodes that are URLs (3).

    Raises:
        TypeError: if the number of shards is no int.
        ValueError: if names, weights or the number of shards cannot be.

    Examples:
        >>> from leanmq import ConsistentHashRouter, LeanMQ
        >>> router = ConsistentHashRouter({"a": "memory://a", "b": "memory://b"}, shards=8)
        >>> with LeanMQ(backend=router) as mq:
        ...     orders = mq.queue("orders")
        ...     _ = orders.send_message({"id": 7}, key="customer 12")
        ...     [message.data for message in orders.get_messages()]
        [{'id': 7}]
    """

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
        members = members_of(nodes, prefix, connection_timeout)
        super().__init__(members, Sharding(checked, shards))

    def placement(self, queue: str) -> Placement:
        """Where the shards of a queue are, as its nodes have it written down.

        Args:
            queue: The short name of the queue.

        Raises:
            QueueNotFoundError: if there is no such queue.
            PlacementError: if its shards are on other nodes.
        """
        return self._do(self.routing.placement(queue))

    def stats_by_shard(self, queue: str) -> Sequence[ShardStats]:
        """What is in each shard of a queue. A node that is out of reach costs only its figures.

        Raises:
            QueueNotFoundError: if there is no such queue.
            PlacementError: if its shards are on other nodes.
            ConnectionError: if no node is in reach.

        Examples:
            >>> from leanmq import ConsistentHashRouter, LeanMQ
            >>> router = ConsistentHashRouter({"a": "memory://a"}, shards=2)
            >>> with LeanMQ(backend=router) as mq:
            ...     _ = mq.queue("parcels").send_message({"id": 7}, key="customer 12")
            ...     [(stats.node, stats.ready) for stats in router.stats_by_shard("parcels")]
            [('a', 0), ('a', 1)]
        """
        return self._do(self.routing.stats_by_shard(queue))

    def readmit(self, queue: str, node: str) -> bool:
        """Take in a node that lost its data, in place of what it was.

        Programs that run and know the node do so by themselves. Those that start cannot tell an
        empty server from a wrong one: say so only if what the node held is lost for good, since
        its shards are made anew, and whatever another server holds of them is found by nobody.

        Returns:
            Whether it had to be done.

        Raises:
            QueueNotFoundError: if no node knows the queue.
            PlacementError: if the node is not empty but another one, or others differ as well.
            ConnectionError: if the node is out of reach.
            ValueError: if there is no such node.
        """
        return self._do(self.routing.readmit(queue, node))

    @classmethod
    def alone(cls, backend: Backend, name: str) -> ConsistentHashRouter:
        """A router over one backend, which it does not close: for queues in shards on that."""
        router = cls.__new__(cls)
        member = Member("default", backend, name, owned=False)
        _Router.__init__(router, [member], Sharding({member.name: 1.0}, SHARDS))
        return router


class RoundRobinRouter(_Router):
    """Spreads the messages of each queue over several deployments, which each have the queue.

    A deployment that refuses messages (down, loading, read-only, full) is left out for a while,
    and its share goes to the others; it is received from all the same. A send of unknown outcome
    is never repeated elsewhere: it raises ``OutcomeUnknownError``, or, with a ``dedup_id``, is
    repeated where it was. A ``dedup_id`` names its target, so that a second send finds the first.

    Args:
        nodes: Deployments by name: URLs, backends, or clients (``LeanMQ``), which stay open.
        strategy: ``"round-robin"``, or ``"least-backlog"``: the shorter queue of two at random.
        weights: How much of the messages a node gets, by name; 1 if not given.
        prefix: What every key begins with, for nodes that are URLs (``mq:``).
        connection_timeout: Seconds, for nodes that are URLs (3).

    Raises:
        ValueError: if names, weights or the strategy cannot be.

    Examples:
        >>> from leanmq import LeanMQ, RoundRobinRouter
        >>> router = RoundRobinRouter({"a": "memory://", "b": "memory://"})
        >>> with LeanMQ(backend=router) as mq:
        ...     _ = mq.queue("orders").send_messages(range(10))
        ...     {name: stats.sends for name, stats in router.stats_by_target().items()}
        {'a': 5, 'b': 5}
    """

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
        members = members_of(nodes, prefix, connection_timeout)
        super().__init__(members, Balancing(checked, strategy))

    def stats_by_target(self) -> Mapping[str, TargetStats]:
        """What was sent to each target so far, and whether it takes messages. Does no I/O."""
        return self.routing.stats_by_target()
