"""The seam: what a backend promises to the queue above it.

For implementers. A backend takes one request value and returns one result value a method, so
that the Protocol need not grow: a new ability is a new field with a default, announced by a
capability. Ids and receipts are opaque strings that the backend makes; nothing above the seam
parses, orders or builds one.

Backends do not retry, batch, validate or log; they report. What may be retried is told by the
error: ``retryable`` (nothing was done, or doing it again does no harm) and ``in_doubt`` (may or
may not have been done).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol, TypeAlias, runtime_checkable

import attrs
import msgspec

from leanmq.api import Failure
from leanmq.errors import LeanMQError

__all__ = [
    "Alter",
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
    "Failure",
    "Held",
    "ListQueues",
    "Listed",
    "NewMessage",
    "Peek",
    "Peeked",
    "Purge",
    "Purged",
    "QueueRef",
    "QueueStats",
    "Receive",
    "Redrive",
    "Redriven",
    "SendBatch",
    "SendResult",
    "Sent",
    "Settings",
    "Settlement",
    "Standing",
    "State",
    "Stats",
    "Stored",
    "Terms",
    "Transact",
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
        transactions_across_queues: One transaction may touch any two queues. Else only those
            of one slot (``Settings.slot``).
        bounds: ``Settings.max_length`` is kept, exactly.
        many_queues: It has the methods of ``ManyQueues`` (``many.py``), which routers build on.
        sends_together: Its method ``together`` (see ``ManyQueues``) takes sends, at least.
        sequences: ``SendBatch.producer`` and ``sequence`` are kept to: a batch that is sent again
            is stored once. For a queue in shards: a batch that goes to one of them.
        max_batch: How many messages one ``transact`` takes at most, sent and acknowledged.
        best_batch: How many messages of a bulk send policy hands to one ``send``, at most.
        notices: What was found at opening that an operator should know; logged once.
    """

    name: str
    durable: bool = True
    shared: bool = True
    ordered: bool = True
    transactions_across_queues: bool = True
    bounds: bool = True
    many_queues: bool = False
    sends_together: bool = False
    sequences: bool = False
    max_batch: int = 1_000
    best_batch: int = 500
    notices: tuple[str, ...] = ()


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
        max_length: Messages that the queue holds at most, delayed and in flight included; 0 is
            unlimited.
        overflow: What a sender does when the queue is full: ``"raise"`` or ``"block"``. Only
            stored here; the policy above the seam follows it.
        max_payload_bytes: Bytes of an encoded payload at most. Only stored here, too.
        dedup_window: Seconds for which a ``dedup_id`` is remembered.
        slot: Queues of one slot can share a transaction wherever they are. A queue alone has
            its name as its slot. Cannot be altered.
        shards: In how many shards a router keeps the messages. Cannot be altered; not known to
            other backends.
    """

    lease: float | None = None
    max_deliveries: int | None = None
    max_length: int | None = None
    overflow: str | None = None
    max_payload_bytes: int | None = None
    dedup_window: float | None = None
    slot: str | None = None
    shards: int | None = None


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
        epoch: Grows with each change of the settings.
    """

    settings: Settings
    created: bool
    created_at: float
    epoch: int = 0


@attrs.frozen
class Alter:
    """Change those settings of a queue that are not None, for all who use it.

    A shorter lease counts for messages in flight only when the old one has run out once.
    """

    name: str
    settings: Settings


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


