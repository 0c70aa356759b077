"""Waiting for many queues on servers none of which can be left blocking for all of them.

Whoever changes a queue tells it on a channel that is called as the key (``cluster.py``). Here it is
listened to: one connection a server and process (or event loop), while anybody waits.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar, runtime_checkable

from leanmq.backends.hub import LocalHub
from leanmq.backends.listeners import Wake
from leanmq.backends.streams.calls import Wait
from leanmq.backends.urls import Address, show
from leanmq.errors import ClosedError

__all__ = ["Listens", "SlotMap", "Wakes"]

_AGAIN: Final = 1.0
"""Seconds after which a server is tried again to which no connection could be made."""

_log: Final = logging.getLogger("leanmq.connection")

Loop = asyncio.AbstractEventLoop


@runtime_checkable
class SlotMap(Protocol):
    """A topology of several servers, each with slots of its own."""

    def where(self, key: str) -> Address | None:
        """The server of a key, as far as is known; asks nobody."""
        ...


class Listens(Protocol):
    """See ``listeners.py``.

    Attributes:
        began: When it was made (``time.monotonic``).
        ended: Whether it hears nothing any more.
        refusal: What the server said when it refused a subscription.
    """

    began: float

    @property
    def ended(self) -> bool: ...
    @property
    def refusal(self) -> str: ...
    def heed(self, keys: Sequence[str]) -> bool: ...
    def hears(self, key: str) -> bool: ...
    def stop(self) -> None: ...
    def abandon(self) -> None: ...


L = TypeVar("L", bound=Listens)


class _Process(Generic[L]):
    """What one process has: versions and waiters, and its listeners."""

    def __init__(self, hub: LocalHub) -> None:
        self.hub = hub
        self.lock = threading.Lock()
        self.listeners: dict[tuple[Loop | None, Address], L] = {}

    def abandon(self) -> None:
        for listener in self.listeners.values():
            listener.abandon()


class Wakes(Generic[L]):
    """A ``Hub`` whose wake-ups come from servers.

    While a key is subscribed to, its versions tell all that came. A key that is not, because its
    server cannot be reached, does not know it, or refuses, counts as awake at the end of a wait:
    it is for the caller to look. So does each key once, as soon as it is subscribed to.

    Args:
        display: The URL, secrets masked.
        where: The server of a key.
        listen: Makes a listener for a server, which calls ``wake``.
    """

    def __init__(
        self,
        display: str,
        where: Callable[[str], Address | None],
        listen: Callable[[Address, Wake], L],
    ) -> None:
        self._display = display
        self._where = where
        self._listen = listen
        self._closed = False
        self._warned: set[Address] = set()
        self._processes: dict[int, _Process[L]] = {os.getpid(): _Process(LocalHub())}

    def __del__(self) -> None:
        """In a forked child, see ``Lines.__del__``."""
        for pid, process in self._processes.items():
            if pid != os.getpid():
                process.abandon()

    def version(self, key: str) -> int:
        """How often the key was woken so far."""
        return self._here().hub.version(key)

    def wait(self, wait: Wait) -> None:
        """Listen, and wait as told.

        Raises:
            ClosedError: After ``stop``.
        """
        heard = self._heed(wait.keys, None)
        self._here().hub.wait(wait)
        self._wake_unheard(wait, heard)

    async def wait_async(self, wait: Wait) -> None:
        """See ``wait``."""
        heard = self._heed(wait.keys, asyncio.get_running_loop())
        await self._here().hub.wait_async(wait)
        self._wake_unheard(wait, heard)

    def stop(self) -> list[L]:
        """Wake everybody and listen no more; returns the listeners, which end soon."""
        here = self._here()
        with here.lock:
            self._closed = True
            listeners = list(here.listeners.values())
            here.listeners.clear()
        for listener in listeners:
            listener.stop()
        here.hub.wake_all()
        return listeners

    def _here(self) -> _Process[L]:
        """What this process has. A forked child starts with nothing, and touches nothing."""
        pid = os.getpid()
        here = self._processes.get(pid)
        if here is None:
            inherited = next(iter(list(self._processes.values())))
            here = self._processes.setdefault(pid, _Process(inherited.hub.heir()))
            for other in [other for other in list(self._processes) if other != pid]:
                if (process := self._processes.pop(other, None)) is not None:
                    process.abandon()
        return here

    def _heed(self, keys: Iterable[str], loop: Loop | None) -> dict[str, L]:
        """See that the keys are listened to; returns by whom."""
        shares: dict[Address, list[str]] = {}
        for key in keys:
            address = self._where(key)
            if address is not None:
                shares.setdefault(address, []).append(key)
        heard: dict[str, L] = {}
        for address, share in shares.items():
            listener = self._listener(loop, address)
            if listener is not None and listener.heed(share):
                heard |= dict.fromkeys(share, listener)
                self._warn(address, listener.refusal)
        return heard

    def _listener(self, loop: Loop | None, address: Address) -> L | None:
        here = self._here()
        with here.lock:
            if self._closed:
                raise ClosedError(f"the client of {self._display} is closed; open another")
            found = here.listeners.get((loop, address))
            if found is not None and not found.ended:
                return found
            if found is not None and time.monotonic() < found.began + _AGAIN:
                return None
            for other in [key for key in here.listeners if key[0] and key[0].is_closed()]:
                del here.listeners[other]
            fresh = here.listeners[loop, address] = self._listen(address, here.hub.wake)
            return fresh

    def _wake_unheard(self, wait: Wait, heard: dict[str, L]) -> None:
        here = self._here()
        if all(map(int.__eq__, map(here.hub.version, wait.keys), wait.seen)):
            here.hub.wake(tuple(k for k in wait.keys if k not in heard or not heard[k].hears(k)))

    def _warn(self, address: Address, refusal: str) -> None:
        if refusal and address not in self._warned:
            self._warned.add(address)
            _log.warning(
                "server %s refuses the channels on which it is told what is new (%s), so that "
                "waiting for many queues may take a second longer; grant them by ACL SETUSER",
                show(address),
                refusal.partition("'")[0].strip(),
                extra={"leanmq_event": "wakes_refused", "leanmq_address": show(address)},
            )
