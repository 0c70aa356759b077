"""Cluster: slots that move, primaries that change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis.cluster import RedisCluster

from tests.support.proxy import ALL
from tests.support.servers import (
    ClusterTopology,
)
from tests.unit.servers.clients import replicated

TWO_KEYS = "return {redis.call('GET', KEYS[1]), redis.call('INCR', KEYS[2])}"


@pytest.fixture
def cluster_client(cluster: ClusterTopology) -> Iterator[RedisCluster]:
    client = RedisCluster(
        host="127.0.0.1", port=cluster.proxies[0].port, protocol=2, socket_timeout=2
    )
    yield client
    client.close()


def test_a_cluster_sends_clients_to_the_proxies(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    known: Callable[[], Any] = cluster_client.get_nodes  # redis-py leaves it untyped.
    assert {node.port for node in known()} == {proxy.port for proxy in cluster.proxies}
    assert cluster.url == "redis+cluster://" + ",".join(
        f"127.0.0.1:{proxy.port}" for proxy in cluster.proxies
    )
    cluster_client.set("{q}k", "v")
    assert cluster.admin(cluster.primary_for("{q}k")).get("{q}k") == b"v"


def test_a_slot_moves_away_and_back_while_it_is_used(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    for number in range(50):
        cluster_client.set(f"{{q}}{number}", number)
    source = cluster.primary_for("{q}0")
    midway: list[object] = []

    def use() -> None:
        midway.extend(cluster_client.get(f"{{q}}{number}") for number in range(50))

    moved = cluster.move_slot("{q}0", midway=use)
    assert midway == [str(number).encode() for number in range(50)]
    assert moved == (source, cluster.primary_for("{q}0"))
    assert moved[1] is not source
    assert cluster_client.eval(TWO_KEYS, 2, "{q}7", "{q}new") == [b"7", 1]
    assert cluster.admin(moved[1]).get("{q}49") == b"49"
    assert cluster.move_slot("{q}0", to=source) == (moved[1], source)
    assert cluster.primary_for("{q}0") is source
    assert cluster_client.eval(TWO_KEYS, 2, "{q}7", "{q}new") == [b"7", 2]
    assert cluster.admin(source).get("{q}49") == b"49"


def test_a_migration_left_half_way_is_finished_by_healing(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    for number in range(5):
        cluster_client.set(f"{{q}}{number}", number)
    source = cluster.primary_for("{q}0")

    def stop() -> None:
        raise KeyError("half-way")

    with pytest.raises(KeyError, match="half-way"):
        cluster.move_slot("{q}0", midway=stop)
    assert any("in migration" in complaint for complaint in cluster.complaints())
    cluster.heal()
    target = cluster.primary_for("{q}0")
    assert target is not source
    assert [cluster.ask(target, "GET", f"{{q}}{n}") for n in range(5)] == list("01234")
    cluster.move_slot("{q}0", to=source)


def test_a_planned_failover_of_a_cluster_moves_the_primary(cluster: ClusterTopology) -> None:
    (replica,) = cluster.replicas_for("k")
    old = cluster.failover("k")
    assert cluster.wait_for_new_primary("k", old) is replica
    cluster.heal()
    assert cluster.replicas_for("k") == [old]


def test_a_cluster_replaces_a_killed_primary_and_healing_brings_it_back(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    assert replicated(cluster.admin(cluster.primary_for("{q}k")), "{q}k", 1) == 1
    old = cluster.kill_primary("{q}k")
    new = cluster.wait_for_new_primary("{q}k", old)
    assert cluster.admin(new).get("{q}k") == b"v"
    cluster.heal()
    assert cluster.primary_for("{q}k") is new
    assert cluster.replicas_for("{q}k") == [old]
    assert cluster_client.get("{q}k") == b"v"


def test_cut_replication_confirms_nothing_and_is_healed(cluster: ClusterTopology) -> None:
    admin = cluster.admin(cluster.cut_replication("k"))
    assert replicated(admin, "k", 1, timeout_ms=100) == 0
    cluster.heal()
    assert replicated(admin, "k", 1) == 1


def test_resetting_everything_at_once_is_healed(cluster: ClusterTopology) -> None:
    assert cluster.kill_connections(ALL) >= 3
    cluster.heal()
    assert cluster.complaints() == []
