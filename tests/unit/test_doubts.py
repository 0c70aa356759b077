"""A send in doubt is told as one, and repeated only while the backend surely remembers it.

What a server does meanwhile is played by a backend in memory before which replies get lost. The
same with servers: ``test_dedup.py`` and ``test_batching_disturbed.py`` of the contract.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from leanmq import (
    AsyncLeanMQ,
    BulkSendError,
    ConsistentHashRouter,
    LeanMQ,
    LeanMQError,
    NotSentError,
    OutcomeUnknownError,
    Outgoing,
    QueueFullError,
    QueueNotFoundError,
    RoundRobinRouter,
)
from leanmq.aio.router import AsyncConsistentHashRouter
from leanmq.backends.protocol import Alter, Backend, SendBatch, Sent, Settings
from leanmq.backends.registry import Options, open_backend
from leanmq.errors import UnreachableError
from leanmq.sharding.hashing import shard_of
from tests.support.waiting import wait_until

WINDOW = 2.0
"""Seconds of a short window: a quarter of it is for a machine that stands still."""


class Lossy:
    """A backend; a method in ``on`` answers in its place, or raises, or asks ``inner``.

    Attributes:
        asked: How often which method was called since ``on`` was set.
    """

    def __init__(self, url: str) -> None:
        self.inner: Any = open_backend(url, None, Options())
        self.on: dict[str, Callable[[Any], Any]] = {}
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)
        if not callable(method):
            return method

        def call(*request: Any) -> Any:
            if name not in self.on:
                return method(*request)
            self.asked.append(name)
            return self.on[name](*request)

        return call

    def together(self, batches: Any) -> list[Any]:
        """One after the other, each of them seen."""
        answers: list[Any] = []
        for request in batches:
            try:
                one = isinstance(request, SendBatch)
                answers.append(self.send(request) if one else self.inner.together([request])[0])
            except LeanMQError as error:
                answers.append(error)
        return answers


def lost(batch: Any) -> Sent:
    """What is said of a send whose reply was lost."""
    return Sent([OutcomeUnknownError("the reply was lost") for _ in batch.messages])


def stored_and_lost(backend: Lossy) -> Callable[[Any], Sent]:
    """A send that is carried out, and whose reply is lost."""

    def send(batch: Any) -> Sent:
        backend.inner.send(batch)
        return lost(batch)

    return send


@pytest.fixture
def url() -> str:
    return f"memory://{secrets.token_hex(6)}"


@pytest.fixture
def witness(url: str) -> Iterator[LeanMQ]:
    """A client that sees what is stored; as long as it is open, so is the store."""
    with LeanMQ(url) as mq:
        mq.queue("orders").declare()
        yield mq


def stored(mq: LeanMQ) -> int:
    return sum(info.message_count for info in mq.list_queues())


def alone(mq: LeanMQ) -> None:
    mq.queue("orders").send_message("once", dedup_id="a")


def in_a_transaction(mq: LeanMQ) -> None:
    with mq.transaction() as tx:
        tx.send_message("orders", "once", dedup_id="a")


def in_the_background(mq: LeanMQ) -> None:
    with mq.queue("orders").batching(linger=0, dedup=False) as producer:
        future = producer.send_message("once", dedup_id="a")
    future.result(10)


def numbered(mq: LeanMQ) -> None:
    with mq.queue("orders").batching(linger=0) as producer:
        future = producer.send_message("once")
    future.result(10)


WAYS = [alone, in_a_transaction, in_the_background, numbered]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_window_that_was_made_shorter_meanwhile_counts(
    url: str, witness: LeanMQ, way: Callable[[LeanMQ], None]
) -> None:
    backend = Lossy(url)
    first = True

    def send(batch: SendBatch) -> Sent:
        nonlocal first
        if first:  # it never arrives; from now on each is carried out, and its reply lost
            first = False
            witness.update_queue("orders", dedup_window=WINDOW)
        else:
            backend.inner.send(batch)  # or it has old settings
        return lost(batch)

    def transact(request: Any) -> Sent:
        nonlocal first
        if first:
            first = False
            witness.update_queue("orders", dedup_window=WINDOW)
        else:
            backend.inner.transact(request)
        raise OutcomeUnknownError("the reply was lost")

    with LeanMQ(backend=backend, deadline=10) as mq:
        mq.queue("orders").declare()
        backend.on = {"send": send, "transact": transact}
        with pytest.raises(OutcomeUnknownError):
            way(mq)

    assert len(backend.asked) > 3
    assert stored(witness) == 1


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_is_held_up_before_a_repeat_is_not_repeated_past_the_window(
    url: str, witness: LeanMQ, way: Callable[[LeanMQ], None]
) -> None:
    witness.update_queue("orders", dedup_window=0.4)
    backend = Lossy(url)
    away = 0.0

    def carried_out(method: str, request: Any) -> None:
        """Once; the next time the settings are others, and to read them takes long."""
        nonlocal away
        if not away:
            getattr(backend.inner, method)(request)
            backend.inner.alter(Alter("orders", Settings(max_length=1_000)))
            away = time.monotonic() + 1.0
        else:
            getattr(backend.inner, method)(request)

    def send(batch: SendBatch) -> Sent:
        carried_out("send", batch)
        return lost(batch)

    def transact(request: Any) -> Sent:
        carried_out("transact", request)
        raise OutcomeUnknownError("the reply was lost")

    def declare(request: Any) -> Any:
        if time.monotonic() < away:
            raise UnreachableError("it is away")
        return backend.inner.declare(request)

    with LeanMQ(backend=backend, deadline=10) as mq:
        mq.queue("orders").declare()
        backend.on = {"send": send, "transact": transact, "declare": declare}
        with pytest.raises(OutcomeUnknownError):
            way(mq)

    assert stored(witness) == 1


def test_a_batch_that_waits_for_those_of_other_shards_is_not_repeated_past_the_window(
    url: str, witness: LeanMQ
) -> None:
    backend = Lossy(url)
    keys: dict[int, str] = {}
    for number in range(50):
        keys.setdefault(shard_of(f"k{number}", 4), f"k{number}")
    doubtful: list[int] = []

    def send(batch: SendBatch) -> Any:
        answer = backend.inner.send(batch)
        if batch.messages[0].body == b'"slow"':
            time.sleep(1.2)  # a server that takes three windows for its answer
        elif not doubtful:
            doubtful.append(1)
            return lost(batch)
        return answer

    with LeanMQ(backend=ConsistentHashRouter({"a": backend}, shards=4), deadline=10) as mq:
        queue = mq.queue("sharded", dedup_window=0.4)
        queue.declare()
        backend.on = {"send": send}
        with queue.batching(linger=0) as producer:
            future = producer.send_message("in doubt", key=keys[0])
            wait_until(lambda: doubtful, 20, "the first send", step=0.0005)
            other = producer.send_message("slow", key=keys[1])
        assert other.result(10)
        assert isinstance(future.exception(10), OutcomeUnknownError | None)

    assert stored(witness) == 2


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_in_doubt_on_the_way_to_a_send_is_not_in_doubt(
    url: str, witness: LeanMQ, way: Callable[[LeanMQ], None]
) -> None:
    backend = Lossy(url)

    def declare(_: Any) -> Any:
        raise UnreachableError("the reply was lost", in_doubt=True)

    with LeanMQ(backend=backend, deadline=5, max_retries=0) as mq:
        backend.on = {
            "declare": declare,
            "send": backend.inner.send,
            "transact": backend.inner.transact,
        }
        with pytest.raises((UnreachableError, NotSentError)) as error:
            way(mq)

    assert not error.value.in_doubt
    assert set(backend.asked) == {"declare"}
    assert stored(witness) == 0


def test_a_transaction_in_doubt_stays_one_whatever_comes_after_it(
    url: str, witness: LeanMQ
) -> None:
    backend = Lossy(url)

    def transact(request: Any) -> Sent:
        if len(backend.asked) == 1:
            backend.inner.transact(request)
            raise OutcomeUnknownError("the reply was lost")
        mq.close()
        raise QueueFullError("the queue is full", queue="orders")

    mq = LeanMQ(backend=backend, deadline=5)
    backend.on = {"transact": transact}
    with pytest.raises(OutcomeUnknownError):
        in_a_transaction(mq)

    assert stored(witness) == 1


def test_of_targets_with_different_windows_the_shortest_counts(url: str) -> None:
    urls = {"a": f"{url}-a", "b": f"{url}-b"}
    with LeanMQ(urls["a"]) as of_a, LeanMQ(urls["b"]) as of_b:
        of_a.queue("orders", dedup_window=3600).declare()
        of_b.queue("orders", dedup_window=WINDOW).declare()
        targets = {name: Lossy(where) for name, where in urls.items()}
        of_the_second = next(f"d{n}" for n in range(50) if shard_of(f"d{n}", 2) == 1)

        with LeanMQ(backend=RoundRobinRouter(targets), deadline=10) as mq:
            queue = mq.queue("orders")
            queue.declare()
            for target in targets.values():
                target.on = {"send": stored_and_lost(target)}
            with pytest.raises(OutcomeUnknownError):
                queue.send_message("once", dedup_id=of_the_second)

        assert (stored(of_a), stored(of_b)) == (0, 1)
        assert len(targets["b"].asked) > 1


def test_a_router_that_is_closed_meanwhile_tells_what_is_stored(url: str, witness: LeanMQ) -> None:
    backend = Lossy(url)

    def send(batch: SendBatch) -> Any:
        answer = backend.inner.send(batch)
        mq.close()
        return answer

    mq = LeanMQ(backend=ConsistentHashRouter({"a": backend}, shards=2))
    queue = mq.queue("sharded")
    queue.declare()
    backend.on = {"send": send}
    with pytest.raises(BulkSendError, match="is closed") as stopped:
        queue.send_messages(range(900), key="k")

    assert len(stopped.value.confirmed) == stored(witness) == 500
    assert len(stopped.value.unsent) == 400


@pytest.mark.parametrize("strategy", ["round-robin", "least-backlog"])
def test_a_balancing_router_that_is_closed_meanwhile_tells_what_is_stored(
    url: str, strategy: str
) -> None:
    urls = {"a": f"{url}-a", "b": f"{url}-b"}
    with LeanMQ(urls["a"]) as of_a, LeanMQ(urls["b"]) as of_b:
        targets = {name: Lossy(where) for name, where in urls.items()}
        mq = LeanMQ(backend=RoundRobinRouter(targets, strategy=strategy))
        queue = mq.queue("orders")
        queue.declare()

        def closing(backend: Lossy) -> Callable[[Any], Any]:
            def send(batch: Any) -> Any:
                answer = backend.inner.send(batch)
                mq.close()
                return answer

            return send

        for target in targets.values():
            target.on = {"send": closing(target)}
        items = [Outgoing(n, dedup_id=f"d{n}" if n % 2 else None) for n in range(40)]
        with pytest.raises(BulkSendError, match="is closed") as stopped:
            queue.send_messages(items)

        found = stored(of_a) + stored(of_b)
        assert len(stopped.value.confirmed) == found > 0


def test_what_no_thread_could_be_started_for_is_not_sent_later(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = {name: f"{url}-{name}" for name in "abc"}
    opened = [LeanMQ(where) for where in urls.values()]
    backend = ConsistentHashRouter(urls, shards=6)
    with LeanMQ(backend=backend, deadline=1) as mq:
        queue = mq.queue("orders")
        queue.send_messages(range(600))
        queue.purge()
        nodes: Any = backend
        pool = nodes._nodes._pool
        over = threading.Event()
        busy = [pool.submit(over.wait) for _ in pool._threads]

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(BulkSendError, match="no more threads") as stopped:
                queue.send_messages(range(600))
        over.set()
        for future in busy:
            future.result(10)
        queue.send_message("after what was in line")

        assert not stopped.value.unknown
        assert sum(map(stored, opened)) == len(stopped.value.confirmed) + 1
    for one in opened:
        one.close()


@pytest.mark.parametrize("turns", range(6, 14))
async def test_a_memory_that_is_closed_meanwhile_tells_what_is_stored(url: str, turns: int) -> None:
    async with AsyncLeanMQ(url) as witness:
        mq = AsyncLeanMQ(backend=AsyncConsistentHashRouter({"a": url}, shards=6))
        queue = mq.queue("sharded")
        await queue.declare()
        sending = asyncio.create_task(queue.send_messages(range(600)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await mq.close()
        try:
            told = len(await sending)
        except LeanMQError as error:
            told = len(getattr(error, "confirmed", ()))

        assert told == sum(info.message_count for info in await witness.list_queues())


def test_what_a_lost_reply_handed_out_comes_again_at_once_though_another_part_vanished(
    url: str,
) -> None:
    urls = {"a": f"{url}-a", "b": f"{url}-b"}
    with LeanMQ(urls["a"]) as of_a, LeanMQ(urls["b"]):
        targets = {name: Lossy(where) for name, where in urls.items()}
        with LeanMQ(backend=RoundRobinRouter(targets), deadline=10) as mq:
            queue = mq.queue("orders", lease=60)
            queue.send_message("once")
            it, other = (targets["a"], targets["b"])[:: 1 if stored(of_a) else -1]

            def lose(request: Any) -> Any:
                it.on = {}
                it.inner.exchange(request)
                raise UnreachableError("the reply was lost", in_doubt=True)

            def vanish(_: Any) -> Any:
                other.on = {}
                raise QueueNotFoundError("it vanished", queue="orders")

            it.on, other.on = {"exchange": lose}, {"exchange": vanish}
            [message] = queue.get_messages(block=True, timeout=20)

    assert it.asked
    assert other.asked
    assert message.delivery_count == 1


def test_the_double_is_a_backend(url: str) -> None:
    with LeanMQ(backend=Lossy(url)) as mq:
        assert mq.queue("orders").send_message("x")
    assert isinstance(open_backend(url, None, Options()), Backend)
