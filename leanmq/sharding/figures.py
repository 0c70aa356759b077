"""Figures of a queue in shards: what is in each shard, what each node has and should have.

Values and pure functions. Who asks the nodes is the router (``shards.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs

from leanmq.sharding.placement import Placement
from leanmq.sharding.weights import shares

__all__ = ["Move", "NodeStats", "Quota", "ShardStats", "moves", "nodes_of", "quotas", "skew"]


@attrs.frozen
class ShardStats:
    """What is in one shard, at one moment.

    Attributes:
        shard: Its number.
        node: The name of the node that it is on.
        ready: Messages that wait to be handed out.
        in_flight: Messages that are leased to a consumer.
        delayed: Messages that are not due yet.
        dead: Dead letters.
        error: Why the figures are not known, in words, and are 0; None if they are known.
    """

    shard: int
    node: str
    ready: int = 0
    in_flight: int = 0
    delayed: int = 0
    dead: int = 0
    error: str | None = None

    @property
    def backlog(self) -> int:
        """Messages that nobody works on: ready and delayed."""
        return self.ready + self.delayed


@attrs.frozen
class Quota:
    """How many shards a node gets by its weight: one of two numbers, or they are the same.

    Attributes:
        weight: Its weight.
        floor: The lower one.
        ceiling: The higher one.
    """

    weight: float
    floor: int
    ceiling: int


@attrs.frozen
class NodeStats:
    """What one node has of a queue.

    Attributes:
        node: Its name.
        shards: How many shards it has.
        quota: How many it should have.
        backlog: Messages there that nobody works on.
        error: Why that is not known; None if it is.
    """

    node: str
    shards: int
    quota: Quota
    backlog: int
    error: str | None


@attrs.frozen
class Move:
    """Shards that one node would give to another.

    Attributes:
        source: The name of the node that has them.
        target: The name of the node that would get them.
        shards: Their numbers.
    """

    source: str
    target: str
    shards: tuple[int, ...]


def quotas(shards: int, weights: Mapping[str, float]) -> dict[str, Quota]:
    """The quota of each node, by name.

    Examples:
        >>> quotas(64, {"a": 1.0, "b": 2.0})["b"]
        Quota(weight=2.0, floor=42, ceiling=43)
    """
    return {
        node: Quota(weights[node], math.floor(share), math.ceil(share))
        for node, share in shares(shards, weights).items()
    }


def nodes_of(placement: Placement, stats: Sequence[ShardStats]) -> list[NodeStats]:
    """What each node has, by name."""
    found = []
    for node, quota in quotas(placement.shards, placement.weights).items():
        its = [one for one in stats if one.node == node]
        error = next((one.error for one in its if one.error), None)
        found.append(NodeStats(node, len(its), quota, sum(one.backlog for one in its), error))
    return found


def skew(stats: Sequence[ShardStats]) -> float | None:
    """The backlog of the fullest shard over the mean of all whose figures are known.

    1 is even; None if there is no backlog.

    Examples:
        >>> skew([ShardStats(0, "a", ready=3), ShardStats(1, "b", ready=1)])
        1.5
    """
    known = [one.backlog for one in stats if one.error is None]
    total = sum(known)
    return max(known) * len(known) / total if total else None


def moves(before: Sequence[str], after: Sequence[str]) -> list[Move]:
    """What differs between two placements of the same shards.

    Args:
        before: The name of the node by shard.
        after: The same, as ``plan`` returned it.

    Examples:
        >>> moves(("a", "b", "a"), ("c", "b", "c"))
        [Move(source='a', target='c', shards=(0, 2))]
    """
    found: dict[tuple[str, str], list[int]] = {}
    for shard, pair in enumerate(zip(before, after, strict=True)):
        if pair[0] != pair[1]:
            found.setdefault(pair, []).append(shard)
    return [Move(*pair, tuple(found[pair])) for pair in sorted(found)]
