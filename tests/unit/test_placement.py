"""A placement keeps to the shares of the nodes, and a plan moves as little as can be."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq.sharding.hashing import MAX_SHARDS
from leanmq.sharding.placement import plan, propose
from leanmq.sharding.weights import MAX_NODES

PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "docs" / "shard-vectors.json").read_text("utf-8")
)["placements"]

WEIGHTS = st.sampled_from([0.1, 0.2, 0.25, 0.5, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0, 7.0, 1e-3, 1e6])
WEIGHTS |= st.floats(1e-6, 1e6)
TOKENS = st.text("abZ09._:/-", min_size=1, max_size=20)


def clusters(least: int = 2, most: int = 32) -> st.SearchStrategy[dict[str, float]]:
    return st.lists(WEIGHTS, min_size=least, max_size=most).map(
        lambda weights: {f"n{number}": weight for number, weight in enumerate(weights)}
    )


def limits(shards: int, weights: dict[str, float]) -> dict[str, tuple[int, int]]:
    """Floor and ceiling of each node's share, worked out here."""
    exact = {node: Fraction(str(weight)) for node, weight in weights.items()}
    share = {node: shards * weight / sum(exact.values()) for node, weight in exact.items()}
    return {node: (math.floor(one), math.ceil(one)) for node, one in share.items()}


def keeps_to(where: Sequence[str], weights: dict[str, float]) -> bool:
    held = Counter(where)
    within = limits(len(where), weights)
    return set(held) <= set(within) and all(
        low <= held[node] <= high for node, (low, high) in within.items()
    )


def moves(one: Sequence[str], other: Sequence[str]) -> int:
    return sum(before != after for before, after in zip(one, other, strict=True))


def fewest_moves(current: Sequence[str], weights: dict[str, float]) -> int:
    """Of every choice of who gets the ceiling: what the nodes lack, added up."""
    held, within = Counter(current), limits(len(current), weights)
    uneven = [node for node, (low, high) in within.items() if low < high]
    extras = len(current) - sum(low for low, _ in within.values())
    return min(
        sum(max(0, low + (node in favoured) - held[node]) for node, (low, _) in within.items())
        for favoured in map(set, combinations(uneven, extras))
    )


# --- the first placement


@settings(deadline=None)
@given(TOKENS, st.integers(1, 300), clusters())
def test_2_to_32_nodes_get_the_floor_or_ceiling_of_their_share(
    token: str, shards: int, weights: dict[str, float]
) -> None:
    where = propose(token, shards, weights)

    assert len(where) == shards
    assert keeps_to(where, weights)


@pytest.mark.parametrize(
    ("shards", "weights"),
    [
        (1, {"a": 1}),
        (1, {"a": 1, "b": 1}),
        (64, {"a": 1e-308, "b": 1e308, "c": 1}),
        (64, {"a": 5e-324, "b": 1}),
        (MAX_SHARDS, {f"n{number}": number + 1 for number in range(MAX_NODES)}),
    ],
)
def test_extremes_keep_to_their_shares_too(shards: int, weights: dict[str, float]) -> None:
    assert keeps_to(propose("orders", shards, weights), weights)
    assert keeps_to(plan(["gone"] * shards, weights), weights)


def test_shares_count_weights_as_they_are_written() -> None:
    # As floats, 60 * 0.3 / (0.1 + 0.2 + 0.3) is 29.999999999999996, and 29 would do.
    assert Counter(propose("orders", 60, {"a": 0.1, "b": 0.2, "c": 0.3})) == {
        "a": 10, "b": 20, "c": 30
    }  # fmt: skip


@settings(deadline=None)
@given(TOKENS, st.integers(1, 100), clusters(), st.randoms())
def test_the_order_in_which_nodes_are_named_changes_nothing(
    token: str, shards: int, weights: dict[str, float], chance: Any
) -> None:
    mixed = list(weights.items())
    chance.shuffle(mixed)

    where = propose(token, shards, weights)

    assert propose(token, shards, dict(mixed)) == where
    assert plan(where[::-1], dict(mixed)) == plan(where[::-1], weights)


def test_only_the_relations_of_weights_count() -> None:
    assert propose("orders", 64, {"a": 1, "b": 3}) == propose("orders", 64, {"a": 0.1, "b": 0.3})


