"""Where the shards of a queue are and what is in them, asked of a router and of a queue."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq import AsyncLeanMQ, LeanMQ, PlacementError, QueueNotFoundError
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import SHARDS, Client, Harness

pytestmark = pytest.mark.on("hash-memory", "hash-redis", "hash-cluster")


async def test_the_placement_is_the_same_for_every_router_over_the_nodes(
    harness: Harness, mq: Client
) -> None:
    await mq.queue("orders").send_message("tea")

    first, second = harness.router_backend(), harness.router_backend()
    found = [await harness.call(router.placement, "orders") for router in (first, second)]

    assert found[0] == found[1]
    assert found[0].shards == SHARDS
    assert set(found[0].nodes) == set(harness.nodes)
    for router in (first, second):
        await harness.call(router.close)


async def test_what_is_in_each_shard_is_counted_by_state(harness: Harness, mq: Client) -> None:
    orders = mq.queue("orders")
    shard = shard_of("ann", SHARDS)
    for number in range(4):
        await orders.send_message(number, key="ann")
    await orders.send_message("later", key="ann", delay=60)
    held, dying = await orders.get_messages(2)
    await orders.move_to_dlq(dying, reason="no address")

    router = harness.router_backend()
    placement = await harness.call(router.placement, "orders")
    found = await harness.call(router.stats_by_shard, "orders")
    await harness.call(router.close)

    assert [(one.shard, one.node) for one in found] == list(enumerate(placement.where))
    counts = (found[shard].ready, found[shard].in_flight, found[shard].delayed, found[shard].dead)
    assert counts == (2, 1, 1, 1)
    assert sum(one.ready + one.in_flight + one.delayed + one.dead for one in found) == 5
    assert not any(one.error for one in found)
    await orders.acknowledge_messages(held)


async def test_looking_at_a_queue_that_does_not_exist_does_not_make_it(
    harness: Harness, mq: Client
) -> None:
    router = harness.router_backend()

    for look in (router.placement, router.stats_by_shard):
        with pytest.raises(QueueNotFoundError, match="'orders' does not exist"):
            await harness.call(look, "orders")
    await harness.call(router.close)

    assert await mq.list_queues() == []


@pytest.mark.on("memory", "redis", "sentinel", "cluster")
async def test_a_queue_in_shards_on_one_deployment_tells_the_same(harness: Harness) -> None:
    kind: Any = LeanMQ if harness.world == "sync" else AsyncLeanMQ
    opened = kind(harness.url, prefix=harness.prefix)
    orders = opened.sharded_queue("orders", shards=SHARDS)
    await harness.call(orders.send_message, {"id": 7}, None)

    other = kind(harness.url, prefix=harness.prefix)
    unsure = other.sharded_queue("orders")  # looks do not ask for a number of shards
    placement = await harness.call(unsure.placement)
    found = await harness.call(unsure.stats_by_shard)

    assert placement.shards == len(found) == SHARDS
    assert set(placement.nodes) == {"default"}
    assert sum(one.ready for one in found) == 1
    for client in (opened, other):
        await harness.call(client.close)


@pytest.mark.on("hash-redis")
async def test_a_node_that_is_down_costs_its_own_figures_alone(
    harness: Harness, mq: Client
) -> None:
    await mq.queue("orders").send_messages(range(10))
    harness.topologies[1].kill_primary()

    router = harness.router_backend()
    placement = await harness.call(router.placement, "orders")
    found = await harness.call(router.stats_by_shard, "orders")
    await harness.call(router.close)

    down = {one.shard for one in found if one.error}
    assert down == set(placement.shards_on("node1"))
    assert 0 < len(down) < SHARDS
    assert all("node 'node1'" in (found[shard].error or "") for shard in down)


@pytest.mark.on("hash-redis")
async def test_a_placement_on_other_nodes_is_not_taken_for_ours(
    harness: Harness, mq: Client
) -> None:
    await mq.queue("orders").send_message("tea")
    kind: Any = LeanMQ if harness.world == "sync" else AsyncLeanMQ

    alone = kind(harness.urls[0], prefix=harness.prefix)
    for look in ("placement", "stats_by_shard"):
        with pytest.raises(PlacementError, match="on other nodes"):
            await harness.call(getattr(alone.sharded_queue("orders"), look))
    await harness.call(alone.close)
