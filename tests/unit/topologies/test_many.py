"""Many calls at once: one pipeline to each node, and trouble only for those whom it concerns."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq.backends.memory import AsyncMemoryConnection, MemoryConnection
from leanmq.backends.protocol import Capabilities
from leanmq.backends.single import SingleServer
from leanmq.backends.streams.calls import Call, Many, Outcomes
from leanmq.backends.streams.driver import AsyncStreamsBackend, StreamsBackend
from leanmq.backends.streams.running import Operation
from leanmq.backends.urls import Address, parse_url
from leanmq.errors import ConnectionError, OutcomeUnknownError
from tests.unit.topologies.world import (
    NOWHERE,
    SLOT,
    A,
    B,
    C,
    Cluster,
    Watch,
    World,
    connect,
    data,
    error,
)


def get(key: str, *, commands: int = 1) -> Call:
    return Call((("GET", key),) * commands, key, idempotent=True)


def single(world: World) -> Any:
    world.servers[A] = data()
    return connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)


def node_calls(world: World) -> list[tuple[Address, int]]:
    """Where calls for data went, and of how many commands each."""
    return [
        (made.address, len(made.commands)) for made in world.calls if made.commands[0][0] == "GET"
    ]


def serve(world: World, node: Address, **replies: Any) -> None:
    """Let a node of the cluster serve every key; those named get another reply."""
    before = world.servers[node]

    def answer(command: tuple[Any, ...]) -> Any:
        if command[0] != "GET":
            return before(command)
        reply = replies.get(str(command[1]), command[1])
        return error(reply) if " " in reply else reply

    world.servers[node] = answer


def settle_in(cluster: Cluster, world: World) -> None:
    """Open the cluster: A serves ``k`` and B all else."""
    cluster.connection.open()
    serve(world, B)
    world.calls.clear()
    world.log.clear()


def test_a_server_gets_all_calls_at_once_and_each_has_its_own_outcomes(world: World) -> None:
    connection = single(world)

    assert connection.run_many([get("a"), get("b", commands=3), get("c")]) == [
        ["a"],
        ["b"] * 3,
        ["c"],
    ]
    assert node_calls(world) == [(A, 5)]
    assert world.calls[0].idempotent
    assert world.dropped == []


def test_no_calls_are_no_round_trip(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)

    assert cluster.connection.run_many([]) == single(world).run_many([]) == []
    assert world.calls == []


def test_what_is_written_at_once_is_bounded_and_no_call_is_cut_in_two(world: World) -> None:
    connection = single(world)

    results = connection.run_many([get(str(n), commands=3) for n in range(400)])

    assert results == [[str(n)] * 3 for n in range(400)]
    assert node_calls(world) == [(A, 498), (A, 498), (A, 204)]
    assert connection.run_many([get("big", commands=1_200)]) == [["big"] * 1_200]


def test_a_server_that_does_not_answer_is_not_asked_for_the_rest(world: World) -> None:
    connection = single(world)
    world.frozen.add(A)

    results = connection.run_many([get(str(n)) for n in range(1_000)])

    assert len(node_calls(world)) == 1
    assert len(results) == 1_000
    assert all(isinstance(outcome, ConnectionError) for (outcome,) in results)
    assert world.dropped == [A]


def test_trouble_of_one_call_is_its_own_outcome(world: World) -> None:
    connection = single(world)
    serve(world, A, b="LOADING x")

    first, second, third = connection.run_many([get("a"), get("b"), get("c")])

    assert (first, second[0].code, third) == (["a"], "LOADING", ["c"])
    assert world.dropped == [A]


def test_a_primary_gets_all_calls_at_once_and_trouble_has_it_looked_for(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over()
    keys = ["a", "b"]

    first = watch.connection.run_many([get(key) for key in keys])
    second = watch.connection.run_many([get(key) for key in keys])

    assert [outcome.code for (outcome,) in first] == ["READONLY"] * 2
    assert second == [["a"], ["b"]]
    assert node_calls(world) == [(A, 2), (B, 2)]


def test_each_primary_of_a_cluster_gets_its_share_at_once(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)
    keys = ["a", "k", "b", "k", "c"]

    assert cluster.connection.run_many([get(key) for key in keys]) == [[key] for key in keys]
    assert sorted(node_calls(world)) == [(A, 2), (B, 3)]
    assert len(world.calls) == 2


def test_the_primaries_of_a_cluster_are_asked_at_the_same_time(
    cluster: Cluster, world: World
) -> None:
    settle_in(cluster, world)
    world.groups.clear()
    calls = [get(key, commands=2) for _ in range(300) for key in ("k", "a")]

    assert cluster.connection.run_many(calls) == [["k"] * 2, ["a"] * 2] * 300

    assert [sorted(group) for group in world.groups] == [[A, B], [A, B]]
    assert sorted(node_calls(world)) == [(A, 100), (A, 500), (B, 100), (B, 500)]


def test_a_primary_that_must_first_prove_itself_does_not_hold_up_the_others(
    cluster: Cluster, world: World
) -> None:
    settle_in(cluster, world)
    world.frozen.add(B)
    cluster.connection.run_many([get("a")])
    world.groups.clear()

    results = cluster.connection.run_many([get("a"), get("k")])

    assert results[1] == ["k"]
    assert isinstance(results[0][0], ConnectionError)
    assert not results[0][0].in_doubt
    assert [sorted(group) for group in world.groups] == [[A, B]]


def test_open_asks_the_primaries_at_the_same_time(cluster: Cluster, world: World) -> None:
    cluster.connection.open()

    assert [sorted(group) for group in world.groups] == [[A, B]]


def test_only_what_must_not_happen_twice_is_unknown_when_the_reply_to_many_is_lost(
    world: World,
) -> None:
    connection = single(world)
    world.frozen.add(A)
    send = Call((("GET", "s"),), "s", idempotent=False)

    results = connection.run_many([get("a"), send, *[send] * 1_000])

    (read,), (sent,), *rest = results
    assert (type(read), read.in_doubt) == (ConnectionError, True)
    assert (type(sent), sent.in_doubt) == (OutcomeUnknownError, True)
    unknown = [isinstance(outcome, OutcomeUnknownError) for (outcome,) in rest]
    assert unknown == [True] * 498 + [False] * 502, "what was not written is not in doubt"
    assert not any(outcome.in_doubt for (outcome,) in rest[498:])


def test_only_what_was_redirected_goes_again_and_by_itself(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)
    cluster.home = C
    keys = ["a", "k", "b"]
    calls = [get(key, commands=2) for key in keys]

    assert cluster.connection.run_many(calls) == [[key] * 2 for key in keys]
    assert sorted(node_calls(world)[:2]) == [(A, 2), (B, 4)]
    assert {address for address, _ in node_calls(world)[2:]} <= {A, C}

    world.calls.clear()
    assert cluster.connection.run_many(calls) == [[key] * 2 for key in keys]
    assert sorted(node_calls(world)) == [(B, 4), (C, 2)]


def test_a_slot_on_its_way_is_asked_for_by_itself(cluster: Cluster, world: World) -> None:
    settle_in(cluster, world)
    serve(world, A, k=f"ASK {SLOT} 127.0.0.1:7002")

    assert cluster.connection.run_many([get("a"), get("k")]) == [["a"], ["k"]]
    assert [address for address, name in world.log if name == "ASKING"] == [B]


@pytest.mark.parametrize("code", ["TRYAGAIN", "CLUSTERDOWN"])
def test_trouble_that_lasts_stays_with_its_call(cluster: Cluster, world: World, code: str) -> None:
    settle_in(cluster, world)
    serve(world, B, b=f"{code} x")

    first, second, third = cluster.connection.run_many([get("a"), get("b"), get("k")])

    assert (first, second[0].code, third) == (["a"], code, ["k"])
    assert sorted(node_calls(world)) == [(A, 1), (B, 1), (B, 2)]


def test_a_node_that_does_not_answer_is_trouble_for_its_own_share_and_asked_once(
    cluster: Cluster, world: World
) -> None:
    settle_in(cluster, world)
    world.frozen.add(B)

    results = cluster.connection.run_many([get("a"), get("k"), get("b")])

    assert results[1] == ["k"]
    for (outcome,) in (results[0], results[2]):
        assert (type(outcome), outcome.in_doubt) == (ConnectionError, True)
        assert not isinstance(outcome, OutcomeUnknownError)
    assert sorted(node_calls(world)) == [(A, 1), (B, 2)]

    world.calls.clear()
    results = cluster.connection.run_many([get("a"), get("k"), get("b")])
    assert results[1] == ["k"]
    assert node_calls(world) == [(A, 1)]  # B must first answer a PING
    world.frozen.clear()
    assert cluster.connection.run_many([get("a"), get("k")]) == [["a"], ["k"]]


def test_once_a_call_is_not_answered_when_it_goes_again_the_rest_keep_their_trouble(
    cluster: Cluster, world: World
) -> None:
    settle_in(cluster, world)
    moved = {str(n): f"MOVED {SLOT} 127.0.0.1:7004" for n in range(50)}
    serve(world, B, **moved)  # nobody is at this address

    results = cluster.connection.run_many([get(key) for key in (*moved, "k")])

    assert results[-1] == ["k"]
    assert [outcome.code for (outcome,) in results[:-1]] == ["", *["MOVED"] * 49]


def test_a_slot_that_nobody_serves_is_trouble_for_its_calls_alone(
    cluster: Cluster, world: World
) -> None:
    cluster.home = NOWHERE
    settle_in(cluster, world)

    first, second = cluster.connection.run_many([get("a"), get("k", commands=2)])

    assert first == ["a"]
    assert [outcome.code for outcome in second] == ["CLUSTERDOWN"] * 2


def test_if_nobody_can_be_asked_each_call_has_the_error_for_each_command(
    watch: Watch, cluster: Cluster, world: World
) -> None:
    world.servers.clear()

    for connection in (watch.connection, cluster.connection):
        world.calls.clear()
        results = connection.run_many([get("a"), get("k", commands=2)] * 100)
        assert [len(outcomes) for outcomes in results] == [1, 2] * 100
        assert {type(o) for outcomes in results for o in outcomes} == {ConnectionError}
        assert len(world.calls) <= 12, "one search, not one for each call"


def test_only_calls_that_do_not_block_go_together() -> None:
    with pytest.raises(ValueError, match="must not block"):
        Many((get("k"), Call((), "k", True, block=0.5)))


def lengths(prefix: str, number: int) -> Operation[list[Outcomes]]:
    """An operation that counts many lists."""
    for n in range(number):
        key = f"{prefix}{n}"
        yield Call((("RPUSH", key, *range(n + 1)),), key, idempotent=False)
    looks = [Call((("LLEN", f"{prefix}{n}"),), prefix, idempotent=True) for n in range(number)]
    sizes: list[Outcomes] = yield Many(tuple(looks))
    return sizes


def test_an_operation_is_sent_the_outcomes_of_each_call_in_order() -> None:
    connection = MemoryConnection(parse_url("memory://"))
    backend = StreamsBackend(connection, Capabilities(connection.display))

    assert backend._drive(lengths("l", 3)) == [[1], [2], [3]]


async def test_an_operation_is_sent_them_under_asyncio_too() -> None:
    connection = AsyncMemoryConnection(parse_url("memory://"))
    backend = AsyncStreamsBackend(connection, Capabilities(connection.display))

    assert await backend._drive(lengths("l", 3)) == [[1], [2], [3]]
