"""What stands before routers: producers that share out, queues in shards, routers of routers."""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import leanmq
from leanmq import ClosedError, CrossSlotTransactionError, QueueSettingsError
from leanmq.sharding.hashing import shard_of
from tests.contract.harness import SHARDS, Harness, drain

pytestmark = pytest.mark.timeout(60)

ROOT = Path(__file__).parents[2]

balanced = pytest.mark.on("round-memory", "round-redis")
in_shards = pytest.mark.on("hash-memory", "hash-redis")


def kind(harness: Harness, name: str) -> Any:
    """The class of this name for the world of the subject."""
    return getattr(leanmq, name if harness.world == "sync" else f"Async{name}")


async def everything(harness: Harness, queue: Any) -> list[Any]:
    """The payloads in a queue of either world, which is empty then."""
    found: list[Any] = []
    while messages := await harness.call(queue.get_messages, 500):
        await harness.call(queue.acknowledge_messages, messages)
        found += [message.data for message in messages]
    return found


# --- shares


WORKERS = 8


async def sends(backend: Any) -> dict[str, int]:
    return {name: stats.sends for name, stats in backend.stats_by_target().items()}


@pytest.mark.on("round-redis", worlds=("sync",))  # tasks take turns; memory takes ten seconds
async def test_nine_thousand_sends_of_eight_threads_are_three_thousand_each(
    harness: Harness,
) -> None:
    backend = harness.router_backend()
    queue = leanmq.LeanMQ(backend=backend).queue("orders")

    def work(number: int) -> list[str]:
        return [queue.send_message(n) for n in range(number, 9_000, WORKERS)]

    ids = await asyncio.gather(*(harness.run(work, number) for number in range(WORKERS)))

    assert await sends(backend) == {"node0": 3_000, "node1": 3_000, "node2": 3_000}
    assert len({one for some in ids for one in some}) == 9_000
    await harness.run(backend.close)


@balanced
async def test_bulk_sends_are_shared_out_as_exactly(harness: Harness) -> None:
    backend = harness.router_backend()
    client = harness.client(backend=backend)
    sizes = (1, 10, 100, 339, 600, 450, 700, 800)
    assert sum(sizes) == 3_000

    ids = await asyncio.gather(
        *(client.queue("orders").send_messages(range(size)) for size in sizes)
    )

    assert await sends(backend) == {"node0": 1_000, "node1": 1_000, "node2": 1_000}
    assert len({one for some in ids for one in some}) == 3_000


@balanced
async def test_shares_are_by_weight_one_by_one_and_in_bulk(harness: Harness) -> None:
    backend = harness.router_backend(weights={"node0": 1, "node1": 2, "node2": 3})
    queue = harness.client(backend=backend).queue("orders")
    for n in range(60):
        await queue.send_message(n)
    assert await sends(backend) == {"node0": 10, "node1": 20, "node2": 30}

    await queue.send_messages(range(540))

    assert await sends(backend) == {"node0": 100, "node1": 200, "node2": 300}


@balanced
async def test_least_backlog_spares_the_target_whose_consumer_is_slow(harness: Harness) -> None:
    slow = harness.client(backend=None, url=harness.urls[0], prefix=harness.prefix).queue("orders")
    await slow.send_messages(range(500))
    backend = harness.router_backend(strategy="least-backlog")
    queue = harness.client(backend=backend).queue("orders")

    for n in range(100):
        await queue.send_message(n)
    shares = await sends(backend)
    assert shares["node0"] < 15
    assert min(shares["node1"], shares["node2"]) > 25

    await drain(slow, 500 + shares["node0"])
    began = time.monotonic()
    while (await sends(backend))["node0"] < shares["node0"] + 10:
        await queue.send_message("more")
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 5, "it is spared although it has caught up"


# --- LoadBalancedProducer


