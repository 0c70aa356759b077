"""How a router receives: it looks at the parts of a queue fairly, and waits on all of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
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
from leanmq.sharding.routing import Part, Route
from leanmq.sharding.steps import TOGETHER, Plan, Sleep, Watching
from leanmq.sharding.whole import Whole

__all__ = ["Receiving"]

_SLICE: Final = 1.0
"""Seconds that one wait lasts at most."""

_WHILE_DOWN: Final = 0.25
"""Seconds that it lasts while a node is out of reach: its return is not told by a watch."""

_MOST: Final = 1_000.0
"""Messages that a part is thought to have at most."""

_POLL: Final = 0.05
"""Seconds between looks at backends that cannot watch."""


@attrs.define
class _Look:
    """What the looks of one receive came to so far."""

    wanted: int
    deliveries: dict[str, list[Delivery]] = attrs.field(factory=dict)
    count: int = 0
    more: bool = False
    suspects: bool = False
    lost: bool = False
    lease: float = 0.0
    calm: float = math.inf
    soon: float = math.inf
    buried: list[tuple[str, int]] = attrs.field(factory=list)
    marks: dict[str, str] = attrs.field(factory=dict)

    def take(self, route: Route, part: Part, asked: Receive, result: Exchanged) -> None:
        """Enter what one part answered."""
        label, got = part.label, len(result.deliveries)
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
            self.calm = min(self.calm, result.calm)
        route.rich.pop(label, None)
        if result.more or (asked.count and got >= asked.count):
            route.rich[label] = None  # last: the others are asked before it
        if result.suspects:
            route.suspects[label] = None
        else:
            route.suspects.pop(label, None)
        self.lost = self.lost or result.lost or (asked.recover and got >= asked.count)
        self.lease = min(self.lease, result.lease) if self.lease else result.lease
        if result.soon is not None:
            self.soon = min(self.soon, result.soon)
        self.buried += [(outside(label, name), times) for name, times in result.buried]
        self.marks[label] = result.mark

    def result(self, route: Route) -> Exchanged:
        """The answer of the whole."""
        rows = zip_longest(*self.deliveries.values())
        return Exchanged(
            (),
            [d for row in rows for d in row if d is not None],
            more=bool(route.rich) and not self.count,
            suspects=bool(route.suspects),
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
        look = _Look(receive.count)
        if receive.brisk and not receive.recover and route.rich:
            yield from self._busy(route, receive, look, wait > 0)
            if 2 * look.count >= receive.count:
                return look.result(route)
        yield from self._all(route, receive, look, wait > 0)
        result = look.result(route)
        if result.deliveries or result.more or result.buried or wait <= 0:
            return result
        asleep = self.clock.monotonic()
        if awake := (yield from self._watch(route, receive, look, wait)):
            look.soon -= self.clock.monotonic() - asleep
            yield from self._deal(route, receive, look, self._in_turn(route, receive, awake), False)
            result = look.result(route)
        return result

    def _busy(self, route: Route, receive: Receive, look: _Look, watched: bool) -> Plan[None]:
        """Parts that had plenty, the next time others: as many as a full batch may take.

        Others wait until these are empty, or until upkeep is due: less than a second.
        """
        while (wanted := look.wanted - look.count) and route.rich:
            number = max(1, min(len(route.rich), round(wanted / max(1.0, route.expected))))
            labels = [label for label in list(route.rich)[:number] if label not in look.marks]
            parts = [route.by_label[label] for label in labels]
            parts = [part for part in parts if part.node.breaker.state == "closed"]
            if not parts:
                return
            yield from self._some(route, receive, look, _shared(parts, look, whole=True), watched)
            got = wanted - (look.wanted - look.count)
            if got < wanted:
                route.expected += (got / len(parts) - route.expected) / 4
            else:
                route.expected = min(1.25 * route.expected, _MOST)

    def _all(self, route: Route, receive: Receive, look: _Look, watched: bool) -> Plan[None]:
        """Every part, each for its share; then those that have more, for what is left."""
        parts = [part for part in route.parts if part.label not in look.marks]
        if parts:  # else all of them had plenty, and have nothing now
            yield from self._deal(
                route, receive, look, self._in_turn(route, receive, parts), watched
            )

    def _in_turn(self, route: Route, receive: Receive, parts: Sequence[Part]) -> list[Part]:
        """Each time another one is the first; but those with suspects, who may have them."""
        turned = list(route.in_turn(parts))
        if receive.alone:
            turned.sort(key=lambda part: part.label not in route.suspects)
        return turned

    def _deal(
        self, route: Route, receive: Receive, look: _Look, parts: Sequence[Part], watched: bool
    ) -> Plan[None]:
        """Parts, each for its share; then those that have more, for what is left."""
        yield from self._some(route, receive, look, _shared(parts, look), watched)
        while look.count < look.wanted and not receive.recover:
            parts = [part for part in parts if part.label in route.rich]
            if not parts:
                break
            yield from self._some(route, receive, look, _shared(parts, look, whole=True), watched)
        if look.count > look.wanted:
            yield from self._give_back(route, receive, look)

    def _some(
        self,
        route: Route,
        receive: Receive,
        look: _Look,
        shares: Sequence[tuple[Part, int]],
        watched: bool,
    ) -> Plan[None]:
        """Ask parts for messages, each for its share, and enter what they answer."""
        asks = []
        for part, count in shares:
            if receive.recover:
                count = max(1, count)
            asked = self._of_part(receive, part, count)
            # At most one suspect comes, and to a client that holds nothing.
            only = receive.alone and part is shares[0][0] and not look.count
            asks.append((part, replace(asked, alone=only, watched=watched)))
        results = yield from self.ask(
            route, [(part, Exchange((), (asked,))) for part, asked in asks]
        )
        errors = []
        for (part, asked), result in zip(asks, results, strict=True):
            if isinstance(result, Exchanged):
                look.take(route, part, asked, result)
                continue
            route.rich.pop(part.label, None)
            errors.append(result)
            look.lost = look.lost or result.in_doubt
        self._raise(route, errors, look)

    def _raise(self, route: Route, errors: Sequence[LeanMQError], look: _Look) -> None:
        """What cannot be passed over: no part answered, or one answered what it never should."""
        for error in errors:
            if not isinstance(error, UnreachableError | QueueNotFoundError):
                raise error
        if not look.deliveries:
            for error in errors:
                if isinstance(error, QueueNotFoundError):
                    raise route.not_found()
        if errors and not look.marks:
            raise errors[0]

    def _of_part(self, receive: Receive, part: Part, count: int) -> Receive:
        held: Sequence[str] = ()
        if receive.held:
            pairs = map(inside, receive.held)
            held = [receipt for label, receipt in pairs if label == part.label]
        return replace(receive, queue=part.ref(receive.queue), count=count, held=held)

    def _give_back(self, route: Route, receive: Receive, look: _Look) -> Plan[None]:
        """Release, uncounted, what is more than was wanted: it comes first the next time."""
        kept: dict[str, list[Delivery]] = {}
        back: list[Held] = []
        room = look.wanted
        for label, deliveries in look.deliveries.items():
            kept[label] = deliveries[:room]
            back += [Held(d.id, d.receipt) for d in deliveries[room:]]
            room -= len(kept[label])
        look.deliveries, look.count = kept, look.wanted
        yield from self.settle([Settlement(receive.queue, Verb.RELEASE, back)])

    # --- waiting

    def _watch(
        self, route: Route, receive: Receive, look: _Look, wait: float
    ) -> Plan[Sequence[Part]]:
        """Wait until something may have come; the parts where it may be, none if nothing came."""
        seconds = min(wait, _SLICE, look.soon)
        by_node: dict[int, list[tuple[QueueRef, str]]] = {}
        blind = False
        for part in route.parts:
            node = part.node
            if node.breaker.state != "closed" or part.label not in look.marks:
                seconds = min(seconds, _WHILE_DOWN)
            elif node.capabilities is not None and node.capabilities.many_queues:
                mark = look.marks[part.label]
                by_node.setdefault(node.place, []).append((part.ref(receive.queue), mark))
            else:
                blind = True
        if blind:
            seconds = min(seconds, _POLL)
        if not by_node or seconds <= 0:
            yield Sleep(max(0.0, seconds))
            return route.parts if blind else ()
        awake = yield from self._until_awake(by_node, seconds)
        return [part for part in route.parts if (part.node.place, part.queue) in awake]

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


def _shared(parts: Sequence[Part], look: _Look, *, whole: bool = False) -> list[tuple[Part, int]]:
    """How many of what is wanted each part is asked for; with ``whole`` no part for none."""
    wanted = look.wanted - look.count
    if whole:
        parts = parts[:wanted]
    share, extra = divmod(wanted, len(parts))
    return [(part, share + (place < extra)) for place, part in enumerate(parts)]


def _marked(delivery: Delivery, label: str) -> Delivery:
    return replace(
        delivery, id=outside(label, delivery.id), receipt=outside(label, delivery.receipt)
    )
