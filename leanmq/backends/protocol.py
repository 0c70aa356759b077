"""The seam: what a backend promises to the queue above it.

For implementers. A backend takes one request value and returns one result value a method, so
that the Protocol need not grow: a new ability is a new field with a default, announced by a
capability. Ids and receipts are opaque strings that the backend makes; nothing above the seam
parses, orders or builds one.

Backends do not retry, batch, validate or log; they report. What may be retried is told by the
error: ``retryable`` (nothing was done, or doing it again does no harm) and ``unknown`` (may or
may not have been done).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import attrs
import msgspec

from leanmq.errors import LeanMQError

__all__ = [
    "AsyncBackend",
    "Backend",
    "Capabilities",
    "Declare",
    "Declared",
    "Delivery",
    "Drop",
    "Dropped",
    "Exchange",
    "Exchanged",
    "Extend",
    "Extended",
    "Held",
    "NewMessage",
    "QueueRef",
    "QueueStats",
    "Receive",
    "SendBatch",
    "SendResult",
    "Sent",
    "Settings",
    "Settlement",
    "Standing",
    "Stats",
    "Verb",
]


@attrs.frozen
class Capabilities:
    """What a backend can do, known once it is open.

    Attributes:
        name: The backend in words for errors and logs, secrets masked.
        durable: Messages outlive the process that holds them.
        shared: Other processes can open the same queues.
        ordered: One consumer of an undisturbed queue receives in the order of sending.
        transactions_across_queues: One transaction may touch any two queues.
        receive_queues: How many queues one ``exchange`` may receive from.
        max_batch: How many messages one ``send`` takes at most.
    """

    name: str
    durable: bool = True
    shared: bool = True
    ordered: bool = True
    transactions_across_queues: bool = True
    receive_queues: int = 1
    max_batch: int = 1_000


@attrs.frozen(cache_hash=True)
class QueueRef:
    """A queue by its short name, or the dead letters of that queue."""

    name: str
    dead: bool = False


@attrs.frozen
class Settings:
    """Settings of a queue; None is "not given".

    Attributes:
        lease: Seconds that a delivered message belongs to its consumer.
        max_deliveries: How often a message is handed out at most; 0 is unlimited.
    """

    lease: float | None = None
    max_deliveries: int | None = None


@attrs.frozen
class Declare:
    """Make a queue and its dead letters, or open them as they are."""

    name: str
    settings: Settings = Settings()


@attrs.frozen
class Declared:
    """The queue exists. ``settings`` are those in force: they may differ from those asked for.

    Attributes:
        settings: Every setting, none of them None.
        created: Whether this call made (part of) the queue.
        created_at: When the queue was made, in seconds since the epoch.
    """

    settings: Settings
    created: bool
    created_at: float


@attrs.frozen
class Drop:
    """Delete a queue with all its messages; refused while dead letters exist unless told."""

    name: str
    dead_letters: bool = False


@attrs.frozen
class Dropped:
    """``existed`` before; ``dead_letters`` > 0 means refused because of so many."""

    existed: bool
    dead_letters: int = 0


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A message to store: its encoded body."""

    body: bytes


class SendBatch(msgspec.Struct, frozen=True):
    """Messages for one queue, in order. At most ``Capabilities.max_batch``."""

    queue: QueueRef
    messages: Sequence[NewMessage]


SendResult: TypeAlias = "str | LeanMQError"
"""The id (stored), an error (certainly not stored), or an error that is ``unknown``."""


class Sent(msgspec.Struct, frozen=True):
    """One result a message, in the order of the batch."""

    results: Sequence[SendResult]


class Verb(enum.Enum):
    """What a settlement does with a delivered message."""

    ACKNOWLEDGE = "ack"
    """It is done: delete it."""
    RELEASE = "release"
    """Give it back uncounted, as if never handed out."""
    RETRY = "retry"
    """Hand it out again, counted, after a delay."""
    DEAD_LETTER = "dead"
    """Move it to the dead letters, with a reason."""


class Standing(enum.IntEnum):
    """What a receipt was still worth."""

    DONE = 0
    """The receipt was good, the operation is carried out."""
    GONE = 1
    """The message is not there any more: settled before, or deleted."""
    LOST = 2
    """The lease was lost and another consumer holds the message. Nothing was changed."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A message to settle: by receipt, or (receipt None) by id if nobody holds it."""

    id: str
    receipt: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """One verb for messages of one queue.

    Attributes:
        delay: Seconds until a retried message is due again.
        reason: Why a message becomes a dead letter.
    """

    queue: QueueRef
    verb: Verb
    messages: Sequence[Held]
    delay: float = 0.0
    reason: str = ""


class Receive(msgspec.Struct, frozen=True):
    """Lease up to ``count`` messages of one queue to a consumer.

    Attributes:
        queue: Where from.
        consumer: Who. A name is used by one receive at a time.
        count: Messages at most.
        alone: The consumer's process holds no message: it may be given a suspect (handed out
            before, repeatedly, and never settled), which then comes alone.
        recover: First hand out, uncounted, what this consumer was given and does not hold
            because a reply was lost.
        held: Receipts that this consumer does hold; only needed with ``recover``.
        brisk: New messages will do; upkeep of the queue may wait until there are none.
    """

    queue: QueueRef
    consumer: str
    count: int
    alone: bool = False
    recover: bool = False
    held: Sequence[str] = ()
    brisk: bool = False


