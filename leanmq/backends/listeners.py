"""Keeps one connection to one server open and listens: a thread, or a task under asyncio.

What is said there is for ``subscriptions.py`` to read; who is woken by it, for ``wakes.py``.
"""

from __future__ import annotations

import asyncio
import select
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from redis.exceptions import RedisError

from leanmq.backends.lines import Line, disown
from leanmq.backends.subscriptions import QUIET, Subscriptions
from leanmq.backends.wire import hang_up, hang_up_async
from leanmq.errors import LeanMQError

__all__ = ["LIMIT", "AsyncListener", "Listener", "Wake"]

LIMIT: Final = 1.0
"""Seconds in which a connection must be made: nobody can end a thread that makes one."""

_PIECE: Final = 65_536

Wake: TypeAlias = Callable[[tuple[str, ...]], object]

# After these the connection is of no use, and the next watch makes another. Whether the server is
# there is told by those who look: waiting is not what fails.
_TROUBLE: Final = (OSError, ValueError, RedisError, LeanMQError)


class Listener:
    """Listens in a thread, until nobody has waited for a while.

    Args:
        connect: Makes the connection.
        wake: Called with the keys to look at again.
    """

    def __init__(self, connect: Callable[[], Line], wake: Wake) -> None:
        self.began = time.monotonic()
        self.ended = False
        self._connect, self._wake = connect, wake
        self._lock = threading.Lock()
        self._subscriptions = Subscriptions(self.began)
        self._line: Line = None
        self._stopped = False
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="leanmq-listener", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # no more threads: then nobody listens, and watches look
            self._end()

    @property
    def refusal(self) -> str:
        """What the server said when it refused a subscription."""
        return self._subscriptions.refusal

    def heed(self, keys: Sequence[str]) -> bool:
        """Listen for these; False if it is too late for that."""
        with self._lock:
            if self.ended:
                return False
            if self._subscriptions.want(keys, time.monotonic()):
                self._ring()
            return True

    def hears(self, key: str) -> bool:
        """Whether a wake-up for the key would be heard."""
        with self._lock:
            return not self.ended and self._subscriptions.holds(key)

    def stop(self) -> None:
        """End soon."""
        with self._lock:
            self._stopped = True
            if not self.ended:
                self._ring()

    def join(self) -> None:
        """Wait until it has ended."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(LIMIT)

    def abandon(self) -> None:
        """In a forked child, where the thread is not: close the child's copies."""
        self._bell.close()
        self._ear.close()
        hang_up(self._line)

    def _ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self._bell.send(b"\0")

    def _run(self) -> None:
        with suppress(*_TROUBLE):
            try:
                self._line = self._connect()
                self._listen(self._line._sock)
            finally:
                self._end()

    def _listen(self, sock: socket.socket) -> None:
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        poll.register(self._ear, select.POLLIN)
        while True:
            now = time.monotonic()
            with self._lock:
                if self._stopped or self._subscriptions.is_idle(now):
                    self.ended = True
                    return
                if self._subscriptions.is_lost(now):
                    return
                requests = self._subscriptions.requests(now)
            if requests:
                sock.sendall(requests)
            for stirred, _ in poll.poll(QUIET * 1000):
                if stirred == self._ear.fileno():
                    self._ear.recv(_PIECE)
                elif not self._hear(sock):
                    return

    def _hear(self, sock: socket.socket) -> bool:
        """Take what came; False if that was the end."""
        data = sock.recv(_PIECE)
        while pending := getattr(sock, "pending", int)():  # TLS holds back what it has decrypted
            data += sock.recv(pending)
        if not data:
            return False
        with self._lock:
            awake = self._subscriptions.take(data, time.monotonic())
        if awake:
            self._wake(tuple(awake))
        return True

    def _end(self) -> None:
        with self._lock:
            self.ended = True
            held = self._subscriptions.held()
            self._bell.close()
            self._ear.close()
        hang_up(self._line)
        self._line = None
        if held:
            self._wake(held)


class AsyncListener:
    """``Listener`` for asyncio: a task of the loop that makes it, and for that loop alone."""

    def __init__(self, connect: Callable[[], Awaitable[Line]], wake: Wake) -> None:
        self.began = time.monotonic()
        self._connect, self._wake = connect, wake
        self._subscriptions = Subscriptions(self.began)
        self._line: Line = None
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="leanmq-listener")

    @property
    def ended(self) -> bool:
        """Whether it hears nothing any more. A task that was cancelled may never have begun."""
        return self._ended or self._task.done()

    @property
    def refusal(self) -> str:
        """See ``Listener.refusal``."""
        return self._subscriptions.refusal

    def heed(self, keys: Sequence[str]) -> bool:
        """See ``Listener.heed``."""
        if self.ended:
            return False
        if self._subscriptions.want(keys, time.monotonic()) and self._line is not None:
            self._request()
        return True

    def hears(self, key: str) -> bool:
        """See ``Listener.hears``."""
        return not self.ended and self._subscriptions.holds(key)

    def stop(self) -> None:
        """See ``Listener.stop``; from any thread."""
        with suppress(RuntimeError):  # the loop was closed, and the task with it
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def join(self) -> None:
        """See ``Listener.join``."""
        if self._loop is asyncio.get_running_loop():
            await asyncio.wait([self._task], timeout=LIMIT)

    def abandon(self) -> None:
        """In a forked child, where the loop does not run: close the child's copy."""
        disown(self._line)

    def _request(self) -> None:
        requests = self._subscriptions.requests(time.monotonic())
        if requests:
            self._line._writer.write(requests)

    async def _run(self) -> None:
        with suppress(*_TROUBLE):
            try:
                line = self._line = await self._connect()
                await self._listen(line._reader)
            finally:
                self._ended = True
                await hang_up_async(self._line)
                self._line = None
                if held := self._subscriptions.held():
                    self._wake(held)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        while True:
            now = time.monotonic()
            if self._subscriptions.is_idle(now) or self._subscriptions.is_lost(now):
                return
            self._request()
            with suppress(TimeoutError):
                async with asyncio.timeout(QUIET):
                    data = await reader.read(_PIECE)
                    if not data:
                        return
                    if awake := self._subscriptions.take(data, time.monotonic()):
                        self._wake(tuple(awake))
