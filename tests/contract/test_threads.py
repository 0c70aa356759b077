"""One client in many threads or tasks, closed or interrupted while it waits, forked, forgotten."""

from __future__ import annotations

import asyncio
import json
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from leanmq import AsyncQueue, ClosedError, Message
from tests import LOOP
from tests.contract.harness import SERVERS, Client, Harness, drain, eventually
from tests.contract.test_receiving import until_waiting

ROOT = Path(__file__).parents[2]
SLICE, MARGIN = 1.0, 1.5
"""Seconds that ``close`` and Ctrl-C may take, and that a busy machine may add."""

with_url = pytest.mark.on("memory", *SERVERS)
"""A composite is made of objects: there is no URL by which another process could open it."""


# --- many threads, one client

WORKERS, ROUNDS = 8, 25
VERBS = ("acknowledge", "release", "retry", "extend", "dead-letter")


async def settle(queue: AsyncQueue, verb: str, messages: list[Message[Any]]) -> int:
    match verb:
        case "acknowledge":
            return await queue.acknowledge_messages(messages)
        case "release":
            return await queue.release_messages(messages)
        case "retry":
            return await queue.retry_messages(messages)
        case "extend":
            return await queue.extend_messages(messages)
        case _:
            return await queue.move_to_dlq(messages, "why")


@attrs.define
class Ledger:
    """Where every message is, as its users know it."""

    stored: set[str] = attrs.Factory(set)
    held: set[str] = attrs.Factory(set)
    done: Counter[str] = attrs.Factory(Counter)
    dead: Counter[str] = attrs.Factory(Counter)

    def take(self, messages: list[Message[Any]]) -> None:
        ids = [message.id for message in messages]
        assert len(set(ids)) == len(ids)
        assert self.held.isdisjoint(ids), "handed out while another worker held it"
        self.held.update(ids)

    def give(self, verb: str, messages: list[Message[Any]]) -> None:
        """Called before the settlement: once that is done another worker may be faster."""
        ids = [message.id for message in messages]
        self.held.difference_update(ids)
        {"acknowledge": self.done, "dead-letter": self.dead}.get(verb, Counter()).update(ids)


async def test_one_client_in_eight_threads_loses_and_doubles_nothing(mq: Client) -> None:
    queues = [mq.queue(name, lease=60, max_deliveries=0) for name in ("orders", "invoices")]
    ledgers = [Ledger() for _ in queues]
    seed = random.randrange(10**6)

    async def work(number: int) -> None:
        luck = random.Random(seed + number)
        mine: list[list[Message[Any]]] = [[] for _ in queues]
        for turn in range(ROUNDS):
            place = luck.randrange(len(queues))
            queue, ledger, messages = queues[place], ledgers[place], mine[place]
            if luck.random() < 0.4:
                sent = await queue.send_messages(
                    [number, turn, n] for n in range(luck.randint(1, 4))
                )
                assert ledger.stored.isdisjoint(sent)
                ledger.stored.update(sent)
            if luck.random() < 0.6:
                got = await queue.get_messages(luck.randint(1, 5))
                ledger.take(got)
                messages += got
            luck.shuffle(messages)
            some = [messages.pop() for _ in range(luck.randint(0, len(messages)))]
            if some:
                verb = luck.choice(VERBS)
                if verb == "extend":
                    messages += some
                else:
                    ledger.give(verb, some)
                assert await settle(queue, verb, some) == len(some), (verb, seed)
        for queue, ledger, messages in zip(queues, ledgers, mine, strict=True):
            ledger.give("release", messages)
            assert await queue.release_messages(messages) == len(messages)

    await asyncio.gather(*(work(number) for number in range(WORKERS)))

    for queue, ledger in zip(queues, ledgers, strict=True):
        left = await drain(queue, len(ledger.stored) - len(ledger.done) - len(ledger.dead))
        dead = await drain(queue.dlq, len(ledger.dead))
        ledger.done.update(message.id for message in left)
        assert Counter(message.id for message in dead) == ledger.dead, f"seed {seed}"
        assert ledger.done + ledger.dead == Counter(ledger.stored), f"seed {seed}"
        assert (await queue.get_info()).message_count == 0
        assert (await queue.dlq.get_info()).message_count == 0


# --- close


