"""User code typed against the queue API: mypy --strict accepts it as it stands."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, assert_type

import msgspec

from leanmq import (
    AsyncBatchingProducer,
    AsyncLeanMQ,
    AsyncQueue,
    BatchingProducer,
    LeanMQ,
    Message,
    Outgoing,
    Queue,
    QueueInfo,
    StoredMessage,
)
from leanmq.backends.protocol import AsyncBackend, Backend, Capabilities
from leanmq.testing import (
    Drained,
    ManualClock,
    assert_sent,
    assert_sent_async,
    drain,
    drain_async,
)


class Order(TypedDict):
    """What a producer and its consumers agree on."""

    id: int
    total: float


def produce(queue: Queue[Order]) -> list[str]:
    """Send one, send many, from a list and from a generator."""
    first = queue.send_message({"id": 1, "total": 12.5})
    assert_type(first, str)

    def more() -> Iterator[Order]:
        yield {"id": 2, "total": 8.0}

    return [
        first,
        *queue.send_messages(more()),
        *queue.send_messages([Outgoing(Order(id=3, total=1.0)), Order(id=4, total=2.0)]),
    ]


def produce_in_the_background(queue: Queue[Order]) -> str:
    """Hand over one, with a future for its id."""
    with queue.batching(linger=timedelta(milliseconds=2), max_batch=100) as producer:
        assert_type(producer, BatchingProducer[Order])
        future = producer.send_message({"id": 1, "total": 12.5}, key="ann")
        assert_type(future, Future[str])
        producer.flush(timeout=timedelta(seconds=5))
    return future.result()


async def produce_in_another_task(queue: AsyncQueue[Order]) -> str:
    """The same for asyncio."""
    async with queue.batching(max_block=0) as producer:
        assert_type(producer, AsyncBatchingProducer[Order])
        future = await producer.send_message(Order(id=1, total=12.5))
        await producer.flush()
    return await future


def consume(queue: Queue[Order]) -> float:
    """Receive and settle in every way."""
    total = 0.0
    for message in queue.get_messages(100, block=True, timeout=timedelta(seconds=5)):
        assert_type(message, Message[Order])
        assert_type(message.data, Order)
        total += message.data["total"]
        assert_type(queue.acknowledge_messages(message), int)
        queue.acknowledge_messages(message.id)
        queue.retry_messages([message, message.id], delay=timedelta(minutes=1))
        queue.release_messages(m for m in [message])
        queue.extend_messages((message,))
        queue.move_to_dlq(message, reason="customer unknown")
    return total


def bury(queue: Queue[Order]) -> dict[str, str | None]:
    """Dead letters are a queue of the same payload."""
    assert_type(queue.dlq, Queue[Order])
    return {message.id: message.error for message in queue.dlq.get_messages()}


def anything(queue: Queue) -> Any:
    """A queue without a type takes whatever JSON can hold."""
    queue.declare()
    queue.send_messages([1, "two", None, {"three": [4]}])
    assert_type(queue.get_info(), QueueInfo)
    [message] = queue.get_messages(1)
    assert_type(message, Message[Any])
    return message.data


def more(queue: Queue[Order]) -> None:
    """The options of a send, one by one and in bulk; looking; working one by one."""
    queue.send_message(
        {"id": 5, "total": 1.0},
        key="customer-7",
        ttl_seconds=60,
        delay=datetime.now(UTC) + timedelta(minutes=1),
        headers={"trace": "abc", "retries": 0},
        message_id="mine",
        dedup_id="order-5",
    )
    queue.send_messages([Order(id=6, total=2.0)], key=lambda order: str(order["id"]))
    for message in queue.consume(count=5, timeout=0.1):
        with queue.processing(message) as order:
            assert_type(order, Order)
    assert_type(queue.peek_messages(ids="5-0"), list[StoredMessage[Order]])
    assert_type(queue.pending_messages(100), list[StoredMessage[Order]])
    queue.delete_messages(["5-0"])
    queue.dlq.requeue_messages("5-0", destination_queue=queue)
    queue.purge()


async def more_async(queue: AsyncQueue[Order]) -> None:
    """The same in the asyncio world."""
    async for message in queue.consume(timeout=0.1):
        async with queue.processing(message) as order:
            assert_type(order, Order)


async def consume_async(queue: AsyncQueue[Order]) -> float:
    """The same in the asyncio world."""
    await queue.send_message({"id": 1, "total": 12.5})
    messages = await queue.get_messages(timeout=0.5)
    assert_type(messages, list[Message[Order]])
    assert_type(await queue.acknowledge_messages(messages), int)
    assert_type(queue.dlq, AsyncQueue[Order])
    return sum(message.data["total"] for message in messages)


async def anything_async(queue: AsyncQueue) -> QueueInfo:
    """Bare, in the asyncio world."""
    await queue.send_message("two")
    await queue.delete(delete_dlq=True)
    return await queue.get_info()


class Shipment(msgspec.Struct):
    """A payload with a class of its own."""

    order: int


def typed(mq: LeanMQ, async_mq: AsyncLeanMQ) -> None:
    """A queue of a class knows what it holds."""
    shipments: Queue[Shipment] = mq.queue("shipments", type=Shipment, slot="shop")
    for message in shipments.get_messages():
        assert_type(message.data, Shipment)
    with mq.transaction() as tx:
        tx.send_message(shipments, Shipment(7))
        tx.send_message("mails", "sent")
        tx.acknowledge(shipments.get_messages())
    assert_type(mq.list_queues(), list[QueueInfo])
    also: AsyncQueue[Shipment] = async_mq.queue("shipments", type=Shipment)
    assert_type(also.dlq, AsyncQueue[Shipment])


def main(url: str) -> float:
    """What a client opens fits every queue that code is typed against."""
    with LeanMQ(url) as mq:
        assert_type(mq.open(), Capabilities)
        orders: Queue[Order] = mq.queue("orders", lease=timedelta(minutes=5), max_deliveries=3)
        produce(orders)
        anything(mq.queue("anything"))
        bury(orders)
        return consume(orders)


async def main_async(url: str) -> float:
    """The same in the asyncio world."""
    async with AsyncLeanMQ(url) as mq:
        orders: AsyncQueue[Order] = mq.queue("orders")
        await anything_async(mq.queue("anything", lease=30))
        return await consume_async(orders)


def on_a_backend(backend: Backend, async_backend: AsyncBackend) -> tuple[LeanMQ, AsyncLeanMQ]:
    """Whoever implements the seam is served by the same clients."""
    return LeanMQ(backend=backend), AsyncLeanMQ(backend=async_backend)


def test_shop(leanmq: LeanMQ, leanmq_clock: ManualClock, orders: Queue[Order]) -> None:
    """A test of one's own application."""

    def ship(order: Order) -> None:
        leanmq.queue("mails").send_message({"about": order["id"]})

    assert_type(assert_sent(orders, {"id": 1}), StoredMessage[Order])
    assert_type(assert_sent(orders, count=2), list[StoredMessage[Order]])
    assert_type(drain(orders, ship, clock=leanmq_clock), Drained)
    leanmq_clock.advance(timedelta(hours=1))


async def test_async_shop(async_leanmq: AsyncLeanMQ, orders: AsyncQueue[Order]) -> None:
    """The same for asyncio; handlers of both kinds."""

    async def ship(order: Order) -> None:
        await async_leanmq.queue("mails").send_message({"about": order["id"]})

    def look(order: Order) -> float:
        return order["total"]

    assert_type(await assert_sent_async(orders), StoredMessage[Order])
    assert_type(await assert_sent_async(orders, count=0), list[StoredMessage[Order]])
    assert_type(await drain_async(orders, ship), Drained)
    assert_type(await drain_async(orders, look), Drained)
