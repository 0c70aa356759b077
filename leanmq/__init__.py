"""LeanMQ: a message queue for Python applications that already run Redis.

    >>> import leanmq
    >>> mq = leanmq.LeanMQ("memory://")
    >>> queue = mq.queue("greetings")
    >>> _ = queue.send_message("hello")
    >>> [message.data for message in queue.get_messages()]
    ['hello']
    >>> mq.close()

``import leanmq`` loads neither redis nor fakeredis; a client loads what its URL needs.
"""

import typing

from leanmq._version import __version__
from leanmq.aio.client import AsyncLeanMQ, AsyncTransaction
from leanmq.api import AsyncQueue, Failure, Message, Outgoing, Queue, QueueInfo, StoredMessage
from leanmq.config import BackendConfig
from leanmq.errors import (
    AccessError,
    BackendError,
    BulkSendError,
    ClosedError,
    ConfigurationError,
    CrossSlotError,
    CrossSlotTransactionError,
    DeadLetterQueueNotFoundError,
    LeanMQError,
    MessageError,
    OutcomeUnknownError,
    QueueError,
    QueueFullError,
    QueueNotFoundError,
    QueueSettingsError,
    ServerStateError,
    TransactionError,
    UnsupportedError,
)
from leanmq.policy.client import LeanMQ, Transaction

if typing.TYPE_CHECKING:
    from leanmq.errors import ConnectionError

__all__ = [
    "AccessError",
    "AsyncLeanMQ",
    "AsyncQueue",
    "AsyncTransaction",
    "BackendConfig",
    "BackendError",
    "BulkSendError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionError",
    "CrossSlotError",
    "CrossSlotTransactionError",
    "DeadLetterQueueNotFoundError",
    "Failure",
    "LeanMQ",
    "LeanMQError",
    "Message",
    "MessageError",
    "OutcomeUnknownError",
    "Outgoing",
    "Queue",
    "QueueError",
    "QueueFullError",
    "QueueInfo",
    "QueueNotFoundError",
    "QueueSettingsError",
    "ServerStateError",
    "StoredMessage",
    "Transaction",
    "TransactionError",
    "UnsupportedError",
    "__version__",
]


def __getattr__(name: str) -> typing.Any:
    """``ConnectionError`` is redis-py's, too, and so it is made at its first use."""
    if name == "ConnectionError":
        from leanmq import errors

        return errors.ConnectionError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
