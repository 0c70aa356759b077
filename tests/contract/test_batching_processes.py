"""Batching producers at the end of their process, over forks, and under signals."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from leanmq import AsyncQueue
from tests.contract.harness import Harness, drain
from tests.contract.test_batching import count

pytestmark = pytest.mark.on("redis")

ROOT = Path(__file__).parents[2]
one_world = pytest.mark.on("redis", worlds=("sync",))


@attrs.frozen
class Told:
    """What a process said, how it ended, and how long it took."""

    lines: list[str]
    errors: str
    status: int
    seconds: float


async def tale(harness: Harness, story: str, status: int = 0) -> Told:
    """Have a process tell a story of ``producer_process``."""
    began = time.monotonic()
    where = (story, harness.world, harness.url, harness.prefix)
    done = await harness.run(
        subprocess.run,
        [sys.executable, "-W", "always::ResourceWarning", "-m", "tests.contract.producer_process"]
        + list(where),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return Told(done.stdout.splitlines(), done.stderr, done.returncode, time.monotonic() - began)


NOT_CLOSED = "ResourceWarning: the producer of queue 'orders' was not closed"


async def test_what_is_held_at_the_end_of_a_process_is_sent(
    harness: Harness, queue: AsyncQueue
) -> None:
    told = await tale(harness, "leaves")

    assert NOT_CLOSED in told.errors
    assert "not_stored" not in told.errors
    assert [m.data for m in await drain(queue, 1_200)] == list(range(1_200))


@one_world
async def test_what_is_held_when_a_program_fails_is_sent(
    harness: Harness, queue: AsyncQueue
) -> None:
    await tale(harness, "leaves_with_an_error", status=1)

    assert await count(queue) == 1_200


@one_world
async def test_who_closes_hears_nothing(harness: Harness, queue: AsyncQueue) -> None:
    told = await tale(harness, "closes")

    assert (told.lines, told.errors) == ([], "")
    assert await count(queue) == 3


async def test_what_could_not_be_sent_before_the_end_is_told_and_does_not_hold_it_up(
    harness: Harness, queue: AsyncQueue
) -> None:
    told = await tale(harness, "is_stuck")

    assert NOT_CLOSED in told.errors
    assert sum(map(int, re.findall(r"^not_stored (\d+): ", told.errors, re.M))) == 4
    assert "ended, 0.5 s were over" in told.errors
    assert told.seconds < 20
    assert [m.data for m in await drain(queue, 1)] == [0]
    assert await count(queue) == 0


@pytest.mark.on("redis", worlds=("asyncio",))  # a thread is not cut off
async def test_a_batch_that_is_under_way_when_its_loop_ends_is_stored_once(
    harness: Harness, queue: AsyncQueue
) -> None:
    told = await tale(harness, "is_cut_off")

    assert NOT_CLOSED in told.errors
    assert "not_stored" not in told.errors
    assert [m.data for m in await drain(queue, 1)] == ["under way"]
    assert await count(queue) == 0


@one_world
async def test_a_forked_child_sends_its_own_messages_and_the_parent_those_of_before(
    harness: Harness, queue: AsyncQueue
) -> None:
    told = await tale(harness, "forks")

    assert told.lines == ["child 0 2", "parent 3 0", "parent 3"]
    assert "left_to_parent 3" in told.errors
    assert "not_stored" not in told.errors
    assert sorted(m.data for m in await drain(queue, 6)) == [
        "child 0", "child 1", "child at its end", "parent 0", "parent 1", "parent 2",
    ]  # fmt: skip
    assert await count(queue) == 0


@one_world
async def test_a_forked_child_that_does_not_send_says_nothing_and_sends_nothing(
    harness: Harness, queue: AsyncQueue
) -> None:
    told = await tale(harness, "forks_and_forgets")

    assert (told.lines, told.errors) == ([], "")
    assert await count(queue) == 1


@one_world
async def test_ctrl_c_in_a_send_loses_nothing_that_was_handed_over(
    harness: Harness, queue: AsyncQueue
) -> None:
    told = await tale(harness, "is_interrupted")

    asked, stored, *handed_over = map(int, told.lines[0].split())
    assert stored == len(handed_over)
    found = sorted(m.data for m in await drain(queue, await count(queue)))
    assert len(found) == len(set(found))
    assert set(handed_over) <= set(found) <= set(range(1, asked + 1))


@one_world
async def test_a_signal_handler_may_send(harness: Harness, queue: AsyncQueue) -> None:
    told = await tale(harness, "is_signalled")

    [stored] = map(int, told.lines)
    assert stored >= 100
    data = [m.data for m in await drain(queue, await count(queue))]
    assert data.count("from the handler") == stored
