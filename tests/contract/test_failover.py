"""Servers that die, fail over, restart, and slots that move, under a producer and a consumer.

Both loops must go on by themselves within 15 seconds, and see nothing but LeanMQErrors. Redis
replicates asynchronously: what a failover loses is counted and shown, and is bounded here where
Redis bounds it.
"""

from __future__ import annotations

import asyncio

import pytest

from leanmq import AsyncQueue
from leanmq.backends.streams.keys import queue_keys
from tests.contract.harness import Harness, drain, eventually
from tests.contract.traffic import Traffic
from tests.support.cluster import ClusterTopology

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def key(harness: Harness) -> str:
    """A key of the queue: which node is meant."""
    return queue_keys(harness.prefix, "orders", "orders").live.stream


@pytest.mark.on("redis", "sentinel", "cluster")
async def test_work_goes_on_after_the_primary_was_killed(harness: Harness, key: str) -> None:
    servers = harness.servers
    async with Traffic(harness) as traffic:
        await asyncio.to_thread(servers.kill_primary, key)
        if not servers.can_failover:
            await asyncio.to_thread(servers.revive)
        await traffic.goes_on()

    account = await traffic.account("kill -9 primary")

    assert len(account.lost) <= (0 if harness.subject == "redis" else 20)
    assert account.twice <= 20


@pytest.mark.on("redis")
async def test_work_goes_on_after_a_restart(harness: Harness, key: str) -> None:
    async with Traffic(harness) as traffic:
        await asyncio.to_thread(harness.servers.restart_primary, key, graceful=True)
        await traffic.goes_on()

    account = await traffic.account("restart")

    assert account.lost == ()
    assert account.twice <= 20


@pytest.mark.on("sentinel", "cluster")
async def test_work_goes_on_after_a_planned_failover(harness: Harness, key: str) -> None:
    async with Traffic(harness) as traffic:
        servers = harness.servers
        old = await asyncio.to_thread(servers.failover, key)
        new = await asyncio.to_thread(servers.wait_for_new_primary, key, old)

        async def sends_arrive() -> bool:  # there, while the old one still says it is primary
            return await asyncio.to_thread(servers.entries_added, new, key) > before

        before = await asyncio.to_thread(servers.entries_added, new, key)
        await eventually(sends_arrive, within=15, what="a send to the new primary")
        later = len(traffic.confirmed)
        await traffic.goes_on(messages=later)  # what is lost is of the first half, then

    account = await traffic.account("planned failover")

    if harness.subject == "cluster":
        assert account.lost == ()
    # Sentinel: a second or two of sends to the old primary, which nobody can undo (facts).
    assert len(account.lost) <= account.confirmed / 2
    assert account.losing < 5
    assert not {*account.lost} & {*traffic.confirmed[later:]}, "lost once the new one was in use"


@pytest.mark.on("cluster")
async def test_work_goes_on_while_the_slot_moves_away_and_back(harness: Harness, key: str) -> None:
    cluster = harness.servers
    assert isinstance(cluster, ClusterTopology)
    async with Traffic(harness) as traffic:
        for _ in range(3):
            source, target = await asyncio.to_thread(cluster.move_slot, key)
            await traffic.goes_on()
            await asyncio.to_thread(cluster.move_slot, key, to=source)
            await traffic.goes_on()
            assert target is not source

    account = await traffic.account("slot away and back x3")

    assert account.errors == {}
    assert account.lost == ()
    assert account.twice == 0


@pytest.mark.on("redis", "sentinel", "cluster")
async def test_a_frozen_server_hangs_nobody(harness: Harness, key: str) -> None:
    servers = harness.servers
    async with Traffic(harness) as traffic:
        await asyncio.to_thread(servers.freeze_primary, key)
        if not servers.can_failover:
            await asyncio.sleep(0.5)
            await asyncio.to_thread(servers.thaw)
        await traffic.goes_on(within=20)

    account = await traffic.account("frozen primary")

    assert len(account.lost) <= 20


@pytest.mark.on("redis", "sentinel", "cluster")
async def test_scripts_that_were_flushed_are_loaded_again(
    queue: AsyncQueue, harness: Harness, key: str
) -> None:
    for n in range(5):
        await queue.send_message(n)
        servers = harness.servers
        await asyncio.to_thread(servers.ask, servers.primary_for(key), "SCRIPT", "FLUSH")

    assert [m.data for m in await drain(queue, 5)] == list(range(5))
