"""Consumers in processes of their own that are killed and frozen for real."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from leanmq import Message
from tests.contract.harness import SERVERS, Client, Harness, eventually

pytestmark = pytest.mark.on(*SERVERS)

ROOT = Path(__file__).parents[2]


@attrs.frozen
class Consumer:
    """A consumer process."""

    process: asyncio.subprocess.Process

    async def ask(self, line: str, *, within: float = 20) -> str:
        """Send a command, wait for its answer ('' if the process died)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        answer = await asyncio.wait_for(self.process.stdout.readline(), within)
        return answer.decode().strip()


@asynccontextmanager
async def consumer(harness: Harness, name: str) -> AsyncIterator[Consumer]:
    """A consumer process of a queue; killed at the end."""
    arguments = ("-m", "tests.contract.consumer_process", harness.url, harness.prefix, name)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=pipe, stdout=pipe, cwd=ROOT
    )
    try:
        yield Consumer(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()


async def test_a_killed_process_is_taken_over_from_within_lease_and_two_seconds(
    mq: Client, harness: Harness
) -> None:
    lease = 1.5
    queue = mq.queue("orders", lease=lease)
    await queue.send_messages(range(10))
    async with consumer(harness, "orders") as victim:
        assert await victim.ask("take 10") == "10"
        watch = harness.stopwatch()
        waiting = asyncio.create_task(queue.get_messages(100, block=True))
        victim.process.kill()

        taken: list[Message[Any]] = await asyncio.wait_for(waiting, 20)
        while len(taken) < 10:
            taken += await queue.get_messages(100, timeout=1)

        assert watch.own() < lease + 2
    assert sorted(m.data for m in taken) == list(range(10))
    assert {m.delivery_count for m in taken} == {2}
    assert await queue.acknowledge_messages(taken) == 10


async def test_a_frozen_consumer_that_wakes_up_changes_nothing(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", lease=1.0)
    await queue.send_messages(range(3))
    async with consumer(harness, "orders") as frozen:
        assert await frozen.ask("take 3") == "3"
        frozen.process.send_signal(signal.SIGSTOP)
        taken: list[Message[Any]] = []
        while len(taken) < 3:
            taken += await queue.get_messages(3, timeout=5)
        await queue.extend_messages(taken)
        frozen.process.send_signal(signal.SIGCONT)

        for verb in ("extend", "release", "retry", "dead-letter", "acknowledge"):
            await queue.extend_messages(taken)
            assert await frozen.ask(f"settle {verb}") == "0", verb

    assert await queue.acknowledge_messages(taken) == 3
    assert (await queue.dlq.get_info()).message_count == 0


@pytest.mark.on(*SERVERS, worlds=("sync",))
async def test_a_forked_child_has_connections_and_receipts_of_its_own(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders")
    await queue.send_messages(range(3))
    async with consumer(harness, "orders") as parent:
        assert await parent.ask("take 3") == "3"

        assert await parent.ask("fork") == "0 3"

    assert [m.data for m in await queue.get_messages()] == ["from the child"]


@pytest.mark.on("redis", worlds=("sync",))
@pytest.mark.timeout(180)
async def test_poison_kills_exactly_max_deliveries_processes_of_eight_threads(
    mq: Client, harness: Harness
) -> None:
    await asyncio.gather(*(poisoned(mq, harness, seed) for seed in range(4)))


async def poisoned(mq: Client, harness: Harness, seed: int) -> None:
    name, limit, healthy = f"poisoned{seed}", 3, 30
    queue = mq.queue(name, lease=1.5, max_deliveries=limit)
    killer = random.Random(seed).randrange(healthy + 1)
    await queue.send_messages({"n": n, "kills": n == killer} for n in range(healthy + 1))
    deaths = 0

    async def settled() -> bool:
        nonlocal deaths
        async with consumer(harness, name) as process:
            if await process.ask("doom", within=60) != "done":
                deaths += 1
                return False
        return True

    await eventually(settled, within=90, what="the end of the poison")
    dead = await queue.dlq.get_messages(100)
    assert [m.data["n"] for m in dead] == [killer], f"seed {seed}"
    assert dead[0].delivery_count == limit
    assert deaths == limit, f"seed {seed}"
    assert (await queue.get_info()).message_count == 0
