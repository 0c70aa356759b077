"""``memory://``: a server inside this process (fakeredis), and waiting that it cannot do.

``memory://name`` is one server for all clients of the process, sync and asyncio alike, while
any of them is open; ``memory://`` is a server for its client alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import fakeredis

from leanmq.backends.hub import MemoryHub
from leanmq.backends.protocol import AsyncBackend, Backend, Capabilities
from leanmq.backends.registry import Options
from leanmq.backends.streams.calls import Call, Command, Outcome, Outcomes
from leanmq.backends.streams.driver import AsyncStreamsBackend, StreamsBackend
from leanmq.backends.urls import Target, parse_url
from leanmq.backends.wire import translate
from leanmq.errors import ClosedError, UnsupportedError

__all__ = [
    "AsyncMemoryConnection",
    "MemoryConnection",
    "MemoryServer",
    "async_backend",
    "backend",
    "server",
]


class MemoryServer:
    """The server and its hub."""

    def __init__(self) -> None:
        self.hub = MemoryHub()
        self.pid = os.getpid()
        server = fakeredis.FakeServer()
        # RESP2 without callbacks: replies as every other connection gives them.
        client: Any = fakeredis.FakeRedis(server=server, protocol=2, decode_responses=False)
        client.response_callbacks.clear()
        self._execute: Callable[..., Any] = client.execute_command
        # The first connection makes the database, without a lock. Two threads that were both the
        # first would have one each, and one would never see what the other sends.
        self._execute("PING")

    def run(self, call: Call) -> Outcomes:
        """Run the commands one after the other, then wake whom they concern."""
        outcomes = [self._run(command, call.idempotent) for command in call.commands]
        if call.wakes:
            self.hub.wake(call.wakes)
        return outcomes

    def _run(self, command: Command, idempotent: bool) -> Outcome:
        try:
            return self._execute(*command)
        except Exception as error:  # noqa: BLE001  # mapped, and handed on as a value
            return translate(error, sent=True, idempotent=idempotent, where="memory://")

    def execute(self, *command: str | bytes | int) -> Outcome:
        """Run one command of any kind, and have everybody look again."""
        outcome = self._run(command, idempotent=False)
        self.hub.wake_all()
        return outcome


_named: weakref.WeakValueDictionary[str, MemoryServer] = weakref.WeakValueDictionary()
_locks: dict[int, threading.Lock] = {}


def _making() -> threading.Lock:
    """Held while a server is made. One a process: what a fork inherits may be held for ever."""
    return _locks.setdefault(os.getpid(), threading.Lock())


def server(name: str) -> MemoryServer:
    """The server of ``memory://name``: the one that is open, or a new one."""
    if not name:
        return MemoryServer()
    with _making():
        server = _named.get(name)
        if server is None or server.pid != os.getpid():
            server = _named[name] = MemoryServer()
        return server


class _Memory:
    """What both worlds share: the server, while it is open and in its own process."""

    def __init__(self, name: str) -> None:
        self.display = f"memory://{name}"
        self._server: MemoryServer | None = server(name)
        self.hub = self._server.hub

    def _opened(self) -> MemoryServer:
        server = self._server
        if server is None:
            raise ClosedError(f"{self.display} is closed; open a new client")
        if server.pid != os.getpid():
            raise UnsupportedError(
                f"{self.display} lives in the process that opened it, this is a fork of that; "
                "open a client here, or use a redis:// URL to share queues between processes"
            )
        return server

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None and server.pid == os.getpid():  # in a fork nobody waits
            server.hub.wake_all()


class MemoryConnection(_Memory):
    """A connection to a memory server, for threads."""

    def open(self) -> None:
        """Nothing to connect; raises in a forked process."""
        self._opened()

    def run(self, call: Call) -> Outcomes:
        """Run the call."""
        return self._opened().run(call)

    def run_many(self, calls: Sequence[Call]) -> list[Outcomes]:
        """Run the calls."""
        return [self.run(call) for call in calls]

    def close(self) -> None:
        """Let go of the server; the last one to do so ends it."""
        self._close()


class AsyncMemoryConnection(_Memory):
    """A connection to a memory server, for asyncio. Commands do no I/O and so never suspend,
    but each lets other tasks run first."""

    async def open(self) -> None:
        """Nothing to connect; raises in a forked process."""
        self._opened()

    async def run(self, call: Call) -> Outcomes:
        """Run the call."""
        await asyncio.sleep(0)
        return self._opened().run(call)

    async def run_many(self, calls: Sequence[Call]) -> list[Outcomes]:
        """Run the calls."""
        return [await self.run(call) for call in calls]

    async def close(self) -> None:
        """Let go of the server; the last one to do so ends it."""
        self._close()


def backend(url: str, options: Options) -> Backend:
    """A backend in this process, for threads."""
    target = parse_url(url)
    connection = MemoryConnection(target.service)
    return StreamsBackend(connection, _capabilities(target), options.prefix)


def async_backend(url: str, options: Options) -> AsyncBackend:
    """A backend in this process, for asyncio."""
    target = parse_url(url)
    connection = AsyncMemoryConnection(target.service)
    return AsyncStreamsBackend(connection, _capabilities(target), options.prefix)


def _capabilities(target: Target) -> Capabilities:
    return Capabilities(
        target.display,
        durable=False,
        shared=False,
        transactions_across_queues=not target.strict_slots,
    )
