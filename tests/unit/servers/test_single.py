"""The server program, and one server."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import redis

from tests.support import binary, states
from tests.support.servers import (
    ClusterTopology,
    SentinelTopology,
    SingleTopology,
)
from tests.unit.servers.clients import Connect


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    found = binary.require_server()
    monkeypatch.setenv("LEANMQ_TEST_REDIS_SERVER", str(found))
    assert binary.find_server() == found
    assert binary.server_version(found) >= (7, 0, 0)


def test_a_missing_server_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANMQ_TEST_REDIS_SERVER", "/nowhere/redis-server")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="/nowhere/redis-server"):
        binary.require_server()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="/nowhere/redis-server"):
        binary.require_server()


def test_healing_the_healthy_takes_no_time(
    single: SingleTopology, sentinel: SentinelTopology, cluster: ClusterTopology
) -> None:
    for topology in (single, sentinel, cluster):
        took = []
        for _ in range(3):
            began = time.monotonic()
            topology.heal()
            took.append(time.monotonic() - began)
        assert min(took) < 0.05, topology.kind


def test_a_frozen_server_answers_nobody_until_it_is_thawed(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0], timeout=0.1)
    assert client.ping()
    node = single.freeze_primary()
    assert node.frozen
    with pytest.raises(redis.TimeoutError):
        client.ping()
    single.thaw()
    assert client.ping()


@pytest.mark.parametrize("graceful", [True, False])
def test_a_restarted_server_has_its_data_and_its_port(
    single: SingleTopology, connect: Connect, graceful: bool
) -> None:
    client = connect(single.proxies[0])
    client.set("k", "v")
    before = single.nodes[0].pid
    node = single.restart_primary(graceful=graceful)
    assert node.pid != before
    client.close()
    assert client.get("k") == b"v"


def test_what_one_server_cannot_do_is_said(single: SingleTopology) -> None:
    assert (single.can_failover, single.can_move_slots, single.can_isolate) == (False,) * 3
    with pytest.raises(NotImplementedError, match="redis topology"):
        single.failover()
    with pytest.raises(NotImplementedError, match="redis topology"):
        single.move_slot("k")


def test_changed_settings_are_restored(single: SingleTopology) -> None:
    node = single.nodes[0]
    single.config_set("maxmemory", 5_000_000)
    single.config_set("maxmemory", 6_000_000)
    assert single.ask(node, "CONFIG", "GET", "maxmemory") == ["maxmemory", "6000000"]
    single.heal()
    assert single.ask(node, "CONFIG", "GET", "maxmemory") == ["maxmemory", "0"]


def test_users_are_forgotten_and_a_replica_is_a_primary_again(single: SingleTopology) -> None:
    node = single.nodes[0]
    single.set_user("ann", ">pw", "+@all", "~*")
    single.set_user("ann", "-@all")
    single.ask(node, "REPLICAOF", "127.0.0.1", 1)
    assert single.ask(node, "ACL", "USERS") == ["ann", "default"]

    single.heal()

    assert single.ask(node, "ACL", "USERS") == ["default"]
    assert single.ask(node, "ROLE")[0] == "master"


@pytest.mark.parametrize(
    ("enter", "refusal"),
    [
        (states.out_of_memory, "command not allowed when used memory"),
        (lambda single: states.lonely(single, "k"), "NOREPLICAS"),
        (lambda single: states.failing_saves(single, "k"), "MISCONF"),
        (lambda single: states.busy(single, "k"), "BUSY"),
        (states.replica, "read only replica"),
        (states.loading, "loading the dataset"),
        (states.crowded, "max number of clients"),
    ],
)
def test_a_state_lasts_as_long_as_its_block(
    single: SingleTopology,
    connect: Connect,
    enter: Callable[[SingleTopology], AbstractContextManager[None]],
    refusal: str,
) -> None:
    client = connect(single.proxies[0])
    client.close()

    with enter(single), pytest.raises(redis.RedisError, match=refusal):
        client.set("k", "v")

    assert client.set("k", "v")
    assert single.complaints() == []


def test_commands_are_counted(single: SingleTopology, connect: Connect) -> None:
    client = connect(single.proxies[0])
    calls, total = single.command_calls().get("append", 0), single.commands_processed()
    for _ in range(7):
        client.append("k", "v")
    assert single.command_calls()["append"] == calls + 7
    assert single.commands_processed() >= total + 7


def test_an_illness_that_cannot_be_healed_is_told(single: SingleTopology) -> None:
    node = single.nodes[0]
    config = node.directory / "redis.conf"
    text = config.read_text()
    config.write_text(text + "no-such-setting yes\n")
    node.kill()
    with pytest.raises(RuntimeError, match="no-such-setting"):
        single.heal()
    config.write_text(text)
