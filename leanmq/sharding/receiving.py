"""How a router receives: it looks at the parts of a queue fairly, and waits on all of them."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Final

import attrs
from msgspec.structs import replace

from leanmq.backends.many import Watch, Watched
from leanmq.backends.protocol import (
    Delivery,
    Exchange,
    Exchanged,
    Held,
    QueueRef,
    Receive,
    Settlement,
    Verb,
)
from leanmq.errors import LeanMQError, QueueNotFoundError, UnreachableError
from leanmq.sharding.names import inside, outside
from leanmq.sharding.routing import Part, Quiet, Route, Share
from leanmq.sharding.steps import TOGETHER, Plan, Sleep, Watching
from leanmq.sharding.whole import Whole

__all__ = ["Receiving"]

_log: Final = logging.getLogger("leanmq.queue")

_SLICE: Final = 1.0
"""Seconds that one wait lasts at most."""

_WHILE_DOWN: Final = 0.25
"""Seconds that it lasts while a node is out of reach: its return is not told by a watch."""

_FEW: Final = 2
"""Parts that share a batch of a queue with plenty, while it is not known which of them have it."""

_MANY: Final = 1_000_000
"""Messages that a part is thought to have left that had all that it was asked for."""

_POLL: Final = 0.05
"""Seconds between looks at backends that cannot watch."""


@attrs.define
class _Look:
    """A receive of a queue, and what its looks came to so far."""

    route: Route
    receive: Receive
    deliveries: dict[str, list[Delivery]] = attrs.field(factory=dict)
    count: int = 0
    lost: bool = False
    lease: float = 0.0
    calm: float = math.inf
    soon: float = math.inf
    buried: list[tuple[str, int]] = attrs.field(factory=list)
    marks: dict[str, str] = attrs.field(factory=dict)

    @property
    def wanted(self) -> int:
        """How many messages are asked for."""
        return self.receive.count

    def planned(self, least: int) -> Sequence[Share]:
        """What to ask of at least so many parts, if all have so much; see ``Route.plan``."""
        wanted = self.wanted - self.count
        return self.route.plan(wanted, -(-wanted // least))

    def take(self, part: Part, asked: Receive, result: Exchanged, left: int | None = None) -> None:
        """Enter what one part answered; ``left`` is what a brisk look leaves, if it finds all."""
        label, got = part.label, len(result.deliveries)
        self.route.refusing.discard(label)
        if got:
            marked = [_marked(d, label) for d in result.deliveries]
            before = self.deliveries.pop(label, [])
            if before:  # a lease may have ended between two looks: the newer delivery counts
                again = {delivery.id for delivery in marked}
                before = [delivery for delivery in before if delivery.id not in again]
            if marked[0].suspect:  # before all else: it is handed out alone, or not at all
                self.deliveries = {label: [*marked, *before], **self.deliveries}
            else:
                self.deliveries[label] = [*before, *marked]  # in the part's own order
            self.count = sum(map(len, self.deliveries.values()))
            if result.calm:
                self.calm = min(self.calm, result.calm)
        full = 0 < asked.count <= got
        if asked.brisk:
            left = left if full else 0
        elif result.fresh is not None or result.more or full:
            left = result.fresh
        else:
            left = 0
        self.route.has(label, left)
        if result.suspects:
            self.route.suspects[label] = None
        elif not asked.brisk:
            self.route.suspects.pop(label, None)
        self.lost = self.lost or result.lost
        if result.lease:
            self.lease = min(self.lease, result.lease) if self.lease else result.lease
        if result.soon is not None:
            self.soon = min(self.soon, result.soon)
        self.buried += [(outside(label, name), times) for name, times in result.buried]
        # A watch from the first one misses nothing; it only ends for what others took since.
        if (result.mark and not got) or label not in self.marks:
            self.marks[label] = result.mark

    def judge(self) -> None:
        """Enter what is to be thought of the next receive."""
        self.route.plenty = 2 * self.count >= self.wanted
        if self.count:
            self.route.each = self.count / len(self.deliveries)

    def result(self) -> Exchanged:
        """The answer of the whole."""
        return Exchanged(
            (),
            list(chain.from_iterable(self.deliveries.values())),
            more=bool(self.route.rich) and not self.count,
            suspects=bool(self.route.suspects),
            lease=self.lease,
            calm=0.0 if math.isinf(self.calm) else min(self.calm, self.soon),
            buried=self.buried,
            lost=self.lost,
        )


class Receiving(Whole):
    """The part of a router that receives."""

    def exchange(self, request: Exchange) -> Plan[Exchanged]:
        """Settle, then look at all parts, then wait on all of them."""
        settled = yield from self.settle(request.settle)
        if not request.receive:
            return Exchanged(settled)
        [receive] = request.receive
        route = yield from self.route(receive.queue.name)
        if len(route.parts) == 1:
            result = yield from self._only(route, receive, request.wait)
        else:
            result = yield from self._receive(route, receive, request.wait)
        return replace(result, settled=settled) if settled else result

    def _only(self, route: Route, receive: Receive, wait: float) -> Plan[Exchanged]:
        """Of one part: its node does it all."""
        [part] = route.parts
        asked = self._of_part(receive, part, receive.count)
        [result] = yield from self.ask(route, [(part, Exchange((), (asked,), wait))])
        if not isinstance(result, Exchanged):
            raise result
        return replace(
            result,
            deliveries=[_marked(d, part.label) for d in result.deliveries],
            buried=[(outside(part.label, name), times) for name, times in result.buried],
        )

    def _receive(self, route: Route, receive: Receive, wait: float) -> Plan[Exchanged]:
        if route.vanished:
            raise route.not_found()
        look = _Look(route, receive)
        if receive.brisk and not receive.recover and route.plenty:
            yield from self._busy(look)
        began = self.clock.monotonic()
        if wait > 0 and not look.count and (quiet := self._shared(look, began)):
            look.marks = quiet.marks
            look.soon = min(quiet.due, quiet.soon) - began
        else:
            if not look.count:
                yield from self._all(look, wait > 0)
            look.judge()
            result = look.result()
            if result.deliveries or result.more or result.buried or wait <= 0:
                return result
            self._share(look, began)
        asleep = self.clock.monotonic()
        if awake := (yield from self._watch(look, wait)):
            look.soon -= self.clock.monotonic() - asleep
            yield from self._deal(look, _evenly(self._in_turn(look, awake), look.wanted), True)
            look.judge()
        return look.result()

    def _shared(self, look: _Look, now: float) -> Quiet | None:
        """The look of another who waits. Two hundred that wait look once a second, not each."""
        receive = look.receive
        if not receive.waited or receive.recover:
            return None
        return look.route.shared(now, now + _SLICE, dead=receive.queue.dead)

    def _share(self, look: _Look, began: float) -> None:
        """All parts were looked at, and nothing was there."""
        route = look.route
        if all(part.label in look.marks for part in route.parts):
            soon = self.clock.monotonic() + look.soon
            route.share(Quiet(look.marks, began + _SLICE, soon), dead=look.receive.queue.dead)

    def _busy(self, look: _Look) -> Plan[None]:
        """Parts that have plenty, the next time others: as many as it takes for a full batch.

        The others wait until these are empty, or until upkeep is due: less than a second. If these
        do not fill half of the batch, and parts had few messages lately, all of them are read for a
        few; upkeep waits even then.
        """
        least = 1
        while shares := look.planned(least):
            yield from self._some(look, shares, False)
            least *= 2  # there was less than was thought: others may have taken it
        left = look.wanted - look.count
        if 2 * left > look.wanted and len(look.route.parts) * look.route.each <= 2 * left:
            parts = [part for part in look.route.in_turn() if part.label not in look.marks]
            shares = [
                (part, count, _MANY)
                for part, count, _ in _evenly(parts, left)
                if count and part.node.breaker.state == "closed"
            ]
            if shares:
                yield from self._some(look, shares, False)

    def _all(self, look: _Look, watched: bool) -> Plan[None]:
        """Every part, with its upkeep; those that have plenty are asked for messages, or all."""
        route, receive = look.route, look.receive
        parts = self._in_turn(look, route.parts)
        if route.plenty and not (receive.recover or (receive.alone and route.suspects)):
            planned = [(p, count, None) for p, count, _ in look.planned(1)]
            asked = {part.label for part, _, _ in planned}
            wanted = look.wanted - sum(count for _, count, _ in planned)
            others = _evenly([part for part in parts if part.label not in asked], wanted, _FEW)
            yield from self._deal(look, [*planned, *others], False)
        if not look.count:
            look.marks.clear()
            yield from self._deal(look, _evenly(parts, look.wanted), watched)

    def _in_turn(self, look: _Look, parts: Sequence[Part]) -> list[Part]:
        """Each time another one is the first; but those with suspects, who may have them."""
        turned = list(look.route.in_turn(parts))
        if look.receive.alone:
            turned.sort(key=lambda part: part.label not in look.route.suspects)
        return turned

    def _deal(self, look: _Look, shares: Sequence[Share], watched: bool) -> Plan[None]:
        """Parts, each for its share; then those that have more, for what is left."""
        yield from self._some(look, shares, watched)
        if not look.receive.recover:
            while shares := look.planned(1):
                yield from self._some(look, shares, watched)
        if look.count > look.wanted:
            yield from self._give_back(look)

    def _some(self, look: _Look, shares: Sequence[Share], watched: bool) -> Plan[None]:
        """Ask parts for messages, each for its share, and enter what they answer."""
        receive, asks = look.receive, []
        for part, count, left in shares:
            if receive.recover:
                count = max(1, count)
            # At most one suspect comes, and to a client that holds nothing.
            alone = receive.alone and part is shares[0][0] and not look.count
            asked = self._of_part(
                receive,
                part,
                count,
                alone=alone,
                brisk=left is not None,
                watched=watched,
                together=True,
            )
            asks.append((part, Exchange((), (asked,))))
        results = yield from self.ask(look.route, asks)
        errors: dict[str, LeanMQError] = {}
        for (part, exchange), (_, _, left), result in zip(asks, shares, results, strict=True):
            if isinstance(result, Exchanged):
                look.take(part, exchange.receive[0], result, left)
                continue
            look.route.has(part.label, 0)
            errors[part.label] = result
            look.lost = look.lost or result.in_doubt
        self._raise(look, errors)

    def _raise(self, look: _Look, by_label: Mapping[str, LeanMQError]) -> None:
        """What cannot be passed over: no part answered, or one answered what it never should.

        Unless others have handed out messages by then: these would be nobody's until their leases
        end. When they have nothing more, it is said.
        """
        if look.deliveries:
            for label, error in by_label.items():
                _tell(look.route, label, error)
            return
        errors = list(by_label.values())
        for error in errors:
            if not isinstance(error, UnreachableError | QueueNotFoundError):
                raise error
        for error in errors:
            if isinstance(error, QueueNotFoundError):
                raise look.route.not_found(in_doubt=look.lost)
        if errors and not look.marks:
            raise errors[0]

    def _of_part(self, receive: Receive, part: Part, count: int, **terms: bool) -> Receive:
        held: Sequence[str] = ()
        if receive.held:
            pairs = map(inside, receive.held)
            held = [receipt for label, receipt in pairs if label == part.label]
        return replace(receive, queue=part.ref(receive.queue), count=count, held=held, **terms)

    def _give_back(self, look: _Look) -> Plan[None]:
        """Release, uncounted, what is more than was wanted: it comes first the next time."""
        kept: dict[str, list[Delivery]] = {}
        back: list[Held] = []
        room = look.wanted
        for label, deliveries in look.deliveries.items():
            kept[label] = deliveries[:room]
            back += [Held(d.id, d.receipt) for d in deliveries[room:]]
            room -= len(kept[label])
        look.deliveries, look.count = kept, look.wanted
        yield from self.settle([Settlement(look.receive.queue, Verb.RELEASE, back)])

    # --- waiting

    def _watch(self, look: _Look, wait: float) -> Plan[Sequence[Part]]:
        """Wait until something may have come; the parts where it may be, none if nothing came."""
        seconds = min(wait, _SLICE, look.soon)
        by_node: dict[int, list[tuple[QueueRef, str]]] = {}
        blind = False
        for part in look.route.parts:
            node = part.node
            if node.breaker.state != "closed" or part.label not in look.marks:
                seconds = min(seconds, _WHILE_DOWN)
            elif node.capabilities is not None and node.capabilities.many_queues:
                mark = look.marks[part.label]
                by_node.setdefault(node.place, []).append((part.ref(look.receive.queue), mark))
            else:
                blind = True
        if blind:
            seconds = min(seconds, _POLL)
        if not by_node or seconds <= 0:
            yield Sleep(max(0.0, seconds))
            return look.route.parts if blind else ()
        awake = yield from self._until_awake(by_node, seconds)
        return [part for part in look.route.parts if (part.node.place, part.queue) in awake]

    def _until_awake(
        self, by_node: Mapping[int, Sequence[tuple[QueueRef, str]]], seconds: float
    ) -> Plan[Collection[tuple[int, str]]]:
        """Watch nodes until something came on one of them, or the time is over on all.

        Returns the places of nodes, and the queues there, in which something came.

        A watch that is joined may end before: it is begun anew, from the same marks, for what is
        left.
        """
        ends = self.clock.monotonic() + seconds
        left = seconds
        while True:
            watches = [(place, Watch(queues, left)) for place, queues in by_node.items()]
            results: Sequence[Watched | LeanMQError | None] = yield Watching(watches, left)
            awake = {
                (place, queue.name)
                for place, result in zip(by_node, results, strict=True)
                if isinstance(result, Watched)
                for queue in result.awake
            }
            if awake:
                return awake
            errors = 0
            for place, result in zip(by_node, results, strict=True):
                if isinstance(result, LeanMQError):
                    if len(self.nodes) == 1:
                        raise result
                    self.nodes[place].failed(result)
                    errors += 1
            left = ends - self.clock.monotonic()
            if errors or left < TOGETHER:  # the next look will tell
                return ()


def _evenly(parts: Sequence[Part], wanted: int, among: int | None = None) -> list[Share]:
    """Parts with equal shares of what is wanted, or only the first ones; the others with none."""
    among = min(len(parts), among or len(parts))
    share, extra = divmod(wanted, max(1, among))
    counts = [share + (place < extra) if place < among else 0 for place in range(len(parts))]
    return [(part, count, None) for part, count in zip(parts, counts, strict=True)]


def _tell(route: Route, label: str, error: LeanMQError) -> None:
    """Log what no caller hears as long as other parts have messages: once, until it answers."""
    if isinstance(error, UnreachableError | QueueNotFoundError) or label in route.refusing:
        return
    route.refusing.add(label)
    _log.warning(
        "queue %r: part %s is left out while others have messages: %s",
        route.name,
        label,
        error,
        extra={"leanmq_event": "part_refuses", "leanmq_queue": route.name, "leanmq_message": None},
    )


def _marked(delivery: Delivery, label: str) -> Delivery:
    return replace(
        delivery, id=outside(label, delivery.id), receipt=outside(label, delivery.receipt)
    )
