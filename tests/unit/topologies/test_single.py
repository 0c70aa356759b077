"""One server; and what holds for every topology."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq.backends.single import SingleServer
from leanmq.backends.urls import parse_url
from leanmq.backends.wire import NodeCall
from leanmq.errors import AccessError, ConnectionError
from tests.unit.topologies.world import (
    GET,
    A,
    Cluster,
    Watch,
    World,
    call,
    connect,
    data,
    error,
)


def test_a_single_server_gets_every_call_as_it_is(world: World) -> None:
    world.servers[A] = data()
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    connection.open()

    assert connection.run(call(GET, ("GET", "j"), block=1.0)) == ["k", "j"]
    assert world.calls[-1] == NodeCall(A, (GET, ("GET", "j")), True, 1.0)
    assert not connection.topology.slots_apart


@pytest.mark.parametrize(
    ("reply", "raised"),
    [
        ("LOADING x", ConnectionError),
        ("NOAUTH Authentication required.", AccessError),
        ("MISCONF Errors writing to the AOF file", None),
    ],
)
def test_open_fails_unless_the_server_is_up_and_only_refuses_work(
    world: World, reply: str, raised: type[Exception] | None
) -> None:
    world.servers[A] = lambda _: error(reply)
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    if raised is None:
        connection.open()
    else:
        with pytest.raises(raised):
            connection.open()


def test_trouble_on_a_single_server_drops_its_idle_connections(world: World) -> None:
    world.servers[A] = data("slave")
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    (outcome,) = connection.run(call())

    assert outcome.code == "READONLY"
    assert world.dropped == [A]


def test_an_error_before_any_command_is_the_outcome_of_each(
    watch: Watch, cluster: Cluster, world: World
) -> None:
    world.servers.clear()

    for connection in (watch.connection, cluster.connection):
        first, second = connection.run(call(GET, GET))
        assert first is second
        assert isinstance(first, ConnectionError)


def test_what_is_no_error_of_ours_passes_through(world: World) -> None:
    def interrupt(_: tuple[Any, ...]) -> Any:
        raise KeyboardInterrupt

    world.servers[A] = interrupt
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    with pytest.raises(KeyboardInterrupt):
        connection.run(call())
