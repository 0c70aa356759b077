"""A placement is stored as one line of JSON; and what differs from it is told in three lines."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq import BackendError, PlacementError
from leanmq.sharding.placement import Placement, describe_mismatch, propose
from leanmq.sharding.weights import MAX_NODES
from tests.unit.test_placement import TOKENS, clusters


def placed(**changed: Any) -> Placement:
    given: dict[str, Any] = {
        "shards": 4,
        "slot": "orders",
        "epoch": 1,
        "nodes": {"b": "2e" * 16, "a": "1f" * 16},
        "weights": {"a": 1, "b": 2.5},
        "where": ("b", "a", "b", "b"),
    }
    return Placement(**{**given, **changed})


def test_a_placement_is_stored_as_this_text() -> None:
    text = placed().encode()

    assert text == (
        '{"epoch":1,"kind":"sharded",'
        f'"nodes":{{"a":"{"1f" * 16}","b":"{"2e" * 16}"}},'
        '"shards":4,"slot":"orders","v":1,"weights":{"a":1.0,"b":2.5},"where":[1,0,1,1]}'
    )
    assert Placement.decode(text) == Placement.decode(text.encode()) == placed()


@settings(deadline=None)
@given(TOKENS, st.integers(1, 100), st.integers(0, 2**60), clusters(1))
def test_a_placement_comes_back_equal(
    slot: str, shards: int, epoch: int, weights: dict[str, float]
) -> None:
    nodes = {node: f"{number:032x}" for number, node in enumerate(weights)}
    one = Placement(shards, slot, epoch, nodes, weights, propose(slot, shards, weights))

    back = Placement.decode(one.encode())

    assert back == one
    assert back.encode() == one.encode()
    assert sorted(s for node in nodes for s in back.shards_on(node)) == list(range(shards))


def test_64_shards_on_8_nodes_take_less_than_1_kb() -> None:
    weights = {f"redis-{number}": 1.0 for number in range(8)}
    nodes = {node: f"{number:032x}" for number, node in enumerate(weights)}

    text = Placement(64, "orders", 1, nodes, weights, propose("orders", 64, weights)).encode()

    assert len(text) < 1_000


def test_a_placement_is_a_value() -> None:
    nodes = {"a": "1f", "b": "2e"}
    one = placed(nodes=nodes)
    nodes["c"] = "3d"

    assert set(one.nodes) == {"a", "b"}
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(AttributeError):
        one.epoch = 2  # type: ignore[misc]  # what is refused


def test_the_shards_of_a_node_are_told_in_order() -> None:
    assert placed().shards_on("b") == (0, 2, 3)
    assert placed(where=("a",) * 4).shards_on("b") == ()
    with pytest.raises(ValueError, match="no node 'c'; there are a, b"):
        placed().shards_on("c")


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"shards": 0, "where": ()}, ValueError, "shards is 0"),
        ({"shards": 5}, ValueError, "4 shards have a place, of 5"),
        ({"slot": "a#b"}, ValueError, "slot 'a#b' has '#'"),
        ({"epoch": -1}, ValueError, "epoch is -1"),
        ({"epoch": True}, TypeError, "epoch must be an int, not bool"),
        ({"nodes": {}}, ValueError, "0 nodes"),
        ({"nodes": {"a": "1f"}}, ValueError, "weight is given for node 'b'"),
        ({"nodes": {"a": "1f", "b": 2}}, TypeError, "id of node 'b' must be a str, not 2"),
        ({"nodes": {"a": "1f", "b": ""}}, ValueError, "id of node 'b' is empty"),
        ({"nodes": {"a": "1f", "b": "1f"}}, ValueError, "two nodes have the same id"),
        ({"weights": {"a": 1}}, ValueError, "node 'b' has no weight"),
        ({"weights": {"a": 1, "b": 0}}, ValueError, "weight of node 'b' is 0"),
        ({"where": ["a"] * 4}, TypeError, "where must be a tuple, not list"),
        ({"where": tuple("abca")}, ValueError, "shard 2 is on node 'c'"),
    ],
)
def test_a_placement_that_cannot_be_is_refused(
    changed: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        placed(**changed)


def stored(**changed: Any) -> str:
    fields = {**json.loads(placed().encode()), **changed}
    return json.dumps({name: value for name, value in fields.items() if value is not ...})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        (b"\xff", "not JSON"),
        ("\ud800", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "it is not {"),
        ('{"tag":"orders","kind":"queue"}', "it is not {"),
        (stored(kind="other"), "it is not {"),
        (stored(v=...), "its version is None"),
        (stored(v="1"), "its version is '1'"),
        (stored(v=0), "its version is 0"),
        (stored(v=True), "its version is True"),
        (stored(slot=...), "it lacks 'slot'"),
        (stored(where=...), "it lacks 'where'"),
        (stored(where=[0, 1, 2, 0]), "index out of range"),
        (stored(where=[0, 1, -1, 0]), "other things than numbers"),
        (stored(where=[0, 1, True, 0]), "other things than numbers"),
        (stored(where="abba"), "other things than numbers"),
        (stored(where=[0, 1]), "2 shards have a place, of 4"),
        (stored(nodes=["a", "b"]), "cannot be read"),
        (stored(nodes=1), "cannot be read"),
        (stored(weights={"a": "1", "b": 1}), "weight of node 'a' is '1'"),
        (stored(epoch=1.5), "epoch must be an int"),
    ],
)
def test_what_is_no_placement_is_an_error_that_says_why(text: str | bytes, words: str) -> None:
    with pytest.raises(BackendError, match="placement of a sharded queue cannot be read") as caught:
        Placement.decode(text)

    assert words in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_placement_of_a_later_version_asks_for_an_upgrade() -> None:
    with pytest.raises(BackendError, match=r"version 2, and this LeanMQ knows 1 .* upgrade"):
        Placement.decode('{"kind":"sharded","v":2}')


def test_fields_that_are_not_known_are_left_alone() -> None:
    assert Placement.decode(stored(note="moved by hand")) == placed()


# --- other nodes than those stored


ONE, TWO, THREE, FOUR = ("1f" * 16, "2e" * 16, "3d" * 16, "4c" * 16)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"a": ONE, "b": TWO}, "no difference"),
        ({"a": TWO, "b": ONE}, "swapped: a with b"),
        ({"a": ONE}, "missing: b"),
        ({}, "missing: a, b"),
        ({"a": ONE, "b": TWO, "c": THREE, "d": None}, "extra: c, d"),
        ({"a": ONE, "b": THREE}, "other: b"),
        ({"a": ONE, "b": None}, "without an id: b"),
        ({"a": ONE, "c": TWO}, "renamed: b to c"),
        ({"a": TWO, "c": ONE}, "renamed: a to c, b to a"),
        ({"a": TWO, "b": THREE}, "renamed: b to a; missing: a"),
        ({"a": THREE, "d": FOUR}, "missing: b; other: a; extra: d"),
    ],
)
def test_a_mismatch_is_told_in_words_and_in_two_aligned_lines(
    found: dict[str, str | None], told: str
) -> None:
    verdict, *lines = describe_mismatch({"a": ONE, "b": TWO}, found).split("\n")

    assert verdict == told
    both: list[dict[str, str | None]] = [{"a": ONE, "b": TWO}, found]
    for line, nodes in zip(lines, both, strict=True):
        for node, identity in nodes.items():
            assert f"{node}={identity[:8] if identity else 'none'}" in line
    names = sorted({"a", "b", *found})
    assert [lines[0].index(f"{node}=") for node in names] == [
        lines[1].index(f"{node}=") for node in names
    ]


def test_of_three_nodes_in_a_circle_each_is_named() -> None:
    told = describe_mismatch({"a": ONE, "b": TWO, "c": THREE}, {"a": TWO, "b": THREE, "c": ONE})

    assert told.startswith("renamed: a to c, b to a, c to b\n")


def test_of_many_nodes_a_few_are_told() -> None:
    nodes = {f"n{number:03}": f"{number:08x}" for number in range(MAX_NODES)}

    told = describe_mismatch(nodes, {**nodes, "n100": None})
    assert told == "without an id: n100\nstored: n100=00000064\nfound:  n100=none"
    assert "n007 and 120 more" in describe_mismatch(nodes, {})
    assert len(describe_mismatch(nodes, {})) < 400


def test_a_placement_error_is_not_worth_a_retry() -> None:
    error = PlacementError("x", queue="orders")

    assert (error.retryable, error.in_doubt, error.queue) == (False, False, "orders")
