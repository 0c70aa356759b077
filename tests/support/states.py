"""States in which a server answers but does not serve: entered here, ended at the block's end.

``heal`` ends all of them too, should a block not come to its end.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

from .ports import HOST
from .process import RedisProcess
from .topology import Topology
from .waiting import wait_until

__all__ = ["busy", "crowded", "failing_saves", "loading", "lonely", "out_of_memory", "replica"]

_FILLERS = 6_000


@contextmanager
def out_of_memory(servers: Topology) -> Iterator[None]:
    """Every data node uses more memory than it may: what may need more gets OOM."""
    with _settings(servers):
        servers.config_set("maxmemory", 1)
        yield


@contextmanager
def lonely(servers: Topology, key: str) -> Iterator[None]:
    """The key's primary wants one replica more than it has: writes get NOREPLICAS."""
    with _settings(servers):
        wanted = len(servers.replicas_for(key)) + 1
        servers.config_set("min-replicas-to-write", wanted, [servers.primary_for(key)])
        yield


@contextmanager
def failing_saves(servers: Topology, key: str) -> Iterator[None]:
    """The key's primary cannot save its data: writes, and PING, get MISCONF."""
    node = servers.primary_for(key)
    # A directory of the name of the file to be written: only a full disk is as good.
    obstacle = node.directory / "dump.rdb"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    try:
        with _settings(servers):
            servers.config_set("save", "3600 1", [node])
            _await_save(servers, node, "err")
            yield
    finally:
        obstacle.rmdir()
        _await_save(servers, node, "ok")


@contextmanager
def replica(servers: Topology) -> Iterator[None]:
    """The only server is made the replica of nobody: writes get READONLY."""
    node = servers.primary_for()
    servers.ask(node, "REPLICAOF", HOST, 1)
    try:
        yield
    finally:
        servers.ask(node, "REPLICAOF", "NO", "ONE")


@contextmanager
def busy(servers: Topology, key: str) -> Iterator[None]:
    """A script does not end: everything gets BUSY."""
    node = servers.primary_for(key)
    with _settings(servers):
        servers.config_set("busy-reply-threshold", 1, [node])
        with _unanswered(node, b'EVAL "while true do end" 0'):
            _await_refusal(servers, node, "BUSY")
            try:
                yield
            finally:
                servers.ask(node, "SCRIPT", "KILL")
                wait_until(node.ping, 10.0, f"{node!r} to have killed the script")


@contextmanager
def loading(servers: Topology) -> Iterator[None]:
    """The only server reads its data from the disk: everything gets LOADING."""
    node = servers.primary_for()
    fill = "for i = 1, ARGV[1] do redis.call('SET', KEYS[1] .. i, string.rep('x', 1024)) end"
    empty = "for i = 1, ARGV[1] do redis.call('DEL', KEYS[1] .. i) end"
    servers.ask(node, "EVAL", fill, 1, "filler", _FILLERS)
    try:
        with _settings(servers):
            # It looks for requests after each kilobyte, and takes a millisecond for a key: in
            # all, longer than any test waits. Not longer for each: a kilobyte holds dozens of
            # the small keys that other tests left, and so long it would not answer.
            servers.config_set("rdbcompression", "no", [node])
            servers.config_set("loading-process-events-interval-bytes", 1_024, [node])
            servers.config_set("key-load-delay", 1_000, [node])
            with _unanswered(node, b"DEBUG RELOAD"):
                _await_refusal(servers, node, "LOADING")
                try:
                    yield
                finally:
                    servers.ask(node, "CONFIG", "SET", "key-load-delay", 0)
                    wait_until(node.ping, 10.0, f"{node!r} to have loaded its data")
    finally:
        servers.ask(node, "EVAL", empty, 1, "filler", _FILLERS)


@contextmanager
def crowded(servers: Topology) -> Iterator[None]:
    """The key's primary serves the clients that it has, and takes no more."""
    node = servers.primary_for()
    servers.ask(node, "PING")  # our own connection is one of those that stay
    with _settings(servers):
        servers.config_set("maxclients", 1, [node])
        yield


@contextmanager
def _settings(servers: Topology) -> Iterator[None]:
    try:
        yield
    finally:
        servers.restore_settings()


@contextmanager
def _unanswered(node: RedisProcess, command: bytes) -> Iterator[None]:
    """Send a command that will not be answered soon."""
    with socket.create_connection((HOST, node.port), 5.0) as sock:
        sock.sendall(command + b"\r\n")
        yield


def _await_refusal(servers: Topology, node: RedisProcess, code: str) -> None:
    refusal = ""

    def refused() -> bool:
        nonlocal refusal
        refusal = ""
        try:
            servers.ask(node, "PING")
        except redis.RedisError as error:
            # redis-py takes LOADING for trouble with the connection, and keeps its code.
            refusal = f"{getattr(error, 'status_code', '')} {type(error).__name__} {error}"
        return code in refusal or (code == "LOADING" and "BusyLoading" in refusal)

    wait_until(refused, 10.0, lambda: f"{code} of {node!r}, which said {refusal!r}")


def _await_save(servers: Topology, node: RedisProcess, status: str) -> None:
    """Save until that ends so; a save may be on its way already, for a new replica."""

    def saved() -> bool:
        with suppress(redis.RedisError):
            servers.ask(node, "BGSAVE")
        wait_until(lambda: not _saving(servers, node), 10.0, f"{node!r} to have tried to save")
        return bool(servers.info(node, "persistence")["rdb_last_bgsave_status"] == status)

    wait_until(saved, 10.0, f"{node!r} to save with the result {status}")


def _saving(servers: Topology, node: RedisProcess) -> bool:
    return bool(servers.info(node, "persistence")["rdb_bgsave_in_progress"])
