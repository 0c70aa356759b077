"""A topology for a test, healed and emptied after it; clients that never retry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support import running
from tests.support.proxy import Proxy
from tests.support.servers import (
    ClusterTopology,
    SentinelTopology,
    SingleTopology,
    Topology,
)
from tests.unit.servers.clients import Connect

T = TypeVar("T", bound=Topology)


@pytest.fixture
def single() -> Iterator[SingleTopology]:
    yield from healed(running.get("redis"))


@pytest.fixture
def sentinel() -> Iterator[SentinelTopology]:
    yield from healed(running.get("sentinel"))


@pytest.fixture
def cluster() -> Iterator[ClusterTopology]:
    yield from healed(running.get("cluster"))


def healed(topology: T) -> Iterator[T]:
    yield topology
    topology.heal()
    for node in topology.nodes:
        if topology.ask(node, "ROLE")[0] == "master":
            topology.ask(node, "FLUSHALL")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients through a proxy that never retry, closed after the test."""
    clients: list[redis.Redis] = []

    def make(proxy: Proxy, timeout: float = 2.0) -> redis.Redis:
        clients.append(
            redis.Redis(
                host="127.0.0.1",
                port=proxy.port,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout,
            )
        )
        return clients[-1]

    yield make
    for client in clients:
        client.close()
