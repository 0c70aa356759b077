"""What concerns all parts of a queue, or the parts that certain messages are in."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from msgspec.structs import replace

from leanmq.backends.protocol import (
    Alter,
    Declared,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Held,
    Peek,
    Peeked,
    Purge,
    Purged,
    QueueRef,
    QueueStats,
    Redrive,
    Redriven,
    Settlement,
    Standing,
    Stats,
    Stored,
)
from leanmq.errors import (
    CrossSlotError,
    LeanMQError,
    QueueNotFoundError,
    UnreachableError,
)
from leanmq.sharding.names import inside, outside, total
from leanmq.sharding.routing import Part, Route, Routing, raise_first
from leanmq.sharding.steps import Plan

__all__ = ["Whole"]


class Whole(Routing):
    """The part of a router that makes one answer of many."""

    # --- queues

    def merged(self, route: Route, declared: Mapping[str, Declared]) -> Declared:
        """One answer, of those of the parts."""
        first = next(iter(declared.values()))
        epochs = {
            part.label: declared[part.label].epoch if part.label in declared else 0
            for part in route.parts
        }
        # For the shortest of the windows all of them surely know what was sent.
        windows = [one.settings.dedup_window or 0.0 for one in declared.values()]
        settings = attrs.evolve(first.settings, dedup_window=min(windows))
        return Declared(
            route.settings(settings),
            created=any(one.created for one in declared.values()),
            created_at=min(one.created_at for one in declared.values()),
            epoch=route.learn(epochs),
        )

    def declare_parts(self, route: Route, asks: Sequence[tuple[Part, Any]]) -> Plan[Declared]:
        """Declare what can be reached: the rest is made when it is, since it will be missed."""
        results = yield from self.ask(route, asks)
        declared: dict[str, Declared] = {}
        problem: LeanMQError | None = None
        for (part, _), result in zip(asks, results, strict=True):
            if not isinstance(result, LeanMQError):
                declared[part.label] = result
            elif not isinstance(result, UnreachableError):
                raise result
            else:
                problem = problem or result
        if problem is not None and (not declared or any(d.created for d in declared.values())):
            raise problem
        route.vanished = False
        return self.merged(route, declared)

    def alter(self, request: Alter) -> Plan[Declared]:
        """Change settings on all parts, which must all be in reach."""
        route = yield from self.route(request.name)
        settings = attrs.evolve(request.settings, slot=None, shards=None)
        results = yield from self.all(
            route, lambda part: Alter(part.queue, settings), QueueRef(request.name)
        )
        return self.merged(route, dict(zip(route.by_label, results, strict=True)))

    def all(self, route: Route, request: Callable[[Part], Any], queue: QueueRef) -> Plan[list[Any]]:
        """The answers of all parts; raises the first error, after all were asked."""
        results = yield from self.ask(route, [(part, request(part)) for part in route.parts])
        raise_first(results)
        return results

    def dead_letters(self, route: Route) -> Plan[int]:
        """How many there are; parts that are not made yet have none."""
        asks = [(part, Stats(QueueRef(part.queue, dead=True))) for part in route.parts]
        results = yield from self.ask(route, asks)
        raise_first(result for result in results if not isinstance(result, QueueNotFoundError))
        found = [result for result in results if isinstance(result, QueueStats)]
        return sum(stats.ready + stats.in_flight + stats.delayed for stats in found)

    def purge(self, request: Purge) -> Plan[Purged]:
        """Delete everywhere."""
        route = yield from self.route(request.queue.name)
        results = yield from self.all(
            route, lambda part: attrs.evolve(request, queue=part.ref(request.queue)), request.queue
        )
        return Purged(sum(result.count for result in results))

    def stats(self, request: Stats) -> Plan[QueueStats]:
        """Count everywhere."""
        route = yield from self.route(request.queue.name)
        results = yield from self.all(
            route, lambda part: Stats(part.ref(request.queue)), request.queue
        )
        added = total(results, slot=None)
        return attrs.evolve(added, settings=route.settings(added.settings))

    def peek(self, request: Peek) -> Plan[Peeked]:
        """The next ones of each part in turn; or those of these ids, wherever they are."""
        route = yield from self.route(request.queue.name)
        if request.ids is not None:
            by_part = self.by_part(route, [Held(message_id) for message_id in request.ids])
            asks = [
                (p, Peek(p.ref(request.queue), ids=[held.id for held in messages]))
                for p, messages, _ in by_part
            ]
        else:
            asks = [(p, attrs.evolve(request, queue=p.ref(request.queue))) for p in route.in_turn()]
        results = yield from self.ask(route, asks)
        raise_first(results)
        rows = itertools.zip_longest(
            *(
                [_shown(stored, part.label) for stored in result.messages]
                for (part, _), result in zip(asks, results, strict=True)
            )
        )
        found = [stored for row in rows for stored in row if stored is not None]
        if request.ids is None:
            return Peeked(found[: request.count])
        order = {message_id: place for place, message_id in enumerate(request.ids)}
        return Peeked(sorted(found, key=lambda stored: order[stored.delivery.id]))

    # --- messages that were received

    def by_part(
        self, route: Route, messages: Sequence[Held]
    ) -> list[tuple[Part, list[Held], list[int]]]:
        """Messages as their parts call them, and their places; without those of no part."""
        found: dict[str, tuple[Part, list[Held], list[int]]] = {}
        for place, held in enumerate(messages):
            label, name = inside(held.id)
            its = found.get(label)
            if its is None:
                part = route.by_label.get(label)
                if part is None:
                    continue
                its = found[label] = (part, [], [])
            receipt = held.receipt
            its[1].append(Held(name, None if receipt is None else receipt[len(label) + 1 :]))
            its[2].append(place)
        return list(found.values())

    def settle(self, settlements: Sequence[Settlement]) -> Plan[list[Sequence[Standing]]]:
        """Settle each message with its part, all parts at once."""
        done: list[Sequence[Standing]] = []
        for settlement in settlements:
            route = yield from self.route(settlement.queue.name)
            by_part = self.by_part(route, settlement.messages)
            asks = [
                (part, replace(settlement, queue=part.ref(settlement.queue), messages=held))
                for part, held, _ in by_part
            ]
            results = yield from self.ask(route, [(part, Exchange((one,))) for part, one in asks])
            standings = self._standings(settlement.messages, by_part, results, _settled)
            done.append(standings)
        return done

    def extend(self, request: Extend) -> Plan[Extended]:
        """Renew each lease with its part."""
        route = yield from self.route(request.queue.name)
        by_part = self.by_part(route, request.messages)
        asks = [(part, Extend(part.ref(request.queue), held)) for part, held, _ in by_part]
        results = yield from self.ask(route, asks)
        standings = self._standings(request.messages, by_part, results, _standings)
        leases = [result.lease for result in results if isinstance(result, Extended)]
        return Extended(standings, min(leases, default=0.0))

    def redrive(self, request: Redrive) -> Plan[Redriven]:
        """Send dead letters back within their parts."""
        route = yield from self.route(request.queue.name)
        by_part = self.by_part(route, request.messages)
        target = route
        if request.destination is not None:
            target = yield from self.route(request.destination)
        asks = [
            (
                part,
                Redrive(
                    part.ref(request.queue),
                    held,
                    None if request.destination is None else self._across(route, part, target),
                ),
            )
            for part, held, _ in by_part
        ]
        results = yield from self.ask(route, asks)
        if request.destination is not None:  # which of two queues is missing, nobody says
            _raise_first_in_doubt(results)
        return Redriven(self._standings(request.messages, by_part, results, _standings))

    def _across(self, route: Route, part: Part, target: Route) -> str:
        """The part of another queue to which dead letters of this part can go in one step."""
        there = target.by_label.get(part.label)
        if there is None or there.node is not part.node or target.shards != route.shards:
            raise CrossSlotError(
                f"dead letters of {route.name!r} cannot be moved to queue {target.name!r} in one "
                f"step: shard {part.label} is on node {part.node.name!r}, and there is no such "
                "shard of the other queue there; make both with the same slot= and as many shards, "
                "or send their payloads there and acknowledge them here",
                queue=route.name,
            )
        return there.queue

    def _standings(
        self,
        messages: Sequence[Held],
        by_part: Sequence[tuple[Part, list[Held], list[int]]],
        results: Sequence[Any],
        of: Callable[[Any], Sequence[Standing]],
    ) -> list[Standing]:
        """A standing for each message: it is gone with its part, if others are there.

        Raises the first other error, in doubt if another part is done.
        """
        standings = [Standing.GONE] * len(messages)
        missing = [isinstance(result, QueueNotFoundError) for result in results]
        if all(missing):
            raise_first(results)
        _raise_first_in_doubt([r for r, gone in zip(results, missing, strict=True) if not gone])
        for (_, _, places), result, gone in zip(by_part, results, missing, strict=True):
            if gone:
                continue
            for place, standing in zip(places, of(result), strict=True):
                standings[place] = standing
        return standings


def _raise_first_in_doubt(results: Sequence[Any]) -> None:
    """Raise the first error, if there is one; in doubt if there are answers, too."""
    errors = [result for result in results if isinstance(result, LeanMQError)]
    if not errors:
        return
    if len(errors) == len(results):
        raise errors[0]
    error = copy.copy(errors[0])
    error.in_doubt = True
    raise error from errors[0].__cause__


def _settled(result: Exchanged) -> Sequence[Standing]:
    return result.settled[0]


def _standings(result: Any) -> Sequence[Standing]:
    standings: Sequence[Standing] = result.standings
    return standings


def _shown(stored: Stored, label: str) -> Stored:
    delivery = replace(stored.delivery, id=outside(label, stored.delivery.id))
    return replace(stored, delivery=delivery)
