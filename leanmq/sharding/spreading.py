"""How a router sends: messages go to the parts that they are meant for, all parts at once."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from leanmq.backends.protocol import (
    NewMessage,
    SendBatch,
    SendResult,
    Sent,
    Settlement,
    Transact,
)
from leanmq.errors import (
    CrossSlotTransactionError,
    LeanMQError,
    QueueFullError,
    QueueNotFoundError,
    ServerStateError,
    StaleSettingsError,
    TransactionError,
    UnreachableError,
)
from leanmq.sharding.names import outside
from leanmq.sharding.receiving import Receiving
from leanmq.sharding.routing import Node, Part, Route
from leanmq.sharding.steps import Plan

__all__ = ["REFUSALS", "Places", "Results", "Spreading", "refused"]

REFUSALS: Final = (UnreachableError, QueueFullError, ServerStateError)
"""What a node says that takes no messages for now: another one may."""

_CHUNK: Final = 500
"""Messages that one part is sent at once: longer scripts would keep others waiting."""

Places: TypeAlias = list[int]
Results: TypeAlias = "list[SendResult | None]"


def refused(result: SendResult | None) -> bool:
    """Whether the node surely has not stored the message, and another one may."""
    return isinstance(result, REFUSALS) and not result.in_doubt


class Spreading(Receiving):
    """The part of a router that sends."""

    def send(self, batch: SendBatch) -> Plan[Sent]:
        """Send each message to its part."""
        route = yield from self.route(batch.queue.name)
        if route.vanished:
            raise route.not_found()
        epochs = self._epochs(route, batch)
        results: Results = [None] * len(batch.messages)
        yield from self.spread(route, batch, epochs, results)
        stale = [r for r in results if isinstance(r, QueueNotFoundError | StaleSettingsError)]
        if len(stale) == len(results):
            raise stale[0]
        return Sent([result for result in results if result is not None])

    def together(self, batches: Sequence[SendBatch]) -> Plan[Sequence[Sent | LeanMQError]]:
        """Send batches that go to one shard each, all at once; an error is a result."""
        results: list[Sent | LeanMQError | None] = [None] * len(batches)
        asks: dict[str, tuple[Route, list[tuple[int, Part, SendBatch]]]] = {}
        for place, batch in enumerate(batches):
            try:
                route = yield from self.route(batch.queue.name)
                part = route.by_label.get(str(batch.shard))
                if part is None:  # its messages go to several
                    results[place] = yield from self.send(batch)
                    continue
                if route.vanished:
                    raise route.not_found()
                epoch = self._epochs(route, batch).get(part.label, 0)
            except LeanMQError as error:
                results[place] = error
                continue
            inner = replace(batch, queue=part.ref(batch.queue), epoch=epoch, shard=-1)
            asks.setdefault(route.name, (route, []))[1].append((place, part, inner))
        for route, share in asks.values():
            try:
                answers = yield from self.ask(route, [(part, inner) for _, part, inner in share])
            except LeanMQError as error:  # the router was closed: others may be stored already
                answers = [error] * len(share)
            for (place, part, _), answer in zip(share, answers, strict=True):
                if isinstance(answer, Sent):
                    results[place] = Sent(
                        [
                            outside(part.label, r) if isinstance(r, str) else r
                            for r in answer.results
                        ]
                    )
                else:
                    results[place] = answer
        return [result for result in results if result is not None]

    @abstractmethod
    def spread(
        self,
        route: Route,
        batch: SendBatch,
        epochs: Mapping[str, int],
        results: Results,
    ) -> Plan[None]:
        """Fill in the results."""

    def _epochs(self, route: Route, batch: SendBatch) -> Mapping[str, int]:
        """What each part is told to be the epoch of its settings."""
        if not batch.epoch:
            return {}
        epochs = route.epochs.get(batch.epoch)
        if epochs is None:
            raise StaleSettingsError(
                f"the settings of queue {route.name!r} were changed meanwhile; send again",
                queue=route.name,
            )
        return epochs

    def send_to(
        self,
        route: Route,
        batch: SendBatch,
        epochs: Mapping[str, int],
        assigned: Mapping[str, Places],
        results: Results,
    ) -> Plan[None]:
        """Send messages to their parts, some hundred of each at a time.

        A part whose messages were not all stored is sent no more of them: their order holds, and
        at most one batch of it is in doubt. What has a number goes as a whole, since a second
        batch of that number would be taken for the first.
        """
        most = len(batch.messages) if batch.producer else _CHUNK
        left = {label: places for label, places in assigned.items() if places}
        while left:
            asks = []
            for label, places in left.items():
                part = route.by_label[label]
                messages = [batch.messages[place] for place in places[:most]]
                inner = replace(
                    batch,
                    queue=part.ref(batch.queue),
                    messages=messages,
                    epoch=epochs.get(label, 0),
                )
                asks.append((part, inner))
            try:
                answers = yield from self.ask(route, asks)
            except LeanMQError as error:  # the router was closed: some may be stored already
                answers = [error] * len(asks)
            rest: dict[str, Places] = {}
            for (part, _), answer in zip(asks, answers, strict=True):
                places = left[part.label]
                now, later = places[:most], places[most:]
                of_part = [answer] * len(now) if isinstance(answer, LeanMQError) else answer.results
                for place, result in zip(now, of_part, strict=True):
                    stored = isinstance(result, str)
                    results[place] = outside(part.label, result) if stored else result
                last = of_part[-1]
                if isinstance(last, str):
                    rest[part.label] = later
                else:
                    for place in later:
                        results[place] = _behind(last)
            left = {label: places for label, places in rest.items() if places}

    def sort(self, route: Route, batch: SendBatch) -> tuple[dict[str, Places], Places]:
        """The messages that are bound to a part, by its label; and those that can go anywhere."""
        bound: dict[str, Places] = {}
        if batch.shard >= 0:
            if str(batch.shard) not in route.by_label:
                raise StaleSettingsError(
                    f"queue {route.name!r} has {len(route.parts)} shards now, and no shard "
                    f"{batch.shard}; send again",
                    queue=route.name,
                )
            return {str(batch.shard): list(range(len(batch.messages)))}, []
        free: Places = []
        for place, message in enumerate(batch.messages):
            if message.terms is None or (part := self.fixed(route, message)) is None:
                free.append(place)
            elif (places := bound.get(part.label)) is None:
                bound[part.label] = [place]
            else:
                places.append(place)
        return bound, free

    # --- transactions

    @abstractmethod
    def fixed(self, route: Route, message: NewMessage) -> Part | None:
        """The part that a message must go to; None if any will do."""

    def transact(self, request: Transact) -> Plan[Sent]:
        """Carry it out on the node where all of it is; what can go anywhere goes there, too."""
        routes = []
        for batch in request.sends:
            routes.append((yield from self.route(batch.queue.name)))
        bound: dict[tuple[str, str], Part] = {}  # by queue and label
        acknowledge: list[Settlement] = []
        outer: dict[str, str] = {}  # what messages are called outside
        names: dict[str, str] = {}  # and queues
        for settlement in request.acknowledge:
            route = yield from self.route(settlement.queue.name)
            by_part = self.by_part(route, settlement.messages)
            if sum(len(held) for _, held, _ in by_part) < len(settlement.messages):
                raise TransactionError(f"a message is none of queue {route.name!r}")
            for there, held, places in by_part:
                bound[route.name, there.label] = there
                names[there.queue] = route.name
                ref = there.ref(settlement.queue)
                acknowledge.append(replace(settlement, queue=ref, messages=held))
                for one, place in zip(held, places, strict=True):
                    outer[one.id] = settlement.messages[place].id
        wanted = [
            [self.fixed(route, message) for message in batch.messages]
            for route, batch in zip(routes, request.sends, strict=True)
        ]
        for route, parts in zip(routes, wanted, strict=True):
            bound |= {(route.name, part.label): part for part in parts if part is not None}
        home = self._home(routes, bound)
        inner: dict[tuple[int, str], tuple[Part, Places]] = {}
        for number, (route, parts) in enumerate(zip(routes, wanted, strict=True)):
            free = None if None not in parts else self._free(route, home, bound)
            for place, wish in enumerate(parts):
                target = wish or free
                assert target is not None
                names[target.queue] = route.name
                inner.setdefault((number, target.label), (target, []))[1].append(place)
        sends = []
        for (number, label), (part, places) in inner.items():
            batch, route = request.sends[number], routes[number]
            epoch = self._epochs(route, batch).get(label, 0)
            messages = [batch.messages[place] for place in places]
            sends.append(
                replace(batch, queue=part.ref(batch.queue), messages=messages, epoch=epoch)
            )
        whole = Route("", tuple(bound.values()) or (home,))
        [answer] = yield from self.ask(whole, [(home, Transact(sends, acknowledge))])
        self.transacted(home.node, request.sends, answer)
        if isinstance(answer, LeanMQError):
            answer.queue = names.get(answer.queue or "", answer.queue)
            answer.message_id = outer.get(answer.message_id or "", answer.message_id)
            raise answer
        ids: list[list[str]] = [[""] * len(batch.messages) for batch in request.sends]
        results = iter(answer.results)
        for (number, label), (_, places) in inner.items():
            for place in places:
                ids[number][place] = outside(label, str(next(results)))
        return Sent([one for some in ids for one in some])

    def transacted(self, node: Node, sends: Sequence[SendBatch], answer: Any) -> None:
        """A node has answered a transaction."""

    def _home(self, routes: Sequence[Route], bound: Mapping[tuple[str, str], Part]) -> Part:
        """A part on the one node where all that is bound is; if nothing is, one in turn."""
        nodes = {part.node.name: part for part in bound.values()}
        if len(nodes) > 1:
            where = ", ".join(
                f"{part.queue!r} is on node {part.node.name!r}" for part in bound.values()
            )
            raise CrossSlotTransactionError(
                f"a transaction cannot span nodes: {where}; send by one key, or use several "
                "transactions"
            )
        if nodes:
            return next(iter(nodes.values()))
        return self.in_turn(routes[0])

    def in_turn(self, route: Route, refusing: Collection[int] = ()) -> Part:
        """A part in reach, in turn; not on one of these nodes, unless there are no others."""
        first = willing = None
        for part in route.in_turn():
            first = first or part
            if part.node.place not in refusing:
                if self.reachable(part.node):
                    return part
                willing = willing or part
        found = willing or first
        assert found is not None  # a route has parts
        return found

    def _free(self, route: Route, home: Part, bound: Mapping[tuple[str, str], Part]) -> Part:
        """Where messages of no key go: with what is bound, by preference to the same shard."""
        labels = [home.label, *(part.label for part in bound.values())]
        for label in labels:
            part = route.by_label.get(label)
            if part is not None and part.node is home.node:
                return part
        here = [part for part in route.parts if part.node is home.node]
        if not here:
            raise CrossSlotTransactionError(
                f"queue {route.name!r} has no shard on node {home.node.name!r}, where the rest of "
                "the transaction is; make its queues with the same slot= and as many shards",
                queue=route.name,
            )
        return here[route.turn() % len(here)]


def _behind(error: LeanMQError) -> LeanMQError:
    """What is said of messages behind one that was not stored: they were not sent."""
    if not error.in_doubt:
        return error
    from leanmq.errors import ConnectionError  # not above: it loads redis-py

    unsent = ConnectionError(f"not sent, since what came before may be stored or not: {error}")
    unsent.__cause__ = error.__cause__ or error
    unsent.queue = error.queue
    return unsent
