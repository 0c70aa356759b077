"""What a send promises."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from leanmq import AsyncQueue, BulkSendError, MessageError, Outgoing
from tests.contract.harness import Client, Harness, drain


async def test_a_sent_message_is_received_as_it_was_sent(queue: AsyncQueue) -> None:
    sent = await queue.send_message({"order": 7, "total": 12.5})

    [message] = await queue.get_messages()

    assert message.id == sent
    assert message.data == {"order": 7, "total": 12.5}
    assert message.delivery_count == 1
    assert message.error is None


async def test_messages_come_in_the_order_of_sending(queue: AsyncQueue, harness: Harness) -> None:
    ids = [await queue.send_message(n) for n in range(20)]

    messages = harness.in_order(await drain(queue, 20), key=lambda m: m.data)

    assert [m.data for m in messages] == list(range(20))
    assert [m.id for m in messages] == ids


async def test_a_bulk_send_stores_every_message_once_and_in_order(
    queue: AsyncQueue, harness: Harness
) -> None:
    ids = await queue.send_messages({"n": n} for n in range(1_203))

    messages = await drain(queue, 1_203)

    messages = harness.in_order(messages, key=lambda m: m.data["n"])
    assert [m.id for m in messages] == ids
    assert [m.data["n"] for m in messages] == list(range(1_203))
    assert (await queue.get_info()).message_count == 0


@pytest.mark.parametrize("size", [1, 499, 500, 501])
async def test_a_bulk_send_of_any_size_drops_nothing(queue: AsyncQueue, size: int) -> None:
    ids = await queue.send_messages(list(range(size)))

    assert len(set(ids)) == size
    assert (await queue.get_info()).message_count == size


async def test_a_bulk_send_of_nothing_sends_nothing(queue: AsyncQueue) -> None:
    assert await queue.send_messages([]) == []
    assert (await queue.get_info()).message_count == 0


async def test_a_bulk_send_takes_outgoing_values_too(queue: AsyncQueue, harness: Harness) -> None:
    await queue.send_messages([Outgoing({"n": 1}), {"n": 2}])

    got = [m.data for m in await queue.get_messages()]
    assert harness.in_order(got, key=str) == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize(
    "payload",
    [
        None,
        True,
        0,
        -1.5,
        "",
        "žluťoučký kůň \x00 \n",
        [],
        {},
        [1, [2, {"a": None}]],
        {"_metadata": 1, "b": "x" * 10_000, "": "~"},
        2**63,
    ],
    ids=repr,
)
async def test_what_json_can_hold_comes_back_equal(queue: AsyncQueue, payload: Any) -> None:
    await queue.send_message(payload)

    [message] = await queue.get_messages()

    assert message.data == payload


async def test_a_payload_that_is_no_json_is_refused_and_nothing_is_stored(
    queue: AsyncQueue,
) -> None:
    with pytest.raises(MessageError, match=r"payload of type object.*not JSON"):
        await queue.send_message(object())
    with pytest.raises(MessageError, match="item 1"):
        await queue.send_messages([1, {"x": object()}, 3])

    assert (await queue.get_info()).message_count == 0


async def test_a_bulk_send_that_stops_tells_what_is_stored_and_what_is_not(
    mq: Client, queue: AsyncQueue, harness: Harness
) -> None:
    chunk = (await mq.open()).best_batch
    items = [*range(chunk + 200), object(), *range(5)]

    with pytest.raises(BulkSendError, match=str(chunk + 200)) as stopped:
        await queue.send_messages(items)

    error = stopped.value
    assert isinstance(error.__cause__, MessageError)
    assert list(error.confirmed) == list(range(chunk))
    assert error.unknown == ()
    assert error.unsent == tuple(range(chunk, chunk + 201))
    messages = harness.in_order(await drain(queue, chunk), key=lambda m: m.data)
    assert [m.id for m in messages] == list(error.confirmed.values())


async def test_an_iterable_that_fails_does_not_hide_what_is_stored(
    mq: Client, queue: AsyncQueue
) -> None:
    chunk = (await mq.open()).best_batch

    def items(number: int) -> Iterator[int]:
        yield from range(number)
        raise OSError("the file of items broke")

    with pytest.raises(OSError, match="the file of items broke"):
        await queue.send_messages(items(3))
    assert (await queue.get_info()).message_count == 0
    with pytest.raises(BulkSendError, match="OSError") as stopped:
        await queue.send_messages(items(chunk + 3))

    assert isinstance(stopped.value.__cause__, OSError)
    assert list(stopped.value.confirmed) == list(range(chunk))
    assert stopped.value.unsent == (chunk, chunk + 1, chunk + 2)
    assert (await queue.get_info()).message_count == chunk


async def test_concurrent_sends_all_arrive_with_ids_of_their_own(queue: AsyncQueue) -> None:
    ids = await asyncio.gather(*(queue.send_message(n) for n in range(50)))

    messages = await drain(queue, 50)

    assert len(set(ids)) == 50
    assert sorted(m.data for m in messages) == list(range(50))
    assert {m.id for m in messages} == set(ids)


async def test_the_timestamp_tells_when_the_message_was_sent(queue: AsyncQueue) -> None:
    before = time.time()
    await queue.send_message("now")
    after = time.time()

    [message] = await queue.get_messages()

    assert before - 0.1 <= message.timestamp <= after + 0.1


async def test_what_is_sent_before_anybody_receives_is_not_lost(
    mq: Client, harness: Harness
) -> None:
    await mq.queue("early").send_messages(range(3))

    got = [m.data for m in await mq.queue("early").get_messages()]
    assert harness.in_order(got) == [0, 1, 2]


async def test_queues_and_prefixes_keep_their_messages_apart(mq: Client, queue: AsyncQueue) -> None:
    await mq.queue("orders").send_message("orders")
    await mq.queue("orders.eu").send_message("eu")
    await mq.queue("d:orders").send_message("named like a key")

    assert [m.data for m in await mq.queue("orders").get_messages()] == ["orders"]
    assert [m.data for m in await mq.queue("orders.eu").get_messages()] == ["eu"]
    assert [m.data for m in await mq.queue("d:orders").get_messages()] == ["named like a key"]
    assert await queue.dlq.get_messages() == []
