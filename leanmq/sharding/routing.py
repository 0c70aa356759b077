"""What both routers have in common: nodes that come and go, and how parts of a queue are asked.

A plan asks nodes, and makes one answer of theirs. It is written once, for threads and asyncio.
"""

from __future__ import annotations

import copy
import itertools
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, Final, TypeAlias, TypeVar

import attrs

from leanmq.backends.protocol import (
    Capabilities,
    QueueRef,
    Sent,
    Settings,
)
from leanmq.clock import Clock, SystemClock
from leanmq.errors import (
    ClosedError,
    LeanMQError,
    OutcomeUnknownError,
    PlacementError,
    QueueNotFoundError,
    StaleSettingsError,
    UnreachableError,
)
from leanmq.sharding.breaker import Breaker
from leanmq.sharding.steps import Asks, Background, Plan

__all__ = ["Node", "Part", "Route", "Routing", "Share", "raise_first"]

T = TypeVar("T")

_EPOCHS: Final = 8
"""How many states of a queue's settings are remembered: senders follow within one try."""


@attrs.define(eq=False)
class Node:
    """A deployment under a router.

    Attributes:
        name: As the user calls it.
        place: Among the nodes.
        breaker: Whether it can be reached.
        capabilities: What it can do; None until it was reached first.
        problem: Why it must not be asked, although it can be reached.
        trouble: Why it could not be reached, when that was tried last.
    """

    name: str
    place: int
    breaker: Breaker
    capabilities: Capabilities | None = None
    problem: LeanMQError | None = None
    trouble: LeanMQError | None = None

    def failed(self, error: LeanMQError) -> None:
        """It could not be reached."""
        self.trouble = error
        self.breaker.failed()


@attrs.frozen
class Part:
    """Where some messages of a queue are: its label, the node, and the queue there."""

    label: str
    node: Node
    queue: str
    _refs: tuple[QueueRef, QueueRef] = attrs.field(init=False, eq=False, repr=False)

    @_refs.default
    def _make_refs(self) -> tuple[QueueRef, QueueRef]:
        return QueueRef(self.queue), QueueRef(self.queue, dead=True)

    def ref(self, queue: QueueRef) -> QueueRef:
        """The queue there, or its dead letters."""
        return self._refs[queue.dead]


Share: TypeAlias = tuple[Part, int, int | None]
"""A part, how many messages it is asked for, and how many new ones it is thought to have left then.
If that is None, it is to look after itself first."""


@attrs.define(eq=False)
class Quiet:
    """Nothing was there when all parts were looked at; those who go on waiting share that look.

    Attributes:
        marks: Of each part; see ``Exchanged.mark``. One that is out of date costs a look.
        due: When one of those who wait is to look again, on the monotonic clock.
        soon: When something may come that no watch tells of: all look then.
    """

    marks: dict[str, str]
    due: float
    soon: float