def test_queues_differ_in_where_their_shards_are_and_in_who_has_one_more() -> None:
    weights = dict.fromkeys("abc", 1.0)
    placed = [propose(f"queue-{number}", 64, weights) for number in range(60)]

    assert len(set(placed)) == 60
    more = Counter(max("abc", key=Counter(where).__getitem__) for where in placed)
    assert set(more) == {"a", "b", "c"}


def test_another_node_leaves_most_of_a_proposal_as_it_was() -> None:
    before = dict.fromkeys("abcdefgh", 1.0)
    kept = [
        64 - moves(propose(token, 64, before), propose(token, 64, {**before, "i": 1.0}))
        for token in map(str, range(20))
    ]

    assert sum(kept) / len(kept) > 64 * 0.6  # modulo the number of nodes would keep 1 / 9


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published["token"])
def test_published_placements_hold(published: dict[str, Any]) -> None:
    where = propose(published["token"], published["shards"], published["weights"])

    assert list(where) == published["where"]


# --- plans


@st.composite
def changes(draw: st.DrawFn, shards: int, nodes: int) -> tuple[list[str], dict[str, float]]:
    """A placement of any kind, and other nodes: some stay, some go, some are new."""
    names = [f"n{number}" for number in range(nodes)]
    current = draw(st.lists(st.sampled_from([*names, "gone"]), min_size=1, max_size=shards))
    after = draw(st.lists(st.sampled_from([*names, "new"]), min_size=1, unique=True))
    return current, {node: draw(WEIGHTS) for node in after}


@settings(deadline=None, max_examples=200)
@given(changes(shards=80, nodes=9))
def test_a_plan_moves_the_fewest_shards(change: tuple[list[str], dict[str, float]]) -> None:
    current, weights = change

    planned = plan(current, weights)

    assert keeps_to(planned, weights)
    assert moves(current, planned) == fewest_moves(current, weights)
    assert plan(planned, weights) == planned


@settings(deadline=None, max_examples=40)
@given(changes(shards=5, nodes=3))
def test_no_placement_at_all_needs_fewer_moves(
    change: tuple[list[str], dict[str, float]],
) -> None:
    current, weights = change
    every = [
        where for where in product(sorted(weights), repeat=len(current)) if keeps_to(where, weights)
    ]

    assert moves(current, plan(current, weights)) == min(moves(current, one) for one in every)


@settings(deadline=None)
@given(st.integers(1, 32), st.integers(1, 200))
def test_a_node_that_is_added_takes_its_share_and_nothing_else_moves(
    nodes: int, shards: int
) -> None:
    before = {f"n{number}": 1.0 for number in range(nodes)}
    current = propose("orders", shards, before)

    planned = plan(current, {**before, "new": 1.0})

    gained = [shard for shard, node in enumerate(planned) if node == "new"]
    assert [s for s in range(shards) if current[s] != planned[s]] == gained
    assert len(gained) == shards // (nodes + 1)


@settings(deadline=None)
@given(clusters(3, 32), st.integers(1, 200))
def test_a_node_that_is_removed_gives_away_its_own_shards(
    weights: dict[str, float], shards: int
) -> None:
    equal = dict.fromkeys(weights, 1.0)
    current = propose("orders", shards, equal)
    gone = equal.popitem()[0]

    planned = plan(current, equal)

    lost = [shard for shard, node in enumerate(current) if node == gone]
    assert [s for s in range(shards) if current[s] != planned[s]] == lost
    assert keeps_to(planned, equal)


def test_the_ceiling_is_for_those_that_have_it_then_for_the_larger_fraction() -> None:
    # Shares of 7: 2.33 each. The one that has 3 keeps them.
    assert plan("aabbbcc", dict.fromkeys("abc", 1)) == tuple("aabbbcc")
    # Shares of 4: a 2.4, b 1.6.
    assert Counter(plan("xxxx", {"a": 3, "b": 2})) == {"a": 2, "b": 2}


def test_what_plans_and_proposals_cannot_be_made_of_is_refused() -> None:
    with pytest.raises(ValueError, match="shards is 0"):
        plan([], {"a": 1})
    with pytest.raises(ValueError, match="0 nodes are given; a queue is on 1 to 128"):
        plan(["a"], {})
    with pytest.raises(ValueError, match="shards is 4097"):
        propose("orders", 4_097, {"a": 1})
    with pytest.raises(ValueError, match="weight of node 'a' is -1"):
        propose("orders", 4, {"a": -1})
