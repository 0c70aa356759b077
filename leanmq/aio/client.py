"""``AsyncLeanMQ``: the client for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from leanmq.aio.queue import AsyncQueueHandle
from leanmq.api import (
    Message,
    Moment,
    Outgoing,
    Overflow,
    QueueInfo,
    QueueName,
    Seconds,
    T,
)
from leanmq.backends.protocol import AsyncBackend, Capabilities, QueueRef, Settings
from leanmq.backends.registry import describe, open_async_backend
from leanmq.compat import older_spellings, send_spellings
from leanmq.policy.codec import codec_for
from leanmq.policy.core import DEADLINE, ClientCore
from leanmq.policy.logic import QueueLogic, logic_of
from leanmq.policy.names import ref_of, settings_of
from leanmq.policy.opening import configured, opening
from leanmq.policy.steps import drive_async
from leanmq.policy.transaction import TransactionLogic
from leanmq.sources import ConfigSource

if TYPE_CHECKING:
    from leanmq.aio.router import AsyncConsistentHashRouter
    from leanmq.aio.sharding import AsyncShardedQueueHandle

__all__ = ["AsyncLeanMQ", "AsyncTransaction"]


class AsyncLeanMQ:
    """``leanmq.LeanMQ`` for asyncio: same arguments, same promises. Belongs to one event loop.

    As ``client`` it takes those of ``redis.asyncio``, and ``fakeredis.FakeAsyncRedis``.

    Examples:
        >>> async def main():
        ...     async with AsyncLeanMQ("memory://") as mq:
        ...         orders = mq.queue("orders")
        ...         await orders.send_message({"id": 7})
        ...         for message in await orders.get_messages():
        ...             print(message.data)
        ...             await orders.acknowledge_messages(message)
        >>> import asyncio; asyncio.run(main())
        {'id': 7}
    """

    @older_spellings()
    def __init__(
        self,
        url: str | None = None,
        redis_port: int | None = None,
        redis_db: int | None = None,
        redis_password: str | None = None,
        prefix: str | None = None,
        max_retries: int | None = None,
        *,
        redis_host: str | None = None,
        backend: AsyncBackend | None = None,
        client: object | None = None,
        deadline: Seconds = DEADLINE,
        connection_timeout: Seconds | None = None,
        retry_interval: Seconds | None = None,
        queues: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        asked = opening(
            url,
            redis_host=redis_host,
            redis_port=redis_port,
            redis_db=redis_db,
            redis_password=redis_password,
            given=backend,
            client=client,
            prefix=prefix,
            deadline=deadline,
            connection_timeout=connection_timeout,
            max_retries=max_retries,
            retry_interval=retry_interval,
            queues=queues,
        )
        self._backend = open_async_backend(asked.url, backend, asked.options, client)
        self._core = ClientCore(describe(asked.url, self._backend), asked.terms)
        self._beside: tuple[AsyncConsistentHashRouter, ClientCore] | None = None

    @classmethod
    def from_config(cls, source: ConfigSource, **keywords: Any) -> Self:
        """See ``LeanMQ.from_config``."""
        return cls(**configured(source, keywords, asynchronous=True))

    @classmethod
    def from_env(cls, **keywords: Any) -> Self:
        """See ``LeanMQ.from_env``."""
        return cls(**configured(None, keywords, asynchronous=True))

    def __repr__(self) -> str:
        return f"<AsyncLeanMQ {self._core.name}>"

    @older_spellings()
    def queue(
        self,
        name: QueueName,
        *,
        type: type[T] | None = None,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        max_length: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
        slot: str | None = None,
    ) -> AsyncQueueHandle[T]:
        """See ``LeanMQ.queue``. Does no I/O, so it is no coroutine."""
        self._core.check_open()
        asked = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            max_length=max_length,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
            slot=slot,
        )
        ref = ref_of(name, self._core.terms.prefix)
        return AsyncQueueHandle(self._backend, QueueLogic(self._core, ref, asked, codec_for(type)))

    def sharded_queue(
        self,
        name: QueueName,
        *,
        shards: int | None = None,
        type: type[T] | None = None,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
        slot: str | None = None,
    ) -> AsyncShardedQueueHandle[T]:
        """See ``LeanMQ.sharded_queue``."""
        from leanmq.aio.sharding import AsyncShardedQueueHandle  # not above: most need none

        self._core.check_open()
        router, core = self._sharding()
        asked = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
            slot=slot,
            shards=router.routing.shards if shards is None else shards,
        )
        ref = ref_of(name, self._core.terms.prefix)
        return AsyncShardedQueueHandle(router, QueueLogic(core, ref, asked, codec_for(type)))

    def _sharding(self) -> tuple[AsyncConsistentHashRouter, ClientCore]:
        """A router, and its core: of this client, or over its backend alone."""
        from leanmq.aio.router import AsyncConsistentHashRouter

        if isinstance(self._backend, AsyncConsistentHashRouter):
            return self._backend, self._core
        if self._beside is None:
            router = AsyncConsistentHashRouter.alone(self._backend, self._core.name)
            core = ClientCore(self._core.name, self._core.terms, beside=self._core)
            self._beside = router, core
        return self._beside

    def _handle(self, ref: QueueRef) -> AsyncQueueHandle[Any]:
        return AsyncQueueHandle(self._backend, QueueLogic(self._core, ref, Settings()))

    async def update_queue(
        self,
        name: QueueName,
        *,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        max_length: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
    ) -> QueueInfo:
        """See ``LeanMQ.update_queue``."""
        changes = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            max_length=max_length,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
        )
        return await drive_async(self._core.update(name, changes), self._backend)

    async def create_queue_pair(
        self, name: QueueName, create_consumer_group: bool = True
    ) -> tuple[AsyncQueueHandle[Any], AsyncQueueHandle[Any]]:
        """See ``LeanMQ.create_queue_pair``."""
        queue = self.queue(name)
        await queue.declare()
        return queue, queue.dlq

    async def get_queue(self, name: QueueName) -> AsyncQueueHandle[Any] | None:
        """See ``LeanMQ.get_queue``."""
        ref = await drive_async(self._core.find(name), self._backend)
        return None if ref is None else self._handle(ref)

    async def get_dead_letter_queue(self, name: QueueName) -> AsyncQueueHandle[Any] | None:
        """See ``LeanMQ.get_dead_letter_queue``."""
        queue = await self.get_queue(name)
        return None if queue is None else queue.dlq

    async def delete_queue(self, name: QueueName, delete_dlq: bool | None = None) -> bool:
        """See ``leanmq.AsyncQueue.delete``."""
        return await self.queue(name).delete(delete_dlq=bool(delete_dlq))

    async def list_queues(self) -> list[QueueInfo]:
        """See ``LeanMQ.list_queues``."""
        return await drive_async(self._core.list_queues(), self._backend)

    async def process_expired_messages(self) -> int:
        """See ``LeanMQ.process_expired_messages``."""
        return await drive_async(self._core.process_expired(), self._backend)

    def transaction(self) -> AsyncTransaction:
        """See ``LeanMQ.transaction``: ``async with mq.transaction() as tx``."""
        self._core.check_open()
        return AsyncTransaction(self._backend, self._core)

    async def open(self) -> Capabilities:
        """Connect now, and tell what the backend can do."""
        return await drive_async(self._core.open(), self._backend)

    async def ping(self) -> None:
        """Ask every node that holds messages for an answer.

        Raises:
            ConnectionError: if one gives none, at once.
        """
        await drive_async(self._core.ping(), self._backend)

    async def close(self) -> None:
        """Close all connections; a call that waits in another task ends within a second."""
        await drive_async(self._core.close(), self._backend)

    async def __aenter__(self) -> AsyncLeanMQ:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


class AsyncTransaction:
    """``leanmq.Transaction`` for asyncio; gathering is no coroutine. For one task.

    Attributes:
        ids: The ids of the sent messages, in order, once it was carried out.
    """

    def __init__(self, backend: AsyncBackend, core: ClientCore) -> None:
        self._backend = backend
        self._logic = TransactionLogic(core)
        self.ids: list[str] = []

    @older_spellings(send_spellings(2), positional=2)
    def send_message(
        self,
        queue: QueueName,
        data: Any,
        *,
        key: str | None = None,
        ttl_seconds: Seconds | None = None,
        delay: Moment | None = None,
        headers: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See ``Transaction.send_message``."""
        message = Outgoing(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        if isinstance(queue, AsyncQueueHandle) and self._logic.moves_to(queue._logic):
            self._backend = queue._backend  # the router over the shards of this client
        self._logic.send(logic_of(queue), message)

    def acknowledge(self, messages: Message[Any] | Iterable[Message[Any]]) -> None:
        """See ``Transaction.acknowledge``."""
        self._logic.acknowledge(messages)

    async def execute(self) -> list[str]:
        """See ``Transaction.execute``."""
        self.ids = await drive_async(self._logic.execute(), self._backend)
        return self.ids

    _execute = execute  # its name in 0.2.0

    async def __aenter__(self) -> AsyncTransaction:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._logic.abandon()
        elif not self._logic.over:  # else ``execute`` was called inside the block
            await self.execute()