class Exchange(msgspec.Struct, frozen=True):
    """Settle, then receive, in as few round trips as can be. Either half may be empty.

    Attributes:
        wait: Seconds to wait at most for a first message; the backend may return earlier,
            empty-handed.
    """

    settle: Sequence[Settlement] = ()
    receive: Sequence[Receive] = ()
    wait: float = 0.0


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message handed out.

    Attributes:
        id: For life: the string that its send returned.
        body: The bytes that were sent.
        receipt: Proof of this delivery; worth something until settled or taken over.
        delivery_count: How often it was handed out by its queue, this time included.
        timestamp: When it was sent, seconds since the epoch, by the server's clock.
        suspect: It was handed out before, repeatedly, and never settled.
        error: Why it is a dead letter.
    """

    id: str
    body: bytes
    receipt: str
    delivery_count: int
    timestamp: float
    suspect: bool = False
    error: str | None = None


class Exchanged(msgspec.Struct, frozen=True):
    """The result of an exchange.

    Attributes:
        settled: A standing for each message of each settlement, in order.
        deliveries: The messages received.
        more: Ask again at once: the backend stopped its upkeep halfway to stay quick.
        suspects: Suspects are waiting that were not handed out.
        lease: Seconds that the deliveries are leased for.
        calm: For so many seconds the next receives may be ``brisk``.
    """

    settled: Sequence[Sequence[Standing]] = ()
    deliveries: Sequence[Delivery] = ()
    more: bool = False
    suspects: bool = False
    lease: float = 0.0
    calm: float = 0.0


@attrs.frozen
class Extend:
    """Begin the lease of these messages anew."""

    queue: QueueRef
    messages: Sequence[Held]


class Extended(msgspec.Struct, frozen=True):
    """A standing a message, and the seconds that DONE ones are leased for from now."""

    standings: Sequence[Standing]
    lease: float


@attrs.frozen
class Stats:
    """Figures of a queue."""

    queue: QueueRef


@attrs.frozen
class QueueStats:
    """Messages by state at one moment, and when the queue was made.

    Attributes:
        ready: Waiting to be handed out.
        in_flight: Leased to a consumer.
        delayed: Not due yet.
        created_at: Seconds since the epoch.
        settings: The settings in force.
    """

    ready: int
    in_flight: int
    delayed: int
    created_at: float
    settings: Settings


@runtime_checkable
class Backend(Protocol):
    """A place that keeps queues. One object serves many threads at once.

    Constructing does no I/O. Every method may be called concurrently and raises nothing but
    ``LeanMQError`` (and what interrupts a thread: KeyboardInterrupt). Request values must not
    be kept after the call.
    """

    def open(self) -> Capabilities:
        """Connect and tell what is possible. Idempotent; blocks for the connect timeout."""
        ...

    def close(self) -> None:
        """Give back all connections. Idempotent; never raises for a broken connection."""
        ...

    def ping(self) -> None:
        """One round trip to everywhere that messages are kept, or ``ConnectionError``."""
        ...

    def declare(self, request: Declare) -> Declared:
        """Make or open a queue. Idempotent; never changes a setting that is stored."""
        ...

    def drop(self, request: Drop) -> Dropped:
        """Delete a queue and its messages. Idempotent."""
        ...

    def send(self, batch: SendBatch) -> Sent:
        """Store messages in order. Not idempotent: an error result that is ``unknown`` may
        have been stored. Raises only ``QueueNotFoundError``, before anything was stored."""
        ...

    def exchange(self, request: Exchange) -> Exchanged:
        """Settle, then receive.

        Idempotent but for the standings: a settlement repeated after a lost reply finds its
        message GONE or LOST. After an error of a receive the consumer asks with ``recover``.
        Blocks for ``wait`` at most; may return fewer messages, or none, earlier.

        It is also where a queue is kept in order, whoever calls: due messages become ready;
        messages whose lease ended are handed to others within two seconds; a message handed
        out ``max_deliveries`` times becomes a dead letter instead of being handed out again.

        Raises:
            QueueNotFoundError: if the queue does not exist; nothing was done.
        """
        ...

    def extend(self, request: Extend) -> Extended:
        """Renew leases. Idempotent; a receipt that lost its message gains nothing."""
        ...

    def stats(self, request: Stats) -> QueueStats:
        """Count the messages of a queue. Idempotent; raises QueueNotFoundError."""
        ...


@runtime_checkable
class AsyncBackend(Protocol):
    """``Backend`` for asyncio, method by method; a cancelled call may have been carried out."""

    async def open(self) -> Capabilities:
        """See ``Backend.open``."""
        ...

    async def close(self) -> None:
        """See ``Backend.close``."""
        ...

    async def ping(self) -> None:
        """See ``Backend.ping``."""
        ...

    async def declare(self, request: Declare) -> Declared:
        """See ``Backend.declare``."""
        ...

    async def drop(self, request: Drop) -> Dropped:
        """See ``Backend.drop``."""
        ...

    async def send(self, batch: SendBatch) -> Sent:
        """See ``Backend.send``."""
        ...

    async def exchange(self, request: Exchange) -> Exchanged:
        """See ``Backend.exchange``."""
        ...

    async def extend(self, request: Extend) -> Extended:
        """See ``Backend.extend``."""
        ...

    async def stats(self, request: Stats) -> QueueStats:
        """See ``Backend.stats``."""
        ...
