"""Soak: random faults under load, and an account of every message at the end.

    make soak
    python -m tests.soak --subjects hash-redis,cluster --worlds asyncio --seconds 60 --seed 7

The exit status is 1 if a message was lost, doubled, stored though refused, or handed out again
after it was acknowledged; then the history of one such message is printed. The same seed draws the
same faults; what they hit depends on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from tests.contract.harness import Harness, eventually, opened
from tests.soak.history import Finding, History
from tests.soak.strikes import Strikes
from tests.soak.work import QUEUE, Work

__all__ = ["main"]

SUBJECTS: Final = ("redis", "cluster", "hash-redis", "round-redis", "hash-cluster")
WORLDS: Final = ("sync", "asyncio")
LEASE: Final = 3.0
DRAIN: Final = 60.0
"""Seconds in which the queue must be empty once all is well again."""


async def soak(subject: str, world: str, seconds: float, seed: int) -> list[Finding]:
    """One run; what must not be."""
    history = History(LEASE)
    async with opened(subject, world) as harness:
        work = Work(harness, history, seed)
        queue = await work.start()
        struck = await _strike(harness, work, seconds, random.Random(seed))
        await work.stop_sending()

        async def empty() -> bool:
            return not (await queue.get_info()).message_count

        with suppress(AssertionError):  # what is left is told below
            await eventually(empty, within=DRAIN)
        await work.stop_receiving()
        left = (await queue.get_info()).message_count
        dead = (await queue.dlq.get_info()).message_count
    findings = history.findings()
    if left:
        findings.append(Finding(f"{left} messages are still there after {DRAIN:.0f} s"))
    if dead:
        findings.append(Finding(f"{dead} messages are dead letters"))
    print(
        f"{subject:12} {world:7} seed {seed}: {struck} faults; {len(history.confirmed)} confirmed, "
        f"{len(history.unknown)} unknown, {len(history.refused)} refused, "
        f"{len(history.moments)} handed out; {'BROKEN' if findings else 'ok'}; told: "
        f"{dict(history.errors) or 'nothing'}",
        flush=True,
    )
    for finding in findings:
        print(f"  {finding}", flush=True)
    return findings


async def _strike(harness: Harness, work: Work, seconds: float, luck: random.Random) -> int:
    """Faults until the time is over; how many there were."""
    ends = time.monotonic() + seconds
    keys = [keys.live.stream for keys in harness.stored(QUEUE)]
    strikes = Strikes(harness.topologies, keys, luck) if harness.topologies else None
    while (left := ends - time.monotonic()) > 0 and not work.failed():
        await asyncio.sleep(min(left, luck.uniform(0, 0.8)))
        if strikes:
            await asyncio.to_thread(strikes.strike)
    for topology in harness.topologies:
        await asyncio.to_thread(topology.heal)
    return strikes.struck.total() if strikes else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Random faults.")
    parser.add_argument("--subjects", default=",".join(SUBJECTS), help="of the contract")
    parser.add_argument("--worlds", default=",".join(WORLDS))
    parser.add_argument("--seconds", type=float, default=30.0, help="of faults, each run")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    given = parser.parse_args(arguments)
    broken = 0
    for subject in given.subjects.split(","):
        for world in given.worlds.split(","):
            broken += bool(asyncio.run(soak(subject, world, given.seconds, given.seed)))
    return 1 if broken else 0


if __name__ == "__main__":
    logging.getLogger("leanmq").setLevel(logging.ERROR)  # of faults it would tell all the time
    sys.exit(main())
