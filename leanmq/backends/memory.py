"""``memory://``: a server inside this process (fakeredis), and waiting that it cannot do.

``memory://name`` is one server for all clients of the process, sync and asyncio alike, while
any of them is open; ``memory://`` is a server for its client alone. A client of fakeredis that
was given brings its own server, shared by all who use that.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from leanmq.backends.protocol import AsyncBackend, Backend, Capabilities
from leanmq.backends.registry import Options
from leanmq.backends.stores import MemoryServer, server, server_of
from leanmq.backends.streams.calls import Call, Outcomes
from leanmq.backends.streams.driver import AsyncStreamsBackend, StreamsBackend
from leanmq.backends.urls import Target, parse_url
from leanmq.errors import ClosedError, UnsupportedError

__all__ = [
    "AsyncMemoryConnection",
    "MemoryConnection",
    "MemoryServer",
    "async_backend",
    "async_backend_on",
    "backend",
    "backend_on",
    "server",
]


class _Memory:
    """What both worlds share: the server, while it is open and in its own process."""

    def __init__(self, target: Target) -> None:
        self.display = target.display
        self._server: MemoryServer | None = server_of(target)
        self.hub = self.wakes = self._server.hub

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
        """Run the calls, all of them even if it is closed meanwhile."""
        server = self._opened()
        return [server.run(call) for call in calls]

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
        """Run the calls, all of them even if it is closed meanwhile."""
        server, outcomes = self._opened(), []
        for call in calls:
            await asyncio.sleep(0)
            outcomes.append(server.run(call))
        return outcomes

    async def close(self) -> None:
        """Let go of the server; the last one to do so ends it."""
        self._close()


def backend(url: str, options: Options) -> Backend:
    """A backend in this process, for threads."""
    return backend_on(parse_url(url), options)


def backend_on(target: Target, options: Options) -> Backend:
    """A backend on this store, for threads."""
    return StreamsBackend(MemoryConnection(target), _capabilities(target), options.prefix)


def async_backend(url: str, options: Options) -> AsyncBackend:
    """A backend in this process, for asyncio."""
    return async_backend_on(parse_url(url), options)


def async_backend_on(target: Target, options: Options) -> AsyncBackend:
    """A backend on this store, for asyncio."""
    return AsyncStreamsBackend(AsyncMemoryConnection(target), _capabilities(target), options.prefix)


def _capabilities(target: Target) -> Capabilities:
    return Capabilities(
        target.display,
        durable=False,
        shared=False,
        transactions_across_queues=not target.strict_slots,
        many_queues=True,
        sends_together=True,
        sequences=True,
    )
