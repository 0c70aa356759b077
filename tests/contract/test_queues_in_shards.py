"""What holds for the messages of one key in a queue in shards, and what cannot hold across shards.

Faults of nodes, placements and fairness are elsewhere.
"""

from __future__ import annotations

from typing import Any

import pytest

from leanmq import AsyncQueue, CrossSlotTransactionError, Message, NotSentError
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import SHARDS, Client, Harness, drain
from tests.contract.shop import counts, shop
from tests.contract.test_batching import ids_of, send_all

in_shards = pytest.mark.on("hash-memory", "hash-redis", "hash-cluster")
balanced = pytest.mark.on("round-memory", "round-redis")

CUSTOMERS = [f"customer {number}" for number in range(12)]


@in_shards
async def test_messages_of_one_key_come_in_the_order_of_sending(mq: Client) -> None:
    queue = mq.queue("orders")
    for number in range(10):
        for customer in CUSTOMERS[:3]:
            await queue.send_message({"number": number}, key=customer)

    messages: list[Message[Any]] = []
    while len(messages) < 30:
        some = await queue.get_messages(7, timeout=5)
        assert some, f"{len(messages)} of 30 messages came"
        await queue.acknowledge_messages(some)
        messages += some

    for customer in CUSTOMERS[:3]:
        assert [m.data["number"] for m in messages if m.key == customer] == list(range(10))


@in_shards
async def test_queues_of_one_slot_share_transactions_key_by_key(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.send_messages(CUSTOMERS, key=lambda customer: customer)

    handled = 0
    while handled < len(CUSTOMERS):
        messages = await orders.get_messages(100, timeout=5)
        assert messages, f"{handled} of {len(CUSTOMERS)} messages came"
        for message in messages:
            async with mq.transaction() as tx:
                tx.send_message(mails, f"to {message.data}", key=message.key)
                tx.acknowledge(message)
        handled += len(messages)

    assert await counts(orders, mails) == [0, len(CUSTOMERS)]
    assert {m.key: m.data for m in await drain(mails, len(CUSTOMERS))} == {
        customer: f"to {customer}" for customer in CUSTOMERS
    }


@in_shards
async def test_a_transaction_over_keys_in_several_places_sends_nothing(
    mq: Client, harness: Harness
) -> None:
    [orders] = shop(mq, "orders")
    assert {shard_of(customer, SHARDS) for customer in CUSTOMERS} == set(range(SHARDS))

    tx = mq.transaction()
    for customer in CUSTOMERS:
        tx.send_message(orders, customer, key=customer)
    with pytest.raises(CrossSlotTransactionError, match="orders#"):
        await tx.execute()

    assert await counts(orders) == [0]


@in_shards
async def test_a_message_and_one_of_another_key_elsewhere_are_not_settled_together(
    mq: Client,
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.send_message("cause", key="customer 0")
    [message] = await orders.get_messages(timeout=5)

    tx = mq.transaction()
    tx.acknowledge(message)
    for customer in CUSTOMERS:
        tx.send_message(mails, customer, key=customer)
    with pytest.raises(CrossSlotTransactionError):
        await tx.execute()

    assert await counts(orders, mails) == [1, 0]
    assert await orders.acknowledge_messages(message) == 1


@in_shards
async def test_dead_letters_go_to_another_queue_of_the_same_slot_and_shards(mq: Client) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await mails.declare()
    await orders.send_message("fails", key="customer 0")
    await orders.move_to_dlq(await orders.get_messages(timeout=5), "broken")
    [letter] = await orders.dlq.get_messages(timeout=5)

    assert await orders.dlq.requeue_messages(letter, mails) == 1

    [message] = await mails.get_messages(timeout=5)
    assert (message.data, message.key) == ("fails", "customer 0")


@in_shards
async def test_a_dedup_id_is_known_to_the_shard_of_its_key(mq: Client) -> None:
    queue = mq.queue("orders")
    here, there = "customer 3", "customer 5"
    assert shard_of(here, SHARDS) != shard_of(there, SHARDS)

    first, again, other = [
        await queue.send_message(key, key=key, dedup_id="7") for key in (here, here, there)
    ]
    keyless = [await queue.send_message("no key", dedup_id="8") for _ in range(3)]

    assert first == again != other
    assert len(set(keyless)) == 1
    assert await counts(queue) == [3]


@balanced
async def test_a_dedup_id_finds_its_target_again(mq: Client) -> None:
    queue = mq.queue("orders")
    ids = [[await queue.send_message(n, dedup_id=str(n)) for n in range(11)] for _ in range(3)]

    assert ids[0] == ids[1] == ids[2]
    assert await counts(queue) == [11]


# --- shards that are gone


HOLDING = ("acknowledge_messages", "retry_messages", "release_messages", "move_to_dlq")


@in_shards
@pytest.mark.parametrize("verb", [*HOLDING, "extend_messages"])
async def test_with_a_shard_that_vanished_only_its_own_messages_are_gone(
    queue: AsyncQueue, harness: Harness, verb: str
) -> None:
    await queue.send_messages(range(40), key=lambda n: CUSTOMERS[n % 12])
    messages: list[Message[Any]] = []
    while len(messages) < 40:
        messages += await queue.get_messages(40, timeout=5)
    gone = [m for m in messages if shard_of(m.key or "", SHARDS) == 2]
    assert 0 < len(gone) < 40
    await harness.wipe("orders", shard=2)

    assert await getattr(queue, verb)([*gone, *messages]) == 40 - len(gone)

    if verb == "extend_messages":
        assert await queue.acknowledge_messages(messages) == 40 - len(gone)
    left = 40 - len(gone) if verb in ("retry_messages", "release_messages") else 0
    assert len(await drain(queue, left)) == left
    assert await queue.get_messages() == []


@in_shards
async def test_dead_letters_of_a_shard_that_vanished_keep_no_others_from_going_back(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(range(40), key=lambda n: CUSTOMERS[n % 12])
    messages: list[Message[Any]] = []
    while len(messages) < 40:
        messages += await queue.get_messages(40, timeout=5)
    assert await queue.move_to_dlq(messages) == 40
    dead = await queue.dlq.peek_messages(40)
    gone = [m for m in dead if shard_of(m.key or "", SHARDS) == 2]
    await harness.wipe("orders", shard=2)

    assert await queue.dlq.requeue_messages(dead) == 40 - len(gone)

    assert len(await drain(queue, 40 - len(gone))) == 40 - len(gone)


@in_shards
@pytest.mark.parametrize(("before", "after"), [(16, 4), (4, 16)])
async def test_a_producer_of_a_queue_that_was_made_again_with_other_shards_says_so(
    harness: Harness, before: int, after: int
) -> None:
    mq = harness.client(backend=harness.router_backend(shards=before))
    queue = mq.queue("orders")
    async with queue.batching() as producer:
        await ids_of(await send_all(producer, CUSTOMERS, key="k"))
        await mq.queue("orders").delete()
        await harness.client(backend=harness.router_backend(shards=after)).queue("orders").declare()

        for customer in CUSTOMERS:
            future = await producer.send_message(customer, key=customer)
            with pytest.raises(NotSentError, match=f"made again with {after} shards"):
                await future

    assert (await queue.get_info()).message_count == 0
    await queue.send_message("goes on", key=CUSTOMERS[0])
    async with queue.batching() as producer:
        await ids_of(await send_all(producer, CUSTOMERS, key=CUSTOMERS[0]))
    assert [m.data for m in await drain(queue, 13)] == ["goes on", *CUSTOMERS]
