"""``AsyncBatchingProducer``: a buffer, and a task that sends from it.

What is sent, again or not, and what futures are told is in ``policy/batching.py``.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import os
import warnings
from asyncio import Future
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, TypeVar

from leanmq.api import Moment, Seconds
from leanmq.backends.protocol import AsyncBackend, NewMessage, SendResult
from leanmq.policy import events, limits
from leanmq.policy.batching import Batching
from leanmq.policy.buffer import Batch
from leanmq.policy.limits import Limits, not_closed
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import seconds_of
from leanmq.policy.steps import drive_async

__all__ = ["AsyncBatchingProducer"]

T = TypeVar("T")


class AsyncBatchingProducer(Generic[T]):
    """``leanmq.BatchingProducer`` for asyncio. Belongs to one event loop; share it between tasks.

    Examples:
        >>> from leanmq import AsyncLeanMQ
        >>> async def main():
        ...     async with AsyncLeanMQ("memory://") as mq:
        ...         async with mq.queue("orders").batching() as producer:
        ...             futures = [await producer.send_message({"id": n}) for n in range(1_000)]
        ...             print(len(set(await asyncio.gather(*futures))))
        >>> import asyncio; asyncio.run(main())
        1000
    """

    def __init__(self, backend: AsyncBackend, logic: QueueLogic, limits: Limits) -> None:
        self._backend = backend
        self._logic = logic
        self._limits = limits
        # By process: a forked child, with a loop of its own, begins anew. What its copy of the
        # parent's holds, the parent sends.
        self._senders = {os.getpid(): _Sender(backend, logic, limits)}

    def __repr__(self) -> str:
        return f"<AsyncBatchingProducer of {self._logic.ref.name!r} on {self._logic.core.name}>"

    @property
    def buffered(self) -> int:
        """See ``BatchingProducer.buffered``."""
        return self._sender().batching.buffer.count

    async def send_message(
        self,
        data: T,
        *,
        key: str | None = None,
        ttl_seconds: Seconds | None = None,
        delay: Moment | None = None,
        headers: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        dedup_id: str | None = None,
    ) -> Future[str]:
        """See ``BatchingProducer.send_message``. Await the call, which waits only for room, and
        then, or later, the future that it returns. Nothing is sent before the caller lets other
        tasks run."""
        sender = self._sender()
        return await sender.take(
            sender.batching.message_of(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        )

    async def flush(self, timeout: Seconds | None = None) -> None:
        """See ``BatchingProducer.flush``."""
        wait = math.inf if timeout is None else seconds_of(timeout, "timeout")
        await self._sender().flush(wait)

    async def close(self, timeout: Seconds | None = None) -> None:
        """See ``BatchingProducer.close``."""
        deadline = self._logic.core.terms.deadline
        await self._sender().close(deadline if timeout is None else seconds_of(timeout, "timeout"))

    async def __aenter__(self) -> AsyncBatchingProducer[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _sender(self) -> _Sender:
        """The sender of this process."""
        pid = os.getpid()
        sender = self._senders.get(pid)
        if sender is None:
            [old] = self._senders.values()
            sender = _Sender(self._backend, self._logic, self._limits)
            sender.batching.ended = old.batching.ended
            self._senders = {pid: sender}
            if old.batching.buffer.count:
                events.left_to_parent(self._logic.ref.name, old.batching.buffer.count)
        return sender


class _Sender:
    """What a producer is in one process: the buffer, and the task."""

    def __init__(self, backend: AsyncBackend, logic: QueueLogic, limits: Limits) -> None:
        self.batching: Batching[Future[str]] = Batching(logic, limits, _is_wanted)
        self._backend = backend
        self._buffer = self.batching.buffer
        self._pid = os.getpid()
        self._work = asyncio.Event()
        self._progress = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    # --- in the tasks of users

    async def take(self, message: NewMessage) -> Future[str]:
        """Append a message, once there is room."""
        if self.batching.ended or self._buffer.full or self._task is None:
            await self._get_ready()
        future: Future[str] = asyncio.get_running_loop().create_future()
        if self.batching.add(message, future):
            self._wake()
        return future

    async def _get_ready(self) -> None:
        self.batching.check_open()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"batching {self.batching.name}")
            atexit.register(self._forgotten)
        if self._buffer.full:
            if not await self._true_within(
                lambda: self.batching.ended or not self._buffer.full, self.batching.limits.max_block
            ):
                raise self.batching.no_room()
            self.batching.check_open()

    def _wake(self) -> None:
        self._buffer.wakes_at = 0.0
        self._work.set()

    async def flush(self, wait: float) -> None:
        """Wait until what is held now has results."""
        marks = self._buffer.marks()
        if not await self._await(lambda: self._buffer.reached(marks), wait):
            raise self.batching.not_flushed(wait)

    async def close(self, wait: float, reason: str = "the producer was closed") -> None:
        """Drain, then give up what is left."""
        self.batching.ended = True
        self._progress.set()  # who waits for room waits in vain
        drained = await self._await(lambda: not self._buffer.count, wait)
        outcomes = [] if drained else self.batching.abandon(f"{reason}, {wait:g} s were over")
        self._stopped = True
        self._wake()
        self._settle(outcomes)
        atexit.unregister(self._forgotten)
        if drained and self._task is not None:
            await asyncio.wait([self._task])

    async def _await(self, condition: Callable[[], bool], wait: float) -> bool:
        """Have everything sent at once, and wait for it; whether it came true in time."""
        self._buffer.hurry += 1
        try:
            self._wake()
            return await self._true_within(condition, wait)
        finally:
            self._buffer.hurry -= 1

    async def _true_within(self, condition: Callable[[], bool], wait: float) -> bool:
        ends = self.batching.monotonic() + wait
        while not condition():
            left = ends - self.batching.monotonic()
            if left <= 0:
                return False
            self._progress.clear()
            await _wait_for(self._progress, left)
        return True

    def _forgotten(self) -> None:
        """The interpreter ends, and nobody closed the producer, nor ended its task."""
        if os.getpid() != self._pid:
            return  # a forked child inherited this; the parent does it
        if self._buffer.count:
            events.not_stored(self.batching.name, self._buffer.count, "the process ended")
        if not self.batching.ended:
            warnings.warn(not_closed(self.batching.name), ResourceWarning, stacklevel=1)

    # --- in the task

    async def _run(self) -> None:
        try:
            await self._send_all()
        except asyncio.CancelledError:  # as asyncio.run does with what is left at its end
            forgotten = not self.batching.ended
            self._task = asyncio.create_task(self._send_all())
            try:
                await self.close(
                    min(limits.AT_EXIT, self.batching.logic.core.terms.deadline),
                    "the event loop ended",
                )
            finally:
                self._task.cancel()  # what is under way even now
                await asyncio.wait([self._task])
            if forgotten:
                warnings.warn(not_closed(self.batching.name), ResourceWarning, stacklevel=1)
            raise

    async def _send_all(self) -> None:
        while (batches := await self._next()) is not None:
            try:
                answers = await drive_async(self.batching.send(batches), self._backend)
            except asyncio.CancelledError:
                for batch in batches:
                    self._settle(self.batching.cut_off(batch))
                raise
            for batch, results in zip(batches, answers, strict=True):
                self._settle(self.batching.conclude(batch, results))

    async def _next(self) -> Sequence[Batch[Future[str]]] | None:
        """Wait for batches that are due; None when it is over."""
        while True:
            now = self.batching.monotonic()
            if batches := self._buffer.due(now):
                return batches
            if self._stopped:
                return None
            moment = self._buffer.next_due()
            self._buffer.wakes_at = moment
            self._work.clear()
            await _wait_for(self._work, moment - now)
            self._buffer.wakes_at = 0.0

    def _settle(self, outcomes: Sequence[tuple[Future[str], SendResult]]) -> None:
        """Tell futures; then there is room."""
        for future, outcome in outcomes:
            if future.done():  # cancelled meanwhile
                continue
            if isinstance(outcome, str):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
                future.exception()  # or asyncio would log each one that nobody looks at
        self.batching.report(outcomes)
        self._buffer.release()
        self._progress.set()


def _is_wanted(future: Future[str]) -> bool:
    return not future.cancelled()


async def _wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, for so long at most."""
    try:
        async with asyncio.timeout(None if seconds == math.inf else seconds):
            await event.wait()
    except TimeoutError:
        pass
