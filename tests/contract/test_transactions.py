"""Transactions: sends and acknowledgements are one step, or nothing happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from leanmq import (
    AsyncQueue,
    ClosedError,
    CrossSlotError,
    CrossSlotTransactionError,
    LeanMQError,
    Message,
    MessageError,
    OutcomeUnknownError,
    QueueFullError,
    QueueSettingsError,
    TransactionError,
)
from leanmq.backends.streams.keys import QueueKeys, queue_keys
from tests.contract.harness import SERVERS, Client, Harness, drain, eventually
from tests.contract.test_lost_replies import call_of
from tests.support.faults import Trap

SLOT = "shop"

on_servers = pytest.mark.on(*SERVERS)
# Messages of one transaction may be in both parts of a split queue, which it says.
in_one_place = pytest.mark.on("memory", "redis", "sentinel", "cluster", "pass-through")
# Nor can the two parts keep one bound.
keeps_bounds = in_one_place


def shop(mq: Client, *names: str, **settings: Any) -> list[AsyncQueue]:
    """Queues that can share a transaction everywhere."""
    return [mq.queue(name, slot=SLOT, **settings) for name in names]


def bounded(mq: Client, name: str = "mails", **settings: Any) -> AsyncQueue:
    """A queue of the slot for one message."""
    return mq.queue(name, **{"slot": SLOT, "max_length": 1} | settings)


async def counts(*queues: AsyncQueue) -> list[int]:
    return [(await queue.get_info()).message_count for queue in queues]


async def one(queue: AsyncQueue, data: Any = "cause") -> Message[Any]:
    """A message that was sent and received."""
    await queue.send_message(data)
    [message] = await queue.get_messages(timeout=5)
    return message


async def in_flight(queue: AsyncQueue) -> list[str]:
    return [m.id for m in await queue.pending_messages()]


async def send(mq: Client, *messages: tuple[AsyncQueue, Any]) -> list[str]:
    """Payloads to queues, in one transaction."""
    async with mq.transaction() as tx:
        for queue, data in messages:
            tx.send_message(queue, data)
    return list(tx.ids)


def keys_of(harness: Harness, name: str) -> QueueKeys:
    return queue_keys(harness.prefix, name, SLOT)


# --- all of it


async def test_messages_of_a_transaction_are_sent_at_the_end_of_its_block(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.declare()

    async with mq.transaction() as tx:
        tx.send_message(orders, {"id": 7})
        tx.send_message(mails, {"to": "me"})
        assert await counts(orders, mails) == [0, 0]
        assert tx.ids == []

    [order], [mail] = await orders.get_messages(), await mails.get_messages()
    assert (order.data, mail.data) == ({"id": 7}, {"to": "me"})
    assert tx.ids == [order.id, mail.id]


async def test_the_ids_stand_in_the_order_of_the_sends_whatever_their_queues(mq: Client) -> None:
    orders, mails, logs = shop(mq, "orders", "mails", "logs")
    tx = mq.transaction()
    queues = [orders, mails, orders, logs, mails, orders]
    for n, queue in enumerate(queues):
        tx.send_message(queue, n)

    ids = await tx.execute()

    assert tx.ids == ids
    found = {
        (queue.name, message.id): message.data
        for queue in (orders, mails, logs)
        for message in await queue.get_messages()
    }
    named = zip(queues, ids, strict=True)
    assert [found[queue.name, message_id] for queue, message_id in named] == list(range(6))


async def test_messages_of_one_queue_stay_in_order(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    async with mq.transaction() as tx:
        for n in range(10):
            tx.send_message(orders if n % 2 else mails, n)

    assert [m.data for m in await orders.get_messages()] == [1, 3, 5, 7, 9]
    assert [m.data for m in await mails.get_messages()] == [0, 2, 4, 6, 8]


async def test_messages_that_are_due_at_once_come_in_the_order_of_sending(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    async with mq.transaction() as tx:
        for n in range(12):
            tx.send_message(orders, n, delay=0.05)

    got: list[int] = []
    while len(got) < 12:
        messages = await orders.get_messages(20, timeout=5)
        assert messages
        got += [m.data for m in messages]
    assert got == list(range(12))


async def test_a_queue_may_be_called_by_its_name(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.declare()
    await mails.declare()

    async with mq.transaction() as tx:
        tx.send_message("orders", 1)
        tx.send_message(mails, 2)

    assert await counts(orders, mails) == [1, 1]
    with pytest.raises(ValueError, match="queue name"):
        mq.transaction().send_message("no{such}name", 1)
    with pytest.raises(TypeError, match="queue of this client or its name"):
        mq.transaction().send_message(7, 1)


async def test_a_message_is_acknowledged_with_what_it_causes(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)

    async with mq.transaction() as tx:
        tx.acknowledge(message)
        tx.send_message(mails, "effect")

    assert await counts(orders, mails) == [0, 1]
    assert await orders.acknowledge_messages(message) == 0
    assert [m.data for m in await mails.get_messages()] == ["effect"]


@in_one_place
async def test_messages_of_several_queues_are_acknowledged_together(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.send_messages(range(5))
    first, *others = await orders.get_messages()
    await orders.retry_messages(first)  # its next delivery is called otherwise
    messages = [*others, *await orders.get_messages(timeout=5), await one(mails)]

    async with mq.transaction() as tx:
        tx.acknowledge(iter(messages))
        tx.acknowledge(messages[0])  # twice is once

    assert tx.ids == []
    assert await counts(orders, mails) == [0, 0]
    assert await orders.get_messages() == []


async def test_a_message_that_was_retried_and_delayed_is_acknowledged_by_its_id_for_life(
    mq: Client,
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.retry_messages(await one(orders), delay=0.05)
    [again] = await orders.get_messages(timeout=5)

    async with mq.transaction() as tx:
        tx.acknowledge(again)
        tx.send_message(mails, "effect")

    assert await counts(orders, mails) == [0, 1]
    assert await orders.peek_messages(ids=again.id) == []


async def test_a_dead_letter_is_acknowledged_with_what_it_causes(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    await orders.move_to_dlq(await one(orders), "why")
    [dead] = await orders.dlq.get_messages()

    async with mq.transaction() as tx:
        tx.acknowledge(dead)
        tx.send_message(orders, "mended")

    assert await counts(orders, orders.dlq) == [1, 0]


async def test_a_message_in_hand_is_not_its_own_dead_letter(mq: Client, harness: Harness) -> None:
    [orders] = shop(mq, "orders", lease=0.2)
    late = await one(orders)
    [other] = shop(harness.client(), "orders")
    [taken] = await other.get_messages(timeout=5)
    await other.move_to_dlq(taken, "why")
    [dead] = await orders.dlq.get_messages()
    assert dead.id == late.id

    tx = mq.transaction()
    tx.acknowledge(late)
    with pytest.raises(TransactionError):
        await tx.execute()

    assert await counts(orders, orders.dlq) == [0, 1]


async def test_dead_letters_can_be_sent_and_acknowledged_as_such(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    async with mq.transaction() as tx:
        tx.send_message(orders.dlq, "dead at once")
    [dead] = await orders.dlq.get_messages()
    assert (dead.data, dead.id) == ("dead at once", tx.ids[0])

    async with mq.transaction() as tx:
        tx.acknowledge(dead)

    assert await counts(orders, orders.dlq) == [0, 0]


async def test_every_option_of_a_send_works_in_a_transaction(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    async with mq.transaction() as tx:
        tx.send_message(
            orders,
            "told",
            key="table 7",
            headers={"trace": ["a", 1]},
            message_id="mine",
            ttl_seconds=timedelta(hours=1),
        )
        tx.send_message(orders, "plain")
        tx.send_message(mails, "later", delay=0.2, headers={"x": None})

    told, plain = await orders.get_messages()
    assert (told.data, told.key, told.message_id) == ("told", "table 7", "mine")
    assert told.headers == {"trace": ["a", 1]}
    assert (plain.data, plain.key, plain.headers) == ("plain", None, {})
    assert (await mails.get_info()).delayed_messages == 1
    [later] = await mails.get_messages(timeout=5)
    assert (later.id, later.data, later.headers) == (tx.ids[2], "later", {"x": None})


async def test_a_time_to_live_runs_in_a_transaction_too(mq: Client) -> None:
    [orders] = shop(mq, "orders")
    async with mq.transaction() as tx:
        tx.send_message(orders, "short", ttl_seconds=0.15)
        tx.send_message(orders, "long", ttl_seconds=60)

    async def only_the_long_one() -> bool:
        return [m.data for m in await orders.peek_messages()] == ["long"]

    await eventually(only_the_long_one, within=5)
    assert [m.data for m in await orders.get_messages()] == ["long"]


async def test_a_transaction_that_is_repeated_with_its_dedup_ids_sends_once(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    ids = []
    for _ in range(2):
        tx = mq.transaction()
        tx.send_message(orders, "once", dedup_id="o-7")
        tx.send_message(mails, "once", dedup_id="m-7")
        ids.append(await tx.execute())

    assert ids[0] == ids[1]
    assert await counts(orders, mails) == [1, 1]


async def test_twins_of_a_transaction_stay_two_when_one_is_sent_to_the_queue_of_the_other(
    mq: Client,
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    async with mq.transaction() as tx:
        tx.send_message(orders, "order", delay=0.05)
        tx.send_message(mails, "mail", delay=60)  # ids are a queue's own: these may be alike
    await orders.move_to_dlq(await orders.get_messages(timeout=5), "why")
    assert await orders.dlq.requeue_messages(await orders.dlq.get_messages(), mails) == 1

    [moved] = await mails.get_messages(timeout=5)
    assert await mails.retry_messages(moved, delay=60) == 1

    assert (await mails.get_info()).delayed_messages == 2
    assert [m.data for m in await mails.peek_messages(ids=tx.ids[1])] == ["mail"]
    assert [m.data for m in await mails.peek_messages(ids=moved.id)] == ["order"]


async def test_a_waiting_consumer_gets_what_a_transaction_sends(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.declare()
    [elsewhere] = shop(harness.client(), "mails")
    waiting = asyncio.create_task(elsewhere.get_messages(timeout=20))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done

    await send(mq, (orders, 1), (mails, 2))

    assert [m.data for m in await asyncio.wait_for(waiting, 1.5)] == [2]


async def test_an_empty_transaction_does_nothing(mq: Client) -> None:
    async with mq.transaction() as tx:
        tx.acknowledge([])

    assert tx.ids == []
    assert await mq.transaction().execute() == []
    assert await mq.list_queues() == []


async def test_a_transaction_takes_a_thousand_and_no_more(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(mails)
    for sends, fits in ((1_000, False), (999, True)):
        tx = mq.transaction()
        tx.acknowledge(message)
        for n in range(sends):
            tx.send_message(orders, n)
        if fits:
            assert len(await tx.execute()) == sends
            assert await counts(orders, mails) == [sends, 0]
        else:
            with pytest.raises(TransactionError, match=r"1,001 .*1,000"):
                await tx.execute()
            assert await counts(orders, mails) == [0, 1]


# --- or nothing


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


@pytest.mark.on("memory", "redis", "sentinel", "pass-through", "split")
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


# --- what changes meanwhile


async def test_settings_that_are_changed_meanwhile_are_followed(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.declare()
    await mails.declare()
    await harness.client().update_queue("mails", max_payload_bytes=10)

    await send(mq, (orders, 1), (mails, "fits"))
    with pytest.raises(MessageError, match="max_payload_bytes is 10"):
        await send(mq, (orders, 1), (mails, "x" * 20))

    assert await counts(orders, mails) == [1, 1]


async def test_a_queue_that_vanished_is_made_again_as_it_was(
    mq: Client, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    orders, mails = shop(mq, "orders", "mails", lease=33)
    await orders.send_message("before")
    await mails.declare()
    await harness._raw("DEL", *keys_of(harness, "mails").all())

    with caplog.at_level(logging.WARNING, "leanmq"):
        await send(mq, (orders, 1), (mails, 2))

    assert await counts(orders, mails) == [2, 1]
    assert (await mails.get_info()).lease == 33
    said = [r.getMessage() for r in caplog.records]
    assert said
    assert all("'mails' had vanished" in words for words in said), said


@keeps_bounds
async def test_a_full_queue_that_blocks_has_a_transaction_wait_for_room(
    mq: Client, harness: Harness
) -> None:
    mails = bounded(mq, overflow="block")
    [orders] = shop(mq, "orders")
    await mails.send_message("there")
    tx = mq.transaction()
    tx.send_message(orders, 1)
    tx.send_message(mails, 2)

    waiting = asyncio.create_task(tx.execute())
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    assert not done
    assert await counts(orders, mails) == [0, 1]
    await drain(mails, 1)

    assert len(await asyncio.wait_for(waiting, 5)) == 2
    assert await counts(orders, mails) == [1, 1]


@keeps_bounds
async def test_a_transaction_waits_for_room_no_longer_than_its_deadline(harness: Harness) -> None:
    mq = harness.client(deadline=0.2)
    mails = bounded(mq, overflow="block")
    [orders] = shop(mq, "orders")
    await mails.send_message("there")

    with pytest.raises(QueueFullError, match="'mails'"):
        await send(mq, (orders, 1), (mails, 2))

    assert await counts(orders, mails) == [0, 1]


# --- what servers do


@pytest.mark.on("redis")
async def test_a_server_without_memory_does_nothing_of_a_transaction(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)
    async with mq.transaction() as tx:
        tx.send_message(mails, "while there is room", dedup_id="old")

    harness.servers.config_set("maxmemory", 1)
    for options in ({}, {"delay": 60}, {"dedup_id": "x"}, {"ttl_seconds": 60}):
        tx = mq.transaction()
        tx.acknowledge(message)
        tx.send_message(mails, "effect", **options)
        tx.send_message(orders, "effect")
        with pytest.raises(QueueFullError, match="maxmemory"):
            await tx.execute()
    assert await counts(orders, mails) == [1, 1]
    assert await in_flight(orders) == [message.id]
    async with mq.transaction() as tx:  # needs no memory
        tx.acknowledge(message)
    assert await counts(orders, mails) == [0, 1]


@on_servers
@pytest.mark.parametrize("fault", ["reply lost", "request lost"])
async def test_a_lost_reply_leaves_all_or_nothing(mq: Client, harness: Harness, fault: str) -> None:
    orders, mails = shop(mq, "orders", "mails")
    message = await one(orders)
    trap = await a_trap(mq, harness, fault)

    tx = mq.transaction()
    tx.acknowledge(message)
    tx.send_message(orders, "effect")
    tx.send_message(mails, "effect", dedup_id="x")
    with pytest.raises(OutcomeUnknownError, match="as a whole, or not") as lost:
        await tx.execute()

    assert trap.wait(5), "the test tested nothing"
    assert not isinstance(lost.value, ConnectionError)
    assert lost.value.__cause__ is not None
    found = await counts(orders, mails)
    assert found == ([1, 1] if fault == "reply lost" else [1, 0])
    assert len(await in_flight(orders)) == (0 if fault == "reply lost" else 1)


@on_servers
@pytest.mark.parametrize("fault", ["reply lost", "request lost"])
async def test_a_transaction_with_dedup_ids_rides_out_a_lost_reply(
    mq: Client, harness: Harness, fault: str
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    trap = await a_trap(mq, harness, fault)

    tx = mq.transaction()
    tx.send_message(orders, 1, dedup_id="o-1")
    tx.send_message(mails, 2, dedup_id="m-1", delay=60)
    tx.send_message(orders, 3, dedup_id="o-3")
    ids = await tx.execute()

    assert trap.wait(5), "the test tested nothing"
    assert await counts(orders, mails) == [2, 1]
    assert [m.id for m in await orders.get_messages()] == [ids[0], ids[2]]
    assert [m.id for m in await mails.peek_messages(ids=ids[1])] == [ids[1]]


@on_servers
async def test_a_doubt_stays_a_doubt_while_the_server_is_away(harness: Harness) -> None:
    mq = harness.client(deadline=0.4)
    shop(mq, "orders", "mails")
    trap = await a_trap(mq, harness, "reply lost")
    refused = harness.servers.cut_next_request(
        keys_of(harness, "orders").live.stream, call_of("transact"), count=100
    )

    tx = mq.transaction()
    tx.send_message("orders", 1, dedup_id="o-1")
    tx.send_message("mails", 2, dedup_id="m-1")
    with pytest.raises(OutcomeUnknownError, match="as a whole, or not"):
        await tx.execute()

    assert trap.wait(5), "the test tested nothing"
    refused.cancel()
    assert await counts(*shop(harness.client(), "orders", "mails")) == [1, 1]


async def a_trap(mq: Client, harness: Harness, fault: str) -> Trap:
    """The next transaction is executed and not answered, or not even executed."""
    tx = mq.transaction()  # loads the script, so that the first match is the call itself
    for queue in shop(mq, "orders", "mails"):
        tx.send_message(queue.dlq, "warm")
    await tx.execute()
    key = keys_of(harness, "orders").live.stream
    if fault == "reply lost":
        return harness.servers.drop_next_reply(key, call_of("transact"))
    return harness.servers.cut_next_request(key, call_of("transact"))


@on_servers
async def test_nobody_ever_sees_half_of_a_transaction(mq: Client, harness: Harness) -> None:
    orders, mails, done = shop(mq, "orders", "mails", "done")
    causes = [await one(orders, n) for n in range(20)]
    await mails.declare()
    await done.declare()
    lengths = "return {" + ",".join(f"redis.call('XLEN',KEYS[{n}])" for n in (1, 2, 3)) + "}"
    streams = [keys_of(harness, name).live.stream for name in ("orders", "mails", "done")]
    seen: set[tuple[int, ...]] = set()
    node = harness.servers.primary_for(streams[0])

    async def work() -> None:
        for cause in causes:
            async with mq.transaction() as tx:
                tx.acknowledge(cause)
                tx.send_message(mails, cause.data)
                tx.send_message(done, cause.data)

    working = asyncio.create_task(work())
    while not working.done():
        ask = harness.servers.ask
        reply = await asyncio.to_thread(ask, node, "EVAL", lengths, 3, *streams)
        seen.add(tuple(map(int, reply)))
    await working

    assert all(left + sent == 20 and sent == told for left, sent, told in seen), seen
    assert len(seen) > 2, "the test saw too little"
