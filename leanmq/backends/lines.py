"""Idle connections of redis-py: how they are made, kept apart, and found dead. Does no I/O."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from leanmq.backends.streams.calls import Command
from leanmq.backends.urls import Address, Target
from leanmq.errors import ClosedError, ConnectionError

try:
    import hiredis

    pack_command: Any = hiredis.pack_command
except (ImportError, AttributeError):  # not installed, or older than 3.0
    pack_command = None

__all__ = ["Home", "Key", "Line", "Lines", "disown", "pack", "stirs"]

Line: TypeAlias = Any
"""A connection of redis-py, whose methods are untyped; or None."""

Home: TypeAlias = "tuple[int, asyncio.AbstractEventLoop | None]"
"""The process and, under asyncio, the event loop that a line belongs to."""

Key: TypeAlias = "tuple[Address, float, Home]"
"""Lines of one key are alike: the address, the seconds that they wait for a reply, the home."""


class Lines:
    """The idle connections of one client, the one used last first.

    A forked child or another event loop starts with none, and never touches what it
    inherited. A line in use is in nobody's books: if its user does not give it back, nobody
    misses it. No lock: each step is one that the interpreter does not divide.

    Args:
        target: Account, database and TLS of the connections.
        kinds: Their classes, for TCP, TLS and Unix sockets.
        settings: What all of them are given besides.
    """

    def __init__(self, target: Target, kinds: tuple[Any, Any, Any], **settings: Any) -> None:
        self._target = target
        self._kinds = kinds
        self._settings = settings
        self._idle: dict[Key, list[Line]] = {}
        self._closed = False

    def __del__(self) -> None:
        """In a forked child: take care that the lines it inherited are collected unnoticed.

        See ``disown``; the lines of threads need no such care.
        """
        for (_, _, (pid, loop)), lines in self._idle.items():
            if loop is not None and pid != os.getpid():
                for line in lines:
                    disown(line)

    def idle(self, key: Key) -> list[Line]:
        """The idle lines of a key, to pop from.

        Raises:
            ClosedError: After ``close``.
        """
        idle = self._idle.get(key)
        if idle is None:
            if self._closed:
                raise ClosedError(f"the client of {self._target.display} is closed; open another")
            for other in list(self._idle):
                if (loop := other[2][1]) is not None and loop.is_closed():
                    self._idle.pop(other, None)
            idle = self._idle.setdefault(key, [])
        return idle

    def give_back(self, key: Key, line: Line) -> bool:
        """Take a clean line back; False if its like are no longer kept: hang up."""
        idle = None if self._closed else self._idle.get(key)
        if idle is None:
            return False
        idle.append(line)
        return True

    def forget(self, home: Home, address: Address | None = None) -> list[Line]:
        """Take out the idle lines to an address, or all of them."""
        keys = [key for key in list(self._idle) if key[2] == home and address in (None, key[0])]
        taken: list[Line] = []
        for key in keys:
            idle = self._idle.pop(key, [])
            # One by one: another thread may have the list in hand, and must not pop what we close.
            with suppress(IndexError):
                while True:
                    taken.append(idle.pop(0))
        return taken

    def close(self, home: Home) -> list[Line]:
        """Take out all idle lines, and no more of them in."""
        self._closed = True
        return self.forget(home)

    def make(self, key: Key, *, sentinel: bool) -> Line:
        """A new line, not yet connected."""
        address, patience, _ = key
        target = self._target
        tls = target.sentinel_tls if sentinel else target.tls
        settings = {
            # No pushes in RESP2, hence no maintenance notifications, under which redis-py 8
            # lets dirty connections pass.
            "protocol": 2,
            "decode_responses": False,
            "health_check_interval": 0,
            "socket_connect_timeout": patience,
            "socket_timeout": patience,
            "db": 0 if sentinel else target.db,
            "username": target.sentinel_username if sentinel else target.username,
            "password": target.sentinel_password if sentinel else target.password,
        } | self._settings
        provider = target.sentinel_credential_provider if sentinel else target.credential_provider
        if provider is not None:
            settings["credential_provider"] = Credentials(provider, self._target.display)
        tcp, ssl, unix = self._kinds
        if isinstance(address, str):
            return unix(path=address, **settings)
        settings |= {"host": address[0], "port": address[1], "socket_keepalive": True}
        return tcp(**settings) if tls is None else ssl(**settings, **tls)


def disown(line: Line) -> None:
    """In a forked child: close the socket of a line of asyncio that belongs to the parent.

    Else asyncio would take it out of the epoll set that the child shares with its parent, whose
    loop would then see no reply. What is closed here, and so in the child alone, is out of the
    child's reach.

    uvloop lets nobody close its sockets, and will close the number by itself: it is made to stand
    for nothing.
    """
    with suppress(Exception):
        sock = line._writer.get_extra_info("socket")
        if hasattr(sock, "_sock"):
            sock._sock.close()
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            os.dup2(nothing, sock.fileno(), inheritable=False)
        finally:
            os.close(nothing)


class Credentials:
    """A credential provider of redis-py, in the user's hands: what it raises becomes ours."""

    def __init__(self, provider: Any, where: str) -> None:
        self._provider = provider
        self._where = where

    def get_credentials(self) -> Any:
        """User and password, for threads."""
        try:
            return self._provider.get_credentials()
        except Exception as error:  # of the application's provider: any kind; kept as the cause
            raise self._failed(error) from error

    async def get_credentials_async(self) -> Any:
        """User and password, for asyncio."""
        try:
            return await self._provider.get_credentials_async()
        except Exception as error:  # of the application's provider: any kind; kept as the cause
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ConnectionError:
        return ConnectionError(
            f"the credential_provider for {self._where} failed ({type(error).__name__}); mend it, "
            "or see whether what it asks can be reached"
        )


def pack(commands: Iterable[Command]) -> bytes:
    """The commands as RESP, for a single write."""
    if pack_command is not None:
        return b"".join(map(pack_command, commands))
    parts = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for argument in command:
            data = argument if isinstance(argument, bytes) else str(argument).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


def stirs(sock: Any) -> bool:
    """Whether an idle socket has something to read: its end, or a reply that nobody awaits."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
