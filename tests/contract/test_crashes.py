"""Consumers that die: take-over, poison, lost groups. A client that is dropped without
settling what it holds is a process that was killed."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from leanmq import AsyncQueue, Message
from tests.contract.harness import IN_MEMORY, Client, Harness, drain, eventually
from tests.contract.test_receiving import until_waiting


async def test_a_waiting_consumer_takes_over_from_the_dead(mq: Client, harness: Harness) -> None:
    lease = 1.0
    queue = mq.queue("orders", lease=lease)
    await queue.send_messages(range(10))
    dead = harness.client().queue("orders")
    held = await dead.get_messages()
    watch = harness.stopwatch()
    assert len(held) == 10

    taken: list[Message[Any]] = []
    while len(taken) < 10:
        messages = await queue.get_messages(100, block=True, timeout=lease + 5)
        assert messages
        taken += messages

    assert watch.own() < lease + 2
    assert sorted(m.data for m in taken) == list(range(10))
    assert {m.delivery_count for m in taken} == {2}
    assert await queue.acknowledge_messages(taken) == 10


async def test_healthy_messages_survive_beside_one_that_kills_its_process(
    harness: Harness,
) -> None:
    await asyncio.gather(*(poisoned(harness, seed) for seed in range(4)))


@pytest.mark.on("memory", "redis", worlds=("sync",))
async def test_healthy_messages_survive_poison_with_eight_threads_and_twenty_seeds(
    harness: Harness,
) -> None:
    for first in range(0, 20, 5):
        seeds = range(first, first + 5)
        await asyncio.gather(*(poisoned(harness, seed, threads=8) for seed in seeds))


async def poisoned(harness: Harness, seed: int, threads: int = 3) -> None:
    """Consume a queue with one killer among its messages, process after process."""
    luck = random.Random(seed)
    limit, healthy = 3, 12
    name = f"poisoned{seed}"
    # A living process that is held up for a whole lease counts as dead, too: the machine is busy.
    queue = harness.client().queue(name, lease=1.5, max_deliveries=limit)
    killer = luck.randrange(healthy + 1)
    await queue.send_messages({"n": n, "kills": n == killer} for n in range(healthy + 1))
    done: list[int] = []
    kills = 0

    while True:
        process = harness.client().queue(name)
        dead = asyncio.Event()

        async def thread(consumer: AsyncQueue, dead: asyncio.Event, size: int) -> int:
            while not dead.is_set():
                # Shorter than a lease: a dead process does not go on receiving.
                messages = await consumer.get_messages(size, timeout=0.1)
                if dead.is_set():
                    return 0
                if any(m.data["kills"] for m in messages):
                    dead.set()
                    return 1
                for message in messages:
                    await asyncio.sleep(0)
                    if dead.is_set():
                        return 0
                    if await consumer.acknowledge_messages(message):
                        done.append(message.data["n"])
                info = await queue.get_info()
                if not info.message_count:
                    return 0
            return 0

        sizes = [luck.randint(1, 4) for _ in range(threads)]
        kills += sum(await asyncio.gather(*(thread(process, dead, size) for size in sizes)))
        if not (await queue.get_info()).message_count:
            break

    dead_letters = await queue.dlq.get_messages(100)
    assert [m.data["n"] for m in dead_letters] == [killer], f"seed {seed}"
    assert kills == limit, f"seed {seed}: killed {kills} processes"
    assert sorted(done) == [n for n in range(healthy + 1) if n != killer], f"seed {seed}"


async def test_a_message_that_was_never_settled_twice_comes_alone(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("suspects", lease=0.3)
    await queue.send_messages(["a", "b"])
    for _ in range(2):  # two processes die with both
        victim = harness.client().queue("suspects")
        held: list[Message[Any]] = []
        while len(held) < 2:
            held += await victim.get_messages(timeout=5)
    await queue.send_message("healthy")

    batches: list[list[str]] = []
    while len(batches) < 3:
        messages = await queue.get_messages(timeout=5)
        assert messages
        batches.append(sorted(m.data for m in messages))
        assert await queue.acknowledge_messages(messages) == len(messages)

    assert sorted(batches) == [["a"], ["b"], ["healthy"]]


async def test_a_client_that_holds_a_suspect_receives_nothing_more(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("suspects", lease=0.5)
    await queue.send_message("suspect")
    for _ in range(2):
        victim = harness.client().queue("suspects")
        assert await victim.get_messages(timeout=5)
    consumer = harness.client().queue("suspects")
    [suspect] = await consumer.get_messages(timeout=5)
    assert suspect.delivery_count == 3
    await mq.update_queue("suspects", lease=30)
    await queue.send_message("healthy")
    while await consumer.extend_messages(suspect) and (await queue.get_info()).ready_messages != 1:
        pass

    assert await consumer.get_messages(timeout=0.1) == []

    assert await consumer.acknowledge_messages(suspect) == 1
    assert [m.data for m in await consumer.get_messages(timeout=5)] == ["healthy"]


@pytest.mark.on(*IN_MEMORY)
async def test_who_receives_nothing_for_the_sake_of_a_suspect_is_told_why(
    mq: Client, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever leaves what fails to its lease, and goes on, would not know what holds it up."""
    queue = mq.queue("suspects", lease=60)
    sent = await queue.send_message("fails")
    for _ in range(2):
        assert await queue.get_messages(timeout=5)
        harness.advance(61)
    [suspect] = await queue.get_messages(timeout=5)
    assert suspect.delivery_count == 3
    await queue.send_message("healthy")

    def told() -> list[Any]:
        return [vars(r) for r in caplog.records if getattr(r, "leanmq_event", "") == "paused"]

    assert await queue.get_messages() == []
    assert told() == []
    harness.advance(6)
    for _ in range(3):
        assert await queue.get_messages() == []

    [record] = told()
    assert (record["leanmq_queue"], record["leanmq_message"]) == ("suspects", sent)
    assert "retry_messages" in caplog.text
    assert await queue.acknowledge_messages(suspect) == 1
    assert [m.data for m in await drain(queue, 1)] == ["healthy"]