@attrs.define(eq=False)
class Route:
    """A queue that this router knows.

    Attributes:
        name: The queue, or one shard of it.
        parts: All of them, each on its node.
        slot: See ``Settings.slot``.
        shards: See ``Settings.shards``.
    """

    name: str
    parts: tuple[Part, ...]
    slot: str | None = None
    shards: int | None = None
    by_label: Mapping[str, Part] = attrs.field(init=False)
    places: Set[int] = attrs.field(init=False)
    """Of the nodes on which parts are."""
    epochs: dict[int, Mapping[str, int]] = attrs.field(factory=dict)
    """The epoch of each part's settings, by that of the whole."""
    vanished: bool = False
    rich: dict[str, int | None] = attrs.field(factory=dict)
    """How many messages parts have that had more than were asked for, when they were looked at
    last. None: only a look with upkeep finds them."""
    plenty: bool = False
    """The last receive came to half of what was wanted, or more."""
    each: float = 0.0
    """How many messages a part gave that gave any, in the last receive with some."""
    suspects: dict[str, None] = attrs.field(factory=dict)
    """Parts in which suspects wait."""
    quiet: dict[bool, Quiet] = attrs.field(factory=dict)
    """The last look of one who waited: for messages, and for dead letters (True)."""
    refusing: set[str] = attrs.field(factory=set)
    """Parts that the log tells of: they answer a receive with an error."""
    _turns: Iterator[int] = attrs.field(factory=itertools.count)
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.by_label = {part.label: part for part in self.parts}
        self.places = frozenset(part.node.place for part in self.parts)

    def forked(self) -> None:
        """See ``Routing.forked``; a thread of the parent may have been about to enter something."""
        self._lock = threading.Lock()
        self.rich = {}
        self.quiet = {}

    def turn(self) -> int:
        """A number that no other caller gets."""
        return next(self._turns)

    def in_turn(self, parts: Sequence[Part] | None = None) -> Iterator[Part]:
        """Its parts, or these: each time another one is the first."""
        parts = self.parts if parts is None else parts
        first = self.turn()
        return (parts[(first + number) % len(parts)] for number in range(len(parts)))

    def has(self, label: str, left: int | None) -> None:
        """A part has so many messages left. It is last now: the others are asked before it."""
        with self._lock:
            self._has(label, left)

    def _has(self, label: str, left: int | None) -> None:
        self.rich.pop(label, None)
        if left is None or left > 0:
            self.rich[label] = left

    def plan(self, wanted: int, most: int) -> list[Share]:
        """Of parts that are known to have messages: how many to ask each for, at most ``most``.

        Those that were asked last come last. What is planned is not planned by another thread, but
        of a part of which it is not known how many it has.
        """
        shares: list[Share] = []
        with self._lock:
            for label, fresh in list(self.rich.items()):
                if not wanted:
                    break
                part = self.by_label[label]
                if part.node.breaker.state != "closed":
                    continue
                count = min(wanted, most, wanted if fresh is None else fresh)
                wanted -= count
                left = None if fresh is None else fresh - count
                shares.append((part, count, left))
                self._has(label, left)
        return shares

    def share(self, quiet: Quiet, *, dead: bool) -> None:
        """Enter a look that found nothing. One that took long does not undo that another is due."""
        with self._lock:
            if before := self.quiet.get(dead):
                quiet.due = max(quiet.due, before.due)
            self.quiet[dead] = quiet

    def shared(self, now: float, until: float, *, dead: bool) -> Quiet | None:
        """The last look, if one who goes on waiting need not look himself.

        If that is due now, it is for the caller to look, and for the others ``until`` then.
        """
        with self._lock:
            quiet = self.quiet.get(dead)
            if quiet is None or self.rich or self.suspects or now >= quiet.soon:
                return None
            if any(part.node.breaker.state != "closed" for part in self.parts):
                return None
            if now >= quiet.due:
                quiet.due = until
                return None
            return quiet

    def learn(self, epochs: Mapping[str, int]) -> int:
        """The epoch of the whole, from those of its parts."""
        whole = sum(epochs.values())
        self.epochs[whole] = epochs
        for old in list(self.epochs)[:-_EPOCHS]:
            self.epochs.pop(old, None)
        return whole

    def not_found(self, *, in_doubt: bool = False) -> QueueNotFoundError:
        """Some of it has vanished, or was never made; the rest may have done its part."""
        return QueueNotFoundError(
            f"queue {self.name!r} is not on all of its nodes; declare it again",
            queue=self.name,
            in_doubt=in_doubt,
        )

    def settings(self, found: Settings) -> Settings:
        """The settings of the whole, from those of a part."""
        return attrs.evolve(found, slot=self.slot or found.slot, shards=self.shards)


