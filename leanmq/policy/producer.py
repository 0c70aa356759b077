"""``BatchingProducer`` for threads: a buffer under one lock, and a thread that sends from it.

What is sent, again or not, and what futures are told is in ``batching.py``.
"""

from __future__ import annotations

import atexit
import math
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

from leanmq.api import Moment, Seconds
from leanmq.backends.protocol import Backend, NewMessage, SendResult
from leanmq.policy import events, limits
from leanmq.policy.batching import Batching
from leanmq.policy.buffer import Batch
from leanmq.policy.limits import Limits, not_closed
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import seconds_of
from leanmq.policy.promises import Promise
from leanmq.policy.steps import drive

__all__ = ["BatchingProducer"]

T = TypeVar("T")


class BatchingProducer(Generic[T]):
    """Sends messages of a queue in the background, many at a time. Share it between threads.

    Made by ``queue.batching()``, without any I/O. Close it, or use it as a context manager: what
    it holds when its process is killed is lost.

    Examples:
        >>> from leanmq import LeanMQ
        >>> with LeanMQ("memory://") as mq, mq.queue("orders").batching() as producer:
        ...     futures = [producer.send_message({"id": n}) for n in range(1_000)]
        ...     producer.flush()
        ...     len({future.result() for future in futures})
        1000
    """

    def __init__(self, backend: Backend, logic: QueueLogic, limits: Limits) -> None:
        self._backend = backend
        self._logic = logic
        self._limits = limits
        # By process: a forked child begins anew. What its copy of the parent's holds, the parent
        # sends.
        self._senders = {os.getpid(): _Sender(backend, logic, limits)}

    def __repr__(self) -> str:
        return f"<BatchingProducer of {self._logic.ref.name!r} on {self._logic.core.name}>"

    @property
    def buffered(self) -> int:
        """Messages that were handed over and have no result yet."""
        return self._sender().batching.buffer.count

    def send_message(
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
        """Hand over a message to be sent; see ``Queue.send_message``. Waits only for room.

        Args:
            data: The payload; it may be changed as soon as the call has returned.
            key: See ``Queue.send_message``, also for the others.

        Returns:
            A future of the message's id. It raises what ``Queue.send_message`` would; or
            NotSentError, if a message with a key before it failed, or the producer was closed
            before it could be sent. Cancelled before its batch goes, the message is left out.

        Raises:
            MessageError: if ``data`` or an option cannot be sent.
            BufferFullError: if there was no room within ``max_block`` seconds.
            ClosedError: if the producer is closed.
        """
        sender = self._senders.get(os.getpid()) or self._sender()
        return sender.take(
            sender.batching.message_of(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        )

    def flush(self, timeout: Seconds | None = None) -> None:
        """Send at once what is held, and wait until all of it has a result, good or bad.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            TimeoutError: if something has none yet; it goes on being sent.
        """
        wait = math.inf if timeout is None else seconds_of(timeout, "timeout")
        self._sender().flush(wait)

    def close(self, timeout: Seconds | None = None) -> None:
        """Take no more messages, send what is held, and end.

        What is not sent in time fails with NotSentError, save for what is on its way just then:
        that gets its result when it comes. Closing again does nothing.

        Args:
            timeout: Seconds to wait at most; None: the client's ``deadline``.
        """
        deadline = self._logic.core.terms.deadline
        self._sender().close(deadline if timeout is None else seconds_of(timeout, "timeout"))

    def __enter__(self) -> BatchingProducer[T]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _sender(self) -> _Sender:
        """The sender of this process."""
        pid = os.getpid()
        sender = self._senders.get(pid)
        if sender is not None:
            return sender
        old = next(iter(self._senders.values()))
        new = _Sender(self._backend, self._logic, self._limits)
        new.batching.ended = old.batching.ended
        sender = self._senders.setdefault(pid, new)  # of threads that come here together, one wins
        if sender is new:
            self._senders = {pid: new}
            if old.batching.buffer.count:
                events.left_to_parent(self._logic.ref.name, old.batching.buffer.count)
        return sender


class _Sender:
    """What a producer is in one process: the buffer, its lock, and the thread."""

    def __init__(self, backend: Backend, logic: QueueLogic, limits: Limits) -> None:
        self.batching: Batching[Promise] = Batching(
            logic, limits, Promise.set_running_or_notify_cancel
        )
        self._backend = backend
        self._buffer = self.batching.buffer
        self._pid = os.getpid()
        # Reentrant: a signal handler may send, or close, in the midst of a send.
        self._lock = threading.RLock()
        self._work = threading.Condition(self._lock)
        self._progress = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._left = False

    # --- in the threads of users

    def take(self, message: NewMessage) -> Future[str]:
        """Append a message, once there is room."""
        future = Promise()
        with self._lock:
            if self.batching.ended or self._buffer.full or self._thread is None:
                self._get_ready()
            wake = True
            try:
                wake = self.batching.add(message, future)
            finally:
                if wake:  # also if Ctrl-C came in the midst of it
                    self._wake()
        return future

    def _get_ready(self) -> None:
        self.batching.check_open()
        if self._thread is None:
            self._start()
        ends = self.batching.monotonic() + self.batching.limits.max_block
        while self._buffer.full:
            left = ends - self.batching.monotonic()
            if left <= 0 or threading.current_thread() is self._thread:  # it waits for itself
                raise self.batching.no_room()
            self._progress.wait(min(left, threading.TIMEOUT_MAX))
            self.batching.check_open()

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=self._run, name=f"leanmq-batching-{self.batching.name}", daemon=True
        )
        self._thread.start()
        atexit.register(self._leave)

    def _wake(self) -> None:
        self._buffer.wakes_at = 0.0
        self._work.notify()

    def flush(self, wait: float) -> None:
        """Wait until what is held now has results."""
        with self._lock:
            marks = self._buffer.marks()
            if not self._await(lambda: self._buffer.reached(marks), wait):
                raise self.batching.not_flushed(wait)

    def close(self, wait: float, reason: str = "the producer was closed") -> None:
        """Drain, then give up what is left."""
        with self._lock:
            self.batching.ended = True
            self._progress.notify_all()  # who waits for room waits in vain
            drained = self._await(lambda: not self._buffer.count, wait)
            outcomes = [] if drained else self.batching.abandon(f"{reason}, {wait:g} s were over")
            self._stopped = True
            self._wake()
        self.batching.report(outcomes)
        self._settle(outcomes)
        atexit.unregister(self._leave)
        if drained and self._thread is not None and threading.current_thread() != self._thread:
            self._thread.join()

    def _await(self, condition: Callable[[], bool], wait: float) -> bool:
        """Have everything sent at once, and wait for it; whether it came true in time."""
        if condition():
            return True
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a callback of a future waits for messages that are sent only after it; flush and "
                "close a producer elsewhere"
            )
        self._buffer.hurry += 1
        try:
            self._wake()
            return self._progress.wait_for(condition, min(wait, threading.TIMEOUT_MAX))
        finally:
            self._buffer.hurry -= 1

    def _leave(self) -> None:
        """The interpreter ends, and nobody closed the producer."""
        if os.getpid() != self._pid:
            return  # a forked child inherited this; the parent does it
        forgotten = not self.batching.ended  # else its closing was interrupted
        self.close(
            min(limits.AT_EXIT, self.batching.logic.core.terms.deadline), "the process ended"
        )
        with self._lock:
            self._left = True  # what gets its result later is told of here
            under_way = self._buffer.open
            self._progress.wait_for(lambda: self._buffer.count <= under_way, limits.AT_EXIT)
        if under_way:
            events.not_stored(self.batching.name, under_way, "the process ended meanwhile")
        if forgotten:
            warnings.warn(not_closed(self.batching.name), ResourceWarning, stacklevel=1)

    # --- in the thread

    def _run(self) -> None:
        while (batches := self._next()) is not None:
            answers = drive(self.batching.send(batches), self._backend)
            outcomes: list[tuple[Promise, SendResult]] = []
            with self._lock:
                for batch, results in zip(batches, answers, strict=True):
                    outcomes += self.batching.conclude(batch, results)
                told = self._left
            if not told:
                self.batching.report(outcomes)
            self._settle(outcomes)

    def _next(self) -> Sequence[Batch[Promise]] | None:
        """Wait for batches that are due; None when it is over."""
        with self._lock:
            while True:
                now = self.batching.monotonic()
                if batches := self._buffer.due(now):
                    return batches
                if self._stopped:
                    return None
                moment = self._buffer.next_due()
                self._buffer.wakes_at = moment
                self._work.wait(None if moment == math.inf else moment - now)
                self._buffer.wakes_at = 0.0

    def _settle(self, outcomes: Sequence[tuple[Promise, SendResult]]) -> None:
        """Tell futures outside of the lock, since it runs callbacks; then there is room."""
        for future, outcome in outcomes:
            if isinstance(outcome, str):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        with self._lock:
            self._buffer.release()
            self._progress.notify_all()
