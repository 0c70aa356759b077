"""Servers, sentinels and a cluster that answer as they are told, and a clock that stands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis.connection import DefaultParser
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostError

from leanmq.backends.cluster import ClusterSlots
from leanmq.backends.connections import ServerConnection, Topology
from leanmq.backends.faults import translate
from leanmq.backends.sentinel import SentinelService
from leanmq.backends.streams.calls import Call
from leanmq.backends.urls import Address, parse_url, show
from leanmq.backends.wire import NodeCall

Answer = Callable[[tuple[Any, ...]], Any]
Node = tuple[str, int]

GET = ("GET", "k")
A, B, C, D = [("127.0.0.1", port) for port in (7001, 7002, 7003, 7004)]
S1, S2, S3 = [("127.0.0.1", port) for port in (8001, 8002, 8003)]


parse_error: Callable[[str], Exception] = DefaultParser.parse_error


def error(reply: str) -> Exception:
    return Exception(reply)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


class World:
    """Servers as functions from a command to a reply, run as a wire would run node calls.

    A reply that is an ``Exception`` is an error reply with that text.
    """

    def __init__(self) -> None:
        self.servers: dict[Address, Answer] = {}
        self.frozen: set[Address] = set()
        self.log: list[tuple[Address, str]] = []
        self.calls: list[NodeCall] = []
        self.groups: list[list[Address]] = []
        self.dropped: list[Address] = []

    def run(self, call: NodeCall) -> list[Any]:
        self.calls.append(call)
        return [self._one(call, command) for command in call.commands]

    def together(self, calls: Sequence[NodeCall]) -> list[list[Any]]:
        self.groups.append([call.address for call in calls])
        return [self.run(call) for call in calls]

    def _one(self, call: NodeCall, command: tuple[Any, ...]) -> Any:
        where, server = show(call.address), self.servers.get(call.address)
        self.log.append((call.address, str(command[0])))
        cause: Exception = LostError("refused")
        if server is not None and call.address not in self.frozen:
            reply = server(command)
            if not isinstance(reply, Exception):
                return reply
            cause = parse_error(str(reply))
        sent = call.address in self.frozen
        return translate(cause, sent=sent, idempotent=call.idempotent, where=where)

    def drop(self, address: Address) -> None:
        self.dropped.append(address)

    def close(self) -> None:
        pass

    def asked(self, *names: str) -> list[Address]:
        """Where these commands went since the last time, in order."""
        asked = [address for address, name in self.log if name in names]
        self.log.clear()
        return asked


def connect(topology: Topology, world: World) -> ServerConnection:
    return ServerConnection(topology, world)  # type: ignore[arg-type]  # plays the wire


def call(*commands: tuple[Any, ...], block: float | None = None, idempotent: bool = True) -> Call:
    return Call(commands or (GET,), "k", idempotent, block)


def data(role: str = "master") -> Answer:
    """A data server that answers with what it was asked, once it says that it may."""

    def answer(command: tuple[Any, ...]) -> Any:
        if command[0] == "ROLE":
            return [role.encode(), 0, []]
        if command[0] == "PING":
            return b"PONG"
        return error("READONLY You can't write") if role == "slave" else command[-1]

    return answer


class Watch:
    """A service watched by three sentinels; each may believe something else."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self.clock = clock
        self.belief: dict[Address, tuple[int, Node] | Exception | None] = {}
        world.servers = {A: data(), B: data("slave")}
        for sentinel in (S1, S2, S3):
            world.servers[sentinel] = partial(self._answer, sentinel)
            self.belief[sentinel] = (0, A)
        url = "redis+sentinel://127.0.0.1:8001,127.0.0.1:8002,127.0.0.1:8003/main"
        self.connection = connect(SentinelService(parse_url(url), clock), world)

    def _answer(self, sentinel: Address, command: tuple[Any, ...]) -> Any:
        belief = self.belief[sentinel]
        if not isinstance(belief, tuple):
            return belief
        epoch, (host, port) = belief
        if command[1] == "MASTER":
            return [b"name", b"main", b"config-epoch", str(epoch).encode()]
        return [str(host).encode(), str(port).encode()]

    def fail_over(self, *, told: tuple[Address, ...] = (S1, S2, S3)) -> None:
        self.world.servers |= {A: data("slave"), B: data()}
        for sentinel in told:
            self.belief[sentinel] = (1, B)

    def run(self, **options: Any) -> Any:
        return self.connection.run(call(**options))[0]

    def later(self, seconds: float) -> None:
        self.clock.now += seconds
        self.world.log.clear()


SLOT = key_slot(b"k")
NOWHERE = ("", 0)


class Cluster:
    """Two primaries, A with the slot of ``k`` and B with the rest; C replicates A."""

    def __init__(self, world: World, clock: Clock) -> None:
        self.world = world
        self.clock = clock
        self.home: Node = A
        self.others: Node = B
        for node in (A, B, C):
            world.servers[node] = partial(self._answer, node)
        url = "redis+cluster://127.0.0.1:7001,127.0.0.1:7002"
        self.topology = ClusterSlots(parse_url(url), clock)
        self.connection = connect(self.topology, world)

    def map(self) -> list[Any]:
        home, others, replica = ([b"127.0.0.1", n[1], b"id"] for n in (self.home, self.others, C))
        around = [[0, SLOT - 1, others], [SLOT + 1, 16383, others]]
        return around if self.home == NOWHERE else [*around, [SLOT, SLOT, home, replica]]

    def _answer(self, node: Address, command: tuple[Any, ...]) -> Any:
        if command[0] == "CLUSTER":
            return self.map()
        if command[0] in ("PING", "ASKING"):
            return b"PONG"
        return command[-1] if node == self.home else error(f"MOVED {SLOT} {show(self.home)}")

    def run(self, **options: Any) -> Any:
        return self.connection.run(call(**options))[0]
