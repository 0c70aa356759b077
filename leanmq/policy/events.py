"""What a client writes to the log. Loggers: ``leanmq.queue`` for messages, ``leanmq`` for the rest.

Each record has ``leanmq_event``, and what it is about, among its extra fields. Payloads are never
logged.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, Final

from leanmq.api import Message

__all__ = [
    "buried",
    "closely",
    "foreign",
    "give_back_failed",
    "lease_lost",
    "left_to_parent",
    "not_stored",
    "notice",
    "passed",
    "paused",
    "taken_over",
    "vanished",
]

_client: Final = logging.getLogger("leanmq")
_client.addHandler(logging.NullHandler())
_queue: Final = logging.getLogger("leanmq.queue")


@functools.cache  # once a process, however many clients it opens
def notice(client: str, text: str) -> None:
    """Something that an operator should know was found when a client was opened."""
    _client.warning("%s: %s", client, text, extra={"leanmq_event": "notice"})


def vanished(queue: str, client: str) -> None:
    """A queue that was there is not any more."""
    _queue.warning(
        "queue %r had vanished from %s (flushed, evicted or deleted): created again",
        queue,
        client,
        extra=_extra("queue_vanished", queue),
    )


def buried(queue: str, ids: Sequence[str], why: str) -> None:
    """Messages became dead letters."""
    for message_id in ids:
        _queue.warning(
            "message %s of queue %r became a dead letter: %s",
            message_id,
            queue,
            why,
            extra=_extra("dead_letter", queue, message_id),
        )


def taken_over(queue: str, message_id: str, delivery_count: int) -> None:
    """A message was received whose consumer before did not settle it."""
    _queue.info(
        "message %s of queue %r was taken over from a consumer that did not settle it in time: "
        "delivery %d",
        message_id,
        queue,
        delivery_count,
        extra=_extra("taken_over", queue, message_id),
    )


def foreign(queue: str, message_id: str) -> None:
    """A message is in a form that this version does not know."""
    _queue.warning(
        "message %s of queue %r was stored by a later version of LeanMQ: left to those who know "
        "its form; upgrade this process",
        message_id,
        queue,
        extra=_extra("foreign_message", queue, message_id),
    )


def give_back_failed(queue: str, what: str, why: str) -> None:
    """Messages could not be given back, and nobody is there to be told by an error."""
    _queue.warning(
        "%s of queue %r could not be given back %s: handed out again when the lease ends",
        what,
        queue,
        why,
        extra=_extra("give_back_failed", queue),
    )


def lease_lost(queue: str, message: Message[Any]) -> None:
    """The work is done, but was not acknowledged: somebody else has the message, or had."""
    _queue.warning(
        "message %s of queue %r was processed, but its lease was lost before it could be "
        "acknowledged: it may be processed twice; use a longer lease, or extend_messages",
        message.id,
        queue,
        extra=_extra("lease_lost", queue, message.id),
    )


def paused(queue: str, message_id: str | None, held: int) -> None:
    """A client has received nothing for a while, since what it holds is not settled."""
    if message_id is not None:
        _queue.warning(
            "nothing is received for now: this client holds message %s of queue %r, which was "
            "handed out before and never settled, until it is settled or its lease ends; settle "
            "messages whose work fails, too (retry_messages)",
            message_id,
            queue,
            extra=_extra("paused", queue, message_id),
        )
        return
    _queue.warning(
        "nothing is received until the %d messages that this client holds are settled, or their "
        "leases end: in queue %r a message that was handed out before and never settled waits for "
        "a client that holds nothing; settle messages whose work fails, too (retry_messages)",
        held,
        queue,
        extra=_extra("paused", queue),
    )


def not_stored(queue: str, count: int, why: str) -> None:
    """Messages that were sent in the background are not stored, or nobody knows."""
    _queue.warning(
        "%d messages that were handed to a producer of queue %r are not stored, or may not be: %s",
        count,
        queue,
        why,
        extra=_extra("not_stored", queue) | {"leanmq_count": count},
    )


def left_to_parent(queue: str, count: int) -> None:
    """A process was forked while a producer held messages."""
    _queue.info(
        "this process was forked while a producer of queue %r held %d messages: the parent sends "
        "them",
        queue,
        count,
        extra=_extra("left_to_parent", queue) | {"leanmq_count": count},
    )


def closely() -> bool:
    """Whether anybody wants to hear of single messages."""
    return _queue.isEnabledFor(logging.DEBUG)


def passed(verb: str, queue: str, messages: Sequence[Any]) -> None:
    """Single messages (ids, or what has one), for those who look closely."""
    if messages and closely():
        for message in messages:
            message_id = message if isinstance(message, str) else message.id
            _queue.debug(
                "message %s of queue %r: %s",
                message_id,
                queue,
                verb,
                extra=_extra(verb, queue, message_id),
            )


def _extra(event: str, queue: str, message_id: str | None = None) -> dict[str, Any]:
    return {"leanmq_event": event, "leanmq_queue": queue, "leanmq_message": message_id}
