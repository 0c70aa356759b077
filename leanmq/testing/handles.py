"""What stands behind the queue that a test hands in, and what is stored there.

Written once for both worlds, as steps (``policy/steps.py``).
"""

from __future__ import annotations

from typing import Any

import attrs

from leanmq.aio.queue import AsyncQueueHandle
from leanmq.api import StoredMessage
from leanmq.backends.protocol import AsyncBackend, Backend, State
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import MAX_COUNT
from leanmq.policy.queue import QueueHandle
from leanmq.policy.steps import Steps

__all__ = ["Seen", "async_parts_of", "look", "parts_of", "shown"]

LONGEST = 160
"""Characters of a payload that are shown."""


def parts_of(queue: object, caller: str) -> tuple[QueueLogic, Backend]:
    """Policy and backend of a queue for threads.

    Raises:
        TypeError: if it is something else; ``caller`` is the function that was called with it.
    """
    if isinstance(queue, QueueHandle):
        return queue._logic, queue._backend
    if isinstance(queue, AsyncQueueHandle):
        raise TypeError(
            f"queue {queue.name!r} belongs to an AsyncLeanMQ; use 'await {caller}_async(...)'"
        )
    raise _no_queue(queue, caller)


def async_parts_of(queue: object, caller: str) -> tuple[QueueLogic, AsyncBackend]:
    """``parts_of`` for asyncio."""
    if isinstance(queue, AsyncQueueHandle):
        return queue._logic, queue._backend
    if isinstance(queue, QueueHandle):
        plain = caller.removesuffix("_async")
        raise TypeError(f"queue {queue.name!r} belongs to a LeanMQ; use '{plain}(...)'")
    raise _no_queue(queue, caller)


def _no_queue(queue: object, caller: str) -> TypeError:
    return TypeError(
        f"{caller} takes a queue, as mq.queue('orders') returns it, not {type(queue).__name__}"
    )


@attrs.frozen
class Seen:
    """What is stored in a queue and not in flight.

    Attributes:
        messages: Those that are ready, the next one first, then those that are delayed.
        cut: Whether there may be more: no more than 1,000 of each are looked at.
    """

    messages: list[StoredMessage[Any]]
    cut: bool


def look(logic: QueueLogic) -> Steps[Seen]:
    """Look at all that is ready or delayed, and touch nothing."""
    # Delayed ones first: what falls due between the two looks is then seen twice, not never.
    delayed = yield from logic.peek(MAX_COUNT, None, State.DELAYED)
    ready = yield from logic.peek(MAX_COUNT, None, State.READY)
    known = {message.id for message in ready}
    messages = ready + [message for message in delayed if message.id not in known]
    return Seen(messages, max(len(ready), len(delayed)) >= MAX_COUNT)


def shown(value: object) -> str:
    """A value for people, in a bounded space."""
    try:
        text = repr(value)
    except Exception as error:  # noqa: BLE001  # of the user's class; it must not hide the message
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
