"""The queue API: what user code is typed against. Every queue of every backend satisfies it.

``Queue`` for threads, ``AsyncQueue`` for asyncio; generic in the payload, so ``Queue[Order]``
is a queue of orders and bare ``Queue`` takes anything that JSON can hold.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    runtime_checkable,
)

import msgspec

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultedTypeVar

    from leanmq.aio.producer import AsyncBatchingProducer
    from leanmq.policy.producer import BatchingProducer

__all__ = [
    "AsyncQueue",
    "Failure",
    "Message",
    "MessageRefs",
    "Moment",
    "Outgoing",
    "Overflow",
    "Queue",
    "QueueInfo",
    "QueueName",
    "Seconds",
    "StoredMessage",
]

if TYPE_CHECKING:
    T = DefaultedTypeVar("T", default=Any)
else:
    T = TypeVar("T")  # defaults of type variables are known to Python from 3.13 on

Seconds: TypeAlias = "float | timedelta"
"""A duration: seconds as int or float, or a timedelta. Never negative."""

Moment: TypeAlias = "float | timedelta | datetime"
"""When: a duration from now, or a datetime with its time zone."""

Overflow: TypeAlias = Literal["raise", "block"]
"""What a send does when the queue is full: raise QueueFullError, or wait for room first."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """Why a message was retried.

    Attributes:
        at: When: seconds since the epoch, by the server's clock.
        delivery_count: At which delivery.
        reason: As the consumer gave it.
    """

    at: float
    delivery_count: int
    reason: str


class Message(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """A message that was received, leased to this client until ``lease_until``.

    Attributes:
        id: The string that its send returned; stays the same through retries and dead letters.
        data: The payload.
        timestamp: When it was sent: seconds since the epoch, by the server's clock.
        delivery_count: How often it has been handed out, this time included. For a dead
            letter: how often its queue had handed it out.
        lease_until: Until when it is leased: seconds since the epoch, by this machine's clock.
        error: Why it is a dead letter; None if it is not.
        key: What it is about, as its sender said.
        headers: As its sender gave them.
        message_id: What its sender called it; not ``id``, and not unique.
        failures: Why it was retried: the last five reasons, oldest first.
        redrives: How often it was sent back from the dead letters.
        queue: Name of the queue that it was received from.
    """

    id: str
    data: T
    timestamp: float
    delivery_count: int
    lease_until: float
    error: str | None = None
    key: str | None = None
    headers: Mapping[str, Any] = {}
    message_id: str | None = None
    failures: Sequence[Failure] = ()
    redrives: int = 0
    queue: str = ""

    def __repr__(self) -> str:
        """Id, queue, deliveries, and 80 characters of the payload: it may be large."""
        data = repr(self.data)
        shown = data if len(data) <= 80 else f"{data[:77]}..."
        return (
            f"<{type(self).__name__} {self.id} of {self.queue!r}, delivery {self.delivery_count}: "
            f"{shown}>"
        )


class StoredMessage(Message[T], Generic[T], frozen=True, gc=False):
    """A message as it is stored: looked at, not received.

    ``data`` is the raw bytes if they cannot be decoded. ``delivery_count`` is how often it has
    been handed out so far; ``lease_until`` is 0 unless it is in flight.

    Attributes:
        state: ``"ready"``, ``"in_flight"`` or ``"delayed"``.
        due_at: When a delayed message is due, seconds since the epoch by this machine's clock.
        consumer: Name of the consumer that holds it, for people.
    """

    state: Literal["ready", "in_flight", "delayed"] = "ready"
    due_at: float | None = None
    consumer: str | None = None


class Outgoing(msgspec.Struct, Generic[T], frozen=True):
    """A message to be sent with options of its own, for ``send_messages``.

    Attributes:
        data: The payload.
        key: See ``Queue.send_message``, also for the others.
    """

    data: T
    key: str | None = None
    ttl_seconds: Seconds | None = None
    delay: Moment | None = None
    headers: Mapping[str, Any] | None = None
    message_id: str | None = None
    dedup_id: str | None = None


MessageRefs: TypeAlias = "str | Message[Any] | Iterable[str | Message[Any]]"
"""Which messages: an id, a message, or an iterable of them. A bare string is one id.