@balanced
async def test_a_producer_takes_turns_over_urls(harness: Harness) -> None:
    producer = kind(harness, "LoadBalancedProducer")(harness.urls, prefix=harness.prefix)
    for n in range(9):
        await harness.call(producer.send_message, "orders", {"n": n})
    shares = {name: stats.sends for name, stats in producer.stats().items()}
    assert shares == {"target1": 3, "target2": 3, "target3": 3}

    found = []
    for url in harness.urls:
        at = harness.client(backend=None, url=url, prefix=harness.prefix).queue("orders")
        found += [m.data["n"] for m in await drain(at, 3)]

    assert sorted(found) == list(range(9))
    await harness.call(producer.close)
    with pytest.raises(ClosedError):
        await harness.call(producer.send_message, "orders", 1)


@balanced
async def test_a_producer_over_clients_leaves_them_open(harness: Harness) -> None:
    world = kind(harness, "LeanMQ")
    clients = [world(url, prefix=harness.prefix) for url in harness.urls[:2]]
    producer = kind(harness, "LoadBalancedProducer")(
        {"eu": clients[0], "us": clients[1]}, weights={"us": 2}
    )
    queue = producer.queue("orders")
    await harness.call(queue.send_messages, range(30))
    assert {name: stats.sends for name, stats in producer.stats().items()} == {"eu": 10, "us": 20}
    await harness.call(producer.close)

    counts = [
        (await harness.call(client.queue("orders").get_info)).message_count for client in clients
    ]
    assert counts == [10, 20]
    for client in clients:
        await harness.call(client.close)


@pytest.mark.on("round-redis")
async def test_a_producer_takes_the_hosts_and_ports_of_older_code(harness: Harness) -> None:
    ports = [int(url.rsplit(":", 1)[1].split("/")[0]) for url in harness.urls]
    older = [
        {"host": "127.0.0.1", "port": port, "db": 0, "prefix": harness.prefix} for port in ports
    ]
    producer = kind(harness, "LoadBalancedProducer")(older)
    for n in range(6):
        await harness.call(producer.send_message, "orders", {"n": n})
    await harness.call(producer.close)

    whole = harness.client().queue("orders")
    assert sorted(m.data["n"] for m in await drain(whole, 6)) == list(range(6))


@pytest.mark.on("round-redis")
async def test_a_producer_tells_which_target_fails_and_why(harness: Harness) -> None:
    producer = kind(harness, "LoadBalancedProducer")(harness.nodes, prefix=harness.prefix)
    await harness.call(producer.send_message, "orders", 0)
    await harness.kill(1)
    for n in range(1, 31):
        await harness.call(producer.send_message, "orders", n)

    stats = producer.stats()

    assert sum(one.sends for one in stats.values()) == 31
    assert stats["node1"].failures >= 1
    assert stats["node1"].state == "open"
    assert "node 'node1'" in (stats["node1"].last_error or "")
    assert (stats["node0"].failures, stats["node0"].state) == (0, "closed")
    await harness.call(producer.close)


@balanced
async def test_targets_that_cannot_be_are_refused_at_once(harness: Harness) -> None:
    producer = kind(harness, "LoadBalancedProducer")
    other = "AsyncLeanMQ" if harness.world == "sync" else "LeanMQ"
    foreign = getattr(leanmq, other)("memory://")
    with pytest.raises(TypeError, match="single URL; give a list"):
        producer("memory://a")
    with pytest.raises(ValueError, match="no targets"):
        producer([])
    with pytest.raises(ValueError, match="target 'target1' has 'hst'; give host, port"):
        producer([{"hst": "127.0.0.1"}])
    with pytest.raises(ValueError, match="target 'target1' has the host None; give a name"):
        producer([{"host": None}])
    with pytest.raises(ValueError, match="target 'target1' has the port 'x'; give a number"):
        producer([{"host": "127.0.0.1", "port": "x"}])
    with pytest.raises(TypeError, match="a single target; put it into a list"):
        producer({"host": "127.0.0.1", "port": 6379})
    with pytest.raises(TypeError, match="targets is of type NoneType; give a list"):
        producer(None)
    with pytest.raises(TypeError, match=r"weights is a list; give numbers by the names"):
        producer(["memory://a"], weights=[1])
    with pytest.raises(TypeError, match=r"client of the other world; give a (Async)?LeanMQ"):
        producer([foreign])
    with pytest.raises(TypeError, match="node 'target1' is a int; give a URL"):
        producer([7])
    result = foreign.close()
    if inspect.isawaitable(result):
        await result


