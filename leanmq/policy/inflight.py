"""What this client holds: receipts of messages in flight, and the lanes it receives on.

Pure data under one lock; no I/O, no waiting. Shared by all queues of a client, since what
kills its process kills all that it holds.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import attrs
import msgspec

from leanmq.backends.protocol import Delivery, Held, QueueRef
from leanmq.clock import Clock

__all__ = ["InFlight", "Loan", "Pause"]

LAPSED_KEPT = 10_000
"""Receipts remembered after their lease ended; a late settle with one can still succeed."""

MINDED = 10.0
"""Seconds, or a lease if that is longer, for which a client minds suspects of a queue that it asks
for no messages."""

TOLD_AFTER = 5.0
"""Seconds of receiving nothing for the sake of suspects, after which the reason is told."""


@attrs.frozen
class Pause:
    """Why a client receives nothing.

    Attributes:
        queue: Of the suspect.
        message_id: The suspect that this client holds; None if one waits for it to hold nothing.
        held: How many messages it holds.
    """

    queue: QueueRef
    message_id: str | None
    held: int


@attrs.define(eq=False)
class Batch:
    """Messages that were received, or whose leases were renewed, together."""

    queue: QueueRef
    consumer: str
    ends: float
    suspect: bool
    receipts: dict[str, str]
    """Receipt by id, of the messages that are left."""
    lapsed: bool = False


@attrs.define
class Waiting:
    """Suspects of a queue were not given to us when it was looked at last.

    Attributes:
        since: When they were first seen, on the monotonic clock.
        asked: When this client last asked for messages of the queue.
        patience: Seconds after which it drains for them.
        starved: They wait for longer than that.
    """

    since: float
    asked: float
    patience: float
    starved: bool = False


class Loan(msgspec.Struct, frozen=True, weakref=True):
    """One receive under way: its lane, and what it may be given.

    Attributes:
        queue: Where it receives from.
        consumer: The lane's name; no other receive uses it meanwhile.
        alone: This client holds nothing and no other receive may be given a suspect.
        recover: A reply on this lane was lost: ask for what it delivered.
        held: Receipts held of this lane; only filled if ``recover``.
        began: When, on the monotonic clock.
        brisk: The queue needs no upkeep just now.
    """

    queue: QueueRef
    consumer: str
    alone: bool
    recover: bool
    held: Sequence[str]
    began: float
    brisk: bool


class InFlight:
    """Receipts by queue and id, and lanes.

    A *lane* is a consumer name that one receive at a time uses. So what is pending under a
    lane that nobody uses and that is not in this table was delivered in a reply that got lost
    (*stranded*); a sibling thread's delivery, still on its way, is on another lane.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._forks: dict[int, threading.Lock] = {}
        self._reset()

    def _reset(self) -> None:
        self._client = f"{os.getpid():x}-{secrets.token_hex(6)}"
        self._lanes = 0
        self._free: list[str] = []
        self._dirty: dict[QueueRef, OrderedDict[str, float]] = {}
        self._tables: dict[QueueRef, dict[str, Batch]] = {}  # in which batch an id is
        self._batches: OrderedDict[Batch, None] = OrderedDict()  # live, in order of making
        self._lapsed: OrderedDict[Batch, None] = OrderedDict()
        self._live = self._lapsed_left = 0  # messages in each
        self._suspects: list[Batch] = []
        self._waiting: dict[QueueRef, Waiting] = {}
        self._alone: weakref.ref[Loan] | None = None
        self._calm: dict[QueueRef, float] = {}
        self._paused: float | None = None  # since when; infinite once it was told
        self._pid = os.getpid()  # last: from now on no thread waits for us

    def _check_process(self) -> None:
        # A forked child starts with names and a table of its own; what it inherited is the
        # parent's. The lock may have been held by a thread that does not exist here.
        pid = os.getpid()
        if pid != self._pid:
            with self._forks.setdefault(pid, threading.Lock()):
                if pid != self._pid:
                    self._lock = threading.Lock()
                    self._reset()

    def __len__(self) -> int:
        """How many messages are leased to this client."""
        self._check_process()
        with self._lock:
            self._expire()
            return self._live

    # --- lanes

    def borrow(self, queue: QueueRef) -> Loan:
        """Begin a receive: a free lane, first of all one that lost a reply of this queue."""
        self._check_process()
        with self._lock:
            now = self._expire()
            alone = self._may_be_alone(queue, now)
            for lane in self._dirty.get(queue, ()):
                if lane in self._free:
                    self._free.remove(lane)
                    held = self._held_on(queue, lane)
                    loan = Loan(queue, lane, alone, True, held, now, False)
                    break
            else:
                if self._free:
                    lane = self._free.pop()
                else:
                    lane = f"{self._client}.{self._lanes}"
                    self._lanes += 1
                brisk = now < self._calm.get(queue, 0.0)
                loan = Loan(queue, lane, alone, False, (), now, brisk)
            if alone:  # for as long as the loan lives: Ctrl-C may lose it
                self._alone = weakref.ref(loan)
            return loan

    def give_back(self, loan: Loan, *, lost_until: float | None) -> None:
        """End a receive.

        Args:
            loan: What ``borrow`` returned.
            lost_until: None if its reply arrived. Else the lane is to be recovered, and looked
                at again until this moment: the old read may live on in the server that long.
        """
        self._check_process()
        with self._lock:
            if not loan.consumer.startswith(self._client):
                return  # borrowed before a fork
            if loan.alone:
                self._alone = None
            self._free.append(loan.consumer)
            if lost_until is None and not loan.recover:
                return
            dirty = self._dirty.setdefault(loan.queue, OrderedDict())
            if lost_until is not None:
                dirty[loan.consumer] = max(lost_until, dirty.get(loan.consumer, 0.0))
            elif loan.began >= dirty.get(loan.consumer, 0.0):
                dirty.pop(loan.consumer, None)
            else:
                dirty.move_to_end(loan.consumer)
            if not dirty:
                del self._dirty[loan.queue]

    def calm(self, queue: QueueRef, until: float) -> None:
        """Until then (0: not at all) receives of this queue may be brisk."""
        self._calm[queue] = until

    # --- receipts

    def admit(
        self, loan: Loan, deliveries: Sequence[Delivery], lease: float
    ) -> tuple[Sequence[Delivery], Sequence[Delivery]]:
        """Enter what was received; returns what may be handed out and what must go back.

        A suspect is handed out only if this client holds nothing else, and while it holds one
        it takes nothing more: whatever dies with its process counts as killed by it.
        """
        if not deliveries:
            return (), ()
        with self._lock:
            now = self._expire()
            keep: Sequence[Delivery] = deliveries
            back: Sequence[Delivery] = ()
            if self._holds_suspect(now):
                keep, back = (), deliveries
            elif [d for d in deliveries if d.suspect]:
                if deliveries[0].suspect and not self._live:
                    keep, back = deliveries[:1], deliveries[1:]
                else:
                    keep = [d for d in deliveries if not d.suspect]
                    back = [d for d in deliveries if d.suspect]
            if keep:
                receipts = {d.id: d.receipt for d in keep}
                table = self._tables.setdefault(loan.queue, {})
                if not table.keys().isdisjoint(receipts):
                    self._take_out(table, receipts.keys() & table.keys())
                batch = Batch(loan.queue, loan.consumer, now + lease, keep[0].suspect, receipts)
                self._enter(table, batch)
            return keep, back

    def held(self, queue: QueueRef, ids: Iterable[str]) -> list[Held]:
        """The messages with their receipts; receipt None for those that are not in the table."""
        self._check_process()
        with self._lock:
            table = self._tables.get(queue, {})
            return [
                Held(i, batch.receipts[i]) if (batch := table.get(i)) is not None else Held(i)
                for i in ids
            ]

    def still_held(self, queue: QueueRef, messages: Sequence[Held]) -> list[bool]:
        """Whether each is held by the very receipt that ``held`` or ``admit`` gave."""
        self._check_process()
        with self._lock:
            table = self._tables.get(queue, {})
            known = set(self._known(table, messages))
            return [message.id in known for message in messages]

    def forget(self, queue: QueueRef, messages: Iterable[Held]) -> None:
        """These are settled, or lost: they are held no more."""
        self._check_process()
        with self._lock:
            table = self._tables.get(queue, {})
            self._take_out(table, self._known(table, messages))

    def all_held(self, queue: QueueRef) -> list[Held]:
        """All of a queue that is in the table."""
        self._check_process()
        with self._lock:
            table = self._tables.get(queue, {})
            return [Held(i, batch.receipts[i]) for i, batch in table.items()]

    def renew(self, queue: QueueRef, messages: Sequence[Held], lease: float) -> None:
        """The leases of these begin anew."""
        self._check_process()
        with self._lock:
            ends = self._expire() + lease
            table = self._tables.get(queue, {})
            known = self._known(table, messages)
            batches = [table[message_id] for message_id in known]
            receipts = [batch.receipts[i] for batch, i in zip(batches, known, strict=True)]
            self._take_out(table, known)
            for old, message_id, receipt in zip(batches, known, receipts, strict=True):
                new = Batch(queue, old.consumer, ends, old.suspect, {message_id: receipt})
                self._enter(table, new)

    @staticmethod
    def _known(table: dict[str, Batch], messages: Iterable[Held]) -> list[str]:
        """The ids of those that are held by these very receipts, not by newer ones.

        Newer ones may be equal: what one thread has released, another may receive as the same
        delivery on the same lane, before the first has heard that it is released.
        """
        return [
            message.id
            for message in messages
            if (batch := table.get(message.id)) is not None
            and batch.receipts[message.id] is message.receipt
        ]

    def _enter(self, table: dict[str, Batch], batch: Batch) -> None:
        # In this order, so that Ctrl-C in between leaves nothing in a table that never expires.
        self._batches[batch] = None
        table.update(dict.fromkeys(batch.receipts, batch))
        self._live += len(batch.receipts)
        if batch.suspect:
            self._suspects.append(batch)

    def _take_out(self, table: dict[str, Batch], ids: Iterable[str]) -> None:
        for message_id in ids:
            batch = table.pop(message_id)
            receipts = batch.receipts
            del receipts[message_id]
            if batch.lapsed:
                self._lapsed_left -= 1
            else:
                self._live -= 1
            if not receipts:
                (self._lapsed if batch.lapsed else self._batches).pop(batch, None)

    def _held_on(self, queue: QueueRef, lane: str) -> list[str]:
        batches = [*self._batches, *self._lapsed]
        ours = (b.receipts.values() for b in batches if b.consumer == lane and b.queue == queue)
        return [receipt for receipts in ours for receipt in receipts]

    # --- suspects

    def must_pause(self, queue: QueueRef) -> bool:
        """Whether to receive nothing of this queue for now: a suspect is held, or one of some
        queue waits for us to be empty."""
        self._check_process()
        if not self._suspects and not self._waiting:
            self._paused = None
            return False
        with self._lock:
            now = self._expire()
            if (waiting := self._waiting.get(queue)) is not None:
                waiting.asked = now
            if self._holds_suspect(now) or (self._live > 0 and self._is_starved(now)):
                self._paused = now if self._paused is None else self._paused
                return True
            self._paused = None
            return False

    def untold(self) -> Pause | None:
        """Why this client receives nothing, if that goes on for long; once for each time."""
        with self._lock:
            now = self._expire()
            since = self._paused  # read once: it is unset without the lock
            if since is None or now - since < TOLD_AFTER:
                return None
            self._paused = math.inf
            if self._holds_suspect(now):
                batch = self._suspects[0]
                return Pause(batch.queue, next(iter(batch.receipts)), self._live)
            starved = [queue for queue, waiting in self._waiting.items() if waiting.starved]
            return Pause(starved[0], None, self._live) if starved else None

    def saw_suspects(self, queue: QueueRef, waiting: bool, patience: float) -> None:
        """Suspects were (not) left waiting. After ``patience`` seconds of it, drain for them."""
        with self._lock:
            now = self._clock.monotonic()
            if not waiting:
                self._waiting.pop(queue, None)
                return
            seen = self._waiting.setdefault(queue, Waiting(now, now, patience))
            seen.asked, seen.patience, seen.starved = now, patience, now - seen.since > patience

    def _may_be_alone(self, queue: QueueRef, now: float) -> bool:
        """Whether a receive of this queue may be given a suspect: one at a time, if nothing is
        held; and not of a queue that has none, while those of others wait."""
        if self._live or (self._alone is not None and self._alone() is not None):
            return False
        return not self._waiting or queue in self._waiting or not self._minded(now)

    def _is_starved(self, now: float) -> bool:
        return any(waiting.starved for waiting in self._minded(now))

    def _minded(self, now: float) -> list[Waiting]:
        """Suspects of queues that we ask for messages; others look after the rest."""
        self._waiting = {
            q: w for q, w in self._waiting.items() if now - w.asked <= max(w.patience, MINDED)
        }
        return list(self._waiting.values())

    def _holds_suspect(self, now: float) -> bool:
        self._suspects = [b for b in self._suspects if b.receipts and b.ends > now]
        return bool(self._suspects)

    # --- time

    def _expire(self) -> float:
        """Account for leases that ended. Mostly looks at one batch; returns the time."""
        now = self._clock.monotonic()
        while self._batches:
            batch = next(iter(self._batches))
            if batch.ends > now:
                break
            del self._batches[batch]
            self._lapsed[batch] = None
            batch.lapsed = True
            self._live -= len(batch.receipts)
            self._lapsed_left += len(batch.receipts)
        if not self._batches:
            self._live = 0  # exactly, whatever Ctrl-C came between
        while self._lapsed_left > LAPSED_KEPT:
            batch = next(iter(self._lapsed))
            self._take_out(self._tables[batch.queue], list(batch.receipts))
        return now
