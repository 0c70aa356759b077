"""The nodes of a router: drives its plans on them, in threads or tasks."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar, cast

from leanmq.backends.many import METHODS, AsyncManyQueues, ManyQueues, Watch, Watched
from leanmq.backends.protocol import AsyncBackend, Backend, QueueRef
from leanmq.errors import ClosedError, LeanMQError
from leanmq.sharding.steps import TOGETHER, Ask, Asks, Background, Plan, Sleep, Watching

__all__ = ["AsyncNodes", "Nodes"]

T = TypeVar("T")

_THREADS: Final = 64
"""Threads that ask nodes, at most: they are made when they are needed."""

_Key: TypeAlias = tuple[int, frozenset[QueueRef]]


def _shares(asks: Sequence[Ask]) -> list[tuple[int, list[int]]]:
    """The places of what each node is asked."""
    shares: dict[int, list[int]] = {}
    for place, (node, _) in enumerate(asks):
        shares.setdefault(node, []).append(place)
    return list(shares.items())


def _key(node: int, watch: Watch) -> _Key:
    return node, frozenset([queue for queue, _ in watch.queues])


class Nodes:
    """The backends of a router, for threads.

    A single node is asked in the caller's thread; of several, the first one is, and threads of a
    pool ask the others. What waits on several nodes leaves the watches of the others running, at
    most a second, and joins them when it waits again: they take nothing.
    """

    def __init__(self, backends: Sequence[Backend], forked: Callable[[], object]) -> None:
        self._backends = backends
        self._forked = forked
        self._many = [isinstance(backend, ManyQueues) for backend in backends]
        self._closed = False
        self._reset()

    def _reset(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._watches: dict[_Key, Future[Any]] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def drive(self, plan: Plan[T]) -> T:
        """Carry out a plan."""
        if self._pid != os.getpid():  # a fork has none of the threads
            self._reset()
            self._forked()
        answer: Any = None
        try:
            while True:
                step = plan.send(answer)
                if isinstance(step, Asks):
                    answer = self._ask(step.asks)
                elif isinstance(step, Watching):
                    answer = self._watch(step)
                elif isinstance(step, Sleep):
                    time.sleep(step.seconds)
                else:
                    self._begin(step)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def close(self) -> None:
        """End the threads, each when what it was given to do is done."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None and self._pid == os.getpid():
            pool.shutdown(wait=False)

    def _ask(self, asks: Sequence[Ask]) -> list[Any]:
        shares = _shares(asks)
        if len(shares) <= 1:
            return self._on(shares[0][0], [request for _, request in asks]) if asks else []
        results: list[Any] = [None] * len(asks)
        others = []
        for node, places in shares[1:]:
            try:
                others.append((places, self._submit(self._on, node, [asks[p][1] for p in places])))
            except ClosedError as error:  # what the other nodes answer still counts
                _spread(results, places, [error] * len(places))
        node, places = shares[0]
        _spread(results, places, self._on(node, [asks[p][1] for p in places]))
        for places, future in others:
            _spread(results, places, future.result())
        return results

    def _on(self, node: int, requests: Sequence[Any]) -> list[Any]:
        backend = self._backends[node]
        if len(requests) > 1 and self._many[node]:
            answers = _value(lambda: cast("ManyQueues", backend).together(requests))
            return _each(answers, len(requests))
        return [_value(_method(backend, request)) for request in requests]

    def _watch(self, step: Watching) -> list[Any]:
        if len(step.watches) == 1:
            [(node, watch)] = step.watches
            backend: Any = self._backends[node]
            return [_value(lambda: backend.watch(watch))]
        running = [self._joined(node, watch) for node, watch in step.watches]
        ends, going = time.monotonic() + step.seconds, set(running)
        while going:
            left = max(0.0, ends - time.monotonic())
            done, going = wait(going, left + TOGETHER, FIRST_COMPLETED)
            if _over(ends - time.monotonic(), [future.result() for future in done]):
                break
        return [future.result() if future.done() else None for future in running]

    def _joined(self, node: int, watch: Watch) -> Future[Any]:
        """The watch of these queues that is under way, or a new one.

        One that began after an earlier look ends as well for all that came since this one.
        """
        key = _key(node, watch)
        with self._lock:
            future = self._watches.get(key)
            if future is not None:
                return future
            future = self._watches[key] = Future()
        thread = threading.Thread(
            target=self._carry_out, args=(key, watch, future), name="leanmq-watch", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is about to end
            with self._lock:
                self._watches.pop(key, None)
            raise
        return future

    def _carry_out(self, key: _Key, watch: Watch, future: Future[Any]) -> None:
        backend: Any = self._backends[key[0]]
        result = None
        try:
            result = _value(lambda: backend.watch(watch))
        finally:
            with self._lock:
                self._watches.pop(key, None)
            future.set_result(result)

    def _begin(self, step: Background) -> None:
        def carry_out() -> None:
            with suppress(LeanMQError):
                self.drive(step.plan)

        with suppress(ClosedError):
            self._submit(carry_out)

    def _submit(self, call: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()

        def carry_out() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*arguments))
                except BaseException as error:  # noqa: BLE001  # whoever waits for it raises it
                    future.set_exception(error)

        with self._lock:
            if self._pool is None and not self._closed:
                self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="leanmq-router")
            pool = self._pool
        try:
            if pool is not None:
                pool.submit(carry_out)
                return future
        except RuntimeError:  # closed meanwhile, or no thread can be started
            if not future.cancel():  # it was put in line, and another thread has taken it
                return future
        raise ClosedError("this router was closed, or no more threads can be started; open another")


