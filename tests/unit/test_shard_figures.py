"""Figures of shards: how uneven they are, what nodes have and should have, what a plan moves."""

from __future__ import annotations

import pytest

from leanmq.sharding.figures import (
    Move,
    NodeStats,
    Quota,
    ShardStats,
    moves,
    nodes_of,
    quotas,
    skew,
)
from leanmq.sharding.placement import Placement, plan


def placement(where: str, **weights: float) -> Placement:
    return Placement(
        shards=len(where),
        slot="orders",
        epoch=1,
        nodes={node: f"id of {node}" for node in weights},
        weights=weights,
        where=tuple(where),
    )


def test_a_backlog_is_what_nobody_works_on() -> None:
    assert ShardStats(0, "a", ready=1, in_flight=20, delayed=300, dead=4_000).backlog == 301


@pytest.mark.parametrize(
    ("backlogs", "value"),
    [([], None), ([0, 0], None), ([5], 1.0), ([4, 4], 1.0), ([8, 0, 0, 0], 4.0), ([6, 2, 1], 2.0)],
)
def test_skew_is_the_fullest_shard_over_the_mean(backlogs: list[int], value: float | None) -> None:
    assert skew([ShardStats(n, "a", ready=ready) for n, ready in enumerate(backlogs)]) == value


def test_shards_that_nobody_could_count_say_nothing_of_the_skew() -> None:
    stats = [ShardStats(0, "a", ready=3), ShardStats(1, "b", error="down"), ShardStats(2, "a")]

    assert skew(stats) == 2.0


def test_a_node_has_the_sum_of_its_shards_beside_what_its_weight_says() -> None:
    stats = [ShardStats(0, "a", ready=3), ShardStats(1, "b"), ShardStats(2, "a", delayed=4)]

    assert nodes_of(placement("aba", a=1.0, b=2.0), stats) == [
        NodeStats("a", 2, Quota(1.0, 1, 1), 7, None),
        NodeStats("b", 1, Quota(2.0, 2, 2), 0, None),
    ]


def test_a_node_is_in_trouble_if_any_of_its_shards_could_not_be_counted() -> None:
    stats = [ShardStats(0, "a"), ShardStats(1, "a", error="the shard is gone")]

    [node] = nodes_of(placement("aa", a=1.0), stats)

    assert node.error == "the shard is gone"


def test_a_node_without_shards_is_told_of_too() -> None:
    found = nodes_of(placement("a", a=1.0, b=1.0), [ShardStats(0, "a")])

    assert [(node.node, node.shards) for node in found] == [("a", 1), ("b", 0)]


def test_a_quota_is_one_number_where_the_share_is_whole() -> None:
    assert quotas(6, {"a": 1.0, "b": 2.0}) == {"a": Quota(1.0, 2, 2), "b": Quota(2.0, 4, 4)}
    assert quotas(4, {"a": 1.0, "b": 2.0}) == {"a": Quota(1.0, 1, 2), "b": Quota(2.0, 2, 3)}


def test_moves_are_told_by_pairs_of_nodes_and_carry_out_the_plan() -> None:
    before = tuple("abababab")
    after = plan(before, {"b": 1.0, "c": 1.0})

    found = moves(before, after)

    carried_out = list(before)
    for move in found:
        for shard in move.shards:
            assert carried_out[shard] == move.source
            carried_out[shard] = move.target
    assert tuple(carried_out) == after
    assert found == [Move("a", "c", (0, 2, 4, 6))]
    assert moves(before, before) == []
