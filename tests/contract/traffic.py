"""A producer loop and a consumer loop that note what they did, and the account of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import attrs

from leanmq import AsyncQueue, LeanMQError, OutcomeUnknownError
from tests.contract.harness import Harness


@attrs.frozen
class Account:
    """What became of every message of a run.

    Attributes:
        confirmed: Sends that returned an id.
        unknown: Sends whose outcome was unknown.
        handled: Messages that were handled.
        lost: Confirmed, not handled, and not in the queue either.
        losing: For how long such were confirmed, in seconds.
        twice: Messages that were handled more than once.
        gap: The longest time between two successes of either loop, in seconds.
        errors: LeanMQErrors that the loops saw, by type.
    """

    confirmed: int
    unknown: int
    handled: int
    lost: tuple[int, ...]
    losing: float
    twice: int
    gap: float
    errors: dict[str, int]


class Traffic(AbstractAsyncContextManager["Traffic"]):
    """Both loops, running while the context is open. They see nothing but LeanMQErrors."""

    def __init__(self, harness: Harness, *, lease: float = 4.0) -> None:
        self._producer = harness.client().queue("orders", lease=lease)
        self._consumer = harness.client().queue("orders", lease=lease)
        self._name = f"{harness.subject}-{harness.world}"
        self._stop = asyncio.Event()
        self.confirmed: list[int] = []
        self.unknown: list[int] = []
        self.handled: list[int] = []
        self.errors: Counter[str] = Counter()
        self._successes: dict[str, list[float]] = {"send": [], "handle": []}

    async def __aenter__(self) -> Traffic:
        await self._producer.declare()
        self._tasks = [
            asyncio.create_task(self._produce()),
            asyncio.create_task(self._consume(self._consumer)),
        ]
        await self.goes_on(within=10)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for task in self._tasks:
            if error is not None:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=error is not None)

    async def goes_on(self, *, within: float = 15.0, messages: int = 30) -> None:
        """Wait until both loops succeed with messages that are sent from now on."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + within
        confirmed, handled = len(self.confirmed), len(self.handled)
        while True:
            for task in self._tasks:
                if task.done():
                    task.result()  # raises what no loop should ever see
            new = self.confirmed[confirmed:]
            # Not the first ones: a failover may lose those, and the account tells.
            if len({*new} & {*self.handled[handled:]}) >= messages:
                return
            assert loop.time() < ends, (
                f"did not go on within {within} s: {len(new)} new sends, errors {self.errors}"
            )
            await asyncio.sleep(0.02)

    async def _produce(self) -> None:
        n = 0
        while not self._stop.is_set():
            try:
                await self._producer.send_message(n)
            except OutcomeUnknownError as error:
                self.unknown.append(n)
                self.errors[type(error).__name__] += 1
            except LeanMQError as error:
                self.errors[f"{type(error).__name__}: {error}"] += 1
            else:
                self.confirmed.append(n)
                self._successes["send"].append(time.monotonic())
            n += 1
            await asyncio.sleep(0.002)

    async def _consume(self, queue: AsyncQueue) -> None:
        while not self._stop.is_set():
            try:
                messages = await queue.get_messages(20, timeout=1)
                for message in messages:
                    self.handled.append(message.data)
                await queue.acknowledge_messages(messages)
            except LeanMQError as error:
                self.errors[f"{type(error).__name__}: {error}"] += 1
            else:
                if messages:
                    self._successes["handle"].append(time.monotonic())

    async def account(self, fault: str) -> Account:
        """Drain what is left, and reconcile. Call after the context was closed."""
        ends = time.monotonic() + 20
        while (await self._consumer.get_info()).message_count and time.monotonic() < ends:
            messages = await self._consumer.get_messages(100, timeout=1)
            self.handled += [m.data for m in messages]
            await self._consumer.acknowledge_messages(messages)
        assert (await self._consumer.get_info()).message_count == 0, "could not drain the queue"
        times = Counter(self.handled)
        unexpected = set(times) - {*self.confirmed, *self.unknown}
        assert not unexpected, f"handled, but never sent: {sorted(unexpected)[:10]}"
        lost = {
            n: at
            for n, at in zip(self.confirmed, self._successes["send"], strict=True)
            if n not in times
        }
        account = Account(
            confirmed=len(self.confirmed),
            unknown=len(self.unknown),
            handled=len(times),
            lost=tuple(lost),
            losing=max(lost.values()) - min(lost.values()) if lost else 0.0,
            twice=sum(1 for count in times.values() if count > 1),
            gap=max(max(b - a for a, b in pairwise(s)) for s in self._successes.values()),
            errors=dict(self.errors),
        )
        self._report(fault, account)
        return account

    def _report(self, fault: str, account: Account) -> None:
        line = (
            f"{self._name:18} {fault:22} confirmed {account.confirmed:6} unknown "
            f"{account.unknown:3} handled {account.handled:6} lost {len(account.lost):5} in "
            f"{account.losing:4.2f} s twice {account.twice:3} longest gap {account.gap:5.2f} s "
            f"errors {account.errors}"
        )
        print(line)  # noqa: T201  # shown by pytest -rP
        if path := os.environ.get("LEANMQ_TEST_REPORT"):
            with Path(path).open("a") as report:
                report.write(line + "\n")
