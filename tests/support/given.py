"""Clients of redis-py as applications have them, made without a server: for ``client=``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final
from unittest import mock

import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel

from leanmq.backends.clients import read_client
from leanmq.backends.urls import Target

__all__ = ["ACCOUNT", "PASSWORD", "SENTINELS", "WORLDS", "Make", "cluster", "forbid_connections",
           "master", "read"]  # fmt: skip

PASSWORD: Final = "hunter2"
ACCOUNT: Final = {"username": "ann", "password": PASSWORD}
SENTINELS: Final = [("s1", 26379), ("s2", 26380)]
Make = Callable[[ModuleType], Any]

WORLDS: Final = pytest.mark.parametrize("package", [redis, redis.asyncio], ids=["sync", "asyncio"])


def forbid_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing connect; a cluster for threads would when it is made, and is made to believe."""
    here = threading.get_ident()  # the proxies of other tests live in a thread of this process
    for name in ("connect", "connect_ex"):
        known = getattr(socket.socket, name)

        def connect(sock: Any, address: Any, known: Any = known) -> Any:
            assert threading.get_ident() != here, "reading settings is no reason to connect"
            return known(sock, address)

        monkeypatch.setattr(socket.socket, name, connect)
    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(redis.cluster, "CommandsParser", mock.Mock())


def read(client: object, package: ModuleType) -> Target:
    return read_client(client, asynchronous=package is redis.asyncio)


def master(
    package: ModuleType,
    sentinel_kwargs: dict[str, Any] | None = None,
    sentinels: Any = SENTINELS,
    **settings: Any,
) -> Any:
    sentinel = package.sentinel.Sentinel(sentinels, sentinel_kwargs=sentinel_kwargs, **settings)
    return sentinel.master_for("orders")


def cluster(package: ModuleType, **settings: Any) -> Any:
    nodes = [package.cluster.ClusterNode("c1", 7000), package.cluster.ClusterNode("c2", 7001)]
    return package.RedisCluster(startup_nodes=nodes, **settings)
