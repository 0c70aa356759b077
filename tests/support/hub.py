"""The one background thread in which all proxies of a test process live."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import cache
from typing import TypeVar

__all__ = ["Hub", "shared_hub"]

T = TypeVar("T")


class Hub:
    """A selector loop in a daemon thread; everything in it happens one after the other.

    Because of that the proxies need no locks: whatever a test asks of them is carried out in
    this thread, between two events. The thread sleeps in the kernel when nothing happens.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._inbox: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._pid = os.getpid()
        self._waker, ear = socket.socketpair()
        self._waker.setblocking(False)
        ear.setblocking(False)
        self.watch(ear, selectors.EVENT_READ, lambda _events: _drain(ear))
        self._thread = threading.Thread(target=self._run, name="test-proxies", daemon=True)
        self._thread.start()
        os.register_at_fork(after_in_child=self._leave_to_parent)

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` in the hub's thread and return what it returned.

        Raises:
            RuntimeError: if asked in a forked child, which has no such thread, or if the
                thread has died of an error.
        """
        if threading.current_thread() is self._thread:
            return work()
        if os.getpid() != self._pid:
            raise RuntimeError("the proxies can be controlled only by the process that made them")
        answer: Future[T] = Future()

        def carry_out() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
                answer.set_exception(error)

        self._inbox.append(carry_out)
        with contextlib.suppress(BlockingIOError):  # A full pipe has woken it already.
            self._waker.send(b"!")
        try:
            return answer.result(timeout=10)
        except TimeoutError:
            alive = self._thread.is_alive()
            raise RuntimeError(f"the proxies do not answer (thread alive: {alive})") from None

    def at(self, due: float, work: Callable[[], None]) -> None:
        """Run ``work`` when ``time.monotonic()`` reaches ``due``; only from the hub's thread."""
        heapq.heappush(self._timers, (due, next(self._order), work))

    def watch(self, sock: socket.socket, events: int, handler: Callable[[int], None]) -> None:
        """Tell ``handler`` about events of ``sock``, or forget the socket if ``events`` is 0."""
        known = sock in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, events, handler)
        else:
            self._selector.register(sock, events, handler)

    def _run(self) -> None:
        while True:
            timeout = self._timers[0][0] - time.monotonic() if self._timers else None
            for key, events in self._selector.select(timeout):
                key.data(events)
            while self._inbox:
                self._inbox.popleft()()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _leave_to_parent(self) -> None:
        # A forked child that keeps these sockets would keep connections open which the parent
        # closes. Closing does not unregister: the selector itself is shared with the parent.
        if os.getppid() == self._pid:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()


@cache
def shared_hub() -> Hub:
    """Return the hub of this process, starting it at the first call."""
    return Hub()


def _drain(ear: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while ear.recv(4096):
            pass
