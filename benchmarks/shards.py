"""Whether a message costs the same in 64 shards as in one, on one node, in one run.

``python -m benchmarks.shards``: bulk sends without and with keys, and receive + acknowledge, on a
queue without shards and on queues of 1, 8 and 64; received from a large backlog, and from small
ones that leave each shard less than a batch: from one after a pause, and from five in a row. Queues
take turns at each kind of work; the cost is the processor time of client and server together (see
``benchmarks.scale``), of each the best round, and the ratio is the median of those of all rounds: a
machine that runs faster for some seconds, or slower, changes both sides of a round. Then the round
trips a second that a waiting consumer of 64 shards makes, on one node and on each of three. Exit 1
if a message in 64 shards costs more than 20% more than in one, or if waiting makes more than two
round trips a second at a node.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.ratio import CountingProxy
from benchmarks.scale import BODY, Cost, Meter, receive
from benchmarks.server import server
from leanmq import LeanMQ, Outgoing, Queue, ShardedQueue

SHARDS = (0, 1, 8, 64)
"""0: a queue without shards."""

MARK = 1.20
IDLE_MARK = 2.0
CUSTOMERS = 10_000


def send(queue: Queue, messages: int) -> None:
    """A bulk send, no keys."""
    queue.send_messages(BODY for _ in range(messages))


def send_keyed(queue: Queue, messages: int) -> None:
    """A bulk send; messages of many customers, mixed."""
    queue.send_messages(
        Outgoing(BODY, key=f"customer {n * 7919 % CUSTOMERS}") for n in range(messages)
    )


def one_by_one(queue: Queue, messages: int) -> None:
    """Single sends, with keys."""
    for n in range(messages):
        queue.send_message(BODY, key=f"customer {n * 7919 % CUSTOMERS}")


BACKLOGS = 5
"""Small ones, which together have as many messages as a large one."""

# What is measured, one after the other.
WORK: dict[str, Callable[[Queue, int], None]] = {
    "send, no keys": send,
    "receive + acknowledge": receive,
    "send, keys": send_keyed,
    "the same, received": receive,
}
SEND_1, RECEIVED, SMALL = "send 1, key", "and received", f"received, {BACKLOGS} backlogs"


def queue_of(mq: LeanMQ, shards: int) -> Queue:
    """A queue in so many shards."""
    if not shards:
        return mq.queue("plain")
    return mq.sharded_queue(f"in-{shards}", shards=shards)


def measured(meter: Meter, queue: Queue, messages: int) -> Iterator[tuple[str, Cost]]:
    """One round: the cost of a message, of each kind of work."""
    for what, work in WORK.items():
        yield what, meter.measure(work, queue, messages)
    small = messages // BACKLOGS
    yield SEND_1, meter.measure(one_by_one, queue, small)
    parts = [meter.measure(receive, queue, small)]
    for _ in range(BACKLOGS - 1):
        send_keyed(queue, small)
        parts.append(meter.measure(receive, queue, small))
    yield RECEIVED, parts[0]
    yield SMALL, Cost(*(sum(column) / BACKLOGS for column in zip(*parts, strict=True)))


def costs(port: int, messages: int, rounds: int) -> bool:
    """Prints a line for each kind of work; whether all are below the mark."""
    client = redis.Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=30)
    found: dict[tuple[str, int], list[Cost]] = {}
    with LeanMQ(f"redis://127.0.0.1:{port}/0") as mq:
        queues = {shards: queue_of(mq, shards) for shards in SHARDS}
        meter = Meter(client)
        for number in range(rounds + 1):  # the first one warms up
            rounds_of_all = [measured(meter, queue, messages) for queue in queues.values()]
            for side_by_side in zip(*rounds_of_all, strict=True):
                for shards, (what, cost) in zip(queues, side_by_side, strict=True):
                    if number:
                        found.setdefault((what, shards), []).append(cost)
    client.close()
    good = True
    for what in (*WORK, SEND_1, RECEIVED, SMALL):
        best = {shards: min(cost.work for cost in found[what, shards]) for shards in SHARDS}
        passed = {shards: min(cost.passed for cost in found[what, shards]) for shards in SHARDS}
        pairs = zip(found[what, 64], found[what, 1], strict=True)
        share = statistics.median(many.work / one.work for many, one in pairs)
        good = good and share <= MARK
        figures = "  ".join(
            f"{shards or 'plain':>5}: {best[shards] * 1e6:6.2f} us ({1 / passed[shards]:9,.0f}/s)"
            for shards in SHARDS
        )
        print(f"{what:>22}  {figures}  64 by 1: {share:.2f}{'' if share <= MARK else '  ABOVE'}")
    return good


def idle(ports: list[int], wait: float) -> bool:
    """Prints the round trips a second that waiting costs at each node; whether all are few."""
    proxies = [CountingProxy(port) for port in ports]
    nodes = {f"node{n}": f"redis://127.0.0.1:{proxy.port}/0" for n, proxy in enumerate(proxies)}
    queue: ShardedQueue
    with ShardedQueue(f"idle-on-{len(ports)}", nodes, shards=64) as queue:
        queue.declare()
        waiting = threading.Thread(target=queue.get_messages, kwargs={"timeout": wait + 2})
        waiting.start()
        time.sleep(1.5)  # past its first look, and the connections that it makes for that
        before = [proxy.trips for proxy in proxies]
        time.sleep(wait)  # what is measured is what happens in so much time
        rates = [(proxy.trips - b) / wait for proxy, b in zip(proxies, before, strict=True)]
        waiting.join()
    shown = ", ".join(f"{rate:.2f}" for rate in rates)
    print(f"idle, 64 shards on {len(ports)} node(s): {shown} round trips a second")
    return all(rate <= IDLE_MARK for rate in rates)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--messages", type=int, default=20_000, help="a round (20,000)")
    parser.add_argument("--rounds", type=int, default=30, help="of each (30)")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds to wait (10)")
    given = parser.parse_args()
    with ExitStack() as stack:
        ports = [stack.enter_context(server()) for _ in range(3)]
        good = costs(ports[0], given.messages, given.rounds)
        good = idle(ports[:1], given.idle) and good
        good = idle(ports, given.idle) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
