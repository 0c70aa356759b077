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

from leanmq._version import __version__
from leanmq.aio.client import AsyncLeanMQ
from leanmq.api import AsyncQueue, Message, Outgoing, Queue, QueueInfo
from leanmq.errors import (
    AccessError,
    BackendError,
    BulkSendError,
    ClosedError,
    ConnectionError,
    LeanMQError,
    MessageError,
    OutcomeUnknownError,
    QueueError,
    QueueFullError,
    QueueNotFoundError,
    QueueSettingsError,
    ServerStateError,
    UnsupportedError,
)
from leanmq.policy.client import LeanMQ

__all__ = [
    "AccessError",
    "AsyncLeanMQ",
    "AsyncQueue",
    "BackendError",
    "BulkSendError",
    "ClosedError",
    "ConnectionError",
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
    "UnsupportedError",
    "__version__",
]
