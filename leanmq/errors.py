"""The tree of errors that LeanMQ raises, and what a caller may do about each.

Every error of the client library surfaces as one of these, with its cause. Where errors of
redis-py become ours is ``backends/faults.py``; nothing else maps errors.
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

__all__ = [
    "AccessError",
    "BackendError",
    "BufferFullError",
    "BulkSendError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionError",
    "CrossSlotError",
    "CrossSlotTransactionError",
    "DeadLetterQueueNotFoundError",
    "LeanMQError",
    "MessageError",
    "NotSentError",
    "OutcomeUnknownError",
    "PlacementError",
    "QueueError",
    "QueueFullError",
    "QueueNotFoundError",
    "QueueSettingsError",
    "ServerStateError",
    "StaleSettingsError",
    "TransactionError",
    "UnreachableError",
    "UnsupportedError",
]


class LeanMQError(Exception):
    """Base of every error that LeanMQ raises.

    Attributes:
        queue: Name of the queue concerned, if one is.
        message_id: Id of the message concerned, if one is.
        retryable: True if the same call, made again later, can succeed and does no harm.
        in_doubt: True if the operation may or may not have been carried out.
        code: First word of the server's error reply (``"OOM"``), else ``""``.
    """

    retryable: bool = False
    in_doubt: bool = False

    def __init__(
        self,
        message: str,
        *,
        queue: str | None = None,
        message_id: str | None = None,
        in_doubt: bool | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.queue = queue
        self.message_id = message_id
        self.code = code
        if in_doubt is not None:
            self.in_doubt = in_doubt

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restore, (type(self), self.args, self.__dict__.copy()))


class UnreachableError(LeanMQError, builtins.ConnectionError):
    """What can be said of a ``ConnectionError`` without redis-py, whose class that one is, too."""

    retryable = True


if TYPE_CHECKING:
    from redis.exceptions import ConnectionError as _RedisConnectionError

    class ConnectionError(UnreachableError, _RedisConnectionError):
        """The server could not be reached, or does not serve for the moment."""

else:

    def __getattr__(name: str) -> Any:
        """Make ``ConnectionError`` at its first use: ``import leanmq`` must not import redis."""
        if name != "ConnectionError":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from redis import exceptions

        class ConnectionError(UnreachableError, exceptions.ConnectionError):
            """The server could not be reached, or does not serve for the moment.

            Raised after LeanMQ's own retries ran out of time (``deadline`` seconds); at once when
            a client never reached its server. Calling again is safe: a send that raises this was
            certainly not stored. It is the builtin ``ConnectionError`` and redis-py's as well.
            """

            # What redis-py's own constructor sets, from its version 7 on, and reads in its repr.
            error_type = getattr(getattr(exceptions, "ExceptionType", None), "NETWORK", None)
            status_code = None
            __repr__ = BaseException.__repr__

        ConnectionError.__qualname__ = "ConnectionError"
        # Of two threads that come here together one makes the class, for both.
        return globals().setdefault("ConnectionError", ConnectionError)


class OutcomeUnknownError(LeanMQError):
    """The reply to a send was lost: the message may be in the queue or not.

    Deliberately no ConnectionError: sending again can double the message, and no
    ``except ConnectionError: retry`` should do so by accident.
    """

    in_doubt = True


class ServerStateError(LeanMQError):
    """The server refused for a reason that an operator must mend: nothing was carried out.

    Replies MISCONF (disk full), NOREPLICAS, BUSY (a script hangs).
    """

    retryable = True


class AccessError(LeanMQError):
    """The server refused user, password or rights (WRONGPASS, NOAUTH, NOPERM)."""


class BackendError(LeanMQError):
    """The backend answered in a way that it never should; the cause holds its words."""


class UnsupportedError(LeanMQError):
    """The backend cannot do this; the message names the operation, the backend and the cure."""


class ClosedError(LeanMQError):
    """The client was closed."""


class QueueError(LeanMQError):
    """An operation does not fit the state of its queue."""


class QueueNotFoundError(QueueError):
    """The queue does not exist (any more)."""


class DeadLetterQueueNotFoundError(QueueError):
    """A queue has no such dead letter queue: each has one, its own."""


class QueueSettingsError(QueueError):
    """A queue was opened with other settings than those it is stored with."""


class QueueFullError(QueueError):
    """There is no room: the queue's bound or the server's memory is used up. Nothing was stored."""

    retryable = True


class StaleSettingsError(QueueError):
    """The settings of a queue were changed since the sender read them. Nothing was stored.

    LeanMQ reads them again and goes on; users see it only if they change all the time.
    """

    retryable = True


class CrossSlotError(QueueError):
    """Two queues cannot take part in one atomic step: they are in different slots of a cluster,
    or in different deployments. Nothing was done."""


class PlacementError(LeanMQError):
    """The shards of a queue are on other nodes than those that were opened. Nothing was done."""


class TransactionError(LeanMQError):
    """A transaction failed as a whole: nothing of it was carried out."""


class CrossSlotTransactionError(TransactionError, CrossSlotError):
    """A transaction over queues of different slots. Nothing was sent."""


class ConfigurationError(LeanMQError, ValueError):
    """A configuration cannot be: a key that is not known, a value, a file, a variable."""


class MessageError(LeanMQError, ValueError):
    """A message cannot be sent as it is: not JSON, too large, wrong options."""


class BufferFullError(LeanMQError):
    """A batching producer holds as much as it may, and had no room in time. Nothing was sent.

    Its messages come faster than the queue takes them, or its server does not serve.
    """

    retryable = True


class NotSentError(LeanMQError):
    """A message that was handed to a batching producer was certainly not stored.

    It was not to blame: one before it failed, or the producer was closed too early.
    """

    retryable = True


class BulkSendError(LeanMQError):
    """A bulk send stopped on the way; its cause is ``__cause__``.

    Attributes:
        confirmed: Index of an item to the id it is stored under.
        unknown: Indexes of the items that may be stored or not.
        unsent: Indexes of the items that were read from the iterable and surely not stored.
    """

    def __init__(
        self,
        message: str,
        *,
        confirmed: dict[int, str],
        unknown: tuple[int, ...],
        unsent: tuple[int, ...],
        queue: str | None = None,
    ) -> None:
        super().__init__(message, queue=queue, in_doubt=bool(unknown))
        self.confirmed = confirmed
        self.unknown = unknown
        self.unsent = unsent


def _restore(kind: type[LeanMQError], args: tuple[Any, ...], state: dict[str, Any]) -> LeanMQError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error
