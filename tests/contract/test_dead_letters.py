"""Limits hold, and dead letters are a queue of their own."""

from __future__ import annotations

import asyncio

import pytest

from leanmq import AsyncQueue, QueueError
from tests.contract.harness import Client, Harness, drain, eventually


async def test_a_message_is_handed_out_max_deliveries_times_then_dead(mq: Client) -> None:
    queue = mq.queue("limited", lease=0.2, max_deliveries=3)
    sent = await queue.send_message({"bad": True})
    counts: list[int] = []

    async def died() -> bool:
        counts.extend(m.delivery_count for m in await queue.get_messages(timeout=0.3))
        return bool((await queue.dlq.get_info()).message_count)

    await eventually(died, within=20)
    assert await queue.get_messages() == []
    [dead] = await queue.dlq.get_messages()

    assert counts == [1, 2, 3]
    assert (dead.id, dead.data, dead.delivery_count) == (sent, {"bad": True}, 3)
    assert dead.error is not None
    assert "3" in dead.error
    assert "max_deliveries" in dead.error
    info = await queue.get_info()
    assert (info.message_count, info.pending_messages) == (0, 0)


async def test_a_retry_at_the_limit_is_a_dead_letter_at_once(mq: Client) -> None:
    queue = mq.queue("limited", max_deliveries=2)
    sent = await queue.send_message("fails")
    for _ in range(2):
        [message] = await queue.get_messages(timeout=5)
        assert await queue.retry_messages(message) == 1

    assert await queue.get_messages() == []
    [dead] = await queue.dlq.get_messages()
    assert (dead.id, dead.data, dead.delivery_count) == (sent, "fails", 2)
    assert (await queue.get_info()).message_count == 0


async def test_releases_do_not_count_towards_the_limit(mq: Client) -> None:
    queue = mq.queue("limited", max_deliveries=2)
    await queue.send_message("patient")
    for _ in range(5):
        [message] = await queue.get_messages()
        assert message.delivery_count == 1
        await queue.release_messages(message)

    assert await queue.dlq.get_messages() == []
    assert len(await queue.get_messages()) == 1


async def test_no_limit_is_no_limit(mq: Client) -> None:
    queue = mq.queue("unlimited", max_deliveries=0)
    await queue.send_message("again")
    for count in range(1, 15):
        [message] = await queue.get_messages(timeout=5)
        assert message.delivery_count == count
        await queue.retry_messages(message)

    assert await queue.dlq.get_messages() == []


async def test_a_message_is_moved_to_the_dead_letters_with_its_reason(
    queue: AsyncQueue, harness: Harness
) -> None:
    sent = await queue.send_messages([{"n": 1}, {"n": 2}])
    first, second = harness.in_order(await queue.get_messages(), key=lambda m: m.data["n"])

    assert await queue.move_to_dlq(first, "customer unknown ☠") == 1
    assert await queue.move_to_dlq(first, "twice") == 0

    [dead] = await queue.dlq.get_messages()
    assert (dead.id, dead.data) == (sent[0], {"n": 1})
    assert dead.error == "customer unknown ☠"
    assert dead.delivery_count == 1
    assert dead.timestamp == first.timestamp
    assert await queue.acknowledge_messages(second) == 1
    assert (await queue.get_info()).message_count == 0


async def test_dead_letters_have_leases_but_no_limit(mq: Client) -> None:
    queue = mq.queue("short", lease=0.2, max_deliveries=1)
    await queue.send_message("dead")
    await queue.move_to_dlq(await queue.get_messages(), "so it is")

    for _ in range(3):
        [dead] = await queue.dlq.get_messages(timeout=5)
        assert (dead.data, dead.error) == ("dead", "so it is")

    assert await queue.dlq.acknowledge_messages(dead) == 1
    assert (await queue.dlq.get_info()).message_count == 0


async def test_dead_letters_are_released_and_retried_like_any_message(queue: AsyncQueue) -> None:
    await queue.send_message("dead")
    await queue.move_to_dlq(await queue.get_messages(), "why")
    dlq = queue.dlq

    [dead] = await dlq.get_messages()
    assert await dlq.release_messages(dead) == 1
    [dead] = await dlq.get_messages()
    assert await dlq.retry_messages(dead, delay=1.0) == 1
    assert (await dlq.get_info()).delayed_messages == 1
    assert (await queue.get_info()).message_count == 0
    [dead] = await dlq.get_messages(timeout=5)
    assert (dead.data, dead.error) == ("dead", "why")
    assert await dlq.acknowledge_messages(dead) == 1


async def test_a_waiting_consumer_of_dead_letters_gets_them(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("soon dead")
    waiting = asyncio.create_task(harness.client().queue("orders").dlq.get_messages(timeout=20))
    await queue.move_to_dlq(await queue.get_messages(), "why")

    [dead] = await waiting
    assert dead.data == "soon dead"


async def test_a_dead_letter_queue_has_no_dead_letters(queue: AsyncQueue) -> None:
    await queue.send_message("dead")
    await queue.move_to_dlq(await queue.get_messages(), "why")
    dlq = queue.dlq
    assert (queue.is_dlq, dlq.is_dlq, dlq.dlq.is_dlq) == (False, True, True)
    assert dlq.name == queue.name

    [dead] = await dlq.get_messages()
    with pytest.raises(QueueError, match="dead letter queue"):
        await dlq.move_to_dlq(dead)

    assert await dlq.acknowledge_messages(dead) == 1


async def test_headers_that_nobody_can_decode_cost_their_message_alone(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("fine", headers={"a": 1})
    for headers in ("{not json", "[1]"):
        await harness.inject("orders", b'"data"', h=headers)
    got = [(m.data, dict(m.headers)) for m in await queue.get_messages(timeout=5)]

    async def died() -> bool:
        got.extend((m.data, dict(m.headers)) for m in await queue.get_messages())
        return (await queue.dlq.get_info()).message_count == 2

    await eventually(died, within=5)
    assert got == [("fine", {"a": 1})]
    for dead in [*await queue.dlq.peek_messages(), *await drain(queue.dlq, 2)]:
        assert (dead.data, dict(dead.headers)) == ("data", {})
        assert dead.error is not None
        assert "of headers that are no JSON" in dead.error


async def test_what_nobody_can_decode_becomes_a_dead_letter_with_its_bytes(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("fine")
    await harness.inject("orders", b"\xff{not json")

    assert [m.data for m in await queue.get_messages()] == ["fine"]

    async def died() -> object:
        await queue.get_messages()
        return (await queue.dlq.get_info()).message_count

    await eventually(died, within=5)
    [dead] = await queue.dlq.get_messages()
    assert dead.data == b"\xff{not json"
    assert dead.error is not None
    assert "undecodable" in dead.error
    assert "not json" not in dead.error
