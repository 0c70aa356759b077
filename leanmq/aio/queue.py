"""The queue for asyncio: a thin shell; what it does is in ``policy/logic.py``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from leanmq.api import Message, MessageRefs, Outgoing, QueueInfo, Seconds
from leanmq.backends.protocol import AsyncBackend, QueueRef, Settings, Verb
from leanmq.policy.core import ClientCore
from leanmq.policy.logic import QueueLogic
from leanmq.policy.steps import drive_async

__all__ = ["AsyncQueueHandle"]

T = TypeVar("T")


class AsyncQueueHandle(Generic[T]):
    """``leanmq.AsyncQueue`` on any backend. Made by ``AsyncLeanMQ.queue`` without any I/O."""

    def __init__(
        self, backend: AsyncBackend, core: ClientCore, ref: QueueRef, asked: Settings
    ) -> None:
        self._backend = backend
        self._logic = QueueLogic(core, ref, asked)

    def __repr__(self) -> str:
        kind = "dead letters of " if self.is_dlq else ""
        return f"<AsyncQueue {kind}{self.name!r} on {self._logic.core.name}>"

    @property
    def name(self) -> str:
        """See ``leanmq.AsyncQueue.name``."""
        return self._logic.ref.name

    @property
    def is_dlq(self) -> bool:
        """See ``leanmq.AsyncQueue.is_dlq``."""
        return self._logic.ref.dead

    @property
    def dlq(self) -> AsyncQueueHandle[T]:
        """See ``leanmq.AsyncQueue.dlq``."""
        logic = self._logic
        return AsyncQueueHandle(self._backend, logic.core, QueueRef(self.name, True), logic.asked)

    async def declare(self) -> None:
        """See ``leanmq.AsyncQueue.declare``."""
        return await drive_async(self._logic.declare(), self._backend)

    async def send_message(self, data: T) -> str:
        """See ``leanmq.AsyncQueue.send_message``."""
        return await drive_async(self._logic.send(data), self._backend)

    async def send_messages(self, items: Iterable[T | Outgoing[T]]) -> list[str]:
        """See ``leanmq.AsyncQueue.send_messages``."""
        return await drive_async(self._logic.send_many(items), self._backend)

    async def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """See ``leanmq.AsyncQueue.get_messages``."""
        return await drive_async(self._logic.receive(count, block, timeout), self._backend)

    async def acknowledge_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.acknowledge_messages``."""
        return await drive_async(self._logic.settle(Verb.ACKNOWLEDGE, messages), self._backend)

    async def release_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.release_messages``."""
        return await drive_async(self._logic.settle(Verb.RELEASE, messages), self._backend)

    async def retry_messages(self, messages: MessageRefs, delay: Seconds = 0) -> int:
        """See ``leanmq.AsyncQueue.retry_messages``."""
        return await drive_async(
            self._logic.settle(Verb.RETRY, messages, delay=delay), self._backend
        )

    async def extend_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.AsyncQueue.extend_messages``."""
        return await drive_async(self._logic.extend(messages), self._backend)

    async def move_to_dlq(self, messages: MessageRefs, reason: str = "") -> int:
        """See ``leanmq.AsyncQueue.move_to_dlq``."""
        return await drive_async(
            self._logic.settle(Verb.DEAD_LETTER, messages, reason=reason), self._backend
        )

    async def get_info(self) -> QueueInfo:
        """See ``leanmq.AsyncQueue.get_info``."""
        return await drive_async(self._logic.info(), self._backend)

    async def delete(self, *, delete_dlq: bool = False) -> bool:
        """See ``leanmq.AsyncQueue.delete``."""
        return await drive_async(self._logic.delete(delete_dlq), self._backend)

    def __bool__(self) -> bool:
        """A queue is always true, also when it is empty."""
        return True
