"""Transactions while settings, queues and servers change: all of them, or nothing."""

from __future__ import annotations

import asyncio
import logging

import pytest

from leanmq import (
    MessageError,
    OutcomeUnknownError,
    QueueFullError,
)
from tests.contract.harness import Client, Harness, drain
from tests.contract.shop import (
    SLOT,
    bounded,
    counts,
    in_flight,
    keeps_bounds,
    keys_of,
    on_servers,
    one,
    send,
    shop,
)
from tests.contract.test_lost_replies import call_of
from tests.support.faults import Trap

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
    for keys in harness.stored("mails", SLOT):
        await harness._raw("DEL", *keys.all())

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

    looked = asyncio.Event()

    async def work() -> None:
        for number, cause in enumerate(causes):
            async with mq.transaction() as tx:
                tx.acknowledge(cause)
                tx.send_message(mails, cause.data)
                tx.send_message(done, cause.data)
            for _ in range(2 if number % 5 == 4 else 0):  # the second look has begun since then
                looked.clear()
                await looked.wait()

    working = asyncio.create_task(work())
    while not working.done():
        ask = harness.servers.ask
        reply = await asyncio.to_thread(ask, node, "EVAL", lengths, 3, *streams)
        seen.add(tuple(map(int, reply)))
        looked.set()
    await working

    assert all(left + sent == 20 and sent == told for left, sent, told in seen), seen
    assert len(seen) > 2, "the test saw too little"