@pytest.mark.parametrize("nodes", [["memory://a"], "memory://a", None])
async def test_nodes_without_names_are_refused_at_once(harness: Harness, nodes: Any) -> None:
    for front in ("ConsistentHashRouter", "RoundRobinRouter"):
        with pytest.raises(TypeError, match=r"nodes is a \w+; give each a name"):
            kind(harness, front)(nodes)
    with pytest.raises(TypeError, match=r"nodes is a \w+; give each a name"):
        kind(harness, "ShardedQueue")("orders", nodes)


# --- queues in shards


@in_shards
async def test_a_queue_in_shards_and_its_shards_are_the_same_messages(harness: Harness) -> None:
    queue = kind(harness, "ShardedQueue")(
        "orders", harness.nodes, shards=8, prefix=harness.prefix, lease=30
    )
    keys = [f"customer-{n}" for n in range(24)]
    sent = {key: await harness.call(queue.send_message, key, key=key) for key in keys}

    assert len(queue.shards) == 8
    for key in keys:
        shard = queue.shard_for(key)
        assert shard.name == queue.shard(shard_of(key, 8)).name == f"orders#{shard_of(key, 8)}"
        [stored] = await harness.call(shard.peek_messages, ids=sent[key])
        assert (stored.id, stored.data) == (sent[key], key)
    [message, *_] = await harness.call(queue.shard_for(keys[0]).get_messages, 1)
    assert message.id in sent.values()
    assert await harness.call(queue.shard_for(keys[0]).release_messages, message) == 1
    there = await harness.call(queue.shard(5).send_message, "stays", key=keys[0])
    assert there.startswith("5#")

    assert sorted(await everything(harness, queue)) == sorted([*keys, "stays"])
    for number in range(8):
        info = await harness.call(queue.shard(number).get_info)
        assert info.message_count == 0
    await harness.call(queue.close)


@in_shards
async def test_dead_letters_of_a_shard_are_those_of_the_queue(harness: Harness) -> None:
    queue = kind(harness, "ShardedQueue")("orders", harness.nodes, shards=4, prefix=harness.prefix)
    sent = await harness.call(queue.send_message, "broken", key="k")
    [message] = await harness.call(queue.get_messages, 1)
    assert await harness.call(queue.move_to_dlq, message, "why") == 1

    [letter] = await harness.call(queue.dlq.shard_for("k").get_messages)

    assert (letter.id, letter.error) == (sent, "why")
    assert await harness.call(queue.dlq.shard_for("k").requeue_messages, letter) == 1
    assert await everything(harness, queue) == ["broken"]
    await harness.call(queue.close)


@in_shards
async def test_a_shard_that_is_not_there_is_refused(harness: Harness) -> None:
    queue = kind(harness, "ShardedQueue")("orders", harness.nodes, shards=4, prefix=harness.prefix)
    for number in (-1, 4):
        with pytest.raises(ValueError, match=f"4 shards, 0 to 3; there is no shard {number}"):
            queue.shard(number)
    for wrong in ("key", True, 1.0):
        with pytest.raises(TypeError, match="for the shard of a key use shard_for"):
            queue.shard(wrong)
    with pytest.raises(TypeError):
        queue.shard_for(7)
    await harness.call(queue.close)


