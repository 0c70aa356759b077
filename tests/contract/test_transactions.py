"""Transactions: sends and acknowledgements are one step."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from leanmq import (
    TransactionError,
)
from tests.contract.harness import Client, Harness, eventually
from tests.contract.shop import counts, in_one_place, one, send, shop


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
        tx.send_message(mails, "later", delay=1.0, headers={"x": None})

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


@pytest.mark.parametrize("key", ["7", None])
async def test_a_transaction_that_is_repeated_with_its_dedup_ids_sends_once(
    mq: Client, harness: Harness, key: str | None
) -> None:
    # Of routers, a dedup id alone is as a key, and these two may be of different nodes.
    key = "7" if harness.router else key
    orders, mails = shop(mq, "orders", "mails")
    ids = []
    for _ in range(2):
        tx = mq.transaction()
        tx.send_message(orders, "once", key=key, dedup_id="o-7")
        tx.send_message(mails, "once", key=key, dedup_id="m-7")
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
