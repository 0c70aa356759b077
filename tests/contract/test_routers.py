"""Routers whose servers die, freeze, or lose a reply: what is stored, where, and what is told.

Each test keeps a log of its own of what its sends returned, and reconciles it with what is found
in the queue at the end.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import attrs
import pytest

from leanmq import (
    AsyncQueue,
    BulkSendError,
    LeanMQError,
    Message,
    OutcomeUnknownError,
    Outgoing,
    QueueFullError,
)
from leanmq.backends.streams.scripts import script
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import SHARDS, Client, Harness, drain, eventually
from tests.support import states

pytestmark = pytest.mark.timeout(60)

WORKERS = 8
PAUSE = 0.004
"""Seconds between two sends of a worker, so that the proxies in this process keep up."""

GAP = 1.0
"""Seconds within which sends go on; besides what the machine stood still before the fault, too."""

BACK = 5.0
"""Seconds within which a server that is back has its share."""


@attrs.frozen
class Routed:
    """A client on a router of the subject, and what the router knows."""

    harness: Harness
    backend: Any
    mq: Client

    def node_of(self, message_id: str, queue: str = "orders") -> str:
        """The node on which a message is, by its id."""
        label = message_id.partition("#")[0]
        if self.harness.router == "round":
            return label
        where: tuple[str, ...] = self.backend.routing.placements[queue].where
        return where[int(label)]

    def share(self, node: str, queue: str = "orders") -> float:
        """Which part of the messages without keys a node gets."""
        if self.harness.router == "round":
            return 1 / len(self.harness.nodes)
        return len(self.shards_on(node, queue)) / SHARDS

    def shards_on(self, node: str, queue: str = "orders") -> tuple[int, ...]:
        """The shards of a node."""
        shards: tuple[int, ...] = self.backend.routing.placements[queue].shards_on(node)
        return shards


def routed(harness: Harness, *, timeout: float | None = None, **options: Any) -> Routed:
    """A new client; ``timeout`` is that of its connections."""
    backend = harness.router_backend(connection_timeout=timeout)
    return Routed(harness, backend, harness.client(backend=backend, **options))


@attrs.define
class Log:
    """What the sends of some workers came to."""

    times: list[float] = attrs.field(factory=list)
    ids: dict[int, str] = attrs.field(factory=dict)
    unknown: set[int] = attrs.field(factory=set)
    begun: int = 0

    def gap(self, since: float, until: float) -> float:
        """The longest time without a send that returned."""
        within = [since, *(t for t in self.times if since < t < until), until]
        return max(later - earlier for earlier, later in pairwise(within))


@asynccontextmanager
async def load(
    queue: AsyncQueue, options: Callable[[int], dict[str, Any]] = lambda _: {}
) -> AsyncIterator[Log]:
    """Workers that send numbers until the end of the block; they see no error but one."""
    log = Log()
    over = asyncio.Event()

    async def work() -> None:
        while not over.is_set():
            number = log.begun
            log.begun += 1
            try:
                log.ids[number] = await queue.send_message(number, **options(number))
                log.times.append(time.monotonic())
            except OutcomeUnknownError:
                log.unknown.add(number)
            await asyncio.sleep(PAUSE)

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(work())
        try:
            yield log
        finally:
            over.set()


async def more(log: Log, number: int, within: float = 10.0) -> None:
    """Wait for so many more sends."""
    goal = len(log.ids) + number

    async def enough() -> bool:
        return len(log.ids) >= goal

    await eventually(enough, within=within, what=f"{number} more sends")


async def everything(queue: AsyncQueue) -> Counter[int]:
    """How often each number is in the queue; it is empty then."""
    found: Counter[int] = Counter()
    while (await queue.get_info()).message_count:
        messages = await queue.get_messages(500, timeout=0.5)
        assert await queue.acknowledge_messages(messages) == len(messages)
        found.update(message.data for message in messages)
    return found


def reconcile(log: Log, found: Counter[int]) -> None:
    """Each send that returned is found exactly once; one of unknown outcome once at most."""
    wrong = {n: (one, found[n]) for n, one in log.ids.items() if found[n] != 1}
    assert not wrong, f"sends that returned, and how often they are found: {wrong}"
    doubled = {n: found[n] for n in log.unknown if found[n] > 1}
    assert not doubled, f"sends of unknown outcome, and how often they are found: {doubled}"
    assert found.keys() <= log.ids.keys() | log.unknown


# --- under load


@pytest.mark.on("hash-redis", "round-redis")
async def test_sends_go_on_when_a_server_is_killed_and_it_gets_its_share_back(
    harness: Harness,
) -> None:
    router = routed(harness)
    queue = router.mq.queue("orders")
    await queue.declare()
    server = harness.topologies[1]
    async with load(queue) as log:
        await more(log, 200)
        killed, watch = time.monotonic(), harness.stopwatch()
        await asyncio.to_thread(server.kill_primary)
        await more(log, 300)
        await asyncio.to_thread(server.revive)
        back, in_line = time.monotonic(), watch.in_line()
        first_back = len(log.ids)

        async def its_share() -> bool:
            latest = list(log.ids.values())[first_back:][-120:]
            there = sum(router.node_of(one) == "node1" for one in latest)
            return len(latest) == 120 and there >= 0.8 * 120 * router.share("node1")

        await eventually(its_share, within=BACK, what="the share of the server that is back")

    gap, usual = log.gap(killed, back), log.gap(log.times[0], killed)
    assert gap < GAP + usual + in_line, f"{gap:.2f} s without; before the kill, {usual:.2f} s"
    assert len(log.unknown) <= WORKERS  # what was on its way
    reconcile(log, await everything(queue))


@pytest.mark.on("hash-redis", "round-redis")
async def test_sends_to_a_frozen_server_are_unknown_and_nowhere_else(harness: Harness) -> None:
    router = routed(harness, timeout=0.5)
    queue = router.mq.queue("orders")
    await queue.declare()
    async with load(queue) as log:
        await more(log, 100)
        frozen, watch = time.monotonic(), harness.stopwatch()
        await asyncio.to_thread(harness.topologies[1].freeze_primary)
        await more(log, 400)
        thawed, in_line = time.monotonic(), watch.in_line()
        await asyncio.to_thread(harness.topologies[1].thaw)
        await more(log, 100)

    assert 1 <= len(log.unknown) <= WORKERS
    assert log.gap(frozen, thawed) < 0.5 + GAP + in_line + log.gap(log.times[0], frozen)
    reconcile(log, await everything(queue))


@pytest.mark.on("hash-redis", "round-redis")
async def test_with_dedup_ids_a_frozen_server_leaves_no_doubt(harness: Harness) -> None:
    router = routed(harness, timeout=0.5)
    queue = router.mq.queue("orders")
    await queue.declare()
    async with load(queue, lambda number: {"dedup_id": f"order-{number}"}) as log:
        await more(log, 100)
        await asyncio.to_thread(harness.topologies[1].freeze_primary)
        # Every worker comes to one that is meant for the frozen server, and stays with it.
        await later(0.8)
        await asyncio.to_thread(harness.topologies[1].thaw)
        await more(log, 100)

    assert not log.unknown
    found = await everything(queue)
    assert found == Counter(dict.fromkeys(log.ids, 1))


async def later(seconds: float) -> None:
    """A moment at which what is under way has come some way."""
    await asyncio.sleep(seconds)


# --- a reply that is lost


async def loaded(queue: AsyncQueue) -> None:
    """Have all servers know the script that sends: else the reply that is lost may be that they
    do not."""
    await queue.send_messages(range(10 * SHARDS), key=str)
    await everything(queue)


async def send_until_unknown(queue: AsyncQueue, number: int) -> list[int]:
    """Send so many numbers one by one; returns those of unknown outcome."""
    unknown = []
    for n in range(number):
        try:
            await queue.send_message(n)
        except OutcomeUnknownError:
            unknown.append(n)
    return unknown


@pytest.mark.on("hash-redis", "round-redis")
async def test_a_send_whose_reply_was_lost_is_unknown_and_only_where_it_was(
    harness: Harness,
) -> None:
    router = routed(harness)
    queue = router.mq.queue("orders")
    await loaded(queue)
    trap = harness.topologies[2].drop_next_reply(match=b"EVALSHA")

    unknown = await send_until_unknown(queue, 30)

    assert trap.hits == 1
    assert len(unknown) == 1
    messages = await drain(queue, 30)
    assert sorted(m.data for m in messages) == list(range(30))
    [doubtful] = [m for m in messages if m.data in unknown]
    assert router.node_of(doubtful.id) == "node2"


@pytest.mark.on("hash-redis", "round-redis")
async def test_a_send_with_a_dedup_id_is_repeated_where_it_was(harness: Harness) -> None:
    router = routed(harness)
    queue = router.mq.queue("orders")
    ids = [await queue.send_message(n, dedup_id=f"order-{n}") for n in range(30)]
    trap = harness.topologies[2].drop_next_reply(match=b"EVALSHA")

    other = routed(harness).mq.queue("orders")
    again = [await other.send_message(n, dedup_id=f"order-{n}") for n in range(30)]

    assert trap.hits == 1
    assert again == ids
    assert await everything(queue) == Counter(range(30))


@pytest.mark.on("hash-redis", "round-redis")
async def test_a_bulk_send_tells_what_is_unknown_of_the_node_that_did_not_answer(
    harness: Harness,
) -> None:
    router = routed(harness)
    queue = router.mq.queue("orders")
    await loaded(queue)
    harness.topologies[1].drop_next_reply(match=b"EVALSHA")

    with pytest.raises(BulkSendError) as caught:
        await queue.send_messages(range(1200))

    error = caught.value
    assert {router.node_of(one) for one in error.confirmed.values()} == {"node0", "node2"}
    assert len(error.unknown) == 1200 - len(error.confirmed)
    assert not error.unsent
    found = await everything(queue)
    assert found == Counter(range(1200))  # the reply was lost, and not the request


# --- nodes that are down


def key_for(shard: int) -> str:
    """A key whose messages are in this shard."""
    return next(key for n in range(1000) if shard_of(key := f"customer-{n}", SHARDS) == shard)


@pytest.mark.on("hash-redis")
async def test_of_a_node_that_is_down_its_shards_fail_by_name_and_the_others_go_on(
    harness: Harness,
) -> None:
    router = routed(harness, deadline=0.3)
    queue = router.mq.queue("orders")
    await queue.declare()
    await harness.kill(1)
    down = router.shards_on("node1")
    assert 0 < len(down) < SHARDS

    for shard in range(SHARDS):
        if shard not in down:
            sent = await queue.send_message(shard, key=key_for(shard))
            assert sent.startswith(f"{shard}#")
            continue
        watch = harness.stopwatch()
        with pytest.raises(ConnectionError, match=rf"node 'node1' \(shard {shard} of queue 'ord"):
            await queue.send_message(shard, key=key_for(shard))
        assert watch.own() < 1.0
    keyless = [await queue.send_message("free") for _ in range(20)]

    assert {router.node_of(one) for one in keyless} == {"node0", "node2"}


@pytest.mark.on("hash-redis", "round-redis")
async def test_without_a_single_retry_messages_without_keys_find_a_node_that_is_up(
    harness: Harness,
) -> None:
    router = routed(harness, max_retries=0)
    queue = router.mq.queue("orders")
    await queue.declare()
    await harness.kill(1)

    sent = [await queue.send_message(n) for n in range(30)]
    sent += await queue.send_messages(range(30, 1500))

    assert {router.node_of(one) for one in sent} == {"node0", "node2"}
    assert await drain_some(queue, 1500) == Counter(range(1500))


@pytest.mark.on("hash-redis", "round-redis")
async def test_messages_without_keys_go_round_a_node_that_is_full(harness: Harness) -> None:
    router = routed(harness, max_retries=0)
    queue = router.mq.queue("orders")
    await queue.declare()

    with states.out_of_memory(harness.topologies[1]):
        sent = [await queue.send_message(n) for n in range(30)]
        sent += await queue.send_messages(range(30, 1500))
        if harness.router == "hash":
            key = key_for(router.shards_on("node1")[0])
            with pytest.raises(
                QueueFullError, match=r"node 'node1' \(shard \d of queue 'orders'\)"
            ):
                await queue.send_message("bound", key=key)

    assert {router.node_of(one) for one in sent} == {"node0", "node2"}
    assert await drain_some(queue, 1500) == Counter(range(1500))


async def drain_some(queue: AsyncQueue, number: int) -> Counter[int]:
    """So many messages, from the nodes that are up."""
    return Counter(message.data for message in await drain(queue, number))


@pytest.mark.on("hash-redis")
async def test_a_bulk_send_tells_exactly_what_is_stored_when_a_node_is_down(
    harness: Harness,
) -> None:
    router = routed(harness, deadline=0.3)
    queue = router.mq.queue("orders")
    await queue.declare()
    await harness.kill(1)
    down = router.shards_on("node1")
    items = [Outgoing(n, key=f"customer-{n}") for n in range(60)]

    with pytest.raises(BulkSendError) as caught:
        await queue.send_messages(items)

    error = caught.value
    lost = {n for n in range(60) if shard_of(f"customer-{n}", SHARDS) in down}
    assert 0 < len(lost) < 60
    assert set(error.unsent) == lost
    assert error.unknown == ()
    assert set(error.confirmed) == set(range(60)) - lost
    await asyncio.to_thread(harness.topologies[1].revive)
    await patient(queue.send_messages, [items[n] for n in error.unsent])
    assert await everything(queue) == Counter(range(60))


async def patient(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a call that a short deadline may end too soon."""

    async def tried() -> Any:
        try:
            return await call(*arguments)
        except ConnectionError:
            return None

    return await eventually(tried, within=BACK, what="a call after the return of the node")


