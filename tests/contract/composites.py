"""Backends made of backends, which keep the seam honest.

``PassThrough`` rewrites every id and receipt: nothing above the seam may know their form.
``Split`` spreads the messages of each queue over two backends, as a router would.
Each is written once, as a plan: a generator that yields (part, method, request).
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias, TypeVar
from zlib import crc32

import attrs
from msgspec.structs import replace

from leanmq.backends.protocol import (
    Alter,
    AsyncBackend,
    Backend,
    Capabilities,
    Declare,
    Declared,
    Delivery,
    Drop,
    Dropped,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Held,
    Listed,
    ListQueues,
    Peek,
    Peeked,
    Purge,
    Purged,
    QueueRef,
    QueueStats,
    Receive,
    Redrive,
    Redriven,
    SendBatch,
    Sent,
    Settlement,
    Standing,
    Stats,
    Stored,
    Transact,
)
from leanmq.errors import CrossSlotTransactionError, QueueNotFoundError, TransactionError

T = TypeVar("T")
Plan: TypeAlias = Generator[tuple[int, str, Any], Any, T]


class Plans(Protocol):
    """How a composite carries out each method of the seam."""

    parts: int

    def open(self) -> Plan[Capabilities]: ...
    def declare(self, request: Declare) -> Plan[Declared]: ...
    def drop(self, request: Drop) -> Plan[Dropped]: ...
    def send(self, batch: SendBatch) -> Plan[Sent]: ...
    def exchange(self, request: Exchange) -> Plan[Exchanged]: ...
    def extend(self, request: Extend) -> Plan[Extended]: ...
    def alter(self, request: Alter) -> Plan[Declared]: ...
    def list(self, request: ListQueues) -> Plan[Listed]: ...
    def transact(self, request: Transact) -> Plan[Sent]: ...
    def peek(self, request: Peek) -> Plan[Peeked]: ...
    def redrive(self, request: Redrive) -> Plan[Redriven]: ...
    def purge(self, request: Purge) -> Plan[Purged]: ...
    def stats(self, request: Stats) -> Plan[QueueStats]: ...


def _out(delivery: Delivery, mark: str) -> Delivery:
    return replace(delivery, id=mark + delivery.id, receipt=mark + delivery.receipt)


def _in(held: Held, mark: str) -> Held:
    receipt = held.receipt
    return Held(held.id.removeprefix(mark), None if receipt is None else receipt.removeprefix(mark))


def _show(stored: Stored, mark: str) -> Stored:
    return replace(stored, delivery=_out(stored.delivery, mark))


def _transact(part: int, request: Transact, mark: str) -> Plan[Sent]:
    """Carry it out; an error names a message as it is called outside."""
    try:
        sent: Sent = yield part, "transact", request
    except TransactionError as error:
        error.message_id = error.message_id and mark + error.message_id
        raise
    return sent


def _marked(result: Exchanged, mark: str) -> Exchanged:
    return replace(
        result,
        deliveries=[_out(d, mark) for d in result.deliveries],
        buried=[(mark + one, times) for one, times in result.buried],
    )


class PassThrough:
    """One part; every id and receipt gets a mark on its way out and loses it on its way in."""

    parts = 1
    mark = "pass~"

    def open(self) -> Plan[Capabilities]:
        inner: Capabilities = yield 0, "open", None
        return attrs.evolve(inner, name=f"pass-through to {inner.name}")

    def declare(self, request: Declare) -> Plan[Declared]:
        result: Declared = yield 0, "declare", request
        return result

    def drop(self, request: Drop) -> Plan[Dropped]:
        result: Dropped = yield 0, "drop", request
        return result

    def send(self, batch: SendBatch) -> Plan[Sent]:
        sent: Sent = yield 0, "send", batch
        return Sent([self.mark + r if isinstance(r, str) else r for r in sent.results])

    def exchange(self, request: Exchange) -> Plan[Exchanged]:
        settle = [
            replace(s, messages=[_in(h, self.mark) for h in s.messages]) for s in request.settle
        ]
        receive = [
            replace(r, held=[text.removeprefix(self.mark) for text in r.held])
            for r in request.receive
        ]
        result: Exchanged = yield 0, "exchange", Exchange(settle, receive, request.wait)
        return _marked(result, self.mark)

    def extend(self, request: Extend) -> Plan[Extended]:
        messages = [_in(h, self.mark) for h in request.messages]
        result: Extended = yield 0, "extend", Extend(request.queue, messages)
        return result

    def alter(self, request: Alter) -> Plan[Declared]:
        result: Declared = yield 0, "alter", request
        return result

    def list(self, request: ListQueues) -> Plan[Listed]:
        result: Listed = yield 0, "list", request
        return result

    def transact(self, request: Transact) -> Plan[Sent]:
        acknowledge = [
            replace(s, messages=[_in(h, self.mark) for h in s.messages])
            for s in request.acknowledge
        ]
        sent: Sent = yield from _transact(0, Transact(request.sends, acknowledge), self.mark)
        return Sent([self.mark + str(r) for r in sent.results])

    def peek(self, request: Peek) -> Plan[Peeked]:
        if request.ids is not None:
            ids = [text.removeprefix(self.mark) for text in request.ids]
            request = attrs.evolve(request, ids=ids)
        result: Peeked = yield 0, "peek", request
        return Peeked([_show(stored, self.mark) for stored in result.messages])

    def redrive(self, request: Redrive) -> Plan[Redriven]:
        messages = [_in(h, self.mark) for h in request.messages]
        result: Redriven = yield 0, "redrive", attrs.evolve(request, messages=messages)
        return result

    def purge(self, request: Purge) -> Plan[Purged]:
        result: Purged = yield 0, "purge", request
        return result

    def stats(self, request: Stats) -> Plan[QueueStats]:
        result: QueueStats = yield 0, "stats", request
        return result


class Split:
    """Two parts; the messages of a queue alternate between them."""

    parts = 2
    marks = ("left~", "right~")

    def __init__(self) -> None:
        self._next_send: dict[Any, int] = {}
        self._next_receive: dict[Any, int] = {}
        self._right_epochs: dict[tuple[str, int], int] = {}  # by queue and left epoch

    def open(self) -> Plan[Capabilities]:
        left: Capabilities = yield 0, "open", None
        yield 1, "open", None
        # In order only while nothing comes twice: two queues cannot be merged again.
        # Nor can two queues keep one bound together.
        name = f"split over {left.name} and another"
        return attrs.evolve(left, name=name, ordered=False, bounds=False)

    def declare(self, request: Declare) -> Plan[Declared]:
        left: Declared = yield 0, "declare", request
        right: Declared = yield 1, "declare", request
        self._right_epochs[request.name, left.epoch] = right.epoch
        return attrs.evolve(left, created=left.created or right.created)

    def drop(self, request: Drop) -> Plan[Dropped]:
        dead = 0
        if not request.dead_letters:
            for part in (0, 1):
                dead += yield from self._dead_letters(part, request.name)
        if dead:
            return Dropped(True, dead)
        left: Dropped = yield 0, "drop", request
        right: Dropped = yield 1, "drop", request
        return Dropped(left.existed or right.existed)

    def _dead_letters(self, part: int, name: str) -> Plan[int]:
        try:
            stats: QueueStats = yield part, "stats", Stats(QueueRef(name, dead=True))
        except QueueNotFoundError:
            return 0
        return stats.ready + stats.in_flight + stats.delayed

    def alter(self, request: Alter) -> Plan[Declared]:
        left: Declared = yield 0, "alter", request
        right: Declared = yield 1, "alter", request
        self._right_epochs[request.name, left.epoch] = right.epoch
        return left

    def list(self, request: ListQueues) -> Plan[Listed]:
        left: Listed = yield 0, "list", request
        right: Listed = yield 1, "list", request
        others = dict(right.queues)
        both = [(ref, _sum(stats, others[ref])) for ref, stats in left.queues if ref in others]
        return Listed(both)

    def send(self, batch: SendBatch) -> Plan[Sent]:
        turn = self._next_send.get(batch.queue, 0)
        places: tuple[list[int], list[int]] = ([], [])
        for place, message in enumerate(batch.messages):
            if message.terms and message.terms.dedup_id:  # where it would have gone before
                part = crc32(message.terms.dedup_id.encode()) % 2
            else:
                part, turn = turn, 1 - turn
            places[part].append(place)
        self._next_send[batch.queue] = turn
        results: list[Any] = [None] * len(batch.messages)
        epochs = [batch.epoch, self._right_epochs.get((batch.queue.name, batch.epoch), 0)]
        for part in (0, 1):
            if not places[part]:
                continue
            chosen = [batch.messages[place] for place in places[part]]
            sent: Sent = yield part, "send", SendBatch(batch.queue, chosen, epochs[part])
            epochs[1] = 0  # what is stored cannot be refused any more
            for place, result in zip(places[part], sent.results, strict=True):
                results[place] = self.marks[part] + result if isinstance(result, str) else result
        return Sent(results)

    def transact(self, request: Transact) -> Plan[Sent]:
        parts = {
            part
            for settlement in request.acknowledge
            for part, _ in self._by_part(settlement.messages)
        }
        if len(parts) > 1:
            raise CrossSlotTransactionError("the messages are in both parts; use two transactions")
        part = parts.pop() if parts else 0
        mark = self.marks[part]
        acknowledge = [
            replace(s, messages=[_in(h, mark) for h in s.messages]) for s in request.acknowledge
        ]
        sent: Sent = yield from _transact(part, Transact(request.sends, acknowledge), mark)
        return Sent([mark + str(r) for r in sent.results])

    def peek(self, request: Peek) -> Plan[Peeked]:
        found: list[Stored] = []
        for part, mark in enumerate(self.marks):
            inner = request
            if request.ids is not None:
                ids = [t.removeprefix(mark) for t in request.ids if t.startswith(mark)]
                inner = attrs.evolve(request, ids=ids)
            result: Peeked = yield part, "peek", inner
            found += [_show(stored, mark) for stored in result.messages]
        return Peeked(found if request.ids is not None else found[: request.count])

    def redrive(self, request: Redrive) -> Plan[Redriven]:
        standings: list[Standing] = [Standing.GONE] * len(request.messages)
        for part, places in self._by_part(request.messages):
            messages = [_in(request.messages[p], self.marks[part]) for p in places]
            result: Redriven = yield part, "redrive", attrs.evolve(request, messages=messages)
            for place, standing in zip(places, result.standings, strict=True):
                standings[place] = standing
        return Redriven(standings)

    def purge(self, request: Purge) -> Plan[Purged]:
        left: Purged = yield 0, "purge", request
        right: Purged = yield 1, "purge", request
        return Purged(left.count + right.count)

    def exchange(self, request: Exchange) -> Plan[Exchanged]:
        settled = []
        for settlement in request.settle:
            settled.append((yield from self._settle(settlement)))
        result = Exchanged()
        for receive in request.receive:
            result = yield from self._wait(receive, request.wait)
        return replace(result, settled=settled)

    def _settle(self, settlement: Settlement) -> Plan[Sequence[Standing]]:
        standings: list[Standing] = [Standing.GONE] * len(settlement.messages)
        for part, places in self._by_part(settlement.messages):
            messages = [_in(settlement.messages[p], self.marks[part]) for p in places]
            inner = replace(settlement, messages=messages)
            result: Exchanged = yield part, "exchange", Exchange((inner,))
            for place, standing in zip(places, result.settled[0], strict=True):
                standings[place] = standing
        return standings

    def _by_part(self, messages: Sequence[Held]) -> Sequence[tuple[int, Sequence[int]]]:
        places = [
            (part, [p for p, held in enumerate(messages) if held.id.startswith(mark)])
            for part, mark in enumerate(self.marks)
        ]
        return [(part, found) for part, found in places if found]

    def _wait(self, receive: Receive, wait: float) -> Plan[Exchanged]:
        ends = time.monotonic() + wait
        result = yield from self._both(receive)
        while not (result.deliveries or result.more or result.buried or time.monotonic() >= ends):
            for part in (0, 1):
                left = min(0.01, max(ends - time.monotonic(), 0))
                result = yield from self._one(part, receive, receive.count, left)
                if result.deliveries or result.buried:
                    return result
        return result

    def _both(self, receive: Receive) -> Plan[Exchanged]:
        first = self._next_receive.get(receive.queue, 0)
        halves = ((receive.count + 1) // 2, receive.count // 2)
        got: list[Exchanged] = []
        for turn, part in enumerate((first, 1 - first)):
            count = halves[turn]
            if turn == 1 and got[0].deliveries:
                receive = replace(receive, alone=False)
            if turn == 1 and len(got[0].deliveries) < halves[0]:
                count = receive.count - len(got[0].deliveries)
            if not count or any(d.suspect for r in got for d in r.deliveries):
                break
            got.append((yield from self._one(part, receive, count, 0.0)))
        rows = zip_longest(*(result.deliveries for result in got))
        deliveries = [d for row in rows for d in row if d is not None]
        self._next_receive[receive.queue] = (first + len(deliveries)) % 2
        return Exchanged(
            deliveries=deliveries,
            more=any(result.more for result in got),
            suspects=any(result.suspects for result in got),
            lease=got[0].lease,
            buried=[one for result in got for one in result.buried],
        )

    def _one(self, part: int, receive: Receive, count: int, wait: float) -> Plan[Exchanged]:
        mark = self.marks[part]
        held = [text.removeprefix(mark) for text in receive.held if text.startswith(mark)]
        inner = replace(receive, held=held, count=count)
        result: Exchanged = yield part, "exchange", Exchange((), (inner,), wait)
        return _marked(result, mark)

    def extend(self, request: Extend) -> Plan[Extended]:
        standings: list[Standing] = [Standing.GONE] * len(request.messages)
        lease = 0.0
        for part, places in self._by_part(request.messages):
            messages = [_in(request.messages[p], self.marks[part]) for p in places]
            result: Extended = yield part, "extend", Extend(request.queue, messages)
            lease = result.lease
            for place, standing in zip(places, result.standings, strict=True):
                standings[place] = standing
        return Extended(standings, lease)

    def stats(self, request: Stats) -> Plan[QueueStats]:
        left: QueueStats = yield 0, "stats", request
        right: QueueStats = yield 1, "stats", request
        return _sum(left, right)


def _sum(left: QueueStats, right: QueueStats) -> QueueStats:
    return attrs.evolve(
        left,
        ready=left.ready + right.ready,
        in_flight=left.in_flight + right.in_flight,
        delayed=left.delayed + right.delayed,
    )


@attrs.frozen
class ComposedBackend:
    """``Backend`` by plans over parts."""

    plans: Plans
    parts: Sequence[Backend]

    def _do(self, plan: Plan[T]) -> T:
        try:
            part, method, request = next(plan)
            while True:
                try:
                    call = getattr(self.parts[part], method)
                    result = call() if request is None else call(request)
                except BaseException as error:  # noqa: BLE001  # raised in the plan
                    part, method, request = plan.throw(error)
                else:
                    part, method, request = plan.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def open(self) -> Capabilities:
        return self._do(self.plans.open())

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def ping(self) -> None:
        for part in self.parts:
            part.ping()

    def declare(self, request: Declare) -> Declared:
        return self._do(self.plans.declare(request))

    def drop(self, request: Drop) -> Dropped:
        return self._do(self.plans.drop(request))

    def send(self, batch: SendBatch) -> Sent:
        return self._do(self.plans.send(batch))

    def exchange(self, request: Exchange) -> Exchanged:
        return self._do(self.plans.exchange(request))

    def extend(self, request: Extend) -> Extended:
        return self._do(self.plans.extend(request))

    def alter(self, request: Alter) -> Declared:
        return self._do(self.plans.alter(request))

    def list(self, request: ListQueues) -> Listed:
        return self._do(self.plans.list(request))

    def transact(self, request: Transact) -> Sent:
        return self._do(self.plans.transact(request))

    def peek(self, request: Peek) -> Peeked:
        return self._do(self.plans.peek(request))

    def redrive(self, request: Redrive) -> Redriven:
        return self._do(self.plans.redrive(request))

    def purge(self, request: Purge) -> Purged:
        return self._do(self.plans.purge(request))

    def stats(self, request: Stats) -> QueueStats:
        return self._do(self.plans.stats(request))


@attrs.frozen
class AsyncComposedBackend:
    """``AsyncBackend`` by plans over parts."""

    plans: Plans
    parts: Sequence[AsyncBackend]

    async def _do(self, plan: Plan[T]) -> T:
        try:
            part, method, request = next(plan)
            while True:
                try:
                    call = getattr(self.parts[part], method)
                    result = await (call() if request is None else call(request))
                except BaseException as error:  # noqa: BLE001  # raised in the plan
                    part, method, request = plan.throw(error)
                else:
                    part, method, request = plan.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def open(self) -> Capabilities:
        return await self._do(self.plans.open())

    async def close(self) -> None:
        for part in self.parts:
            await part.close()

    async def ping(self) -> None:
        for part in self.parts:
            await part.ping()

    async def declare(self, request: Declare) -> Declared:
        return await self._do(self.plans.declare(request))

    async def drop(self, request: Drop) -> Dropped:
        return await self._do(self.plans.drop(request))

    async def send(self, batch: SendBatch) -> Sent:
        return await self._do(self.plans.send(batch))

    async def exchange(self, request: Exchange) -> Exchanged:
        return await self._do(self.plans.exchange(request))

    async def extend(self, request: Extend) -> Extended:
        return await self._do(self.plans.extend(request))

    async def alter(self, request: Alter) -> Declared:
        return await self._do(self.plans.alter(request))

    async def list(self, request: ListQueues) -> Listed:
        return await self._do(self.plans.list(request))

    async def transact(self, request: Transact) -> Sent:
        return await self._do(self.plans.transact(request))

    async def peek(self, request: Peek) -> Peeked:
        return await self._do(self.plans.peek(request))

    async def redrive(self, request: Redrive) -> Redriven:
        return await self._do(self.plans.redrive(request))

    async def purge(self, request: Purge) -> Purged:
        return await self._do(self.plans.purge(request))

    async def stats(self, request: Stats) -> QueueStats:
        return await self._do(self.plans.stats(request))
