"""Ten seconds of the shop: a producer, three consumers, and somebody who mends what is broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Protocol

import leanmq
from leanmq.demo.plan import LACKING, Arrival, plan
from leanmq.demo.shop import Handler, Shop, Warehouse, consume
from leanmq.demo.summary import Summary, read_back

__all__ = ["Watcher", "run", "swept"]

CONSUMERS = 3
LOOK = 0.1  # seconds between two looks at the queues
PATIENCE = 30.0  # seconds after closing time; what is not done then is left


class Watcher(Protocol):
    """Who is told about the day."""

    def see(self, elapsed: float, sent: int, queues: Sequence[leanmq.QueueInfo]) -> None:
        """How the queues are, several times a second.

        Args:
            elapsed: Seconds since the day's begin.
            sent: Orders that were sent so far.
            queues: The figures of all queues.
        """
        ...

    def hear(self, elapsed: float, event: str) -> None:
        """Something happened that is worth a line."""
        ...


def run(
    mq: leanmq.LeanMQ,
    watcher: Watcher,
    *,
    seed: int,
    seconds: float,
    handler: Callable[[Warehouse], Handler] = lambda warehouse: warehouse.ship,
) -> Summary:
    """Live through the day, and read back what became of it.

    Args:
        mq: A client whose prefix has no other queues than these.
        watcher: Is told about it, in the calling thread.
        seed: Decides what is ordered, and so what goes wrong.
        seconds: How long the day is, about.
        handler: Makes what handles an order.

    Returns:
        The same summary whenever seed and seconds are the same.
    """
    return _Day(mq, watcher, handler, seconds).live(plan(seed, seconds))


class _Day:
    def __init__(
        self,
        mq: leanmq.LeanMQ,
        watcher: Watcher,
        handler: Callable[[Warehouse], Handler],
        seconds: float,
    ) -> None:
        self.shop = Shop(mq)
        self.warehouse = Warehouse(lacks=LACKING)
        self.handle = handler(self.warehouse)
        self.watcher = watcher
        self.seconds = seconds
        self.stop = threading.Event()
        self.sent: dict[int, str] = {}
        self.requeued = 0
        self.good_until = 0.0  # when the last of the quotes has expired
        self.began = time.monotonic()

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began

    def live(self, arrivals: Sequence[Arrival]) -> Summary:
        shop = self.shop
        for queue in (shop.orders, shop.quotes, shop.shipped):
            queue.declare()
        with ThreadPoolExecutor(CONSUMERS + 1) as pool:
            try:
                selling = pool.submit(self.produce, arrivals)
                shipping = [
                    pool.submit(consume, shop, shop.orders, self.handle, self.stop)
                    for _ in range(CONSUMERS)
                ]
                self.wait_until_done(selling, shipping)
                expired = self.answer_quotes()
            finally:
                self.stop.set()
        for future in shipping:
            future.result()
        self.tell_of_the_dead()
        self.look()
        return read_back(shop, self.sent, expired, self.requeued)

    def produce(self, arrivals: Sequence[Arrival]) -> None:
        """Send what customers order, when they do."""
        for arrival in arrivals:
            if self.stop.wait(max(0.0, arrival.at - self.elapsed)):
                return
            queue = self.shop.quotes if arrival.quote else self.shop.orders
            self.sent[arrival.order.number] = queue.send_message(
                arrival.order, delay=arrival.delay, ttl_seconds=arrival.ttl
            )
            if arrival.ttl is not None:
                self.good_until = self.elapsed + arrival.ttl

    def wait_until_done(self, selling: Future[None], shipping: Sequence[Future[None]]) -> None:
        """Wait until all orders are shipped or dead, and mend what can be mended."""
        while self.elapsed < self.seconds + PATIENCE:
            for future in (selling, *shipping):
                if future.done():
                    future.result()  # raises what ended it
            sold = selling.done()
            drained = self.look() == 0
            if not self.mend() and sold and drained:
                return
            self.stop.wait(LOOK)

    def look(self) -> int:
        """Show the queues; returns how many orders are to be done."""
        infos = self.shop.mq.list_queues()
        self.watcher.see(self.elapsed, len(self.sent), infos)
        return sum(
            info.message_count
            for info in infos
            if info.name == self.shop.orders.name and not info.is_dlq
        )

    def mend(self) -> bool:
        """Look through the dead letters: buy what was lacking, and have it tried again."""
        if self.requeued:
            return False
        dead = self.shop.orders.dlq
        letters = [m for m in dead.peek_messages(1_000) if m.data.item == LACKING]
        for letter in letters:
            self.tell(f"order {letter.data.number} is a dead letter: {letter.error}")
            self.warehouse.restock(letter.data.item)
            self.requeued += dead.requeue_messages(letter.id)
            self.tell(f"bought a {letter.data.item}, and sent order {letter.data.number} back")
        return bool(letters)

    def answer_quotes(self) -> int:
        """After closing time: drop the quotes whose time is over, and ship the others."""
        while self.elapsed < self.good_until and not self.stop.wait(LOOK):
            self.look()
        expired = self.shop.mq.process_expired_messages()
        self.tell(f"{expired} quotes had expired before anybody came to answer them")
        consume(self.shop, self.shop.quotes, self.handle, self.stop, until_idle=True)
        return expired

    def tell_of_the_dead(self) -> None:
        for queue in (self.shop.orders, self.shop.quotes):
            for letter in queue.dlq.peek_messages(3):
                self.tell(f"order {letter.data.number} stays a dead letter: {letter.error}")

    def tell(self, event: str) -> None:
        self.watcher.hear(self.elapsed, event)


@contextmanager
def swept(mq: leanmq.LeanMQ) -> Iterator[leanmq.LeanMQ]:
    """The client, until the end of the block; then all queues under its prefix are deleted."""
    with mq:
        try:
            yield mq
        except BaseException:
            with suppress(leanmq.LeanMQError):  # a server that is gone was told of already
                _sweep(mq)
            raise
        _sweep(mq)


def _sweep(mq: leanmq.LeanMQ) -> None:
    for info in mq.list_queues():
        if not info.is_dlq:
            mq.queue(info.name).delete(delete_dlq=True)
