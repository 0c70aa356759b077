"""Waiting inside a process, by threads and tasks alike: neither polls, and no wake-up is missed.

Who wakes them, a server in memory or what another server tells, is not for here.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from leanmq.backends.streams.calls import Wait

__all__ = ["LocalHub", "wake_everybody"]

_hubs: weakref.WeakValueDictionary[int, LocalHub] = weakref.WeakValueDictionary()


class LocalHub:
    """A version number per key. Whoever waits compares it with what was read before looking,
    so a wake-up between the look and the wait is never missed.

    Args:
        rounds: How often everybody was woken before.
    """

    def __init__(self, rounds: int = 0) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._rounds = rounds
        self._versions: dict[str, int] = {}
        self._waiters: dict[str, set[Callable[[], object]]] = {}
        _hubs[id(self)] = self

    def version(self, key: str) -> int:
        """How often the key was woken so far. A fork may ask, too: without the lock."""
        return self._rounds + self._versions.get(key, 0)

    def wake(self, keys: tuple[str, ...]) -> None:
        """Have everybody who waits on one of these look again."""
        with self._lock:
            for key in keys:
                self._versions[key] = self._versions.get(key, 0) + 1
                for notify in self._waiters.get(key, ()):
                    notify()

    def wake_all(self) -> None:
        """Have everybody look again, those too that have looked and do not wait yet: a client was
        closed, or time was put forward."""
        with self._lock:
            self._rounds += 1
            for waiters in self._waiters.values():
                for notify in waiters:
                    notify()

    def heir(self) -> LocalHub:
        """The hub of a forked child, where every version that was read here is over."""
        return LocalHub(self._rounds + max(self._versions.values(), default=0) + 1)

    def wait(self, wait: Wait) -> None:
        """Wait for a wake-up from any thread or task."""
        event = threading.Event()
        with self._waiting(wait, event.set) as must_wait:
            if must_wait:
                event.wait(wait.seconds)

    async def wait_async(self, wait: Wait) -> None:
        """Wait for a wake-up from any thread or task, letting other tasks run."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()

        def notify() -> None:
            with suppress(RuntimeError):  # the loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(event.set)

        with self._waiting(wait, notify) as must_wait:
            if must_wait:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait.seconds):
                        await event.wait()

    @contextmanager
    def _waiting(self, wait: Wait, notify: Callable[[], object]) -> Iterator[bool]:
        """Register a waiter; yields whether it has to wait at all."""
        with self._lock:
            must_wait = all(map(int.__eq__, map(self.version, wait.keys), wait.seen))
            for key in wait.keys:
                self._waiters.setdefault(key, set()).add(notify)
        try:
            yield must_wait
        finally:
            with self._lock:
                for key in wait.keys:
                    waiters = self._waiters[key]
                    waiters.discard(notify)
                    if not waiters:
                        del self._waiters[key]


def wake_everybody() -> None:
    """Have everybody in this process look again, whatever they wait for."""
    # Listed in one step, since other threads open and close clients meanwhile. What a fork
    # inherited is left alone: nobody waits there, and its lock may be held for ever.
    for hub in [reference() for reference in _hubs.valuerefs()]:
        if hub is not None and hub._pid == os.getpid():
            hub.wake_all()
