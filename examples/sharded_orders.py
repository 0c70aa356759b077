"""Orders of many customers in one queue of eight shards, handled in order for each customer.

    python -m examples.sharded_orders                                     # in memory
    python -m examples.sharded_orders redis://a:6379/0 redis://b:6379/0   # on these deployments

All orders of a customer are in one shard, and each shard has one consumer. So eight consumers work
at the same time, and yet each customer's orders are handled one after the other. What they did is
compared with what was sent; if it is not the same, or out of order, the exit status is 1.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import leanmq

IN_MEMORY = ("memory://a", "memory://b", "memory://c")
SHARDS = 8
CUSTOMERS = 40
ORDERS = 50  # of each customer
PATIENCE = 30.0  # seconds without an order, then something is wrong


class Books:
    """What was handled. Shared by all consumers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.latest: Counter[str] = Counter()
        self.sums: Counter[str] = Counter()
        self.again = 0
        self.wrong: list[str] = []

    def enter(self, order: dict[str, Any]) -> None:
        """Note an order; its number must be the next one of its customer."""
        customer, number = order["customer"], order["number"]
        with self._lock:
            latest = self.latest[customer]
            if number <= latest:  # at least once: it is noted already
                self.again += 1
                return
            if number > latest + 1:
                self.wrong.append(f"{customer}: order {number} came after {latest}")
            self.latest[customer] = number
            self.sums[customer] += order["amount"]

    @property
    def handled(self) -> int:
        """How many orders, each counted once."""
        return sum(self.latest.values())


def all_orders() -> list[dict[str, Any]]:
    """The orders of all customers, mixed: every customer's first, then every second one."""
    return [
        {"customer": f"customer {c}", "number": number, "amount": 10 + (7 * c + 13 * number) % 90}
        for number in range(1, ORDERS + 1)
        for c in range(CUSTOMERS)
    ]


def consume(shard: leanmq.Queue, books: Books, running: Callable[[], bool]) -> None:
    """Handle the orders of one shard, one after the other."""
    while running():
        for message in shard.get_messages(count=20, timeout=0.5):
            time.sleep(0.001)  # the work
            books.enter(message.data)
            shard.acknowledge_messages(message)


def show_progress(books: Books, total: int) -> bool:
    """A line that counts, until all orders are handled; false if nothing goes on."""
    done, since = -1, time.monotonic()
    while done < total:
        if books.handled != done:
            done, since = books.handled, time.monotonic()
        elif time.monotonic() - since > PATIENCE:
            break
        if sys.stdout.isatty():
            print(f"\r  {done:,} of {total:,} orders handled", end="", flush=True)
        time.sleep(0.05)
    print(f"{chr(13) * sys.stdout.isatty()}  {done:,} of {total:,} orders handled")
    return done >= total


def account(
    orders: leanmq.ShardedQueue[Any], books: Books, sent: list[dict[str, Any]]
) -> list[str]:
    """Print what each shard had, and return what is wrong."""
    expected: Counter[str] = Counter()
    for order in sent:
        expected[order["customer"]] += order["amount"]
    of_shard: dict[str, list[str]] = {shard.name: [] for shard in orders.shards}
    for customer in expected:
        of_shard[orders.shard_for(customer).name].append(customer)
    for name, customers in of_shard.items():
        total = sum(books.sums[customer] for customer in customers)
        print(f"  {name}: {len(customers):2} customers, {total:7,} in sum")
    print(f"  together: {sum(books.sums.values()):,}, of {sum(expected.values()):,} sent")
    left, dead = orders.get_info().message_count, orders.dlq.get_info().message_count
    wrong = list(books.wrong)
    if books.sums != expected:
        wrong.append("the sums are not those of what was sent")
    if left or dead:
        wrong.append(f"{left} orders are left, {dead} are dead letters")
    return wrong


def run(urls: Sequence[str]) -> list[str]:
    """Send and handle all orders on these deployments; returns what is wrong."""
    nodes = {f"node{number}": url for number, url in enumerate(urls, 1)}
    sent, books, stop = all_orders(), Books(), threading.Event()
    with (
        leanmq.ShardedQueue[Any](
            "orders", nodes, shards=SHARDS, prefix="sharded-orders:"
        ) as orders,
        ThreadPoolExecutor(SHARDS) as pool,
    ):
        orders.delete(delete_dlq=True)  # what a run that was interrupted left
        print(
            f"{len(sent):,} orders of {CUSTOMERS} customers, {SHARDS} shards on {len(nodes)} nodes"
        )
        orders.send_messages(sent, key=lambda order: order["customer"])
        consumers = [
            pool.submit(consume, shard, books, lambda: not stop.is_set()) for shard in orders.shards
        ]
        try:
            finished = show_progress(books, len(sent))
        finally:
            stop.set()
        wait(consumers)
        errors = [str(error) for one in consumers if (error := one.exception()) is not None]
        wrong = account(orders, books, sent) + errors
        orders.delete(delete_dlq=True)
    if not finished:
        wrong.append(f"no order was handled for {PATIENCE:.0f} seconds")
    return wrong


def main(urls: Sequence[str]) -> int:
    """Run it, and say whether all is right."""
    wrong = run(urls or IN_MEMORY)
    for problem in wrong:
        print(f"wrong: {problem}")
    if not wrong:
        print("  the orders of every customer were handled in order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
