"""``LoadBalancedProducer``: sends to several deployments in turn, for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from leanmq.api import Moment, QueueName, Seconds
from leanmq.compat import older_spellings, send_spellings
from leanmq.policy.client import LeanMQ
from leanmq.policy.core import DEADLINE
from leanmq.policy.queue import QueueHandle
from leanmq.sharding.members import TargetOf, targets_of
from leanmq.sharding.router import RoundRobinRouter
from leanmq.sharding.tally import TargetStats

__all__ = ["LoadBalancedProducer"]


class LoadBalancedProducer:
    """Sends each message to one of several deployments, in turn. Share it between threads.

    It is a client on a ``RoundRobinRouter``, which see for what happens when a target is down.

    Args:
        targets: URLs, clients (``LeanMQ``, which stay open), backends, or dicts with ``host`` and
            ``port`` and perhaps ``db``, ``password`` and ``prefix`` (empty if not given, as in
            version 0.2.0); by name, or in a list: then they are called ``target1`` and so on.
        strategy: ``"round-robin"``, or ``"least-backlog"``: the shorter queue of two at random.
        weights: How much of the messages a target gets, by name; 1 if not given.
        prefix: What every key begins with, for targets that are URLs (``mq:``).
        connection_timeout: Seconds, for targets that are URLs or dicts (3).
        deadline: Seconds that a send is tried again while no target takes it.

    Raises:
        ValueError: if a target, a name, a weight or the strategy cannot be.
        TypeError: if something cannot be a target.

    Examples:
        >>> from leanmq import LoadBalancedProducer
        >>> with LoadBalancedProducer(["memory://a", "memory://b"]) as producer:
        ...     for number in range(4):
        ...         _ = producer.send_message("orders", {"id": number})
        ...     {name: target.sends for name, target in producer.stats().items()}
        {'target1': 2, 'target2': 2}
    """

    def __init__(
        self,
        targets: Iterable[TargetOf] | Mapping[str, TargetOf],
        *,
        strategy: str = "round-robin",
        weights: Mapping[str, float] | None = None,
        prefix: str | None = None,
        connection_timeout: float | None = None,
        deadline: Seconds = DEADLINE,
    ) -> None:
        self._router = RoundRobinRouter(
            targets_of(targets, connection_timeout),
            strategy=strategy,
            weights=weights,
            prefix=prefix,
            connection_timeout=connection_timeout,
        )
        self._mq = LeanMQ(backend=self._router, deadline=deadline)

    def __repr__(self) -> str:
        return f"<LoadBalancedProducer on {self._router!r}>"

    @older_spellings(send_spellings(2), positional=2)
    def send_message(
        self,
        queue_name: QueueName,
        data: Any,
        *,
        key: str | None = None,
        ttl_seconds: Seconds | None = None,
        delay: Moment | None = None,
        headers: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        dedup_id: str | None = None,
    ) -> str:
        """Store a message at one of the targets. See ``leanmq.Queue.send_message``."""
        return self._mq.queue(queue_name).send_message(
            data,
            key=key,
            ttl_seconds=ttl_seconds,
            delay=delay,
            headers=headers,
            message_id=message_id,
            dedup_id=dedup_id,
        )

    def queue(self, name: QueueName, **settings: Any) -> QueueHandle[Any]:
        """The queue over all targets, for everything else. Settings as for ``LeanMQ.queue``."""
        return self._mq.queue(name, **settings)

    def stats(self) -> Mapping[str, TargetStats]:
        """What was sent to each target so far, and whether it takes messages. Does no I/O."""
        return self._router.stats_by_target()

    def close(self) -> None:
        """Close all connections, but for those of clients that were given."""
        self._mq.close()

    def __enter__(self) -> LoadBalancedProducer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
