"""``LeanMQ``: the client for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from leanmq.api import Message, Moment, Outgoing, Overflow, Queue, QueueInfo, Seconds, T
from leanmq.backends.protocol import Backend, Capabilities, QueueRef
from leanmq.backends.registry import describe, open_backend
from leanmq.policy.codec import codec_for
from leanmq.policy.core import ClientCore
from leanmq.policy.logic import QueueLogic, logic_of
from leanmq.policy.names import check_name, options_of, seconds_of, settings_of
from leanmq.policy.queue import QueueHandle
from leanmq.policy.steps import drive
from leanmq.policy.transaction import TransactionLogic

__all__ = ["DEADLINE", "LeanMQ", "Transaction"]

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
        self,
        name: str,
        *,
        type: type[T] | None = None,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        max_length: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
        slot: str | None = None,
    ) -> QueueHandle[T]:
        """The queue of this name; made at its first use if it does not exist. Does no I/O.

        Settings are stored with the queue. Those that are not given are taken as stored; for a
        new queue they are what stands in brackets.

        Args:
            name: 1 to 200 ASCII letters, digits and ``. _ : / -``.
            type: What payloads are: an attrs class, a dataclass, a TypedDict, a msgspec.Struct
                or a pydantic model. Sends refuse what does not fit; what others sent that does
                not becomes a dead letter. Not stored.
            lease: Seconds that a delivered message belongs to its consumer (60).
            max_deliveries: How often a message is handed out at most (10; 0 is unlimited);
                then it becomes a dead letter.
            max_length: Messages that the queue holds at most, those delayed and in flight
                included (0, unlimited).
            overflow: When it is full, sends ``"raise"`` QueueFullError, or ``"block"`` until
                there is room, for the client's ``deadline`` at most (``"raise"``).
            max_payload_bytes: Bytes of an encoded payload at most (8 MiB).
            dedup_window: Seconds for which a ``dedup_id`` is remembered (3600).
            slot: Queues of the same slot can share a transaction on a cluster (the name).

        Raises:
            ValueError: if the name or a setting cannot be. Settings that differ from the
                stored ones raise QueueSettingsError at the first use.
            TypeError: if payloads cannot be of this type.
        """
        self._core.check_open()
        asked = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            max_length=max_length,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
            slot=slot,
        )
        ref = QueueRef(check_name(name))
        return QueueHandle(self._backend, QueueLogic(self._core, ref, asked, codec_for(type)))

    def update_queue(
        self,
        name: str,
        *,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        max_length: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
    ) -> QueueInfo:
        """Change settings of a queue, for all who use it, while they do. Others stay.

        A shorter lease counts for messages in flight only when the old one has run out once.

        Raises:
            QueueNotFoundError: if the queue does not exist.
        """
        changes = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            max_length=max_length,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
        )
        return drive(self._core.update(check_name(name), changes), self._backend)

    def list_queues(self) -> list[QueueInfo]:
        """Every queue under the prefix, by name, each followed by its dead letters."""
        return drive(self._core.list_queues(), self._backend)

    def process_expired_messages(self) -> int:
        """Delete the messages whose time to live is over, in every queue; returns how many.

        They are never handed out anyway; this frees their memory, and their room in bounded
        queues.
        """
        return drive(self._core.process_expired(), self._backend)

    def transaction(self) -> Transaction:
        """Sends and acknowledgements that are carried out together or not at all.

        Example:
            >>> with LeanMQ("memory://") as mq:
            ...     with mq.transaction() as tx:
            ...         tx.send_message("orders", {"id": 7})
            ...         tx.send_message("mails", {"to": "me"})
            ...     [info.message_count for info in mq.list_queues() if not info.is_dlq]
            [1, 1]
        """
        self._core.check_open()
        return Transaction(self._backend, self._core)

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


class Transaction:
    """What ``LeanMQ.transaction`` returns: carried out at the end of its ``with`` block, or by
    ``execute``. If the block raises, nothing is sent. For one thread.

    Attributes:
        ids: The ids of the sent messages, in order, once it was carried out.
    """

    def __init__(self, backend: Backend, core: ClientCore) -> None:
        self._backend = backend
        self._logic = TransactionLogic(core)
        self.ids: list[str] = []

    def send_message(
        self,
        queue: Queue[Any] | str,
        data: Any,
        *,
        key: str | None = None,
        ttl_seconds: Seconds | None = None,
        delay: Moment | None = None,
        headers: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """Have a message sent; it is validated now. See ``leanmq.Queue.send_message``.

        Raises:
            MessageError: if it cannot be sent.
            CrossSlotTransactionError: if the queue belongs to another client.
        """
        message = Outgoing(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        self._logic.send(logic_of(queue), message)

    def acknowledge(self, messages: Message[Any] | Iterable[Message[Any]]) -> None:
        """Have received messages acknowledged: what they cause and their end are one step."""
        self._logic.acknowledge(messages)

    def execute(self) -> list[str]:
        """Carry it out; returns the ids of the sent messages, in order.

        Raises:
            TransactionError: if it surely failed, as a whole; a message to acknowledge, say, is
                not held any more.
            CrossSlotTransactionError: if its queues are in different slots of a cluster.
            QueueFullError: if a queue has no room; nothing was sent. What is acknowledged
                makes room in its own queue.
            OutcomeUnknownError: if the reply was lost: it is carried out as a whole, or not.
        """
        self.ids = drive(self._logic.execute(), self._backend)
        return self.ids

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._logic.abandon()
        elif not self._logic.over:  # else ``execute`` was called inside the block
            self.execute()
