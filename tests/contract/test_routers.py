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

from leanmq import AsyncQueue, BulkSendError, LeanMQError, OutcomeUnknownError, Outgoing
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import SHARDS, Client, Harness, drain, eventually

pytestmark = pytest.mark.timeout(60)

WORKERS = 8
PAUSE = 0.004
"""Seconds between two sends of a worker, so that the proxies in this process keep up."""

GAP = 1.0
"""Seconds within which sends go on."""

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


async def more(log: Log, number: int, within: float = 5.0) -> None:
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
    wrong = {n: found[n] for n in log.ids if found[n] != 1}
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
        killed = time.monotonic()
        await asyncio.to_thread(server.kill_primary)
        await more(log, 300)
        await asyncio.to_thread(server.revive)
        back = time.monotonic()
        first_back = len(log.ids)

        async def its_share() -> bool:
            latest = list(log.ids.values())[first_back:][-120:]
            there = sum(router.node_of(one) == "node1" for one in latest)
            return len(latest) == 120 and there >= 0.8 * 120 * router.share("node1")

        await eventually(its_share, within=BACK, what="the share of the server that is back")

    gap = log.gap(killed, back)
    assert gap < GAP, f"no send returned for {gap:.2f} s after the kill"
    assert len(log.unknown) <= WORKERS  # what was on its way
    reconcile(log, await everything(queue))


@pytest.mark.on("hash-redis", "round-redis")
async def test_sends_to_a_frozen_server_are_unknown_and_nowhere_else(harness: Harness) -> None:
    router = routed(harness, timeout=0.5)
    queue = router.mq.queue("orders")
    await queue.declare()
    async with load(queue) as log:
        await more(log, 100)
        frozen = time.monotonic()
        await asyncio.to_thread(harness.topologies[1].freeze_primary)
        await more(log, 400)
        thawed = time.monotonic()
        await asyncio.to_thread(harness.topologies[1].thaw)
        await more(log, 100)

    assert 1 <= len(log.unknown) <= WORKERS
    assert log.gap(frozen, thawed) < 0.5 + GAP
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
        stuck = time.monotonic() + 1.0
        await eventually(lambda: _passed(stuck), within=2, what="a second")
        await asyncio.to_thread(harness.topologies[1].thaw)
        await more(log, 100)

    assert not log.unknown
    found = await everything(queue)
    assert found == Counter(dict.fromkeys(log.ids, 1))


async def _passed(moment: float) -> bool:
    return time.monotonic() > moment
