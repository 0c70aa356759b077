"""Sentinel: who is primary, and how that changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis.sentinel import Sentinel

from tests.support.servers import (
    SentinelTopology,
)
from tests.support.waiting import wait_until
from tests.unit.servers.clients import Connect, replicated


def address_by_sentinels(topology: SentinelTopology) -> int:
    hosts = [("127.0.0.1", process.port) for process in topology.sentinels]
    make: Callable[..., Any] = Sentinel  # redis-py leaves it untyped.
    asked = make(hosts, sentinel_kwargs={"socket_timeout": 1, "protocol": 2})
    try:
        return int(asked.discover_master(topology.service)[1])
    finally:
        for client in asked.sentinels:
            client.close()


def test_sentinels_send_clients_to_the_proxies(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    assert sentinel.url.startswith("redis+sentinel://127.0.0.1:")
    assert sentinel.url.endswith("/leanmq-test")
    assert address_by_sentinels(sentinel) == sentinel.proxy_for().port
    assert replicated(connect(sentinel.proxy_for()), "k", 2) == 2


def test_a_planned_failover_under_sentinel_moves_the_primary(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    for _ in range(2):  # The second one is ordered while the first is being completed.
        old = sentinel.failover()
        new = sentinel.wait_for_new_primary(None, old)
        assert new is not old
    sentinel.heal()
    assert sentinel.primary_for() is new
    for process in sentinel.sentinels:
        # One that still believes a replica to be a primary would undo its next promotion.
        flat = sentinel.ask(process, "SENTINEL", "REPLICAS", sentinel.service)
        assert [dict(zip(r[::2], r[1::2], strict=True))["role-reported"] for r in flat] == [
            "slave",
            "slave",
        ]
    wait_until(lambda: address_by_sentinels(sentinel) == new.address[1], 3, "the new address")
    assert replicated(connect(sentinel.proxy_for()), "k", 2) == 2


def test_sentinels_replace_a_killed_primary_and_healing_brings_it_back(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    assert replicated(connect(sentinel.proxy_for()), "k", 2) == 2
    old = sentinel.kill_primary()
    new = sentinel.wait_for_new_primary(None, old, timeout=10)
    assert connect(sentinel.proxy_for()).get("k") == b"v"
    sentinel.heal()
    assert sentinel.primary_for() is new
    assert sentinel.ask(old, "ROLE")[0] == "slave"
    assert sentinel.ask(old, "ROLE")[2] == new.address[1]


def test_an_isolated_primary_keeps_its_clients_and_loses_its_office(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    client = connect(sentinel.proxy_for())
    client.set("k", "v")
    old = sentinel.isolate_primary()
    new = sentinel.wait_for_new_primary(None, old, timeout=10)
    assert client.set("lost", "write")
    assert connect(sentinel.proxy_for()).get("lost") is None
    sentinel.heal()
    assert sentinel.primary_for() is new
    assert sentinel.ask(old, "ROLE")[0] == "slave"


def test_frozen_replicas_confirm_nothing(sentinel: SentinelTopology, connect: Connect) -> None:
    frozen = sentinel.freeze_replicas()
    assert len(frozen) == 2
    assert replicated(connect(sentinel.proxy_for()), "k", 1, timeout_ms=100) == 0
