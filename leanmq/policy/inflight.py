"""What this client holds: receipts of messages in flight, and the lanes it receives on.

Pure data under one lock; no I/O, no waiting. Shared by all queues of a client, since what
kills its process kills all that it holds.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import attrs

from leanmq.backends.protocol import Delivery, Held, QueueRef
from leanmq.clock import Clock

__all__ = ["InFlight", "Loan"]

LAPSED_KEPT = 10_000
"""Receipts remembered after their lease ended; a late settle with one can still succeed."""


@attrs.define(eq=False)
class Batch:
    """Messages that were received, or whose leases were renewed, together."""

    queue: QueueRef
    consumer: str
    ends: float
    suspect: bool
    ids: Sequence[str]
    left: int
    lapsed: bool = False


@attrs.frozen
class Loan:
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
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._client = f"{self._pid:x}-{secrets.token_hex(6)}"
        self._lanes = 0
        self._free: list[str] = []
        self._dirty: dict[QueueRef, OrderedDict[str, float]] = {}
        self._receipts: dict[QueueRef, dict[str, tuple[str, Batch]]] = {}
        self._batches: OrderedDict[Batch, None] = OrderedDict()  # live, in order of making
        self._lapsed: OrderedDict[Batch, None] = OrderedDict()
        self._live = self._lapsed_left = 0  # messages in each
        self._suspects: list[Batch] = []
        self._alone_claimed = False
        self._waiting_since: float | None = None
        self._starved = False
        self._calm: dict[QueueRef, float] = {}

    def _check_process(self) -> None:
        # A forked child starts with names and a table of its own; what it inherited is the
        # parent's. The lock may have been held by a thread that does not exist here.
        if os.getpid() != self._pid:
            self._lock = threading.Lock()
            self._reset()

    def __len__(self) -> int:
        """How many messages are leased to this client."""
        with self._lock:
            self._expire()
            return self._live

    # --- lanes

    def borrow(self, queue: QueueRef) -> Loan:
        """Begin a receive: a free lane, first of all one that lost a reply of this queue."""
        self._check_process()
        with self._lock:
            now = self._expire()
            alone = not self._live and not self._alone_claimed
            self._alone_claimed = self._alone_claimed or alone
            for lane in self._dirty.get(queue, ()):
                if lane in self._free:
                    self._free.remove(lane)
                    held = self._held_on(queue, lane)
                    return Loan(queue, lane, alone, True, held, now, False)
            if self._free:
                lane = self._free.pop()
            else:
                lane = f"{self._client}.{self._lanes}"
                self._lanes += 1
            return Loan(queue, lane, alone, False, (), now, now < self._calm.get(queue, 0.0))

    def give_back(self, loan: Loan, *, lost_until: float | None) -> None:
        """End a receive.

        Args:
            loan: What ``borrow`` returned.
            lost_until: None if its reply arrived. Else the lane is to be recovered, and looked
                at again until this moment: the old read may live on in the server that long.
        """
        with self._lock:
            if not loan.consumer.startswith(self._client):
                return  # borrowed before a fork
            if loan.alone:
                self._alone_claimed = False
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
                suspect = keep[0].suspect
                batch = self._batch(loan.queue, loan.consumer, now + lease, suspect, keep)
                table = self._receipts.setdefault(loan.queue, {})
                if not table.keys().isdisjoint(batch.ids):
                    for message_id in batch.ids:
                        if message_id in table:
                            self._take_out(table, message_id)
                for delivery in keep:
                    table[delivery.id] = (delivery.receipt, batch)
            return keep, back

    def held(self, queue: QueueRef, ids: Iterable[str]) -> list[Held]:
        """The messages with their receipts; receipt None for those that are not in the table."""
        self._check_process()
        with self._lock:
            table = self._receipts.get(queue, {})
            return [
                Held(i, found[0]) if (found := table.get(i)) is not None else Held(i) for i in ids
            ]

    def forget(self, queue: QueueRef, messages: Iterable[Held]) -> None:
        """These are settled, or lost: they are held no more."""
        with self._lock:
            table = self._receipts.get(queue, {})
            settled: dict[Batch, int] = {}
            for message in messages:
                found = table.pop(message.id, None)
                if found is None:
                    continue
                if found[0] == message.receipt:
                    settled[found[1]] = settled.get(found[1], 0) + 1
                else:  # handed out again meanwhile
                    table[message.id] = found
            for batch, number in settled.items():
                self._less(batch, number)

    def renew(self, queue: QueueRef, messages: Sequence[Held], lease: float) -> None:
        """The leases of these begin anew."""
        with self._lock:
            ends = self._expire() + lease
            table = self._receipts.get(queue, {})
            for message in messages:
                found = table.get(message.id)
                if found is None or found[0] != message.receipt:
                    continue
                receipt, old = found
                self._take_out(table, message.id)
                new = self._batch(queue, old.consumer, ends, old.suspect, (message,))
                table[message.id] = (receipt, new)

    def _batch(
        self,
        queue: QueueRef,
        consumer: str,
        ends: float,
        suspect: bool,
        messages: Sequence[Delivery] | Sequence[Held],
    ) -> Batch:
        batch = Batch(queue, consumer, ends, suspect, [m.id for m in messages], len(messages))
        self._batches[batch] = None
        self._live += batch.left
        if suspect:
            self._suspects.append(batch)
        return batch

    def _take_out(self, table: dict[str, tuple[str, Batch]], message_id: str) -> None:
        self._less(table.pop(message_id)[1], 1)

    def _less(self, batch: Batch, number: int) -> None:
        batch.left -= number
        if batch.lapsed:
            self._lapsed_left -= number
        else:
            self._live -= number
        if not batch.left:
            del (self._lapsed if batch.lapsed else self._batches)[batch]

    def _held_on(self, queue: QueueRef, lane: str) -> list[str]:
        table = self._receipts.get(queue, {})
        return [receipt for receipt, batch in table.values() if batch.consumer == lane]

    # --- suspects

    def must_pause(self) -> bool:
        """Whether to receive nothing for now: a suspect is held, or waits for us to be empty."""
        self._check_process()
        if not self._suspects and not self._starved:
            return False
        with self._lock:
            now = self._expire()
            return self._holds_suspect(now) or (self._starved and self._live > 0)

    def saw_suspects(self, waiting: bool, patience: float) -> None:
        """Suspects were (not) left waiting. After ``patience`` seconds of it, drain for them."""
        with self._lock:
            now = self._clock.monotonic()
            if not waiting:
                self._waiting_since = None
            elif self._waiting_since is None:
                self._waiting_since = now
            since = self._waiting_since
            self._starved = since is not None and now - since > patience

    def _holds_suspect(self, now: float) -> bool:
        self._suspects = [b for b in self._suspects if b.left and b.ends > now]
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
            self._live -= batch.left
            self._lapsed_left += batch.left
        while self._lapsed_left > LAPSED_KEPT:
            batch = next(iter(self._lapsed))
            table = self._receipts[batch.queue]
            for message_id in batch.ids:
                if message_id in table and table[message_id][1] is batch:
                    self._take_out(table, message_id)
        return now
