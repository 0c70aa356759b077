"""Sending in the background while replies get lost, settings change and servers die."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leanmq import AsyncQueue, Message, NotSentError, OutcomeUnknownError
from leanmq.backends.streams.keys import queue_keys
from leanmq.backends.streams.scripts import script
from tests.contract.harness import IN_ORDER, SERVERS, Client, Harness, drain, eventually
from tests.contract.test_batching import LONG, Gate, count, flushed, ids_of, outcomes_of, send_all
from tests.support.faults import Trap

on_servers = pytest.mark.on(*SERVERS)
either = pytest.mark.parametrize("executed", [True, False], ids=["stored", "not-stored"])


def trap(harness: Harness, executed: bool, name: str = "orders", times: int = 1) -> Trap:
    """The next sends are executed and their answers lost, or the requests themselves are."""
    key = queue_keys(harness.prefix, name, name).live.stream
    sha = script("send").sha.encode()
    if executed:
        return harness.servers.drop_next_reply(key, sha, times)
    return harness.servers.cut_next_request(key, sha, times)


async def warmed_up(queue: AsyncQueue) -> None:
    """The script is loaded, so that the first match is the call itself."""
    await queue.send_message("warm")
    await drain(queue, 1)


# --- lost replies


@on_servers
@either
async def test_a_batch_in_doubt_is_sent_again_and_stored_once_and_in_order(
    queue: AsyncQueue, harness: Harness, executed: bool
) -> None:
    await warmed_up(queue)
    caught = trap(harness, executed, times=3)
    async with queue.batching(max_batch=100) as producer:
        futures = await send_all(producer, range(750), key="k")
        ids = await ids_of(futures)

    assert caught.wait(10)
    messages = await drain(queue, 750)
    assert [m.data for m in messages] == list(range(750))
    assert [m.id for m in messages] == ids
    assert await count(queue) == 0


@on_servers
async def test_a_repeated_batch_answers_the_ids_of_whatever_it_held(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    known = await queue.send_message("known", dedup_id="a")
    for mixed in ([0, 1, 2, 3], [1, 1, 2, 3], [0, 0, 0, 0, 0], [3], [2, 0, 0]):
        async with queue.batching(linger=LONG) as producer:
            caught = trap(harness, executed=True)
            futures = []
            for n in mixed:
                kinds: list[dict[str, Any]]
                kinds = [{}, {"delay": 60}, {"dedup_id": "a"}, {"dedup_id": secrets.token_hex(4)}]
                futures.append(await producer.send_message(n, headers={"n": n}, **kinds[n]))
            await producer.flush()
        ids = await ids_of(futures)

        assert caught.wait(10)
        stored = {m.id: m.data for m in await queue.peek_messages(ids=ids)}
        for n, sent in zip(mixed, ids, strict=True):
            assert stored[sent] == ("known" if n == 2 else n)
            assert (sent == known) == (n == 2)
        assert len(set(ids)) == len(ids)


@on_servers
@either
async def test_without_numbers_a_batch_in_doubt_is_unknown_and_nothing_overtakes_it(
    harness: Harness, executed: bool
) -> None:
    gate = Gate(harness)
    queue = harness.watched(gate).queue("orders")
    await warmed_up(harness.client().queue("orders"))
    async with queue.batching(max_batch=2, linger=LONG, dedup=False) as producer:
        caught = trap(harness, executed)
        futures = await send_all(producer, range(5), key="k")
        gate.open()
        await producer.flush()
        outcomes = await outcomes_of(futures)
        assert caught.wait(10)
        [later] = await ids_of(await flushed(producer, ["later"], key="k"))

    for doubtful in outcomes[:2]:
        assert isinstance(doubtful, OutcomeUnknownError)
        assert "may be stored or not" in str(doubtful)
    for behind in outcomes[2:]:
        assert isinstance(behind, NotSentError)
        assert not behind.in_doubt
        assert behind.__cause__ is not None
    stored = [m.data for m in await harness.client().queue("orders").peek_messages(20)]
    assert [data for data in stored if isinstance(data, int)] == ([0, 1] if executed else [])
    assert stored[-1] == "later"
    assert later


@on_servers
async def test_without_numbers_and_keys_only_what_is_in_doubt_is_unknown(
    harness: Harness,
) -> None:
    gate = Gate(harness)
    queue = harness.watched(gate).queue("orders")
    await warmed_up(harness.client().queue("orders"))
    caught = trap(harness, executed=True)
    async with queue.batching(max_batch=2, linger=LONG, dedup=False) as producer:
        futures = await send_all(producer, range(5))
        gate.open()
        await producer.flush()
        outcomes = await outcomes_of(futures)

    assert caught.wait(10)
    assert [type(outcome) for outcome in outcomes[:2]] == [OutcomeUnknownError] * 2
    messages = await drain(queue, 5)
    assert [m.data for m in messages] == list(range(5))
    assert [m.id for m in messages[2:]] == outcomes[2:]


@on_servers
async def test_without_numbers_what_has_a_dedup_id_is_sent_again(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    async with queue.batching(linger=LONG, dedup=False) as producer:
        caught = trap(harness, executed=True)
        futures = [
            await producer.send_message(n, dedup_id=f"{n}" if n % 2 else None) for n in range(6)
        ]
        await producer.flush()
        outcomes = await outcomes_of(futures)

    assert caught.wait(10)
    assert [type(outcome) for outcome in outcomes[::2]] == [OutcomeUnknownError] * 3
    found = {m.data: m.id for m in await drain(queue, 6)}
    assert [found[n] for n in (1, 3, 5)] == outcomes[1::2]
    assert await count(queue) == 0


@on_servers
async def test_part_of_a_batch_that_was_stored_is_not_stored_again(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", max_length=5, overflow="block")
    await warmed_up(queue)
    caught = trap(harness, executed=True, times=2)
    async with queue.batching(linger=LONG) as producer:
        futures = await send_all(producer, range(12), key="k")
        flushed = asyncio.create_task(producer.flush())
        messages: list[Message[Any]] = []
        while len(messages) < 12:
            messages += await drain(queue, 1)
        await flushed
        ids = await ids_of(futures)

    assert caught.wait(10)
    assert [m.data for m in messages] == list(range(12))
    assert [m.id for m in messages] == ids
    assert await count(queue) == 0


@on_servers
async def test_settings_that_change_between_two_tries_are_followed(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    other = harness.client()
    async with queue.batching(linger=0) as producer:
        for n in range(4):
            caught = trap(harness, executed=bool(n % 2))
            await other.update_queue("orders", max_length=1_000 + n)
            assert await ids_of(await send_all(producer, range(3), key="k"))
            assert caught.wait(10)

    assert [m.data for m in await drain(queue, 12)] == [*range(3)] * 4
    assert await count(queue) == 0


@on_servers
async def test_past_the_dedup_window_a_doubt_stays_one(harness: Harness) -> None:
    client = harness.client()
    queue = client.queue("orders", dedup_window=2.0)
    await warmed_up(queue)
    caught = trap(harness, executed=True, times=100)
    async with queue.batching(linger=LONG) as producer:
        futures = await send_all(producer, range(3))
        await producer.flush()
        outcomes = await outcomes_of(futures)
    caught.cancel()

    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknownError] * 3
    assert sorted(m.data for m in await drain(queue, 3)) == [0, 1, 2]
    assert await count(queue) == 0


Batches = list[tuple[str, int]]
BATCHES: st.SearchStrategy[Batches] = st.lists(
    st.tuples(st.sampled_from(["fine", "lost reply", "lost request"]), st.integers(1, 5)),
    min_size=1,
    max_size=6,
)


@pytest.mark.on("redis")
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=BATCHES, room=st.sampled_from([0, 2, 3]))
async def test_whatever_replies_are_lost_each_message_is_stored_once_and_in_order(
    harness: Harness, batches: Batches, room: int
) -> None:
    mq = harness.client()
    name = f"example-{secrets.token_hex(4)}"
    queue = mq.queue(name, max_length=room, overflow="block")
    await queue.declare()
    await warmed_up(queue)
    total = sum(size for _, size in batches)
    consumer = asyncio.create_task(drain(queue, total))
    futures: list[Any] = []
    async with queue.batching(linger=LONG) as producer:
        for fate, size in batches:
            caught = None if fate == "fine" else trap(harness, fate == "lost reply", name)
            futures += await send_all(producer, range(len(futures), len(futures) + size), key="k")
            await producer.flush()
            assert caught is None or caught.wait(10)
        ids = await ids_of(futures)

    messages = await consumer
    assert [m.data for m in messages] == list(range(total))
    assert [m.id for m in messages] == ids
    assert await count(queue) == 0
    await queue.delete()
    await mq.close()


# --- what is remembered of producers


@pytest.mark.on(*IN_ORDER)  # a shard forgets when it is sent to
async def test_producers_take_no_room_after_the_window(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", dedup_window=0.3)
    numbered = (await mq.open()).sequences
    for _ in range(5):
        async with queue.batching(linger=0) as producer:
            await ids_of(await send_all(producer, range(3)))
    assert await harness.dedup_ids() == (5 if numbered else 0)

    await harness.pass_time(0.65)  # kept for twice as long
    async with queue.batching(linger=0) as producer:
        await ids_of(await send_all(producer, range(3)))

    assert await harness.dedup_ids() == (1 if numbered else 0)
    assert await count(queue) == 18


async def test_a_producer_that_was_forgotten_goes_on(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", dedup_window=0.3)
    async with queue.batching(linger=0) as producer:
        first = await ids_of([await producer.send_message("first")])
        await harness.pass_time(0.65)
        second = await ids_of([await producer.send_message("second")])

    assert first != second
    assert {m.data for m in await drain(queue, 2)} == {"first", "second"}


async def test_producers_of_a_queue_and_of_its_dead_letters_are_told_apart(
    queue: AsyncQueue,
) -> None:
    async with queue.batching(linger=0) as live, queue.dlq.batching(linger=0) as dead:
        for n in range(3):
            await ids_of([await live.send_message(n), await dead.send_message(n)])

    assert (await count(queue), await count(queue.dlq)) == (3, 3)


# --- servers


@pytest.mark.on("redis")
async def test_a_killed_server_that_comes_back_has_each_message_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    futures: list[Any] = []
    stop = asyncio.Event()

    async def produce(producer: Any) -> None:
        while not stop.is_set():
            futures.append(await producer.send_message(len(futures), key="k"))
            await asyncio.sleep(0.001)  # uvloop waits for less not at all

    async with queue.batching(max_batch=50) as producer:
        task = asyncio.create_task(produce(producer))
        for _ in range(3):
            await eventually(stored(futures, len(futures) + 200), within=20)
            await asyncio.to_thread(harness.servers.kill_primary)
            await eventually(handed_over(futures, len(futures) + 100), within=20)
            await asyncio.to_thread(harness.servers.revive)
        stop.set()
        await task
        ids = await ids_of(futures)

    messages = await drain(queue, len(ids))
    assert [m.data for m in messages] == list(range(len(ids)))
    assert [m.id for m in messages] == ids
    assert await count(queue) == 0


def stored(futures: list[Any], goal: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many are."""

    async def are() -> bool:
        return len(futures) > goal and futures[goal].done()

    return are


