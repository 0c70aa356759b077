"""Routers that place one queue at the same moment: whatever their steps are mixed like, they agree.

The nodes are tables in this file; a schedule says who goes on next, one request at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq.backends.many import Record, Recorded
from leanmq.backends.protocol import Capabilities, Declare, Declared, Settings
from leanmq.errors import LeanMQError, PlacementError
from leanmq.sharding.placement import Placement
from leanmq.sharding.shards import Sharding
from leanmq.sharding.steps import Asks, Plan

URLS = "xyz"

MEMBERS: Sequence[Mapping[str, str]] = (
    {"a": "x", "b": "y", "c": "z"},
    {"a": "x", "b": "y"},
    {"a": "y", "b": "z"},
    {"a": "y", "b": "x"},
    {"a": "z"},
)

PAIRS = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 3)]
"""Those that have a node in common, by another name perhaps."""

schedules = st.lists(st.booleans(), min_size=10, max_size=60)
ids = st.permutations([f"{number:016x}" for number in range(8)])
"""Of the nodes, in the order in which they are given out."""


@attrs.frozen
class Server:
    """What a node keeps: records, and the queues that were declared."""

    records: dict[str, str] = attrs.field(factory=dict)
    queues: set[str] = attrs.field(factory=set)

    def answer(self, request: Any) -> Any:
        """As a backend would, in one atomic step."""
        if request == "open":
            return Capabilities("a table", many_queues=True)
        if isinstance(request, Declare):
            self.queues.add(request.name)
            return Declared(Settings(lease=60.0), created=True, created_at=1.0, epoch=1)
        assert isinstance(request, Record)
        stored = self.records.get(request.name)
        if stored == request.expected:
            if request.forget:
                self.records.pop(request.name, None)
            elif request.value is not None:
                self.records[request.name] = request.value
        return Recorded(self.records.get(request.name))


def steps(plan: Plan[Any], nodes: Sequence[Server]) -> Generator[None, None, Any]:
    """Carry a plan out, and stop before each request; a result or an error is returned."""
    answer: Any = None
    try:
        while True:
            step = plan.send(answer)
            assert isinstance(step, Asks)
            answer = []
            for place, request in step.asks:
                yield
                answer.append(nodes[place].answer(request))
    except StopIteration as stop:
        return stop.value
    except LeanMQError as error:
        return error


def client(members: Mapping[str, str], weights: Mapping[str, float]) -> Sharding:
    return Sharding({name: weights.get(name, 1.0) for name in members}, shards=4)


def opened_and_declared(sharding: Sharding) -> Plan[Any]:
    yield from sharding.open()
    return (yield from sharding.declare(Declare("orders", Settings())))


def raced(
    runs: Sequence[Callable[[], Generator[None, None, Any]]], schedule: Sequence[bool]
) -> list[Any]:
    """The results of two runs, mixed as the schedule says, and one after the other then."""
    running: dict[int, Any] = {place: run() for place, run in enumerate(runs)}
    results: list[Any] = [None] * len(runs)
    turns = iter(schedule)
    while running:
        turn = int(next(turns, False))
        place = turn if turn in running else next(iter(running))
        try:
            next(running[place])
        except StopIteration as stop:
            results[place] = stop.value
            del running[place]
    return results


def race(
    schedule: Sequence[bool],
    given_out: Sequence[str],
    members: Sequence[Mapping[str, str]],
    weights: Sequence[Mapping[str, float]] = ({}, {}),
) -> tuple[dict[str, Server], list[Sharding], list[Any]]:
    servers = {url: Server() for url in URLS}
    clients = [client(*pair) for pair in zip(members, weights, strict=True)]
    runs = [
        lambda one=one, its=its: steps(
            opened_and_declared(one), [servers[url] for url in its.values()]
        )
        for one, its in zip(clients, members, strict=True)
    ]
    with patch.object(secrets, "token_hex", side_effect=given_out):
        return servers, clients, raced(runs, schedule)


def placements(servers: Mapping[str, Server]) -> dict[str, str]:
    """What is written down of the queue, by the url of the node."""
    return {
        url: server.records["orders"]
        for url, server in servers.items()
        if "orders" in server.records
    }


@given(schedules, ids, st.sampled_from(MEMBERS), st.booleans())
@settings(max_examples=100, deadline=None)
def test_with_the_same_nodes_both_have_one_placement_whatever_their_weights(
    schedule: list[bool], ids: list[str], members: Mapping[str, str], same_weights: bool
) -> None:
    weights: list[dict[str, float]] = [{}, {} if same_weights else {"a": 9.0}]

    servers, clients, results = race(schedule, ids, (members, members), weights)

    assert all(isinstance(result, Declared) for result in results), results
    stored = placements(servers)
    assert stored.keys() == set(members.values())
    [text] = set(stored.values())
    assert [one.placements["orders"] for one in clients] == [Placement.decode(text)] * 2
    declared = {name for server in servers.values() for name in server.queues}
    assert declared == {f"orders#{n}" for n in range(4)}
    assert sum(len(server.queues) for server in servers.values()) == 4


@given(schedules, ids, st.sampled_from(PAIRS), st.booleans())
@settings(max_examples=200, deadline=None)
def test_with_other_nodes_in_common_one_wins_and_the_other_leaves_nothing(
    schedule: list[bool], ids: list[str], places: tuple[int, int], turned: bool
) -> None:
    pair = [MEMBERS[place] for place in (reversed(places) if turned else places)]

    servers, clients, results = race(schedule, ids, pair)

    [winner] = [place for place, result in enumerate(results) if isinstance(result, Declared)]
    assert isinstance(results[1 - winner], PlacementError)
    stored = placements(servers)
    assert stored.keys() == set(pair[winner].values())
    assert {Placement.decode(text).encode() for text in stored.values()} == {
        clients[winner].placements["orders"].encode()
    }
    assert "orders" not in clients[1 - winner].placements
    assert sum(len(server.queues) for server in servers.values()) == 4


@given(schedules, st.sampled_from(MEMBERS))
@settings(max_examples=80, deadline=None)
def test_two_threads_of_one_client_agree(schedule: list[bool], members: Mapping[str, str]) -> None:
    servers = {url: Server() for url in URLS}
    nodes = [servers[url] for url in members.values()]
    shared = client(members, {})

    def run() -> Generator[None, None, Any]:
        return steps(opened_and_declared(shared), nodes)

    results = raced([run, run], schedule)

    assert all(isinstance(result, Declared) for result in results), results
    assert len(set(placements(servers).values())) == 1
