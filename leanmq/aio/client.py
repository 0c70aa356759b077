"""``AsyncLeanMQ``: the client for asyncio."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from leanmq.aio.queue import AsyncQueueHandle
from leanmq.api import Seconds
from leanmq.backends.protocol import AsyncBackend, Capabilities, QueueRef
from leanmq.backends.registry import describe, open_async_backend
from leanmq.policy.client import DEADLINE
from leanmq.policy.core import ClientCore
from leanmq.policy.names import check_name, options_of, seconds_of, settings_of
from leanmq.policy.steps import drive_async

__all__ = ["AsyncLeanMQ"]


class AsyncLeanMQ:
    """``leanmq.LeanMQ`` for asyncio: same arguments, same promises. Belongs to one event loop.

    Example:
        >>> async def main():
        ...     async with AsyncLeanMQ("memory://") as mq:
        ...         orders = mq.queue("orders")
        ...         await orders.send_message({"id": 7})
        ...         for message in await orders.get_messages():
        ...             print(message.data)
        ...             await orders.acknowledge_messages(message)
        >>> import asyncio; asyncio.run(main())
        {'id': 7}
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        backend: AsyncBackend | None = None,
        prefix: str | None = None,
        deadline: Seconds = DEADLINE,
        connection_timeout: Seconds | None = None,
    ) -> None:
        options = options_of(backend is not None, prefix, connection_timeout)
        self._backend = open_async_backend(url, backend, options)
        self._core = ClientCore(
            describe(url, self._backend), deadline=seconds_of(deadline, "deadline")
        )

    def __repr__(self) -> str:
        return f"<AsyncLeanMQ {self._core.name}>"

    def queue(
        self, name: str, *, lease: Seconds | None = None, max_deliveries: int | None = None
    ) -> AsyncQueueHandle[Any]:
        """See ``LeanMQ.queue``. Does no I/O, so it is no coroutine."""
        self._core.check_open()
        ref = QueueRef(check_name(name))
        return AsyncQueueHandle(self._backend, self._core, ref, settings_of(lease, max_deliveries))

    async def open(self) -> Capabilities:
        """Connect now, and tell what the backend can do."""
        return await drive_async(self._core.open(), self._backend)

    async def ping(self) -> None:
        """Ask every node that holds messages for an answer.

        Raises:
            ConnectionError: if one gives none, at once.
        """
        await drive_async(self._core.ping(), self._backend)

    async def close(self) -> None:
        """Close all connections; a call that waits in another task ends within a second."""
        await drive_async(self._core.close(), self._backend)

    async def __aenter__(self) -> AsyncLeanMQ:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
