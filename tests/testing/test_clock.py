"""``ManualClock``: what passes with it, who notices, and what is told when it cannot work."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import fakeredis
import pytest
import time_machine

from leanmq import AsyncLeanMQ, LeanMQ, Queue, ShardedQueue
from leanmq.backends import hub as hubs
from leanmq.backends import memory
from leanmq.backends.hub import LocalHub
from leanmq.backends.streams.calls import Wait
from leanmq.testing import ManualClock
from tests.support.waiting import wait_until


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    with ManualClock() as running:
        yield running


@pytest.fixture
def mq(clock: ManualClock) -> Iterator[LeanMQ]:
    with LeanMQ("memory://") as client:
        yield client


def received(queue: Queue) -> list[Any]:
    return [message.data for message in queue.get_messages()]


def waiters(url: str) -> int:
    """How many wait for messages there."""
    return sum(map(len, memory.server(url.removeprefix("memory://")).hub._waiters.values()))


# --- what passes


def test_a_delay_passes(mq: LeanMQ, clock: ManualClock) -> None:
    orders = mq.queue("orders")
    orders.send_message("tea", delay=3600)

    clock.advance(3599)
    assert received(orders) == []
    clock.advance(timedelta(seconds=1))
    assert received(orders) == ["tea"]


def test_a_time_to_live_passes(mq: LeanMQ, clock: ManualClock) -> None:
    orders = mq.queue("orders")
    orders.send_message("tea", ttl_seconds=60)
    orders.send_message("coffee", ttl_seconds=120)

    clock.advance(61)

    assert received(orders) == ["coffee"]


def test_a_lease_passes(mq: LeanMQ, clock: ManualClock) -> None:
    orders = mq.queue("orders", lease=60)
    orders.send_message("tea")
    [first] = orders.get_messages()

    clock.advance(59)
    assert received(orders) == []
    clock.advance(1.1)

    [second] = orders.get_messages()
    assert second.delivery_count == 2
    assert first.lease_until < time.time() < second.lease_until


def test_a_message_that_kills_its_workers_becomes_a_dead_letter(
    mq: LeanMQ, clock: ManualClock
) -> None:
    # All by one client, which must forget with the lease that it holds the message: it is a
    # suspect by then, handed out only to those who hold nothing.
    orders = mq.queue("orders", max_deliveries=4)
    orders.send_message("poison")

    counts = []
    for _ in range(4):
        counts += [message.delivery_count for message in orders.get_messages()]
        clock.advance(61)

    assert counts == [1, 2, 3, 4]
    assert received(orders) == []
    assert orders.dlq.get_info().message_count == 1


def test_a_timeout_passes(clock: ManualClock) -> None:
    url = "memory://timeouts"
    with LeanMQ(url) as mq, ThreadPoolExecutor(1) as pool:
        orders = mq.queue("orders")
        waiting = pool.submit(orders.get_messages, timeout=3600)
        wait_until(lambda: waiters(url), 10, "the consumer to wait")

        clock.advance(3601)

        assert waiting.result(timeout=10) == []


def test_time_goes_on_by_itself(clock: ManualClock) -> None:
    before = time.time()

    wait_until(lambda: time.time() > before, 10, "time to go on")


def test_time_is_right_again_at_the_end() -> None:
    before = time.time()

    with ManualClock() as clock:
        clock.advance(3600)
        assert time.time() > before + 3599

    assert before <= time.time() < before + 600


def test_clocks_can_be_nested(mq: LeanMQ, clock: ManualClock) -> None:
    before = time.time()

    with ManualClock() as inner:
        inner.advance(1000)
        assert time.time() - before >= 1000
    clock.advance(100)

    assert 100 <= time.time() - before < 700


def test_it_passes_for_a_client_of_fakeredis_too(clock: ManualClock) -> None:
    with LeanMQ(client=fakeredis.FakeRedis()) as mq:
        orders = mq.queue("orders")
        orders.send_message("tea", delay=3600)

        clock.advance(3600)

        assert received(orders) == ["tea"]


# --- who notices


def test_a_thread_that_waits_looks_again_at_once(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without a wake-up it would wait for ten minutes, and the test for its timeout.
    monkeypatch.setattr("leanmq.policy.receiving.SLICE", 600.0)
    url = "memory://threads"
    with LeanMQ(url) as mq, ThreadPoolExecutor(1) as pool:
        orders = mq.queue("orders")
        orders.send_message("tea", delay=300)
        waiting = pool.submit(orders.get_messages, timeout=500)
        wait_until(lambda: waiters(url), 10, "the consumer to wait")

        clock.advance(301)

        assert [message.data for message in waiting.result(timeout=10)] == ["tea"]


def test_who_waits_for_shards_on_several_nodes_has_what_falls_due(clock: ManualClock) -> None:
    urls = {"a": "memory://shards-a", "b": "memory://shards-b"}
    orders: ShardedQueue[str]
    with ShardedQueue("orders", urls, shards=4) as orders, ThreadPoolExecutor(1) as pool:
        orders.send_message("tea", delay=300)
        waiting = pool.submit(orders.get_messages, timeout=500)
        wait_until(lambda: all(map(waiters, urls.values())), 10, "the consumer to wait")

        clock.advance(301)

        assert [message.data for message in waiting.result(timeout=10)] == ["tea"]


async def test_a_task_that_waits_looks_again_at_once(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanmq.policy.receiving.SLICE", 600.0)
    url = "memory://tasks"
    async with AsyncLeanMQ(url) as mq, asyncio.timeout(30):
        orders = mq.queue("orders")
        await orders.send_message("tea", delay=300)
        waiting = asyncio.create_task(orders.get_messages(timeout=500))
        await asyncio.to_thread(wait_until, lambda: waiters(url), 10, "the consumer to wait")

        clock.advance(301)

        assert [message.data for message in await waiting] == ["tea"]


def test_who_has_looked_and_does_not_wait_yet_looks_again_too(clock: ManualClock) -> None:
    hub = LocalHub()
    seen = hub.version("k")
    clock.advance(1)

    hub.wait(Wait(hub, ("k",), (seen,), seconds=60))  # returns at once, or the test times out


def test_a_hub_that_a_fork_inherited_is_left_alone(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = LocalHub()
    inherited._pid -= 1
    with inherited._lock:  # as by a thread that the fork does not have
        done = threading.Thread(target=hubs.wake_everybody, daemon=True)
        done.start()
        done.join(10)

        assert not done.is_alive()


# --- what people are told


def test_without_time_machine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "time_machine", None)

    with pytest.raises(ImportError, match=r"pip install 'leanmq\[testing\]'$"):
        ManualClock()


def test_a_clock_that_does_not_run_is_not_advanced() -> None:
    clock = ManualClock()
    with pytest.raises(RuntimeError, match="inside 'with ManualClock"):
        clock.advance(1)
    with clock:
        clock.advance(1)
    with pytest.raises(RuntimeError, match="does not run"):
        clock.advance(1)


@pytest.mark.parametrize("tick", [True, False])
def test_a_clock_that_does_not_hold_the_time_any_more_says_so(
    clock: ManualClock, tick: bool
) -> None:
    before = time.time()
    with (
        time_machine.travel(before, tick=tick),
        pytest.raises(RuntimeError, match=r"another ManualClock.*; advance that one$"),
    ):
        clock.advance(1000)

    assert time.time() - before < 600  # nothing of it was done


@pytest.mark.parametrize(
    ("seconds", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError)]
)
def test_time_is_put_forward_only_and_in_seconds(
    clock: ManualClock, seconds: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="seconds"):
        clock.advance(seconds)
