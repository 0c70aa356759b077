"""Plain clients of the test servers."""

from __future__ import annotations

import socket
from collections.abc import Callable

import redis

Connect = Callable[..., redis.Redis]


def raw(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def replicated(client: redis.Redis, key: str, replicas: int, timeout_ms: int = 2000) -> int:
    """Write the key, and return how many of so many replicas confirm it in time."""
    client.set(key, "v")
    wait: Callable[..., int] = client.wait  # redis-py leaves it untyped.
    return wait(replicas, timeout_ms)
