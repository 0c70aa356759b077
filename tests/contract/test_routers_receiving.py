"""Receiving from parts on several nodes at once: fairly, without delay, in the promised order.

What happens while nodes fail is in ``test_routers.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from leanmq import AsyncQueue, ClosedError, LeanMQ, LeanMQError, Message
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import ROUTERS, SHARDS, Client, Harness, drain, eventually
from tests.contract.test_receiving import until_waiting

pytestmark = [pytest.mark.on(*ROUTERS), pytest.mark.timeout(60)]

in_shards = pytest.mark.on("hash-memory", "hash-redis", "hash-cluster")
on_servers = pytest.mark.on("hash-redis", "round-redis", "hash-cluster")

SOON = 0.5
"""Seconds within which a waiting consumer has a message that was sent."""

UPKEEP = 1.5
"""Seconds within which it has one that came free in another way."""

KEYS = [
    next(key for n in range(1000) if shard_of(key := f"customer-{n}", SHARDS) == shard)
    for shard in range(SHARDS)
]
"""For each shard a key whose messages are there."""


# --- fairness


@in_shards
async def test_what_is_in_a_quiet_shard_comes_with_the_first_batch(queue: AsyncQueue) -> None:
    await queue.send_messages(range(1000), key=KEYS[0])
    for shard in range(1, SHARDS):
        await queue.send_message("quiet", key=KEYS[shard])

    first = await queue.get_messages(10)

    assert Counter(m.key for m in first if m.data == "quiet") == Counter(KEYS[1:])
    assert len(first) == 10


async def is_sent(queue: AsyncQueue) -> Any:
    return lambda: queue.send_message("quiet", key=KEYS[-1])


async def is_due(queue: AsyncQueue) -> Any:
    return lambda: queue.send_message("quiet", key=KEYS[-1], delay=0.001)


async def comes_free(queue: AsyncQueue) -> Any:
    await queue.send_message("quiet", key=KEYS[-1])
    taken = await queue.get_messages()
    return lambda: queue.release_messages(taken)


@in_shards
@pytest.mark.parametrize(
    ("busy", "how"),
    # What is new in a shard waits for those before it; not so what comes free.
    [(1, is_sent), (SHARDS - 1, is_sent), (SHARDS - 1, is_due), (SHARDS, comes_free)],
)
async def test_a_busy_shard_does_not_starve_a_quiet_one(
    queue: AsyncQueue, harness: Harness, busy: int, how: Callable[[AsyncQueue], Awaitable[Any]]
) -> None:
    """Upkeep looks everywhere, after less than a second; to empty the busy ones takes seconds."""
    come = await how(harness.client().queue("orders"))
    for key in KEYS[:busy]:
        await queue.send_messages(range(10_000 // busy), key=key)
    handled = 0
    while handled < 500:  # it knows by now where there is plenty
        handled += await queue.acknowledge_messages(await queue.get_messages(10))
    await come()

    watch, batches, found = harness.stopwatch(), 0, False
    while not found:
        messages = await queue.get_messages(10)
        found = "quiet" in [m.data for m in messages]
        await queue.acknowledge_messages(messages)
        batches += 1
        passed = watch.own()
        assert passed < UPKEEP, f"not received after {passed:.2f} s and {batches} batches"
        await asyncio.sleep(0.005)  # the work
    assert (await queue.get_info()).message_count > 0


async def test_messages_of_all_parts_come_in_one_batch_and_never_more_than_asked(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_messages(range(400), key=str)
    got: list[Message[Any]] = []
    counts = (1, 2, 3, 5, 7, 50, 1)

    async def take(count: int) -> None:
        some = await mq.queue("orders").get_messages(count)
        assert len(some) == count
        got.extend(some)

    for _ in range(3):
        await asyncio.gather(*(take(count) for count in counts))

    assert {m.delivery_count for m in got} == {1}
    assert await queue.acknowledge_messages(got) == 3 * sum(counts)
    rest = await drain(queue, 400 - len(got))
    assert {m.delivery_count for m in rest} == {1}  # what was given back is not counted
    assert sorted(m.data for m in [*got, *rest]) == list(range(400))


@pytest.mark.on("hash-memory", "round-memory")  # real clocks would take leases of time
async def test_a_suspect_comes_alone_whatever_the_other_parts_have(
    queue: AsyncQueue, harness: Harness
) -> None:
    poison = await queue.send_message("poison", key=KEYS[2])
    for _ in range(2):  # two consumers die with it
        [taken] = await harness.client().queue("orders").get_messages(1)
        assert taken.id == poison
        harness.advance(61)
    healthy = await queue.send_messages(range(40), key=str)
    consumer = harness.client().queue("orders")
    got: list[Message[Any]] = []

    while len(got) < 41:
        messages = await consumer.get_messages(100)
        got += messages
        if poison in [m.id for m in messages]:
            assert len(messages) == 1
            assert await consumer.get_messages(100) == []  # nothing else while it is held
        await consumer.acknowledge_messages(messages)

    assert sorted(m.id for m in got) == sorted([poison, *healthy])
    assert {m.delivery_count for m in got if m.id != poison} == {1}


@in_shards
async def test_what_one_part_should_never_answer_is_raised_once_the_others_are_empty(
    queue: AsyncQueue, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.send_messages(range(40), key=str)
    consumer = harness.client().queue("orders")
    await consumer.declare()
    others = [n for n in range(40) if shard_of(str(n), SHARDS) != 2]
    got: list[Message[Any]] = []
    broken = harness.stored("orders")[2].live.due
    await harness._raw("DEL", broken)
    await harness._raw("SET", broken, "something else")

    async def until_empty() -> None:
        while True:
            messages = await consumer.get_messages(10)
            assert messages
            got.extend(messages)

    with pytest.raises(LeanMQError, match="WRONGTYPE") as caught:
        await until_empty()

    assert {m.data for m in got} >= set(others)
    assert {m.delivery_count for m in got} == {1}
    told = [r for r in caplog.records if getattr(r, "leanmq_event", "") == "part_refuses"]
    assert [r.levelname for r in told] == ["WARNING"]
    assert "'orders'" in told[0].getMessage()
    assert "WRONGTYPE" in told[0].getMessage()
    if harness.subject != "hash-cluster":  # which has one node
        assert "shard" in str(caught.value)
        assert "2" in str(caught.value).partition(" of queue")[0]


# --- waiting


async def test_a_waiting_consumer_has_a_message_of_any_part_at_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    sender = harness.client().queue("orders")
    await sender.declare()
    await queue.declare()
    for key in KEYS * 2:
        waiting = asyncio.create_task(queue.get_messages(timeout=10))
        await until_waiting(sender, waiting)
        watch = harness.stopwatch()
        await sender.send_message(key, key=key)

        [message] = await waiting

        passed = watch.own()
        assert message.data == key
        assert passed < SOON, f"{passed:.2f} s"
        await queue.acknowledge_messages(message)


async def delayed(queue: AsyncQueue, key: str) -> float:
    await queue.send_message(key, key=key, delay=0.6)
    return 0.6


async def released(queue: AsyncQueue, key: str) -> float:
    await queue.send_message(key, key=key)
    assert await queue.release_messages(await queue.get_messages(timeout=5)) == 1
    return 0.0


async def abandoned(queue: AsyncQueue, key: str) -> float:
    await queue.send_message(key, key=key)
    [_] = await queue.get_messages(timeout=5)
    return 1.0


@on_servers
@pytest.mark.parametrize("how", [delayed, released, abandoned])
async def test_a_waiting_consumer_has_what_comes_free_within_a_slice(
    harness: Harness, how: Callable[[AsyncQueue, str], Awaitable[float]]
) -> None:
    other = harness.client().queue("orders", lease=1.0)
    await other.declare()
    for key in KEYS[2:3] if how is abandoned else KEYS[1:3]:
        pause = await how(other, key)
        watch = harness.stopwatch()
        queue = harness.client().queue("orders")

        [message] = await queue.get_messages(block=True, timeout=20)

        passed = watch.own() - pause
        assert message.data == key
        assert passed < UPKEEP, f"{passed:.2f} s"
        await queue.acknowledge_messages(message)


async def test_what_was_given_back_is_there_at_the_first_look(harness: Harness) -> None:
    other = harness.client().queue("orders")
    for key in KEYS:
        await other.send_message(key, key=key)
        assert await other.release_messages(await other.get_messages(timeout=5)) == 1

        [message] = await harness.client().queue("orders").get_messages(1, block=False)

        assert message.data == key
        await other.acknowledge_messages(message)


@pytest.mark.on("hash-memory", "hash-redis", "hash-cluster", "round-redis")
async def test_those_who_wait_for_long_have_what_comes_and_what_comes_free(
    harness: Harness,
) -> None:
    sender = harness.client().queue("orders", lease=30.0)
    await sender.declare()
    held = await sender.send_message("held", key=KEYS[2])
    [kept] = await sender.get_messages(timeout=5)
    queue = harness.client().queue("orders")
    got: list[str] = []

    async def wait() -> None:
        for _ in range(2):
            [message] = await queue.get_messages(1, timeout=30)
            got.append(message.id)
            await queue.acknowledge_messages(message)

    waiting = [asyncio.create_task(wait()) for _ in range(8)]
    sent = []
    for number in range(14):  # most of them have looked in vain for more than a second, or two
        await asyncio.sleep(0.2)
        sent.append(await sender.send_message(number, key=KEYS[number % SHARDS]))

    async def all_there() -> bool:
        return len(got) == len(sent)

    await eventually(all_there, within=10, what="all that was sent")
    assert sorted(got) == sorted(sent)

    await sender.release_messages(kept)  # no watch tells of it
    await eventually(lambda: _came(got, held), within=10, what="what was given back")
    await sender.send_message("the last", key=KEYS[0])
    await asyncio.wait_for(asyncio.gather(*waiting), 10)


async def _came(got: list[str], name: str) -> bool:
    return name in got


CROWD = 200
FOREVER = 55.0
"""Seconds: longer than all that is waited for while the crowd waits; a test may take 60."""
PATIENT = 20.0
"""Seconds for a reply: the proxies before the servers live in this process, too."""


def patient(harness: Harness) -> Client:
    """A client that waits for a reply for long."""
    return harness.client(backend=harness.router_backend(connection_timeout=PATIENT))


@pytest.mark.on("hash-memory", "hash-redis", "round-redis", worlds=("asyncio",))
async def test_two_hundred_waiting_tasks_leave_none_behind(harness: Harness) -> None:
    client, sender = patient(harness), patient(harness)  # the crowd keeps the loop busy
    queue = client.queue("orders")
    await queue.declare()
    before = asyncio.all_tasks()
    waiting = [asyncio.create_task(queue.get_messages(1, timeout=FOREVER)) for _ in range(CROWD)]
    sent = await sender.queue("orders").send_messages(range(CROWD // 2))

    async def half() -> bool:
        return sum(task.done() for task in waiting) == len(sent)

    await eventually(half, within=20, what="a message for every second task")
    await client.close()

    results = await asyncio.gather(*waiting, return_exceptions=True)
    got = [m.id for result in results if isinstance(result, list) for m in result]
    assert sorted(got) == sorted(sent)
    assert sum(isinstance(result, ClosedError) for result in results) == CROWD - len(sent)
    await eventually(lambda: _none(asyncio.all_tasks() - before), within=5, what="no task left")


@pytest.mark.on("hash-memory", "hash-redis", "round-redis", worlds=("sync",))
async def test_two_hundred_waiting_threads_leave_none_behind(harness: Harness) -> None:
    client = LeanMQ(backend=harness.router_backend(connection_timeout=PATIENT))
    queue = client.queue("orders")
    await harness.run(queue.declare)
    before = set(threading.enumerate())
    got: list[str] = []
    closed: list[ClosedError] = []

    def wait() -> None:
        try:
            got.extend(m.id for m in queue.get_messages(1, timeout=FOREVER))
        except ClosedError as error:
            closed.append(error)

    crowd = [threading.Thread(target=wait) for _ in range(CROWD)]
    for thread in crowd:
        thread.start()
    sender = patient(harness)
    sent = await sender.queue("orders").send_messages(range(CROWD // 2))
    await sender.close()

    async def half() -> bool:
        return len(got) == len(sent)

    await eventually(half, within=20, what="a message for every second thread")
    await harness.run(client.close)

    def ours() -> set[str]:
        new = set(threading.enumerate()) - before
        return {t.name for t in new if t in crowd or t.name.startswith("leanmq")}

    await eventually(lambda: _none(ours()), within=5, what="no thread left")
    assert sorted(got) == sorted(sent)
    assert len(closed) == CROWD - len(sent)


async def _none(left: set[Any]) -> bool:
    return not left


# --- order


@in_shards
async def test_a_bulk_of_one_key_keeps_its_order_through_all_chunks(queue: AsyncQueue) -> None:
    await queue.send_messages(range(1300), key=lambda n: KEYS[n % 2])

    got: dict[str | None, list[int]] = {}
    while sum(map(len, got.values())) < 1300:
        messages = await queue.get_messages(70, timeout=5)
        assert messages
        for message in messages:
            got.setdefault(message.key, []).append(message.data)
        await queue.acknowledge_messages(messages)

    assert got == {KEYS[0]: list(range(0, 1300, 2)), KEYS[1]: list(range(1, 1300, 2))}


@in_shards
async def test_what_is_released_comes_again_in_the_order_of_its_key(queue: AsyncQueue) -> None:
    await queue.send_messages(range(60), key=lambda n: KEYS[n % 3])
    assert await queue.release_messages(await queue.get_messages(40)) == 40

    got: dict[str | None, list[int]] = {}
    while sum(map(len, got.values())) < 60:
        for message in await queue.get_messages(7, timeout=5):
            got.setdefault(message.key, []).append(message.data)

    assert got == {KEYS[part]: list(range(part, 60, 3)) for part in range(3)}


@pytest.mark.on("hash-redis")
async def test_sends_that_are_repeated_keep_the_order_of_their_key(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    for n in range(40):
        if n % 9 == 4:
            for server in harness.topologies:
                await asyncio.to_thread(server.kill_connections)
        if n % 9 == 8:
            for server in harness.topologies:
                server.drop_next_reply(match=b"EVALSHA")
        await queue.send_message(n, key=KEYS[n % 2], dedup_id=f"order-{n}")
    for server in harness.topologies:
        server.proxies[0].reset()

    messages = await drain(queue, 40)

    for part in range(2):
        of_key = [m.data for m in messages if m.key == KEYS[part]]
        assert of_key == list(range(part, 40, 2))