async def test_a_suspect_comes_though_its_client_waits_for_another_queue_too(
    mq: Client, harness: Harness
) -> None:
    await mq.queue("suspects", lease=0.5).send_message("suspect")
    for _ in range(2):
        victim = harness.client().queue("suspects")
        assert await victim.get_messages(timeout=5)
    client = harness.client()
    empty = client.queue("empty")
    waiting = asyncio.create_task(empty.get_messages(block=True, timeout=40))
    await until_waiting(empty, waiting)

    messages = await client.queue("suspects").get_messages(timeout=20)

    assert [(m.data, m.delivery_count) for m in messages] == [("suspect", 3)]
    await client.queue("suspects").acknowledge_messages(messages)
    await mq.queue("empty").send_message("end")
    assert [m.data for m in await waiting] == ["end"]


async def test_explicit_retries_make_no_suspect(queue: AsyncQueue) -> None:
    await queue.send_messages(["a", "b", "c"])
    for _ in range(4):
        messages = await queue.get_messages(timeout=5)
        assert len(messages) == 3
        await queue.retry_messages(messages)


async def test_a_lost_consumer_group_is_made_again_and_nothing_is_skipped(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(range(5))
    [_, *_] = await queue.get_messages(2)

    await harness.destroy_groups("orders")

    messages = await drain(queue, 5)
    assert harness.in_order([m.data for m in messages]) == list(range(5))


async def test_a_queue_that_vanished_works_again_as_it_was(
    mq: Client, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await mq.queue("orders", lease=7).declare()
    queue = mq.queue("orders")
    await queue.send_message("lost with the server's memory")
    await queue.get_info()

    await harness.wipe("orders")

    sent = await queue.send_message("new")
    assert [m.id for m in await queue.get_messages()] == [sent]
    info = await queue.get_info()
    assert (info.message_count, info.lease) == (1, 7.0)
    assert any("vanished" in record.message for record in caplog.records)


async def test_a_waiting_receive_survives_that_its_queue_vanishes(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    waiting = asyncio.create_task(queue.get_messages(timeout=30))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    await harness.wipe("orders")

    await harness.client().queue("orders").send_message("new")

    assert [m.data for m in await waiting] == ["new"]


async def test_what_a_dead_client_held_is_counted_in_flight_until_its_lease_ends(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", lease=1.2)
    await queue.send_messages(range(3))
    await harness.client().queue("orders").get_messages()

    info = await queue.get_info()
    assert (info.ready_messages, info.pending_messages) == (0, 3)

    got: list[Message[Any]] = []

    async def all_back() -> bool:
        got.extend(await queue.get_messages(timeout=1))
        return len(got) == 3

    await eventually(all_back, within=6)
    assert (await queue.get_info()).pending_messages == 3


@pytest.mark.on(*IN_MEMORY)
async def test_the_clock_of_the_server_ends_leases(queue: AsyncQueue, harness: Harness) -> None:
    await queue.send_message("a minute")
    await harness.client().queue("orders").get_messages()
    harness.advance(55)
    assert await queue.get_messages() == []
    harness.advance(10)

    [message] = await queue.get_messages(timeout=5)

    assert (message.data, message.delivery_count) == ("a minute", 2)


@pytest.mark.on(*IN_MEMORY)
async def test_the_names_of_dead_consumers_are_forgotten_but_not_what_they_hold(
    mq: Client, harness: Harness
) -> None:
    hour = 3_600
    queue = mq.queue("long", lease=10 * hour)
    await queue.send_message("held")
    for _ in range(6):  # the first one is handed the message
        client = harness.client()
        await client.queue("long").get_messages()
        await client.close()
    harness.advance(25 * hour / 10)

    async def forgotten() -> bool:
        assert await queue.get_messages() == []
        return await harness.consumers("long") <= 3  # ours, the holder, and what is free

    await eventually(forgotten, within=10)
    harness.advance(8 * hour)

    [message] = await queue.get_messages(1, timeout=5)

    assert (message.data, message.delivery_count) == ("held", 2)
