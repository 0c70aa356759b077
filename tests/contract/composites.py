"""A backend made of a backend, which keeps the seam honest.

``PassThrough`` rewrites every id and receipt: nothing above the seam may know their form. It is
written once, as a plan: a generator that yields (part, method, request).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

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
    QueueStats,
    Redrive,
    Redriven,
    SendBatch,
    Sent,
    Stats,
    Stored,
    Transact,
)
from leanmq.errors import TransactionError

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