class Routing(ABC):
    """The plans of a router. Shared by threads; what changes is replaced in one step."""

    kind = "router"

    def __init__(self, names: Iterable[str], clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.nodes = [Node(n, place, Breaker(self.clock)) for place, n in enumerate(names)]
        self.routes: dict[str, Route] = {}
        self.closed = False

    def forked(self) -> None:
        """This is a child now: begin with locks that no thread of the parent may hold."""
        for node in self.nodes:
            node.breaker = Breaker(self.clock)
        for route in self.routes.values():
            route.forked()

    # --- what the two kinds of routers differ in

    @abstractmethod
    def route(self, name: str) -> Plan[Route]:
        """The parts of a queue; raises QueueNotFoundError."""

    def admit(self, node: Node, found: Capabilities) -> Plan[None]:
        """A node was reached, for the first time or again; raises if it is not what it was, or
        cannot do what it must."""
        return
        yield

    # --- nodes that come and go

    def open(self) -> Plan[Capabilities]:
        """Reach the nodes: one at least."""
        errors = yield from self._reach(self.nodes)
        reached = [node for node in self.nodes if node.capabilities is not None]
        if not reached:
            raise next(iter(errors.values()))
        return self._capabilities([node.capabilities for node in reached if node.capabilities])

    def _reach(self, nodes: Sequence[Node]) -> Plan[Mapping[int, LeanMQError]]:
        """Open nodes; those that cannot be are left to later probes."""
        answers = yield Asks([(node.place, "open") for node in nodes])
        errors: dict[int, LeanMQError] = {}
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, LeanMQError):
                errors[node.place] = self.named(answer, node)
                if not isinstance(answer, UnreachableError):
                    raise errors[node.place]
                node.failed(answer)
                continue
            try:
                yield from self.admit(node, answer)
            except UnreachableError as error:
                errors[node.place] = self.named(error, node)
                node.failed(error)
            else:
                node.capabilities = answer
                node.breaker.succeeded()
        return errors

    def _capabilities(self, found: Sequence[Capabilities]) -> Capabilities:
        names = ", ".join(
            f"{node.name} ({node.capabilities.name if node.capabilities else 'not reached yet'})"
            for node in self.nodes
        )
        return Capabilities(
            f"{self.kind} over {names}",
            durable=all(c.durable for c in found),
            shared=all(c.shared for c in found),
            ordered=False,
            transactions_across_queues=all(c.transactions_across_queues for c in found),
            bounds=False,
            sends_together=True,
            max_batch=min(c.max_batch for c in found),
            best_batch=min(c.best_batch for c in found) * len(self.nodes),
            notices=tuple(dict.fromkeys(text for c in found for text in c.notices)),
        )

    def ping(self) -> Plan[None]:
        """One round trip to every node."""
        answers = yield Asks([(node.place, "ping") for node in self.nodes])
        for node, answer in zip(self.nodes, answers, strict=True):
            if isinstance(answer, LeanMQError):
                raise self.named(answer, node)

    def close(self) -> Plan[None]:
        """Nothing is asked any more."""
        self.closed = True
        return
        yield

    def usable(self, node: Node) -> bool:
        """Whether to ask the node now. An only one is asked always: nobody else could answer."""
        return len(self.nodes) == 1 or node.breaker.allows()

    def reachable(self, node: Node) -> bool:
        """Whether it is worth to choose the node; asks for nothing.

        One that answered a probe is: if nobody chose it, nobody would learn that it is back.
        """
        alone = len(self.nodes) == 1
        return alone or (node.problem is None and node.breaker.state != "open")

    def probe(self) -> Plan[None]:
        """See whether nodes are back that could not be reached; nobody waits for that."""
        for node in self.nodes:
            if node.breaker.wants_probe():
                yield Background(self._probe(node))

    def _probe(self, node: Node) -> Plan[None]:
        ok = False
        try:
            [answer] = yield Asks([(node.place, "open")])
            if isinstance(answer, LeanMQError):
                node.trouble = answer
                return
            try:
                yield from self.admit(node, answer)
            except UnreachableError:
                return
            except LeanMQError as problem:  # it answers, and is not what it was: that may change
                node.problem = problem
                return
            node.problem, node.capabilities = None, answer
            ok = True
        finally:
            node.breaker.probed(ok)

    def ask(self, route: Route, asks: Sequence[tuple[Part, Any]]) -> Plan[list[Any]]:
        """Ask parts. What a node that is out of reach would say is said for it, at once."""
        if self.closed:
            raise ClosedError(f"the client of this {self.kind} is closed; open another")
        yield from self.probe()
        usable = {
            node.place: node
            for node in {part.node.place: part.node for part, _ in asks}.values()
            if node.problem is None and self.usable(node)
        }
        asked = [(place, request) for part, request in asks if (place := part.node.place) in usable]
        try:
            answers = (yield Asks(asked)) if asked else ()
        except BaseException:
            for node in usable.values():
                node.breaker.abandon()
            raise
        results = list(answers)
        if len(asked) < len(asks):
            rest = iter(answers)
            results = [
                next(rest) if part.node.place in usable else _unasked(part.node) for part, _ in asks
            ]
        if len(self.nodes) > 1:
            self._judge(usable.values(), asks, results)
        self._name(route, asks, results)
        return results

    def _judge(
        self, asked: Iterable[Node], asks: Sequence[tuple[Part, Any]], results: Sequence[Any]
    ) -> None:
        """Note which nodes answered."""
        down = {
            part.node.place: trouble
            for (part, _), result in zip(asks, results, strict=True)
            if isinstance(trouble := _trouble(result), UnreachableError | OutcomeUnknownError)
        }
        for node in asked:
            if node.place in down:
                node.failed(down[node.place])
            elif node.breaker.state != "closed":
                node.breaker.succeeded()

    def _name(self, route: Route, asks: Sequence[tuple[Part, Any]], results: list[Any]) -> None:
        """Put errors in words of the whole; parts of a node may share one."""
        known: dict[int, LeanMQError] = {}

        def by_name(error: Any, part: Part) -> Any:
            if not isinstance(error, LeanMQError):
                return error
            if id(error) not in known:
                labels = [p.label for p, _ in asks if p.node is part.node]
                known[id(error)] = self.named(error, part.node, route, labels)
            return known[id(error)]

        for place, result in enumerate(results):
            if _trouble(result) is None:
                continue
            part = asks[place][0]
            if isinstance(result, Sent):
                results[place] = Sent([by_name(one, part) for one in result.results])
                continue
            if isinstance(result, QueueNotFoundError):
                route.vanished = True
            results[place] = by_name(result, part)

    def out_of_reach(self, node: Node, why: str = "") -> LeanMQError:
        """What is said for a node that has to be asked, and is out of reach."""
        return self.named(_unasked(node, why and f"it is out of reach, and {why}"), node)

    def named(
        self,
        error: LeanMQError,
        node: Node,
        route: Route | None = None,
        labels: Sequence[str] = (),
    ) -> LeanMQError:
        """The error, saying also which node it is about, and which parts of which queue."""
        if isinstance(error, PlacementError):
            return error
        text = str(error)
        if len(self.nodes) > 1 and not isinstance(error, QueueNotFoundError | StaleSettingsError):
            where = f"node {node.name!r}"
            if route is not None and route.shards is not None:
                noun = "shard" if len(labels) == 1 else "shards"
                where += f" ({noun} {_short(labels)} of queue {route.name!r})"
            text = f"{where}: {text}"
        named = copy.copy(error)
        named.args = (text,)
        named.__cause__ = error.__cause__ or error
        if route is not None and route.name:
            named.queue = route.name
        return named


