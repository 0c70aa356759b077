"""Replies that get lost, connections that break, calls that are cancelled."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from leanmq import AsyncQueue, BulkSendError, LeanMQError, Message, OutcomeUnknownError
from leanmq.backends.streams.keys import queue_keys
from leanmq.backends.streams.scripts import script
from tests.contract.harness import SERVERS, Client, Harness, drain, eventually
from tests.contract.test_settling import VERBS
from tests.support.faults import Trap

on_servers = pytest.mark.on(*SERVERS)


@contextmanager
def lost_reply(harness: Harness, match: bytes) -> Iterator[Trap]:
    """The next request to the queue's server that holds ``match`` is executed, its reply lost."""
    key = queue_keys(harness.prefix, "orders", "orders").live.stream
    trap = harness.servers.drop_next_reply(key, match)
    yield trap
    assert trap.wait(10), "no reply was dropped: the test tested nothing"


def call_of(name: str) -> bytes:
    return script(name).sha.encode()


async def warmed_up(queue: AsyncQueue) -> None:
    """Scripts are loaded and connections open, so that the first match is the call itself."""
    await queue.send_message("warm")
    [message] = await queue.get_messages()
    await queue.acknowledge_messages(message)
    await queue.get_messages(timeout=0.05)


@on_servers
async def test_a_send_whose_reply_is_lost_is_unknown_and_stored_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)

    unknown = pytest.raises(OutcomeUnknownError, match=r"'orders'.*may be stored or not")
    with lost_reply(harness, call_of("send")), unknown as lost:
        await queue.send_message("once")

    assert not isinstance(lost.value, ConnectionError)
    assert lost.value.queue == "orders"
    assert lost.value.__cause__ is not None
    assert (await queue.get_info()).message_count == 1
    assert [m.data for m in await queue.get_messages()] == ["once"]


