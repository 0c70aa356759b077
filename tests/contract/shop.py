"""What the tests of transactions have in common: queues of one slot, and what is in them."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq import (
    AsyncQueue,
    Message,
)
from leanmq.backends.streams.keys import QueueKeys, queue_keys
from tests.contract.harness import SERVERS, Client, Harness

__all__ = [
    "SLOT",
    "bounded",
    "counts",
    "in_flight",
    "in_one_place",
    "keeps_bounds",
    "keys_of",
    "on_servers",
    "one",
    "send",
    "shop",
]

SLOT = "shop"

on_servers = pytest.mark.on(*SERVERS)
# Messages of one transaction may be on several nodes of a router, which it says.
in_one_place = pytest.mark.on("memory", "redis", "sentinel", "cluster", "pass-through")
# Nor can its nodes keep one bound.
keeps_bounds = in_one_place


def shop(mq: Client, *names: str, **settings: Any) -> list[AsyncQueue]:
    """Queues that can share a transaction everywhere."""
    return [mq.queue(name, slot=SLOT, **settings) for name in names]


def bounded(mq: Client, name: str = "mails", **settings: Any) -> AsyncQueue:
    """A queue of the slot for one message."""
    return mq.queue(name, **{"slot": SLOT, "max_length": 1} | settings)


async def counts(*queues: AsyncQueue) -> list[int]:
    return [(await queue.get_info()).message_count for queue in queues]


async def one(queue: AsyncQueue, data: Any = "cause") -> Message[Any]:
    """A message that was sent and received."""
    await queue.send_message(data)
    [message] = await queue.get_messages(timeout=5)
    return message


async def in_flight(queue: AsyncQueue) -> list[str]:
    return [m.id for m in await queue.pending_messages()]


async def send(mq: Client, *messages: tuple[AsyncQueue, Any]) -> list[str]:
    """Payloads to queues, in one transaction."""
    async with mq.transaction() as tx:
        for queue, data in messages:
            tx.send_message(queue, data)
    return list(tx.ids)


def keys_of(harness: Harness, name: str) -> QueueKeys:
    return queue_keys(harness.prefix, name, SLOT)
