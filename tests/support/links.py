"""One proxied connection: two sockets, and what passes from one to the other.

Everything here runs in the hub's thread. ``proxy.py`` decides what happens to a connection;
this file does it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from selectors import EVENT_READ, EVENT_WRITE
from typing import Literal

from .faults import Trap
from .hub import Hub

__all__ = ["Lane", "Link", "Role"]

Role = Literal["client", "replica", "sentinel"]

_CHUNK = 256 * 1024
# Past this much unsent data the proxy stops reading, so that a stopped reader slows the writer
# down as it would without a proxy.
_FULL = 1024 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST.

# One buffer for all: a chunk is passed on or copied before the next one is read.
_SCRATCH = memoryview(bytearray(_CHUNK))


class Lane:
    """One direction: bytes read from ``source`` that ``target`` has not taken yet."""

    __slots__ = ("backlog", "delay", "ended", "late", "source", "target")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source = source
        self.target = target
        self.delay = 0.0
        self.backlog = bytearray()
        self.late: deque[tuple[float, bytes]] = deque()  # b"" stands for the source's close.
        self.ended = False

    @property
    def quiet(self) -> bool:
        """True if nothing waits here: what has been read has been sent."""
        return not (self.backlog or self.late or self.ended)

    @property
    def full(self) -> bool:
        return len(self.backlog) + sum(len(data) for _due, data in self.late) > _FULL

    def push(self, data: memoryview | bytes) -> None:
        """Hand bytes to the target, keeping what its socket does not take now."""
        sent = 0
        if not self.backlog:
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
        if sent < len(data):
            self.backlog += data[sent:]

    def flush(self) -> None:
        """Send what was kept, now that the target takes more."""
        while self.backlog:
            try:
                del self.backlog[: self.target.send(self.backlog)]
            except BlockingIOError:
                return


class Link:
    """A client's connection and the server's connection that belongs to it.

    Attributes:
        role: Who the client is, as far as its requests have told.
        client_gone: True if the client was hung up on, and the server only finishes its work.
        held: True if nothing passes now.
        closed: True if both connections are gone.
    """

    def __init__(
        self,
        hub: Hub,
        client: socket.socket,
        server: socket.socket,
        on_request: Callable[[Link, memoryview], bool],
        on_close: Callable[[Link], None],
    ) -> None:
        """Start passing bytes.

        Args:
            on_request: Sees every chunk of requests first; False if it must not be passed on.
            on_close: Told once, when both connections are gone.
        """
        self.role: Role = "client"
        self.chunks = 0
        self.tail = b""
        self.trap: Trap | None = None
        self.closed = False
        self.held = False
        self.requests = Lane(client, server)
        self.replies = Lane(server, client)
        self._hub = hub
        self._connecting = True
        self.client_gone = False
        self._reading = False  # All that is watched is that either side can be read.
        self._watched = {client: 0, server: 0}
        self._on_request = on_request
        self._on_close = on_close
        self.refresh()

    # -- what proxies ask for ----------------------------------------------------------------

    def hold(self, held: bool) -> None:
        """Stop (or go on) passing anything, closes included."""
        self.held = held
        self.refresh()

    def resume(self) -> None:
        """Go on after a hold, first with what became due in the meantime."""
        self.hold(False)
        for lane in (self.requests, self.replies):
            self._deliver(lane)

    def delay(self, requests: float, replies: float) -> None:
        """Pass everything on so many seconds later; with 0, what is late comes at once."""
        for lane, seconds in ((self.requests, requests), (self.replies, replies)):
            lane.delay = seconds
            if lane.late and not seconds:
                lane.late = deque((0.0, data) for _due, data in lane.late)
                self._deliver(lane)

    def close(self, *, reset: bool) -> None:
        """End both connections: with RST, as a broken network does, or with FIN."""
        if self.closed:
            return
        self.closed = True
        for sock in self._watched:
            self._watch(sock, 0)
            _close(sock, reset=reset)
        if self.trap is not None and not self.client_gone:
            self.trap.missed()
        self._on_close(self)

    def refresh(self) -> None:
        """Ask the kernel for just those events that this link can use now."""
        if self.closed:
            return
        events = {self.requests.source: 0, self.requests.target: 0}
        if not self.held:
            if self._connecting:
                events[self.requests.target] = EVENT_WRITE
            for lane in () if self._connecting else (self.requests, self.replies):
                if not lane.ended and not lane.full:
                    events[lane.source] |= EVENT_READ
                if lane.backlog:
                    events[lane.target] |= EVENT_WRITE
        for sock, wanted in events.items():
            self._watch(sock, wanted)
        self._reading = all(wanted == EVENT_READ for wanted in events.values())

    # -- events ------------------------------------------------------------------------------

    def _watch(self, sock: socket.socket, events: int) -> None:
        if self._watched[sock] != events:
            self._watched[sock] = events
            self._hub.watch(sock, events, lambda seen: self._ready(sock, seen))

    def _ready(self, sock: socket.socket, seen: int) -> None:
        if self.closed or self.held:
            return
        try:
            if self._connecting:
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    raise ConnectionRefusedError(code, "nothing listens behind the proxy")
                self._connecting = False
            else:
                into, out_of = self.requests, self.replies
                if sock is self.requests.source:
                    into, out_of = out_of, into
                if seen & EVENT_WRITE:
                    into.flush()
                if seen & EVENT_READ:
                    self._read(out_of)
                if not (self.requests.quiet and self.replies.quiet):
                    self._settle()
        except OSError:
            self.close(reset=True)
        if not (self._reading and self.requests.quiet and self.replies.quiet):
            self.refresh()

    def _read(self, lane: Lane) -> None:
        try:
            size = lane.source.recv_into(_SCRATCH)
        except BlockingIOError:
            return
        data = _SCRATCH[:size]
        if not size:
            lane.ended = True
        if lane is self.requests:
            if size and not self._on_request(self, data):
                return
            if self.held:  # By what the request told about the client.
                lane.late.append((0.0, bytes(data)))
                return
        elif self.trap is not None:
            self._swallow(self.trap, data)
            return
        if lane.delay or lane.late:
            due = time.monotonic() + lane.delay
            lane.late.append((due, bytes(data)))
            self._hub.at(due, lambda: self._deliver(lane))
        elif size:
            lane.push(data)

    def _deliver(self, lane: Lane) -> None:
        """Pass on what has been late long enough."""
        if self.closed or self.held:
            return
        try:
            while lane.late and lane.late[0][0] <= time.monotonic():
                data = lane.late.popleft()[1]
                if data:
                    lane.push(data)
            self._settle()
        except OSError:
            self.close(reset=True)
        self.refresh()

    def _settle(self) -> None:
        """Pass a close on, once everything sent before it has been passed on."""
        if self.client_gone:
            if not self.requests.backlog and not self.requests.late:
                self.requests.target.shutdown(socket.SHUT_WR)
            if self.replies.ended:
                self.close(reset=False)
            return
        for lane in (self.requests, self.replies):
            if lane.ended and not lane.backlog and not lane.late:
                self.close(reset=False)

    def _swallow(self, trap: Trap, data: memoryview) -> None:
        """Keep an answer from the client and hang up on it.

        The server still gets all that has arrived from the client, is told that no more comes,
        and is read until it closes by itself. So the rest of a long pipeline is executed too,
        which a server that is hung up on would drop.
        """
        if self.client_gone or not len(data):
            return
        if trap.keep:
            self.replies.push(data[: trap.keep])
            self.replies.backlog.clear()
        with contextlib.suppress(OSError):  # Until there is no more, or the client is gone.
            while size := self.requests.source.recv_into(_SCRATCH):
                self.requests.push(_SCRATCH[:size])
        self.client_gone = True
        self.requests.ended = True
        trap.struck()
        self._watch(self.requests.source, 0)
        _close(self.requests.source, reset=False)


def _close(sock: socket.socket, *, reset: bool) -> None:
    try:
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        else:
            sock.shutdown(socket.SHUT_RDWR)  # A forked child may hold a copy of the socket.
    except OSError:
        pass  # The peer was faster.
    sock.close()