@in_shards
async def test_a_shard_that_was_placed_anew_is_followed(harness: Harness) -> None:
    sharded = kind(harness, "ShardedQueue")
    queue = sharded("orders", harness.nodes, shards=8, prefix=harness.prefix)
    for number in range(8):
        await harness.call(queue.shard(number).send_message, "old")
    await harness.call(queue.send_message, "old")
    weighted = sharded(
        "orders", harness.nodes, weights={"node2": 100}, shards=8, prefix=harness.prefix
    )
    before = await harness.recorded("orders")
    await harness.call(weighted.delete, delete_dlq=True)
    await harness.call(weighted.declare)
    assert await harness.recorded("orders") != before

    await harness.call(queue.send_messages, range(40), key=str)
    for number in range(8):
        await harness.call(queue.shard(number).send_message, f"shard {number}")

    found = await everything(harness, weighted)
    assert Counter(found) == Counter([*range(40), *(f"shard {n}" for n in range(8))])
    await harness.call(queue.close)
    await harness.call(weighted.close)


@pytest.mark.on("memory", "redis", "sentinel", "cluster")
async def test_a_queue_in_shards_on_one_deployment(harness: Harness) -> None:
    mq = kind(harness, "LeanMQ")(harness.url, prefix=harness.prefix)
    queue = mq.sharded_queue("orders", shards=16)
    sent = await harness.call(queue.send_messages, [f"key {n}" for n in range(64)], key=str)
    plain = await harness.call(mq.queue("plain").send_message, "beside")

    assert {int(one.partition("#")[0]) for one in sent} == {
        shard_of(f"key {n}", 16) for n in range(64)
    }
    assert "#" not in plain
    infos = await harness.call(mq.list_queues)
    assert [(i.name, i.message_count, i.shards) for i in infos if not i.is_dlq] == [
        ("orders", 64, 16),
        ("plain", 1, 0),
    ]
    with pytest.raises(QueueSettingsError, match="has 16 shards, you asked for 8"):
        await harness.call(mq.sharded_queue("orders", shards=8).send_message, 1)
    with pytest.raises(QueueSettingsError, match=r"'plain' exists .*without shards"):
        await harness.call(mq.sharded_queue("plain", shards=8).send_message, 1)
    with pytest.raises(QueueSettingsError, match="'orders' is sharded"):
        await harness.call(mq.queue("orders").send_message, 1)
    assert sorted(await everything(harness, queue)) == sorted(f"key {n}" for n in range(64))
    await harness.call(mq.close)
    with pytest.raises(ClosedError):
        await harness.call(queue.send_message, 1)


@pytest.mark.on("memory", "redis", "sentinel", "cluster")
async def test_a_transaction_takes_queues_in_shards_of_its_client(harness: Harness) -> None:
    mq = kind(harness, "LeanMQ")(harness.url, prefix=harness.prefix)
    orders = mq.sharded_queue("orders", shards=8, slot="shop")
    mails = mq.sharded_queue("mails", shards=8, slot="shop")
    await harness.call(orders.send_message, "order", key="customer 7")
    [message] = await harness.call(orders.get_messages, timeout=5)

    tx = mq.transaction()
    tx.acknowledge(message)
    tx.send_message(mails, "mail", key="customer 7")
    tx.send_message("orders", "next", key="customer 7")
    [mail, following] = await harness.call(tx.execute)

    assert await everything(harness, orders) == ["next"]
    [received] = await harness.call(mails.get_messages, timeout=5)
    assert (received.id, received.data) == (mail, "mail")
    assert following.partition("#")[0] == mail.partition("#")[0]

    mixed = mq.transaction()
    mixed.send_message(orders, 1)
    with pytest.raises(CrossSlotTransactionError, match="either queues in shards"):
        mixed.send_message(mq.queue("plain"), 2)
    await harness.call(mq.close)


@pytest.mark.on("memory")
async def test_an_only_node_may_be_called_anything(harness: Harness) -> None:
    mq = kind(harness, "LeanMQ")(harness.url, prefix=harness.prefix)
    await harness.call(mq.sharded_queue("orders", shards=8).send_message, "there")

    named = kind(harness, "ShardedQueue")("orders", {"a": mq}, shards=8)
    assert await everything(harness, named) == ["there"]
    router = kind(harness, "ConsistentHashRouter")(
        {"b": harness.url}, prefix=harness.prefix, shards=8
    )
    over = kind(harness, "LeanMQ")(backend=router)
    assert len(over.sharded_queue("orders").shards) == 8, "as many as the router says"
    await harness.call(over.sharded_queue("orders").send_message, "more")
    assert await everything(harness, named) == ["more"]
    for client in (over, named, mq):
        await harness.call(client.close)


