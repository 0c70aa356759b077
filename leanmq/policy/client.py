"""``LeanMQ``: the client for threads."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from leanmq.api import Seconds
from leanmq.backends.protocol import Backend, Capabilities, QueueRef
from leanmq.backends.registry import describe, open_backend
from leanmq.policy.core import ClientCore
from leanmq.policy.names import check_name, options_of, seconds_of, settings_of
from leanmq.policy.queue import QueueHandle
from leanmq.policy.steps import drive

__all__ = ["DEADLINE", "LeanMQ"]

DEADLINE = 30.0
"""Seconds that an operation is tried again while its server does not serve."""


class LeanMQ:
    """A client: opens queues on the backend that the URL names. Share it between threads.

    Constructing does no I/O; the first call connects. Use it as a context manager, or call
    ``close``.

    Args:
        url: ``memory://[name]``, ``redis://host:port/db``,
            ``redis+sentinel://host1,host2,host3/service`` or
            ``redis+cluster://host1,host2,host3``.
        backend: A backend instead of a URL.
        prefix: What every key in Redis begins with (``mq:``). A backend has its own.
        deadline: Seconds that an operation is tried again while the server does not serve
            (failover, restart); 0 tries once.
        connection_timeout: Seconds to wait for a connection, and for a reply (3). A backend
            has its own.

    Raises:
        ValueError: if the URL, prefix or a duration cannot be.

    Example:
        >>> with LeanMQ("memory://") as mq:
        ...     orders = mq.queue("orders")
        ...     _ = orders.send_message({"id": 7})
        ...     for message in orders.get_messages():
        ...         print(message.data)
        ...         _ = orders.acknowledge_messages(message)
        {'id': 7}
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        backend: Backend | None = None,
        prefix: str | None = None,
        deadline: Seconds = DEADLINE,
        connection_timeout: Seconds | None = None,
    ) -> None:
        options = options_of(backend is not None, prefix, connection_timeout)
        self._backend = open_backend(url, backend, options)
        self._core = ClientCore(
            describe(url, self._backend), deadline=seconds_of(deadline, "deadline")
        )

    def __repr__(self) -> str:
        return f"<LeanMQ {self._core.name}>"

    def queue(
        self, name: str, *, lease: Seconds | None = None, max_deliveries: int | None = None
    ) -> QueueHandle[Any]:
        """The queue of this name; made at its first use if it does not exist. Does no I/O.

        Args:
            name: 1 to 200 ASCII letters, digits and ``. _ : / -``.
            lease: Seconds that a delivered message belongs to its consumer (a new queue: 60).
            max_deliveries: How often a message is handed out at most (a new queue: 10;
                0 is unlimited); then it becomes a dead letter.

        Raises:
            ValueError: if the name or a setting cannot be. Settings that differ from the
                stored ones raise QueueSettingsError at the first use.
        """
        self._core.check_open()
        ref = QueueRef(check_name(name))
        return QueueHandle(self._backend, self._core, ref, settings_of(lease, max_deliveries))

    def open(self) -> Capabilities:
        """Connect now, and tell what the backend can do."""
        return drive(self._core.open(), self._backend)

    def ping(self) -> None:
        """Ask every node that holds messages for an answer.

        Raises:
            ConnectionError: if one gives none, at once.
        """
        drive(self._core.ping(), self._backend)

    def close(self) -> None:
        """Close all connections; a call that waits in another thread ends within a second."""
        drive(self._core.close(), self._backend)

    def __enter__(self) -> LeanMQ:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
