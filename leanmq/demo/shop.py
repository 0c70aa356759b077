"""The application: a shop that takes orders and ships them. No word here of the demo around it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import attrs

import leanmq

__all__ = [
    "Handler",
    "NoAddressError",
    "Order",
    "OutOfStockError",
    "Shop",
    "VanError",
    "Warehouse",
    "consume",
]

MAX_DELIVERIES = 3
# One for all, so that an order's end and the line about it can be one step on a cluster, too.
SLOT = "shop"
WORK = 0.01  # seconds that packing an order takes
BACKOFF = 0.2  # seconds before an order is tried again; twice as long each time


@attrs.frozen
class Order:
    """What is in a message: LeanMQ makes JSON of it, and an Order again.

    Attributes:
        number: Of the order, from 1.
        item: What was ordered.
        address: Where it goes; some customers forget it.
        bad_roads: How many vans break down with it.
    """

    number: int
    item: str
    address: str
    bad_roads: int = 0


class VanError(Exception):
    """A van broke down: the next one may get through."""


class OutOfStockError(Exception):
    """The item is not there, and will not be until somebody buys it."""


class NoAddressError(Exception):
    """Nobody knows where the order goes; trying again helps nobody."""


Handler = Callable[[Order, int], None]
"""Handles an order, at so many-th a delivery; raises if it cannot."""


class Warehouse:
    """Packs orders and sends them off. Its ``ship`` is a ``Handler``."""

    def __init__(self, lacks: str) -> None:
        self._lacking = {lacks}

    def restock(self, item: str) -> None:
        """Buy what is lacking."""
        self._lacking.discard(item)

    def ship(self, order: Order, delivery: int) -> None:
        """Ship an order, or raise why not."""
        time.sleep(WORK)  # stands for the work
        if not order.address:
            raise NoAddressError("there is no address on it")
        if order.item in self._lacking:
            raise OutOfStockError(f"no {order.item} in stock")
        if delivery <= order.bad_roads:
            raise VanError(f"van {delivery} broke down")


class Shop:
    """The queues of the shop. Making it does no I/O.

    Attributes:
        mq: The client; all threads share it.
        orders: What is to be shipped.
        quotes: Orders at a price that is good for some time only.
        shipped: A line for each order that was shipped.
    """

    def __init__(self, mq: leanmq.LeanMQ) -> None:
        self.mq = mq
        self.orders = self._queue("orders")
        self.quotes = self._queue("quotes")
        self.shipped: leanmq.Queue[dict[str, Any]] = mq.queue("shipped", slot=SLOT)

    def _queue(self, name: str) -> leanmq.Queue[Order]:
        return self.mq.queue(name, type=Order, max_deliveries=MAX_DELIVERIES, slot=SLOT)


def consume(
    shop: Shop,
    queue: leanmq.Queue[Order],
    handle: Handler,
    stop: threading.Event,
    *,
    until_idle: bool = False,
) -> None:
    """Receive orders of a queue and handle them.

    Args:
        shop: The shop.
        queue: Its orders, or its quotes.
        handle: Ships an order.
        stop: Ends it after the order at hand; what was received beyond that is given back.
        until_idle: End when the queue has had nothing to hand out for half a second.
    """
    while not stop.is_set():
        for message in queue.consume(count=5, timeout=0.5):
            _settle(shop, queue, message, handle)
            if stop.is_set():
                return
        if until_idle:
            return


def _settle(
    shop: Shop, queue: leanmq.Queue[Order], message: leanmq.Message[Order], handle: Handler
) -> None:
    """Handle one order, and tell the queue how that went."""
    order = message.data
    try:
        handle(order, message.delivery_count)
    except NoAddressError as error:
        queue.move_to_dlq(message, reason=str(error))
    except (VanError, OutOfStockError) as error:
        # Once it was delivered MAX_DELIVERIES times this makes it a dead letter.
        wait = BACKOFF * 2 ** (message.delivery_count - 1)
        queue.retry_messages(message, delay=wait, reason=f"{type(error).__name__}: {error}")
    else:
        # Both or neither: no order is shipped and not noted, or noted twice.
        with shop.mq.transaction() as tx:
            line = {"order": order.number, "deliveries": message.delivery_count}
            tx.send_message(shop.shipped, line)
            tx.acknowledge(message)