A message that was received stands for its delivery: once that is settled or lost, it names
nothing. An id names a message that this client holds, or that nobody holds.
"""


class QueueInfo(msgspec.Struct, frozen=True):
    """Figures of a queue at one moment.

    Attributes:
        name: The short name.
        is_dlq: Whether these are the dead letters of the queue.
        message_count: Messages still to do: ready, in flight and delayed.
        ready_messages: Waiting to be handed out.
        pending_messages: In flight: leased to a consumer.
        delayed_messages: Not due yet.
        created_at: When the queue was made, seconds since the epoch.
        lease: Seconds of a lease.
        max_deliveries: How often a message is handed out at most; 0 is unlimited.
        consumer_group: Name of the consumer group.
        max_length: Messages that it holds at most; 0 is unlimited.
        overflow: What a send does when it is full.
        max_payload_bytes: Bytes of an encoded payload at most.
        dedup_window: Seconds for which a ``dedup_id`` is remembered.
        slot: Queues of the same slot can share a transaction on a cluster.
        shards: In how many shards its messages are; 0 for a queue that is not sharded. On one node
            of several: how many of them are here.
    """

    name: str
    is_dlq: bool
    message_count: int
    ready_messages: int
    pending_messages: int
    delayed_messages: int
    created_at: float
    lease: float
    max_deliveries: int
    consumer_group: str = "leanmq"
    max_length: int = 0
    overflow: str = "raise"
    max_payload_bytes: int = 0
    dedup_window: float = 0.0
    slot: str = ""
    shards: int = 0


QueueName: TypeAlias = "str | Queue[Any] | AsyncQueue[Any] | QueueInfo"
"""Which queue: its short name, its full name with the prefix, a queue, or figures of one."""


@runtime_checkable
class Queue(Protocol[T]):
    """A queue. Every method may be called from any thread."""

    @property
    def name(self) -> str:
        """The short name."""
        ...

    @property
    def key(self) -> str:
        """The full name, which begins with the client's prefix."""
        ...

    @property
    def is_dlq(self) -> bool:
        """Whether this holds the dead letters of the queue of this name."""
        ...

    @property
    def dlq(self) -> Queue[T]:
        """The dead letters of this queue; of a dead letter queue, itself."""
        ...

    def declare(self) -> None:
        """Make the queue now instead of at its first use.

        Raises:
            QueueSettingsError: if it exists with settings other than those asked for.
        """
        ...

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
        """Store one message at the end of the queue.

        Args:
            data: Anything that JSON can hold, or an instance of the queue's type.
            key: What the message is about, such as a customer's number. Routers keep messages
                of one key together.
            ttl_seconds: Seconds from now, by the server's clock, after which it is not handed
                out any more, but deleted.
            delay: Seconds from now, or the moment, before which it is not handed out.
            headers: Names and JSON values that travel with it, up to 16 KiB.
            message_id: What you call it; only handed on.
            dedup_id: A second send with the same one, within the queue's ``dedup_window``,
                stores nothing and returns the first one's id. With it, a send whose reply was
                lost is safely repeated by LeanMQ itself.

        Returns:
            The message's id.

        Raises:
            MessageError: if ``data`` or an option cannot be sent.
            QueueFullError: if the queue (or the server) has no room.
            OutcomeUnknownError: if the reply was lost: it may be stored or not.
        """
        ...

    def send_messages(
        self,
        items: Iterable[T | Outgoing[T]],
        *,
        key: str | Callable[[T], str | None] | None = None,
    ) -> list[str]:
        """Store many messages, in order, in batches of 500 (or 4 MiB).

        Args:
            items: Payloads, or ``Outgoing`` values; read lazily.
            key: The key of those that have none of their own, or a function that makes it from
                the payload.

        Returns:
            Their ids, in order.

        Raises:
            BulkSendError: if it stopped after something was, or may have been, stored; tells
                what is, what is not, and what is unknown. Else the error itself.
        """
        ...

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
        """A producer that sends in the background: many messages a call, each with a future.

        Makes no connection. Messages keep their order; at most one batch is under way. What is
        surely not stored is sent again until the client's ``deadline``, counted from when it was
        handed over.

        Args:
            linger: Seconds that a batch waits for more messages after its first one.
            max_batch: Messages with which a batch goes at once.
            max_bytes: Bytes of payloads and headers with which a batch goes at once.
            max_buffered: Messages that it holds at most, those under way included.
            max_buffered_bytes: Bytes of them at which it takes no more.
            max_block: Seconds that a send waits for room then; None: the client's ``deadline``.
            dedup: Number batches, so that one whose reply was lost is sent again and stored once,
                within the queue's ``dedup_window``. Where the backend cannot do it, or with
                False, such a batch fails with OutcomeUnknownError.

        Raises:
            ValueError: if a limit is less than 1, or a duration negative.
        """
        ...

    def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """Receive up to ``count`` messages and lease them to this client.

        Args:
            count: Messages at most, 1 to 1,000.
            block: True waits until a message comes, or for ``timeout``; False never waits.
            timeout: Seconds to wait at most; alone, it implies waiting.

        Returns:
            The messages, oldest first; empty if none came in time.
        """
        ...

    def consume(
        self, *, count: int = 10, timeout: Seconds | None = None
    ) -> Generator[Message[T], None]:
        """Messages one by one, received in batches, waiting for more.

        Leases of those received but not yet yielded are renewed between two turns of the loop,
        in time if a turn takes less than half a lease; what was lost is not yielded. When the
        loop ends they are given back, uncounted; after ``close`` they come again when their
        leases end. Settle each message yourself, or use ``processing``.

        Args:
            count: Messages that a batch has at most.
            timeout: Seconds without a message after which the loop ends; None waits for ever,
                until the client is closed.
        """
        ...

    def processing(self, message: Message[T]) -> AbstractContextManager[T]:
        """Work on a message: ``with queue.processing(message) as data``.

        At the end of the block the message is acknowledged, unless you settled it there. An
        exception has it retried, counted, with the exception's text among its ``failures``, and
        propagates. What is no error of the message (Ctrl-C, cancellation) gives it back,
        uncounted.
        """
        ...

    def acknowledge_messages(self, messages: MessageRefs) -> int:
        """Settle messages as done: they are deleted.

        Returns:
            How many were done by this call. Those whose lease was lost to another consumer
            are left alone and not counted.
        """
        ...

    def release_messages(self, messages: MessageRefs) -> int:
        """Give messages back, uncounted, as if they had never been handed out."""
        ...

    def retry_messages(self, messages: MessageRefs, delay: Seconds = 0, *, reason: str = "") -> int:
        """Have messages handed out again, counted, ``delay`` seconds from now.

        At ``max_deliveries`` they become dead letters instead.

        Args:
            messages: Messages of this queue.
            delay: Seconds until they are handed out again.
            reason: Kept with the message, in ``failures``; 1,000 bytes of it.
        """
        ...

    def extend_messages(self, messages: MessageRefs) -> int:
        """Begin the lease of messages anew.

        Returns:
            How many are still leased to this client. The others were lost.
        """
        ...

    def move_to_dlq(
        self, messages: MessageRefs, reason: str = "", dlq: QueueName | None = None
    ) -> int:
        """Move messages to the dead letters, in one atomic step.

        Args:
            messages: Messages of this queue.
            reason: What ``message.error`` will say there; 1,000 bytes of it.
            dlq: The dead letter queue of this queue, if you want to name it: it has one.

        Raises:
            QueueError: if this is a dead letter queue.
            DeadLetterQueueNotFoundError: if ``dlq`` is not the one of this queue.
        """
        ...

    def requeue_messages(
        self, messages: MessageRefs, destination_queue: QueueName | None = None
    ) -> int:
        """Send dead letters back to their queue, or to another, each in one atomic step.

        Their deliveries are counted anew; their ids stay. Only where another queue happens to have
        a message of the same id, one gets a new id.

        Args:
            messages: Dead letters: those that you received, or ids of those that nobody holds.
            destination_queue: Another queue, or its name.

        Returns:
            How many went back.

        Raises:
            QueueError: if this is no dead letter queue.
            QueueFullError: if the destination has no room for all; some may have gone.
            CrossSlotError: if the destination cannot be reached in one atomic step.
        """
        ...

    def delete_messages(self, messages: MessageRefs) -> int:
        """Delete messages, wherever they are: ready, delayed, or in flight with anybody.

        Returns:
            How many were there.
        """
        ...

    def peek_messages(
        self, count: int = 10, *, ids: Iterable[str] | str | None = None
    ) -> list[StoredMessage[T]]:
        """Look at the next messages that are ready, without receiving them.

        Args:
            count: Messages at most, 1 to 1,000.
            ids: These messages instead, ready or delayed or in flight.
        """
        ...

    def pending_messages(self, count: int = 10) -> list[StoredMessage[T]]:
        """Look at messages in flight: who holds them, until when.

        Args:
            count: Messages at most, 1 to 1,000.
        """
        ...

    def purge(self) -> int:
        """Delete all messages that are there now, in every state; returns how many."""
        ...

    def get_info(self) -> QueueInfo:
        """Count the messages of this queue."""
        ...

    def delete(self, *, delete_dlq: bool = False) -> bool:
        """Delete the queue with all its messages, and its dead letter queue.

        Args:
            delete_dlq: Delete dead letters too.

        Returns:
            Whether it existed.

        Raises:
            QueueError: if dead letters exist and ``delete_dlq`` is false; nothing is deleted.
        """
        ...