class Terms(msgspec.Struct, frozen=True, gc=False):
    """What a message is sent with besides its body; None (or 0) is "not given".

    Attributes:
        key: What the message is about, for routers and ordered consumers.
        headers: A JSON object, encoded.
        label: The user's name for it; not unique, never used to find it.
        ttl: Milliseconds from now, by the server's clock, after which it is not handed out.
        delay: Milliseconds from now before which it is not handed out.
        due_at: The same as a moment, in milliseconds since the epoch.
        dedup_id: If the queue remembers a message of this id, nothing is stored, and the
            result is that message's id.
    """

    key: str | None = None
    headers: bytes | None = None
    label: str | None = None
    ttl: int = 0
    delay: int = 0
    due_at: int = 0
    dedup_id: str | None = None


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A message to store: its encoded body, and its terms if it has any."""

    body: bytes
    terms: Terms | None = None


class SendBatch(msgspec.Struct, frozen=True):
    """Messages for one queue, in order. At most ``Capabilities.best_batch``.

    Attributes:
        epoch: If not 0: refuse (``StaleSettingsError``) unless the settings are of this epoch.
        producer: If not empty: who sends. At most one batch of a producer to a queue is under
            way. Needs ``Capabilities.sequences``; not for transactions.
        sequence: Which batch of its producer this is; each has a higher one than that before it.
            The last one of which any message was stored is remembered, at least for the
            queue's ``dedup_window``: sent again, it stores nothing, and the results are those of
            the first time (what was refused then is refused). One before that is an error, and
            stores nothing.
        shard: The shard that all of it goes to; -1: to those of their keys. Only for queues in
            shards.
    """

    queue: QueueRef
    messages: Sequence[NewMessage]
    epoch: int = 0
    producer: str = ""
    sequence: int = 0
    shard: int = -1


SendResult: TypeAlias = "str | LeanMQError"
"""The id (stored), an error (certainly not stored), or an error that is ``in_doubt``."""


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
    DELETE = "delete"
    """Delete it, whoever holds it, ready or delayed or in flight."""


class Standing(enum.IntEnum):
    """What a receipt was still worth."""

    DONE = 0
    """The receipt was good, the operation is carried out."""
    GONE = 1
    """The message is not there any more: settled before, or deleted."""
    LOST = 2
    """The lease was lost and another consumer holds the message. Nothing was changed."""
    REFUSED = 3
    """There is no room where the message should go. Nothing was changed."""
    BURIED = 4
    """As DONE; the message was at its limit, and so it became a dead letter."""


class Held(msgspec.Struct, frozen=True, gc=False):
    """A message to settle: by receipt, or (receipt None) by id if nobody holds it."""

    id: str
    receipt: str | None = None


class Settlement(msgspec.Struct, frozen=True):
    """One verb for messages of one queue.

    Attributes:
        delay: Seconds until a retried (or released) message is due again.
        reason: Why a message becomes a dead letter, or is retried.
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
        count: Messages at most. With 0 the queue is only kept in order, and ``Exchanged.more``
            tells whether there is a message to receive; for ``ManyQueues``.
        alone: The consumer's process holds no message: it may be given a suspect (handed out
            before, repeatedly, and never settled), which then comes alone.
        recover: First hand out, uncounted, what this consumer was given and does not hold
            because a reply was lost.
        held: Receipts that this consumer does hold; only needed with ``recover``.
        brisk: New messages will do; upkeep of the queue may wait until there are none.
        watched: If none comes, tell by ``Exchanged.mark`` where the look ended, for a ``Watch``.
        together: Other queues are asked besides: a ``brisk`` look that finds no new messages is
            over, and upkeep waits for another.
        waited: The same caller looked a moment ago, found nothing and waited. What no wait tells of
            may be left to another who waits, for up to a second.
    """

    queue: QueueRef
    consumer: str
    count: int
    alone: bool = False
    recover: bool = False
    held: Sequence[str] = ()
    brisk: bool = False
    watched: bool = False
    together: bool = False
    waited: bool = False


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
        key: As it was sent.
        headers: As they were sent: a JSON object, encoded.
        label: As it was sent.
        failures: Why it was retried before, oldest first; the last ones only.
        redrives: How often it was sent back from the dead letters.
        foreign: Stored in a form of a later version, which this one does not know.
        taken_over: A consumer had it, and did not settle it before its lease ended.
    """

    id: str
    body: bytes
    receipt: str
    delivery_count: int
    timestamp: float
    suspect: bool = False
    error: str | None = None
    key: str | None = None
    headers: bytes | None = None
    label: str | None = None
    failures: Sequence[Failure] = ()
    redrives: int = 0
    foreign: bool = False
    taken_over: bool = False


class Exchanged(msgspec.Struct, frozen=True):
    """The result of an exchange.

    Attributes:
        settled: A standing for each message of each settlement, in order.
        deliveries: The messages received.
        more: Ask again at once: the backend stopped its upkeep halfway to stay quick.
        suspects: Suspects are waiting that were not handed out.
        lease: Seconds that the deliveries are leased for.
        calm: For so many seconds the next receives may be ``brisk``.
        buried: Messages that became dead letters on the way, and how often they had been handed
            out.
        mark: Where the look ended; opaque, for a ``Watch``.
        soon: Seconds until something may be there that no ``Watch`` tells of: a delay or a lease
            ends. None if nothing of the kind is known.
        lost: This consumer was handed out more than it got to see: the reply of a part was lost,
            or a recovery is not over. It asks with ``recover``, as after an error.
        fresh: How many new messages were left, at most: some of them may be in flight. None if
            that is not known, or if messages that came free wait besides.
    """

    settled: Sequence[Sequence[Standing]] = ()
    deliveries: Sequence[Delivery] = ()
    more: bool = False
    suspects: bool = False
    lease: float = 0.0
    calm: float = 0.0
    buried: Sequence[tuple[str, int]] = ()
    mark: str = ""
    soon: float | None = None
    lost: bool = False
    fresh: int | None = None


@attrs.frozen
class Extend:
    """Begin the lease of these messages anew."""

    queue: QueueRef
    messages: Sequence[Held]


class Extended(msgspec.Struct, frozen=True):
    """A standing a message, and the seconds that DONE ones are leased for from now."""

    standings: Sequence[Standing]
    lease: float


class State(enum.IntEnum):
    """Where a stored message is."""

    READY = 0
    """Waiting to be handed out."""
    IN_FLIGHT = 1
    """Leased to a consumer."""
    DELAYED = 2
    """Not due yet."""


