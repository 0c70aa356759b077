"""Clients and queues for threads, as asynchronous ones: each call runs in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import attrs

from leanmq import (
    AsyncQueue,
    BatchingProducer,
    LeanMQ,
    Message,
    Outgoing,
    Queue,
    QueueInfo,
    StoredMessage,
    Transaction,
)
from leanmq.api import MessageRefs, QueueName, Seconds
from leanmq.backends.protocol import Capabilities

T = TypeVar("T")


class Client(Protocol):
    """A client, for tests: asynchronous in both worlds."""

    @property
    def queue(self) -> Callable[..., AsyncQueue]: ...
    @property
    def update_queue(self) -> Callable[..., Awaitable[QueueInfo]]: ...
    @property
    def transaction(self) -> Callable[[], Any]: ...
    async def create_queue_pair(
        self, name: Any, create_consumer_group: bool = True
    ) -> tuple[AsyncQueue, AsyncQueue]: ...
    async def get_queue(self, name: Any) -> AsyncQueue | None: ...
    async def get_dead_letter_queue(self, name: Any) -> AsyncQueue | None: ...
    async def delete_queue(self, name: Any, delete_dlq: bool | None = None) -> bool: ...
    async def list_queues(self) -> list[QueueInfo]: ...
    async def process_expired_messages(self) -> int: ...
    async def open(self) -> Capabilities: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class Threads:
    """Threads for the calls of one test in the sync world."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=100, thread_name_prefix="contract")

    async def run(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: call(*args, **kwargs))

    def stop(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class ThreadedQueue:
    """``AsyncQueue`` over a ``Queue``: each call in a thread."""

    def __init__(self, queue: Queue, threads: Threads) -> None:
        self._queue, self._run = queue, threads.run
        self._threads = threads

    @property
    def name(self) -> str:
        return self._queue.name

    @property
    def key(self) -> str:
        return self._queue.key

    @property
    def is_dlq(self) -> bool:
        return self._queue.is_dlq

    @property
    def dlq(self) -> ThreadedQueue:
        return ThreadedQueue(self._queue.dlq, self._threads)

    def __repr__(self) -> str:
        return repr(self._queue)

    async def declare(self) -> None:
        await self._run(self._queue.declare)

    async def send_message(self, *data: Any, **options: Any) -> str:
        return await self._run(self._queue.send_message, *data, **options)

    async def send_messages(
        self,
        items: Iterable[Any | Outgoing[Any]],
        *,
        key: str | Callable[[Any], str | None] | None = None,
    ) -> list[str]:
        return await self._run(self._queue.send_messages, items, key=key)

    def batching(self, **limits: Any) -> Any:
        return ThreadedProducer(self._queue.batching(**limits), self._threads)

    async def get_messages(self, *how_many: Any, **how_long: Any) -> list[Message[Any]]:
        return await self._run(self._queue.get_messages, *how_many, **how_long)

    async def acknowledge_messages(self, messages: MessageRefs) -> int:
        return await self._run(self._queue.acknowledge_messages, messages)

    async def release_messages(self, messages: MessageRefs) -> int:
        return await self._run(self._queue.release_messages, messages)

    async def retry_messages(
        self, messages: MessageRefs, delay: Seconds = 0, *, reason: str = ""
    ) -> int:
        return await self._run(self._queue.retry_messages, messages, delay, reason=reason)

    async def extend_messages(self, messages: MessageRefs) -> int:
        return await self._run(self._queue.extend_messages, messages)

    async def move_to_dlq(
        self, messages: MessageRefs, reason: str = "", dlq: QueueName | None = None
    ) -> int:
        return await self._run(self._queue.move_to_dlq, messages, reason, _inner(dlq))

    def consume(
        self, *, count: int = 10, timeout: Seconds | None = None
    ) -> AsyncGenerator[Message[Any], None]:
        return self._consume(self._queue.consume(count=count, timeout=timeout))

    async def _consume(
        self, iterator: Generator[Message[Any], None]
    ) -> AsyncGenerator[Message[Any], None]:
        try:
            while (message := await self._run(next, iterator, None)) is not None:
                yield message
        finally:
            await self._run(iterator.close)

    @asynccontextmanager
    async def processing(self, message: Message[Any]) -> AsyncIterator[Any]:
        manager = self._queue.processing(message)
        data = await self._run(manager.__enter__)
        try:
            yield data
        except BaseException as error:
            if not await self._run(manager.__exit__, type(error), error, error.__traceback__):
                raise
        else:
            await self._run(manager.__exit__, None, None, None)

    async def requeue_messages(
        self, messages: MessageRefs, destination_queue: QueueName | None = None
    ) -> int:
        return await self._run(self._queue.requeue_messages, messages, _inner(destination_queue))

    async def delete_messages(self, messages: MessageRefs) -> int:
        return await self._run(self._queue.delete_messages, messages)

    async def peek_messages(
        self, count: int = 10, *, ids: Iterable[str] | str | None = None
    ) -> list[StoredMessage[Any]]:
        return await self._run(self._queue.peek_messages, count, ids=ids)

    async def pending_messages(self, count: int = 10) -> list[StoredMessage[Any]]:
        return await self._run(self._queue.pending_messages, count)

    async def purge(self) -> int:
        return await self._run(self._queue.purge)

    async def get_info(self) -> QueueInfo:
        return await self._run(self._queue.get_info)

    async def delete(self, *, delete_dlq: bool = False) -> bool:
        return await self._run(self._queue.delete, delete_dlq=delete_dlq)


class ThreadedProducer:
    """``AsyncBatchingProducer`` over a ``BatchingProducer``: each call in a thread."""

    def __init__(self, producer: BatchingProducer[Any], threads: Threads) -> None:
        self._producer, self._run = producer, threads.run

    @property
    def buffered(self) -> int:
        return self._producer.buffered

    def __repr__(self) -> str:
        return repr(self._producer)

    async def send_message(self, *data: Any, **options: Any) -> asyncio.Future[str]:
        return asyncio.wrap_future(await self._run(self._producer.send_message, *data, **options))

    async def flush(self, timeout: Seconds | None = None) -> None:
        await self._run(self._producer.flush, timeout)

    async def close(self, timeout: Seconds | None = None) -> None:
        await self._run(self._producer.close, timeout)

    async def __aenter__(self) -> ThreadedProducer:
        await self._run(self._producer.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._run(self._producer.__exit__, *error)


def _inner(queue: Any) -> Any:
    """What a client of the sync world takes for a queue of the tests."""
    return queue._queue if isinstance(queue, ThreadedQueue) else queue


class ThreadedTransaction:
    """``AsyncTransaction`` over a ``Transaction``."""

    def __init__(self, transaction: Transaction, threads: Threads) -> None:
        self._transaction, self._run = transaction, threads.run

    @property
    def ids(self) -> list[str]:
        return self._transaction.ids

    def send_message(self, queue: Any, *data: Any, **options: Any) -> None:
        self._transaction.send_message(_inner(queue), *data, **options)

    def acknowledge(self, messages: Any) -> None:
        self._transaction.acknowledge(messages)

    async def execute(self) -> list[str]:
        return await self._run(self._transaction.execute)

    _execute = execute

    async def __aenter__(self) -> ThreadedTransaction:
        self._transaction.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._run(self._transaction.__exit__, *error)


@attrs.frozen
class ThreadedClient:
    """``Client`` over a ``LeanMQ``."""

    mq: LeanMQ
    threads: Threads

    def queue(self, name: Any, **settings: Any) -> AsyncQueue:
        return ThreadedQueue(self.mq.queue(_inner(name), **settings), self.threads)

    def transaction(self) -> ThreadedTransaction:
        return ThreadedTransaction(self.mq.transaction(), self.threads)

    async def update_queue(self, name: str, **changes: Any) -> QueueInfo:
        return await self.threads.run(self.mq.update_queue, name, **changes)

    async def create_queue_pair(
        self, name: Any, create_consumer_group: bool = True
    ) -> tuple[AsyncQueue, AsyncQueue]:
        pair = await self.threads.run(
            self.mq.create_queue_pair, _inner(name), create_consumer_group
        )
        return ThreadedQueue(pair[0], self.threads), ThreadedQueue(pair[1], self.threads)

    async def get_queue(self, name: Any) -> AsyncQueue | None:
        queue = await self.threads.run(self.mq.get_queue, _inner(name))
        return None if queue is None else ThreadedQueue(queue, self.threads)

    async def get_dead_letter_queue(self, name: Any) -> AsyncQueue | None:
        queue = await self.threads.run(self.mq.get_dead_letter_queue, _inner(name))
        return None if queue is None else ThreadedQueue(queue, self.threads)

    async def delete_queue(self, name: Any, delete_dlq: bool | None = None) -> bool:
        return await self.threads.run(self.mq.delete_queue, _inner(name), delete_dlq)

    async def list_queues(self) -> list[QueueInfo]:
        return await self.threads.run(self.mq.list_queues)

    async def process_expired_messages(self) -> int:
        return await self.threads.run(self.mq.process_expired_messages)

    async def open(self) -> Capabilities:
        return await self.threads.run(self.mq.open)

    async def ping(self) -> None:
        await self.threads.run(self.mq.ping)

    async def close(self) -> None:
        await self.threads.run(self.mq.close)
