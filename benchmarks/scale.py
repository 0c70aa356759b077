"""Whether costs stay flat as a queue grows, in one run.

``python -m benchmarks.scale``: the cost of a send, of receive + acknowledge, and of a delayed
message's becoming ready, beside 1,000 and up to 1,000,000 messages that are ready, delayed or
in flight. Rounds of all sizes take turns. The cost is the processor time of client and server
together, of each the best round compared with the best at the smallest size, since other work on
the machine can only add to it; the time that passed is printed beside it, and moves by half and
more on a machine that others use. Exit 1 if any cost is more than 20% above. Then the cost of
listing 1,000 queues.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

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


class Cost(NamedTuple):
    """Seconds: of the processors, by client and server; and those that passed."""

    work: float
    passed: float


class Meter:
    """Measures what a piece of work costs."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def _now(self) -> Cost:
        cpu = self._client.info("cpu")
        server = float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])
        return Cost(server + time.process_time(), time.perf_counter())

    def measure(self, work: Callable[[Queue, int], None], queue: Queue, messages: int) -> Cost:
        """The cost of a message."""
        before = self._now()
        work(queue, messages)
        after = self._now()
        return Cost(*((late - early) / messages for early, late in zip(before, after, strict=True)))


def send(queue: Queue, messages: int) -> None:
    """Bulk sends by 500."""
    queue.send_messages(BODY for _ in range(messages))


def receive(queue: Queue, messages: int) -> None:
    """Receive 100 and acknowledge 100, again and again."""
    done = 0
    while done < messages:
        batch = queue.get_messages(100)
        queue.acknowledge_messages(batch)
        done += len(batch)


def one_by_one(queue: Queue, messages: int) -> None:
    """Single sends."""
    for _ in range(messages):
        queue.send_message(BODY)


def delay(queue: Queue, messages: int) -> None:
    """Send messages that are due at once, but go the way of delayed ones."""
    queue.send_messages(Outgoing(BODY, delay=0.001) for _ in range(messages))
    time.sleep(0.01)  # now they are due, all of them


# What is measured, what goes before it, and whether its messages are still there afterwards.
WORK: dict[str, tuple[Callable[[Queue, int], None], Callable[[Queue, int], None] | None, bool]] = {
    "send 500": (send, None, True),
    "send 1": (one_by_one, None, True),
    "receive + acknowledge": (receive, send, False),
    "become due": (receive, delay, False),
}


def measure(
    mq: LeanMQ, client: redis.Redis, kind: str, sizes: list[int], messages: int, rounds: int
) -> Iterator[tuple[str, int, Cost, float]]:
    """What was done, beside how many; its cost; and that by the cost at the smallest size."""
    queues = {size: fill(mq, client, kind, size) for size in sizes}
    costs: dict[tuple[str, int], list[Cost]] = {}
    meter = Meter(client)
    # What is ready already is received first: there, becoming due cannot be told from it.
    works = {name: of for name, of in WORK.items() if name != "become due" or kind != "ready"}
    for number in range(rounds + 1):  # the first one warms up
        for size in sizes if number % 2 else reversed(sizes):
            queue = queues[size]
            for name, (work, before, stay) in works.items():
                count = messages // 10 if name == "send 1" else messages
                if before:
                    before(queue, count)
                cost = meter.measure(work, queue, count)
                if stay:
                    receive(queue, count)  # as large as it was
                if number:
                    costs.setdefault((name, size), []).append(cost)
    for name in works:
        least = min(cost.work for cost in costs[name, sizes[0]])
        for size in sizes:
            best = Cost(*map(min, zip(*costs[name, size], strict=True)))
            yield name, size, best, best.work / least
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
    parser.add_argument("--messages", type=int, default=2_000, help="a measurement")
    parser.add_argument("--rounds", type=int, default=15)
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
                work, passed = (seconds * 1e6 for seconds in cost)
                line = f"{work:7.2f} us a message ({passed:7.2f} passed), {ratio:.2f}"
                print(f"  {name:22} {size:>9,}: {line}", flush=True)
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
