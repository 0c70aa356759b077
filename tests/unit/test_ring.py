"""Nodes on a ring: few tokens move when they change, and weights count."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq.sharding.hashing import hash64
from leanmq.sharding.placement import check_weights
from leanmq.sharding.ring import MAX_POINTS, Ring
from leanmq.sharding.weights import MAX_NODES

TOKENS = [f"order-{number}" for number in range(300)]
RINGS = st.dictionaries(
    st.text("abcxyz019._-", min_size=1, max_size=8), st.floats(0.1, 4), min_size=1, max_size=8
)


def firsts(weights: dict[str, float]) -> list[str]:
    ring = Ring(weights, points=20)
    return [next(ring.nodes_for(token)) for token in TOKENS]


@settings(deadline=None)
@given(RINGS, st.floats(0.1, 4))
def test_a_node_that_is_added_takes_tokens_and_moves_none_between_others(
    weights: dict[str, float], weight: float
) -> None:
    before, after = firsts(weights), firsts({**weights, "new": weight})

    changed = {new for old, new in zip(before, after, strict=True) if old != new}
    assert changed <= {"new"}


@settings(deadline=None)
@given(RINGS, st.floats(1, 3), st.data())
def test_a_node_that_gets_heavier_only_takes(
    weights: dict[str, float], factor: float, data: st.DataObject
) -> None:
    node = data.draw(st.sampled_from(sorted(weights)))
    before, after = firsts(weights), firsts({**weights, node: weights[node] * factor})

    assert {new for old, new in zip(before, after, strict=True) if old != new} <= {node}


@settings(deadline=None)
@given(RINGS, st.text(st.characters(codec="utf-8")), st.randoms())
def test_every_node_comes_once_in_the_order_of_points_from_the_token_on(
    weights: dict[str, float], token: str, chance: Any
) -> None:
    mixed = list(weights.items())
    chance.shuffle(mixed)
    start = hash64(token.encode())
    nearest = {
        node: min(
            (hash64(f"{node}#{number}".encode()) - start) % 2**64
            for number in range(max(1, int(10 * weight + 0.5)))
        )
        for node, weight in weights.items()
    }

    order = list(Ring(dict(mixed), points=10).nodes_for(token))

    assert order == sorted(nearest, key=nearest.__getitem__)


def test_a_node_gets_tokens_by_its_weight() -> None:
    ring = Ring({"a": 1, "b": 2, "c": 1})
    share = Counter(next(ring.nodes_for(f"token-{number}")) for number in range(20_000))

    assert share["b"] == pytest.approx(10_000, rel=0.15)
    assert share["a"] == pytest.approx(5_000, rel=0.2)


def test_the_last_point_is_followed_by_the_first() -> None:
    ring = Ring({"a": 1, "b": 1}, points=1)
    high = max("ab", key=lambda node: hash64(f"{node}#0".encode()))
    low = "a" if high == "b" else "b"
    beyond = next(
        token for token in TOKENS if hash64(token.encode()) > hash64(f"{high}#0".encode())
    )

    assert list(ring.nodes_for(beyond)) == [low, high]
    assert list(ring.nodes_for(f"{high}#0")) == [high, low]  # a point is its own


def test_a_node_of_little_weight_has_a_point_too() -> None:
    assert set(Ring({"a": 1, "b": 1e-9}).nodes_for("x")) == {"a", "b"}
    assert repr(Ring({"a": 1, "b": 1e-9})) == "<Ring of 2 nodes at 161 points>"


def test_a_ring_that_would_not_fit_is_refused() -> None:
    for weights, points in [
        ({"a": 1e9}, 160),
        ({"a": 1e308, "b": 1e308}, 160),
        ({"a": 1.5}, 10**6),
    ]:
        with pytest.raises(ValueError, match=f"more than {MAX_POINTS} points; use weights around"):
            Ring(weights, points)
    for wrong in (0, MAX_POINTS + 1):
        with pytest.raises(ValueError, match=f"points is {wrong}; "):
            Ring({"a": 1}, wrong)
    for kind in (1.5, True):
        with pytest.raises(TypeError, match="points must be an int"):
            Ring({"a": 1}, kind)  # type: ignore[arg-type]  # what is refused


# --- weights


def test_a_weight_that_is_not_given_is_1() -> None:
    assert check_weights(["b", "a"], None) == {"b": 1.0, "a": 1.0}
    assert check_weights(iter(["b", "a"]), {"a": 3}) == {"b": 1.0, "a": 3.0}
    assert isinstance(check_weights(["a"], {"a": 3})["a"], float)


@pytest.mark.parametrize("weight", [0, -1, -0.0, float("nan"), float("inf"), True, 10**400])
def test_a_weight_that_cannot_be_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"weight of node 'a' is .*; it must be a finite number"):
        check_weights(["a"], {"a": weight})


@pytest.mark.parametrize("weight", ["1", None, [1]])
def test_a_weight_that_is_no_number_is_refused(weight: Any) -> None:
    with pytest.raises(TypeError, match=r"weight of node 'a' is .*; it must be a finite number"):
        check_weights(["a"], {"a": weight})


@pytest.mark.parametrize("name", ["", "a b", "a#1", "a/b", "é", "a" * 65, "a\n"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be named so; use 1 to 64 of A-Z"):
        check_weights([name], None)


def test_nodes_are_named_once_each_and_are_not_too_many() -> None:
    many = [f"n{number}" for number in range(MAX_NODES + 1)]

    assert len(check_weights(many[:-1], None)) == MAX_NODES
    with pytest.raises(ValueError, match="129 nodes are given; a queue is on 1 to 128"):
        check_weights(many, None)
    with pytest.raises(ValueError, match="node 'a' is given twice"):
        check_weights(["a", "b", "a"], None)
    with pytest.raises(ValueError, match=r"for node 'x', which is not one of n0, .*, n7, \.\.\.$"):
        check_weights(many[:-1], {"x": 1})
    with pytest.raises(TypeError, match="must be a str, not int"):
        check_weights([1], None)  # type: ignore[list-item]  # what is refused