class AsyncNodes:
    """``Nodes`` for asyncio: tasks instead of threads."""

    def __init__(self, backends: Sequence[AsyncBackend], forked: Callable[[], object]) -> None:
        self._backends = backends
        self._forked = forked
        self._pid = os.getpid()
        self._many = [isinstance(backend, AsyncManyQueues) for backend in backends]
        self._watches: dict[_Key, asyncio.Task[Any]] = {}
        self._plans: set[asyncio.Task[None]] = set()

    async def drive(self, plan: Plan[T]) -> T:
        """Carry out a plan."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._forked()
        answer: Any = None
        try:
            while True:
                step = plan.send(answer)
                if isinstance(step, Asks):
                    answer = await self._ask(step.asks)
                elif isinstance(step, Watching):
                    answer = await self._watch(step)
                elif isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                else:
                    self._begin(step)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def close(self) -> None:
        """Cancel what goes on beside."""
        loop = asyncio.get_running_loop()
        tasks = [t for t in (*self._watches.values(), *self._plans) if t.get_loop() is loop]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watches.clear()

    async def _ask(self, asks: Sequence[Ask]) -> list[Any]:
        shares = _shares(asks)
        if len(shares) <= 1:
            return await self._on(shares[0][0], [request for _, request in asks]) if asks else []
        results: list[Any] = [None] * len(asks)
        answers = await asyncio.gather(
            *(self._on(node, [asks[p][1] for p in places]) for node, places in shares)
        )
        for (_, places), answer in zip(shares, answers, strict=True):
            _spread(results, places, answer)
        return results

    async def _on(self, node: int, requests: Sequence[Any]) -> list[Any]:
        backend = self._backends[node]
        if len(requests) > 1 and self._many[node]:
            answers = await _awaited(lambda: cast("AsyncManyQueues", backend).together(requests))
            return _each(answers, len(requests))
        return [await _awaited(_method(backend, request)) for request in requests]

    async def _watch(self, step: Watching) -> list[Any]:
        if len(step.watches) == 1:
            [(node, watch)] = step.watches
            backend: Any = self._backends[node]
            return [await _awaited(lambda: backend.watch(watch))]
        running = [self._joined(node, watch) for node, watch in step.watches]
        ends, going = time.monotonic() + step.seconds, set(running)
        while going:
            left = max(0.0, ends - time.monotonic())
            done, going = await asyncio.wait(
                going, timeout=left + TOGETHER, return_when=asyncio.FIRST_COMPLETED
            )
            if _over(ends - time.monotonic(), [t.result() for t in done if not t.cancelled()]):
                break
        return [task.result() if task.done() and not task.cancelled() else None for task in running]

    def _joined(self, node: int, watch: Watch) -> asyncio.Task[Any]:
        """See ``Nodes._joined``."""
        key = _key(node, watch)
        loop = asyncio.get_running_loop()
        task = self._watches.get(key)
        if task is None or task.done() or task.get_loop() is not loop:
            backend: Any = self._backends[node]
            task = self._watches[key] = loop.create_task(_awaited(lambda: backend.watch(watch)))
            task.add_done_callback(lambda ended: self._forget(key, ended))
        return task

    def _forget(self, key: _Key, ended: asyncio.Task[Any]) -> None:
        if self._watches.get(key) is ended:
            del self._watches[key]

    def _begin(self, step: Background) -> None:
        async def carry_out() -> None:
            with suppress(LeanMQError):
                await self.drive(step.plan)

        task = asyncio.get_running_loop().create_task(carry_out())
        self._plans.add(task)
        task.add_done_callback(self._plans.discard)


def _over(left: float, ended: Sequence[Any]) -> bool:
    """Whether to wait no longer for the other watches, now that these have ended."""
    return left > TOGETHER or not ended or not all(map(_is_quiet, ended))


def _is_quiet(ended: Any) -> bool:
    return isinstance(ended, Watched) and not ended.awake


def _method(backend: Any, request: Any) -> Callable[[], Any]:
    if isinstance(request, str):
        method: Callable[[], Any] = getattr(backend, request)
        return method
    return lambda: getattr(backend, METHODS[type(request)])(request)


def _value(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except LeanMQError as error:
        return error.with_traceback(None)


async def _awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except LeanMQError as error:
        return error.with_traceback(None)


def _each(answers: Any, number: int) -> list[Any]:
    """Answers to so many requests; an error is the answer to all of them."""
    return [answers] * number if isinstance(answers, LeanMQError) else list(answers)


def _spread(results: list[Any], places: Sequence[int], answer: Sequence[Any]) -> None:
    for place, result in zip(places, answer, strict=True):
        results[place] = result
