"""The consistent-hash router: a queue in shards, each on the node that is written down for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import attrs

from leanmq.backends.protocol import (
    Alter,
    Capabilities,
    Declare,
    Declared,
    Drop,
    Dropped,
    Listed,
    ListQueues,
    NewMessage,
    QueueRef,
    SendBatch,
    Stats,
)
from leanmq.errors import (
    LeanMQError,
    QueueNotFoundError,
    UnsupportedError,
)
from leanmq.sharding.figures import ShardStats
from leanmq.sharding.hashing import shard_of_terms
from leanmq.sharding.names import fold, split_name
from leanmq.sharding.placing import Placing
from leanmq.sharding.routing import Part, Route, raise_first
from leanmq.sharding.spreading import Results, refused
from leanmq.sharding.steps import Asks, Plan
from leanmq.sharding.tags import shard_tags

__all__ = ["SHARDS", "Sharding"]

SHARDS: Final = 64
"""Shards of a new queue, if nobody says how many."""

_RUN: Final = 100
"""Messages without keys that go to one shard at least: a batch costs as much as some messages."""


class Sharding(Placing):
    """The plans of a consistent-hash router."""

    def open(self) -> Plan[Capabilities]:
        """See ``Routing.open``."""
        found = yield from super().open()
        parts = max(1, min(self.shards, 32))
        return attrs.evolve(
            found,
            transactions_across_queues=found.transactions_across_queues and len(self.nodes) == 1,
            best_batch=found.best_batch // len(self.nodes) * parts,
            sequences=all(n.capabilities.sequences for n in self.nodes if n.capabilities),
        )

    # --- queues

    def declare(self, request: Declare) -> Plan[Declared]:
        """Place the queue if it is new, and make its shards."""
        queue, shard = split_name(request.name)
        placement = yield from self._placed(queue, request.settings)
        known = self._route(request.name, placement)
        if shard is not None and not known.parts:
            raise QueueNotFoundError(
                f"queue {queue!r} has {placement.shards} shards, 0 to {placement.shards - 1}; "
                f"there is no shard {shard}",
                queue=queue,
            )
        tags = shard_tags(placement.slot, placement.shards)
        asks = [
            (
                part,
                Declare(
                    part.queue,
                    attrs.evolve(request.settings, slot=tags[int(part.label)], shards=None),
                ),
            )
            for part in known.parts
        ]
        return (yield from self.declare_parts(known, asks))

    def alter(self, request: Alter) -> Plan[Declared]:
        """See ``Routing.alter``; what cannot be altered is refused."""
        route = yield from self.route(request.name)
        given = request.settings
        if given.slot not in (None, route.slot) or given.shards not in (None, route.shards):
            raise UnsupportedError(
                f"queue {route.name!r} is in slot {route.slot!r} with {route.shards} shards, and "
                "stays so; make a queue of another name, and move the messages",
                queue=route.name,
            )
        return (yield from super().alter(request))

    def drop(self, request: Drop) -> Plan[Dropped]:
        """Delete every shard, then what is written down of them."""
        queue, shard = split_name(request.name)
        if shard is not None:
            raise UnsupportedError(
                f"shard {shard} of queue {queue!r} cannot be deleted alone; purge it, or delete "
                "the queue",
                queue=queue,
            )
        try:
            route = yield from self.route(queue)
        except QueueNotFoundError:
            return Dropped(False)
        if not request.dead_letters:
            letters = yield from self.dead_letters(route)
            if letters:
                return Dropped(True, letters)
        placement = self.placements.get(queue)
        results = yield from self.all(
            route, lambda part: Drop(part.queue, request.dead_letters), QueueRef(queue)
        )
        letters = sum(result.dead_letters for result in results)
        if not letters and placement is not None:  # else another thread has deleted it meanwhile
            places = [node.place for node in self.nodes]
            raise_first((yield from self._forget(queue, placement, places)))
            self.placements.pop(queue, None)
            self._forget_routes(queue)
        return Dropped(any(result.existed for result in results), letters)

    def list(self, request: ListQueues) -> Plan[Listed]:
        """The queues in shards; those without are their nodes' own."""
        answers = yield Asks([(node.place, request) for node in self.nodes])
        for node, answer in zip(self.nodes, answers, strict=True):
            if isinstance(answer, LeanMQError):
                raise self.named(answer, node)
        shards = [
            pair
            for answer in answers
            for pair in answer.queues
            if split_name(pair[0].name)[1] is not None
        ]
        return fold(shards)

    def stats_by_shard(self, queue: str) -> Plan[tuple[ShardStats, ...]]:
        """Count in each shard; what cannot be counted says why."""
        placement = yield from self.placement(queue)
        route = self._route(queue, placement)
        asks = [
            (part, Stats(QueueRef(part.queue, dead)))
            for part in route.parts
            for dead in (False, True)
        ]
        results = yield from self.ask(route, asks)
        found = []
        for shard, (live, dead) in enumerate(zip(results[::2], results[1::2], strict=True)):
            node = placement.where[shard]
            error = next((one for one in (live, dead) if isinstance(one, LeanMQError)), None)
            if isinstance(error, QueueNotFoundError):  # not made yet: its node was down then
                found.append(ShardStats(shard, node))
            elif error is not None:
                found.append(ShardStats(shard, node, error=str(error)))
            else:
                letters = dead.ready + dead.in_flight + dead.delayed
                found.append(
                    ShardStats(shard, node, live.ready, live.in_flight, live.delayed, letters)
                )
        return tuple(found)

    # --- sending

    def fixed(self, route: Route, message: NewMessage) -> Part | None:
        """By its key; without one by its dedup id: it must find what was sent before."""
        shard = shard_of_terms(message.terms, len(route.parts))
        return None if shard is None else route.parts[shard]

    def spread(
        self,
        route: Route,
        batch: SendBatch,
        epochs: Mapping[str, int],
        results: Results,
    ) -> Plan[None]:
        """Keyed messages go to their shards, the others in runs to shards in reach, in turn.

        What a node refused (it is out of reach, or full), and what no key binds to it, goes to
        another one.
        """
        assigned, free = self.sort(route, batch)
        refusing: set[int] = set()
        while assigned or (free and refusing != route.places):
            if free:
                runs = min(len(route.parts), max(1, len(free) // _RUN))
                size = -(-len(free) // runs)
                for first in range(0, len(free), size):
                    label = self.in_turn(route, refusing).label
                    run = free[first : first + size]
                    assigned[label] = sorted([*assigned.get(label, ()), *run])
            yield from self.send_to(route, batch, epochs, assigned, results)
            free = [place for place in free if refused(results[place])]
            left = set(free)
            refusing |= {
                route.by_label[label].node.place
                for label, places in assigned.items()
                if not left.isdisjoint(places)
            }
            assigned = {}
