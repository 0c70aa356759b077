"""What a block of the document runs on: one subject, and the one table of names it is given.

Here the loops are told when to end, sleeping is made short, and what became of the messages is
read back. The blocks are in ``blocks.py``, what must become of the messages in ``expect.py``.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import logging
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType, SimpleNamespace
from typing import Any
from unittest import mock

import attrs
import fakeredis
import redis
from redis.cluster import ClusterNode

from leanmq import LeanMQ, Queue, QueueInfo
from leanmq.backends.protocol import Backend
from leanmq.backends.registry import Options, open_backend
from leanmq.backends.urls import parse_url
from leanmq.sharding import members
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import Harness

__all__ = ["Clock", "HandlerError", "Processes", "Running", "Stage"]


class HandlerError(Exception):
    """What a handler of these tests raises."""


class Running:
    """``running``, by which the document's loops end: true for each turn that they are to make.

    By itself: until nothing is ready in ``orders``, and for one turn more, which finds nothing.
    """

    def __init__(self, drained: Callable[[], bool]) -> None:
        self._turns: Iterator[bool] = itertools.chain(self._until(drained, 12), [True])

    def turns(self, count: int) -> None:
        """True so many times from now on."""
        self._turns = iter([True] * count)

    def until(self, condition: Callable[[], bool], most: int = 12) -> None:
        """True from now on until ``condition`` is; after ``most`` turns that is a failure."""
        self._turns = self._until(condition, most)

    def _until(self, condition: Callable[[], bool], most: int) -> Iterator[bool]:
        for _ in range(most):
            if condition():
                return
            yield True
        raise AssertionError(f"the loop did not end after {most} turns")

    def __bool__(self) -> bool:
        return next(self._turns, False)


class Clock:
    """``time``, as blocks see it: a sleep is over at once, and each look is a second later.

    So nothing waits for time to pass, and what a block measures is the same on every machine.
    """

    def __init__(self) -> None:
        self.step = 1
        self.now = float(int(time.time()))

    def time(self) -> float:
        """The time, ``step`` seconds after the last look."""
        self.now += self.step
        return self.now

    def sleep(self, seconds: float) -> None:
        """Be ``seconds`` later; leaves other threads their turn."""
        self.now += seconds
        time.sleep(0.005)


class Processes:
    """``multiprocessing`` with two threads for processes, which see the same ``memory://``."""

    def __init__(self, pool: concurrent.futures.Executor) -> None:
        self._pool = pool

    def cpu_count(self) -> int:
        return 2

    def Process(self, target: Callable[..., object], args: tuple[Any, ...]) -> SimpleNamespace:
        """A process whose error is raised by ``join``."""
        begun: list[concurrent.futures.Future[object]] = []
        return SimpleNamespace(
            start=lambda: begun.append(self._pool.submit(target, *args)),
            join=lambda: begun[0].result(timeout=30),
        )


class _Keep(logging.Handler):
    """Keeps level and text of what is logged."""

    records: list[tuple[str, str]]

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.levelname, record.getMessage()))


