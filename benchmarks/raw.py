"""The bare protocol: what a socket, hiredis and nothing else can do. The yardstick.

Commands are packed by hiredis, a whole batch is written by one ``sendall``, replies are read by
hiredis. No client library, no envelope, no decoding beyond what is said.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import hiredis

__all__ = ["RawRedis"]


class RawRedis:
    """One connection, commands in, replies out."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def __enter__(self) -> RawRedis:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def run(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Write all commands at once, read all replies."""
        self._socket.sendall(b"".join([hiredis.pack_command(c) for c in commands]))
        replies = []
        for _ in commands:
            while (reply := self._reader.gets()) is False:
                self._reader.feed(self._socket.recv(1 << 16))
            if isinstance(reply, hiredis.ReplyError):
                raise reply
            replies.append(reply)
        return replies
