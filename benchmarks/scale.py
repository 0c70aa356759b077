"""Whether costs stay flat as a queue grows, in one run.

``python -m benchmarks.scale``: the cost of a send, of receive + acknowledge, and of a delayed
message's becoming ready, beside 1,000 and up to 1,000,000 messages that are ready, delayed or
in flight. Rounds of all sizes take turns; of each the best is compared with the best at the
smallest size, since other work on the machine can only add to it. Exit 1 if any is more than
20% above. Then the cost of listing 1,000 queues.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.server import server
from leanmq import LeanMQ, Outgoing, Queue
from leanmq.backends.streams.keys import GROUP, queue_keys

BODY = {"id": 1234567, "customer": "c" * 60, "note": "n" * 93}
SIZES = (1_000, 10_000, 100_000, 1_000_000)
KINDS = ("ready", "delayed", "in flight")
MARK = 1.20
DAY = 86_400
QUEUES = 1_000


def fill(mq: LeanMQ, client: redis.Redis, kind: str, size: int) -> Queue:
    """A queue that holds ``size`` messages of this kind; what is in flight stays so."""
    name = f"{kind.replace(' ', '-')}-{size}"
    queue: Queue = mq.queue(name, lease=DAY)
    if kind == "delayed":
        queue.send_messages(Outgoing(BODY, delay=DAY) for _ in range(size))
        return queue
    queue.send_messages(BODY for _ in range(size))
    if kind == "in flight":
        stream = queue_keys("mq:", name, name).live.stream
        for _ in range(0, size, 10_000):
            client.xreadgroup(GROUP, "other", {stream: ">"}, count=10_000)
    return queue


def send(queue: Queue, messages: int) -> float:
    """Seconds of bulk sends by 500."""
    began = time.perf_counter()
    queue.send_messages(BODY for _ in range(messages))
    return time.perf_counter() - began


def receive(queue: Queue, messages: int) -> float:
    """Seconds of receiving 100 and acknowledging 100, again and again."""
    began = time.perf_counter()
    done = 0
    while done < messages:
        batch = queue.get_messages(100)
        queue.acknowledge_messages(batch)
        done += len(batch)
    return time.perf_counter() - began


def promote(queue: Queue, messages: int) -> float:
    """Seconds until messages that have just become due are received and acknowledged."""
    queue.send_messages(Outgoing(BODY, delay=0.001) for _ in range(messages))
    time.sleep(0.01)  # now they are due, all of them
    return receive(queue, messages)


def one_by_one(queue: Queue, messages: int) -> float:
    """Seconds of single sends."""
    began = time.perf_counter()
    for _ in range(messages):
        queue.send_message(BODY)
    return time.perf_counter() - began


WORK: dict[str, Callable[[Queue, int], float]] = {
    "send 500": send,
    "send 1": one_by_one,
    "receive + acknowledge": receive,
    "become due": promote,
}


def measure(
    mq: LeanMQ, client: redis.Redis, kind: str, sizes: list[int], messages: int, rounds: int
) -> Iterator[tuple[str, int, float, float]]:
    """What was done, beside how many; microseconds a message; and that by the smallest size."""
    queues = {size: fill(mq, client, kind, size) for size in sizes}
    costs: dict[tuple[str, int], list[float]] = {}
    # What is ready already is received first: there, becoming due cannot be told from it.
    works = {name: work for name, work in WORK.items() if work is not promote or kind != "ready"}
    for number in range(rounds + 1):  # the first one warms up
        for size in sizes if number % 2 else reversed(sizes):
            queue = queues[size]
            for name, work in works.items():
                count = messages // 10 if name == "send 1" else messages
                if work is receive:
                    send(queue, count)
                took = work(queue, count) / count
                if name.startswith("send"):
                    receive(queue, count)  # as large as it was
                if number:
                    costs.setdefault((name, size), []).append(took)
    for name in works:
        least = min(costs[name, sizes[0]])
        for size in sizes:
            cost = min(costs[name, size])
            yield name, size, cost * 1e6, cost / least
    for queue in queues.values():
        queue.delete(delete_dlq=True)


def list_many(mq: LeanMQ) -> float:
    """Seconds of listing 1,000 queues."""
    for number in range(QUEUES):
        mq.queue(f"many-{number}").declare()
    took = []
    for _ in range(5):
        began = time.perf_counter()
        infos = mq.list_queues()
        took.append(time.perf_counter() - began)
        assert len(infos) >= 2 * QUEUES
    return statistics.median(took)


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=5_000, help="a measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="messages in the largest queue")
    options = parser.parse_args()
    sizes = [size for size in SIZES if size <= options.most]
    failures = []
    with server() as port, LeanMQ(f"redis://127.0.0.1:{port}/0", connection_timeout=30) as mq:
        client = redis.Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0))
        for kind in KINDS:
            print(f"beside messages that are {kind}:", flush=True)
            results = measure(mq, client, kind, sizes, options.messages, options.rounds)
            for name, size, cost, ratio in results:
                print(f"  {name:22} {size:>9,}: {cost:7.2f} us a message, {ratio:.2f}", flush=True)
                if ratio > MARK:
                    failures.append(f"{name} beside {size:,} {kind}")
        took = list_many(mq)
        client.close()
    print(f"listing {QUEUES:,} queues: {took * 1000:.0f} ms")
    if failures:
        print("more than 20% above: " + "; ".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
