"""What an outcome is worth: its reply, or the error that it means for the user."""

from __future__ import annotations

from leanmq.backends.streams.calls import Outcome, Outcomes, Reply
from leanmq.errors import (
    BackendError,
    CrossSlotTransactionError,
    LeanMQError,
    QueueFullError,
    QueueNotFoundError,
    QueueSettingsError,
    StaleSettingsError,
    TransactionError,
)

__all__ = [
    "apart",
    "full",
    "not_found",
    "refused_transaction",
    "reply",
    "sharded",
    "stale",
    "value",
]


def reply(outcomes: Outcomes) -> Reply:
    """The reply to the first command; its error is raised."""
    return value(outcomes[0], "")


def value(outcome: Outcome, queue: str) -> Reply:
    """The reply, or its error raised with the name of the queue."""
    if not isinstance(outcome, LeanMQError):
        return outcome
    if outcome.code in ("NOQUEUE", "NOGROUP"):
        raise not_found(queue) from outcome
    if outcome.code == "STALE":
        raise stale(queue) from outcome
    if outcome.code == "SCHEMA":
        raise BackendError(f"{outcome}; upgrade leanmq in this process") from outcome
    outcome.queue = outcome.queue or queue or None
    raise outcome


def full(name: str, why: str = "it holds as many messages as max_length lets it") -> QueueFullError:
    """The queue has no room."""
    return QueueFullError(
        f"queue {name!r} is full: {why}; let consumers catch up, or raise max_length by "
        "update_queue",
        queue=name,
    )


def apart(tags: dict[str, str]) -> CrossSlotTransactionError:
    """The queues of a transaction, by their tags, are in different slots."""
    queues = ", ".join(f"{name!r} (slot {tag!r})" for tag, name in tags.items())
    return CrossSlotTransactionError(
        f"the queues of this transaction are in different slots: {queues}; make them with the "
        "same slot=, as in mq.queue(name, slot='checkout')"
    )


def refused_transaction(error: LeanMQError, names: list[str]) -> LeanMQError:
    """What the script's own refusals mean for the user. Which queue it means stands last."""
    words = str(_first_cause(error)).split(" ")
    if error.code == "LOST":
        return TransactionError(
            f"message {words[1]} is not leased to this client any more: nothing of the "
            "transaction was carried out; receive it again",
            message_id=words[1],
        )
    if not words[-1].isdecimal() or not 1 <= int(words[-1]) <= len(names):
        return error
    name = names[int(words[-1]) - 1]
    if error.code == "FULL":
        return full(name, " ".join(words[1:-2]))
    if isinstance(error, QueueNotFoundError):
        return not_found(name)
    if isinstance(error, StaleSettingsError):
        return stale(name)
    error.queue = name
    return error


def _first_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def stale(queue: str) -> StaleSettingsError:
    """The settings are not those that the sender knows."""
    return StaleSettingsError(
        f"the settings of queue {queue!r} were changed meanwhile; send again", queue=queue
    )


def not_found(queue: str) -> QueueNotFoundError:
    """The queue is not there."""
    return QueueNotFoundError(
        f"queue {queue!r} does not exist; declare it first, or it was deleted", queue=queue
    )


def sharded(queue: str) -> QueueSettingsError:
    """The name belongs to a queue whose messages are in queues of their own."""
    return QueueSettingsError(
        f"queue {queue!r} is sharded: its messages are in queues of their own; open it by "
        f"mq.sharded_queue({queue!r}), or by the router over all of its nodes",
        queue=queue,
    )
