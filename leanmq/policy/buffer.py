"""What a batching producer holds: messages by lane, within bounds, and which batches are due.

Pure data: no I/O, no waiting, no lock (threads put their own around it).
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeAlias, TypeVar

import attrs

from leanmq.backends.protocol import Declared, NewMessage, SendResult
from leanmq.errors import LeanMQError
from leanmq.policy.limits import Limits
from leanmq.policy.patience import Patience

__all__ = ["Batch", "Buffer", "Entry", "Lane"]

F = TypeVar("F")

Entry: TypeAlias = "tuple[NewMessage, F, float]"
"""A message, the future of its id, and when it came (monotonic)."""


class Lane(Generic[F]):
    """Messages that keep their order, of which one batch at most is under way.

    Attributes:
        shard: Where they go; -1: to a queue that is not in shards, or that is not known as such.
        waiting: Those that are in no batch yet; ``size``: their bytes.
        batch: The one that is under way, or to be sent again.
        producer: Who sends, for the backend; no other lane has this name.
        sequence: Number of the latest batch.
        leaving: How many messages are about to be settled; ``done``: how many are.
    """

    __slots__ = ("batch", "done", "leaving", "producer", "sequence", "shard", "size", "waiting")

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.waiting: deque[Entry[F]] = deque()
        self.size = 0
        self.batch: Batch[F] | None = None
        self.producer = secrets.token_hex(6)
        self.sequence = 0
        self.leaving = 0
        self.done = 0


@attrs.define(eq=False)
class Batch(Generic[F]):
    """Messages of a lane that are sent together, until every one of them is settled.

    Attributes:
        entries: Those that are to be sent, or sent again.
        taken: How many there were.
        held: How many have no result yet; ``size``: their bytes.
        rest: Those behind ``entries`` that the backend does not take in the same send.
        refused: Futures of messages that cannot be sent, and why.
        doubts: What is known of each entry that may be stored.
        again_at: Not to be sent before this moment.
        under_way: Being sent just now.
        since: From when its time to be tried counts; ``patience``: how long it is tried again.
        began: When it was sent first; None before that.
        repeatable: Until when it may be sent again if nobody knows what became of it.
        known: The settings that it was sent by last.
        mend: Results of its last try: what they show is mended before the next one.
        sequenced: It was sent with a producer and a sequence.
        strayed: It is in no lane of its queue's, which turned out to be in shards.
    """

    lane: Lane[F]
    entries: list[Entry[F]]
    taken: int
    held: int
    size: int
    since: float
    rest: list[Entry[F]] = attrs.field(factory=list)
    refused: list[tuple[F, LeanMQError]] = attrs.field(factory=list)
    doubts: list[LeanMQError | None] = attrs.field(factory=list)
    again_at: float = 0.0
    under_way: bool = True
    patience: Patience | None = None
    began: float | None = None
    repeatable: float = 0.0
    known: Declared | None = None
    mend: Sequence[SendResult] = ()
    sequenced: bool = False
    strayed: bool = False


class Buffer(Generic[F]):
    """All lanes of a producer.

    Args:
        limits: How it gathers.
        begin: Called with the future of a message that is about to be sent; False if its caller
            does not want it any more.

    Attributes:
        count: Messages that are not settled; ``size``: their bytes.
        hurry: How many callers want all of it sent at once.
        wakes_at: When the sender looks next by itself: inf if never, 0 while it does not sleep.
    """

    def __init__(self, limits: Limits, begin: Callable[[F], bool]) -> None:
        self.limits = limits
        self.count = 0
        self.size = 0
        self.hurry = 0
        self.wakes_at = 0.0
        self._begin = begin
        self._lanes: dict[int, Lane[F]] = {}
        self._leaving: list[tuple[Lane[F], int, int, int]] = []
        self._moved: tuple[Lane[F], int, list[tuple[Lane[F], int]]] | None = None

    @property
    def full(self) -> bool:
        """Whether no more messages are taken in for now."""
        limits = self.limits
        return self.count >= limits.max_buffered or self.size >= limits.max_buffered_bytes

    @property
    def open(self) -> int:
        """Messages that have no result yet; others may still have to be told theirs."""
        return self.count - sum(count for _, _, count, _ in self._leaving)

    def busy(self, shard: int) -> bool:
        """Whether another lane had better be used: this one has a batch, or cannot send it."""
        lane = self._lanes.get(shard)
        return lane is not None and (
            len(lane.waiting) >= self.limits.max_batch
            or (lane.batch is not None and lane.batch.again_at > 0.0)
        )

    def add(self, shard: int, message: NewMessage, future: F, now: float) -> bool:
        """Append a message to a lane; returns whether to wake the sender.

        Appended first, counted afterwards: Ctrl-C in between may make the counts too low, until
        the buffer is empty, but never leaks room.
        """
        lane = self._lanes.get(shard) or self._lane(shard)
        size = size_of(message)
        lane.waiting.append((message, future, now))
        lane.size += size
        self.size += size
        self.count += 1
        limits = self.limits
        if now + limits.linger < self.wakes_at:
            return True
        if not self.wakes_at or lane.batch is not None:
            return False  # it will see
        return len(lane.waiting) >= limits.max_batch or lane.size >= limits.max_bytes or self.full

    def _lane(self, shard: int) -> Lane[F]:
        return self._lanes.setdefault(shard, Lane(shard))

    def move(self, batch: Batch[F], shard_of: Callable[[NewMessage], int]) -> None:
        """Have what is in a batch, and behind it, go to other lanes, in the same order."""
        lane = batch.lane
        entries = [*batch.entries, *batch.rest]
        held = sum(size_of(message) for message, _, _ in entries)
        dropped = batch.held - len(entries)
        count = batch.taken + len(lane.waiting)
        entries += lane.waiting
        lane.waiting, lane.size, lane.batch = deque(), 0, None
        for entry in entries:
            target = self._lane(shard_of(entry[0]))
            target.waiting.append(entry)
            target.size += size_of(entry[0])
        # Whoever flushes waits for their new lanes, and so for as many as had come there then.
        self._moved = (lane, count, self.marks())
        lane.leaving += count
        self._leaving.append((lane, 0, dropped, batch.size - held))

    def due(self, now: float) -> list[Batch[F]]:
        """The batches that are to be sent now: they are under way from here on."""
        limits = self.limits
        hurry = bool(self.hurry) or self.full
        found = []
        for lane in self._lanes.values():
            batch = lane.batch
            if batch is not None:
                if batch.under_way or batch.again_at > now:
                    continue
                batch.under_way = True
            elif lane.waiting and (
                hurry
                or len(lane.waiting) >= limits.max_batch
                or lane.size >= limits.max_bytes
                or lane.waiting[0][2] + limits.linger <= now
            ):
                batch = lane.batch = self._take(lane)
            else:
                continue
            found.append(batch)
        return found

    def _take(self, lane: Lane[F]) -> Batch[F]:
        entries: list[Entry[F]] = []
        taken = size = 0
        since = lane.waiting[0][2]
        while lane.waiting and len(entries) < self.limits.max_batch:
            entry = lane.waiting.popleft()
            taken += 1
            size += size_of(entry[0])
            if self._begin(entry[1]):
                entries.append(entry)
            if size >= self.limits.max_bytes:
                break
        lane.size -= size
        lane.sequence += 1
        return Batch(lane, entries, taken, taken, size, since)

    def next_due(self) -> float:
        """The moment at which the next batch will be due; inf if none will be by itself."""
        moments = [math.inf]
        for lane in self._lanes.values():
            if lane.batch is not None:
                if not lane.batch.under_way:
                    moments.append(lane.batch.again_at)
            elif lane.waiting:
                moments.append(lane.waiting[0][2] + self.limits.linger)
        return min(moments)

    def drop_waiting(self, lane: Lane[F]) -> list[F]:
        """Give up what waits in a lane; the futures of those whose callers still want them."""
        entries, lane.waiting = lane.waiting, deque()
        self._leave(lane, len(entries), len(entries), lane.size)
        lane.size = 0
        return [future for _, future, _ in entries if self._begin(future)]

    def shrink(self, batch: Batch[F], entries: Sequence[Entry[F]]) -> None:
        """There are results for these, and not yet for others of the batch."""
        size = sum(size_of(message) for message, _, _ in entries)
        batch.held -= len(entries)
        batch.size -= size
        self._leave(batch.lane, 0, len(entries), size)

    def finish(self, batch: Batch[F]) -> None:
        """There are results for all of a batch."""
        batch.lane.batch = None
        self._leave(batch.lane, batch.taken, batch.held, batch.size)

    def _leave(self, lane: Lane[F], done: int, count: int, size: int) -> None:
        lane.leaving += done
        self._leaving.append((lane, done, count, size))

    def release(self) -> None:
        """What has a result has been told to its callers: it takes no more room."""
        for lane, done, count, size in self._leaving:
            lane.leaving -= done
            lane.done += done
            self.count -= count
            self.size -= size
        self._leaving.clear()
        if self._moved is not None and self.reached(self._moved[2]):
            lane, count, _ = self._moved
            lane.leaving -= count
            lane.done += count
            self._moved = None
        if not any(lane.waiting or lane.batch for lane in self._lanes.values()):
            self.count = self.size = 0

    def lanes(self) -> Iterable[Lane[F]]:
        """All lanes that were used."""
        return self._lanes.values()

    def marks(self) -> list[tuple[Lane[F], int]]:
        """What is held now, for ``reached``."""
        marks = []
        for lane in self._lanes.values():
            under_way = lane.batch.taken if lane.batch else 0
            marks.append((lane, lane.done + lane.leaving + under_way + len(lane.waiting)))
        return marks

    @staticmethod
    def reached(marks: Iterable[tuple[Lane[F], int]]) -> bool:
        """Whether all that was held at the time of the marks is settled: lanes keep their order."""
        return all(lane.done >= mark for lane, mark in marks)


def size_of(message: NewMessage) -> int:
    """Bytes of the payload and headers of a message."""
    terms = message.terms
    if terms is None or terms.headers is None:
        return len(message.body)
    return len(message.body) + len(terms.headers)
