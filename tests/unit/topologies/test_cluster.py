"""Cluster: the map of slots, redirections, nodes that are lost."""

from __future__ import annotations

import pytest

from leanmq.errors import ConnectionError, OutcomeUnknownError
from tests.unit.topologies.world import (
    GET,
    NOWHERE,
    SLOT,
    A,
    B,
    C,
    Clock,
    Cluster,
    World,
    call,
    error,
)


def test_open_asks_every_primary_and_a_call_goes_to_its_slot(
    cluster: Cluster, world: World
) -> None:
    cluster.connection.open()

    assert set(world.asked("PING")) == {A, B}
    assert cluster.run() == "k"
    assert world.log == [(A, "GET")]
    assert cluster.topology.slots_apart


def test_moved_is_followed_and_remembered(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    cluster.home = C

    assert cluster.run() == "k"
    assert cluster.run() == "k"
    assert world.asked("GET") == [A, C, C]


def test_only_the_redirected_commands_are_sent_again(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    replies = iter([b"1", error(f"ASK {SLOT} 127.0.0.1:7002"), b"3"])
    world.servers[A] = lambda _: next(replies)
    world.servers[B] = lambda command: b"OK" if command[0] == "ASKING" else b"2"
    world.log.clear()

    assert cluster.connection.run(call(GET, GET, GET)) == [b"1", b"2", b"3"]
    assert world.log[3:] == [(B, "ASKING"), (B, "GET")]


def test_ask_does_not_move_the_slot(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    asked = iter([error(f"ASK {SLOT} 127.0.0.1:7002")])
    world.servers[A] = lambda command: next(asked, command[-1])
    world.servers[B] = lambda command: b"new"

    assert [cluster.run(), cluster.run()] == [b"new", "k"]
    assert world.dropped == []


def test_redirections_without_end_are_given_up(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    world.servers[A] = lambda _: error(f"MOVED {SLOT} 127.0.0.1:7002")
    world.servers[B] = lambda _: error(f"MOVED {SLOT} 127.0.0.1:7001")
    world.log.clear()

    assert cluster.run().code == "MOVED"
    assert len(world.log) == 6


@pytest.mark.parametrize("code", ["TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED"])
def test_other_trouble_is_the_outcome_and_the_map_is_read_again(
    cluster: Cluster, world: World, clock: Clock, code: str
) -> None:
    cluster.connection.open()
    clock.now += 1
    answer = world.servers[A]
    world.servers[A] = lambda c: error(f"{code} x") if c[0] == "GET" else answer(c)

    outcomes = [cluster.run() for _ in range(3)]

    assert [outcome.code for outcome in outcomes] == [code] * 3
    assert len(world.asked("CLUSTER")) == 2  # once to open, once for all three
    assert world.dropped == []


def test_a_lost_primary_is_replaced_once_the_map_says_so(
    cluster: Cluster, world: World, clock: Clock
) -> None:
    cluster.connection.open()
    del world.servers[A]

    first = cluster.run(idempotent=False)
    clock.now += 0.2
    cluster.home = C

    assert type(first) is ConnectionError
    assert cluster.run(idempotent=False) == "k"
    assert A in world.dropped


def test_a_frozen_node_must_answer_a_ping_before_it_gets_another_call(
    cluster: Cluster, world: World
) -> None:
    cluster.connection.open()
    world.frozen.add(A)
    assert isinstance(cluster.run(idempotent=False), OutcomeUnknownError)
    world.log.clear()

    second = cluster.run(idempotent=False)

    assert (type(second), second.in_doubt) == (ConnectionError, False)
    assert world.log == [(A, "PING")]
    assert world.calls[-1].limit == 0.5

    world.frozen.clear()
    assert cluster.run(idempotent=False) == "k"


def test_the_map_is_read_from_any_node_ever_seen(
    cluster: Cluster, world: World, clock: Clock
) -> None:
    cluster.connection.open()
    cluster.home = C
    del world.servers[A], world.servers[B]  # both start-up nodes
    cluster.run()
    clock.now += 0.2

    assert cluster.run() == "k"
    assert world.asked("CLUSTER")[-1] == C


def test_nodes_are_asked_for_the_map_in_turn(cluster: Cluster, world: World, clock: Clock) -> None:
    cluster.connection.open()
    for _ in range(5):
        cluster.topology._stale = True
        clock.now += 0.2
        cluster.run()

    asked = world.asked("CLUSTER")

    assert {*asked[:3]} == {*asked[3:]} == {A, B, C}


def test_a_slot_that_nobody_serves_is_an_error_that_may_pass(
    cluster: Cluster, world: World, clock: Clock
) -> None:
    cluster.home = NOWHERE
    cluster.connection.open()

    assert cluster.run().code == "CLUSTERDOWN"
    cluster.home = A
    clock.now += 0.2
    assert cluster.run() == "k"


def test_a_node_without_a_name_means_the_one_that_was_asked(cluster: Cluster, world: World) -> None:
    for node in (A, B, C):
        world.servers[node] = lambda command: (
            [[0, 16383, [None, 7001, b"id"], [b"", 7003, b"id"]]]
            if command[0] == "CLUSTER"
            else command[-1]
        )

    cluster.connection.open()
    cluster.run()

    assert world.asked("GET") == [A]


def test_a_server_that_is_no_cluster_says_so(cluster: Cluster, world: World) -> None:
    world.servers = {A: lambda _: error("ERR This instance has cluster support disabled")}

    with pytest.raises(Exception, match="cluster support disabled"):
        cluster.connection.open()


def test_nodes_that_were_not_made_a_cluster_yet_say_so(cluster: Cluster, world: World) -> None:
    for address in (A, B, C):
        world.servers[address] = lambda _: []

    with pytest.raises(ConnectionError, match=r"\(node 127\.0\.0\.1:\d+ has an empty map\)"):
        cluster.connection.open()


def test_no_node_to_ask_is_an_error_that_tells_what_to_check(
    cluster: Cluster, world: World
) -> None:
    world.servers.clear()

    with pytest.raises(ConnectionError, match=r"no node of .* check that they run"):
        cluster.connection.open()