def handed_over(futures: list[Any], goal: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many are."""

    async def are() -> bool:
        return len(futures) > goal

    return are


@pytest.mark.on("redis")
async def test_what_is_surely_not_stored_fails_when_its_time_is_over(harness: Harness) -> None:
    client = harness.client(deadline=0.6, connection_timeout=0.3)
    queue = client.queue("orders")
    await warmed_up(queue)
    await harness.kill(0)
    async with queue.batching(max_batch=2, linger=0) as producer:
        began = time.monotonic()
        plain = await send_all(producer, range(6))
        outcomes = await outcomes_of(plain)
        took = time.monotonic() - began
        keyed = await outcomes_of(await send_all(producer, range(6), key="k"))

    assert {type(outcome).__name__ for outcome in outcomes} == {"ConnectionError"}
    assert not any(outcome.in_doubt for outcome in outcomes)
    assert 0.3 < took < 5, "the deadline counts from when a message was handed over"
    assert {type(outcome).__name__ for outcome in keyed} <= {"ConnectionError", "NotSentError"}
    await asyncio.to_thread(harness.servers.revive)
    assert await count(queue) == 0


@pytest.mark.on("redis")
async def test_closing_is_over_in_time_while_the_server_is_away(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    await harness.kill(0)
    producer = queue.batching()
    futures = await send_all(producer, range(3), key="k")
    async with asyncio.timeout(5):
        await producer.close(timeout=0.2)
        outcomes = await outcomes_of(futures)

    assert {type(outcome).__name__ for outcome in outcomes} <= {"NotSentError", "ConnectionError"}
    await asyncio.to_thread(harness.servers.revive)
    assert await count(queue) == 0


@pytest.mark.on("sentinel", "cluster")
async def test_a_failover_is_ridden_out(queue: AsyncQueue, harness: Harness) -> None:
    await warmed_up(queue)
    servers, key = harness.servers, queue_keys(harness.prefix, "orders", "orders").live.stream
    async with queue.batching(linger=0) as producer:
        await ids_of(await send_all(producer, range(50), key="k"))
        old = await asyncio.to_thread(servers.failover, key)
        futures = await send_all(producer, range(50, 100), key="k")
        new = await asyncio.to_thread(servers.wait_for_new_primary, key, old)
        futures += await send_all(producer, range(100, 150), key="k")
        ids = await ids_of(futures)

    async def sends_arrive() -> bool:
        """Whether the client has left the old primary: what it reads there it would read twice."""
        before = await asyncio.to_thread(servers.entries_added, new, key)
        await queue.send_message("probe")
        return await asyncio.to_thread(servers.entries_added, new, key) > before

    await eventually(sends_arrive, within=15, what="a send to the new primary")
    stored = [m.data for m in await drain(queue, await count(queue)) if m.data != "probe"]

    assert len(set(ids)) == 100
    assert stored == sorted(set(stored)), "doubled, or out of order"
    if harness.subject == "cluster":  # a sentinel leaves the old primary open to writes
        assert stored == list(range(150))
