"""Which node is which, and where the shards of queues are: written down on every node."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from leanmq.backends.many import Record
from leanmq.backends.protocol import Capabilities, Settings
from leanmq.clock import Clock
from leanmq.errors import (
    LeanMQError,
    PlacementError,
    QueueNotFoundError,
    QueueSettingsError,
    UnreachableError,
    UnsupportedError,
)
from leanmq.sharding.hashing import check_shards
from leanmq.sharding.names import shard_name, split_name
from leanmq.sharding.placement import Placement, describe_mismatch, mismatch_cure, propose
from leanmq.sharding.routing import Node, Part, Route, raise_first
from leanmq.sharding.spreading import Spreading
from leanmq.sharding.steps import Asks, Plan

__all__ = ["Placing"]

_IDENTITY: Final = "#node"
"""The record with a node's id."""


class Placing(Spreading):
    """The part of a consistent-hash router that knows where shards are."""

    kind = "consistent-hash router"

    def __init__(
        self,
        weights: Mapping[str, float],
        shards: int,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(weights, clock)
        check_shards(shards)
        self._weights = weights
        self.shards = shards
        self._ids: dict[int, str | None] = {}  # of the nodes that were reached
        self.placements: dict[str, Placement] = {}

    # --- which node is which

    def admit(self, node: Node, found: Capabilities) -> Plan[None]:
        """Learn the node's id, which must be what it was; give it back to a node that lost it.

        A node that never had one gets it with its first queue. If whoever looks gave it one, a
        node that was emptied could not be told from another one by those who know it.
        """
        if not found.many_queues:
            raise UnsupportedError(
                f"{found.name} (node {node.name!r}) cannot keep records, which a {self.kind} "
                "needs: its shards are written down there; use the backends of LeanMQ, or queues "
                "without shards"
            )
        [answer] = yield Asks([(node.place, Record(_IDENTITY, self._ids.get(node.place)))])
        if isinstance(answer, LeanMQError):
            raise answer
        self._identify(node, answer.value)

    def _identify(self, node: Node, found: str | None) -> None:
        known = self._ids.setdefault(node.place, found)
        if known is None and found is not None:
            known = self._ids[node.place] = found
        # None: it had none when it was asked, and another thread may know better since.
        if found not in (None, known):
            raise PlacementError(
                f"node {node.name!r} has the id {str(found)[:8]}, and had {str(known)[:8]} before: "
                "another deployment answers at its address; give the one that holds its shards"
            )
        others = [n for n in self.nodes if n is not node and self._ids.get(n.place) == known]
        if others and known is not None:
            raise PlacementError(
                f"nodes {node.name!r} and {others[0].name!r} are the same deployment "
                f"(id {known[:8]}); name each once"
            )
        for name, placement in list(self.placements.items()):
            self._check(name, placement)

    def _check(self, name: str, placement: Placement, emptied: str | None = None) -> None:
        """Raises PlacementError unless the nodes are those on which the shards are.

        The node ``emptied`` may have no id any more.
        """
        found = {node.name: self._ids.get(node.place) for node in self.nodes}
        for node in self.nodes:
            if node.place not in self._ids:  # never reached: nothing contradicts what is stored
                found[node.name] = placement.nodes.get(node.name)
        meant = dict(found)
        if emptied is not None and found[emptied] is None:
            meant[emptied] = placement.nodes.get(emptied)
        if len(placement.nodes) == len(found) == 1:  # what an only node is called is no matter
            same = set(placement.nodes.values()) == set(meant.values())
        else:
            same = placement.nodes == meant
        if not same:
            raise PlacementError(
                f"queue {name!r} has its {placement.shards} shards on other nodes than those that "
                f"were opened\n{describe_mismatch(placement.nodes, found)}\n"
                f"{mismatch_cure(name, placement.nodes, found)}",
                queue=name,
            )

    def readmit(self, queue: str, name: str) -> Plan[bool]:
        """Give a node that lost its data the id that is stored for it; whether it had none."""
        node = next((node for node in self.nodes if node.name == name), None)
        if node is None:
            known = ", ".join(sorted(node.name for node in self.nodes))
            raise ValueError(f"there is no node {name!r}; there are {known}")
        if not self._ids:
            yield from self.open()
        placement = yield from self._stored(queue, emptied=name)
        if placement is None:
            raise _not_sharded(queue)
        if node.place not in self._ids:
            raise self.out_of_reach(node)
        if self._ids[node.place] is not None:
            return False
        [answer] = yield Asks([(node.place, Record(_IDENTITY, placement.nodes[name]))])
        if isinstance(answer, LeanMQError):
            raise self.named(answer, node)
        self._identify(node, answer.value)
        return True

    # --- which shard is where

    def route(self, name: str) -> Plan[Route]:
        """The shards of a queue, or the one shard that is meant."""
        route = self.routes.get(name)
        if route is not None:
            return route
        queue, _ = split_name(name)
        placement = yield from self._stored(queue)
        if placement is None:
            raise QueueNotFoundError(
                f"queue {queue!r} does not exist; declare it first, or it was deleted", queue=queue
            )
        return self._route(name, placement)

    def _route(self, name: str, placement: Placement) -> Route:
        queue, shard = split_name(name)
        if self.placements.get(queue) != placement:  # its shards were elsewhere, if anywhere
            self._forget_routes(queue)
        elif known := self.routes.get(name):
            return known
        self.placements[queue] = placement
        nodes = {node.name: node for node in self.nodes}
        if len(nodes) == 1:
            nodes = dict.fromkeys(placement.nodes, self.nodes[0])
        parts = tuple(
            Part(str(number), nodes[where], shard_name(queue, number))
            for number, where in enumerate(placement.where)
            if shard in (None, number)
        )
        route = self.routes[name] = Route(name, parts, placement.slot, placement.shards)
        return route

    def placement(self, queue: str) -> Plan[Placement]:
        """What is written down of a queue, which must exist."""
        if not self._ids:
            yield from self.open()
        stored = yield from self._stored(queue)
        if stored is None:
            raise _not_sharded(queue)
        return stored

    def _forget_routes(self, queue: str) -> None:
        for name in [name for name in list(self.routes) if split_name(name)[0] == queue]:
            self.routes.pop(name, None)

    def _stored(self, queue: str, emptied: str | None = None) -> Plan[Placement | None]:
        """The placement that is written down, on all nodes in reach: where it is missing, it is
        written again. See ``_check``."""
        texts, errors = yield from self._records(queue)
        found = {
            place: self._decoded(queue, self.nodes[place], text)
            for place, text in texts.items()
            if text is not None
        }
        if not found:
            if errors and not texts:
                raise errors[0]
            return None
        placement = max(found.values(), key=lambda one: one.epoch)
        for place, other in found.items():
            if other.epoch == placement.epoch and other != placement:
                raise PlacementError(
                    f"the nodes do not agree where the shards of queue {queue!r} are: node "
                    f"{self.nodes[place].name!r} has another placement of epoch {other.epoch}",
                    queue=queue,
                )
        yield from self._ask_ids(None)  # a node may have got one between the two questions
        self._check(queue, placement, emptied)
        missing = [place for place, text in texts.items() if text is None]
        if missing:
            raise_first((yield from self._write(queue, placement, missing)))
        return placement

    def _records(self, queue: str) -> Plan[tuple[dict[int, str | None], list[LeanMQError]]]:
        """What each node in reach has under the name; each is seen to be what it was."""
        yield from self.probe()
        nodes = [node for node in self.nodes if self.reachable(node) and node.place in self._ids]
        asks: list[tuple[int, Any]] = []
        for node in nodes:
            asks += [(node.place, Record(_IDENTITY, self._ids[node.place]))]
            asks += [(node.place, Record(queue))]
        answers = (yield Asks(asks)) if asks else []
        texts: dict[int, str | None] = {}
        errors: list[LeanMQError] = []
        for node, identity, stored in zip(nodes, answers[::2], answers[1::2], strict=True):
            trouble = [one for one in (identity, stored) if isinstance(one, LeanMQError)]
            if trouble:
                errors.append(self.named(trouble[0], node))
                if not isinstance(trouble[0], UnreachableError):
                    raise errors[-1]
                node.failed(trouble[0])
                continue
            node.breaker.succeeded()
            self._identify(node, identity.value)
            texts[node.place] = stored.value
        if not nodes:
            errors.append(self.out_of_reach(self.nodes[0]))
        return texts, errors

    def _decoded(self, queue: str, node: Node, text: str) -> Placement:
        if '"kind":"queue"' in text:
            raise QueueSettingsError(
                f"queue {queue!r} exists on node {node.name!r} without shards; open it by "
                f"mq.queue({queue!r}) there, or choose another name",
                queue=queue,
            )
        return Placement.decode(text)

    def _write(
        self,
        queue: str,
        placement: Placement,
        places: Sequence[int],
        expected: str | None = None,
    ) -> Plan[Sequence[Any]]:
        record = Record(queue, placement.encode(), expected)
        answers: list[Any] = yield Asks([(place, record) for place in places])
        return answers

    def _placed(self, queue: str, settings: Settings) -> Plan[Placement]:
        """The placement of a queue; made, and written down everywhere, if there is none."""
        stored = yield from self._stored(queue)
        if stored is not None:
            return stored
        for node in self.nodes:
            if node.place not in self._ids or not self.reachable(node):
                raise self.out_of_reach(
                    node, f"queue {queue!r} is new, and is placed on all nodes at once"
                )
        ids = yield from self._ask_ids(partial(secrets.token_hex, 8))
        slot = settings.slot or queue
        shards = settings.shards or self.shards
        placement = Placement(
            shards=shards,
            slot=slot,
            epoch=1,
            nodes={node.name: ids[node.place] for node in self.nodes},
            weights=dict(self._weights),
            where=propose(slot, shards, self._weights),
        )
        # One after the other, in an order that all agree on: of those who place it at the same
        # moment on other nodes, one has written nothing yet when it meets the other, or gives way.
        written: list[int] = []
        for place in sorted(ids, key=ids.__getitem__):
            [answer] = yield from self._write(queue, placement, [place])
            if isinstance(answer, LeanMQError):
                raise self.named(answer, self.nodes[place])
            if answer.value == placement.encode():
                written.append(place)
                continue
            yield from self._forget(queue, placement, written)
            found = self._decoded(queue, self.nodes[place], answer.value)
            self._check(queue, found)
            # By somebody with the same nodes and other weights, who writes the rest as well.
            again = yield from self._stored(queue)
            return again or found
        return placement

    def _ask_ids(self, make: Callable[[], str] | None) -> Plan[Mapping[int, str]]:
        """Ask those nodes again that had no id, and with ``make`` give them one; all ids."""
        nameless = [node for node in self.nodes if self._ids.get(node.place, "") is None]
        asks = [(node.place, Record(_IDENTITY, make() if make else None)) for node in nameless]
        answers = (yield Asks(asks)) if asks else []
        for node, answer in zip(nameless, answers, strict=True):
            if isinstance(answer, LeanMQError):
                raise self.named(answer, node)
            self._identify(node, answer.value)
        return {place: found for place, found in self._ids.items() if found is not None}

    def _forget(
        self, queue: str, placement: Placement, places: Sequence[int]
    ) -> Plan[Sequence[Any]]:
        record = Record(queue, expected=placement.encode(), forget=True)
        answers: list[Any] = yield Asks([(place, record) for place in places])
        return answers


def _not_sharded(queue: str) -> LeanMQError:
    return QueueNotFoundError(f"queue {queue!r} does not exist, or is not in shards", queue=queue)
