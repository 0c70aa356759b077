"""Producers and consumers of a soak: what they do is drawn at random, and noted."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from leanmq import AsyncQueue, BulkSendError, LeanMQError, Message
from tests.contract.harness import Harness
from tests.soak.history import History, Moment

__all__ = ["QUEUE", "Work"]

QUEUE: Final = "orders"
KEYS: Final = 40
DEADLINE: Final = 15.0


class Work:
    """Loops that run until they are told to stop.

    Args:
        harness: Makes the clients, one for each loop.
        history: Gets what they see.
        seed: What they do follows from it, as far as the servers let it.
    """

    def __init__(self, harness: Harness, history: History, seed: int) -> None:
        self._harness, self._history, self._seed = harness, history, seed
        self._sending, self._receiving = asyncio.Event(), asyncio.Event()
        self._tasks: dict[str, list[asyncio.Task[None]]] = {"send": [], "receive": []}

    async def start(self) -> AsyncQueue:
        """Start all loops; returns a queue to look at."""
        queue = self._queue()
        await queue.declare()
        for kind, loops in {
            "send": (self._produce, self._produce, self._produce_in_bulk, self._produce_in_batches),
            "receive": (self._consume,) * 3,
        }.items():
            for loop in loops:
                name = f"{loop.__name__.strip('_')}-{len(self._tasks[kind])}"
                self._tasks[kind].append(asyncio.create_task(self._run(loop, name)))
        return queue

    async def stop_sending(self) -> None:
        """Returns when the fate of every send is known."""
        self._sending.set()
        await asyncio.gather(*self._tasks["send"])

    async def stop_receiving(self) -> None:
        """Returns when every loop has ended."""
        self._receiving.set()
        await asyncio.gather(*self._tasks["receive"])

    def failed(self) -> bool:
        """Whether a loop has ended by an error that is none of LeanMQ's."""
        return any(task.done() for tasks in self._tasks.values() for task in tasks)

    def _queue(self) -> AsyncQueue:
        return self._harness.client(deadline=DEADLINE).queue(
            QUEUE, lease=self._history.lease, max_deliveries=0
        )

    async def _run(self, loop: Callable[..., Any], name: str) -> None:
        await loop(self._queue(), random.Random(f"{self._seed}-{name}"), name)

    @asynccontextmanager
    async def _noting(self, *payloads: Any) -> AsyncIterator[None]:
        """What comes of sending these, if it is an error."""
        try:
            yield
        except LeanMQError as error:
            self._tell(error)
            fate = self._history.unknown if error.in_doubt else self._history.refused
            if isinstance(error, BulkSendError):  # the first ones of its chunk may be stored
                fate = self._history.unknown
            fate.update(payloads)

    def _tell(self, error: LeanMQError) -> None:
        self._history.errors[type(error).__name__] += 1

    # --- sending

    async def _produce(self, queue: AsyncQueue, luck: random.Random, name: str) -> None:
        number = 0
        while not self._sending.is_set():
            number += 1
            payload = f"{name}-{number}"
            options: dict[str, Any] = {}
            if luck.random() < 0.7:
                options["key"] = f"k{luck.randrange(KEYS)}"
            if luck.random() < 0.6:
                options["dedup_id"] = payload
            if luck.random() < 0.1:
                options["delay"] = luck.random()
            async with self._noting(payload):
                self._history.confirmed[payload] = await queue.send_message(payload, **options)
            await asyncio.sleep(luck.uniform(0, 0.01))

    async def _produce_in_bulk(self, queue: AsyncQueue, luck: random.Random, name: str) -> None:
        number = 0
        while not self._sending.is_set():
            payloads = [f"{name}-{number + place}" for place in range(luck.randint(1, 60))]
            number += len(payloads)
            async with self._noting(*payloads):
                ids = await queue.send_messages(payloads, key=str)
                self._history.confirmed.update(zip(payloads, ids, strict=True))
            await asyncio.sleep(luck.uniform(0, 0.1))

    async def _produce_in_batches(self, queue: AsyncQueue, luck: random.Random, name: str) -> None:
        futures: dict[str, Any] = {}
        number = 0
        async with queue.batching() as producer:
            while not self._sending.is_set():
                number += 1
                payload = f"{name}-{number}"
                async with self._noting(payload):
                    key = f"k{luck.randrange(KEYS)}"
                    futures[payload] = await producer.send_message(payload, key=key)
                await asyncio.sleep(luck.uniform(0, 0.004))
        for payload, future in futures.items():
            async with self._noting(payload):
                self._history.confirmed[payload] = await future

    # --- receiving

    async def _consume(self, queue: AsyncQueue, luck: random.Random, name: str) -> None:
        while not self._receiving.is_set():
            try:
                messages = await queue.get_messages(luck.choice((1, 10, 100)), timeout=0.5)
                self._note("got", name, messages)
                if luck.random() < 0.1:
                    await asyncio.sleep(luck.random())
                ending = self._receiving.is_set()
                others = [m for m in messages if not ending and luck.random() < 0.15]
                await self._acknowledge(queue, name, [m for m in messages if m not in others])
                for message in others:
                    await self._treat(queue, name, message, luck.random())
            except LeanMQError as error:
                self._tell(error)
                await asyncio.sleep(0.02)

    async def _acknowledge(
        self, queue: AsyncQueue, name: str, messages: list[Message[Any]]
    ) -> None:
        # Not all of them: which ones, it does not say.
        if messages and await queue.acknowledge_messages(messages) == len(messages):
            self._note("acknowledged", name, messages)

    async def _treat(
        self, queue: AsyncQueue, name: str, message: Message[Any], choice: float
    ) -> None:
        if choice < 0.4:
            await queue.retry_messages(message, delay=0.2 if choice < 0.2 else 0, reason="soak")
            self._note("retried", name, [message])
        elif choice < 0.7:
            await queue.release_messages(message)
            self._note("released", name, [message])
        elif choice < 0.999:  # the rest is left to its lease
            await queue.extend_messages(message)
            await self._acknowledge(queue, name, [message])

    def _note(self, what: str, name: str, messages: list[Message[Any]]) -> None:
        now = time.monotonic()
        for message in messages:
            moment = Moment(now, what, name, message.id, message.delivery_count)
            self._history.note(message.data, moment)
