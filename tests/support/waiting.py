"""Waiting for a condition within a bound, the only kind of waiting the tests know."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

T = TypeVar("T")


def wait_until(
    condition: Callable[[], T],
    timeout: float,
    what: str | Callable[[], str],
    *,
    step: float = 0.01,
) -> T:
    """Return the first true value of ``condition``, which is asked at once and at least twice.

    Args:
        condition: Asked every ``step`` seconds, in the calling thread.
        timeout: Seconds after which to give up.
        what: What was waited for, or a function that tells it at the time of giving up.
        step: Seconds between two questions.

    Raises:
        TimeoutError: if the condition stayed false; the text says what was waited for.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            account = what if isinstance(what, str) else what()
            raise TimeoutError(f"waited {timeout:g} s for {account}")
        time.sleep(step)
