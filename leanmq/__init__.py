"""LeanMQ: a message queue for Python applications that already run Redis.

    >>> import leanmq
    >>> mq = leanmq.LeanMQ("memory://")
    >>> queue = mq.queue("greetings")
    >>> _ = queue.send_message("hello")
    >>> [message.data for message in queue.get_messages()]
    ['hello']
    >>> mq.close()

``import leanmq`` loads nothing but itself; a name is loaded at its first use, and a client loads
what its URL needs.
"""

import importlib
import typing

from leanmq._version import __version__

# Whoever imports leanmq pays for what is used: all of these take 130 ms, of which the command
# line's --help needs none.
if typing.TYPE_CHECKING:
    from leanmq.aio.balanced import AsyncLoadBalancedProducer
    from leanmq.aio.client import AsyncLeanMQ, AsyncTransaction
    from leanmq.aio.producer import AsyncBatchingProducer
    from leanmq.aio.router import AsyncConsistentHashRouter, AsyncRoundRobinRouter
    from leanmq.aio.sharding import AsyncShardedQueue
    from leanmq.api import AsyncQueue, Failure, Message, Outgoing, Queue, QueueInfo, StoredMessage
    from leanmq.config import BackendConfig
    from leanmq.errors import (
        AccessError,
        BackendError,
        BufferFullError,
        BulkSendError,
        ClosedError,
        ConfigurationError,
        ConnectionError,
        CrossSlotError,
        CrossSlotTransactionError,
        DeadLetterQueueNotFoundError,
        LeanMQError,
        MessageError,
        NotSentError,
        OutcomeUnknownError,
        PlacementError,
        QueueError,
        QueueFullError,
        QueueNotFoundError,
        QueueSettingsError,
        ServerStateError,
        TransactionError,
        UnsupportedError,
    )
    from leanmq.policy.client import LeanMQ, Transaction
    from leanmq.policy.producer import BatchingProducer
    from leanmq.sharding.producer import LoadBalancedProducer
    from leanmq.sharding.queue import ShardedQueue
    from leanmq.sharding.router import ConsistentHashRouter, RoundRobinRouter
    from leanmq.sharding.tally import TargetStats

__all__ = [
    "AccessError",
    "AsyncBatchingProducer",
    "AsyncConsistentHashRouter",
    "AsyncLeanMQ",
    "AsyncLoadBalancedProducer",
    "AsyncQueue",
    "AsyncRoundRobinRouter",
    "AsyncShardedQueue",
    "AsyncTransaction",
    "BackendConfig",
    "BackendError",
    "BatchingProducer",
    "BufferFullError",
    "BulkSendError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionError",
    "ConsistentHashRouter",
    "CrossSlotError",
    "CrossSlotTransactionError",
    "DeadLetterQueueNotFoundError",
    "Failure",
    "LeanMQ",
    "LeanMQError",
    "LoadBalancedProducer",
    "Message",
    "MessageError",
    "NotSentError",
    "OutcomeUnknownError",
    "Outgoing",
    "PlacementError",
    "Queue",
    "QueueError",
    "QueueFullError",
    "QueueInfo",
    "QueueNotFoundError",
    "QueueSettingsError",
    "RoundRobinRouter",
    "ServerStateError",
    "ShardedQueue",
    "StoredMessage",
    "TargetStats",
    "Transaction",
    "TransactionError",
    "UnsupportedError",
    "__version__",
]


# Where the names are that are not errors.
_HOMES = {
    "AsyncBatchingProducer": "leanmq.aio.producer",
    "AsyncConsistentHashRouter": "leanmq.aio.router",
    "AsyncLeanMQ": "leanmq.aio.client",
    "AsyncLoadBalancedProducer": "leanmq.aio.balanced",
    "AsyncQueue": "leanmq.api",
    "AsyncRoundRobinRouter": "leanmq.aio.router",
    "AsyncShardedQueue": "leanmq.aio.sharding",
    "AsyncTransaction": "leanmq.aio.client",
    "BackendConfig": "leanmq.config",
    "BatchingProducer": "leanmq.policy.producer",
    "ConsistentHashRouter": "leanmq.sharding.router",
    "Failure": "leanmq.api",
    "LeanMQ": "leanmq.policy.client",
    "LoadBalancedProducer": "leanmq.sharding.producer",
    "Message": "leanmq.api",
    "Outgoing": "leanmq.api",
    "Queue": "leanmq.api",
    "QueueInfo": "leanmq.api",
    "RoundRobinRouter": "leanmq.sharding.router",
    "ShardedQueue": "leanmq.sharding.queue",
    "StoredMessage": "leanmq.api",
    "TargetStats": "leanmq.sharding.tally",
    "Transaction": "leanmq.policy.client",
}

if not typing.TYPE_CHECKING:  # or type checkers would take any name for one of ours

    def __getattr__(name: str) -> typing.Any:
        """Load a public name at its first use (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module 'leanmq' has no attribute {name!r}", name=name)
        value = getattr(importlib.import_module(_HOMES.get(name, "leanmq.errors")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
