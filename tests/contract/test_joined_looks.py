"""Looks at many queues of a server in one script: what it is spared, and what it is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from leanmq.backends.protocol import Exchange, NewMessage, QueueRef, Receive, SendBatch, Terms
from leanmq.backends.streams.scripts import script
from leanmq.backends.wire import AsyncWire, NodeCall, Wire
from tests.contract.harness import Harness
from tests.contract.seam import Seam

pytestmark = pytest.mark.on("redis", "sentinel")

QUEUES = [QueueRef(f"orders#{n}") for n in range(8)]
KEYS = 7  # of a queue
PAGE = 100  # messages that a step of upkeep touches


@contextmanager
def looks() -> Iterator[list[list[int]]]:
    """At how many queues each run of the receive script looks, by writes to the server."""
    seen: list[list[int]] = []
    write, run_async = Wire._write, AsyncWire.run

    def note(call: NodeCall) -> NodeCall:
        runs = [c for c in call.commands if c[:2] == ("EVALSHA", script("receive").sha)]
        if runs:
            seen.append([int(command[2]) // KEYS for command in runs])
        return call

    with (
        patch.object(Wire, "_write", lambda self, call: write(self, note(call))),
        patch.object(AsyncWire, "run", lambda self, call: run_async(self, note(call))),
    ):
        yield seen


@pytest.fixture
async def seam(harness: Harness) -> Any:
    seam = Seam(harness)
    await seam.declared(QUEUES)
    await seam.marks(QUEUES)  # loads the script
    yield seam
    await seam.close()


def asked(count: int) -> list[Exchange]:
    return [Exchange((), (Receive(ref, "me", count),)) for ref in QUEUES]


async def test_all_queues_are_looked_at_by_one_script(seam: Seam) -> None:
    await seam.together([SendBatch(ref, [NewMessage(ref.name.encode())]) for ref in QUEUES])

    with looks() as seen:
        found = await seam.together(asked(10))

    assert [[d.body for d in one.deliveries] for one in found] == [
        [ref.name.encode()] for ref in QUEUES
    ]
    assert seen == [[len(QUEUES)]]


async def test_a_script_does_no_more_upkeep_for_many_queues_than_for_one(
    seam: Seam, harness: Harness
) -> None:
    delayed = [NewMessage(b"%d" % n, Terms(delay=1)) for n in range(PAGE + 20)]
    await seam.together([SendBatch(ref, delayed) for ref in QUEUES])
    await harness.pass_time(0.05)

    with looks() as seen:
        found = await seam.together(asked(10))

    assert [len(one.deliveries) for one in found] == [10] * len(QUEUES)
    assert all(one.more or one.fresh for one in found)
    # The first one has a full page, which leaves the others to themselves.
    assert seen == [[len(QUEUES)], [1] * (len(QUEUES) - 1)]
