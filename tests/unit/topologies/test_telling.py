"""Who waits for many queues of a cluster is told behind each call; outcomes stay as they were."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq.backends.streams.calls import Call
from tests.unit.topologies.test_many import settle_in
from tests.unit.topologies.world import SLOT, A, B, C, Cluster, World, error

SHARD = "{k}:q:orders#1"
OTHER = "{k}:d:orders#1"


def get(*keys: str, wakes: tuple[str, ...] = (SHARD,)) -> Call:
    return Call(tuple(("GET", key) for key in keys), "k", idempotent=True, wakes=wakes)


def told(world: World) -> list[tuple[Any, list[str]]]:
    """What was written to whom since the last time, without the map."""
    calls = [call for call in world.calls if call.commands[0][0] != "CLUSTER"]
    world.calls.clear()
    return [(call.address, [" ".join(map(str, c[:2])) for c in call.commands]) for call in calls]


def refuse(world: World, node: Any, text: str) -> None:
    """Let a node refuse to tell."""
    before = world.servers[node]
    world.servers[node] = lambda command: (
        error(text) if command[0] == "SPUBLISH" else before(command)
    )


def test_the_keys_of_shards_are_told_in_the_same_write(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)

    assert cluster.connection.run(get("k", "k", wakes=(SHARD, "{k}:q:plain", OTHER))) == ["k", "k"]

    assert told(world) == [(A, ["GET k", "GET k", f"SPUBLISH {SHARD}", f"SPUBLISH {OTHER}"])]


def test_a_call_that_wakes_nobody_tells_nobody(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)

    assert cluster.connection.run(get("k", wakes=("{k}:q:plain",))) == ["k"]
    assert told(world) == [(A, ["GET k"])]


@pytest.mark.parametrize("text", ["NOPERM no", f"MOVED {SLOT} 127.0.0.1:7003", "ERR unknown"])
def test_what_became_of_the_telling_does_not_matter(
    cluster: Cluster, world: World, text: str
) -> None:
    settle_in(cluster, world)
    refuse(world, A, text)

    assert cluster.connection.run(get("k")) == ["k"]
    assert cluster.connection.run_many([get("k", "k"), get("k")]) == [["k", "k"], ["k"]]
    assert {address for address, _ in told(world)} == {A}


def test_who_is_redirected_tells_there(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)
    cluster.home = C

    assert cluster.connection.run(get("k", "k")) == ["k", "k"]

    commands = ["GET k", "GET k", f"SPUBLISH {SHARD}"]
    assert told(world) == [(A, commands), (C, commands)]


def test_while_a_slot_is_on_its_way_it_is_told_on_both_sides(
    cluster: Cluster, world: World
) -> None:
    settle_in(cluster, world)
    answers = iter([b"1", error(f"ASK {SLOT} 127.0.0.1:7002"), b"told", b"told"])
    world.servers[A] = lambda _: next(answers)
    world.servers[B] = lambda command: b"OK" if command[0] == "ASKING" else b"2"

    assert cluster.connection.run(get("k", "new")) == [b"1", b"2"]

    assert told(world) == [
        (A, ["GET k", "GET new", f"SPUBLISH {SHARD}"]),
        (B, ["ASKING", "GET new", "ASKING", f"SPUBLISH {SHARD}"]),
        (A, [f"SPUBLISH {SHARD}"]),
    ]


def test_calls_that_go_together_tell_each_its_own(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)
    calls = [get("k", "k"), get("k", wakes=()), get("k", wakes=(OTHER,))]

    assert cluster.connection.run_many(calls) == [["k", "k"], ["k"], ["k"]]

    assert told(world) == [
        (A, ["GET k", "GET k", f"SPUBLISH {SHARD}", "GET k", "GET k", f"SPUBLISH {OTHER}"])
    ]


def test_where_a_key_is_is_known_once_the_map_was_read(cluster: Cluster, world: World) -> None:
    assert cluster.topology.where("k") is None

    settle_in(cluster, world)

    assert (cluster.topology.where("k"), cluster.topology.where("a")) == (A, B)
