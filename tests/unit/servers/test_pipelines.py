"""Many calls at once on real servers: how many round trips they cost, in either world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from leanmq.backends.connections import AsyncServerConnection, ServerConnection
from leanmq.backends.servers import _topology
from leanmq.backends.streams.calls import Call
from leanmq.backends.urls import parse_url
from leanmq.backends.wire import AsyncWire, NodeCall, Wire
from tests.support.servers import ClusterTopology, SentinelTopology, SingleTopology, Topology

KEYS = [f"{{q{number}}}" for number in range(300)]
EXISTS = [Call((("EXISTS", key), ("ECHO", key)), key, idempotent=True) for key in KEYS]
EXPECTED = [[0, key.encode()] for key in KEYS]


@contextmanager
def counted() -> Iterator[Counter[object]]:
    """How often each address is asked for data, by threads and tasks alike."""
    asked: Counter[object] = Counter()
    write, run_async = Wire._write, AsyncWire.run

    def note(call: NodeCall) -> NodeCall:
        if any(command[0] == "EXISTS" for command in call.commands):
            asked[call.address] += 1
        return call

    with (
        patch.object(Wire, "_write", lambda self, call: write(self, note(call))),
        patch.object(AsyncWire, "run", lambda self, call: run_async(self, note(call))),
    ):
        yield asked


@contextmanager
def opened(servers: Topology) -> Iterator[ServerConnection]:
    target = parse_url(servers.url)
    connection = ServerConnection(_topology(target), Wire(target))
    connection.open()
    yield connection
    connection.close()


def test_a_cluster_is_asked_once_a_primary_for_three_hundred_keys(cluster: ClusterTopology) -> None:
    primaries = {cluster.primary_for(key).address for key in KEYS}

    with opened(cluster) as connection, counted() as asked:
        assert connection.run_many(EXISTS) == EXPECTED

    assert asked == dict.fromkeys(primaries, 1)
    assert len(primaries) == 3


async def test_under_asyncio_it_is_asked_once_a_primary_too(cluster: ClusterTopology) -> None:
    target = parse_url(cluster.url)
    connection = AsyncServerConnection(_topology(target), AsyncWire(target))
    await connection.open()

    with counted() as asked:
        assert await connection.run_many(EXISTS) == EXPECTED
    await connection.close()

    assert sorted(asked.values()) == [1, 1, 1]


@pytest.mark.parametrize("kind", ["single", "sentinel"])
def test_one_primary_is_asked_in_bounded_pipelines(
    kind: str, request: pytest.FixtureRequest
) -> None:
    servers: SingleTopology | SentinelTopology = request.getfixturevalue(kind)

    with opened(servers) as connection, counted() as asked:
        assert connection.run_many(EXISTS) == EXPECTED

    assert asked == {servers.primary_for().address: 2}  # 600 commands, of which 500 at a time


def test_a_slot_that_moves_costs_its_own_call_alone(cluster: ClusterTopology) -> None:
    moving = KEYS[7]
    cluster.admin(cluster.primary_for(moving)).set(moving, "here")
    results = []
    with opened(cluster) as connection, counted() as asked:

        def list_all() -> None:  # its one key has gone, so that the source says ASK
            results.append(connection.run_many(EXISTS))

        source, _ = cluster.move_slot(moving, midway=list_all)
        midway = asked.total()
        list_all()

    expected = [[1, k] if k == moving.encode() else [n, k] for n, k in EXPECTED]
    assert results == [expected, expected]
    assert midway == 3 + 2, "once a primary, and the moving one again: at its source and beyond"
    cluster.move_slot(moving, to=source)
