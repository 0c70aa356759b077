"""What became of the orders, read back from the queues, and whether it adds up."""

from __future__ import annotations

from typing import Any

import attrs

from leanmq.demo.shop import Shop

__all__ = ["Summary", "read_back"]


@attrs.frozen
class Summary:
    """The end of the day. All but ``sent`` and ``requeued`` is what the queues say.

    Attributes:
        sent: Orders whose send returned.
        handled: Orders that were shipped.
        dead: Dead letters.
        expired: Quotes that were deleted because their time was over.
        left: Orders that are still to do.
        twice: Lines about orders that had been shipped before.
        strange: Lines about orders that were never sent.
        retries: How often the orders that were shipped, or died, had been tried before.
        requeued: Dead letters that were sent back to their queue.
    """

    sent: int
    handled: int
    dead: int
    expired: int
    left: int
    twice: int = 0
    strange: int = 0
    retries: int = 0
    requeued: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether every order that was sent is accounted for, once.

        >>> Summary(sent=9, handled=6, dead=1, expired=2, left=0).adds_up
        True
        >>> Summary(sent=9, handled=6, dead=1, expired=1, left=0).adds_up
        False
        """
        total = self.handled + self.dead + self.expired + self.left
        return self.sent == total and not self.twice and not self.strange

    def __str__(self) -> str:
        verdict = "it adds up" if self.adds_up else "IT DOES NOT ADD UP"
        odd = f", {self.twice} shipped twice" if self.twice else ""
        odd += f", {self.strange} shipped that were not sent" if self.strange else ""
        return (
            f"{self.sent} sent = {self.handled} handled + {self.dead} dead + "
            f"{self.expired} expired + {self.left} left{odd}: {verdict}"
        )


def read_back(shop: Shop, sent: dict[int, str], expired: int, requeued: int) -> Summary:
    """Ask the queues.

    Args:
        shop: The shop, with nobody at work any more.
        sent: The numbers of the orders that were sent, and their ids.
        expired: How many messages the backend deleted because their time was over.
        requeued: How many dead letters went back.
    """
    orders, quotes = shop.orders, shop.quotes
    left = orders.get_info().message_count + quotes.get_info().message_count
    dead = orders.dlq.get_info().message_count + quotes.dlq.get_info().message_count
    letters = orders.dlq.peek_messages(1_000) + quotes.dlq.peek_messages(1_000)
    lines = _drain(shop)
    numbers = [line["order"] for line in lines]
    retries = sum(line["deliveries"] - 1 for line in lines)
    retries += sum(letter.delivery_count - 1 for letter in letters)
    return Summary(
        sent=len(sent),
        handled=len(set(numbers)),
        dead=dead,
        expired=expired,
        left=left,
        twice=len(numbers) - len(set(numbers)),
        strange=len(set(numbers) - set(sent)),
        retries=retries,
        requeued=requeued,
    )


def _drain(shop: Shop) -> list[dict[str, Any]]:
    """All lines about shipped orders."""
    lines: list[dict[str, Any]] = []
    while messages := shop.shipped.get_messages(count=1_000):
        lines += [message.data for message in messages]
        shop.shipped.acknowledge_messages(messages)
    return lines
