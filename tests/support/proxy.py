"""A TCP proxy before a server, with which tests break the wire at a chosen moment.

One ``Proxy`` is one port that stays the same while the server behind it comes and goes. What it
can do to a connection is in ``links.py``; that it costs next to nothing is tested.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection
from selectors import EVENT_READ
from typing import Literal, TypeVar

from .faults import Trap
from .hub import shared_hub
from .links import Link, Role
from .ports import HOST, reserve_port

__all__ = ["ALL", "CLIENTS", "PEERS", "REPLICAS", "SENTINELS", "Proxy"]

T = TypeVar("T")

CLIENTS: frozenset[Role] = frozenset({"client"})
REPLICAS: frozenset[Role] = frozenset({"replica"})
SENTINELS: frozenset[Role] = frozenset({"sentinel"})
PEERS = REPLICAS | SENTINELS
ALL = CLIENTS | PEERS

# Who is calling shows in the first requests: a replica sends PING and then REPLCONF, a sentinel
# names its connections "sentinel-...". Applications do neither.
_CHUNKS_TO_KNOW = 4


class Proxy:
    """Passes connections to ``127.0.0.1:upstream_port`` on, until told otherwise.

    Other servers of the topology come through the proxy too, since it is the address that is
    announced for the node. Faults therefore name whose connections they mean: ``CLIENTS``
    (everybody else), ``REPLICAS``, ``SENTINELS``, ``PEERS`` (both) or ``ALL``.

    Attributes:
        port: The port of 127.0.0.1 to connect to.
        upstream_port: The port of the server behind.
    """

    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self._hub = shared_hub()
        self._listener, self.port = reserve_port(for_server=False)
        self._listener.setblocking(False)
        self._links: set[Link] = set()
        self._traps: list[Trap] = []
        self._held: frozenset[Role] = frozenset()
        self._delays: dict[Role, tuple[float, float]] = {}
        self._open = False
        self._closed = False
        self.admit()

    def __repr__(self) -> str:
        return f"<Proxy {self.port} -> {self.upstream_port}>"

    def connections(self, roles: Collection[Role] = CLIENTS) -> int:
        """Return how many connections pass through now."""
        return self._call(lambda: _count(self._links, roles))

    # -- faults ------------------------------------------------------------------------------

    def kill_connections(self, roles: Collection[Role] = CLIENTS) -> int:
        """Reset (RST) all connections now, on both sides; new ones are welcome.

        Returns:
            How many there were.
        """

        def kill() -> int:
            count = _count(self._links, roles)
            for link in [link for link in self._links if link.role in roles]:
                link.close(reset=True)
            return count

        return self._call(kill)

    def drop_next_reply(self, count: int = 1, match: bytes | None = None, *, keep: int = 0) -> Trap:
        """Let the next request be executed, but not be answered.

        The request passes, whatever the server answers on that connection from then on is
        swallowed, and with the first byte of it the client's connection is closed. So when
        the client sees the close, the server has begun to answer: the request was executed,
        and with it all others that had arrived on the connection by then.

        Args:
            count: How many requests to treat so, each on its own connection.
            match: Bytes that the request contains, as in ``b"EVALSHA"``; others pass
                untouched. None means any request of a client, handshakes included.
            keep: So many bytes of the reply pass before the close: half a reply.
        """
        return self._arm(match, count, cut=False, keep=keep)

    def cut_next_request(self, match: bytes | None = None, count: int = 1) -> Trap:
        """Reset the connection of the next request before the server sees any of it.

        What is cut is the whole chunk that arrived with the request: in a pipeline the
        requests before it in the same packet are not executed either.
        """
        return self._arm(match, count, cut=True, keep=0)

    def hold(self, roles: Collection[Role] = ALL) -> None:
        """Become a black hole: nothing passes, closes included; nobody is told.

        Bytes sent into it are delivered after ``resume()``, as TCP would after a break. New
        connections get no answer: the kernel still opens them, but no byte passes.
        """

        def hold() -> None:
            self._held = self._held | frozenset(roles)
            self._apply()

        self._call(hold)

    def resume(self) -> None:
        """Let everything that was held pass again."""

        def resume() -> None:
            self._held = frozenset()
            self._apply()

        self._call(resume)

    def delay(
        self,
        seconds: float,
        direction: Literal["both", "request", "reply"] = "both",
        roles: Collection[Role] = ALL,
    ) -> None:
        """Deliver everything so much later from now on; 0 ends it, and delivers what is late."""

        def delay() -> None:
            for role in roles:
                request, reply = self._delays.get(role, (0.0, 0.0))
                self._delays[role] = (
                    request if direction == "reply" else seconds,
                    reply if direction == "request" else seconds,
                )
            self._apply()

        self._call(delay)

    def refuse(self) -> None:
        """Refuse new connections, as the host of a dead server does; the port stays ours."""

        def refuse() -> None:
            if self._open:
                self._open = False
                self._watch()
                with contextlib.suppress(OSError):  # Only Linux takes a listener back like this.
                    self._listener.shutdown(socket.SHUT_RD)

        self._call(refuse)

    def admit(self) -> None:
        """Accept new connections (again)."""

        def admit() -> None:
            if not self._open and not self._closed:
                self._open = True
                self._listener.listen(512)
                self._watch()

        self._call(admit)

    def reset(self) -> None:
        """End all faults; connections that live go on living."""

        def reset() -> None:
            self._traps.clear()
            self._held = frozenset()
            self._delays.clear()
            self._apply()

        self._call(reset)

    def close(self) -> None:
        """Stop listening and end all connections; the port is given up."""

        def close() -> None:
            self._closed = True
            self._open = False
            self._watch()
            self._listener.close()
            for link in list(self._links):
                link.close(reset=True)

        self._call(close)

    # -- in the hub's thread -----------------------------------------------------------------

    def _arm(self, match: bytes | None, count: int, *, cut: bool, keep: int) -> Trap:
        trap = Trap(match, count, cut=cut, keep=keep, disarm=self._disarm)
        # Not the method of the list of this moment: a trap that strikes just now replaces it.
        self._call(lambda: self._traps.append(trap))
        return trap

    def _disarm(self, trap: Trap) -> None:
        self._call(lambda: self._traps.remove(trap) if trap in self._traps else None)

    def _watch(self) -> None:
        accepting = self._open and "client" not in self._held
        self._hub.watch(self._listener, EVENT_READ if accepting else 0, self._accept)

    def _apply(self) -> None:
        self._watch()
        for link in list(self._links):
            self._treat(link)

    def _treat(self, link: Link) -> None:
        """Make a connection suffer what its role suffers."""
        link.delay(*self._delays.get(link.role, (0.0, 0.0)))
        held = link.role in self._held
        if link.held and not held:
            link.resume()
        elif held:
            link.hold(True)

    def _accept(self, _events: int) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:
            return  # Gone again before we came.
        server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server.connect_ex((HOST, self.upstream_port))
        link = Link(self._hub, client, server, self._on_request, self._links.discard)
        self._links.add(link)
        self._treat(link)

    def _on_request(self, link: Link, data: memoryview) -> bool:
        """Look at a chunk of requests before it passes; False if it must not pass."""
        if link.chunks < _CHUNKS_TO_KNOW and link.role == "client":
            link.chunks += 1
            role = _role_of(bytes(data))
            if role is not None:
                link.role = role
                self._treat(link)
        if not self._traps or link.role != "client" or link.trap is not None:
            return True
        chunk = bytes(data)
        for trap in self._traps:
            if not trap.armed or not trap.catches(link.tail, chunk):
                continue
            trap.caught()
            if trap.cut:
                trap.struck()
                link.close(reset=True)
            else:
                link.trap = trap
            break
        self._traps = [trap for trap in self._traps if not trap.triggered.is_set()]
        link.tail = chunk[-256:]
        return not link.closed

    def _call(self, work: Callable[[], T]) -> T:
        return self._hub.call(work)


def _count(links: Collection[Link], roles: Collection[Role]) -> int:
    return sum(link.role in roles and not link.client_gone for link in links)


def _role_of(chunk: bytes) -> Role | None:
    if b"REPLCONF" in chunk or b"PSYNC" in chunk:
        return "replica"
    if b"sentinel-" in chunk and b"CLIENT" in chunk:
        return "sentinel"
    return None
