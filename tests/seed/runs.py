"""What is done with what a block of the document defines, and what shows that it worked.

``expect.py`` names these functions, one or two a block; they say with ``assert`` what its table
of figures cannot.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from leanmq.sharding.hashing import shard_of
from tests.seed.stage import Processes, Stage
from tests.support.waiting import wait_until

__all__ = [
    "BAD",
    "GOOD",
    "NAMELESS",
    "SHARDED",
    "SHIPPED",
    "adopt",
    "call",
    "consume_adaptively",
    "expire",
    "find_batch_size",
    "handle_asynchronously",
    "miss_a_heartbeat",
    "monitor",
    "name_servers",
    "poll",
    "process_shards",
    "process_shards_of_a_queue",
    "run_worker_processes",
    "send_by_a_balanced_producer",
    "send_in_turn",
    "send_short_lived",
    "serve",
    "serve_domains",
    "warn_of_long_queues",
]

GOOD = [{"id": n, "type": ("mail", "parcel")[n % 2]} for n in range(24)]
BAD = [{"id": n, "type": "wreck", "fail": "no wreck can be sent"} for n in (100, 101)]
NAMELESS = {"type": "mail"}  # process_message_async wants an id
SHIPPED = {"order_id": "ORD-12345", "status": "shipped", "customer_id": "CUST-789"}
SHARDED = [f"ORD-{n}" for n in range(16)]


def call(name: str) -> Callable[[Stage], object]:
    """Call a function that the block defines."""
    return lambda stage: stage.names[name]()


def run_worker_processes(stage: Stage) -> None:
    """``main`` starts a worker a core; Ctrl-C ends them when all is done."""
    orders, products = range(5), range(50, 55)
    sender = stage.webhook()
    for number in orders:
        sender.send("/order/status/", {"order_id": number})
    for number in products:
        sender.send("/product/inventory/", {"product_id": number})
    done = {f"order {n}" for n in orders} | {f"product {n}" for n in products}

    def processed() -> list[str]:
        lines = [line.split(" processing ") for line in stage.printed]
        return sorted(words[1] for words in lines if len(words) == 2)

    def sleep(seconds: float) -> None:
        stage.clock.sleep(seconds)
        if len(processed()) >= len(done) and not any(stage.left(sender.mq).values()):
            raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        stage.names["multiprocessing"] = Processes(pool)
        stage.names["time"] = SimpleNamespace(sleep=sleep)
        stage.names["main"]()

    assert processed() == sorted(done)
    assert sum("shutting down" in line for line in stage.printed) == 2


def handle_asynchronously(stage: Stage) -> None:
    work = stage.names["process_message_async"]

    async def process_message_async(data: Any) -> Any:
        result = await work(data)
        assert result == {"processed": True, "id": data["id"]}
        stage.handled.append(data)
        return result

    stage.names["process_message_async"] = process_message_async
    asyncio.run(stage.names["process_messages_async"]())


def serve_domains(stage: Stage) -> None:
    """Each domain's service handles what is sent to it, and nothing else."""
    domains = ("orders", "inventory", "users", "payments")
    for domain in domains:
        serve(stage, f"{domain}_webhook", f"{domain}_service", {"of": domain})


def serve(stage: Stage, webhook_name: str, service_name: str, data: dict[str, Any]) -> None:
    """Have a service handle a message, and stop it."""
    webhook, service = stage.names[webhook_name], stage.names[service_name]
    webhook.get("/new/")(stage.process_message)
    webhook.send("/new/", data)

    wait_until(lambda: data in stage.handled, 20, f"{service_name} to handle {data}")
    wait_until(lambda: not any(stage.left(webhook.mq).values()), 10, "it to be acknowledged")
    assert service.is_alive()
    service.stop()
    wait_until(lambda: not service.is_alive(), 10, f"{service_name} to stop")


def shard(key: str) -> int:
    """The number that the corrected form has for a key, in every process."""
    return zlib.crc32(key.encode()) % 4


