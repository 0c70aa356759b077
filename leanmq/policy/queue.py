"""The queue for threads: a thin shell; what it does is in ``logic.py``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from leanmq.api import Message, MessageRefs, Outgoing, QueueInfo, Seconds
from leanmq.backends.protocol import Backend, QueueRef, Settings, Verb
from leanmq.policy.core import ClientCore
from leanmq.policy.logic import QueueLogic
from leanmq.policy.steps import drive

__all__ = ["QueueHandle"]

T = TypeVar("T")


class QueueHandle(Generic[T]):
    """``leanmq.Queue`` on any backend. Made by ``LeanMQ.queue`` without any I/O."""

    def __init__(self, backend: Backend, core: ClientCore, ref: QueueRef, asked: Settings) -> None:
        self._backend = backend
        self._logic = QueueLogic(core, ref, asked)

    def __repr__(self) -> str:
        kind = "dead letters of " if self.is_dlq else ""
        return f"<Queue {kind}{self.name!r} on {self._logic.core.name}>"

    @property
    def name(self) -> str:
        """See ``leanmq.Queue.name``."""
        return self._logic.ref.name

    @property
    def is_dlq(self) -> bool:
        """See ``leanmq.Queue.is_dlq``."""
        return self._logic.ref.dead

    @property
    def dlq(self) -> QueueHandle[T]:
        """See ``leanmq.Queue.dlq``."""
        logic = self._logic
        return QueueHandle(self._backend, logic.core, QueueRef(self.name, True), logic.asked)

    def declare(self) -> None:
        """See ``leanmq.Queue.declare``."""
        return drive(self._logic.declare(), self._backend)

    def send_message(self, data: T) -> str:
        """See ``leanmq.Queue.send_message``."""
        return drive(self._logic.send(data), self._backend)

    def send_messages(self, items: Iterable[T | Outgoing[T]]) -> list[str]:
        """See ``leanmq.Queue.send_messages``."""
        return drive(self._logic.send_many(items), self._backend)

    def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """See ``leanmq.Queue.get_messages``."""
        return drive(self._logic.receive(count, block, timeout), self._backend)

    def acknowledge_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.acknowledge_messages``."""
        return drive(self._logic.settle(Verb.ACKNOWLEDGE, messages), self._backend)

    def release_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.release_messages``."""
        return drive(self._logic.settle(Verb.RELEASE, messages), self._backend)

    def retry_messages(self, messages: MessageRefs, delay: Seconds = 0) -> int:
        """See ``leanmq.Queue.retry_messages``."""
        return drive(self._logic.settle(Verb.RETRY, messages, delay=delay), self._backend)

    def extend_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.extend_messages``."""
        return drive(self._logic.extend(messages), self._backend)

    def move_to_dlq(self, messages: MessageRefs, reason: str = "") -> int:
        """See ``leanmq.Queue.move_to_dlq``."""
        return drive(self._logic.settle(Verb.DEAD_LETTER, messages, reason=reason), self._backend)

    def get_info(self) -> QueueInfo:
        """See ``leanmq.Queue.get_info``."""
        return drive(self._logic.info(), self._backend)

    def delete(self, *, delete_dlq: bool = False) -> bool:
        """See ``leanmq.Queue.delete``."""
        return drive(self._logic.delete(delete_dlq), self._backend)

    def __bool__(self) -> bool:
        """A queue is always true, also when it is empty."""
        return True
