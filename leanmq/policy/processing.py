"""What ``processing`` and ``consume`` say when a message cannot be settled as it should."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from leanmq.api import Message
from leanmq.errors import LeanMQError

__all__ = ["failed", "kept_back", "lease_lost", "text_of"]

log = logging.getLogger("leanmq")


@contextmanager
def failed(queue: str, message: Message[Any], error: BaseException) -> Iterator[None]:
    """Around giving a message back after ``error``, which is what the caller shall see: trouble
    with the giving back is logged, and the message comes back after its lease."""
    try:
        yield
    except LeanMQError as trouble:
        log.warning(
            "message %s of queue %r could not be given back after %s (%s); it comes again when "
            "its lease ends",
            message.id,
            queue,
            type(error).__name__,
            trouble,
            extra={"leanmq_event": "give_back_failed", "leanmq_queue": queue},
        )


@contextmanager
def kept_back(queue: str, count: int) -> Iterator[None]:
    """Around giving back what a loop received and did not come to: nobody waits for an error at
    the end of a loop, so trouble is logged, and the messages come back after their leases."""
    try:
        yield
    except LeanMQError as trouble:
        log.warning(
            "%d messages of queue %r that a loop did not come to could not be given back (%s); "
            "they come again when their leases end",
            count,
            queue,
            trouble,
            extra={"leanmq_event": "give_back_failed", "leanmq_queue": queue},
        )


def text_of(error: Exception) -> str:
    """What is kept of an exception; one that has no words has its name."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  # of the user's class; it must not hide the user's error
        return name


def lease_lost(queue: str, message: Message[Any]) -> None:
    """The work is done, but was not acknowledged: somebody else has the message, or had."""
    log.warning(
        "message %s of queue %r was processed, but its lease was lost before it could be "
        "acknowledged: it may be processed twice; use a longer lease, or extend_messages",
        message.id,
        queue,
        extra={"leanmq_event": "lease_lost", "leanmq_queue": queue},
    )