@pytest.mark.on("hash-redis", "round-redis")
async def test_receiving_goes_on_from_the_nodes_that_are_up(harness: Harness) -> None:
    router = routed(harness)
    queue = router.mq.queue("orders")
    sent = {await queue.send_message(n): n for n in range(30)}
    await harness.kill(1)
    up = {one: n for one, n in sent.items() if router.node_of(one) != "node1"}

    messages = await drain(queue, len(up))
    assert {m.id: m.data for m in messages} == up

    # Waiting, too: the node is tried again and again meanwhile.
    sender = routed(harness).mq.queue("orders")
    delays = []
    for n in range(4):
        waiting = asyncio.create_task(queue.get_messages(timeout=5))
        await later(0.1 * n)
        watch = harness.stopwatch()
        await sender.send_message(n)
        [message] = await waiting
        delays.append(watch.own())
        await queue.acknowledge_messages(message)
    assert max(delays) < 0.5, delays

    await asyncio.to_thread(harness.topologies[1].revive)
    rest = await drain(queue, 30 - len(up))
    assert {m.id for m in rest} == sent.keys() - up.keys()


@pytest.mark.on("hash-redis", "round-redis")
async def test_a_node_that_freezes_holds_up_a_waiting_consumer_once_at_most(
    harness: Harness,
) -> None:
    timeout = 0.5
    router = routed(harness, timeout=timeout)
    queue = router.mq.queue("orders")
    await queue.declare()
    sender = routed(harness, timeout=timeout).mq.queue("orders")
    await sender.declare()
    await asyncio.to_thread(harness.topologies[1].freeze_primary)

    delays = []
    for n in range(4):
        waiting = asyncio.create_task(queue.get_messages(timeout=5))
        sent = None
        while sent is None:
            watch = harness.stopwatch()
            try:
                sent = await sender.send_message(n)
            except OutcomeUnknownError:  # it was the turn of the frozen one
                continue
        [message] = await waiting
        delays.append(watch.own())
        await queue.acknowledge_messages(message)

    assert delays[0] < timeout + 0.5, delays
    assert max(delays[1:]) < 0.5, delays


