"""max_length: what a full queue does, and what it never does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from leanmq import (
    AsyncQueue,
    BulkSendError,
    LeanMQError,
    MessageError,
    Outgoing,
    QueueFullError,
    UnsupportedError,
)
from tests.contract.harness import ROUTERS, Client, Harness, drain, eventually

bounded = pytest.mark.on("memory", "redis", "sentinel", "cluster", "pass-through")
"""Where ``Capabilities.bounds`` is declared: two queues cannot keep one bound together."""


async def count(queue: AsyncQueue) -> int:
    return (await queue.get_info()).message_count


async def fill(queue: AsyncQueue, number: int) -> None:
    assert len(await queue.send_messages(range(number))) == number


# --- never one more


async def one_by_one(queue: AsyncQueue, number: int) -> list[str]:
    ids = []
    for n in range(number):
        try:
            ids.append(await queue.send_message(n))
        except QueueFullError:
            continue
    return ids


async def in_bulk(queue: AsyncQueue, number: int) -> list[str]:
    try:
        return await queue.send_messages(range(number))
    except QueueFullError:
        return []
    except BulkSendError as error:
        stopped = error
    assert isinstance(stopped.__cause__, QueueFullError)
    assert [*stopped.confirmed, *stopped.unsent] == list(range(number))
    return list(stopped.confirmed.values())


async def delayed(queue: AsyncQueue, number: int) -> list[str]:
    try:
        return await queue.send_messages(Outgoing(n, delay=60) for n in range(number))
    except QueueFullError:
        return []
    except BulkSendError as stopped:
        return list(stopped.confirmed.values())


async def of_all_kinds(queue: AsyncQueue, number: int) -> list[str]:
    third = number // 3
    return [
        *await one_by_one(queue, third),
        *await in_bulk(queue, third),
        *await delayed(queue, number - 2 * third),
    ]


@bounded
@pytest.mark.parametrize("produce", [one_by_one, in_bulk, delayed, of_all_kinds])
async def test_eight_producers_never_exceed_the_bound_by_one(
    harness: Harness, produce: Callable[[AsyncQueue, int], Awaitable[list[str]]]
) -> None:
    queues = [harness.client().queue("orders", max_length=53) for _ in range(8)]

    stored = await asyncio.gather(*(produce(queue, 12) for queue in queues))

    ids = [i for some in stored for i in some]
    assert len(ids) == len(set(ids)) == 53
    assert await count(queues[0]) == 53
    peeked = await queues[0].peek_messages(1_000, ids=ids)
    assert {m.id for m in peeked} == set(ids)


@bounded
async def test_the_bound_holds_at_every_moment_while_consumers_make_room(
    harness: Harness,
) -> None:
    producers = [harness.client().queue("orders", max_length=7) for _ in range(4)]
    consumer, watcher = (harness.client().queue("orders") for _ in range(2))
    await producers[0].declare()
    sent: list[str] = []
    got: list[str] = []
    stop, produced = asyncio.Event(), asyncio.Event()
    highest = 0

    async def produce(queue: AsyncQueue) -> None:
        while not stop.is_set():
            sent.extend(await in_bulk(queue, 3))

    async def produce_all() -> None:
        await asyncio.gather(*map(produce, producers))
        produced.set()

    async def consume() -> None:
        while not produced.is_set() or await count(consumer):
            got.extend(m.id for m in await drain_some(consumer))

    async def watch() -> None:
        nonlocal highest
        while len(got) < 60:
            highest = max(highest, await count(watcher))
        stop.set()

    await asyncio.wait_for(asyncio.gather(produce_all(), consume(), watch()), 30)

    assert highest <= 7
    assert sorted(got) == sorted(sent)


async def drain_some(queue: AsyncQueue) -> list[Any]:
    messages = await queue.get_messages(3, timeout=0.05)
    await queue.acknowledge_messages(messages)
    return messages


# --- what a sender is told


@bounded
async def test_a_full_queue_refuses_and_stores_nothing(mq: Client) -> None:
    queue = mq.queue("orders", max_length=2)
    await fill(queue, 2)

    for options in ({}, {"delay": 5}, {"ttl_seconds": 5}, {"dedup_id": "a"}, {"key": "k"}):
        with pytest.raises(QueueFullError, match=r"'orders' is full.*max_length") as full:
            await queue.send_message("x", **options)
        assert full.value.queue == "orders"
        assert full.value.retryable
        assert not full.value.in_doubt
    with pytest.raises(QueueFullError):
        await queue.send_messages(["x", "y"])

    assert [m.data for m in await drain(queue, 2)] == [0, 1]
    assert await count(queue) == 0
    assert await queue.send_message("room", dedup_id="a")
    assert [m.data for m in await drain(queue, 1)] == ["room"]


@bounded
@pytest.mark.parametrize(("bound", "number"), [(5, 8), (700, 1_100), (500, 501)])
async def test_a_bulk_send_stores_what_fits_and_tells_the_rest(
    mq: Client, bound: int, number: int
) -> None:
    queue = mq.queue("orders", max_length=bound)

    with pytest.raises(BulkSendError, match="is full") as stopped:
        await queue.send_messages(range(number))

    error = stopped.value
    assert isinstance(error.__cause__, QueueFullError)
    assert error.__cause__.queue == error.queue == "orders"
    assert list(error.confirmed) == list(range(bound))
    assert error.unknown == ()
    assert error.unsent == tuple(range(bound, min(number, 1_000)))
    messages = await drain(queue, bound)
    assert [m.data for m in messages] == list(range(bound))
    assert [m.id for m in messages] == list(error.confirmed.values())


@bounded
async def test_a_repeated_send_needs_no_room(mq: Client) -> None:
    queue = mq.queue("orders", max_length=2)
    ids = await queue.send_messages(Outgoing(n, dedup_id=str(n)) for n in range(2))

    assert await queue.send_message("again", dedup_id="1") == ids[1]
    assert await queue.send_messages(Outgoing(n, dedup_id=str(n)) for n in range(2)) == ids


@bounded
async def test_what_is_done_makes_room(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", max_length=3)
    await queue.send_message("a", ttl_seconds=0.2)
    await queue.send_message("b", ttl_seconds=0.2)
    await queue.send_message("c", delay=60)
    await harness.pass_time(0.25)
    assert await mq.process_expired_messages() == 2
    ids = await queue.send_messages(["d", "e"])

    with pytest.raises(QueueFullError):
        await queue.send_message("x")
    assert await queue.delete_messages(ids[0]) == 1
    ids.append(await queue.send_message("f"))
    with pytest.raises(QueueFullError):
        await queue.send_message("x")
    [message] = await queue.get_messages(1)
    with pytest.raises(QueueFullError):  # in flight, it still counts
        await queue.send_message("x")
    await queue.acknowledge_messages(message)
    await queue.send_message("g")
    with pytest.raises(QueueFullError):
        await queue.send_message("x")
    assert await queue.purge() == 3
    await fill(queue, 3)


@bounded
async def test_dead_letters_have_no_bound_and_take_no_room(mq: Client) -> None:
    queue = mq.queue("orders", max_length=1)
    for n in range(4):
        await queue.send_message(n)
        assert await queue.move_to_dlq(await queue.get_messages()) == 1

    assert (await count(queue), await count(queue.dlq)) == (0, 4)
    assert (await queue.dlq.get_info()).max_length == 0


async def test_without_a_bound_there_is_none(mq: Client) -> None:
    queue = mq.queue("orders", max_length=0)
    await fill(queue, 1_200)

    assert await count(queue) == 1_200


@pytest.mark.on(*ROUTERS)
async def test_a_backend_that_cannot_keep_a_bound_says_so(mq: Client, queue: AsyncQueue) -> None:
    with pytest.raises(UnsupportedError, match=r"bound of queue 'orders'.*without max_length"):
        await mq.queue("orders", max_length=5).send_message("x")
    await queue.send_message("x")
    with pytest.raises(UnsupportedError, match=r"bound of queue 'orders'.*without max_length"):
        await mq.update_queue("orders", max_length=5)

    assert await count(queue) == 1
    assert (await queue.get_info()).max_length == 0


# --- overflow="block"


@bounded
async def test_a_blocked_sender_waits_until_there_is_room(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", max_length=2, overflow="block")
    consumer = harness.client().queue("orders")
    await fill(queue, 2)
    sending = asyncio.create_task(queue.send_message("patient"))
    done, _ = await asyncio.wait([sending], timeout=0.2)
    assert not done
    assert await count(consumer) == 2

    [message] = await consumer.get_messages(1)
    assert await consumer.acknowledge_messages(message) == 1
    sent = await asyncio.wait_for(sending, 10)

    assert [(m.id, m.data) for m in await drain(consumer, 2)][1] == (sent, "patient")
    assert await count(consumer) == 0


@bounded
async def test_a_blocked_sender_is_told_when_its_deadline_is_over(harness: Harness) -> None:
    queue = harness.client(deadline=0.3).queue("orders", max_length=2, overflow="block")
    await fill(queue, 2)
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(QueueFullError, match="'orders' is full") as full:
        await queue.send_message("x")

    assert 0.1 < loop.time() - began < 5
    assert full.value.queue == "orders"
    assert await count(queue) == 2


@bounded
async def test_a_blocked_bulk_send_goes_on_as_consumers_make_room(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", max_length=4, overflow="block")
    consumer = harness.client().queue("orders")
    await queue.declare()
    sending = asyncio.create_task(queue.send_messages(range(20)))

    messages = await drain(consumer, 20, within=20)

    assert [m.data for m in messages] == list(range(20))
    assert [m.id for m in messages] == await sending


@bounded
async def test_a_blocked_bulk_send_tells_what_is_stored_when_its_deadline_is_over(
    harness: Harness,
) -> None:
    queue = harness.client(deadline=0.2).queue("orders", max_length=4, overflow="block")

    with pytest.raises(BulkSendError, match="is full") as stopped:
        await queue.send_messages(range(10))

    assert isinstance(stopped.value.__cause__, QueueFullError)
    assert list(stopped.value.confirmed) == [0, 1, 2, 3]
    assert stopped.value.unsent == (4, 5, 6, 7, 8, 9)
    assert [m.data for m in await drain(queue, 4)] == [0, 1, 2, 3]


@bounded
async def test_a_blocked_bulk_send_that_is_refused_at_last_tells_what_is_stored(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", max_length=3, overflow="block")
    await queue.declare()
    sending = asyncio.create_task(queue.send_messages(["x"] * 5))
    watcher = harness.client().queue("orders")

    async def full() -> bool:
        return await count(watcher) == 3

    await eventually(full, within=10)
    await harness.client().update_queue("orders", max_payload_bytes=2)
    with pytest.raises(BulkSendError, match="max_payload_bytes is 2") as stopped:
        await asyncio.wait_for(sending, 10)

    assert isinstance(stopped.value.__cause__, MessageError)
    assert list(stopped.value.confirmed) == [0, 1, 2]
    assert stopped.value.unsent == (3, 4)
    assert [m.id for m in await drain(queue, 3)] == list(stopped.value.confirmed.values())


@bounded
async def test_many_blocked_senders_all_get_in_and_never_exceed_the_bound(
    harness: Harness,
) -> None:
    queues = [harness.client().queue("orders", max_length=3, overflow="block") for _ in range(8)]
    consumer = harness.client().queue("orders")
    await queues[0].declare()
    sending = asyncio.gather(*(queue.send_messages([n, n]) for n, queue in enumerate(queues)))
    got: list[int] = []
    highest = 0

    async def all_there() -> bool:
        nonlocal highest
        highest = max(highest, await count(consumer))
        got.extend(m.data for m in await drain_some(consumer))
        return len(got) >= 16

    await eventually(all_there, within=20)

    assert sorted(got) == sorted([*range(8), *range(8)])
    assert highest <= 3
    assert len({i for ids in await sending for i in ids}) == 16


@bounded
async def test_a_sender_who_waits_for_room_can_be_closed(harness: Harness) -> None:
    mq, watcher = harness.client(), harness.client().queue("orders")
    queue = mq.queue("orders", max_length=1, overflow="block")
    await fill(queue, 1)
    sending = asyncio.create_task(queue.send_message("x"))
    done, _ = await asyncio.wait([sending], timeout=0.1)
    assert not done

    await mq.close()

    with pytest.raises(LeanMQError):
        await asyncio.wait_for(sending, 5)
    assert await count(watcher) == 1


# --- what is in the queue stays welcome


@bounded
async def test_what_is_in_a_full_queue_is_never_refused(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", max_length=4, lease=0.3)
    other = harness.client().queue("orders")
    await fill(queue, 4)
    a, b, c, d = await queue.get_messages()

    assert await queue.retry_messages(a) == 1
    assert await queue.retry_messages(b, delay=0.05) == 1
    assert await queue.release_messages(c) == 1
    with pytest.raises(QueueFullError):
        await queue.send_message("x")
    found: set[int] = set()

    async def all_again() -> bool:  # d after its lease has ended
        found.update(m.data for m in await other.get_messages(timeout=0.3))
        return len(found) == 4

    await eventually(all_again, within=10)
    assert d.data in found
    assert await count(other) == 4


@bounded
async def test_delayed_messages_of_a_full_queue_come_when_they_are_due(mq: Client) -> None:
    queue = mq.queue("orders", max_length=3)
    await queue.send_messages(Outgoing(n, delay=0.1) for n in range(3))
    with pytest.raises(QueueFullError):
        await queue.send_message("x")

    assert sorted(m.data for m in await drain(queue, 3)) == [0, 1, 2]


@bounded
async def test_a_dead_letter_is_not_sent_back_into_a_full_queue(mq: Client) -> None:
    queue = mq.queue("orders", max_length=3)
    await fill(queue, 3)
    assert await queue.move_to_dlq(await queue.get_messages()) == 3
    await fill(queue, 2)
    dead = await queue.dlq.get_messages()

    with pytest.raises(QueueFullError, match=r"'orders' is full: 1 .* 2 stay dead") as full:
        await queue.dlq.requeue_messages(dead)

    assert full.value.queue == "orders"
    assert (await count(queue), await count(queue.dlq)) == (3, 2)
    with pytest.raises(QueueFullError):
        await queue.dlq.requeue_messages(dead)
    assert (await count(queue), await count(queue.dlq)) == (3, 2)
    await drain(queue, 3)
    assert await queue.dlq.requeue_messages(dead) == 2
    assert (await count(queue), await count(queue.dlq)) == (2, 0)


@bounded
async def test_a_dead_letter_is_not_sent_to_another_queue_that_is_full(mq: Client) -> None:
    queue = mq.queue("orders", slot="shop")
    full = mq.queue("small", max_length=1, slot="shop")
    await fill(full, 1)
    await fill(queue, 1)
    await queue.move_to_dlq(await queue.get_messages())

    with pytest.raises(QueueFullError, match="'small' is full") as refused:
        await queue.dlq.requeue_messages(await queue.dlq.get_messages(), full)

    assert refused.value.queue == "small"
    assert (await count(full), await count(queue.dlq)) == (1, 1)