@attrs.frozen
class Peek:
    """Look at messages without touching them.

    Attributes:
        queue: Where.
        count: Messages at most.
        state: Those of this state, the next ones first.
        ids: These messages instead, in any state.
    """

    queue: QueueRef
    count: int = 10
    state: State = State.READY
    ids: Sequence[str] | None = None


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as it is stored. Its ``delivery`` has no receipt.

    Attributes:
        delivery: As it would be handed out; ``delivery_count`` is how often it has been.
        state: Where it is.
        until: Seconds from now until its lease ends, or until it is due; negative if over.
        consumer: Who holds it.
    """

    delivery: Delivery
    state: State
    until: float = 0.0
    consumer: str | None = None


class Peeked(msgspec.Struct, frozen=True):
    """The messages that were found, in order."""

    messages: Sequence[Stored]


@attrs.frozen
class Redrive:
    """Send dead letters back: their counts begin anew, their ids stay.

    Attributes:
        messages: Dead letters of the queue, by receipt, or by id if nobody holds them.
        destination: The queue where they go; None is the queue that they came from.
    """

    queue: QueueRef
    messages: Sequence[Held]
    destination: str | None = None


class Redriven(msgspec.Struct, frozen=True):
    """A standing a message; REFUSED if the destination is full."""

    standings: Sequence[Standing]


@attrs.frozen
class Purge:
    """Delete messages of a queue: all that are there now, in every state, or the expired ones.

    Attributes:
        expired: Only those whose time to live is over, and that nobody holds.
    """

    queue: QueueRef
    expired: bool = False


@attrs.frozen
class Purged:
    """How many messages were deleted."""

    count: int


class Transact(msgspec.Struct, frozen=True):
    """Sends and acknowledgements, all or nothing.

    Attributes:
        sends: Messages, a batch a queue.
        acknowledge: Deliveries by their receipts, which must all still be good.
    """

    sends: Sequence[SendBatch]
    acknowledge: Sequence[Settlement] = ()


@attrs.frozen
class ListQueues:
    """All queues of the prefix."""


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


@attrs.frozen
class Listed:
    """Figures of each queue, and of its dead letters, by name."""

    queues: Sequence[tuple[QueueRef, QueueStats]]


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

    def alter(self, request: Alter) -> Declared:
        """Change settings. Idempotent; raises QueueNotFoundError."""
        ...

    def drop(self, request: Drop) -> Dropped:
        """Delete a queue and its messages. Idempotent."""
        ...

    def list(self, request: ListQueues) -> Listed:
        """Count the messages of every queue. Idempotent."""
        ...

    def send(self, batch: SendBatch) -> Sent:
        """Store messages in order. Not idempotent, save for messages with a ``dedup_id`` and
        batches with a ``producer``: an error result that is ``in_doubt`` may have been stored.
        Once one message is refused (``QueueFullError``), so are those after it.

        Raises only ``QueueNotFoundError`` and ``StaleSettingsError``, before anything was
        stored."""
        ...

    def transact(self, request: Transact) -> Sent:
        """Store and acknowledge, all or nothing; the ids in the order of the sends.

        Not idempotent. Every error that is not ``in_doubt`` means that nothing was done.

        Raises:
            CrossSlotTransactionError: if the queues cannot share a transaction here.
            QueueNotFoundError: if one of the queues does not exist.
            StaleSettingsError: if the settings of one have another epoch.
            QueueFullError: if one has no room for its messages.
            TransactionError: if a receipt is not good any more.
        """
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

    def peek(self, request: Peek) -> Peeked:
        """Look at messages. Changes nothing; raises QueueNotFoundError."""
        ...

    def redrive(self, request: Redrive) -> Redriven:
        """Send dead letters back, each in one atomic step. Idempotent but for the standings.

        Raises:
            CrossSlotError: if the destination cannot be reached in one step from here.
            QueueNotFoundError: if one of the queues does not exist; nothing was done.
        """
        ...

    def purge(self, request: Purge) -> Purged:
        """Delete messages, in steps that keep no other client waiting. Idempotent."""
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

    async def alter(self, request: Alter) -> Declared:
        """See ``Backend.alter``."""
        ...

    async def drop(self, request: Drop) -> Dropped:
        """See ``Backend.drop``."""
        ...

    async def list(self, request: ListQueues) -> Listed:
        """See ``Backend.list``."""
        ...

    async def send(self, batch: SendBatch) -> Sent:
        """See ``Backend.send``."""
        ...

    async def transact(self, request: Transact) -> Sent:
        """See ``Backend.transact``."""
        ...

    async def exchange(self, request: Exchange) -> Exchanged:
        """See ``Backend.exchange``."""
        ...

    async def extend(self, request: Extend) -> Extended:
        """See ``Backend.extend``."""
        ...

    async def peek(self, request: Peek) -> Peeked:
        """See ``Backend.peek``."""
        ...

    async def redrive(self, request: Redrive) -> Redriven:
        """See ``Backend.redrive``."""
        ...

    async def purge(self, request: Purge) -> Purged:
        """See ``Backend.purge``."""
        ...

    async def stats(self, request: Stats) -> QueueStats:
        """See ``Backend.stats``."""
        ...
