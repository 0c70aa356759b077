"""What the bounds of seconds in the tests are measured with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until
from tests.support.weather import Stopwatch


def test_what_is_slept_counts() -> None:
    watch = Stopwatch()
    time.sleep(0.2)  # what is measured

    assert watch.own() >= 0.1  # other threads of this process may have been in line


def test_what_others_took_of_the_processor_does_not_count() -> None:
    with crowded(3):
        watch = Stopwatch()
        work(0.3)

    assert watch.own() < 0.75 * watch.passed()


def test_what_a_server_of_ours_waits_in_line_does_not_count_either() -> None:
    with crowded(3) as others:
        alone, watch = Stopwatch(), Stopwatch(others)
        time.sleep(0.3)  # while the others wait for the processor
        waited, waited_with_them = alone.in_line(), watch.in_line()

    assert waited_with_them > waited + 0.1


def work(seconds: float) -> None:
    """Compute for so many seconds of a processor."""
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        pass


@contextmanager
def crowded(number: int) -> Iterator[list[int]]:
    """This thread shares one processor with so many busy processes; their process ids."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    spin = [sys.executable, "-S", "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(number)]
    try:
        wait_until(lambda: all(cpu_time(other.pid) > 0.05 for other in others), 60, "the others")
        yield [other.pid for other in others]
    finally:
        for other in others:
            other.kill()
            other.wait()
        os.sched_setaffinity(0, before)


def cpu_time(pid: int) -> float:
    """Seconds of a processor that a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9
