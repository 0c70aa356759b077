"""Every operation of a queue above the seam, written once for threads and asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, TypeGuard

import attrs

from leanmq.api import Message, MessageRefs, Outgoing, QueueInfo, Seconds
from leanmq.backends.protocol import (
    Delivery,
    Drop,
    Dropped,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Held,
    NewMessage,
    QueueRef,
    QueueStats,
    Receive,
    SendBatch,
    SendResult,
    Sent,
    Settings,
    Settlement,
    Standing,
    Stats,
    Verb,
)
from leanmq.errors import (
    BulkSendError,
    ConnectionError,
    LeanMQError,
    MessageError,
    OutcomeUnknownError,
    QueueError,
    QueueNotFoundError,
)
from leanmq.policy.core import ClientCore
from leanmq.policy.encoding import UndecodableError, decode, decode_all, encode
from leanmq.policy.names import MAX_COUNT, check_count, ids_of, seconds_of, wait_of
from leanmq.policy.steps import Ask, Sleep, Steps

__all__ = ["CHUNK", "SLICE", "QueueLogic"]

CHUNK = 500
"""Messages of a bulk send that go in one call."""

SLICE = 1.0
"""Seconds that one read waits in the server at most; ``close`` and Ctrl-C take that long."""

PAUSE = 0.02
"""Seconds between looks whether a suspect has been settled by a sibling."""


@attrs.frozen
class QueueLogic:
    """The operations of one queue (or its dead letters) of one client."""

    core: ClientCore
    ref: QueueRef
    asked: Settings

    # --- sending

    def send(self, data: Any) -> Steps[str]:
        """Store one message."""
        batch = SendBatch(self.ref, (NewMessage(self._encode(data)),))
        yield from self.core.declare(self.ref, self.asked)
        results = yield from self._send(batch)
        result = results[0]
        if isinstance(result, str):
            return result
        raise self._send_error(result)

    def send_many(self, items: Iterable[Any]) -> Steps[list[str]]:
        """Store many, chunk by chunk: one unconfirmed chunk at a time keeps their order."""
        ids: list[str] = []
        iterator = iter(items)
        most = min(CHUNK, (yield from self.core.open()).max_batch)
        while True:
            first = len(ids)
            chunk = []
            try:
                for item in islice(iterator, most):
                    data = item.data if isinstance(item, Outgoing) else item
                    chunk.append(NewMessage(encode(data)))
            except MessageError as error:
                named = MessageError(f"item {first + len(chunk)}: {error}", queue=self.ref.name)
                named.__cause__ = error.__cause__
                stopped = self._stopped(named, ids, unsent=len(chunk) + 1)
                raise stopped from stopped.__cause__
            except Exception as error:  # noqa: BLE001  # of the caller's iterable
                stopped = self._stopped(error, ids, unsent=len(chunk))
                raise stopped from stopped.__cause__
            if not chunk:
                return ids
            try:
                yield from self.core.declare(self.ref, self.asked)
                results = yield from self._send(SendBatch(self.ref, chunk))
            except LeanMQError as error:
                stopped = self._stopped(error, ids, unsent=len(chunk))
                raise stopped from stopped.__cause__
            if not _all_stored(results):
                cause = self._send_error(next(r for r in results if not isinstance(r, str)))
                raise self._stopped(cause, ids, results)
            ids += results

    def _send(self, batch: SendBatch) -> Steps[Sequence[SendResult]]:
        """Send, and send again what was certainly not stored, until time runs out."""
        patience = self.core.patience()
        results: list[SendResult] = []
        places: Sequence[int] = range(len(batch.messages))
        while True:
            try:
                sent: Sent = yield Ask("send", batch)
            except QueueNotFoundError as error:
                yield patience.pause(error)
                yield from self.core.vanished(self.ref, self.asked)
                continue
            if _all_stored(sent.results) and not results:
                return sent.results
            if not results:
                results = list(sent.results)
            else:
                for place, result in zip(places, sent.results, strict=True):
                    results[place] = result
            refused = {
                p: (message, result)
                for p, message in zip(places, batch.messages, strict=True)
                if isinstance(result := results[p], ConnectionError)
            }
            if not refused or any(_in_doubt(r) for r in results):
                return results
            places = list(refused)
            try:
                yield patience.pause(refused[places[0]][1])
            except ConnectionError:
                return results
            if self.core.closed:
                return results
            batch = SendBatch(self.ref, [message for message, _ in refused.values()])

    def _encode(self, data: Any) -> bytes:
        try:
            return encode(data)
        except MessageError as error:
            error.queue = self.ref.name
            raise

    def _send_error(self, error: LeanMQError) -> LeanMQError:
        error.queue = self.ref.name
        if not error.unknown:
            return error
        unknown = OutcomeUnknownError(
            f"queue {self.ref.name!r}: {error}; the message may be stored or not: sending it "
            "again may double it",
            queue=self.ref.name,
        )
        unknown.__cause__ = error.__cause__ or error
        return unknown

    def _stopped(
        self,
        cause: Exception,
        ids: list[str],
        results: Sequence[SendResult] = (),
        *,
        unsent: int = 0,
    ) -> Exception:
        """What a bulk send raises: its cause itself if nothing is stored or may be."""
        first = len(ids)
        confirmed = dict(enumerate(ids))
        unknown: list[int] = []
        rest = list(range(first, first + unsent))
        for place, result in enumerate(results, first):
            if isinstance(result, str):
                confirmed[place] = result
            else:
                (unknown if result.unknown else rest).append(place)
        if not confirmed and not unknown:
            return cause
        why = str(cause) if isinstance(cause, LeanMQError) else type(cause).__name__
        error = BulkSendError(
            f"queue {self.ref.name!r}: bulk send stopped after {len(confirmed)} messages "
            f"({len(unknown)} unknown, {len(rest)} read and not sent): {why}",
            confirmed=confirmed,
            unknown_items=tuple(unknown),
            unsent=tuple(rest),
            queue=self.ref.name,
        )
        error.__cause__ = cause
        return error

    # --- receiving

    def receive(
        self, count: int, block: bool | None, timeout: Seconds | None
    ) -> Steps[list[Message[Any]]]:
        """Receive, waiting in slices."""
        core, clock = self.core, self.core.clock
        check_count(count)
        ends = clock.monotonic() + wait_of(block, timeout)
        yield from core.declare(self.ref, self.asked)
        patience = core.patience()
        while True:
            core.check_open()
            left = ends - clock.monotonic()
            if core.inflight.must_pause():
                if left <= 0:
                    return []
                yield Sleep(min(left, PAUSE))
                continue
            try:
                result, messages = yield from self._receive_once(count, max(0.0, min(left, SLICE)))
            except QueueNotFoundError as error:
                yield patience.pause(error)
                yield from core.vanished(self.ref, self.asked)
                continue
            except ConnectionError as error:
                yield patience.pause(error)
                continue
            patience = core.patience()
            if messages or (left <= 0 and not result.more):
                return messages

    def _receive_once(self, count: int, wait: float) -> Steps[tuple[Exchanged, list[Message[Any]]]]:
        inflight, clock = self.core.inflight, self.core.clock
        loan = inflight.borrow(self.ref)
        request = Receive(
            self.ref, loan.consumer, count, loan.alone, loan.recover, loan.held, loan.brisk
        )
        lost = True
        admitted: Sequence[Delivery] = ()
        try:
            result: Exchanged = yield Ask("exchange", Exchange((), (request,), wait))
            good, payloads, bad = self._decode(result.deliveries)
            admitted, back = inflight.admit(loan, good, result.lease)
            if result.calm or not result.deliveries:
                inflight.calm(self.ref, clock.monotonic() + result.calm)
                inflight.saw_suspects(result.suspects, patience=result.lease)
            if back or bad:
                yield Ask("exchange", Exchange(self._returns(back, bad)))
            lost = False
        except QueueNotFoundError:
            lost = False
            raise
        finally:
            if lost and admitted:
                inflight.forget(self.ref, [Held(d.id, d.receipt) for d in admitted])
            until = clock.monotonic() + SLICE + 1.0 if lost else None
            inflight.give_back(loan, lost_until=until)
        if len(admitted) < len(good):
            taken = {d.id for d in admitted}
            payloads = [p for d, p in zip(good, payloads, strict=True) if d.id in taken]
        leased = self.core.clock.time() + result.lease
        return result, [
            Message(d.id, payload, d.timestamp, d.delivery_count, leased, d.error)
            for d, payload in zip(admitted, payloads, strict=True)
        ]

    def _returns(
        self, back: Sequence[Delivery], bad: Sequence[tuple[Delivery, str]]
    ) -> list[Settlement]:
        """Give back what must not be handed out now; bury what nobody can read."""
        returns = []
        if back:
            held = [Held(d.id, d.receipt) for d in back]
            returns.append(Settlement(self.ref, Verb.RELEASE, held))
        for delivery, reason in bad:
            held = [Held(delivery.id, delivery.receipt)]
            returns.append(Settlement(self.ref, Verb.DEAD_LETTER, held, reason=reason))
        return returns

    def _decode(
        self, deliveries: Sequence[Delivery]
    ) -> tuple[Sequence[Delivery], list[Any], list[tuple[Delivery, str]]]:
        """Deliveries that can be read, their payloads, and the others with the reason.

        All dead letters can be read: those that are not JSON come as bytes.
        """
        try:
            return deliveries, decode_all([d.body for d in deliveries]), []
        except UndecodableError:
            pass
        good, payloads, bad = [], [], []
        for delivery in deliveries:
            payload: Any = delivery.body
            try:
                payload = decode(delivery.body)
            except UndecodableError as error:
                if not self.ref.dead:
                    bad.append((delivery, f"undecodable: {error}"))
                    continue
            good.append(delivery)
            payloads.append(payload)
        return good, payloads, bad

    # --- settling

    def settle(
        self, verb: Verb, messages: MessageRefs, *, delay: Seconds = 0, reason: str = ""
    ) -> Steps[int]:
        """Settle by the receipts that this client holds."""
        ids = ids_of(messages)
        seconds = seconds_of(delay, "delay")
        if verb is Verb.DEAD_LETTER and self.ref.dead:
            raise QueueError(
                f"{self.ref.name!r} is a dead letter queue: its messages are dead already; "
                "acknowledge or release them",
                queue=self.ref.name,
            )
        done = 0
        for chunk in _chunks(ids, MAX_COUNT):
            held = self.core.inflight.held(self.ref, chunk)
            request = Exchange((Settlement(self.ref, verb, held, seconds, reason),))
            standings, doubt = yield from self._on_held("exchange", request, held)
            self.core.inflight.forget(self.ref, held)
            if verb is not Verb.ACKNOWLEDGE:  # it may come again before what is new
                self.core.inflight.calm(self.ref, 0.0)
            done += standings.count(Standing.DONE)
            if doubt:  # an earlier try may have done it, and its reply got lost
                ours = [s for s, h in zip(standings, held, strict=True) if h.receipt is not None]
                done += ours.count(Standing.GONE)
                done += ours.count(Standing.LOST) if verb is Verb.RELEASE else 0
        return done

    def extend(self, messages: MessageRefs) -> Steps[int]:
        """Renew leases; what was lost is held no more."""
        done = 0
        for chunk in _chunks(ids_of(messages), MAX_COUNT):
            held = [h for h in self.core.inflight.held(self.ref, chunk) if h.receipt is not None]
            if not held:
                continue
            request = Extend(self.ref, held)
            standings, _ = yield from self._on_held("extend", request, held)
            alive = [h for h, s in zip(held, standings.standings, strict=True) if not s]
            gone = [h for h, s in zip(held, standings.standings, strict=True) if s]
            self.core.inflight.renew(self.ref, alive, standings.lease)
            self.core.inflight.forget(self.ref, gone)
            done += len(alive)
        return done

    def _on_held(self, method: str, request: object, held: Sequence[Held]) -> Steps[Any]:
        """The answer, and whether an earlier try may have been carried out."""
        yield from self.core.declare(self.ref, self.asked)
        patience = self.core.patience()
        doubt = False
        while True:
            self.core.check_open()
            try:
                answer: Exchanged | Extended = yield Ask(method, request)
            except ConnectionError as error:
                doubt = doubt or error.unknown
                yield patience.pause(error)
            except QueueNotFoundError:
                self.core.forget(self.ref)
                gone = [Standing.GONE] * len(held)
                return (Extended(gone, 0.0) if method == "extend" else gone), doubt
            else:
                return (answer.settled[0] if isinstance(answer, Exchanged) else answer), doubt

    # --- the queue itself

    def declare(self) -> Steps[None]:
        """Make it, or compare its settings."""
        yield from self.core.declare(self.ref, self.asked)

    def info(self) -> Steps[QueueInfo]:
        """Count."""
        patience = self.core.patience()
        while True:
            yield from self.core.declare(self.ref, self.asked)
            try:
                stats: QueueStats = yield Ask("stats", Stats(self.ref))
            except QueueNotFoundError as error:
                yield patience.pause(error)
                yield from self.core.vanished(self.ref, self.asked)
            except ConnectionError as error:
                yield patience.pause(error)
            else:
                break
        return QueueInfo(
            name=self.ref.name,
            is_dlq=self.ref.dead,
            message_count=stats.ready + stats.in_flight + stats.delayed,
            ready_messages=stats.ready,
            pending_messages=stats.in_flight,
            delayed_messages=stats.delayed,
            created_at=stats.created_at,
            lease=stats.settings.lease or 0.0,
            max_deliveries=0 if self.ref.dead else stats.settings.max_deliveries or 0,
        )

    def delete(self, delete_dlq: bool) -> Steps[bool]:
        """Delete all of it."""
        if self.ref.dead:
            raise QueueError(
                f"the dead letter queue of {self.ref.name!r} cannot be deleted alone; "
                "delete its queue with delete_dlq=True",
                queue=self.ref.name,
            )
        yield from self.core.open()
        patience = self.core.patience()
        doubt = False
        while True:
            try:
                dropped: Dropped = yield Ask("drop", Drop(self.ref.name, delete_dlq))
                break
            except ConnectionError as error:
                doubt = doubt or error.unknown
                yield patience.pause(error)
        if dropped.dead_letters:
            raise QueueError(
                f"queue {self.ref.name!r} has {dropped.dead_letters} dead letters; settle them "
                "first, or delete them too with delete_dlq=True",
                queue=self.ref.name,
            )
        self.core.forget(self.ref)
        return dropped.existed or doubt  # an earlier try may have deleted it


def _all_stored(results: Sequence[SendResult]) -> TypeGuard[Sequence[str]]:
    return set(map(type, results)) == {str}


def _in_doubt(result: SendResult) -> bool:
    return isinstance(result, LeanMQError) and result.unknown


def _chunks(ids: list[str], size: int) -> Iterable[list[str]]:
    return (ids[i : i + size] for i in range(0, len(ids), size))
