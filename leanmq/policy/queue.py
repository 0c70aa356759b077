"""The queue for threads: a thin shell; what it does is in ``logic.py``."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, TypeVar

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
from leanmq.backends.protocol import Backend, QueueRef, State, Verb
from leanmq.compat import older_spellings, receive_spellings, send_spellings
from leanmq.policy.limits import limits_of
from leanmq.policy.logic import QueueLogic, destination_of
from leanmq.policy.producer import BatchingProducer
from leanmq.policy.steps import drive, iterate

__all__ = ["QueueHandle"]

T = TypeVar("T")


class QueueHandle(Generic[T]):
    """``leanmq.Queue`` on any backend. Made by ``LeanMQ.queue`` without any I/O."""

    def __init__(self, backend: Backend, logic: QueueLogic) -> None:
        self._backend = backend
        self._logic = logic

    def __repr__(self) -> str:
        kind = "dead letters of " if self.is_dlq else ""
        return f"<Queue {kind}{self.name!r} on {self._logic.core.name}>"

    @property
    def name(self) -> str:
        """See ``leanmq.Queue.name``."""
        return self._logic.ref.name

    @property
    def key(self) -> str:
        """See ``leanmq.Queue.key``."""
        return self._logic.full_name

    @property
    def is_dlq(self) -> bool:
        """See ``leanmq.Queue.is_dlq``."""
        return self._logic.ref.dead

    @property
    def dlq(self) -> QueueHandle[T]:
        """See ``leanmq.Queue.dlq``."""
        logic = self._logic
        dead = QueueLogic(logic.core, QueueRef(self.name, True), logic.asked, logic.codec)
        return QueueHandle(self._backend, dead)

    def declare(self) -> None:
        """See ``leanmq.Queue.declare``."""
        return drive(self._logic.declare(), self._backend)

    @older_spellings(send_spellings(1), positional=1)
    def send_message(
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
        """See ``leanmq.Queue.send_message``."""
        message = Outgoing(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        return drive(self._logic.send(message), self._backend)

    def send_messages(
        self,
        items: Iterable[T | Outgoing[T]],
        *,
        key: str | Callable[[T], str | None] | None = None,
    ) -> list[str]:
        """See ``leanmq.Queue.send_messages``."""
        return drive(self._logic.send_many(items, key), self._backend)

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
    ) -> BatchingProducer[T]:
        """See ``leanmq.Queue.batching``."""
        limits = limits_of(
            linger,
            max_batch,
            max_bytes,
            max_buffered,
            max_buffered_bytes,
            self._logic.core.terms.deadline if max_block is None else max_block,
            dedup,
        )
        return BatchingProducer(self._backend, self._logic, limits)

    @older_spellings(receive_spellings, positional=1)
    def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """See ``leanmq.Queue.get_messages``."""
        return drive(self._logic.receive(count, block, timeout), self._backend)

    def consume(
        self, *, count: int = 10, timeout: Seconds | None = None
    ) -> Generator[Message[T], None]:
        """See ``leanmq.Queue.consume``."""
        return iterate(self._logic.consume(count, timeout), self._backend)

    def processing(self, message: Message[T]) -> AbstractContextManager[T]:
        """See ``leanmq.Queue.processing``."""
        work = contextmanager(iterate)
        return work(self._logic.processing(message), self._backend)

    def acknowledge_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.acknowledge_messages``."""
        return drive(self._logic.settle(Verb.ACKNOWLEDGE, messages), self._backend)

    def release_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.release_messages``."""
        return drive(self._logic.settle(Verb.RELEASE, messages), self._backend)

    def retry_messages(self, messages: MessageRefs, delay: Seconds = 0, *, reason: str = "") -> int:
        """See ``leanmq.Queue.retry_messages``."""
        steps = self._logic.settle(Verb.RETRY, messages, delay=delay, reason=reason)
        return drive(steps, self._backend)

    def extend_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.extend_messages``."""
        return drive(self._logic.extend(messages), self._backend)

    @older_spellings()
    def move_to_dlq(
        self,
        messages: MessageRefs,
        reason: str = "",
        dlq: QueueName | None = None,
    ) -> int:
        """See ``leanmq.Queue.move_to_dlq``."""
        self._logic.check_own_dlq(dlq)
        steps = self._logic.settle(Verb.DEAD_LETTER, messages, reason=reason)
        return drive(steps, self._backend)

    def requeue_messages(
        self, messages: MessageRefs, destination_queue: QueueName | None = None
    ) -> int:
        """See ``leanmq.Queue.requeue_messages``."""
        destination = destination_of(self._logic, destination_queue)
        return drive(self._logic.requeue(messages, destination), self._backend)

    def delete_messages(self, messages: MessageRefs) -> int:
        """See ``leanmq.Queue.delete_messages``."""
        return drive(self._logic.settle(Verb.DELETE, messages), self._backend)

    def peek_messages(
        self, count: int = 10, *, ids: Iterable[str] | str | None = None
    ) -> list[StoredMessage[T]]:
        """See ``leanmq.Queue.peek_messages``."""
        return drive(self._logic.peek(count, ids), self._backend)

    def pending_messages(self, count: int = 10) -> list[StoredMessage[T]]:
        """See ``leanmq.Queue.pending_messages``."""
        return drive(self._logic.peek(count, None, State.IN_FLIGHT), self._backend)

    def purge(self) -> int:
        """See ``leanmq.Queue.purge``."""
        return drive(self._logic.purge(), self._backend)

    def get_info(self) -> QueueInfo:
        """See ``leanmq.Queue.get_info``."""
        return drive(self._logic.info(), self._backend)

    def delete(self, *, delete_dlq: bool = False) -> bool:
        """See ``leanmq.Queue.delete``."""
        return drive(self._logic.delete(delete_dlq), self._backend)

    def __bool__(self) -> bool:
        """A queue is always true, also when it is empty."""
        return True
