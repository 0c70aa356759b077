"""What a receive promises: waiting, sharing, order."""

from __future__ import annotations

import asyncio
import time

import pytest

from leanmq import AsyncQueue, ClosedError
from tests.contract.harness import Client, Harness, drain, eventually


async def test_an_empty_queue_gives_nothing_at_once(queue: AsyncQueue, harness: Harness) -> None:
    await queue.declare()
    watch = harness.stopwatch()

    assert await queue.get_messages() == []
    assert await queue.get_messages(block=False, timeout=30) == []

    assert watch.own() < 5


async def test_a_receive_waits_for_its_timeout_and_not_much_longer(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    watch = harness.stopwatch()

    assert await queue.get_messages(timeout=0.3) == []

    assert watch.passed() >= 0.29
    assert watch.own() < 2


@pytest.mark.parametrize("block", [None, True])
async def test_a_waiting_receive_gets_a_message_as_soon_as_it_is_sent(
    queue: AsyncQueue, harness: Harness, block: bool | None
) -> None:
    await queue.declare()
    waiting = asyncio.create_task(queue.get_messages(block=block, timeout=30))
    await until_waiting(queue, waiting)

    watch = harness.stopwatch()
    await harness.client().queue("orders").send_message("at last")

    assert [m.data for m in await waiting] == ["at last"]
    assert watch.own() < 2


async def test_block_without_timeout_waits_until_a_message_comes(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    waiting = asyncio.create_task(queue.get_messages(block=True))
    done, _ = await asyncio.wait([waiting], timeout=1.3)  # longer than a slice
    assert not done

    await harness.client().queue("orders").send_message("at last")

    assert [m.data for m in await asyncio.wait_for(waiting, 5)] == ["at last"]


async def test_several_waiting_receives_get_one_message_each(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    other = harness.client().queue("orders")
    waiting = [
        asyncio.create_task(q.get_messages(1, timeout=20)) for q in (queue, queue, other, other)
    ]

    await harness.client().queue("orders").send_messages(range(4))

    got = [m.data for messages in await asyncio.gather(*waiting) for m in messages]
    assert sorted(got) == [0, 1, 2, 3]


async def test_a_receive_returns_no_more_than_it_was_asked_for(queue: AsyncQueue) -> None:
    await queue.send_messages(range(7))

    assert len(await queue.get_messages(3)) == 3
    assert len(await queue.get_messages(1)) == 1
    assert len(await queue.get_messages(1_000)) == 3


async def test_consumers_share_a_queue_without_overlap(queue: AsyncQueue, harness: Harness) -> None:
    await queue.send_messages(range(200))
    consumers = [harness.client().queue("orders") for _ in range(3)]

    async def consume(consumer: AsyncQueue) -> list[int]:
        got: list[int] = []
        while messages := await consumer.get_messages(7):
            got += [m.data for m in messages]
            assert await consumer.acknowledge_messages(messages) == len(messages)
        return got

    shares = await asyncio.gather(*(consume(c) for c in consumers), consume(consumers[0]))

    assert sorted(n for share in shares for n in share) == list(range(200))


async def test_a_leased_message_is_given_to_nobody_else(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("mine")
    [message] = await queue.get_messages()

    assert await harness.client().queue("orders").get_messages() == []
    assert await queue.get_messages(timeout=0.2) == []
    assert message.lease_until > time.time() + 50


async def test_closing_a_client_ends_its_waiting_receive(harness: Harness) -> None:
    client = harness.client()
    queue = client.queue("orders")
    await queue.declare()
    waiting = asyncio.create_task(queue.get_messages(block=True))
    await until_waiting(queue, waiting)

    await client.close()

    with pytest.raises(ClosedError, match="closed"):
        await asyncio.wait_for(waiting, 5)


async def test_a_closed_client_says_so(harness: Harness) -> None:
    client = harness.client()
    queue = client.queue("orders")
    await queue.send_message(1)
    await client.close()
    await client.close()

    for call in (queue.send_message(2), queue.get_messages(), queue.get_info()):
        with pytest.raises(ClosedError, match="open a new one"):
            await call


async def test_messages_sent_while_others_are_received_are_not_lost(
    mq: Client, queue: AsyncQueue, harness: Harness
) -> None:
    producer = harness.client().queue("orders")

    async def produce() -> None:
        for n in range(100):
            await producer.send_message(n)

    _, messages = await asyncio.gather(produce(), drain(queue, 100, within=30))

    data = [m.data for m in messages]
    assert sorted(data) == list(range(100))
    if (await mq.open()).ordered:
        assert data == list(range(100))


async def test_a_receive_that_waits_costs_little_and_ends_for_a_message_of_its_own_queue_only(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.declare()
    waiting = asyncio.create_task(queue.get_messages(timeout=20))
    await mq.queue("others").send_message("not for you")
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done

    await queue.send_message("for you")

    assert [m.data for m in await waiting] == ["for you"]


async def until_waiting(queue: AsyncQueue, waiting: asyncio.Task[object]) -> None:
    """A receive under way has at least been started; a look at the queue takes longer."""

    async def looked() -> bool:
        await queue.get_info()
        return not waiting.done()

    await eventually(looked, within=5)
