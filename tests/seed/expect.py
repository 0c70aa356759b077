"""What each Python block of the founding document needs, and what must be true after it ran.

One entry a block, in the order of the document, or two where LeanMQ has what the block builds;
``test_seed.py`` runs them on every backend. What is wrong with a block stands at its entry; its
edits are the corrected form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from tests.contract.harness import SERVERS
from tests.seed.blocks import Edit
from tests.seed.runs import (
    BAD,
    GOOD,
    NAMELESS,
    SHARDED,
    SHIPPED,
    adopt,
    call,
    consume_adaptively,
    expire,
    find_batch_size,
    handle_asynchronously,
    miss_a_heartbeat,
    monitor,
    name_servers,
    poll,
    process_shards,
    process_shards_of_a_queue,
    run_worker_processes,
    send_by_a_balanced_producer,
    send_in_turn,
    send_short_lived,
    serve,
    serve_domains,
    warn_of_long_queues,
)
from tests.seed.stage import Stage
from tests.support.sentinel import SERVICE

__all__ = ["ENTRIES", "WEBHOOKS", "Entry"]

ALL = ("memory", *SERVERS)
WEBHOOKS = "LeanMQWebhook"


@attrs.frozen(kw_only=True)
class Entry:
    """What a block is, needs and does.

    Attributes:
        heading: The heading above it.
        begins: Its first line. With the heading, this binds the entry to the block.
        by: What of LeanMQ the edits put in place of what the block builds by hand.
        run: What is done with what the block defines.
        sent: Payloads that are in the queue ``orders`` before.
        before: What else is done before.
        edits: What runs in place of what is printed.
        handled: Payloads that handlers got, each exactly once, and did not fail at.
        dead: Dead letters, each with its reason.
        left: How many messages each queue holds in the end: every queue that there is.
        subjects: Where it can run.
        waits_for: What it needs of LeanMQ that is not built; a strict expected failure.
        noticed: What the expectation notices if it is broken (``test_seed.py``).
    """

    heading: str
    begins: str
    by: str = ""
    run: Callable[[Stage], object]
    sent: Sequence[Any] = ()
    before: Callable[[Stage], object] = lambda stage: None
    edits: Sequence[Edit] = ()
    handled: Sequence[Any] = ()
    dead: Sequence[tuple[Any, str]] = ()
    left: Mapping[str, int] = attrs.field(factory=lambda: {"orders": 0})
    subjects: Sequence[str] = ALL
    waits_for: str = ""
    noticed: Sequence[str] = ()


ENTRIES = [
    # Does not import time, nor LeanMQWebhook.
    Entry(
        heading="Multi-Worker Processing",
        begins="import multiprocessing",
        run=run_worker_processes,
        waits_for=WEBHOOKS,
    ),
    # Does not import time. mq, queue, logger and the handler are the reader's, here and below.
    Entry(
        heading="Batch Processing",
        begins="def process_messages_in_batches():",
        sent=[*GOOD, *BAD],
        run=call("process_messages_in_batches"),
        handled=GOOD,
        dead=[(data, "no wreck can be sent") for data in BAD],
        noticed=("handlers", "acknowledging", "sending"),
    ),
    # Does not import time, nor concurrent.futures as a name: it imports from it.
    Entry(
        heading="Concurrent Processing",
        begins="from concurrent.futures import ThreadPoolExecutor",
        sent=[*GOOD, *BAD],
        run=call("process_messages_concurrently"),
        handled=GOOD,
        dead=[(data, "no wreck can be sent") for data in BAD],
        noticed=("handlers", "acknowledging", "sending"),
    ),
    # Its get_messages holds up the event loop, as it says itself.
    Entry(
        heading="Asynchronous Processing",
        begins="import asyncio",
        sent=[*GOOD, NAMELESS],
        run=handle_asynchronously,
        handled=GOOD,
        dead=[(NAMELESS, "'id'")],
        noticed=("acknowledging", "sending"),
    ),
    Entry(
        heading="Functional Partitioning",
        begins="# Create dedicated queues for different domains",
        run=serve_domains,
        handled=[{"of": domain} for domain in ("orders", "inventory", "users", "payments")],
        left=dict.fromkeys(["inventory", "orders", "payments", "users"], 0),
        waits_for=WEBHOOKS,
    ),
    Entry(
        heading="Sharding by Key",
        begins="def get_shard_number(key, num_shards=4):",
        edits=[
            Edit(
                "hash(key)",
                "zlib.crc32(key.encode())",
                "hash() of a str differs from process to process: another one would look for the "
                "key in another shard",
            ),
            Edit(
                "# Process messages...",
                "[(process_message(m.data), queue.acknowledge_messages(m)) for m in messages]",
                "what is to be done is left to the reader",
            ),
        ],
        run=process_shards,
        handled=[SHIPPED, *({"order_id": key} for key in SHARDED)],
        left={"orders": 0} | {f"orders:shard{number}": 0 for number in range(4)},
        noticed=("handlers", "acknowledging", "sending"),
    ),
    # What the block is for, by one queue in shards: a key finds its shard in every process, and a
    # consumer may take one shard or all. A shard that there is not is an error.
    Entry(
        heading="Sharding by Key",
        begins="def get_shard_number(key, num_shards=4):",
        by="sharded_queue",
        before=lambda stage: stage.queue.delete(),  # a queue is in shards, or it is not
        edits=[
            Edit(
                "hash_value = hash(key)",
                "return shard_of(key, num_shards)",
                "hash() of a str differs from process to process",
                to="% num_shards",
            ),
            Edit(
                'queue_name = f"{domain}:shard{shard}"',
                "queue = mq.sharded_queue(domain, shards=4).shard_for(key)",
                "queues that share a name by convention are no queue: nobody receives from all",
                to="mq.create_queue_pair(queue_name)",
            ),
            Edit(
                'queue_name = f"{domain}:shard{shard_num}"',
                "queue = mq.sharded_queue(domain, shards=4).shard(shard_num)",
                "the same",
                to="        return\n",
            ),
            Edit(
                "# Process messages...",
                "[(process_message(m.data), queue.acknowledge_messages(m)) for m in messages]",
                "what is to be done is left to the reader",
            ),
        ],
        run=process_shards_of_a_queue,
        handled=[SHIPPED, *({"order_id": key} for key in SHARDED)],
        left={"orders": 0},
        noticed=("handlers", "acknowledging", "sending"),
    ),
    # LeanMQ takes the client: what the block's last comment waits for.
    Entry(
        heading="Redis Cluster",
        begins="from redis.cluster import RedisCluster",
        before=name_servers("redis-node1", "redis-node2", "redis-node3"),
        edits=[
            Edit(
                "startup_nodes=redis_nodes",
                "startup_nodes=[ClusterNode(**node) for node in redis_nodes]",
                "redis-py wants objects, and fails at a dict",
            )
        ],
        run=adopt("redis_client"),
        handled=GOOD,
        subjects=["cluster"],
        noticed=("acknowledging", "sending"),
    ),
    # As it says, LeanMQ had to be extended; it takes the client of the service's primary.
    Entry(
        heading="Redis Sentinel",
        begins="from redis.sentinel import Sentinel",
        before=name_servers("sentinel1", "sentinel2", "sentinel3"),
        edits=[Edit("'mymaster'", repr(SERVICE), "what the tests call the service")],
        run=adopt("master"),
        handled=GOOD,
        subjects=["sentinel"],
        noticed=("acknowledging", "sending"),
    ),
    # Its prefix is "" where LeanMQ's is "mq:": consumers must be told.
    Entry(
        heading="Message Producers",
        begins="# Load balanced producer pattern",
        edits=[
            Edit(
                "hash(str(data))",
                "next(turn)",
                "a hash is no round-robin: equal messages all go to one server",
            )
        ],
        run=send_in_turn,
        noticed=("sending",),
    ),
    # The same call on the same dicts, by LeanMQ's own.
    Entry(
        heading="Message Producers",
        begins="# Load balanced producer pattern",
        by="LoadBalancedProducer",
        edits=[
            Edit(
                "class LoadBalancedProducer:",
                "from leanmq import LoadBalancedProducer",
                "a hash is no round-robin: equal messages all go to one server; and a server that "
                "is down fails its share of the sends",
                to="return queue.send_message(data)",
            )
        ],
        run=send_by_a_balanced_producer,
        noticed=("sending",),
    ),
    # To scale down it stops all workers, not one, and starts none before a message is there: it
    # may have fewer than min_workers. No message is lost by that, so it runs as it is printed.
    Entry(
        heading="Message Consumers",
        begins="import threading",
        sent=[*GOOD, *GOOD, *GOOD, *BAD],
        run=consume_adaptively,
        handled=[*GOOD, *GOOD, *GOOD],
        dead=[(data, "no wreck can be sent") for data in BAD],
        noticed=("handlers", "acknowledging"),
    ),
    # Does not import time. Sizes are measured only while messages last, here 1, 5 and 10; with
    # an empty queue max() of nothing is a ValueError.
    Entry(
        heading="Message Batch Size",
        begins="def find_optimal_batch_size():",
        sent=[{"id": n} for n in range(10 * 1 + 10 * 5 + 9 * 10)],
        run=find_batch_size,
        handled=[{"id": n} for n in range(150)],
        noticed=("handlers", "acknowledging"),
    ),
    # Does not import time.
    Entry(
        heading="Timeout and Polling Interval",
        begins="def optimize_polling_parameters():",
        sent=[{"id": n} for n in range(100)],
        run=poll,
        handled=[{"id": n} for n in range(100)],
        noticed=("handlers", "acknowledging"),
    ),
    # It keeps what it samples by name: a queue and its dead letters, which have one name today,
    # share a list there, and what it prints of them is the dead letters.
    Entry(
        heading="Monitoring Scaling Performance",
        begins="import time",
        sent=GOOD,
        run=monitor,
        dead=[(GOOD[0], "broken")],
        left={"orders": len(GOOD) - 1},
        noticed=("sending",),
    ),
    Entry(
        heading="1. Start simple, then scale",
        begins="# Start with a simple setup",
        run=lambda stage: serve(stage, "webhook", "service", {"id": 1}),
        handled=[{"id": 1}],
        waits_for=WEBHOOKS,
    ),
    # Does not import time.
    Entry(
        heading="2. Implement proper monitoring",
        begins="# Check queue lengths regularly",
        sent=range(1_001),
        before=lambda stage: stage.mq.queue("short").send_messages(GOOD),
        run=warn_of_long_queues,
        left={"orders": 1_001, "short": len(GOOD)},
        noticed=("logging", "sending"),
    ),
    # Does not import redis and time; running is the reader's.
    Entry(
        heading="3. Plan for failure",
        begins="# Implement heartbeats for workers",
        edits=[
            Edit(
                'setex(f"worker:{worker_id}:heartbeat", 60, time.time())',
                'set(f"worker:{worker_id}:heartbeat", time.time(), ex=600)',
                "what is gone after 60 seconds is never seen to be older than that: no stalled "
                "worker would be reported; and setex() is deprecated",
            ),
            Edit(
                ".keys(",
                ".scan_iter(",
                "KEYS holds up the server while it looks at every key, and a cluster's client "
                "asks one node alone",
            ),
        ],
        run=miss_a_heartbeat,
        noticed=("logging",),
    ),
    # Does not import time.
    Entry(
        heading="4. Use queue TTL for time-sensitive messages",
        begins="# Send a message with TTL",
        before=send_short_lived,
        run=expire,
        left={"orders": 2},
        noticed=("logging", "sending"),
    ),
]
