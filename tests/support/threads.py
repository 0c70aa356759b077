"""Threads that disturb each other on purpose, so that a lock that is missing is noticed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType, ModuleType
from typing import Any, TypeVar

__all__ = ["at_once"]

T = TypeVar("T")


def at_once(
    work: Callable[[int], T], *, threads: int = 8, disturb: ModuleType | None = None
) -> list[T]:
    """What ``work`` returns in threads that start together, each given its number.

    Args:
        work: What each thread does.
        threads: How many there are.
        disturb: A module whose functions let another thread run before each of their bytecodes.
            Many of its lines are atomic by chance in one release of Python, and not in the next.

    Raises:
        Exception: what ``work`` raised in any of them.
    """
    start = threading.Barrier(threads)

    def yielding(frame: FrameType, event: str, argument: Any) -> Any:
        if disturb is None or frame.f_code.co_filename != disturb.__file__:
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        time.sleep(0)
        return yielding

    def run(number: int) -> T:
        start.wait(30)
        if disturb is not None:
            sys.settrace(yielding)
        try:
            return work(number)
        finally:
            sys.settrace(None)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))
