"""The round-robin router: each node has the whole queue, and each message goes to one in turn."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from leanmq.backends.protocol import (
    Declare,
    Declared,
    Drop,
    Dropped,
    Listed,
    ListQueues,
    NewMessage,
    QueueRef,
    QueueStats,
    SendBatch,
    Stats,
)
from leanmq.clock import Clock
from leanmq.errors import LeanMQError
from leanmq.sharding.balance import Strategy, strategy_of
from leanmq.sharding.breaker import Breaker
from leanmq.sharding.hashing import shard_of
from leanmq.sharding.names import total
from leanmq.sharding.routing import Node, Part, Route
from leanmq.sharding.spreading import REFUSALS, Places, Results, Spreading, refused
from leanmq.sharding.steps import Asks, Plan
from leanmq.sharding.tally import Tally, TargetStats

__all__ = ["Balancing"]


class Balancing(Spreading):
    """The plans of a round-robin router.

    A target that refuses is left out for a while, and its share goes to the others; where nobody
    knows whether a message was stored, it goes nowhere else.
    """

    kind = "round-robin router"

    def __init__(
        self,
        weights: Mapping[str, float],
        strategy: str = "round-robin",
        clock: Clock | None = None,
    ) -> None:
        super().__init__(weights, clock)
        self._weights, self._strategy = weights, strategy
        self.strategy: Strategy = strategy_of(strategy, weights)
        self.tally = Tally()
        # Apart from whether it can be reached: one that is full must be received from.
        self._taking = [Breaker(self.clock) for _ in self.nodes]

    def forked(self) -> None:
        """See ``Routing.forked``."""
        super().forked()
        self.strategy = strategy_of(self._strategy, self._weights)
        self.tally = Tally()
        self._taking = [Breaker(self.clock) for _ in self.nodes]
        self.routes.clear()

    def route(self, name: str) -> Plan[Route]:
        """Every node has the queue."""
        return self._route(name)
        yield

    def _route(self, name: str) -> Route:
        route = self.routes.get(name)
        if route is None:
            parts = tuple(Part(node.name, node, name) for node in self.nodes)
            route = self.routes.setdefault(name, Route(name, parts))
            # Begin anywhere: of many processes that send one message each, not all to the first.
            if skipped := random.randrange(len(parts)):
                self.strategy.share(name, skipped, [node.name for node in self.nodes])
        return route

    def declare(self, request: Declare) -> Plan[Declared]:
        """Make the queue everywhere."""
        route = self._route(request.name)
        return (yield from self.declare_parts(route, [(part, request) for part in route.parts]))

    def drop(self, request: Drop) -> Plan[Dropped]:
        """Delete the queue everywhere, unless there are dead letters anywhere."""
        route = self._route(request.name)
        if not request.dead_letters:
            letters = yield from self.dead_letters(route)
            if letters:
                return Dropped(True, letters)
        results = yield from self.all(route, lambda _: request, QueueRef(request.name))
        letters = sum(result.dead_letters for result in results)
        if not letters:
            self.routes.pop(request.name, None)
        return Dropped(any(result.existed for result in results), letters)

    def list(self, request: ListQueues) -> Plan[Listed]:
        """Every queue of any node, with the sums of all."""
        answers = yield Asks([(node.place, request) for node in self.nodes])
        found: dict[QueueRef, list[QueueStats]] = {}
        for node, answer in zip(self.nodes, answers, strict=True):
            if isinstance(answer, LeanMQError):
                raise self.named(answer, node)
            for ref, stats in answer.queues:
                found.setdefault(ref, []).append(stats)
        refs = sorted(found, key=lambda ref: (ref.name, ref.dead))
        return Listed([(ref, total(found[ref], slot=None)) for ref in refs])

    def stats_by_target(self) -> Mapping[str, TargetStats]:
        """What was sent to each target so far, and whether it takes messages."""
        return self.tally.snapshot({node.name: self._state(node) for node in self.nodes})

    def _state(self, node: Node) -> str:
        states = {node.breaker.state, self._taking[node.place].state}
        return next((state for state in ("open", "half-open") if state in states), "closed")

    # --- sending

    def fixed(self, route: Route, message: NewMessage) -> Part | None:
        """Only with a dedup id: a second send must find what the first one stored."""
        terms = message.terms
        if terms is None or terms.dedup_id is None:
            return None
        return route.parts[shard_of(terms.key or terms.dedup_id, len(route.parts))]

    def in_turn(self, route: Route, refusing: Collection[int] = ()) -> Part:
        """See ``Spreading.in_turn``, by the strategy."""
        willing = [node for node in self.nodes if node.place not in refusing]
        allowed = [node.name for node in willing if self.reachable(node)]
        allowed = allowed or [node.name for node in self.nodes]
        [(name, _)] = self.strategy.share(route.name, 1, allowed)
        return route.by_label[name]

    def spread(
        self,
        route: Route,
        batch: SendBatch,
        epochs: Mapping[str, int],
        results: Results,
    ) -> Plan[None]:
        """Share messages out; what a target surely refused goes to another one."""
        assigned, free = self.sort(route, batch)
        if assigned:
            yield from self.send_to(route, batch, epochs, assigned, results)
            self._judge_sends(route, assigned, results)
        refusing: set[str] = set()
        while free:
            yield from self._ask_backlogs(route, batch.queue)
            allowed = [node.name for node in self.nodes if self._allowed(node, refusing)]
            if not allowed:
                self._none_left(free, results, route)
                return
            assigned = {}
            rest = iter(free)
            for name, count in self.strategy.share(route.name, len(free), allowed):
                places = [next(rest) for _ in range(count)]
                if self._taking[route.by_label[name].node.place].allows():
                    assigned[name] = places
                else:  # another caller tries it just now
                    refusing.add(name)
            try:
                yield from self.send_to(route, batch, epochs, assigned, results)
            except BaseException:
                for name in assigned:
                    self._taking[route.by_label[name].node.place].abandon()
                raise
            refusing |= self._judge_sends(route, assigned, results)
            free = [p for p in free if results[p] is None or refused(results[p])]

    def _allowed(self, node: Node, refusing: Collection[str]) -> bool:
        if node.name in refusing or node.problem is not None:
            return False
        taking = self._taking[node.place]
        if taking.wants_probe():
            taking.probed(True)  # the next message is the probe
        return taking.state != "open" and (len(self.nodes) == 1 or node.breaker.state != "open")

    def _judge_sends(
        self, route: Route, assigned: Mapping[str, Places], results: Results
    ) -> set[str]:
        """Note what each target took; returns those that refuse."""
        refusing = set()
        for name, places in assigned.items():
            errors = [r for place in places if isinstance(r := results[place], LeanMQError)]
            taking = self._taking[route.by_label[name].node.place]
            if len(errors) < len(places):
                self.tally.sent(name, len(places) - len(errors))
                self.strategy.sent(route.name, name, len(places) - len(errors))
            if not errors:
                taking.succeeded()
                continue
            self.tally.failed(name, len(errors), errors[0])
            if isinstance(errors[0], REFUSALS):
                taking.failed()
                refusing.add(name)
            elif errors[0].in_doubt:
                taking.failed()
            else:
                taking.succeeded()
        return refusing

    def transacted(self, node: Node, sends: Sequence[SendBatch], answer: Any) -> None:
        """See ``Spreading.transacted``: it is counted as sends are."""
        for batch in sends:
            if isinstance(answer, LeanMQError):
                self.tally.failed(node.name, len(batch.messages), answer)
            else:
                self.tally.sent(node.name, len(batch.messages))
                self.strategy.sent(batch.queue.name, node.name, len(batch.messages))

    def _none_left(self, places: Places, results: Results, route: Route) -> None:
        """Every target refuses: the message keeps the last refusal, if it got one."""
        error = None
        for place in places:
            if results[place] is None:
                error = error or _all_refuse(self.kind, [node.name for node in self.nodes], route)
                results[place] = error

    def _ask_backlogs(self, route: Route, queue: QueueRef) -> Plan[None]:
        """Figures for the strategy, if it wants some."""
        if not self.strategy.needs(route.name, self.clock.monotonic()):
            return
        parts = [part for part in route.parts if self.reachable(part.node)]
        try:
            answers = yield from self.ask(route, [(part, Stats(queue)) for part in parts])
        except LeanMQError:  # the router was closed: whoever sends next says so
            return
        backlog = {
            part.label: answer.ready + answer.delayed
            for part, answer in zip(parts, answers, strict=True)
            if isinstance(answer, QueueStats)
        }
        self.strategy.learn(route.name, backlog, self.clock.monotonic())


def _all_refuse(kind: str, names: Collection[str], route: Route) -> LeanMQError:
    from leanmq.errors import ConnectionError  # not above: it loads redis-py

    return ConnectionError(
        f"no target of the {kind} takes messages of queue {route.name!r} for now: "
        f"{', '.join(names)} refused a moment ago, and are tried again",
        queue=route.name,
    )
