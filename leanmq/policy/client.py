"""``LeanMQ``: the client for threads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from leanmq.api import Message, Moment, Outgoing, Overflow, QueueInfo, QueueName, Seconds, T
from leanmq.backends.protocol import Backend, Capabilities, QueueRef, Settings
from leanmq.backends.registry import describe, open_backend
from leanmq.compat import older_spellings, send_spellings
from leanmq.policy.codec import codec_for
from leanmq.policy.core import DEADLINE, ClientCore
from leanmq.policy.logic import QueueLogic, logic_of
from leanmq.policy.names import ref_of, settings_of
from leanmq.policy.opening import configured, opening
from leanmq.policy.queue import QueueHandle
from leanmq.policy.steps import drive
from leanmq.policy.transaction import TransactionLogic
from leanmq.sources import ConfigSource

if TYPE_CHECKING:
    from leanmq.sharding.queue import ShardedQueueHandle
    from leanmq.sharding.router import ConsistentHashRouter

__all__ = ["LeanMQ", "Transaction"]


class LeanMQ:
    """A client: opens queues on the backend that the URL names. Share it between threads.

    Constructing does no I/O; the first call connects. Use it as a context manager, or call
    ``close``.

    Args:
        url: ``memory://[name]``, ``redis://host:port/db``,
            ``redis+sentinel://host1,host2,host3/service`` or
            ``redis+cluster://host1,host2,host3``.
        redis_host: With ``redis_port``, ``redis_db`` and ``redis_password``, one Redis server
            instead of a URL (``localhost``, 6379, 0, none).
        backend: A backend instead of a URL.
        client: A ``redis.Redis``, ``redis.RedisCluster``, a client of ``Sentinel.master_for``
            or a ``fakeredis.FakeRedis`` instead of a URL. Only where it leads is read: address,
            account, TLS. LeanMQ makes connections of its own; the client stays as it is, open.
        prefix: What every key in Redis begins with (``mq:``). A backend has its own.
        deadline: Seconds that an operation is tried again while the server does not serve
            (failover, restart); 0 tries once.
        connection_timeout: Seconds to wait for a connection, and for a reply (3). A backend
            has its own.
        max_retries: How often an operation that surely was not carried out is tried again
            within ``deadline``; None is as often as there is time.
        retry_interval: Seconds between two tries; None begins with 5 ms and backs off.
        queues: Settings by the names of queues, for handles that name no others.

    Raises:
        ValueError: if the URL, prefix or a duration cannot be.
        TypeError: if arguments do not go together, or LeanMQ cannot tell where ``client`` leads.

    Examples:
        >>> with LeanMQ("memory://") as mq:
        ...     orders = mq.queue("orders")
        ...     _ = orders.send_message({"id": 7})
        ...     for message in orders.get_messages():
        ...         print(message.data)
        ...         _ = orders.acknowledge_messages(message)
        {'id': 7}
    """

    @older_spellings()
    def __init__(
        self,
        url: str | None = None,
        redis_port: int | None = None,
        redis_db: int | None = None,
        redis_password: str | None = None,
        prefix: str | None = None,
        max_retries: int | None = None,
        *,
        redis_host: str | None = None,
        backend: Backend | None = None,
        client: object | None = None,
        deadline: Seconds = DEADLINE,
        connection_timeout: Seconds | None = None,
        retry_interval: Seconds | None = None,
        queues: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        asked = opening(
            url,
            redis_host=redis_host,
            redis_port=redis_port,
            redis_db=redis_db,
            redis_password=redis_password,
            given=backend,
            client=client,
            prefix=prefix,
            deadline=deadline,
            connection_timeout=connection_timeout,
            max_retries=max_retries,
            retry_interval=retry_interval,
            queues=queues,
        )
        self._backend = open_backend(asked.url, backend, asked.options, client)
        self._core = ClientCore(describe(asked.url, self._backend), asked.terms)
        self._beside: tuple[ConsistentHashRouter, ClientCore] | None = None

    @classmethod
    def from_config(cls, source: ConfigSource, **keywords: Any) -> Self:
        """A client as a configuration says; over nodes, with a router of its own.

        Args:
            source: A mapping, a ``leanmq.BackendConfig``, or the path of a TOML file.
            keywords: Settings of ``leanmq.BackendConfig``; they win over the environment
                (``LEANMQ_URL`` and others), which wins over a file.

        Raises:
            ConfigurationError: if something in it is not known or cannot be.
        """
        return cls(**configured(source, keywords))

    @classmethod
    def from_env(cls, **keywords: Any) -> Self:
        """A client as the environment says: ``LEANMQ_CONFIG`` (a file), else ``LEANMQ_URL``, else
        ``REDIS_URL``. Keywords as in ``from_config``.

        Raises:
            ConfigurationError: if none of them is set, or something in it cannot be.
        """
        return cls(**configured(None, keywords))

    def __repr__(self) -> str:
        return f"<LeanMQ {self._core.name}>"

    @older_spellings()
    def queue(
        self,
        name: QueueName,
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
        ref = ref_of(name, self._core.terms.prefix)
        return QueueHandle(self._backend, QueueLogic(self._core, ref, asked, codec_for(type)))

    def sharded_queue(
        self,
        name: QueueName,
        *,
        shards: int | None = None,
        type: type[T] | None = None,
        lease: Seconds | None = None,
        max_deliveries: int | None = None,
        overflow: Overflow | None = None,
        max_payload_bytes: int | None = None,
        dedup_window: Seconds | None = None,
        slot: str | None = None,
    ) -> ShardedQueueHandle[T]:
        """A queue in shards, on this deployment alone. See ``queue`` for all but ``shards``.

        Messages of one ``key`` are in one shard, in order; those without a key go round. On a
        cluster the shards are spread over its nodes, so that one queue can do more than one
        server. For several deployments see ``leanmq.ShardedQueue``. Does no I/O.

        Args:
            name: 1 to 200 ASCII letters, digits and ``. _ : / -``.
            shards: How many (64, or what the router of this client says); they stay as many.
                Opening the queue with another number raises QueueSettingsError at its first use.

        Examples:
            >>> with LeanMQ("memory://") as mq:
            ...     orders = mq.sharded_queue("orders", shards=8)
            ...     _ = orders.send_message({"id": 7}, key="customer 12")
            ...     [message.data for message in orders.get_messages()]
            [{'id': 7}]
        """
        from leanmq.sharding.queue import ShardedQueueHandle  # not above: most need none

        self._core.check_open()
        router, core = self._sharding()
        asked = settings_of(
            lease=lease,
            max_deliveries=max_deliveries,
            overflow=overflow,
            max_payload_bytes=max_payload_bytes,
            dedup_window=dedup_window,
            slot=slot,
            shards=router.routing.shards if shards is None else shards,
        )
        ref = ref_of(name, self._core.terms.prefix)
        return ShardedQueueHandle(router, QueueLogic(core, ref, asked, codec_for(type)))

    def _sharding(self) -> tuple[ConsistentHashRouter, ClientCore]:
        """A router, and its core: of this client, or over its backend alone."""
        from leanmq.sharding.router import ConsistentHashRouter

        if isinstance(self._backend, ConsistentHashRouter):
            return self._backend, self._core
        if self._beside is None:
            router = ConsistentHashRouter.alone(self._backend, self._core.name)
            core = ClientCore(self._core.name, self._core.terms, beside=self._core)
            self._beside = router, core
        return self._beside

    def _handle(self, ref: QueueRef) -> QueueHandle[Any]:
        return QueueHandle(self._backend, QueueLogic(self._core, ref, Settings()))

    def update_queue(
        self,
        name: QueueName,
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
        return drive(self._core.update(name, changes), self._backend)

    def create_queue_pair(
        self, name: QueueName, create_consumer_group: bool = True
    ) -> tuple[QueueHandle[Any], QueueHandle[Any]]:
        """Make a queue now; returns it and its dead letters. See ``queue``, which asks nothing."""
        queue = self.queue(name)
        queue.declare()
        return queue, queue.dlq

    def get_queue(self, name: QueueName) -> QueueHandle[Any] | None:
        """The queue of this name, or None if there is none. ``orders:dlq`` is that of the dead
        letters of ``orders``."""
        ref = drive(self._core.find(name), self._backend)
        return None if ref is None else self._handle(ref)

    def get_dead_letter_queue(self, name: QueueName) -> QueueHandle[Any] | None:
        """The dead letters of a queue, or None if there is none."""
        queue = self.get_queue(name)
        return None if queue is None else queue.dlq

    def delete_queue(self, name: QueueName, delete_dlq: bool | None = None) -> bool:
        """See ``leanmq.Queue.delete``."""
        return self.queue(name).delete(delete_dlq=bool(delete_dlq))

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

        Examples:
            >>> with LeanMQ("memory://") as mq:
            ...     orders, mails = mq.queue("orders", slot="shop"), mq.queue("mails", slot="shop")
            ...     with mq.transaction() as tx:
            ...         tx.send_message(orders, {"id": 7})
            ...         tx.send_message(mails, {"to": "me"})
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

    @older_spellings(send_spellings(2), positional=2)
    def send_message(
        self,
        queue: QueueName,
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
        if isinstance(queue, QueueHandle) and self._logic.moves_to(queue._logic):
            self._backend = queue._backend  # the router over the shards of this client
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

    _execute = execute  # its name in 0.2.0

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