class Stage:
    """One subject, with what happened on it.

    Attributes:
        mq: A client of the subject, as ``LeanMQ(redis_host="localhost")`` gives it to a block.
        queue: Its queue ``orders``.
        names: The names that a block finds, and those that it defined.
        attempted: What handlers were given.
        handled: What they were given and did not fail at.
        printed: Lines that were printed.
        logged: Level and text of what was logged.
        gate: Handlers wait for it; it is open unless a test closes it.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self._closing = ExitStack()
        self._heartbeats = fakeredis.FakeServer()
        self.attempted: list[Any] = []
        self.handled: list[Any] = []
        self.printed: list[str] = []
        self.logged: list[tuple[str, str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.clock = Clock()
        self.mq = self.client()
        self.queue = self.mq.queue("orders")
        self.queue.declare()
        self.running = Running(self.drained)
        # --- what the document leaves undefined, and what it builds clients with
        self.names: dict[str, Any] = {
            "__name__": "scaling",  # not "__main__"
            "LeanMQ": self.client,
            "LeanMQWebhook": self.webhook,
            "mq": self.mq,
            "queue": self.queue,
            "redis": SimpleNamespace(Redis=self.redis_client),
            "process_message": self.process_message,
            "batch_process_by_type": self.batch_process_by_type,
            "running": self.running,
            "logger": self._logger(),
            "print": self.printed.append,
            # Modules that blocks use without importing them.
            "concurrent": concurrent,
            # What the edits of ``expect.py`` use.
            "ClusterNode": ClusterNode,
            "shard_of": shard_of,
            "turn": itertools.count(),
            "zlib": zlib,
        }

    # The names.

    def client(
        self,
        redis_host: str = "localhost",
        redis_port: int = 6379,
        redis_db: int = 0,
        prefix: str = "mq:",
        client: object | None = None,
    ) -> LeanMQ:
        """``LeanMQ``, led to the subject: each server that is named is a prefix of its own."""
        prefix = self._place(redis_host, redis_port, redis_db) + prefix
        where: dict[str, Any] = {"url": self.harness.url} if client is None else {"client": client}
        mq = LeanMQ(**where, prefix=prefix)
        self._closing.callback(mq.close)
        return mq

    def _place(self, host: str, port: int, db: int) -> str:
        return f"{self.harness.prefix}{host}/{port}/{db}:"

    @contextmanager
    def deployments(self) -> Iterator[None]:
        """Within the block, routers open what ``client`` would for the same host and port."""

        def led(url: str, backend: Backend | None, options: Options) -> Backend:
            target = parse_url(url)
            [address] = target.addresses
            assert isinstance(address, tuple), f"{url} is a Unix socket"
            prefix = self._place(*address, target.db) + options.prefix
            return open_backend(self.harness.url, backend, attrs.evolve(options, prefix=prefix))

        with mock.patch.object(members, "open_backend", led):
            yield

    def webhook(
        self,
        redis_host: str = "localhost",
        redis_port: int = 6379,
        redis_db: int = 0,
        prefix: str = "webhook:",
    ) -> Any:
        """``LeanMQWebhook``, looked up when it is used."""
        from leanmq import LeanMQWebhook  # type: ignore[attr-defined]  # it is to come

        webhook = LeanMQWebhook(mq=self.client(redis_host, redis_port, redis_db, prefix))
        self._closing.callback(webhook.close)
        return webhook

    def redis_client(self, host: str, port: int, db: int) -> Any:
        """``redis.Redis``, led to a server of the subject; in memory, to one beside it."""
        client: Any
        if self.harness.topology is None:
            client = fakeredis.FakeRedis(server=self._heartbeats)
        else:
            host, port = self.harness.topology.primary_for().address
            kind = redis.RedisCluster if self.harness.subject == "cluster" else redis.Redis
            client = kind(host=host, port=port)
        self._closing.callback(client.close)
        return client

    def process_message(self, data: Any) -> None:
        """Handle a payload; fails at one that says ``fail``, with that for a reason."""
        self.attempted.append(data)
        assert self.gate.wait(30), "the gate stayed closed"
        if data.get("fail"):
            raise HandlerError(data["fail"])
        self.handled.append(data)

    def batch_process_by_type(self, kind: str, batch: list[Any]) -> None:
        """Handle payloads of a type, all or none of them."""
        assert {data.get("type", "unknown") for data in batch} == {kind}
        failures = [data["fail"] for data in batch if data.get("fail")]
        if failures:
            raise HandlerError(failures[0])
        for data in batch:
            self.process_message(data)

    def _logger(self) -> logging.Logger:
        keep = _Keep()
        keep.records = self.logged
        logger = logging.Logger("scaling")
        logger.addHandler(keep)
        return logger

    # The run.

    def serve_names(self, addresses: dict[str, tuple[str, int]]) -> None:
        """Have host names lead to servers, as a name server would, until ``close``.

        Args:
            addresses: Host and port of the server, by its name.
        """
        ask = socket.getaddrinfo

        def answer(host: Any, port: Any, *args: Any, **keywords: Any) -> Any:
            host, port = addresses.get(host, (host, port))
            return ask(host, port, *args, **keywords)

        self._closing.enter_context(mock.patch.object(socket, "getaddrinfo", answer))

    def run(self, code: CodeType) -> None:
        """Run the top level of a block."""
        self.names["time"] = self.clock
        exec(code, self.names)
        self.names["time"] = self.clock  # in place of the module that the block imports

    def close(self) -> None:
        """Close what was opened, the last first."""
        self._closing.close()

    # What is true afterwards.

    def drained(self, name: str = "orders") -> bool:
        """Whether no message of a queue is ready to be handed out."""
        return self.mq.queue(name).get_info().ready_messages == 0

    def left(self, mq: LeanMQ | None = None) -> dict[str, int]:
        """How many messages every queue holds, by its name; dead letters left out."""
        return {
            info.name: info.message_count
            for info in (mq or self.mq).list_queues()
            if not info.is_dlq
        }

    def dead(self) -> list[tuple[Any, str | None]]:
        """The dead letters of all queues, each with its reason."""
        return [
            (letter.data, letter.error)
            for info in self.mq.list_queues()
            if info.is_dlq
            for letter in self._queue(info).dlq.peek_messages(1_000)
        ]

    def _queue(self, info: QueueInfo) -> Queue[Any]:
        if info.shards:
            return self.mq.sharded_queue(info.name, shards=info.shards)
        return self.mq.queue(info.name)

    def stored(self, name: str, mq: LeanMQ | None = None) -> list[Any]:
        """The payloads that are ready in a queue, in order."""
        return [message.data for message in (mq or self.mq).queue(name).peek_messages(1_000)]
