"""Several consumers on one queue, and the same with asyncio."""

from __future__ import annotations

import asyncio
import threading

from leanmq import AsyncLeanMQ, LeanMQ


def test_two_consumers_share_the_work() -> None:
    shares: dict[str, list[int]] = {"left": [], "right": []}

    def consume(name: str) -> None:
        with LeanMQ("memory://shared") as own:
            orders = own.queue("orders")
            while orders.get_info().ready_messages:
                messages = orders.get_messages(count=5)
                shares[name] += [message.data for message in messages]
                orders.acknowledge_messages(messages)

    with LeanMQ("memory://shared") as mq:
        mq.queue("orders").send_messages(range(100))
        consumers = [threading.Thread(target=consume, args=(name,)) for name in shares]
        for consumer in consumers:
            consumer.start()
        for consumer in consumers:
            consumer.join()

    assert sorted(shares["left"] + shares["right"]) == list(range(100))


async def test_asyncio_has_the_same_calls() -> None:
    async with AsyncLeanMQ("memory://") as mq:
        orders = mq.queue("orders")
        waiting = asyncio.create_task(orders.get_messages(block=True, timeout=10))

        await orders.send_message({"id": 7})
        [message] = await waiting

        assert message.data == {"id": 7}
        assert await orders.acknowledge_messages(message) == 1
        assert (await orders.get_info()).message_count == 0
