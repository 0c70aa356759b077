"""Redis Cluster: each slot has its server, and slots move."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from leanmq.backends.pipelines import again, hops, pipeline, shared_out, telling
from leanmq.backends.single import prove
from leanmq.backends.streams.calls import Call, Command, Outcome
from leanmq.backends.urls import Address, Target, show
from leanmq.backends.wire import Drop, NodeCall, Steps, Together, troubles
from leanmq.clock import Clock, SystemClock
from leanmq.errors import ConnectionError, LeanMQError

__all__ = ["ClusterSlots"]

_HOPS: Final = 5  # so many redirections one call follows
_REREAD: Final = 0.2  # seconds between two readings of the map

_QUICK: Final = 0.5
"""Seconds given to a node that may be gone, if another could be asked or it did not answer."""

_OTHERS: Final = 32
"""How many nodes are remembered besides those on the map."""


class ClusterSlots:
    """Sends every call to the primary of its slot.

    The map of slots is read from any node, and again after trouble. MOVED and ASK are followed
    within the call, for those commands that were redirected; all other trouble is the outcome,
    for those to try again who know the deadline. Nodes are asked for the map in turn, so that
    one with an outdated view misleads us only once. One that did not answer has a *strike* and
    must first answer a PING, so that a frozen one holds up calls only briefly until its replica
    takes over; each strike doubles the patience.
    """

    slots_apart = True

    def __init__(self, target: Target, clock: Clock | None = None) -> None:
        self.display = target.display
        self._now = (clock or SystemClock()).monotonic
        self._start_nodes = target.addresses
        # Replaced as a whole or slot by slot: threads that race write what both found out.
        self._nodes: tuple[Address, ...] = target.addresses
        self._slots: list[Address | None] = []
        self._strikes: dict[Address, int] = {}
        self._stale = True
        self._read_at = float("-inf")

    def open(self) -> Steps[None]:
        """Read the map and ask every primary once; raises the mapped error if one fails."""
        yield from self._read_map()
        pings = [NodeCall(a, (("PING",),), idempotent=True) for a in self._primaries()]
        for outcomes in (yield Together(tuple(pings))):
            prove(outcomes)

    def route(self, call: Call) -> Steps[list[Outcome]]:
        """Run the call on the primary of its slot; raises ConnectionError if it has none."""
        slot = key_slot(call.slot.encode())
        yield from self._refresh()
        address = self._serving(slot)
        if address in self._strikes:
            yield from self._prove_again(address)
        tell = telling(call)
        outcomes = yield from self._send(address, call.commands + tell, call)
        del outcomes[len(call.commands) :]  # what became of the telling does not matter
        asked = [address] * len(outcomes)
        for _ in range(_HOPS):
            redirected = hops(outcomes, asked)
            if not redirected:
                break
            for (target, code), places in redirected.items():
                commands = tuple(call.commands[place] for place in places)
                if code == "MOVED":
                    self._slots[slot] = target
                    fresh = yield from self._send(target, commands + tell, call)
                else:
                    pairs = tuple(c for one in commands + tell for c in (("ASKING",), one))
                    fresh = (yield from self._send(target, pairs, call))[1::2]
                    if tell:  # the others listen where it was, and once it has moved, there
                        yield from self._send(asked[places[0]], tell, call)
                for place, outcome in zip(places, fresh, strict=False):
                    outcomes[place], asked[place] = outcome, target
        return outcomes

    def route_many(self, calls: Sequence[Call]) -> Steps[list[list[Outcome]]]:
        """Run the calls, those of one primary at once, then those that were redirected."""
        yield from self._refresh()
        slots = [key_slot(call.slot.encode()) for call in calls]
        results = yield from shared_out(calls, slots, self._serving, self._send_many)
        yield from again(calls, results, self.route)
        return results

    def where(self, key: str) -> Address | None:
        """The primary of a key, as far as is known."""
        return self._slots[key_slot(key.encode())] if self._slots else None

    def _send_many(self, address: Address, calls: Sequence[Call]) -> Steps[list[list[Outcome]]]:
        if address in self._strikes:
            yield from self._prove_again(address)
        results = yield from pipeline(address, calls)
        yield from self._note(address, troubles(chain.from_iterable(results)))
        return results

    def _send(
        self, address: Address, commands: tuple[Command, ...], call: Call
    ) -> Steps[list[Outcome]]:
        outcomes = yield NodeCall(address, commands, call.idempotent, call.block)
        if found := troubles(outcomes):
            yield from self._note(address, found)
        return outcomes

    def _prove_again(self, address: Address) -> Steps[None]:
        patience = _QUICK * 2 ** min(self._strikes.get(address, 1) - 1, 3)
        outcomes = yield NodeCall(address, (("PING",),), True, limit=patience)
        yield from self._note(address, troubles(outcomes))
        prove(outcomes)
        self._strikes.pop(address, None)

    def _note(self, address: Address, found: list[LeanMQError]) -> Steps[None]:
        self._stale = self._stale or any(trouble.code != "ASK" for trouble in found)
        if not all(trouble.code for trouble in found):  # it did not even answer
            self._strikes[address] = self._strikes.get(address, 0) + 1
            yield Drop(address)

    def _refresh(self) -> Steps[None]:
        if not self._slots or (self._stale and self._now() >= self._read_at + _REREAD):
            try:
                yield from self._read_map()
            except LeanMQError:
                if not self._slots:
                    raise  # else the old map may still do; if not, the call will tell

    def _serving(self, slot: int) -> Address:
        address = self._slots[slot]
        if address is None:
            self._stale = True
            raise ConnectionError(
                f"no server of {self.display} serves slot {slot}; wait for a failover, or mend "
                "the cluster",
                code="CLUSTERDOWN",
            )
        return address

    def _read_map(self) -> Steps[None]:
        self._stale, self._read_at = False, self._now()
        problem: LeanMQError | None = None
        for limit in (_QUICK, None):  # a node may be slow rather than gone
            for node in sorted(self._nodes, key=self._strikes.__contains__):
                (reply,) = yield NodeCall(node, (("CLUSTER", "SLOTS"),), True, limit=limit)
                if isinstance(reply, LeanMQError):
                    yield from self._note(node, troubles([reply]))
                    if problem is None or isinstance(problem, ConnectionError):
                        problem = reply
                elif reply:
                    self._strikes.pop(node, None)
                    for gone in self._adopt(reply, node):
                        yield Drop(gone)
                    return
                else:
                    problem = problem or ConnectionError(f"node {show(node)} has an empty map")
        self._stale = True
        if problem is not None and not isinstance(problem, ConnectionError):
            raise problem
        raise ConnectionError(
            f"no node of {self.display} tells the map of slots ({problem}); check that they run, "
            "and their addresses"
        ) from problem

    def _primaries(self) -> set[Address]:
        return {address for address in self._slots if address is not None}

    def _adopt(self, reply: Any, node: Address) -> set[Address]:
        """Take over what a node said; returns the primaries that are on the map no more."""
        slots: list[Address | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        named: dict[Address, None] = {}
        for start, end, *servers in reply:
            addresses = [_address(server, node) for server in servers]
            named |= dict.fromkeys(addresses)
            slots[start : end + 1] = addresses[:1] * (end + 1 - start)
        gone = self._primaries() - set(named)
        line = [other for other in dict.fromkeys((*self._nodes, *named)) if other != node]
        line.append(node)
        others = [other for other in line if other not in named]
        others.sort(key=lambda other: other not in self._start_nodes)
        self._nodes = (*filter(named.__contains__, line), *others[:_OTHERS])
        self._slots = slots
        return gone


def _address(server: list[Any], node: Address) -> Address:
    """A server on the map. One that does not know its own name means the node we asked."""
    host = (server[0] or b"").decode()
    return host if host not in ("", "?") else str(node[0]), int(server[1])
