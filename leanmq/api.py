"""The queue API: what user code is typed against. Every queue of every backend satisfies it.

``Queue`` for threads, ``AsyncQueue`` for asyncio; generic in the payload, so ``Queue[Order]``
is a queue of orders and bare ``Queue`` takes anything that JSON can hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from typing_extensions import TypeVar as DefaultedTypeVar

__all__ = ["AsyncQueue", "Message", "MessageRefs", "Outgoing", "Queue", "QueueInfo", "Seconds"]

if TYPE_CHECKING:
    T = DefaultedTypeVar("T", default=Any)
else:
    T = TypeVar("T")  # defaults of type variables are known to Python from 3.13 on

Seconds: TypeAlias = "float | timedelta"
"""A duration: seconds as int or float, or a timedelta. Never negative."""


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
    """

    id: str
    data: T
    timestamp: float
    delivery_count: int
    lease_until: float
    error: str | None = None


class Outgoing(msgspec.Struct, Generic[T], frozen=True):
    """A message to be sent with options of its own, for ``send_messages``."""

    data: T


MessageRefs: TypeAlias = "str | Message[Any] | Iterable[str | Message[Any]]"
"""Which messages: an id, a message, or an iterable of them. A bare string is one id."""


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


@runtime_checkable
class Queue(Protocol[T]):
    """A queue. Every method may be called from any thread."""

    @property
    def name(self) -> str:
        """The short name."""
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

    def send_message(self, data: T) -> str:
        """Store one message at the end of the queue.

        Args:
            data: Anything that JSON can hold.

        Returns:
            The message's id.

        Raises:
            MessageError: if ``data`` is not JSON.
            OutcomeUnknownError: if the reply was lost: it may be stored or not.
        """
        ...

    def send_messages(self, items: Iterable[T | Outgoing[T]]) -> list[str]:
        """Store many messages, in order, in batches of 500.

        Args:
            items: Payloads, or ``Outgoing`` values; read lazily.

        Returns:
            Their ids, in order.

        Raises:
            BulkSendError: if it stopped after something was, or may have been, stored; tells
                what is, what is not, and what is unknown. Else the error itself.
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

    def retry_messages(self, messages: MessageRefs, delay: Seconds = 0) -> int:
        """Have messages handed out again, counted, ``delay`` seconds from now.

        At ``max_deliveries`` they become dead letters instead.
        """
        ...

    def extend_messages(self, messages: MessageRefs) -> int:
        """Begin the lease of messages anew.

        Returns:
            How many are still leased to this client. The others were lost.
        """
        ...

    def move_to_dlq(self, messages: MessageRefs, reason: str = "") -> int:
        """Move messages to the dead letters, in one atomic step.

        Args:
            messages: Messages of this queue.
            reason: What ``message.error`` will say there.

        Raises:
            QueueError: if this is a dead letter queue.
        """
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

    async def send_message(self, data: T) -> str:
        """See ``Queue.send_message``."""
        ...

    async def send_messages(self, items: Iterable[T | Outgoing[T]]) -> list[str]:
        """See ``Queue.send_messages``."""
        ...

    async def get_messages(
        self, count: int = 10, block: bool | None = None, timeout: Seconds | None = None
    ) -> list[Message[T]]:
        """See ``Queue.get_messages``. A cancelled call loses nothing: see the guarantees."""
        ...

    async def acknowledge_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.acknowledge_messages``."""
        ...

    async def release_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.release_messages``."""
        ...

    async def retry_messages(self, messages: MessageRefs, delay: Seconds = 0) -> int:
        """See ``Queue.retry_messages``."""
        ...

    async def extend_messages(self, messages: MessageRefs) -> int:
        """See ``Queue.extend_messages``."""
        ...

    async def move_to_dlq(self, messages: MessageRefs, reason: str = "") -> int:
        """See ``Queue.move_to_dlq``."""
        ...

    async def get_info(self) -> QueueInfo:
        """See ``Queue.get_info``."""
        ...

    async def delete(self, *, delete_dlq: bool = False) -> bool:
        """See ``Queue.delete``."""
        ...