def process_shards(stage: Stage) -> None:
    """One key goes to one shard, and each shard is processed by itself."""
    names = stage.names
    assert names["shard"] == shard("ORD-12345")
    for key in SHARDED:
        names["send_sharded_message"]("orders", key, {"order_id": key})
    for number in range(4):
        mine = [{"order_id": key} for key in SHARDED if shard(key) == number]
        mine = [SHIPPED] * (number == names["shard"]) + mine
        assert stage.stored(f"orders:shard{number}") == mine

    for number in range(4):
        stage.running.until(functools.partial(stage.drained, f"orders:shard{number}"))
        names["process_shard"]("orders", number)
    names["process_shard"]("orders", 4)
    assert stage.logged == [("ERROR", "Queue orders:shard4 not found")]


def process_shards_of_a_queue(stage: Stage) -> None:
    """As ``process_shards``, with shards of one queue, which whoever wants all asks at once."""
    names = stage.names
    orders = stage.mq.sharded_queue("orders", shards=4)
    for key in SHARDED:
        names["send_sharded_message"]("orders", key, {"order_id": key})
        assert names["get_shard_number"](key) == shard_of(key, 4)
    assert orders.get_info().ready_messages == len(SHARDED) + 1
    for number in range(4):
        mine = [{"order_id": key} for key in SHARDED if shard_of(key, 4) == number]
        mine = [SHIPPED] * (number == names["shard"]) + mine
        assert [m.data for m in orders.shard(number).peek_messages(100)] == mine

    def drained(number: int) -> bool:
        return orders.shard(number).get_info().ready_messages == 0

    for number in range(4):
        stage.running.until(functools.partial(drained, number))
        names["process_shard"]("orders", number)
        assert drained(number)
    with pytest.raises(ValueError, match="has 4 shards, 0 to 3; there is no shard 4"):
        names["process_shard"]("orders", 4)


def name_servers(*names: str) -> Callable[[Stage], None]:
    """The document's host names lead to the first servers of the subject."""

    def serve_names(stage: Stage) -> None:
        servers = stage.harness.servers.sentinels or stage.harness.servers.nodes
        stage.serve_names(
            {name: server.address for name, server in zip(names, servers, strict=False)}
        )

    return serve_names


def adopt(client_name: str) -> Callable[[Stage], None]:
    """Hand the client that the block made to LeanMQ."""

    def send_and_handle(stage: Stage) -> None:
        client = stage.names[client_name]
        mq = stage.client(redis_host="adopted", client=client)
        queue = mq.queue("orders")
        queue.send_messages(GOOD)
        for message in queue.get_messages(count=100):
            stage.process_message(message.data)
            queue.acknowledge_messages([message.id])

        assert stage.left(stage.client(redis_host="adopted")) == {"orders": 0}
        assert client.ping()  # it is still the user's
        client.close()

    return send_and_handle


CONFIGS: list[dict[str, Any]] = [
    {"host": "redis-a", "port": 6379},
    {"host": "redis-b", "port": 6380, "db": 1, "prefix": "mq:"},
]


def send_in_turn(stage: Stage) -> None:
    """Every other message goes to the same deployment."""
    producer = stage.names["LoadBalancedProducer"](CONFIGS)
    for data in GOOD:
        assert producer.send_message("orders", data)

    assert stored_by_turns(stage) == [GOOD[::2], GOOD[1::2]]


def stored_by_turns(stage: Stage) -> list[list[Any]]:
    """What each of the two deployments has, by clients of their own."""
    there = stage.client("redis-a", 6379, 0, ""), stage.client("redis-b", 6380, 1, "mq:")
    return [stage.stored("orders", mq) for mq in there]


