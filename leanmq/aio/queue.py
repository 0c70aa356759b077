"""The queue for asyncio: a thin shell; what it does is in ``policy/logic.py``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar

from leanmq.aio.producer import AsyncBatchingProducer
from leanmq.api import (
    Message,
    MessageRefs,
    Moment,
    Outgoing,
    QueueInfo,
    QueueName,
    Seconds,
    StoredMessage,
)
from leanmq.backends.protocol import AsyncBackend, QueueRef, State, Verb
from leanmq.compat import older_spellings, receive_spellings, send_spellings
from leanmq.policy.limits import limits_of
from leanmq.policy.logic import QueueLogic, destination_of
from leanmq.policy.steps import drive_async, iterate_async

__all__ = ["AsyncQueueHandle"]

T = TypeVar("T")


class AsyncQueueHandle(Generic[T]):
    """``leanmq.AsyncQueue`` on any backend. Made by ``AsyncLeanMQ.queue`` without any I/O."""

    def __init__(self, backend: AsyncBackend, logic: QueueLogic) -> None:
        self._backend = backend
        self._logic = logic

    def __repr__(self) -> str:
        kind = "dead letters of " if self.is_dlq else ""
        return f"<AsyncQueue {kind}{self.name!r} on {self._logic.core.name}>"

    @property
    def name(self) -> str:
        """See ``leanmq.AsyncQueue.name``."""
        return self._logic.ref.name

    @property
    def key(self) -> str:
        """See ``leanmq.AsyncQueue.key``."""
        return self._logic.full_name

    @property
    def is_dlq(self) -> bool:
        """See ``leanmq.AsyncQueue.is_dlq``."""
        return self._logic.ref.dead

    @property
    def dlq(self) -> AsyncQueueHandle[T]:
        """See ``leanmq.AsyncQueue.dlq``."""
        logic = self._logic
        dead = QueueLogic(logic.core, QueueRef(self.name, True), logic.asked, logic.codec)
        return AsyncQueueHandle(self._backend, dead)

    async def declare(self) -> None:
        """See ``leanmq.AsyncQueue.declare``."""
        return await drive_async(self._logic.declare(), self._backend)

    @older_spellings(send_spellings(1), positional=1)
    async def send_message(
        self,
        data: T,
        *,
        key: str | None = None,
        ttl_seconds: Seconds | None = None,
        delay: Moment | None = None,
        headers: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        dedup_id: str | None = None,
    ) -> str:
        """See ``leanmq.AsyncQueue.send_message``."""
        message = Outgoing(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        return await drive_async(self._logic.send(message), self._backend)

    async def send_messages(
        self,
        items: Iterable[T | Outgoing[T]],
        *,
        key: str | Callable[[T], str | None] | None = None,
    ) -> list[str]:
        """See ``leanmq.AsyncQueue.send_messages``."""
        return await drive_async(self._logic.send_many(items, key), self._backend)

    def batching(
        self,
        *,
        linger: Seconds = 0.005,
        max_batch: int = 500,
        max_bytes: int = 1024 * 1024,
        max_buffered: int = 10_000,
        max_buffered_bytes: int = 32 * 1024 * 1024,
        max_block: Seconds | None = None,
        dedup: bool = True,
    ) -> AsyncBatchingProducer[T]:
        """See ``leanmq.AsyncQueue.batching``."""
        limits = limits_of(
            linger,
            max_batch,
            max_bytes,
            max_buffered,
            max_buffered_bytes,
            self._logic.core.terms.deadline if max_block is None else max_block,
            dedup,
        )
        return AsyncBatchingProducer(self._backend, self._logic, limits)

    @older_spellings(receive_spellings, positional=1)
    async def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """See ``leanmq.AsyncQueue.get_messages``."""
        return await drive_async(self._logic.receive(count, block, timeout), self._backend)

    def consume(
        self, *, count: int = 10, timeout: Seconds | None = None
    ) -> AsyncGenerator[Message[T], None]:
        """See ``leanmq.AsyncQueue.consume``."""
        return iterate_async(self._logic.consume(count, timeout), self._backend)

    def processing(self, message: Message[T]) -> AbstractAsyncContextManager[T]:
        """See ``leanmq.AsyncQueue.processing``."""
        work = asynccontextmanager(iterate_async)
        return work(self._logic.processing(message), self._backend)

    async def acknowledge_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.acknowledge_messages``."""
        return await drive_async(self._logic.settle(Verb.ACKNOWLEDGE, messages), self._backend)

    async def release_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.release_messages``."""
        return await drive_async(self._logic.settle(Verb.RELEASE, messages), self._backend)

    async def retry_messages(
        self, messages: MessageRefs, delay: Seconds = 0, *, reason: str = ""
    ) -> int:
        """See ``leanmq.AsyncQueue.retry_messages``."""
        steps = self._logic.settle(Verb.RETRY, messages, delay=delay, reason=reason)
        return await drive_async(steps, self._backend)

    async def extend_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.extend_messages``."""
        return await drive_async(self._logic.extend(messages), self._backend)

    @older_spellings()
    async def move_to_dlq(
        self,
        messages: MessageRefs,
        reason: str = "",
        dlq: QueueName | None = None,
    ) -> int:
        """See ``leanmq.AsyncQueue.move_to_dlq``."""
        self._logic.check_own_dlq(dlq)
        steps = self._logic.settle(Verb.DEAD_LETTER, messages, reason=reason)
        return await drive_async(steps, self._backend)

    async def requeue_messages(
        self, messages: MessageRefs, destination_queue: QueueName | None = None
    ) -> int:
        """See ``leanmq.AsyncQueue.requeue_messages``."""
        destination = destination_of(self._logic, destination_queue)
        return await drive_async(self._logic.requeue(messages, destination), self._backend)

    async def delete_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.delete_messages``."""
        return await drive_async(self._logic.settle(Verb.DELETE, messages), self._backend)

    async def peek_messages(
        self, count: int = 10, *, ids: Iterable[str] | str | None = None
    ) -> list[StoredMessage[T]]:
        """See ``leanmq.AsyncQueue.peek_messages``."""
        return await drive_async(self._logic.peek(count, ids), self._backend)

    async def pending_messages(self, count: int = 10) -> list[StoredMessage[T]]:
        """See ``leanmq.AsyncQueue.pending_messages``."""
        return await drive_async(self._logic.peek(count, None, State.IN_FLIGHT), self._backend)

    async def purge(self) -> int:
        """See ``leanmq.AsyncQueue.purge``."""
        return await drive_async(self._logic.purge(), self._backend)

    async def get_info(self) -> QueueInfo:
        """See ``leanmq.AsyncQueue.get_info``."""
        return await drive_async(self._logic.info(), self._backend)

    async def delete(self, *, delete_dlq: bool = False) -> bool:
        """See ``leanmq.AsyncQueue.delete``."""
        return await drive_async(self._logic.delete(delete_dlq), self._backend)

    def __bool__(self) -> bool:
        """A queue is always true, also when it is empty."""
        return True
