"""A process with a batching producer that ends, forks or is interrupted before it is closed.

``python -m tests.contract.producer_process STORY WORLD URL PREFIX`` tells a story: what it prints,
and what it logs to standard error, is for ``test_batching_processes.py``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import warnings
from typing import Any

from leanmq import AsyncLeanMQ, BatchingProducer, LeanMQ
from leanmq.policy import limits

LONG = 600.0

kept: list[object] = []
"""What lives until the interpreter ends."""


def tell(*words: object) -> None:
    """One line for the test."""
    print(*words, flush=True)  # noqa: T201  # the protocol


def opened(url: str, prefix: str) -> BatchingProducer[Any]:
    """A producer that lingers."""
    return LeanMQ(url, prefix=prefix).queue("orders").batching(linger=LONG)


def leaves(url: str, prefix: str) -> None:
    """End without a word."""
    producer = opened(url, prefix)
    for n in range(1_200):
        producer.send_message(n)


def leaves_with_an_error(url: str, prefix: str) -> None:
    """End as a program does that has a bug."""
    leaves(url, prefix)
    raise SystemExit("a bug")


def closes(url: str, prefix: str) -> None:
    """End as one should."""
    with opened(url, prefix) as producer:
        for n in range(3):
            producer.send_message(n)


def is_stuck(url: str, prefix: str) -> None:
    """End while the queue is full."""
    mq = LeanMQ(url, prefix=prefix)
    producer = mq.queue("orders", max_length=1, overflow="block").batching(max_batch=2)
    first, *_ = [producer.send_message(n) for n in range(5)]
    first.result(20)


def forks(url: str, prefix: str) -> None:
    """Fork while something is held; parent and child go on, each with what is its own."""
    producer = opened(url, prefix)
    mine = [producer.send_message(f"parent {n}") for n in range(3)]
    if not os.fork():
        signal.alarm(60)  # whoever kills the parent does not know of this one
        held = producer.buffered
        futures = [producer.send_message(f"child {n}") for n in range(2)]
        producer.flush()
        tell("child", held, len({future.result(0) for future in futures}))
        producer.send_message("child at its end")
        return
    assert os.wait()[1] == 0
    tell("parent", producer.buffered, [future.done() for future in mine].count(True))
    producer.close()
    tell("parent", len({future.result(0) for future in mine}))


def forks_and_forgets(url: str, prefix: str) -> None:
    """Fork while something is held; the child has nothing to do with it."""
    producer = opened(url, prefix)
    producer.send_message("parent")
    if not os.fork():
        return
    assert os.wait()[1] == 0
    producer.close()


def is_interrupted(url: str, prefix: str) -> None:
    """Ctrl-C, again and again, in the midst of sends."""
    producer = LeanMQ(url, prefix=prefix).queue("orders").batching(linger=0.001, max_buffered=200)
    futures: dict[int, Any] = {}
    n = interrupted = 0
    while interrupted < 30:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            while True:
                n += 1
                futures[n] = producer.send_message(n)
        except KeyboardInterrupt:
            interrupted += 1
    producer.close()
    assert producer.buffered == 0
    tell(n, len({future.result(0) for future in futures.values()}), *futures)


def is_signalled(url: str, prefix: str) -> None:
    """A signal handler sends, in the midst of a send."""
    producer = LeanMQ(url, prefix=prefix).queue("orders").batching(linger=0.001)
    futures: list[Any] = []

    def handle(*_: object) -> None:
        futures.append(producer.send_message("from the handler"))

    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
    while len(futures) < 100:
        producer.send_message("plain")
    signal.setitimer(signal.ITIMER_REAL, 0)
    producer.close()
    tell(len({future.result(0) for future in futures}))


async def leaves_async(url: str, prefix: str) -> None:
    """``leaves`` for asyncio."""
    mq = AsyncLeanMQ(url, prefix=prefix)
    producer = mq.queue("orders").batching(linger=LONG)
    for n in range(1_200):
        await producer.send_message(n)
    kept.append((mq, producer))


async def is_cut_off_async(url: str, prefix: str) -> None:
    """End the loop while a batch is under way."""
    mq = AsyncLeanMQ(url, prefix=prefix)
    queue = mq.queue("orders")
    await queue.declare()
    producer = queue.batching(linger=0)
    kept.append((mq, producer, await producer.send_message("under way")))
    for _ in range(3):
        await asyncio.sleep(0)


async def is_stuck_async(url: str, prefix: str) -> None:
    """``is_stuck`` for asyncio."""
    mq = AsyncLeanMQ(url, prefix=prefix)
    producer = mq.queue("orders", max_length=1, overflow="block").batching(max_batch=2)
    futures = [await producer.send_message(n) for n in range(5)]
    await futures[0]
    kept.append((mq, producer))


def main(story: str, world: str, url: str, prefix: str) -> None:
    """Tell the story of this name."""
    logging.basicConfig(format="%(leanmq_event)s %(leanmq_count)s: %(message)s")
    logging.getLogger("leanmq.connection").setLevel(logging.CRITICAL)
    logging.getLogger("leanmq.queue").setLevel(logging.INFO)
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    if story == "is_stuck":
        limits.AT_EXIT = 0.5
    # A shell has its background jobs ignore Ctrl-C, and so their children.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    if world == "asyncio":
        asyncio.run(globals()[f"{story}_async"](url, prefix))
    else:
        globals()[story](url, prefix)


if __name__ == "__main__":
    main(*sys.argv[1:])