@runtime_checkable
class AsyncQueue(Protocol[T]):
    """``Queue`` for asyncio, method by method."""

    @property
    def name(self) -> str:
        """See ``Queue.name``."""
        ...

    @property
    def key(self) -> str:
        """See ``Queue.key``."""
        ...

    @property
    def is_dlq(self) -> bool:
        """See ``Queue.is_dlq``."""
        ...

    @property
    def dlq(self) -> AsyncQueue[T]:
        """See ``Queue.dlq``."""
        ...

    async def declare(self) -> None:
        """See ``Queue.declare``."""
        ...

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
        """See ``Queue.send_message``."""
        ...

    async def send_messages(
        self,
        items: Iterable[T | Outgoing[T]],
        *,
        key: str | Callable[[T], str | None] | None = None,
    ) -> list[str]:
        """See ``Queue.send_messages``."""
        ...

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
        """See ``Queue.batching``."""
        ...

    async def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """See ``Queue.get_messages``. A cancelled call loses nothing: see the guarantees."""
        ...

    def consume(
        self, *, count: int = 10, timeout: Seconds | None = None
    ) -> AsyncGenerator[Message[T], None]:
        """See ``Queue.consume``. After ``break``, what was not yielded is given back when the
        iterator is closed: use ``contextlib.aclosing``, or leave it to the event loop."""
        ...

    def processing(self, message: Message[T]) -> AbstractAsyncContextManager[T]:
        """See ``Queue.processing``: ``async with queue.processing(message) as data``."""
        ...

    async def acknowledge_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.acknowledge_messages``."""
        ...

    async def release_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.release_messages``."""
        ...

    async def retry_messages(
        self, messages: MessageRefs, delay: Seconds = 0, *, reason: str = ""
    ) -> int:
        """See ``Queue.retry_messages``."""
        ...

    async def extend_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.extend_messages``."""
        ...

    async def move_to_dlq(
        self, messages: MessageRefs, reason: str = "", dlq: QueueName | None = None
    ) -> int:
        """See ``Queue.move_to_dlq``."""
        ...

    async def requeue_messages(
        self, messages: MessageRefs, destination_queue: QueueName | None = None
    ) -> int:
        """See ``Queue.requeue_messages``."""
        ...

    async def delete_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.delete_messages``."""
        ...

    async def peek_messages(
        self, count: int = 10, *, ids: Iterable[str] | str | None = None
    ) -> list[StoredMessage[T]]:
        """See ``Queue.peek_messages``."""
        ...

    async def pending_messages(self, count: int = 10) -> list[StoredMessage[T]]:
        """See ``Queue.pending_messages``."""
        ...

    async def purge(self) -> int:
        """See ``Queue.purge``."""
        ...

    async def get_info(self) -> QueueInfo:
        """See ``Queue.get_info``."""
        ...

    async def delete(self, *, delete_dlq: bool = False) -> bool:
        """See ``Queue.delete``."""
        ...
