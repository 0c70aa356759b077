"""Other doors to a server of plain TCP: TLS, and a Unix socket. They live in the test's own loop.

The test servers speak neither: the packaged program is built without TLS.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from .ports import HOST

__all__ = ["CERTIFICATE", "tls_front", "unix_front"]

_FOLDER: Final = Path(__file__).parent / "certificates"

CERTIFICATE: Final = _FOLDER / "server.pem"
"""What clients must trust; it is valid for 127.0.0.1 and localhost."""


@asynccontextmanager
async def tls_front(port: int) -> AsyncIterator[int]:
    """A port of the loopback interface that speaks TLS, before one that does not."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, _FOLDER / "server.key")
    relay = _Relay(port)
    server = await asyncio.start_server(relay.carry, HOST, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await relay.end(server)


@asynccontextmanager
async def unix_front(port: int, path: Path) -> AsyncIterator[None]:
    """A Unix socket before a port."""
    relay = _Relay(port)
    server = await asyncio.start_unix_server(relay.carry, path)
    try:
        yield
    finally:
        await relay.end(server)


class _Relay:
    """Carries bytes between its callers and a port, both ways."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._calls: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        with suppress(asyncio.CancelledError, OSError):
            far_reader, far_writer = await asyncio.open_connection(HOST, self._port)
            there = asyncio.create_task(_copy(reader, far_writer))
            try:
                await _copy(far_reader, writer)
            finally:
                there.cancel()
                writer.transport.abort()
                far_writer.transport.abort()
        self._calls.discard(call)

    async def end(self, server: asyncio.Server) -> None:
        server.close()
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends, and then the other."""
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
