"""What is ordered on the day: decided by the seed and the order's number, by nothing else."""

from __future__ import annotations

import random

import attrs

from leanmq.demo.shop import Order

__all__ = ["LACKING", "Arrival", "plan"]

LACKING = "unicorn"
"""What one order asks for, and the warehouse lacks until somebody buys it."""

ITEMS = ("tea", "lamp", "chess set", "kite", "atlas", "clock")
PER_SECOND = 20
SHORTEST = 20  # orders, for very short days
SELLING = 0.7  # of the day; then the shop is closed, and what is there is shipped


@attrs.frozen
class Arrival:
    """An order that a customer sends.

    Attributes:
        at: Seconds after the day's begin.
        order: What is sent.
        delay: Seconds for which it is not to be shipped, if any.
        quote: Whether it goes to the quotes.
        ttl: Seconds for which its price is good, if not for ever.
    """

    at: float
    order: Order
    delay: float | None = None
    quote: bool = False
    ttl: float | None = None


def plan(seed: int, seconds: float) -> list[Arrival]:
    """The orders of a day, in the order that they come in.

    The third asks for what is lacking, the fifth has no address; of the others about one in
    seven meets bad roads, one in fifteen is to come later, one in ten is a quote.

    >>> [arrival.order.item for arrival in plan(7, 1)[:3]]
    ['tea', 'chess set', 'unicorn']
    """
    count = max(SHORTEST, round(seconds * PER_SECOND))
    return [
        _arrival(seed, number, number / count * seconds * SELLING, seconds)
        for number in range(1, count + 1)
    ]


def _arrival(seed: int, number: int, at: float, seconds: float) -> Arrival:
    chance = random.Random(f"{seed}:{number}")
    item = LACKING if number == 3 else chance.choice(ITEMS)
    address = "" if number == 5 else f"{chance.randint(1, 99)} Long Lane"
    order = Order(number, item, address)
    if number in (3, 5):
        return Arrival(at, order)
    kind = chance.random()
    if kind < 0.15:
        return Arrival(at, attrs.evolve(order, bad_roads=chance.randint(1, 2)))
    if kind < 0.22:
        return Arrival(at, order, delay=round(chance.uniform(0.05, 0.2) * seconds, 3))
    if kind < 0.32:
        # Whoever is to answer the quotes comes when the shop is closed: none of these is left.
        good_for = chance.choice((None, 0.1 * seconds))
        return Arrival(at, order, quote=True, ttl=good_for)
    return Arrival(at, order)
