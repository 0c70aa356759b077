"""Keys that somebody else changed: what is refused is refused whole, and nothing is lost."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq import AsyncQueue, LeanMQError, Outgoing
from tests.contract.harness import Client, Harness, eventually
from tests.contract.shop import counts, in_flight, in_one_place, keys_of, one, shop

pytestmark = in_one_place


async def damage(harness: Harness, key: str) -> None:
    """Put something else in the place of a key."""
    await harness._raw("DEL", key)
    await harness._raw("SET", key, "something else")


async def mend(harness: Harness, key: str) -> None:
    """Take it away; who writes there next makes the key anew."""
    await harness._raw("DEL", key)


@pytest.mark.parametrize("kind", ["dead", "dead_ids", "ids", "due", "payloads"])
@pytest.mark.parametrize("verb", ["retry", "later", "last", "dead"])
async def test_what_cannot_be_moved_stays_where_it_is(
    mq: Client, harness: Harness, kind: str, verb: str
) -> None:
    [orders] = shop(mq, "orders", max_deliveries=1 if verb == "last" else 10)
    message = await one(orders)
    broken = getattr(keys_of(harness, "orders").live, kind)
    await damage(harness, broken)

    with pytest.raises(LeanMQError, match="WRONGTYPE") as refused:
        await _settle(orders, message, verb)

    assert (refused.value.queue, refused.value.in_doubt) == ("orders", False)
    assert await in_flight(orders) == [message.id]
    await mend(harness, broken)
    assert await _settle(orders, message, verb) == 1
    assert await in_flight(orders) == []


async def _settle(orders: AsyncQueue, message: Any, verb: str) -> int:
    if verb == "dead":
        return await orders.move_to_dlq(message, "why")
    return await orders.retry_messages(message, delay=60 if verb == "later" else 0)


@pytest.mark.parametrize("kind", ["due", "payloads", "dedup", "known"])
async def test_of_messages_that_cannot_all_be_stored_none_is(
    mq: Client, harness: Harness, kind: str
) -> None:
    [orders] = shop(mq, "orders")
    await orders.declare()
    broken = getattr(keys_of(harness, "orders").live, kind)
    await damage(harness, broken)

    with pytest.raises(LeanMQError, match="WRONGTYPE") as refused:
        await orders.send_messages(
            [Outgoing(1), Outgoing(2, key="k"), Outgoing(3, delay=60), Outgoing(4, dedup_id="d")]
        )

    assert not refused.value.in_doubt
    await mend(harness, broken)
    assert await counts(orders) == [0]


@pytest.mark.parametrize("kind", ["stream", "ids", "payloads", "dead", "dead_ids"])
async def test_a_dead_letter_that_cannot_go_to_a_queue_stays_dead(
    mq: Client, harness: Harness, kind: str
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await orders.move_to_dlq(await one(orders), "why")
    [letter] = await orders.dlq.get_messages()
    await mails.declare()
    broken = getattr(keys_of(harness, "mails").live, kind)
    await damage(harness, broken)

    with pytest.raises(LeanMQError, match="WRONGTYPE"):
        await orders.dlq.requeue_messages(letter, destination_queue="mails")

    assert await counts(orders.dlq) == [1]
    assert await in_flight(orders.dlq) == [letter.id]
    await mend(harness, broken)


@pytest.mark.parametrize("kind", ["dead", "dead_ids", "ids"])
async def test_a_message_that_cannot_be_buried_keeps_its_place(
    mq: Client, harness: Harness, kind: str
) -> None:
    [orders] = shop(mq, "orders", lease=0.2, max_deliveries=1)
    await orders.send_messages([1, 2])
    assert len(await orders.get_messages(2)) == 2
    broken = getattr(keys_of(harness, "orders").live, kind)
    await damage(harness, broken)

    async def refused() -> bool:
        try:
            await orders.get_messages(timeout=0.1)
        except LeanMQError as error:
            return "WRONGTYPE" in str(error)
        return False

    await eventually(refused, within=10, what="a look at what nobody settled")

    assert await counts(orders) == [2]
    await mend(harness, broken)
    assert await orders.get_messages() == []
    assert [letter.data for letter in await orders.dlq.get_messages()] == [1, 2]


@pytest.mark.parametrize("kind", ["ids", "payloads"])
async def test_a_delayed_message_that_cannot_be_handed_out_stays_delayed(
    mq: Client, harness: Harness, kind: str
) -> None:
    [orders] = shop(mq, "orders")
    await orders.send_message("later", delay=0.05)
    await harness.pass_time(0.1)
    broken = getattr(keys_of(harness, "orders").live, kind)
    aside = f"{broken}-aside"
    await harness._raw("RENAME", broken, aside)
    await harness._raw("SET", broken, "something else")

    with pytest.raises(LeanMQError, match="WRONGTYPE"):
        await orders.get_messages()

    await harness._raw("RENAME", aside, broken)
    [message] = await orders.get_messages(timeout=5)
    assert message.data == "later"


@pytest.mark.parametrize("verb", ["extend", "release"])
async def test_what_was_trimmed_away_is_held_no_more(
    mq: Client, harness: Harness, verb: str
) -> None:
    [orders] = shop(mq, "orders")
    await orders.send_messages([1, 2])
    held = await orders.get_messages(2)
    await harness._raw("XTRIM", keys_of(harness, "orders").live.stream, "MAXLEN", 1)

    settle = orders.extend_messages if verb == "extend" else orders.release_messages

    assert await settle(held) == 1
    assert await counts(orders) == [1]


@pytest.mark.parametrize("name", ["aaa", "zzz"])
async def test_a_group_of_somebody_else_changes_nothing(
    mq: Client, harness: Harness, name: str
) -> None:
    """A tool that watches streams may make a group of its own."""
    [orders] = shop(mq, "orders")
    await orders.send_messages(range(4))
    await harness._raw("XGROUP", "CREATE", keys_of(harness, "orders").live.stream, name, "0")

    taken = await orders.get_messages(2)

    assert [m.data for m in await orders.peek_messages(10)] == [2, 3]
    info = await orders.get_info()
    assert (info.ready_messages, info.pending_messages) == (2, 2)
    assert await orders.acknowledge_messages(taken) == 2
    assert [m.data for m in await orders.get_messages()] == [2, 3]


async def test_a_dead_letter_with_a_time_to_live_has_it_in_another_queue_too(
    mq: Client, harness: Harness
) -> None:
    orders, mails = shop(mq, "orders", "mails")
    await mails.declare()
    await orders.dlq.send_message("mortal", ttl_seconds=2)  # time enough to send it back
    [letter] = await orders.dlq.get_messages()
    assert await orders.dlq.requeue_messages(letter, destination_queue="mails") == 1

    await harness.pass_time(2.1)

    assert await mails.get_messages() == []
    assert await counts(mails) == [0]
