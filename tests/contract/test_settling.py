"""Acknowledge, release, retry, extend, dead-letter: by receipts, and only by their holder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from leanmq import AsyncQueue
from tests.contract.harness import Client, Harness, eventually

Verb = Callable[[AsyncQueue, str], Awaitable[int]]
VERBS: dict[str, Verb] = {
    "acknowledge": lambda queue, message: queue.acknowledge_messages(message),
    "release": lambda queue, message: queue.release_messages(message),
    "retry": lambda queue, message: queue.retry_messages(message),
    "extend": lambda queue, message: queue.extend_messages(message),
    "dead-letter": lambda queue, message: queue.move_to_dlq(message, "late"),
}


async def test_an_acknowledged_message_is_deleted(queue: AsyncQueue) -> None:
    await queue.send_messages(["a", "b"])
    messages = await queue.get_messages()

    assert await queue.acknowledge_messages(messages) == 2

    info = await queue.get_info()
    assert (info.message_count, info.pending_messages) == (0, 0)
    assert await queue.get_messages() == []


async def test_a_message_is_acknowledged_once(queue: AsyncQueue) -> None:
    await queue.send_message("a")
    [message] = await queue.get_messages()

    assert await queue.acknowledge_messages(message) == 1
    assert await queue.acknowledge_messages(message) == 0


async def test_ids_messages_and_lists_of_them_all_name_messages(queue: AsyncQueue) -> None:
    await queue.send_messages(range(5))
    a, b, c, d, e = await queue.get_messages()

    assert await queue.acknowledge_messages(a.id) == 1
    assert await queue.acknowledge_messages(b) == 1
    assert await queue.acknowledge_messages([c.id, d, d.id, c]) == 2
    assert await queue.acknowledge_messages(m for m in [e]) == 1
    assert await queue.acknowledge_messages([]) == 0


async def test_unknown_ids_are_not_counted_and_harm_nothing(queue: AsyncQueue) -> None:
    await queue.send_message("a")

    for unknown in ("no such id", "1-1", ""):
        assert await queue.acknowledge_messages(unknown) == 0
        assert await queue.extend_messages(unknown) == 0
        assert await queue.retry_messages(unknown) == 0

    assert len(await queue.get_messages()) == 1


async def test_an_acknowledged_message_does_not_come_back_when_its_lease_ends(mq: Client) -> None:
    queue = mq.queue("short", lease=0.3)
    await queue.send_messages(["done", "left"])
    done, left = await queue.get_messages()
    await queue.acknowledge_messages(done)

    again = await queue.get_messages(timeout=5)

    assert [m.id for m in again] == [left.id]


async def test_a_message_that_is_not_settled_comes_again_after_its_lease(mq: Client) -> None:
    queue = mq.queue("short", lease=0.5)
    sent = await queue.send_message("again")
    received_at = time.monotonic()
    [first] = await queue.get_messages()

    [second] = await queue.get_messages(timeout=5)

    assert time.monotonic() - received_at >= 0.49
    assert (first.id, second.id) == (sent, sent)
    assert (first.delivery_count, second.delivery_count) == (1, 2)
    assert second.data == "again"
    assert second.timestamp == first.timestamp


async def test_a_released_message_comes_again_uncounted_and_before_later_ones(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_message("first")
    for _ in range(3):
        [message] = await queue.get_messages(1)
        assert (message.data, message.delivery_count) == ("first", 1)
        assert await queue.release_messages(message) == 1
    await queue.send_message("second")

    data = [m.data for m in await queue.get_messages()]

    assert sorted(data) == ["first", "second"]
    if (await mq.open()).ordered:
        assert data == ["first", "second"]


async def test_a_released_message_goes_to_a_consumer_that_waits(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("passed on")
    [message] = await queue.get_messages()
    waiting = asyncio.create_task(harness.client().queue("orders").get_messages(timeout=20))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done

    watch = harness.stopwatch()
    await queue.release_messages(message)

    [again] = await waiting
    assert watch.own() < 1.5
    assert (again.id, again.delivery_count) == (message.id, 1)


async def test_a_retried_message_comes_again_counted(queue: AsyncQueue) -> None:
    sent = await queue.send_message({"try": "again"})
    for count in (1, 2, 3):
        [message] = await queue.get_messages(timeout=5)
        assert (message.id, message.delivery_count) == (sent, count)
        assert message.data == {"try": "again"}
        assert await queue.retry_messages(message) == 1

    assert (await queue.get_info()).message_count == 1


async def test_a_retry_with_delay_is_due_when_it_says(queue: AsyncQueue, harness: Harness) -> None:
    await queue.send_message("later")
    [message] = await queue.get_messages()
    watch = harness.stopwatch()
    assert await queue.retry_messages(message, delay=0.7) == 1

    info = await queue.get_info()
    assert (info.message_count, info.delayed_messages, info.pending_messages) == (1, 1, 0)
    assert await queue.get_messages() == []
    [again] = await queue.get_messages(timeout=10)

    assert watch.passed() >= 0.69
    assert watch.own() < 0.7 + 1.5
    assert (again.id, again.delivery_count, again.data) == (message.id, 2, "later")
    assert again.timestamp == message.timestamp
    assert await queue.acknowledge_messages(again.id) == 1


async def test_messages_delayed_differently_come_in_the_order_of_their_due_times(
    mq: Client, queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(["late", "soon"])
    late, soon = harness.in_order(await queue.get_messages(), key=lambda m: m.data)
    began = time.monotonic()
    await queue.retry_messages(late, delay=0.6)
    await queue.retry_messages(soon, delay=0.3)
    in_time = time.monotonic() - began < 0.3

    got: list[str] = []
    while len(got) < 2:
        messages = await queue.get_messages(timeout=10)
        assert messages
        in_time &= (await mq.open()).ordered or time.monotonic() - began < 0.6 or len(got) == 1
        got += [m.data for m in messages]
    assert got == ["soon", "late"] or not in_time
    assert sorted(got) == ["late", "soon"]


async def test_an_extended_lease_is_not_taken_over(mq: Client, harness: Harness) -> None:
    queue = mq.queue("short", lease=1.5)
    other = harness.client().queue("short")
    await queue.send_message("long work")
    [message] = await queue.get_messages()
    began = time.monotonic()

    while time.monotonic() - began < 2.2:
        extended_at = time.monotonic()
        assert await queue.extend_messages(message) == 1
        taken = await other.get_messages(timeout=0.2)
        if time.monotonic() - extended_at > 1.5:
            return  # the machine stood still for a lease: whatever came, was due
        assert taken == []

    assert await queue.acknowledge_messages(message) == 1


async def test_extending_does_not_count_as_a_delivery(mq: Client) -> None:
    queue = mq.queue("short", lease=0.4)
    await queue.send_message("a")
    [message] = await queue.get_messages()
    for _ in range(3):
        await queue.extend_messages(message)

    [again] = await queue.get_messages(timeout=5)

    assert again.delivery_count == 2


@pytest.mark.parametrize("verb", VERBS)
async def test_a_former_owner_changes_nothing(mq: Client, harness: Harness, verb: str) -> None:
    queue = mq.queue("short", lease=0.5, max_deliveries=5)
    await queue.send_message("taken over")
    [old] = await queue.get_messages()
    owner = harness.client().queue("short")
    [new] = await owner.get_messages(timeout=5)
    assert new.id == old.id

    assert await VERBS[verb](queue, old.id) == 0

    assert await owner.acknowledge_messages(new) == 1
    info = await queue.get_info()
    assert (info.message_count, info.pending_messages) == (0, 0)
    assert await queue.dlq.get_messages() == []


async def test_a_late_settle_counts_while_nobody_else_was_handed_the_message(mq: Client) -> None:
    queue = mq.queue("short", lease=0.2)
    await queue.send_message("late")
    [message] = await queue.get_messages()

    async def lease_over() -> bool:
        return time.time() > message.lease_until + 0.05

    await eventually(lease_over, within=3)

    assert await queue.acknowledge_messages(message) == 1
    assert await queue.get_messages(timeout=0.3) == []


async def test_only_the_holder_settles_a_message_in_flight(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("mine")
    [message] = await queue.get_messages()
    stranger = harness.client().queue("orders")

    for verb in VERBS.values():
        assert await verb(stranger, message.id) == 0

    assert await queue.acknowledge_messages(message) == 1


async def test_a_message_that_nobody_holds_is_settled_by_its_id(
    queue: AsyncQueue, harness: Harness
) -> None:
    sent = await queue.send_message("never mind")

    assert await harness.client().queue("orders").acknowledge_messages(sent) == 1

    assert await queue.get_messages() == []
    assert (await queue.get_info()).message_count == 0


async def test_an_id_never_names_another_message(queue: AsyncQueue, harness: Harness) -> None:
    await queue.declare()
    # A message of the id 4-4 that was retried: its new entry is called otherwise.
    entry = "9000000000005-5"
    await harness.inject("orders", b'"retried"', entry=entry, i="4-4", t="4", n="1")
    prefix = (await queue.send_message("other")).rpartition("~")[0]
    stranger = harness.client().queue("orders")

    for mark in (prefix, f"{prefix}~" if prefix else ""):
        assert await stranger.acknowledge_messages(f"{mark}{entry}") == 0

    assert sorted(m.data for m in await queue.get_messages()) == ["other", "retried"]


async def test_many_messages_are_settled_in_any_order(queue: AsyncQueue) -> None:
    await queue.send_messages(range(1_500))
    messages = [*await queue.get_messages(1_000), *await queue.get_messages(1_000)]
    odd = [m for m in reversed(messages) if m.data % 2]

    assert await queue.acknowledge_messages(odd) == 750
    assert await queue.extend_messages(messages) == 750
    assert await queue.acknowledge_messages(messages) == 750
    assert (await queue.get_info()).message_count == 0


async def test_settling_through_another_handle_of_the_same_client_works(mq: Client) -> None:
    await mq.queue("orders").send_message("a")
    [message] = await mq.queue("orders").get_messages()

    assert await mq.queue("orders").acknowledge_messages(message.id) == 1
