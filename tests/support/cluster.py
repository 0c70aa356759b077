"""A cluster of three primaries with a replica each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import attrs
import redis
from redis.crc import key_slot

from .ports import HOST
from .process import RedisProcess
from .topology import How, Topology
from .waiting import wait_until

__all__ = ["ClusterTopology"]

_SLOTS = 16384
# A replica gives up on CLUSTER FAILOVER after 5 s.
_ORDER_LASTS = 5.5
_PRIMARIES = 3
_SETTINGS = (
    "cluster-enabled yes",
    "cluster-config-file nodes.conf",
    "cluster-node-timeout 1500",
    "cluster-require-full-coverage no",
    # Replicas stay with their primary's slots, and try to take over whatever their data's age.
    "cluster-allow-replica-migration no",
    "cluster-replica-validity-factor 0",
)


@attrs.frozen
class _Entry:
    """One line of CLUSTER NODES."""

    id: str
    port: int
    flags: frozenset[str]
    primary_id: str
    epoch: int
    ranges: tuple[tuple[int, int], ...]
    open_slots: tuple[tuple[int, str, str], ...]  # (slot, "->" or "<-", the other node's id)

    @property
    def is_primary(self) -> bool:
        return "master" in self.flags

    @property
    def is_sound(self) -> bool:
        return self.flags <= {"myself", "master", "slave"}

    def serves(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.ranges)


class ClusterTopology(Topology):
    """Six nodes; primary 1 to 3 with a third of the slots each, replica 4 to 6."""

    kind: ClassVar[str] = "cluster"
    can_move_slots: ClassVar[bool] = True

    def __init__(self, binary: Path | None = None) -> None:
        super().__init__(binary)
        # The failover that was ordered last: its slot, the old primary, and until when.
        self._ordered: tuple[int, RedisProcess, float] | None = None

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{node.address[1]}" for node in self.nodes)
        return f"redis+cluster://{hosts}"

    # -- who is who --------------------------------------------------------------------------

    def primary_for(self, key: str | None = None) -> RedisProcess:
        """Return the owner of the key's slot with the highest epoch that any node knows of."""
        return self._owner(_slot(key))

    def _owner(self, slot: int) -> RedisProcess:
        owners = [
            entry
            for node in self.nodes
            for entry in self._view(node)
            if entry.is_primary and entry.serves(slot)
        ]
        if not owners:
            raise LookupError(f"no node of {self!r} knows who serves slot {slot}")
        return self.node_at(max(owners, key=lambda entry: entry.epoch).port)

    def replicas_for(self, key: str | None = None) -> list[RedisProcess]:
        primary = self.primary_for(key)
        for witness in [primary, *self.nodes]:
            view = self._view(witness)
            ids = {entry.id for entry in view if entry.port == primary.address[1]}
            if ids:
                return [self.node_at(entry.port) for entry in view if entry.primary_id in ids]
        return []

    def primaries(self) -> list[RedisProcess]:
        """Return the primaries, in the order of the nodes."""
        entries = [entry for node in self.nodes for entry in self._view(node) if entry.is_primary]
        ports = {
            max((e for e in entries if e.serves(first)), key=lambda e: e.epoch).port
            for entry in entries
            for first, _last in entry.ranges
        }
        return [node for node in self.nodes if node.address[1] in ports]

    # -- faults ------------------------------------------------------------------------------

    def failover(self, key: str | None = None, how: How = "") -> RedisProcess:
        slot = _slot(key)
        old = self._owner(slot)
        refusals: list[str] = []

        def accepted() -> bool:
            nonlocal old
            old = self._owner(slot)
            for replica in self.replicas_for(key):
                try:
                    self.ask(replica, "CLUSTER", "FAILOVER", *([how] if how else []))
                except redis.RedisError as error:  # Its link to the primary may just be down.
                    refusals.append(f"{replica.name}: {error}")
                else:
                    return True
            return False

        wait_until(
            accepted, 10.0, lambda: f"a replica to accept FAILOVER: {refusals[-3:]}", step=0.02
        )
        self._ordered = (slot, old, time.monotonic() + _ORDER_LASTS)
        return old

    def wait_for_new_primary(
        self, key: str | None, old: RedisProcess, timeout: float = 20.0
    ) -> RedisProcess:
        """See ``Topology``. An order that timed out is given again: for some seconds after a
        failover the other primaries do not vote for another of the same slots."""
        try:
            return super().wait_for_new_primary(key, old, min(timeout, _ORDER_LASTS + 1.0))
        except TimeoutError:
            if not old.alive or old.frozen or timeout <= _ORDER_LASTS + 1.0:
                raise
        self.failover(key)
        return super().wait_for_new_primary(key, old, timeout)

    def move_slot(
        self,
        key: str,
        to: RedisProcess | None = None,
        midway: Callable[[], object] | None = None,
        emptied: Callable[[], object] | None = None,
    ) -> tuple[RedisProcess, RedisProcess]:
        slot = _slot(key)
        source = self.primary_for(key)
        if to is None:
            primaries = self.primaries()
            to = primaries[(primaries.index(source) + 1) % len(primaries)]
        if to is not source:
            self._migrate(slot, source, to, midway, emptied)
        return source, to

    def _migrate(
        self,
        slot: int,
        source: RedisProcess,
        target: RedisProcess,
        midway: Callable[[], object] | None = None,
        emptied: Callable[[], object] | None = None,
    ) -> None:
        source_id, target_id = self._id(source), self._id(target)
        self.ask(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        self.ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while True:
            keys = self.ask_bytes(source, "CLUSTER", "GETKEYSINSLOT", slot, 16)
            for name in keys:
                # NOKEY, if a client was faster to delete it, is no failure.
                self.ask_bytes(source, "MIGRATE", HOST, target.port, name, 0, 5000)
                if midway is not None:
                    midway()
                    midway = None
            if keys:
                continue
            if midway is not None:
                midway()
                midway = None
                continue  # It may have made keys.
            break
        if emptied is not None:
            emptied()
        # The target first: if it were told last, both would send clients to each other.
        self.ask(target, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
        self.ask(source, "CLUSTER", "SETSLOT", slot, "NODE", target_id)
        for node in self.primaries():
            if node not in (source, target):
                with contextlib.suppress(redis.RedisError):  # It may be down; gossip tells it.
                    self.ask(node, "CLUSTER", "SETSLOT", slot, "NODE", target_id)

    # -- building ----------------------------------------------------------------------------

    def _node_settings(self, node: RedisProcess) -> list[str]:
        host, port = node.address
        return [
            *super()._node_settings(node),
            *_SETTINGS,
            f"cluster-port {node.bus_port}",
            f"cluster-announce-ip {host}",
            f"cluster-announce-port {port}",
            f"cluster-announce-bus-port {node.bus_port}",
        ]

    def _build(self) -> None:
        for number in range(1, 2 * _PRIMARIES + 1):
            self._add_node(f"node-{number}")
        for node in self.nodes:
            node.start(wait=False)
        for number, node in enumerate(self.nodes):
            node.wait_ready()
            # Equal epochs would be resolved by further elections.
            self.ask(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < _PRIMARIES:
                first, end = (_SLOTS * part // _PRIMARIES for part in (number, number + 1))
                self.ask(node, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        # Everybody meets everybody: gossip alone would take seconds.
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    host, port = other.address
                    self.ask(node, "CLUSTER", "MEET", host, port, other.bus_port)
        wait_until(self._all_met, 15.0, lambda: f"all to know all: {self._strangers()}")
        for primary, replica in zip(self.nodes[:_PRIMARIES], self.nodes[_PRIMARIES:], strict=True):
            self.ask(replica, "CLUSTER", "REPLICATE", self._id(primary))

    def _all_met(self) -> bool:
        return not self._strangers()

    def _strangers(self) -> list[str]:
        everyone = {node.address[1] for node in self.nodes}
        return [
            node.name
            for node in self.nodes
            if {entry.port for entry in self._view(node) if entry.is_sound} != everyone
        ]

    # -- health ------------------------------------------------------------------------------

    def _id(self, node: RedisProcess) -> str:
        return str(self.ask(node, "CLUSTER", "MYID"))

    def _view(self, node: RedisProcess) -> list[_Entry]:
        """Return CLUSTER NODES as the node tells it, or nothing if it does not answer."""
        if not node.alive or node.frozen:
            return []
        try:
            text: str = self.ask(node, "CLUSTER", "NODES")
        except redis.RedisError:
            return []
        return [_parse_entry(line) for line in text.splitlines()]

    def _complaints(self) -> list[str]:
        wrong = self._order_complaints()
        views = {node.name: self._view(node) for node in self.nodes}
        for node in self.nodes:
            view = views[node.name]
            if not view:
                wrong.append(f"{node!r} does not answer")
                continue
            state = _info(self.ask(node, "CLUSTER", "INFO"))["cluster_state"]
            if state != "ok":
                wrong.append(f"{node.name} says cluster_state:{state}")
            for entry in view:
                if not entry.is_sound:
                    wrong.append(f"{node.name} sees {entry.port} as {sorted(entry.flags)}")
                if entry.open_slots:
                    wrong.append(f"{node.name} has slots in migration: {entry.open_slots}")
        shapes = {name: _shape(view) for name, view in views.items()}
        if len(set(shapes.values())) > 1:
            wrong.append(f"the nodes disagree on who serves what: {shapes}")
        if wrong:
            return wrong
        (view, *_same) = views.values()
        groups = _groups(view, self.node_at)
        if len(groups) != _PRIMARIES or not all(groups.values()) or not _covered(view):
            return [f"not every slot has a primary with a replica: {_shape(view)}"]
        return self._replication_complaints(groups)

    def _order_complaints(self) -> list[str]:
        """An accepted failover leaves no trace that can be read until it is done."""
        if self._ordered is None:
            return []
        slot, old, until = self._ordered
        if self._owner(slot) is old and time.monotonic() < until:
            return [f"the failover ordered for {old.name} has not been made yet"]
        self._ordered = None
        return []

    def _nudge(self) -> None:
        """Finish migrations that were left half-way."""
        for node in self.nodes:
            for entry in self._view(node):
                for slot, direction, other in entry.open_slots:
                    self._finish(slot, node, direction, other)

    def _finish(self, slot: int, node: RedisProcess, direction: str, other_id: str) -> None:
        owner = self._owner(slot)
        target = node
        if direction == "->":
            ports = [entry.port for entry in self._view(node) if entry.id == other_id]
            target = self.node_at(ports[0])
        if target is owner or self.ask(target, "ROLE")[0] != "master":
            self.ask(node, "CLUSTER", "SETSLOT", slot, "STABLE")
        else:
            self._migrate(slot, owner, target)


def _slot(key: str | None) -> int:
    return 0 if key is None else int(key_slot(key.encode()))


def _info(text: str) -> dict[str, str]:
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


def _parse_entry(line: str) -> _Entry:
    node_id, address, flags, primary_id, _ping, _pong, epoch, _link, *slots = line.split()
    ranges = []
    open_slots = []
    for item in slots:
        if item.startswith("["):
            open_slots.append(_parse_open(item))
        else:
            first, _dash, last = item.partition("-")
            ranges.append((int(first), int(last or first)))
    return _Entry(
        id=node_id,
        port=int(address.partition("@")[0].rpartition(":")[2]),
        flags=frozenset(flags.split(",")),
        primary_id=primary_id,
        epoch=int(epoch),
        ranges=tuple(ranges),
        open_slots=tuple(open_slots),
    )


def _parse_open(item: str) -> tuple[int, str, str]:
    """Parse ``[93->-ID]`` (going to the node) or ``[93-<-ID]`` (coming from it)."""
    slot, arrow, other = item.strip("[]").split("-", 2)
    return int(slot), "->" if arrow == ">" else "<-", other


def _shape(view: list[_Entry]) -> str:
    """Return who serves what and who replicates whom, in a form that can be compared."""
    ports = {entry.id: entry.port for entry in view}
    return " ".join(
        sorted(
            f"{entry.port}:{entry.ranges}"
            if entry.is_primary
            else f"{entry.port}<{ports.get(entry.primary_id)}"
            for entry in view
        )
    )


def _groups(
    view: list[_Entry], node_at: Callable[[int], RedisProcess]
) -> dict[RedisProcess, list[RedisProcess]]:
    return {
        node_at(primary.port): [
            node_at(entry.port) for entry in view if entry.primary_id == primary.id
        ]
        for primary in view
        if primary.is_primary
    }


def _covered(view: list[_Entry]) -> bool:
    return sum(last - first + 1 for entry in view for first, last in entry.ranges) == _SLOTS