def raise_first(results: Iterable[Any]) -> None:
    """Raise the first error among what was answered; first of all, that a queue is not there."""
    errors = [result for result in results if isinstance(result, LeanMQError)]
    for error in errors:
        if isinstance(error, QueueNotFoundError):
            raise error
    if errors:
        raise errors[0]


def _unasked(node: Node, why: str = "") -> LeanMQError:
    """What is said for a node that is not asked."""
    if node.problem is not None:
        problem = copy.copy(node.problem)  # who is told of it may add to it
        problem.__cause__ = node.problem.__cause__
        return problem
    from leanmq.errors import ConnectionError  # not above: it loads redis-py

    why = why or "it did not answer a moment ago, and is being probed"
    error = ConnectionError(f"{why}: {node.trouble}" if node.trouble else why)
    error.__cause__ = node.trouble
    return error


def _trouble(result: Any) -> LeanMQError | None:
    """The error in what was answered; a send's is that of its last message."""
    if isinstance(result, Sent) and result.results:
        result = result.results[-1]
    return result if isinstance(result, LeanMQError) else None


def _short(labels: Collection[str]) -> str:
    """The labels, or the first of many."""
    some = list(dict.fromkeys(labels))
    more = f" and {len(some) - 8} others" if len(some) > 8 else ""
    return ", ".join(some[:8]) + more