@pytest.mark.on("hash-redis")
async def test_a_new_queue_waits_for_a_node_that_is_down_and_is_made_at_its_return(
    harness: Harness,
) -> None:
    await harness.kill(1)
    impatient = routed(harness, deadline=0.3).mq.queue("orders")
    with pytest.raises(
        ConnectionError, match=r"node 'node1'.*'orders' is new, .*127.0.0.1:.* cannot be reached"
    ):
        await impatient.send_message(0)
    patient_one = routed(harness).mq.queue("orders")
    sending = asyncio.create_task(patient_one.send_message(1))

    await asyncio.to_thread(harness.topologies[1].revive)

    assert await asyncio.wait_for(sending, BACK)
    await patient(impatient.send_message, 2)
    assert await everything(patient_one) == Counter([1, 2])


@pytest.mark.on("hash-redis", "round-redis")
async def test_a_client_that_was_opened_while_a_node_was_down_takes_it_in_later(
    harness: Harness,
) -> None:
    before = routed(harness).mq.queue("orders")
    await before.send_messages(range(300), key=str)
    await harness.kill(1)
    queue = routed(harness).mq.queue("orders")
    with pytest.raises(LeanMQError, match="node 'node1'"):
        await routed(harness, deadline=0.2).mq.queue("orders").get_info()

    got = await queue.get_messages(500, timeout=2)
    assert 0 < len(got) < 300

    await asyncio.to_thread(harness.topologies[1].revive)
    got += await drain(queue, 300 - len(got))
    assert sorted(m.data for m in got) == list(range(300))


@pytest.mark.on("hash-redis", "round-redis")
async def test_what_one_node_handed_out_in_a_lost_reply_comes_again_at_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(range(60), key=str)
    consumer = harness.client().queue("orders")
    await consumer.declare()
    caught = harness.topologies[1].drop_next_reply(None, script("receive").sha.encode())

    messages: list[Message[Any]] = []
    while len(messages) < 60:
        more = await consumer.get_messages(30, timeout=5)  # the lease is a minute
        assert more, f"{len(messages)} of 60 messages came"
        messages += more

    assert caught.wait(0)
    assert sorted(m.data for m in messages) == list(range(60))
    assert {m.delivery_count for m in messages} == {1}
    assert await consumer.acknowledge_messages(messages) == 60