def send_by_a_balanced_producer(stage: Stage) -> None:
    """In turn; equal messages too; and from threads that do not wait for each other."""
    same = {"type": "mail"}
    with stage.deployments():
        producer = stage.names["LoadBalancedProducer"](CONFIGS)
    for data in [*GOOD, same, same]:
        assert producer.send_message("orders", data)
    turns = [[*GOOD[::2], same], [*GOOD[1::2], same]]
    assert stored_by_turns(stage) in (turns, turns[::-1])  # it may begin with either

    with producer:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: producer.send_message("orders", {"id": n}), range(200)))
        sends = {name: target.sends for name, target in producer.stats().items()}
        counts = Counter({name: 100 + len(GOOD) // 2 + 1 for name in ("target1", "target2")})
        assert sends == counts
    assert [len(data) for data in stored_by_turns(stage)] == list(counts.values())


def consume_adaptively(stage: Stage) -> None:
    """While the first worker is held up, others are started; in the end all of them stop."""
    expected = len(GOOD) * 3 + len(BAD)
    stage.gate.clear()
    consumer = stage.names["AdaptiveConsumer"](stage.queue, min_workers=1, max_workers=3)
    consumer.start()
    try:
        wait_until(lambda: len(consumer.workers) == 3, 20, "two more workers")
        stage.gate.set()
        wait_until(lambda: len(stage.attempted) >= expected, 30, "all messages to be tried")
        wait_until(stage.drained, 10, "none to be ready")
    finally:
        stage.gate.set()
        consumer.stop()

    def workers() -> list[str]:
        return [t.name for t in threading.enumerate() if "_worker_loop" in t.name]

    wait_until(lambda: not workers(), 10, lambda: f"{workers()} to end")
    assert ("INFO", "Scaling up: 1 -> 2") in stage.logged
    assert ("INFO", "Scaling up: 3 -> 4") not in stage.logged
    errors = [text for level, text in stage.logged if level == "ERROR"]
    assert errors == ["Error processing message: no wreck can be sent"] * len(BAD)


def find_batch_size(stage: Stage) -> None:
    """Of sizes that take the same time, the one that handled most is best: 10, with 90."""
    assert stage.names["find_optimal_batch_size"]() == 10


def poll(stage: Stage) -> None:
    stage.clock.step = 10  # two polls in its 30 seconds: none of them finds nothing, and waits
    results = stage.names["optimize_polling_parameters"]()

    assert list(results) == [0.1, 0.5, 1, 2, 5]
    assert {len(measured) for measured in results.values()} == {2}


def monitor(stage: Stage) -> None:
    """It samples the machine and each queue, and its dead letters, until it is stopped."""
    stage.queue.move_to_dlq(stage.queue.get_messages(count=1), "broken")
    stage.queue.get_messages(count=2)
    watch = stage.names["PerformanceMonitor"](stage.mq, interval=0.1)
    watch.start()
    try:
        wait_until(lambda: stage.printed, 20, "a report")
    finally:
        watch.stop()

    assert not watch.thread.is_alive()
    metrics = watch.get_metrics()
    seen = {
        (sample["is_dlq"], sample["message_count"], sample["pending_messages"])
        for sample in metrics["queue_stats"]["orders"]
    }
    assert seen == {(False, len(GOOD) - 1, 2), (True, 1, 0)}
    assert metrics["cpu_usage"]
    assert 0 < metrics["memory_usage"][0][1] < 100
    watch.reset_metrics()
    assert watch.get_metrics()["queue_stats"] == {}


def warn_of_long_queues(stage: Stage) -> None:
    stage.running.turns(2)
    stage.names["monitor_queue_lengths"]()

    assert stage.logged == [("WARNING", "Queue orders is growing: 1001 messages")] * 2


def miss_a_heartbeat(stage: Stage) -> None:
    """Of two workers one does not beat for 100 seconds."""
    client = stage.redis_client("localhost", 6379, 0)
    keys = [f"worker:{name}:heartbeat" for name in ("one", "two")]
    try:
        stage.running.turns(1)
        stage.names["worker_heartbeat"]("one")
        stage.clock.sleep(100)
        stage.running.turns(3)
        stage.names["worker_heartbeat"]("two")
        stage.running.turns(1)
        stage.names["monitor_workers"]()

        assert stage.logged == [("WARNING", "Worker one appears to be stalled")]
        assert all(client.ttl(key) > 100 for key in keys)
    finally:
        for key in keys:
            client.delete(key)


def send_short_lived(stage: Stage) -> None:
    stage.queue.send_message({"type": "lives on"})
    for n in range(3):
        stage.queue.send_message({"type": "short", "id": n}, ttl_seconds=0.05)


def expire(stage: Stage) -> None:
    """The job counts the three that expire, over as many turns as they take."""

    def counted() -> int:
        texts = [text for level, text in stage.logged if level == "INFO"]
        return sum(int(text.split()[1]) for text in texts if "expired messages" in text)

    stage.running.until(lambda: counted() >= 3, most=200)  # which take a second and more
    stage.names["process_expired_messages_job"]()

    assert counted() == 3
    kinds = [data["type"] for data in stage.stored("orders")]
    assert kinds == ["lives on", "price_update"]
