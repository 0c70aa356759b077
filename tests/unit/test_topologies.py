"""Topologies find the right server and notice when it changes. Scripted servers, no sockets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from redis.connection import DefaultParser
from redis.crc import key_slot
from redis.exceptions import ConnectionError as LostError

from leanmq.backends.cluster import ClusterSlots
from leanmq.backends.connections import ServerConnection, Topology
from leanmq.backends.faults import translate
from leanmq.backends.sentinel import SentinelService
from leanmq.backends.single import SingleServer
from leanmq.backends.streams.calls import Call
from leanmq.backends.urls import Address, parse_url, show
from leanmq.backends.wire import NodeCall
from leanmq.errors import AccessError, ConnectionError, OutcomeUnknownError

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
        self.dropped: list[Address] = []

    def run(self, call: NodeCall) -> list[Any]:
        self.calls.append(call)
        return [self._one(call, command) for command in call.commands]

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


# -- single ----------------------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_single_server_gets_every_call_as_it_is(world: World) -> None:
    world.servers[A] = data()
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    connection.open()

    assert connection.run(call(GET, ("GET", "j"), block=1.0)) == ["k", "j"]
    assert world.calls[-1] == NodeCall(A, (GET, ("GET", "j")), True, 1.0)
    assert not connection.topology.slots_apart


@pytest.mark.parametrize(
    ("reply", "raised"),
    [
        ("LOADING x", ConnectionError),
        ("NOAUTH Authentication required.", AccessError),
        ("MISCONF Errors writing to the AOF file", None),
    ],
)
def test_open_fails_unless_the_server_is_up_and_only_refuses_work(
    world: World, reply: str, raised: type[Exception] | None
) -> None:
    world.servers[A] = lambda _: error(reply)
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    if raised is None:
        connection.open()
    else:
        with pytest.raises(raised):
            connection.open()


def test_trouble_on_a_single_server_drops_its_idle_connections(world: World) -> None:
    world.servers[A] = data("slave")
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    (outcome,) = connection.run(call())

    assert outcome.code == "READONLY"
    assert world.dropped == [A]


# -- sentinel --------------------------------------------------------------------------------


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


@pytest.fixture
def watch(world: World, clock: Clock) -> Watch:
    return Watch(world, clock)


def test_the_primary_is_what_a_majority_of_sentinels_names_and_itself_confirms(
    watch: Watch, world: World
) -> None:
    watch.connection.open()

    assert [address for address, _ in world.log] == [S1, S1, S2, S2, A, A]
    assert world.asked("ROLE", "PING") == [A, A]
    assert watch.run() == "k"
    assert all(made.sentinel == (made.address in (S1, S2, S3)) for made in world.calls)


def test_between_two_looks_a_call_costs_nothing_extra(watch: Watch, world: World) -> None:
    watch.connection.open()
    watch.later(0.4)

    watch.run()

    assert world.log == [(A, "GET")]


def test_a_look_asks_each_sentinel_in_turn(watch: Watch, world: World) -> None:
    watch.connection.open()
    asked = []
    for _ in range(3):
        watch.later(0.5)
        watch.run()
        asked += world.asked("SENTINEL")[:1]

    assert set(asked) == {S1, S2, S3}


def test_a_planned_failover_is_noticed_though_the_old_primary_still_answers(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over()
    world.servers[A] = data()  # not demoted yet
    watch.later(0.5)

    watch.run()

    assert world.asked("GET") == [B]
    assert world.dropped == [A]


@pytest.mark.parametrize("trouble", ["READONLY x", "UNBLOCKED x", "LOADING x"])
def test_trouble_is_the_outcome_and_the_next_call_searches(
    watch: Watch, world: World, trouble: str
) -> None:
    watch.connection.open()
    watch.fail_over()
    world.servers[A] = lambda _: error(trouble)

    first, second = watch.run(), watch.run()

    assert first.code == trouble.split()[0]
    assert second == "k"
    assert world.asked("GET") == [A, B]


def test_a_lost_primary_is_searched_until_the_failover_is_done(watch: Watch, world: World) -> None:
    watch.connection.open()
    del world.servers[A]

    outcomes = [watch.run(idempotent=False) for _ in range(3)]
    watch.fail_over()
    del world.servers[A]

    assert all(type(outcome) is ConnectionError for outcome in outcomes)
    assert watch.run(idempotent=False) == "k"


def test_a_frozen_primary_gets_no_second_send(watch: Watch, world: World) -> None:
    watch.connection.open()
    world.frozen.add(A)

    first, second = watch.run(idempotent=False), watch.run(idempotent=False)

    assert isinstance(first, OutcomeUnknownError)
    assert (type(second), second.unknown) == (ConnectionError, False)
    assert world.calls[-1].commands == (("ROLE",),)
    assert world.calls[-1].limit == 0.5


def test_a_sentinel_that_was_cut_off_is_outvoted(watch: Watch, world: World) -> None:
    watch.fail_over(told=(S2, S3))
    world.servers[A] = data()  # cut off together with S1, and still a primary
    watch.connection.open()

    for _ in range(6):
        watch.later(0.5)
        watch.run()
        assert world.asked("GET") == [B]


def test_the_news_of_one_sentinel_counts_though_the_others_do_not_know_yet(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over(told=(S3,))
    world.servers[A] = data()  # not demoted yet
    homes = []

    for _ in range(6):
        watch.later(0.5)
        watch.run()
        homes += world.asked("GET")

    assert homes[2:] == [B] * 4  # from then on, whatever the others say


def test_a_new_primary_that_is_not_ready_leaves_us_with_the_old_one(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over()
    world.servers |= {A: data(), B: data("slave")}
    watch.later(0.5)

    assert watch.run() == "k"
    assert world.asked("GET") == [A]


def test_dead_sentinels_are_asked_last_and_soon_only_now_and_then(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    del world.servers[S1], world.servers[S2]
    in_vain = []
    for _ in range(8):
        watch.later(0.5)
        assert watch.run() == "k"
        in_vain += [address for address in world.asked("SENTINEL") if address in (S1, S2)]
    assert set(in_vain) <= {S1, S2}
    assert len(in_vain) <= 4  # two commands each, once

    del world.servers[S3]
    looks = 0
    for _ in range(40):
        watch.later(0.5)
        assert watch.run() == "k"
        looks += bool(world.asked("SENTINEL"))
    assert looks <= 6


def test_nobody_to_ask_is_an_error_that_tells_what_to_check(watch: Watch, world: World) -> None:
    for sentinel in (S1, S2, S3):
        del world.servers[sentinel]

    with pytest.raises(ConnectionError, match=r"no sentinel of .* check that they run") as caught:
        watch.connection.open()

    assert isinstance(caught.value.__cause__, ConnectionError)
    assert [made.limit for made in world.calls if made.sentinel][:6] == [0.5] * 3 + [None] * 3


def test_an_unknown_service_is_an_error_that_names_it(watch: Watch) -> None:
    watch.belief = dict.fromkeys(watch.belief, None)

    with pytest.raises(ConnectionError, match="'main'"):
        watch.connection.open()


def test_a_wrong_password_for_the_sentinels_is_an_access_error(watch: Watch) -> None:
    watch.belief = dict.fromkeys(watch.belief, error("NOAUTH Authentication required."))

    with pytest.raises(AccessError):
        watch.connection.open()


def test_a_user_who_may_not_ask_for_the_role_trusts_the_sentinels(
    watch: Watch, world: World
) -> None:
    answer = data()
    world.servers[A] = lambda c: error("NOPERM x") if c[0] == "ROLE" else answer(c)

    watch.connection.open()

    assert watch.run() == "k"


# -- cluster ---------------------------------------------------------------------------------

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


@pytest.fixture
def cluster(world: World, clock: Clock) -> Cluster:
    return Cluster(world, clock)


def test_open_asks_every_primary_and_a_call_goes_to_its_slot(
    cluster: Cluster, world: World
) -> None:
    cluster.connection.open()

    assert set(world.asked("PING")) == {A, B}
    assert cluster.run() == "k"
    assert world.log == [(A, "GET")]
    assert cluster.topology.slots_apart


def test_moved_is_followed_and_remembered(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    cluster.home = C

    assert cluster.run() == "k"
    assert cluster.run() == "k"
    assert world.asked("GET") == [A, C, C]


def test_only_the_redirected_commands_are_sent_again(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    replies = iter([b"1", error(f"ASK {SLOT} 127.0.0.1:7002"), b"3"])
    world.servers[A] = lambda _: next(replies)
    world.servers[B] = lambda command: b"OK" if command[0] == "ASKING" else b"2"
    world.log.clear()

    assert cluster.connection.run(call(GET, GET, GET)) == [b"1", b"2", b"3"]
    assert world.log[3:] == [(B, "ASKING"), (B, "GET")]


def test_ask_does_not_move_the_slot(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    asked = iter([error(f"ASK {SLOT} 127.0.0.1:7002")])
    world.servers[A] = lambda command: next(asked, command[-1])
    world.servers[B] = lambda command: b"new"

    assert [cluster.run(), cluster.run()] == [b"new", "k"]
    assert world.dropped == []


def test_redirections_without_end_are_given_up(cluster: Cluster, world: World) -> None:
    cluster.connection.open()
    world.servers[A] = lambda _: error(f"MOVED {SLOT} 127.0.0.1:7002")
    world.servers[B] = lambda _: error(f"MOVED {SLOT} 127.0.0.1:7001")
    world.log.clear()

    assert cluster.run().code == "MOVED"
    assert len(world.log) == 6


@pytest.mark.parametrize("code", ["TRYAGAIN", "CLUSTERDOWN", "UNBLOCKED"])
def test_other_trouble_is_the_outcome_and_the_map_is_read_again(
    cluster: Cluster, world: World, clock: Clock, code: str
) -> None:
    cluster.connection.open()
    clock.now += 1
    answer = world.servers[A]
    world.servers[A] = lambda c: error(f"{code} x") if c[0] == "GET" else answer(c)

    outcomes = [cluster.run() for _ in range(3)]

    assert [outcome.code for outcome in outcomes] == [code] * 3
    assert len(world.asked("CLUSTER")) == 2  # once to open, once for all three
    assert world.dropped == []


def test_a_lost_primary_is_replaced_once_the_map_says_so(
    cluster: Cluster, world: World, clock: Clock
) -> None:
    cluster.connection.open()
    del world.servers[A]

    first = cluster.run(idempotent=False)
    clock.now += 0.2
    cluster.home = C

    assert type(first) is ConnectionError
    assert cluster.run(idempotent=False) == "k"
    assert A in world.dropped


def test_a_frozen_node_must_answer_a_ping_before_it_gets_another_call(
    cluster: Cluster, world: World
) -> None:
    cluster.connection.open()
    world.frozen.add(A)
    assert isinstance(cluster.run(idempotent=False), OutcomeUnknownError)
    world.log.clear()

    second = cluster.run(idempotent=False)

    assert (type(second), second.unknown) == (ConnectionError, False)
    assert world.log == [(A, "PING")]
    assert world.calls[-1].limit == 0.5

    world.frozen.clear()
    assert cluster.run(idempotent=False) == "k"


def test_the_map_is_read_from_any_node_ever_seen(
    cluster: Cluster, world: World, clock: Clock
) -> None:
    cluster.connection.open()
    cluster.home = C
    del world.servers[A], world.servers[B]  # both start-up nodes
    cluster.run()
    clock.now += 0.2

    assert cluster.run() == "k"
    assert world.asked("CLUSTER")[-1] == C


def test_nodes_are_asked_for_the_map_in_turn(cluster: Cluster, world: World, clock: Clock) -> None:
    cluster.connection.open()
    for _ in range(5):
        cluster.topology._stale = True
        clock.now += 0.2
        cluster.run()

    asked = world.asked("CLUSTER")

    assert {*asked[:3]} == {*asked[3:]} == {A, B, C}


def test_a_slot_that_nobody_serves_is_an_error_that_may_pass(
    cluster: Cluster, world: World, clock: Clock
) -> None:
    cluster.home = NOWHERE
    cluster.connection.open()

    assert cluster.run().code == "CLUSTERDOWN"
    cluster.home = A
    clock.now += 0.2
    assert cluster.run() == "k"


def test_a_node_without_a_name_means_the_one_that_was_asked(cluster: Cluster, world: World) -> None:
    for node in (A, B, C):
        world.servers[node] = lambda command: (
            [[0, 16383, [None, 7001, b"id"], [b"", 7003, b"id"]]]
            if command[0] == "CLUSTER"
            else command[-1]
        )

    cluster.connection.open()
    cluster.run()

    assert world.asked("GET") == [A]


def test_a_server_that_is_no_cluster_says_so(cluster: Cluster, world: World) -> None:
    world.servers = {A: lambda _: error("ERR This instance has cluster support disabled")}

    with pytest.raises(Exception, match="cluster support disabled"):
        cluster.connection.open()


def test_no_node_to_ask_is_an_error_that_tells_what_to_check(
    cluster: Cluster, world: World
) -> None:
    world.servers.clear()

    with pytest.raises(ConnectionError, match=r"no node of .* check that they run"):
        cluster.connection.open()


# -- all -------------------------------------------------------------------------------------


def test_an_error_before_any_command_is_the_outcome_of_each(
    watch: Watch, cluster: Cluster, world: World
) -> None:
    world.servers.clear()

    for connection in (watch.connection, cluster.connection):
        first, second = connection.run(call(GET, GET))
        assert first is second
        assert isinstance(first, ConnectionError)


def test_what_is_no_error_of_ours_passes_through(world: World) -> None:
    def interrupt(_: tuple[Any, ...]) -> Any:
        raise KeyboardInterrupt

    world.servers[A] = interrupt
    connection = connect(SingleServer(parse_url("redis://127.0.0.1:7001")), world)

    with pytest.raises(KeyboardInterrupt):
        connection.run(call())