async def test_closing_a_client_ends_all_its_waiting_receives_within_a_slice(
    harness: Harness,
) -> None:
    client, bystander = harness.client(), harness.client()
    orders, invoices = client.queue("orders"), client.queue("invoices")
    queues = [orders, orders, invoices, orders.dlq, bystander.queue("orders")]
    receives = [asyncio.create_task(queue.get_messages(block=True)) for queue in queues]
    for queue, receive in zip(queues, receives, strict=True):
        await until_waiting(queue, receive)
    *waiting, spared = receives

    watch = harness.stopwatch()
    await client.close()

    _, late = await asyncio.wait(waiting, timeout=20)
    assert not late
    assert watch.own() < SLICE + MARGIN
    for receive in waiting:
        with pytest.raises(ClosedError, match="closed"):
            await receive
    assert not spared.done()
    await bystander.queue("orders").send_message("for the other")
    assert [message.data for message in await asyncio.wait_for(spared, 5)] == ["for the other"]


# --- processes


@attrs.frozen
class Teller:
    """A process that tells a story of ``client_process``."""

    process: asyncio.subprocess.Process

    async def line(self, *, within: float) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), within)).decode().strip()

    async def rest(self, *, within: float = 30) -> tuple[list[str], str]:
        """The lines to come, and what it wrote to standard error; it must end well."""
        out, err = await asyncio.wait_for(self.process.communicate(), within)
        assert self.process.returncode == 0, err.decode()
        return out.decode().splitlines(), err.decode()

    async def until_at_rest(self) -> None:
        """Wait until its main thread has not run for a while: it waits for a message."""
        looks: list[str] = []

        async def rests() -> bool:
            looks.append(status_of(self.process.pid))
            switches = {tuple(re.findall(r"ctxt_switches:\t(\d+)", look)) for look in looks[-5:]}
            return len(looks) >= 5 and len(switches) == 1 and "State:\tS" in looks[-1]

        await eventually(rests, within=20, what="rest")


def status_of(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text("ascii")


@asynccontextmanager
async def teller(harness: Harness, story: str, *flags: str) -> AsyncIterator[Teller]:
    """A process that tells a story; killed at the end."""
    pipe = asyncio.subprocess.PIPE
    where = (story, harness.world, harness.url, harness.prefix)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *flags, "-m", "tests.contract.client_process", *where,
        stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=ROOT,
    )  # fmt: skip
    try:
        yield Teller(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@with_url
async def test_ctrl_c_ends_a_waiting_receive_and_the_client_goes_on_and_closes_without_a_trace(
    harness: Harness,
) -> None:
    async with teller(harness, "lives", "-X", "dev", "-W", "error::ResourceWarning") as story:
        assert await story.line(within=20) == "waiting"
        await story.until_at_rest()

        watch = harness.stopwatch()
        story.process.send_signal(signal.SIGINT)

        assert await story.line(within=20) == "interrupted"
        assert watch.own() < SLICE + MARGIN
        assert await story.rest() == (["done"], "")


@with_url
async def test_a_client_that_is_not_closed_does_not_hold_up_the_end(
    harness: Harness, mq: Client
) -> None:
    async with teller(harness, "is_not_closed", "-X", "dev") as story:
        lines, errors = await story.rest()

    assert lines == ["done"]
    if harness.world == "asyncio" and (await mq.open()).shared:
        # asyncio closes no connection unasked; in development redis-py says which one it was.
        assert "ResourceWarning: unclosed" in errors
        assert not re.search("Error|Traceback", errors)
    else:
        assert errors == ""


@with_url
async def test_forks_start_with_nothing_and_disturb_nobody(harness: Harness, mq: Client) -> None:
    async with teller(harness, "is_forked") as story:
        lines, errors = await story.rest()

    assert errors == ""
    assert lines.pop() == "done"
    children = [json.loads(line) for line in lines]
    assert len(children) >= 3
    if (await mq.open()).shared:
        alone = {"settled": 0, "got": ["from a child"], "acknowledged": 1, "connected": True}
        assert children == [alone] * len(children)
        assert await harness.consumers("orders") > len(children), "not a name for each of them"
    else:
        assert all("a fork" in child["refused"] for child in children)
        assert not any("capable" in child for child in children)


@pytest.mark.on(*SERVERS, worlds=("asyncio",))  # connections of an event loop
async def test_a_child_that_drops_the_client_takes_no_replies_from_its_parent(
    harness: Harness,
) -> None:
    async with teller(harness, "is_dropped_by_a_child") as story:
        assert await story.rest() == (["done"], "")


@pytest.mark.on("memory")
async def test_the_tests_run_on_the_event_loop_that_was_asked_for(queue: AsyncQueue) -> None:
    await queue.send_message("x")

    assert LOOP in type(asyncio.get_running_loop()).__module__
