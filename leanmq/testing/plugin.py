"""The pytest plugin: fixtures for testing an application. Found by its entry point ``leanmq``.

Every pytest run in an environment with LeanMQ imports this, so it imports nothing heavy.
"""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from leanmq import AsyncLeanMQ, LeanMQ
from leanmq.testing.clock import ManualClock

__all__ = ["async_leanmq", "leanmq", "leanmq_clock", "leanmq_url"]

OPTIONS = "?slots=strict"
"""Transactions as a cluster has them: what passes in memory passes everywhere."""


@pytest.fixture
def leanmq() -> Iterator[LeanMQ]:
    """A LeanMQ client with queues of its own, in memory. They are gone after the test."""
    with LeanMQ(f"memory://{OPTIONS}") as mq:
        yield mq


@pytest.fixture
def async_leanmq() -> Iterator[AsyncLeanMQ]:
    """An AsyncLeanMQ client with queues of its own, in memory. They are gone after the test."""
    # No coroutine, so that it needs neither pytest-asyncio nor anyio, and none of their modes.
    mq = AsyncLeanMQ(f"memory://{OPTIONS}")
    try:
        yield mq
    finally:
        _run_at_once(mq.close())


@pytest.fixture
def leanmq_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A URL of queues in memory, for code that opens its own client; LEANMQ_URL is set to it."""
    url = f"memory://test-{secrets.token_hex(8)}{OPTIONS}"
    for other in ("LEANMQ_CONFIG", "LEANMQ_PREFIX"):  # of the machine that the tests run on
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv("LEANMQ_URL", url)
    with LeanMQ(url):  # keeps the queues while the code opens and closes clients
        yield url


@pytest.fixture
def leanmq_clock() -> Iterator[ManualClock]:
    """A leanmq.testing.ManualClock: advance(30) has half a minute pass on memory:// queues."""
    with ManualClock() as clock:
        yield clock


def _run_at_once(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that waits for nothing, such as closing what is in memory, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("closing a client in memory had to wait, which it never should")
