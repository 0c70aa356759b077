"""``AsyncLoadBalancedProducer``: sends to several deployments in turn, for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from leanmq.aio.client import AsyncLeanMQ
from leanmq.aio.queue import AsyncQueueHandle
from leanmq.aio.router import AsyncRoundRobinRouter
from leanmq.api import Moment, QueueName, Seconds
from leanmq.compat import older_spellings, send_spellings
from leanmq.policy.core import DEADLINE
from leanmq.sharding.members import TargetOf, targets_of
from leanmq.sharding.tally import TargetStats

__all__ = ["AsyncLoadBalancedProducer"]


class AsyncLoadBalancedProducer:
    """``leanmq.LoadBalancedProducer`` for asyncio; clients that are targets are ``AsyncLeanMQ``."""

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
        self._router = AsyncRoundRobinRouter(
            targets_of(targets, connection_timeout, asynchronous=True),
            strategy=strategy,
            weights=weights,
            prefix=prefix,
            connection_timeout=connection_timeout,
        )
        self._mq = AsyncLeanMQ(backend=self._router, deadline=deadline)

    def __repr__(self) -> str:
        return f"<AsyncLoadBalancedProducer on {self._router!r}>"

    @older_spellings(send_spellings(2), positional=2)
    async def send_message(
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
        """Store a message at one of the targets. See ``leanmq.AsyncQueue.send_message``."""
        return await self._mq.queue(queue_name).send_message(
            data,
            key=key,
            ttl_seconds=ttl_seconds,
            delay=delay,
            headers=headers,
            message_id=message_id,
            dedup_id=dedup_id,
        )

    def queue(self, name: QueueName, **settings: Any) -> AsyncQueueHandle[Any]:
        """The queue over all targets, for everything else. Settings as for ``LeanMQ.queue``."""
        return self._mq.queue(name, **settings)

    def stats(self) -> Mapping[str, TargetStats]:
        """What was sent to each target so far, and whether it takes messages. Does no I/O."""
        return self._router.stats_by_target()

    async def close(self) -> None:
        """Close all connections, but for those of clients that were given."""
        await self._mq.close()

    async def __aenter__(self) -> AsyncLoadBalancedProducer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
