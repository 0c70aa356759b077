"""Receiving: leases, waiting, what cannot be read; and looking without receiving."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeAlias

import attrs
from msgspec.structs import replace

from leanmq.api import Message, Seconds, StoredMessage
from leanmq.backends.protocol import (
    Delivery,
    Exchange,
    Exchanged,
    Held,
    Peek,
    Peeked,
    Receive,
    Settlement,
    State,
    Stored,
    Verb,
)
from leanmq.errors import QueueNotFoundError, UnreachableError
from leanmq.policy import events
from leanmq.policy.base import QueuePolicy, chunks
from leanmq.policy.encoding import UndecodableError, readable
from leanmq.policy.inflight import Loan
from leanmq.policy.names import MAX_COUNT, check_count, ids_of, wait_of
from leanmq.policy.steps import Ask, Sleep, Steps
from leanmq.policy.terms import headers_of, reason_of

__all__ = ["FOREIGN_PAUSE", "SLICE", "Receiving"]


SLICE = 1.0
"""Seconds that one read waits in the server at most; ``close`` and Ctrl-C take that long."""

PAUSE = 0.02
"""Seconds between looks whether a suspect has been settled by a sibling."""

FOREIGN_PAUSE = 10.0
"""Seconds for which a message of a later version is put back."""

Content: TypeAlias = tuple[Any, Mapping[str, Any]]
"""Payload and headers of a message."""

_STATES: Final[dict[State, Literal["ready", "in_flight", "delayed"]]] = {
    State.READY: "ready",
    State.IN_FLIGHT: "in_flight",
    State.DELAYED: "delayed",
}


@attrs.frozen
class Receiving(QueuePolicy):
    """The part of a queue's policy that receives and looks."""

    def receive(
        self, count: int, block: bool | None, timeout: Seconds | None
    ) -> Steps[list[Message[Any]]]:
        """Receive, waiting in slices."""
        core, clock = self.core, self.core.clock
        check_count(count)
        ends = clock.monotonic() + wait_of(block, timeout)
        yield from core.declare(self.ref, self.asked)
        patience = core.patience()
        waited = False
        while True:
            core.check_open()
            left = ends - clock.monotonic()
            if core.inflight.must_pause(self.ref):
                if pause := core.inflight.untold():
                    events.paused(pause.queue.name, pause.message_id, pause.held)
                if left <= 0:
                    return []
                yield Sleep(min(left, PAUSE))
                continue
            try:
                wait = max(0.0, min(left, SLICE))
                result, messages = yield from self._receive_once(count, wait, waited)
            except QueueNotFoundError as error:
                waited = False
                yield patience.pause(error)
                yield from core.vanished(self.ref, self.asked)
                continue
            except UnreachableError as error:
                waited = False
                yield patience.pause(error)
                continue
            patience, waited = core.patience(), True
            if messages or (left <= 0 and not result.more):
                return messages

    def _receive_once(
        self, count: int, wait: float, waited: bool
    ) -> Steps[tuple[Exchanged, list[Message[Any]]]]:
        inflight, clock = self.core.inflight, self.core.clock
        loan: Loan | None = None
        lost, told = True, False
        good: Sequence[Delivery] = ()
        try:
            loan = inflight.borrow(self.ref)
            request = Receive(
                self.ref,
                loan.consumer,
                count,
                loan.alone,
                loan.recover,
                loan.held,
                loan.brisk,
                waited=waited,
            )
            result: Exchanged = yield Ask("exchange", Exchange((), (request,), wait))
            good, contents, bad = self._decode(result.deliveries)
            admitted, back = inflight.admit(loan, good, result.lease)
            if result.calm or not result.deliveries:
                inflight.calm(self.ref, clock.monotonic() + result.calm)
                inflight.saw_suspects(self.ref, result.suspects, patience=result.lease)
            if back or bad:
                yield from self._send_back(back, bad)
            if bad and not admitted:  # they are out of the way: there may be others behind them
                result = replace(result, more=True)
            if len(admitted) < len(good):
                taken = {d.id for d in admitted}
                contents = [c for d, c in zip(good, contents, strict=True) if d.id in taken]
            if not loan.brisk or events.closely():
                _log(self.ref.name, result, admitted)
            messages = self._messages(admitted, contents, clock.time() + result.lease)
            lost, told = result.lost, True
            return result, messages
        except QueueNotFoundError as error:
            lost = error.in_doubt
            raise
        finally:
            if good and not told:
                inflight.forget(self.ref, [Held(d.id, d.receipt) for d in good])
            if loan is not None:
                until = clock.monotonic() + SLICE + 1.0 if lost else None
                inflight.give_back(loan, lost_until=until)

    def _messages(
        self, deliveries: Sequence[Delivery], contents: Sequence[Content], leased: float
    ) -> list[Message[Any]]:
        queue = self.ref.name
        return [
            Message(
                d.id,
                payload,
                d.timestamp,
                d.delivery_count,
                leased,
                d.error,
                d.key,
                headers,
                d.label,
                d.failures,
                d.redrives,
                queue,
            )
            for d, (payload, headers) in zip(deliveries, contents, strict=True)
        ]

    def _send_back(
        self, back: Sequence[Delivery], bad: Sequence[tuple[Delivery, str]]
    ) -> Steps[None]:
        """See ``_returns``; what has vanished since cannot go back."""
        try:
            yield Ask("exchange", Exchange(self._returns(back, bad)))
        except QueueNotFoundError:
            return
        for delivery, reason in bad:
            if not delivery.foreign:
                events.buried(self.ref.name, [delivery.id], reason)

    def _returns(
        self, back: Sequence[Delivery], bad: Sequence[tuple[Delivery, str]]
    ) -> list[Settlement]:
        """Give back what must not be handed out now; bury what nobody can read.

        What a later version stored is left to those who know its form, after a while.
        """
        returns = []
        if back:
            held = [Held(d.id, d.receipt) for d in back]
            returns.append(Settlement(self.ref, Verb.RELEASE, held))
        for delivery, reason in bad:
            held = [Held(delivery.id, delivery.receipt)]
            if delivery.foreign:
                later = Settlement(self.ref, Verb.RELEASE, held, FOREIGN_PAUSE)
                returns.append(later)
                continue
            returns.append(Settlement(self.ref, Verb.DEAD_LETTER, held, reason=reason))
        return returns

    def _decode(
        self, deliveries: Sequence[Delivery]
    ) -> tuple[Sequence[Delivery], list[Content], list[tuple[Delivery, str]]]:
        """Deliveries that can be read, what they hold, and the others with the reason.

        All dead letters can be read: those that are not JSON come as bytes.
        """
        codec = self.codec
        if not any(d.foreign for d in deliveries):
            try:
                payloads = codec.decode_all([d.body for d in deliveries])
                headers = [headers_of(d.headers) for d in deliveries]
                return deliveries, list(zip(payloads, headers, strict=True)), []
            except UndecodableError:
                pass
        good, contents, bad = [], [], []
        for delivery in deliveries:
            if delivery.foreign:
                events.foreign(self.ref.name, delivery.id)
                bad.append((delivery, "foreign"))
                continue
            try:
                content = codec.decode(delivery.body), headers_of(delivery.headers)
            except UndecodableError as error:
                if not self.ref.dead:
                    bad.append((delivery, reason_of(f"undecodable: {error}")))
                    continue
                content = self._readable(delivery)
            good.append(delivery)
            contents.append(content)
        return good, contents, bad

    def _readable(self, delivery: Delivery) -> Content:
        """What a delivery holds, as far as it can be read: else its body, and no headers."""
        payload: Any
        headers: Mapping[str, Any] = {}
        try:
            payload = self.codec.decode(delivery.body)
        except UndecodableError:
            payload = readable(delivery.body)
        with suppress(UndecodableError):
            headers = headers_of(delivery.headers)
        return payload, headers

    # --- looking

    def peek(
        self, count: int, ids: Iterable[str] | str | None, state: State = State.READY
    ) -> Steps[list[StoredMessage[Any]]]:
        """Look, and touch nothing."""
        check_count(count)
        wanted = None if ids is None else ids_of(ids)
        found: list[Stored] = []
        for some in [None] if wanted is None else chunks(wanted, MAX_COUNT):
            request = Peek(self.ref, count, state, some)
            peeked: Peeked = yield from self.core.ask_of(self.ref, self.asked, "peek", request)
            found += peeked.messages
        now = self.core.clock.time()
        return [self._stored(stored, now) for stored in found]

    def _stored(self, stored: Stored, now: float) -> StoredMessage[Any]:
        d = stored.delivery
        payload, headers = self._readable(d)
        return StoredMessage(
            d.id,
            payload,
            d.timestamp,
            d.delivery_count,
            now + stored.until if stored.state is State.IN_FLIGHT else 0.0,
            d.error,
            d.key,
            headers,
            d.label,
            d.failures,
            d.redrives,
            self.ref.name,
            _STATES[stored.state],
            now + stored.until if stored.state is State.DELAYED else None,
            stored.consumer,
        )


def _log(queue: str, result: Exchanged, admitted: Sequence[Delivery]) -> None:
    for message_id, times in result.buried:
        events.buried(queue, [message_id], f"delivered {times} times, never settled")
    for delivery in admitted:
        if delivery.taken_over:
            events.taken_over(queue, delivery.id, delivery.delivery_count)
    events.passed("received", queue, admitted)