@on_servers
async def test_a_bulk_send_whose_reply_is_lost_tells_where_and_can_go_on(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    items = list(range(1_200))

    def with_trap(trap_at: int) -> Iterator[int]:
        for n in items:
            if n == trap_at:
                key = queue_keys(harness.prefix, "orders", "orders").live.stream
                traps.append(harness.servers.drop_next_reply(key, call_of("send")))
            yield n

    traps: list[Trap] = []
    with pytest.raises(BulkSendError, match="bulk send stopped") as stopped:
        await queue.send_messages(with_trap(600))

    error = stopped.value
    assert traps[0].wait(5)
    assert sorted(error.confirmed) == list(range(500))
    assert error.unknown == tuple(range(500, 1_000))
    assert error.unsent == ()
    assert isinstance(error.__cause__, OutcomeUnknownError)
    await queue.send_messages(items[1_000:])
    messages = await drain(queue, 1_200)
    assert [m.data for m in messages] == items


@on_servers
async def test_messages_of_a_lost_reply_come_again_uncounted_to_the_same_client(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    await queue.send_messages(range(12))
    siblings = await queue.get_messages(4)  # held by this client, in another thread say
    stranger = harness.client().queue("orders")
    await stranger.declare()

    stream = harness.stored("orders")[0].live.stream
    with lost_reply(harness, stream.encode()):  # by the script or, while it is calm, without
        messages = await queue.get_messages(8, timeout=10)
    got = {m.data for m in messages}
    while len(got) < 8:
        more = await queue.get_messages(8, timeout=10)
        assert more
        messages += more
        got |= {m.data for m in more}

    assert sorted(m.data for m in messages) == list(range(4, 12))
    assert {m.delivery_count for m in messages} == {1}
    assert await stranger.get_messages() == []
    assert await queue.acknowledge_messages(messages) == 8
    assert await queue.acknowledge_messages(siblings) == 4


@on_servers
async def test_all_of_a_large_reply_that_was_lost_comes_again_in_small_batches(
    harness: Harness,
) -> None:
    queue = harness.client(deadline=0.3).queue("orders")
    await warmed_up(queue)
    await queue.send_messages(range(60))
    stream = harness.stored("orders")[0].live.stream
    trap = harness.servers.drop_next_reply(stream, stream.encode(), count=1_000)
    with pytest.raises(ConnectionError):
        await queue.get_messages(50)
    trap.cancel()
    await harness.pass_time(2.2)  # for so long, the lane is looked at again and again anyway

    messages: list[Message[int]] = []
    while len(messages) < 60:
        more = await queue.get_messages(5, timeout=5)  # the lease is a minute
        assert more
        messages += more

    assert sorted(m.data for m in messages) == list(range(60))
    assert {m.delivery_count for m in messages} == {1}
    assert await queue.acknowledge_messages(messages) == 60


@on_servers
async def test_a_lost_reply_of_the_receive_script_strands_nothing(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    await queue.send_messages(range(5))
    await queue.release_messages(await queue.get_messages())  # so the script hands them out

    with lost_reply(harness, call_of("receive")):
        messages = await queue.get_messages(10, timeout=10)

    assert [m.data for m in messages] == list(range(5))
    assert {m.delivery_count for m in messages} == {1}
    assert await queue.acknowledge_messages(messages) == 5


@on_servers
async def test_a_lost_reply_to_a_waiting_read_strands_nothing(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    with lost_reply(harness, b"BLOCK"):
        waiting = asyncio.create_task(queue.get_messages(timeout=20))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        await harness.client().queue("orders").send_message("stranded")
        [message] = await waiting

    assert (message.data, message.delivery_count) == ("stranded", 1)


@on_servers
@pytest.mark.parametrize("verb", ["acknowledge", "release", "retry", "dead-letter", "extend"])
async def test_settling_rides_out_a_lost_reply(
    queue: AsyncQueue, harness: Harness, verb: str
) -> None:
    await warmed_up(queue)
    await queue.send_message("settled")
    [message] = await queue.get_messages()
    await queue.extend_messages(message)

    with lost_reply(harness, call_of("settle")):
        assert await VERBS[verb](queue, message.id) == 1

    info, dead = await queue.get_info(), await queue.dlq.get_info()
    left = {"acknowledge": (0, 0), "dead-letter": (0, 1)}.get(verb, (1, 0))
    assert (info.message_count, dead.message_count) == left


@on_servers
async def test_connections_that_break_while_idle_are_not_noticed(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    for n in range(5):
        harness.servers.kill_connections()
        await queue.send_message(n)

    assert [m.data for m in await drain(queue, 5)] == list(range(5))


@on_servers
async def test_connections_that_break_under_load_lose_and_double_nothing(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", lease=2.0)
    await warmed_up(queue)
    confirmed: list[int] = []
    unknown: list[int] = []
    handled: list[int] = []
    stop = asyncio.Event()

    async def produce() -> None:
        for n in range(1_000_000):
            if stop.is_set():
                return
            try:
                await queue.send_message(n)
                confirmed.append(n)
            except OutcomeUnknownError:
                unknown.append(n)

    async def consume() -> None:
        while not stop.is_set() or (await queue.get_info()).message_count:
            for message in await queue.get_messages(20, timeout=0.2):
                handled.append(message.data)
                await queue.acknowledge_messages(message)

    tasks = [asyncio.create_task(produce()), asyncio.create_task(consume())]
    for rounds in range(1, 9):
        await eventually(progress(handled, rounds * 20), within=20)
        harness.servers.kill_connections()
    stop.set()
    await asyncio.wait_for(asyncio.gather(*tasks), 30)

    assert set(confirmed) <= set(handled)
    assert set(handled) <= {*confirmed, *unknown}
    assert len(handled) == len(set(handled)), "handled twice without a lease running out"


def progress(handled: list[int], goal: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return len(handled) >= goal

    return reached


@pytest.mark.on("memory", *SERVERS, worlds=("asyncio",))
async def test_cancelled_calls_lose_nothing_and_no_reply_reaches_another_caller(
    mq: Client, harness: Harness
) -> None:
    luck = random.Random(7)
    queue = mq.queue("orders", lease=3.0)
    await queue.declare()
    stored: set[str] = set()
    perhaps: set[str] = set()
    handled: list[str] = []
    seen: list[Message[str]] = []

    async def send(payload: str) -> None:
        message_id = await queue.send_message(payload)
        stored.add(payload)
        assert isinstance(message_id, str)

    async def receive() -> None:
        for message in await queue.get_messages(3, timeout=0.5):
            seen.append(message)
            if await queue.acknowledge_messages(message):
                handled.append(message.data)

    async def count() -> None:
        assert (await queue.get_info()).name == "orders"

    for n in range(200):
        perhaps.add(f"m{n}")
        calls = [send(f"m{n}"), receive(), count()]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(luck.random() * 0.003)
        luck.choice(tasks).cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException):
                assert isinstance(result, asyncio.CancelledError), repr(result)

    async def empty() -> bool:
        await receive()
        return (await queue.get_info()).message_count == 0

    await eventually(empty, within=20)
    assert stored <= {m.data for m in seen} <= perhaps
    assert len(handled) == len(set(handled)), "acknowledged twice"


@pytest.mark.on("memory", *SERVERS, worlds=("asyncio",))
async def test_a_cancelled_receive_is_followed_by_what_it_had_been_given(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(range(50))
    got: list[int] = []
    for delay in range(40):
        call = asyncio.create_task(queue.get_messages(5))
        for _ in range(delay % 8):
            await asyncio.sleep(0)
        call.cancel()
        with suppress(asyncio.CancelledError):
            got += [m.data for m in await call]

    while messages := await queue.get_messages(10, timeout=2.5):
        got += [m.data for m in messages]
        assert {m.delivery_count for m in messages} == {1}

    assert sorted(got) == list(range(50))


@pytest.mark.on(worlds=("asyncio",))
async def test_asyncio_starts_no_thread(queue: AsyncQueue, harness: Harness) -> None:
    before = set(threading.enumerate())

    await queue.send_messages(range(3))
    messages = await queue.get_messages(timeout=0.2)
    await queue.retry_messages(messages, delay=0.01)
    assert await queue.get_messages(timeout=2)
    await queue.get_info()
    await queue.dlq.get_messages(timeout=0.1)

    started = set(threading.enumerate()) - before
    # The tests' own hub of proxies may start at its first use.
    assert not [t for t in started if "proxy" not in t.name.lower()], started


@on_servers
async def test_a_server_that_was_never_there_says_so_at_once(harness: Harness) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, but nobody listens
        scheme, _, _ = harness.url.partition("://")
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        client = harness.client(url=f"{scheme}://{where}{'/x' if 'sentinel' in scheme else ''}")
        await refuses(client)


async def refuses(client: Client) -> None:
    with pytest.raises(LeanMQError, match=r"127\.0\.0\.1") as refused:
        await asyncio.wait_for(client.queue("orders").send_message(1), 5)

    assert isinstance(refused.value, ConnectionError)
    assert refused.value.retryable
