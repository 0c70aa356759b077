"""Where each shard of a queue is: proposed once, stored as a map, changed by a plan.

Pure functions and one value. Who stores the map, and compares it when a queue is opened, is the
router; from a key to its shard: ``hashing.py``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from leanmq.errors import BackendError
from leanmq.sharding.hashing import check_shards
from leanmq.sharding.ring import Ring
from leanmq.sharding.tags import check_slot
from leanmq.sharding.weights import check_weights, shares

__all__ = ["VERSION", "Placement", "check_weights", "describe_mismatch", "plan", "propose"]

VERSION = 1
"""Form of a stored placement; a reader refuses those that are higher."""

# Nodes that a text shows: more are no help in an error.
_SHOWN = 8


def propose(token: str, shards: int, weights: Mapping[str, float]) -> tuple[str, ...]:
    """A first placement: consistent hashing with bounded loads.

    Each shard goes to the first node on the ring, from ``<token>#<shard>`` on, that has room
    (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016). A node has room below the
    floor of its share; and for one more, its ceiling, as long as fewer nodes have one more than
    are needed for all shards to have a place. So each node gets the floor or the ceiling of its
    share, and which of them differs from queue to queue.

    Args:
        token: What tells this queue from others: its name.
        shards: How many shards there are, 1 to 4096.
        weights: Weight by name of the node; only their relations count, and no order.

    Returns:
        The name of the node by shard.

    Raises:
        TypeError: As ``check_weights``.
        ValueError: As ``check_weights``, or if ``shards`` is out of range.

    Examples:
        >>> propose("orders", 6, {"a": 1, "b": 2})
        ('b', 'a', 'b', 'a', 'b', 'b')
    """
    share = shares(check_shards(shards), check_weights(weights, weights))
    # In relation to their mean, so that a ring of any weights has about 160 points a node. The
    # least keeps a weight above 0 where a float would round it down; it is one point in any case.
    ring = Ring({node: max(float(share[node] * len(share) / shards), 1e-9) for node in share})
    floors = {node: math.floor(share[node]) for node in share}
    extras = shards - sum(floors.values())
    held: Counter[str] = Counter()
    where = []
    for shard in range(shards):
        for node in ring.nodes_for(f"{token}#{shard}"):
            if held[node] < floors[node]:
                break
            if extras and held[node] < math.ceil(share[node]):
                extras -= 1
                break
        held[node] += 1
        where.append(node)
    return tuple(where)


def plan(current: Sequence[str], weights: Mapping[str, float]) -> tuple[str, ...]:
    """The placement for other nodes or weights that moves the fewest shards.

    Each node gets the floor or the ceiling of its share; who gets the ceiling is chosen so that
    least moves, then by the larger fraction, then by name. Nodes that ``weights`` lacks lose all
    their shards. A placement that keeps to the shares already is returned as it is.

    Args:
        current: The name of the node by shard.
        weights: Weight by name of the nodes that there shall be.

    Returns:
        The name of the node by shard, as it should become.

    Raises:
        TypeError: As ``check_weights``.
        ValueError: As ``check_weights``, or if ``current`` has no shards or too many.

    Examples:
        >>> plan(("a", "b", "a", "b", "a", "b"), {"a": 1, "b": 1, "c": 1})
        ('a', 'b', 'a', 'b', 'c', 'c')
    """
    share = shares(check_shards(len(current)), check_weights(weights, weights))
    held = Counter(current)
    quota = {node: math.floor(share[node]) for node in share}
    # One shard more is for nothing where a node has it already, and one move anywhere else.
    candidates = sorted(
        (node for node in share if share[node] != quota[node]),
        key=lambda node: (held[node] <= quota[node], quota[node] - share[node], node),
    )
    for node in candidates[: len(current) - sum(quota.values())]:
        quota[node] += 1

    where = list(current)
    kept: Counter[str] = Counter()
    leaving = []
    for shard, node in enumerate(current):
        if kept[node] < quota.get(node, 0):
            kept[node] += 1
        else:
            leaving.append(shard)
    gaining = [node for node in quota for _ in range(quota[node] - kept[node])]
    for shard, node in zip(leaving, gaining, strict=True):
        where[shard] = node
    return tuple(where)


# For attrs' plugin of mypy, which does not see through generic types.
def _own(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return dict(mapping)


@attrs.frozen
class Placement:
    """Where the shards of one queue are, as every deployment of it stores it.

    Attributes:
        shards: How many there are, 1 to 4096.
        slot: The logical slot that the tags of the shards are made from.
        epoch: Grows with each change; 0 or more.
        nodes: Name of a node to its id, which tells servers apart whatever they are called.
        weights: Name of a node to its weight.
        where: Name of the node by shard.

    Raises:
        TypeError: If an attribute has another type than it should.
        ValueError: If an attribute cannot be, or they contradict each other.
    """

    shards: int
    slot: str
    epoch: int
    nodes: Mapping[str, str] = attrs.field(converter=_own)
    weights: Mapping[str, float] = attrs.field(converter=_own)
    where: tuple[str, ...]

    def __attrs_post_init__(self) -> None:
        check_shards(self.shards)
        check_slot(self.slot)
        if isinstance(self.epoch, bool) or not isinstance(self.epoch, int):
            raise TypeError(f"epoch must be an int, not {type(self.epoch).__name__}")
        if self.epoch < 0:
            raise ValueError(f"epoch is {self.epoch}; it begins at 0 and grows")
        check_weights(self.nodes, self.weights)
        if bare := sorted(set(self.nodes) - set(self.weights)):
            raise ValueError(f"node {bare[0]!r} has no weight; every node needs one")
        for name, identity in self.nodes.items():
            if not isinstance(identity, str):
                raise TypeError(f"the id of node {name!r} must be a str, not {identity!r}")
            if not identity:
                raise ValueError(f"the id of node {name!r} is empty; it tells servers apart")
        if len(set(self.nodes.values())) < len(self.nodes):
            raise ValueError("two nodes have the same id; each must be a server of its own")
        if not isinstance(self.where, tuple):
            raise TypeError(f"where must be a tuple, not {type(self.where).__name__}")
        if len(self.where) != self.shards:
            raise ValueError(f"{len(self.where)} shards have a place, of {self.shards}")
        for shard, name in enumerate(self.where):
            if name not in self.nodes:
                raise ValueError(f"shard {shard} is on node {name!r}, which is not one of nodes")

    def shards_on(self, node: str) -> tuple[int, ...]:
        """The numbers of the shards that a node has, from the lowest; perhaps none.

        Raises:
            ValueError: If there is no such node.
        """
        if node not in self.nodes:
            raise ValueError(
                f"there is no node {node!r}; there are {', '.join(sorted(self.nodes))}"
            )
        return tuple(shard for shard, name in enumerate(self.where) if name == node)

    def encode(self) -> str:
        """The placement as JSON, the same for equal placements.

        In ``where`` a node is its number in the order of the names.

        Examples:
            >>> Placement(3, "q", 1, {"a": "1f"}, {"a": 1}, ("a", "a", "a")).encode()[:56]
            '{"epoch":1,"kind":"sharded","nodes":{"a":"1f"},"shards":'
        """
        number = {name: position for position, name in enumerate(sorted(self.nodes))}
        fields = {
            "epoch": self.epoch,
            "kind": "sharded",
            "nodes": self.nodes,
            "shards": self.shards,
            "slot": self.slot,
            "v": VERSION,
            "weights": {name: float(weight) for name, weight in self.weights.items()},
            "where": [number[name] for name in self.where],
        }
        return msgspec.json.encode(fields, order="sorted").decode()

    @classmethod
    def decode(cls, text: str | bytes) -> Placement:
        """What ``encode`` made into text. Fields that are not known are left alone.

        Raises:
            BackendError: If it is no placement, or one of a later version.
        """
        try:
            fields = msgspec.json.decode(text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise _unreadable(text, "it is not JSON") from error
        if not isinstance(fields, dict) or fields.get("kind") != "sharded":
            raise _unreadable(text, 'it is not {"kind": "sharded", ...}')
        version = fields.get("v")
        if type(version) is int and version > VERSION:
            raise BackendError(
                f"the placement of a sharded queue has version {version}, and this LeanMQ knows "
                f"{VERSION} at most; upgrade LeanMQ here"
            )
        try:
            if type(version) is not int or version < 1:
                raise ValueError(f"its version is {version!r}")
            nodes = fields["nodes"]
            names = sorted(nodes)
            if any(type(number) is not int or number < 0 for number in fields["where"]):
                raise ValueError("its 'where' has other things than numbers of nodes")
            return cls(
                shards=fields["shards"],
                slot=fields["slot"],
                epoch=fields["epoch"],
                nodes=nodes,
                weights=fields["weights"],
                where=tuple(names[number] for number in fields["where"]),
            )
        except KeyError as error:
            raise _unreadable(text, f"it lacks {error}") from error
        except (TypeError, ValueError, IndexError) as error:
            raise _unreadable(text, str(error)) from error


def describe_mismatch(stored: Mapping[str, str], found: Mapping[str, str | None]) -> str:
    """What differs between the nodes of a placement and those that were opened.

    The first line says which nodes are swapped, renamed, missing, other, without an id or extra.
    Below are two lines, what is stored and what was found, with the first 8 characters of each id.
    Of more than 8 nodes only those that differ are shown, and 8 of those at most.

    Args:
        stored: Name of a node to its id, as the placement has it.
        found: Name of a node to the id that its server has; None if it has none.

    Examples:
        >>> print(describe_mismatch({"a": "1f" * 16, "b": "2e" * 16}, {"a": "2e" * 16, "c": None}))
        renamed: b to a; missing: a; extra: c
        stored: a=1f1f1f1f  b=2e2e2e2e  c=-
        found:  a=2e2e2e2e  b=-         c=none
    """
    groups = _differences(stored, found)
    told = "; ".join(
        f"{kind}: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
        for kind, names in groups.items()
        if names
    )
    shown = sorted({*stored, *found})
    if len(shown) > _SHOWN:
        shown = [node for node in shown if stored.get(node, "") != found.get(node, "")][:_SHOWN]
    cells = [
        (
            f"{node}={stored[node][:8] if node in stored else '-'}",
            f"{node}={(found[node] or 'none')[:8] if node in found else '-'}",
        )
        for node in shown
    ]
    before, after = (
        "  ".join(pair[row].ljust(max(map(len, pair))) for pair in cells).rstrip() for row in (0, 1)
    )
    return f"{told or 'no difference'}\nstored: {before}\nfound:  {after}"


def mismatch_cure(queue: str, stored: Mapping[str, str], found: Mapping[str, str | None]) -> str:
    """What to do about what ``describe_mismatch`` tells, in one sentence.

    Examples:
        >>> print(mismatch_cure("orders", {"a": "1f", "b": "2e"}, {"a": "1f"}))
        open it with nodes a, b, each by the name that is stored: its shards stay where they are
    """
    groups = _differences(stored, found)
    empty = groups.pop("without an id")
    if empty and not any(groups.values()):
        return (
            f"node {empty[0]} is empty, or new: open the deployment that has its shards; if what "
            f"they held is lost for good, `leanmq shards readmit {queue} {empty[0]}` takes the "
            "empty one in its place"
        )
    names = sorted(stored)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"open it with {'node' if len(names) == 1 else 'nodes'} {', '.join(names[:_SHOWN])}{more}, "
        "each by the name that is stored: its shards stay where they are"
    )


def _differences(
    stored: Mapping[str, str], found: Mapping[str, str | None]
) -> dict[str, list[str]]:
    """What became of the servers that are stored, and which are there besides."""
    now = {identity: node for node, identity in sorted(found.items()) if identity}
    groups: dict[str, list[str]] = {
        kind: [] for kind in ("swapped", "renamed", "missing", "other", "without an id", "extra")
    }
    for node, identity in sorted(stored.items()):
        if found.get(node) == identity:
            continue
        if identity in now:
            other = now[identity]
            if other in stored and found.get(node) == stored[other]:
                if node < other:  # the pair is told once
                    groups["swapped"].append(f"{node} with {other}")
            else:
                groups["renamed"].append(f"{node} to {other}")
        elif node not in found or found[node] in stored.values():
            groups["missing"].append(node)
        else:
            groups["other" if found[node] else "without an id"].append(node)
    groups["extra"] = [
        node for node in sorted(found) if node not in stored and found[node] not in stored.values()
    ]
    return groups


def _unreadable(text: str | bytes, why: str) -> BackendError:
    shown = repr(text[:60]) + ("..." if len(text) > 60 else "")
    return BackendError(
        f"what is stored as the placement of a sharded queue cannot be read: {why}; it begins "
        f"{shown}; give LeanMQ a prefix of its own, or restore the value from another deployment"
    )