@in_shards
async def test_clients_that_are_nodes_stay_open(harness: Harness) -> None:
    world = kind(harness, "LeanMQ")
    clients = {n: world(url, prefix=harness.prefix) for n, url in harness.nodes.items()}
    queue = kind(harness, "ShardedQueue")("orders", clients, shards=SHARDS)
    await harness.call(queue.send_messages, range(20), key=str)
    await harness.call(queue.close)

    again = kind(harness, "ShardedQueue")("orders", clients, shards=SHARDS)
    assert sorted(await everything(harness, again)) == list(range(20))
    await harness.call(again.close)
    for client in clients.values():
        await harness.call(client.ping)
        await harness.call(client.close)


# --- routers in processes, and on routers

FORKS = """
import os, sys, threading
from leanmq import ConsistentHashRouter, LeanMQ, RoundRobinRouter
kind, prefix, *urls = sys.argv[1:]
nodes = {f"node{n}": url for n, url in enumerate(urls)}
router = (ConsistentHashRouter(nodes, shards=4, prefix=prefix) if kind == "hash"
          else RoundRobinRouter(nodes, prefix=prefix))
mq = LeanMQ(backend=router)
queue = mq.queue("orders")
queue.send_messages(range(100), key=str)
waiting = threading.Thread(target=lambda: queue.get_messages(1, timeout=2))
taken = queue.get_messages(100)  # threads of the router are about, and a receive is under way
assert len(taken) == 100, len(taken)
waiting.start()
child = os.fork()
if not child:
    assert queue.get_messages(100) == []  # the parent's are leased to the parent
    queue.send_messages(range(100, 200), key=str)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
waiting.join()
assert queue.acknowledge_messages(taken) == 100
mq.close()
print("done")
"""


@pytest.mark.on("hash-redis", "round-redis", worlds=("sync",))
async def test_a_fork_goes_on_with_the_router_that_it_inherited(harness: Harness) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", FORKS, harness.router, harness.prefix),
        *harness.urls,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=ROOT,
    )
    told, _ = await asyncio.wait_for(process.communicate(), 30)

    assert told.decode() == "done\n"
    queue = harness.client().queue("orders")
    assert (await queue.get_info()).message_count in (99, 100)
    found = [m.data for m in await queue.get_messages(200)]
    assert set(found) <= set(range(100, 200))


@pytest.mark.on("round-memory")
async def test_a_router_of_routers_sends_receives_and_settles(harness: Harness) -> None:
    inner = kind(harness, "ConsistentHashRouter")
    halves = {
        half: inner(
            {name: f"{harness.url}{half}{name}" for name in "ab"}, shards=4, prefix=harness.prefix
        )
        for half in ("left", "right")
    }
    backend = harness.router_backend(halves)
    queue = harness.client(backend=backend).queue("orders")
    ids = await queue.send_messages(range(100), key=str)
    ids += [await queue.send_message(n, dedup_id=str(n)) for n in range(100, 110)]

    assert {one.partition("#")[0] for one in ids} == {"left", "right"}
    assert len({one.split("#")[1] for one in ids}) == 4
    assert (await queue.get_info()).message_count == 110
    waiting = asyncio.create_task(queue.get_messages(200, timeout=5))
    messages = await waiting
    assert {m.id for m in messages} == set(ids)
    assert await queue.extend_messages(messages[:10]) == 10
    assert await queue.release_messages(messages[:10]) == 10
    assert await queue.move_to_dlq(messages[10:20], "why") == 10
    assert await queue.acknowledge_messages(messages[20:]) == 90
    assert await queue.dlq.requeue_messages(await queue.dlq.get_messages(20)) == 10
    assert len(await drain(queue, 20)) == 20
    later = asyncio.create_task(queue.get_messages(timeout=10))
    await queue.send_message("late")
    assert [m.data for m in await later] == ["late"]
