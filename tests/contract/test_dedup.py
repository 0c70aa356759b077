"""A dedup_id: whatever is sent with it twice, within the window, is stored once."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanmq import AsyncQueue, BulkSendError, OutcomeUnknownError, Outgoing
from leanmq.backends.streams.keys import queue_keys
from leanmq.backends.streams.scripts import script
from tests.contract.harness import IN_MEMORY, IN_ORDER, SERVERS, Client, Harness, drain
from tests.support.faults import Trap

on_servers = pytest.mark.on(*SERVERS)
in_memory = pytest.mark.on(*IN_MEMORY)

TEXTS = [
    "a", "A", "~", "~~", " ", "  ", "\n", "\r\n", "a\n", "{a}", "{", "}", "*", "0", "1-1", "d1",
    "+inf", "-inf", "@u", "b", "žluťoučký kůň", "☃", "🐎", "e\u0301", "é", "\x00", "a\x00", "%s",
    '"', "'", "\\", "x" * 1_024, "x" * 1_023, "é" * 512,
]  # fmt: skip


async def count(queue: AsyncQueue) -> int:
    return (await queue.get_info()).message_count


# --- the same id twice


async def test_a_second_send_stores_nothing_and_returns_the_first_ones_id(
    queue: AsyncQueue,
) -> None:
    first = await queue.send_message("first", dedup_id="order 7", key="k")
    second = await queue.send_message("second", dedup_id="order 7", key="k")
    other = await queue.send_message("other", dedup_id="order 8")

    assert first == second != other
    messages = await drain(queue, 2)
    assert {(m.id, m.data) for m in messages} == {(first, "first"), (other, "other")}
    assert await count(queue) == 0


@pytest.mark.on(*IN_ORDER)  # elsewhere a dedup id counts in the shard, or target, of the key
async def test_a_dedup_id_counts_for_the_whole_queue_whatever_the_key(queue: AsyncQueue) -> None:
    first = await queue.send_message("first", dedup_id="order 7", key="k")

    assert await queue.send_message("second", dedup_id="order 7") == first
    assert await queue.send_message("third", dedup_id="order 7", key="other") == first
    assert await count(queue) == 1


async def test_a_second_bulk_send_stores_only_what_is_new(queue: AsyncQueue) -> None:
    first = await queue.send_messages(Outgoing(n, dedup_id=str(n)) for n in range(600))
    again = await queue.send_messages(Outgoing(-n, dedup_id=str(n)) for n in range(300, 900))

    assert again[:300] == first[300:]
    messages = await drain(queue, 900)
    assert sorted(m.data for m in messages) == [*range(-899, -599), *range(600)]
    assert len({*first, *again}) == 900
    assert await count(queue) == 0


async def test_an_id_twice_in_one_bulk_send_is_stored_once(queue: AsyncQueue) -> None:
    ids = await queue.send_messages(
        [Outgoing(1, dedup_id="a"), 2, Outgoing(3, dedup_id="a"), Outgoing(4, dedup_id="b")]
    )

    assert ids[0] == ids[2]
    assert len(set(ids)) == 3
    assert sorted(m.data for m in await drain(queue, 3)) == [1, 2, 4]


@pytest.mark.parametrize("delay", [(60, None), (None, 60), (60, 60)], ids=str)
async def test_a_delayed_message_counts_as_sent(
    queue: AsyncQueue, delay: tuple[float | None, float | None]
) -> None:
    first = await queue.send_message("first", delay=delay[0], dedup_id="a")
    second = await queue.send_message("second", delay=delay[1], dedup_id="a")

    assert first == second
    info = await queue.get_info()
    assert (info.message_count, info.delayed_messages) == (1, 1 if delay[0] else 0)


async def test_what_was_acknowledged_is_not_sent_again(queue: AsyncQueue) -> None:
    sent = await queue.send_message("once", dedup_id="a")
    await drain(queue, 1)

    assert await queue.send_message("once", dedup_id="a") == sent
    assert await count(queue) == 0


async def test_what_is_dead_or_retried_is_not_sent_again(queue: AsyncQueue) -> None:
    ids = [await queue.send_message(n, dedup_id=str(n)) for n in range(3)]
    messages = {m.data: m for m in await queue.get_messages()}
    await queue.move_to_dlq(messages[0])
    await queue.retry_messages(messages[1])
    await queue.retry_messages(messages[2], delay=60)

    assert [await queue.send_message("x", dedup_id=str(n)) for n in range(3)] == ids
    assert await count(queue) == 2
    assert await count(queue.dlq) == 1


async def test_two_clients_share_what_is_remembered(queue: AsyncQueue, harness: Harness) -> None:
    other = harness.client().queue("orders")

    sent = await queue.send_message("first", dedup_id="a")

    assert await other.send_message("second", dedup_id="a") == sent
    assert await count(queue) == 1


async def test_of_senders_at_once_one_stores(harness: Harness) -> None:
    queues = [harness.client().queue("orders") for _ in range(8)]
    for ids in (["a"] * 8, ["b", "c"] * 4):
        sent = await asyncio.gather(
            *(q.send_message("x", dedup_id=i) for q, i in zip(queues, ids, strict=True))
        )
        assert len(set(sent)) == len(set(ids))
        assert len(set(zip(ids, sent, strict=True))) == len(set(ids))

    assert await count(queues[0]) == 3


async def test_bulk_senders_at_once_store_each_item_once(harness: Harness) -> None:
    queues = [harness.client().queue("orders") for _ in range(4)]
    items = [Outgoing(n, dedup_id=str(n)) for n in range(700)]

    sent = await asyncio.gather(*(queue.send_messages(items) for queue in queues))

    assert all(ids == sent[0] for ids in sent)
    assert await count(queues[0]) == 700


async def test_queues_do_not_share_what_is_remembered(mq: Client, queue: AsyncQueue) -> None:
    for other in (queue, mq.queue("mails"), mq.queue("orders2", slot="orders"), queue.dlq):
        await other.send_message("x", dedup_id="a")
        assert await count(other) == 1


async def test_any_text_is_an_id_and_no_two_are_confused(queue: AsyncQueue) -> None:
    first = await queue.send_messages(Outgoing(text, dedup_id=text) for text in TEXTS)
    again = [await queue.send_message("again", dedup_id=text) for text in TEXTS]

    assert first == again
    assert all(first)
    assert await count(queue) == len(TEXTS)
    assert sorted(m.data for m in await drain(queue, len(TEXTS))) == sorted(TEXTS)
    assert await count(queue) == 0


# --- the window


async def test_after_the_window_it_is_stored_again(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", dedup_window=0.3)
    first = await queue.send_message("first", dedup_id="a")
    await harness.pass_time(0.35)
    second = await queue.send_message("second", dedup_id="a")

    assert first != second
    assert {m.data for m in await drain(queue, 2)} == {"first", "second"}


@in_memory
async def test_the_window_begins_with_the_send_that_stored(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", dedup_window=10)
    first = await queue.send_message("first", dedup_id="a")
    harness.advance(6)
    assert await queue.send_message("second", dedup_id="a") == first
    harness.advance(6)

    assert await queue.send_message("third", dedup_id="a") != first
    assert await count(queue) == 2


@in_memory
async def test_the_window_is_an_hour_unless_told(queue: AsyncQueue, harness: Harness) -> None:
    first = await queue.send_message("first", dedup_id="a")
    harness.advance(3_590)
    assert await queue.send_message("second", dedup_id="a") == first
    harness.advance(20)

    assert await queue.send_message("third", dedup_id="a") != first


async def test_ids_after_their_window_take_no_room(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", dedup_window=0.3)
    await queue.send_messages(Outgoing(n, dedup_id=str(n)) for n in range(700))
    await harness.pass_time(0.35)
    new = 8 * len(harness.stored("orders"))  # a shard forgets when it is sent to
    await queue.send_messages([Outgoing(n, dedup_id=f"new {n}") for n in range(new)])

    assert await harness.dedup_ids() <= new


# --- lost replies


def trap(harness: Harness, executed: bool, name: str = "orders") -> Trap:
    """The next send is executed and its answer lost, or the request itself is."""
    key = queue_keys(harness.prefix, name, name).live.stream
    sha = script("send").sha.encode()
    if executed:
        return harness.servers.drop_next_reply(key, sha)
    return harness.servers.cut_next_request(key, sha)


either = pytest.mark.parametrize("executed", [True, False], ids=["stored", "not-stored"])


@on_servers
@either
@pytest.mark.parametrize("delay", [None, 60], ids=["now", "delayed"])
async def test_a_send_in_doubt_is_repeated_and_stored_once(
    queue: AsyncQueue, harness: Harness, executed: bool, delay: float | None
) -> None:
    await queue.send_message("warm", dedup_id="warm")
    caught = trap(harness, executed)

    sent = await queue.send_message("once", dedup_id="a", delay=delay)

    assert caught.wait(10)
    assert await count(queue) == 2
    assert [m.data for m in await queue.peek_messages(ids=sent)] == ["once"]
    assert await queue.send_message("twice", dedup_id="a") == sent


@on_servers
@either
async def test_a_bulk_send_in_doubt_is_repeated_and_stored_once_and_in_order(
    queue: AsyncQueue, harness: Harness, executed: bool
) -> None:
    await queue.send_message("warm")
    await drain(queue, 1)
    traps: list[Trap] = []

    def items() -> Iterator[Outgoing[int]]:
        for n in range(1_200):
            if n == 600:
                traps.append(trap(harness, executed))
            yield Outgoing(n, dedup_id=f"item {n}")

    ids = await queue.send_messages(items())

    assert traps[0].wait(10)
    messages = await drain(queue, 1_200)
    assert [m.id for m in messages] == ids
    assert [m.data for m in messages] == list(range(1_200))
    assert await count(queue) == 0


@on_servers
@either
async def test_of_a_bulk_send_in_doubt_those_without_an_id_stay_unknown(
    queue: AsyncQueue, harness: Harness, executed: bool
) -> None:
    await queue.send_message("warm")
    await drain(queue, 1)
    traps: list[Trap] = []

    def items() -> Iterator[Any]:
        for n in range(1_200):
            if n == 600:
                traps.append(trap(harness, executed))
            yield Outgoing(n, dedup_id=f"item {n}") if n % 3 == 0 else n

    with pytest.raises(BulkSendError, match="bulk send stopped") as stopped:
        await queue.send_messages(items())

    error = stopped.value
    assert traps[0].wait(10)
    assert isinstance(error.__cause__, OutcomeUnknownError)
    certain = [*range(500), *(n for n in range(500, 1_000) if n % 3 == 0)]
    assert sorted(error.confirmed) == certain
    assert error.unknown == tuple(n for n in range(500, 1_000) if n % 3)
    assert error.unsent == ()
    messages = await drain(queue, 1_000 if executed else len(certain))
    assert sorted(m.data for m in messages) == (list(range(1_000)) if executed else certain)
    assert {m.data: m.id for m in messages if m.data in error.confirmed} == error.confirmed
    assert await count(queue) == 0


ONCE = Outgoing("once", dedup_id="a")


async def alone(_: Client, queue: AsyncQueue) -> None:
    await queue.send_message(ONCE.data, dedup_id=ONCE.dedup_id)


async def in_bulk(_: Client, queue: AsyncQueue) -> None:
    await queue.send_messages([ONCE])


async def in_a_transaction(mq: Client, queue: AsyncQueue) -> None:
    async with mq.transaction() as tx:
        tx.send_message(queue, ONCE.data, dedup_id=ONCE.dedup_id)


async def in_the_background(_: Client, queue: AsyncQueue) -> None:
    async with queue.batching(dedup=False) as producer:
        future = await producer.send_message(ONCE.data, dedup_id=ONCE.dedup_id)
    await future


@on_servers
@pytest.mark.in_detail
@pytest.mark.parametrize("send", [alone, in_bulk, in_a_transaction, in_the_background])
async def test_a_send_in_doubt_is_not_repeated_past_the_window(
    mq: Client, harness: Harness, send: Callable[[Client, AsyncQueue], Awaitable[None]]
) -> None:
    queue = mq.queue("orders", dedup_window=6.0)  # a quarter of it is for what holds up a repeat
    await queue.send_message("warm")
    async with mq.transaction() as tx:
        tx.send_message(queue, "warm")
    key = queue_keys(harness.prefix, "orders", "orders").live.stream
    shas = [script(name).sha.encode() for name in ("send", "transact")]
    traps = [harness.servers.drop_next_reply(key, sha, count=1_000) for sha in shas]

    with pytest.raises((OutcomeUnknownError, BulkSendError)) as unknown:
        await send(mq, queue)

    for caught in traps:
        caught.cancel()
    if isinstance(unknown.value, BulkSendError):
        assert unknown.value.unknown == (0,)
    assert sum(caught.hits for caught in traps) > 1
    assert [m.data for m in await drain(queue, 3)] == ["warm", "warm", ONCE.data]
    assert await count(queue) == 0


@on_servers
async def test_many_senders_of_the_same_items_under_lost_replies_store_each_once(
    harness: Harness,
) -> None:
    queues = [harness.client().queue("orders") for _ in range(4)]
    for queue in queues:
        await queue.declare()
    key = queue_keys(harness.prefix, "orders", "orders").live.stream
    caught = harness.servers.drop_next_reply(key, script("send").sha.encode(), count=6)

    async def send_all(queue: AsyncQueue) -> list[str]:
        return [await queue.send_message(n, dedup_id=str(n)) for n in range(12)]

    sent = await asyncio.gather(*map(send_all, queues))

    assert caught.wait(10)
    assert all(ids == sent[0] for ids in sent)
    assert sorted(m.data for m in await drain(queues[0], 12)) == list(range(12))
    assert await count(queues[0]) == 0


Calls = list[tuple[str, list[int]]]
CALLS: st.SearchStrategy[Calls] = st.lists(
    st.tuples(
        st.sampled_from(["fine", "lost reply", "lost request"]),
        st.lists(st.integers(0, 4), min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.on("redis")
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=CALLS)
async def test_whatever_replies_are_lost_no_item_is_stored_twice(
    harness: Harness, calls: Calls
) -> None:
    mq = harness.client()
    name = f"example-{secrets.token_hex(4)}"
    queue = mq.queue(name)
    await queue.declare()
    known: dict[int, str] = {}
    for fate, items in calls:
        caught = None if fate == "fine" else trap(harness, fate == "lost reply", name)
        if len(items) == 1:
            ids = [await queue.send_message(items[0], dedup_id=f"{items[0]}")]
        else:
            ids = await queue.send_messages(Outgoing(n, dedup_id=f"{n}") for n in items)
        assert caught is None or caught.wait(10)
        for n, sent in zip(items, ids, strict=True):
            assert known.setdefault(n, sent) == sent

    messages = await drain(queue, len(known))
    assert {m.data: m.id for m in messages} == known
    assert await count(queue) == 0
    await queue.delete()
    await mq.close()
