"""``drain``: a handler works off a queue, in the test itself, until nothing is left to do.

One policy for both worlds; the two functions differ in how they call the handler.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from typing import Any

import attrs

from leanmq.api import AsyncQueue, Message, Queue, T
from leanmq.backends.protocol import QueueRef, Verb
from leanmq.errors import UnsupportedError
from leanmq.policy.logic import QueueLogic
from leanmq.policy.steps import Loop, Steps, iterate, iterate_async
from leanmq.testing.clock import ManualClock
from leanmq.testing.handles import async_parts_of, look, parts_of, shown

__all__ = ["Drained", "drain", "drain_async"]

LIMIT = 1_000
"""Calls of the handler after which a drain gives up."""

ERRORS_KEPT = 10


@attrs.frozen
class Drained:
    """What came of a drain.

    Attributes:
        handled: Messages that the handler was done with.
        failed: Calls of the handler that raised; a message may have failed several times.
        dead: Messages that became dead letters meanwhile, for any reason.
        errors: What the first ten of those calls raised. Two results are equal without regard
            to this.
    """

    handled: int = 0
    failed: int = 0
    dead: int = 0
    errors: tuple[Exception, ...] = attrs.field(default=(), eq=False)


def drain(
    queue: Queue[T],
    handler: Callable[[T], object],
    *,
    clock: ManualClock | None = None,
    limit: int = LIMIT,
) -> Drained:
    """Have ``handler`` work off what is in a queue, as a consumer would.

    Each message is received, its payload handed to ``handler``, and the message acknowledged.
    If ``handler`` raises, the message is retried at once, counted, and so becomes a dead letter
    at the queue's ``max_deliveries``. It ends when nothing is ready any more; messages that the
    handler sends to the queue are worked off too.

    Args:
        queue: The queue, or its ``dlq``.
        handler: What the application does with a payload.
        clock: Work off delayed messages too: this clock is put forward to when they are due.
        limit: Calls of ``handler`` after which to give up.

    Returns:
        How many messages were handled, failed, and died.

    Raises:
        AssertionError: if the queue is not empty after ``limit`` calls; or that of ``handler``,
            which is a verdict of the test and no failure of the message. The message in question
            is given back.
        UnsupportedError: if ``clock`` was given and the queue is not on ``memory://``.
        TypeError: if ``queue`` or ``handler`` is for asyncio.

    Examples:
        >>> from leanmq import LeanMQ
        >>> with LeanMQ("memory://") as mq:
        ...     numbers = mq.queue("numbers", max_deliveries=2)
        ...     _ = numbers.send_messages([1, 0])
        ...     drain(numbers, lambda number: 1 / number)
        Drained(handled=1, failed=2, dead=1, errors=(ZeroDivisionError('division by zero'), ...
    """
    logic, backend = parts_of(queue, "drain")
    if _is_coroutine_function(handler):
        raise TypeError(
            f"{_named(handler)} is a coroutine function, which drain cannot await; "
            "use drain_async with a queue of an AsyncLeanMQ"
        )
    work = _Work(logic, clock, _checked(limit))
    turns: Generator[Any, None] = iterate(work.turns(), backend)
    with suppress(StopIteration):
        payload = next(turns)
        while True:
            try:
                handler(payload)
            except BaseException as error:  # noqa: BLE001  # raised in the policy instead
                work.raised = error
                payload = turns.throw(error)
            else:
                payload = next(turns)
    return work.result()


async def drain_async(
    queue: AsyncQueue[T],
    handler: Callable[[T], object],
    *,
    clock: ManualClock | None = None,
    limit: int = LIMIT,
) -> Drained:
    """``drain`` for a queue of an ``AsyncLeanMQ``; ``handler`` may be a coroutine function."""
    logic, backend = async_parts_of(queue, "drain_async")
    work = _Work(logic, clock, _checked(limit))
    turns: AsyncGenerator[Any, None] = iterate_async(work.turns(), backend)
    with suppress(StopAsyncIteration):
        payload = await anext(turns)
        while True:
            try:
                result = handler(payload)
                if inspect.isawaitable(result):
                    await result
            except BaseException as error:  # noqa: BLE001  # raised in the policy instead
                work.raised = error
                payload = await turns.athrow(error)
            else:
                payload = await anext(turns)
    return work.result()


def _checked(limit: int) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise TypeError(f"limit must be an int, not {type(limit).__name__}")
    if limit < 1:
        raise ValueError(f"limit is {limit}; give 1 call of the handler or more")
    return limit


def _is_coroutine_function(handler: object) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004  # an instance may have an async one
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


def _named(handler: object) -> str:
    return str(getattr(handler, "__qualname__", type(handler).__qualname__))


@attrs.define
class _Work:
    """One drain under way."""

    logic: QueueLogic
    clock: ManualClock | None
    limit: int
    raised: BaseException | None = None
    """What the handler raised last; other errors are LeanMQ's own."""
    handled: int = 0
    failed: int = 0
    dead: int = 0
    errors: list[Exception] = attrs.field(factory=list)

    def result(self) -> Drained:
        return Drained(self.handled, self.failed, self.dead, tuple(self.errors))

    def turns(self) -> Loop:
        """Hand out payload after payload; an exception of the handler is thrown in."""
        yield from self._check_clock()
        dead = yield from self._dead_letters()
        while (message := (yield from self._next())) is not None:
            try:
                yield from self.logic.processing(message)
            except AssertionError:
                raise
            except Exception as error:  # of the handler, as ``processing`` takes them; others go on
                if not self._from_handler(error):
                    raise
                self.failed += 1
                if len(self.errors) < ERRORS_KEPT:
                    self.errors.append(error)
            else:
                self.handled += 1
        self.dead = max(0, (yield from self._dead_letters()) - dead)

    def _from_handler(self, error: Exception) -> bool:
        # A StopIteration becomes the cause of a RuntimeError on its way through generators.
        return self.raised is not None and self.raised in (error, error.__cause__)

    def _next(self) -> Steps[Message[Any] | None]:
        while True:
            messages = yield from self.logic.receive(1, None, None)
            if messages:
                yield from self._check_limit(messages[0])
                return messages[0]
            if self.clock is None:
                return None
            seen = yield from look(self.logic)
            due = [message.due_at for message in seen.messages if message.due_at is not None]
            if not due:
                return None
            # A millisecond more, in which the server counts.
            self.clock.advance(max(0.0, min(due) - time.time()) + 0.001)

    def _check_limit(self, message: Message[Any]) -> Steps[None]:
        if self.handled + self.failed < self.limit:
            return
        yield from self.logic.settle(Verb.RELEASE, [message])
        last = f"; the last error was {shown(self.errors[-1])}" if self.errors else ""
        raise AssertionError(
            f"queue {self.logic.ref.name!r} is not empty after {self.limit:,} calls of the handler "
            f"({self.handled:,} handled, {self.failed:,} failed{last}): does it send to this "
            "queue, or is max_deliveries 0? Else raise limit="
        )

    def _check_clock(self) -> Steps[None]:
        capabilities = yield from self.logic.core.open()
        if self.clock is not None and capabilities.shared:
            raise UnsupportedError(
                f"{self.logic.core.name} has a clock of its own, which a ManualClock cannot put "
                "forward; use a memory:// URL, or leave out clock=",
                queue=self.logic.ref.name,
            )

    def _dead_letters(self) -> Steps[int]:
        dead = QueueRef(self.logic.ref.name, True)
        info = yield from self.logic.core.info(dead, self.logic.asked)
        return info.message_count
