"""``assert_sent``: whether a message is in a queue, without receiving it.

What counts as a match is here, and what people are told if there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, overload

from leanmq.api import AsyncQueue, Queue, StoredMessage, T
from leanmq.backends.protocol import QueueRef
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import MAX_COUNT
from leanmq.policy.steps import Steps, drive, drive_async
from leanmq.testing.handles import async_parts_of, look, parts_of, shown

__all__ = ["assert_sent", "assert_sent_async"]

SHOWN = 10
"""Messages that a failure shows."""

_MISSING = object()


@overload
def assert_sent(queue: Queue[T], match: Any = ..., *, count: None = None) -> StoredMessage[T]: ...
@overload
def assert_sent(queue: Queue[T], match: Any = ..., *, count: int) -> list[StoredMessage[T]]: ...
def assert_sent(
    queue: Queue[T], match: Any = ..., *, count: int | None = None
) -> StoredMessage[T] | list[StoredMessage[T]]:
    """Assert that a message was sent to a queue and is still to be handed out.

    It looks at messages that are ready or delayed, 1,000 of each at most, and takes none of
    them. Those in flight are not looked at.

    Args:
        queue: The queue that was sent to.
        match: A payload; or a dict of some fields of a payload, with values that are matched
            likewise; or a type; or a function that is given a payload and says whether it is
            meant. Without it, any message matches.
        count: How many messages match, exactly; 0 says that none was sent. Without it, at
            least one.

    Returns:
        The first message that matches. With ``count``, the list of all that do.

    Raises:
        AssertionError: if that is not so; it shows what is in the queue.
        TypeError: if ``queue`` is no queue for threads.

    Examples:
        >>> from leanmq import LeanMQ
        >>> with LeanMQ("memory://") as mq:
        ...     orders = mq.queue("orders")
        ...     _ = orders.send_message({"id": 7, "item": "tea"}, headers={"from": "shop"})
        ...     message = assert_sent(orders, {"id": 7})
        ...     _ = assert_sent(orders, lambda order: order["item"] == "coffee", count=0)
        ...     (message.data["item"], message.headers["from"])
        ('tea', 'shop')
    """
    __tracebackhide__ = True
    logic, backend = parts_of(queue, "assert_sent")
    found, problem = drive(_find(logic, match, _checked(count)), backend)
    if problem:
        raise AssertionError(problem)
    return found[0] if count is None else found


@overload
async def assert_sent_async(
    queue: AsyncQueue[T], match: Any = ..., *, count: None = None
) -> StoredMessage[T]: ...
@overload
async def assert_sent_async(
    queue: AsyncQueue[T], match: Any = ..., *, count: int
) -> list[StoredMessage[T]]: ...
async def assert_sent_async(
    queue: AsyncQueue[T], match: Any = ..., *, count: int | None = None
) -> StoredMessage[T] | list[StoredMessage[T]]:
    """``assert_sent`` for a queue of an ``AsyncLeanMQ``."""
    __tracebackhide__ = True
    logic, backend = async_parts_of(queue, "assert_sent_async")
    found, problem = await drive_async(_find(logic, match, _checked(count)), backend)
    if problem:
        raise AssertionError(problem)
    return found[0] if count is None else found


def _checked(count: int | None) -> int | None:
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if count < 0:
        raise ValueError(f"count is {count}; give how many messages match, 0 or more")
    return count


def _find(
    logic: QueueLogic, match: Any, count: int | None
) -> Steps[tuple[list[StoredMessage[Any]], str]]:
    """The messages that match, and what is wrong with their number, if anything is."""
    seen = yield from look(logic)
    found = [message for message in seen.messages if _fits(message.data, match)]
    if found and count is None:
        return found, ""
    if len(found) == count and not seen.cut:
        return found, ""
    what = "" if match is ... else f" that match {_described(match)}"
    if count is None:
        problem = f"{_name(logic)} holds no messages{what}"
    elif len(found) != count:
        problem = f"{_name(logic)} holds {len(found)} messages{what}, not {count}"
    else:
        problem = f"{_name(logic)} holds more messages than assert_sent can count"
    told = [problem, *_account(seen.messages)]
    if seen.cut:
        told.append(f"  only {MAX_COUNT:,} ready and {MAX_COUNT:,} delayed messages were looked at")
    told += yield from _elsewhere(logic)
    return found, "\n".join(told)


def _elsewhere(logic: QueueLogic) -> Steps[list[str]]:
    """Where a message may be that was sent and is not seen."""
    told = []
    info = yield from logic.info()
    if info.pending_messages:
        told.append(f"  {info.pending_messages} in flight, which were not looked at")
    if not logic.ref.dead:
        dead = yield from logic.core.info(QueueRef(logic.ref.name, True), logic.asked)
        if dead.message_count:
            told.append(f"  {dead.message_count} among the dead letters, see queue.dlq")
    return told


def _name(logic: QueueLogic) -> str:
    return (
        f"the dead letter queue of {logic.ref.name!r}"
        if logic.ref.dead
        else (f"queue {logic.ref.name!r}")
    )


def _account(messages: list[StoredMessage[Any]]) -> list[str]:
    """What is there, a line a message."""
    if not messages:
        return ["  nothing is ready or delayed there"]
    lines = [f"  {message.state}: {shown(message.data)}" for message in messages[:SHOWN]]
    if len(messages) > SHOWN:
        lines.append(f"  and {len(messages) - SHOWN} more")
    return lines


def _described(match: Any) -> str:
    if isinstance(match, type):
        return f"the type {match.__qualname__}"
    if callable(match):
        return f"the function {getattr(match, '__qualname__', type(match).__qualname__)}"
    return shown(match)


def _fits(data: Any, match: Any) -> bool:
    """Whether a payload is what was asked for."""
    if match is ...:
        return True
    if isinstance(match, type):
        return isinstance(data, match)
    if callable(match):
        return _says(match, data)
    return _equal(data, match)


def _says(predicate: Callable[[Any], object], data: Any) -> bool:
    try:
        return bool(predicate(data))
    except Exception as error:  # of the user's function: only noted, and raised on
        error.add_note(f"assert_sent had asked its function about the payload {shown(data)}")
        raise


def _equal(data: Any, wanted: Any) -> bool:
    """Equal, but that a dict is matched by what it names. JSON knows no tuples."""
    if isinstance(wanted, Mapping) and wanted:
        return all(_equal(_field(data, name), value) for name, value in wanted.items())
    if isinstance(wanted, list | tuple) and isinstance(data, list | tuple):
        return len(data) == len(wanted) and all(map(_equal, data, wanted))
    return bool(data == wanted)


def _field(data: Any, name: Any) -> Any:
    """What a dict holds under this name, or an instance of the queue's type."""
    if isinstance(data, Mapping):
        return data.get(name, _MISSING)
    return getattr(data, name, _MISSING) if isinstance(name, str) else _MISSING
