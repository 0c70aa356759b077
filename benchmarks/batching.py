"""How much faster one thread sends by ``queue.batching()`` than by ``queue.send_message``.

``python -m benchmarks.batching``: rounds in which single sends, batching (with and without keys
and numbers) and one bulk send take turns on one Redis, each until everything is stored. Exit 1 if
batching is, in the median of the rounds, not ten times as fast as single sends.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.ratio import BODY
from benchmarks.server import server
from leanmq import LeanMQ, Queue

MARK = 10.0


def single(queue: Queue[Any], messages: int) -> None:
    """A round trip a message."""
    for _ in range(messages):
        queue.send_message(BODY)


def batching(queue: Queue[Any], messages: int, **options: Any) -> None:
    """One thread hands over, another one sends."""
    key = options.pop("key", None)
    with queue.batching(**options) as producer:
        for _ in range(messages):
            future = producer.send_message(BODY, key=key)
    assert future.result(0)


def bulk(queue: Queue[Any], messages: int) -> None:
    """All of them are there."""
    queue.send_messages(BODY for _ in range(messages))


WORK: dict[str, Callable[[Queue[Any], int], None]] = {
    "batching": batching,
    "with keys": lambda queue, messages: batching(queue, messages, key="k"),
    "without numbers": lambda queue, messages: batching(queue, messages, dedup=False),
    "bulk": bulk,
}


def rate(work: Callable[[Queue[Any], int], None], queue: Queue[Any], messages: int) -> float:
    """Messages a second."""
    began = time.perf_counter()
    work(queue, messages)
    return messages / (time.perf_counter() - began)


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {name: [] for name in ("single", *WORK)}
    with server() as port, LeanMQ(f"redis://127.0.0.1:{port}/0") as mq:
        queue = mq.queue("orders")
        single(queue, 1_000)  # warm up
        for number in range(1, options.rounds + 1):
            rates["single"].append(rate(single, queue, options.messages // 15))
            for name, work in WORK.items():
                queue.purge()
                rates[name].append(rate(work, queue, options.messages))
                assert queue.get_info().message_count == options.messages
            shown = "  ".join(f"{name} {values[-1]:9,.0f}/s" for name, values in rates.items())
            times = rates["batching"][-1] / rates["single"][-1]
            print(f"round {number}: {shown}  ratio {times:.1f}")
    ratios = [many / one for many, one in zip(rates["batching"], rates["single"], strict=True)]
    median = statistics.median(ratios)
    print(f"batching is {median:.1f} times as fast as single sends (mark {MARK:.0f})")
    return 0 if median >= MARK else 1


if __name__ == "__main__":
    sys.exit(main())
