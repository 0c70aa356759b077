"""Transactions that cannot be carried out: nothing of them happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from leanmq import (
    ClosedError,
    CrossSlotError,
    CrossSlotTransactionError,
    LeanMQError,
    MessageError,
    QueueFullError,
    QueueSettingsError,
    TransactionError,
)
from tests.contract.harness import Client, Harness
from tests.contract.shop import (
    bounded,
    counts,
    in_flight,
    in_one_place,
    keeps_bounds,
    keys_of,
    one,
    send,
    shop,
)


async def test_a_block_that_raises_sends_and_acknowledges_nothing(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)

    tx = mq.transaction()

    async def fails() -> None:
        async with tx:
            tx.acknowledge(message)
            tx.send_message(mails, 1)
            raise OSError("of the work itself")

    with pytest.raises(OSError, match="of the work itself"):
        await fails()

    assert tx.ids == []
    assert await counts(orders, mails) == [1, 0]
    assert await in_flight(orders) == [message.id]
    with pytest.raises(TransactionError, match="over"):
        await tx.execute()


@pytest.mark.on(worlds=("asyncio",))
async def test_a_cancelled_block_sends_nothing(mq: Client) -> None:
    [mails] = shop(mq, "mails")
    begun = asyncio.Event()

    async def work() -> None:
        async with mq.transaction() as tx:
            tx.send_message(mails, 1)
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await counts(mails) == [0]


async def test_what_cannot_be_sent_is_said_at_once(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    with pytest.raises(MessageError, match="not JSON") as refused:
        await send(mq, (orders, 1), (orders, object()))
    assert refused.value.queue == "orders"
    with pytest.raises(MessageError, match="negative"):
        mq.transaction().send_message(orders, 1, delay=-1)

    assert await counts(orders) == [0]


async def test_a_payload_too_large_for_its_queue_sends_nothing(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    [small] = shop(mq, "small", max_payload_bytes=10)

    with pytest.raises(MessageError, match=r"'small'.*max_payload_bytes is 10"):
        await send(mq, (orders, 1), (small, "x" * 20))

    assert await counts(orders, small) == [0, 0]


@keeps_bounds
@pytest.mark.parametrize("full_one_first", [True, False])
async def test_one_full_queue_is_enough_to_send_nothing_anywhere(
    mq: Client, full_one_first: bool
) -> None:
    mails = bounded(mq, max_length=2)
    orders, logs = shop(mq, "orders", "logs")
    await mails.send_message("there")
    message = await one(orders)

    tx = mq.transaction()
    tx.acknowledge(message)
    for queue in [mails, logs] if full_one_first else [logs, mails]:
        tx.send_message(queue, 1)
        tx.send_message(queue, 2, delay=60)
    with pytest.raises(QueueFullError, match=r"'mails' is full.*room for 1 .*not 2") as full:
        await tx.execute()

    assert full.value.queue == "mails"
    assert await counts(orders, mails, logs) == [1, 1, 0]
    assert await in_flight(orders) == [message.id]
    assert await orders.acknowledge_messages(message) == 1


@keeps_bounds
async def test_a_transaction_fills_a_queue_to_its_bound(mq: Client) -> None:
    mails = bounded(mq, max_length=3)
    async with mq.transaction() as tx:
        tx.send_message(mails, 1)
        tx.send_message(mails, 2, delay=60)
        tx.send_message(mails, 3, dedup_id="a")
        tx.send_message(mails, "again", dedup_id="a")

    assert tx.ids[2] == tx.ids[3]
    assert await counts(mails) == [3]
    with pytest.raises(QueueFullError):
        await send(mq, (mails, 4))


@keeps_bounds
async def test_what_is_acknowledged_makes_room_in_its_own_queue(mq: Client) -> None:
    mails = bounded(mq)
    message = await one(mails)

    async with mq.transaction() as tx:
        tx.send_message(mails, "next step")
        tx.acknowledge(message)

    assert [m.data for m in await mails.get_messages()] == ["next step"]
    assert await counts(mails) == [1]


@in_one_place
@pytest.mark.parametrize("kind", ["stream", "due", "payloads", "meta", "dedup", "known"])
async def test_a_key_of_a_wrong_type_sends_nothing_anywhere(
    mq: Client, harness: Harness, kind: str
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)
    await mails.declare()
    broken = getattr(keys_of(harness, "mails").live, kind)
    await harness._raw("DEL", broken)
    await harness._raw("SET", broken, "something else")

    tx = mq.transaction()
    tx.acknowledge(message)
    tx.send_message(orders, 1)
    tx.send_message(mails, 2, delay=60, dedup_id="d", ttl_seconds=600)
    tx.send_message(mails, 3)
    with pytest.raises(LeanMQError, match="WRONGTYPE"):
        await tx.execute()

    assert await counts(orders) == [1]
    assert await in_flight(orders) == [message.id]
    await harness._raw("DEL", broken)


@in_one_place
async def test_a_broken_queue_of_a_message_to_acknowledge_sends_nothing(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.retry_messages(await one(orders))
    [message] = await orders.get_messages(timeout=5)
    broken = keys_of(harness, "orders").live.ids
    await harness._raw("DEL", broken)
    await harness._raw("SET", broken, "something else")

    tx = mq.transaction()
    tx.acknowledge(message)
    tx.send_message(mails, 1)
    with pytest.raises(LeanMQError, match="WRONGTYPE") as refused:
        await tx.execute()

    assert refused.value.queue == "orders"
    assert await counts(mails) == [0]
    await harness._raw("DEL", broken)


async def test_a_message_that_was_taken_over_is_not_acknowledged_and_nothing_is_sent(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails", lease=0.2)
    message = await one(orders)
    [other] = shop(harness.client(), "orders")
    [taken] = await other.get_messages(timeout=5)
    assert taken.id == message.id

    tx = mq.transaction()
    tx.send_message(mails, "effect")
    tx.acknowledge(message)
    with pytest.raises(TransactionError, match="not leased to this client any more") as lost:
        await tx.execute()

    assert lost.value.message_id == message.id
    assert await counts(orders, mails) == [1, 0]
    assert await other.acknowledge_messages(taken) == 1


@in_one_place
async def test_one_lost_message_leaves_the_receipts_of_the_others_good(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.send_messages(["kept", "deleted"])
    kept, deleted = await orders.get_messages()
    [stranger] = shop(harness.client(), "orders")
    assert await stranger.delete_messages(deleted.id) == 1

    tx = mq.transaction()
    tx.acknowledge([kept, deleted])
    tx.send_message(mails, "effect")
    with pytest.raises(TransactionError, match="not leased") as lost:
        await tx.execute()

    assert lost.value.message_id == deleted.id
    assert await counts(orders, mails) == [1, 0]
    assert await in_flight(orders) == [kept.id]
    async with mq.transaction() as tx:
        tx.acknowledge(kept)
        tx.send_message(mails, "effect")
    assert await counts(orders, mails) == [0, 1]


@pytest.mark.parametrize("settled_by", ["acknowledge", "release", "retry", "transaction"])
async def test_a_message_that_was_settled_meanwhile_sends_nothing(
    mq: Client, settled_by: str
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)
    tx = mq.transaction()
    tx.acknowledge(message)
    tx.send_message(mails, "effect")
    if settled_by == "acknowledge":
        await orders.acknowledge_messages(message)
    elif settled_by == "release":
        await orders.release_messages(message)
    elif settled_by == "retry":
        await orders.retry_messages(message, delay=60)
    else:
        async with mq.transaction() as other:
            other.acknowledge(message)

    with pytest.raises(TransactionError, match=r"not held by this client.*nothing was carried out"):
        await tx.execute()

    assert await counts(mails) == [0]
    assert await counts(orders) == [1 if settled_by in ("release", "retry") else 0]


async def test_a_message_that_somebody_else_holds_sends_nothing(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)
    stranger = harness.client()
    tx = stranger.transaction()
    tx.acknowledge(message)
    tx.send_message("mails", 1)
    with pytest.raises(TransactionError, match="not held by this client") as refused:
        await tx.execute()

    assert (refused.value.queue, refused.value.message_id) == ("orders", message.id)
    assert await counts(orders, mails) == [1, 0]


async def test_only_received_messages_are_acknowledged(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    sent = await orders.send_message(1)

    with pytest.raises(TypeError, match="an id does not tell its queue"):
        mq.transaction().acknowledge([sent])
    [seen] = await orders.peek_messages()
    tx = mq.transaction()
    tx.acknowledge(seen)
    with pytest.raises(TransactionError, match="not held"):
        await tx.execute()

    assert await counts(orders) == [1]


async def test_a_deleted_queue_is_not_made_again_for_an_acknowledgement(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)
    await mails.declare()
    assert await harness.client().queue("orders").delete()

    tx = mq.transaction()
    tx.acknowledge(message)
    tx.send_message(mails, "effect")
    with pytest.raises(TransactionError, match=r"'orders' does not exist any more"):
        await tx.execute()

    assert [info.name for info in await mq.list_queues() if not info.is_dlq] == ["mails"]
    assert await counts(mails) == [0]


async def test_a_transaction_is_carried_out_once(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    tx = mq.transaction()
    tx.send_message(orders, 1)
    ids = await tx.execute()

    calls: list[Callable[[], Any]] = [
        lambda: tx.send_message(orders, 2),
        lambda: tx.acknowledge([]),
    ]
    for call in calls:
        with pytest.raises(TransactionError, match="over; begin another one"):
            call()
    with pytest.raises(TransactionError, match="over; begin another one"):
        await tx.execute()

    assert tx.ids == ids
    assert await counts(orders) == [1]


async def test_a_block_may_execute_its_transaction_itself(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    async with mq.transaction() as tx:
        tx.send_message(orders, 1)
        ids = await tx.execute()

    assert tx.ids == ids
    assert await counts(orders) == [1]


async def test_a_closed_client_carries_out_nothing(harness: Harness, mq: Client) -> None:
    closing = harness.client()
    [orders] = shop(closing, "orders")
    tx = closing.transaction()
    tx.send_message(orders, 1)
    await closing.close()

    with pytest.raises(ClosedError):
        await tx.execute()
    with pytest.raises(ClosedError):
        closing.transaction()

    assert await counts(*shop(mq, "orders")) == [0]


# --- slots and clients


@pytest.mark.on("cluster", "memory")
async def test_queues_of_different_slots_are_refused_before_anything_is_sent(
    harness: Harness,
) -> None:
    strict = {"url": f"{harness.url}?slots=strict"} if harness.subject == "memory" else {}
    mq = harness.client(**strict)
    assert not (await mq.open()).transactions_across_queues
    orders, mails = mq.queue("orders"), mq.queue("mails")
    message = await one(orders)

    tx = mq.transaction()
    tx.send_message(orders, 1)
    tx.send_message(mails, 2)
    with pytest.raises(CrossSlotTransactionError) as apart:
        await tx.execute()
    consume_and_produce = mq.transaction()
    consume_and_produce.acknowledge(message)
    consume_and_produce.send_message(mails, 2)
    with pytest.raises(CrossSlotTransactionError, match=r"'mails'.*'orders'"):
        await consume_and_produce.execute()

    assert isinstance(apart.value, TransactionError)
    assert isinstance(apart.value, CrossSlotError)
    for word in ("'orders'", "'mails'", "different slots", "slot="):
        assert word in str(apart.value)
    assert await counts(orders, mails) == [1, 0]
    assert await orders.acknowledge_messages(message) == 1
    async with mq.transaction() as tx:
        tx.send_message(orders, "one queue is one slot")


@pytest.mark.on("memory", "redis", "sentinel", "pass-through", "round-memory", "round-redis")
async def test_queues_of_any_slot_share_a_transaction_where_that_can_be(mq: Client) -> None:
    orders, mails = mq.queue("orders"), mq.queue("mails")
    await send(mq, (orders, 1), (mails, 2))

    assert await counts(orders, mails) == [1, 1]


async def test_a_queue_of_another_client_is_refused(mq: Client, harness: Harness) -> None:
    [orders] = shop(mq, "orders")
    [elsewhere] = shop(harness.client(), "mails")

    with pytest.raises(CrossSlotTransactionError, match=r"'mails' was opened by another client"):
        await send(mq, (orders, 1), (elsewhere, 2))

    assert await counts(orders, elsewhere) == [0, 0]


async def test_settings_that_are_not_the_stored_ones_are_refused_here_too(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails", lease=30)
    await mails.declare()
    [wrong] = shop(mq, "mails", lease=40)

    with pytest.raises(QueueSettingsError, match="lease=30"):
        await send(mq, (orders, 1), (mails, 2), (wrong, 3))

    assert await counts(orders, mails) == [0, 0]
