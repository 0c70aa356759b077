"""Clients that say not how they connect, or are none, are refused with the cure.

No server is needed here, nor asked.
"""

from __future__ import annotations

import traceback
from types import ModuleType
from typing import Any
from unittest import mock

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.sentinel

from leanmq import AsyncLeanMQ, LeanMQ
from leanmq.backends.clients import read_client
from leanmq.backends.registry import Options, open_async_backend, open_backend
from tests.support.given import (
    PASSWORD,
    SENTINELS,
    WORLDS,
    Make,
    cluster,
    forbid_connections,
    master,
    read,
)


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_connections(monkeypatch)


REFUSED: dict[str, tuple[Make, str]] = {
    "sentinel": (
        lambda package: package.sentinel.Sentinel(SENTINELS),
        r"sentinel\.Sentinel: it knows many services; give sentinel\.master_for",
    ),
    "replica": (
        lambda package: package.sentinel.Sentinel(SENTINELS).slave_for("orders"),
        r"reads from replicas; give sentinel\.master_for",
    ),
    "no sentinels": (lambda package: master(package, sentinels=[]), "no sentinels; name some"),
    "pipeline": (lambda package: package.Redis().pipeline(), r"Pipeline: it is a pipeline; give "),
    "pipeline of a cluster": (
        lambda package: cluster(package).pipeline(),
        "ClusterPipeline: it is a pipeline; give the client that it was made by",
    ),
    "address_remap": (
        lambda package: cluster(package, address_remap=lambda address: address),
        "address_remap .*cluster-announce-ip",
    ),
    "pool": (lambda package: package.ConnectionPool(), "ConnectionPool: it is no client"),
    "pool of another kind": (
        lambda package: package.Redis(
            connection_pool=type("Strange", (package.ConnectionPool,), {})()
        ),
        r"how its pool connects, a .*Strange, is unknown; give the URL",
    ),
    "connection of another kind": (
        lambda package: package.Redis(
            connection_pool=package.ConnectionPool(
                connection_class=type("Strange", (package.Connection,), {})
            )
        ),
        r"how its connections, each a .*Strange, connect is unknown; give the URL",
    ),
    "sentinels of another kind": (
        lambda package: type("Strange", (package.sentinel.Sentinel,), {})(SENTINELS).master_for(
            "s"
        ),
        r"how its .*Strange finds the primary is unknown",
    ),
    "own function at connect": (
        lambda package: package.Redis(redis_connect_func=print),
        "redis_connect_func .*do without it",
    ),
    "port that is no number": (lambda package: package.Redis(port="http"), "numbers"),
    "subscriber": (lambda package: package.Redis().pubsub(), "PubSub: it is no client"),
    "mock": (lambda package: mock.MagicMock(), r"MagicMock: it is no client .*or a FakeRedis"),
    "mock of a client": (
        lambda package: mock.MagicMock(spec=package.Redis),
        r"MagicMock: it is no client .*or a FakeRedis",
    ),
    "instance of a mock": (
        lambda package: mock.create_autospec(package.Redis, instance=True),
        "it is no client",
    ),
    "URL": (lambda package: "redis://h", r"builtins\.str: it is no client .*, or a URL"),
    "class": (lambda package: package.Redis, r"client\.Redis is a class; give a client made of it"),
}


@WORLDS
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_read_is_refused_with_the_cure(package: ModuleType, case: str) -> None:
    make, problem = REFUSED[case]
    client = make(package)

    with pytest.raises(TypeError, match=problem) as refused:
        read(client, package)

    assert str(refused.value).startswith("client=")


@WORLDS
def test_sentinels_that_differ_in_their_account_are_refused(package: ModuleType) -> None:
    sentinel = package.sentinel.Sentinel(SENTINELS)
    sentinel.sentinels[1] = package.Redis(host="s2", password=PASSWORD)

    with pytest.raises(TypeError, match="differ in account or TLS") as refused:
        read(sentinel.master_for("orders"), package)

    assert PASSWORD not in "".join(traceback.format_exception(refused.value))


@WORLDS
def test_sentinels_that_are_fake_are_refused(package: ModuleType) -> None:
    sentinel = package.sentinel.Sentinel(SENTINELS)
    fake = fakeredis.FakeRedis if package is redis else fakeredis.FakeAsyncRedis
    sentinel.sentinels = [fake(), fake()]

    with pytest.raises(TypeError, match="its sentinels are no servers"):
        read(sentinel.master_for("orders"), package)


def test_an_address_forced_upon_sentinels_is_refused() -> None:
    package: Any = redis.sentinel
    sentinel = package.Sentinel(SENTINELS)
    sentinel._force_master_ip = "10.0.0.9"  # as redis-py 8 takes it; 5.2 does not

    with pytest.raises(TypeError, match="force_master_ip"):
        read_client(sentinel.master_for("orders"), asynchronous=False)


def test_a_cluster_with_an_own_function_at_connect_is_refused() -> None:
    with pytest.raises(TypeError, match="redis_connect_func"):
        read_client(cluster(redis, redis_connect_func=print), asynchronous=False)


@pytest.mark.parametrize(
    "make",
    [
        lambda package: package.Redis(),
        master,
        cluster,
        lambda package: cluster(package).pipeline(),
        lambda package: package.sentinel.Sentinel(SENTINELS),
    ],
    ids=["plain", "service", "cluster", "pipeline", "sentinel"],
)
def test_a_client_of_the_other_world_is_refused_and_the_right_taker_is_named(make: Make) -> None:
    with pytest.raises(TypeError, match=r"it is for asyncio; give it to AsyncLeanMQ, or .* redis "):
        LeanMQ(client=make(redis.asyncio))
    with pytest.raises(
        TypeError, match=r"it is for threads; give it to LeanMQ, or .* redis\.async"
    ):
        AsyncLeanMQ(client=make(redis))


def test_a_fake_of_the_other_world_is_refused() -> None:
    with pytest.raises(TypeError, match="it is for asyncio; give it to AsyncLeanMQ"):
        LeanMQ(client=fakeredis.FakeAsyncRedis())
    with pytest.raises(TypeError, match="it is for threads; give it to LeanMQ"):
        AsyncLeanMQ(client=fakeredis.FakeRedis())


def test_one_of_url_backend_and_client_is_given() -> None:
    client, options = redis.Redis(), Options()
    given: dict[str, Any] = {
        "url": "memory://",
        "backend": open_backend("memory://", None, options),
    }

    for name, value in given.items():
        with pytest.raises(TypeError, match=f"either {name} or client, not both"):
            LeanMQ(client=client, **{name: value})
    with pytest.raises(TypeError, match="either url or client, not both"):
        LeanMQ(client=client, redis_host="h")
    with pytest.raises(TypeError, match="either url or backend or client"):
        LeanMQ(client=client, **given)
    async_backend = open_async_backend("memory://", None, options)
    with pytest.raises(TypeError, match="either backend or client, not both"):
        AsyncLeanMQ(client=redis.asyncio.Redis(), backend=async_backend)
