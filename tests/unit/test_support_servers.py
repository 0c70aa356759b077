"""The test servers do what the contract tests rely on: they fail as ordered, and heal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.retry import Retry
from redis.sentinel import Sentinel

from tests.support import binary, running
from tests.support.proxy import ALL, Proxy
from tests.support.servers import (
    ClusterTopology,
    RedisProcess,
    SentinelTopology,
    SingleTopology,
    Topology,
)
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]

Connect = Callable[..., redis.Redis]
T = TypeVar("T", bound=Topology)


@pytest.fixture(scope="module", autouse=True)
def _no_servers_left() -> Iterator[None]:
    yield
    running.stop_all()


@pytest.fixture
def single() -> Iterator[SingleTopology]:
    yield from healed(running.get("redis"))


@pytest.fixture
def sentinel() -> Iterator[SentinelTopology]:
    yield from healed(running.get("sentinel"))


@pytest.fixture
def cluster() -> Iterator[ClusterTopology]:
    yield from healed(running.get("cluster"))


def healed(topology: T) -> Iterator[T]:
    yield topology
    topology.heal()
    for node in topology.nodes:
        if topology.ask(node, "ROLE")[0] == "master":
            topology.ask(node, "FLUSHALL")


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients through a proxy that never retry, closed after the test."""
    clients: list[redis.Redis] = []

    def make(proxy: Proxy, timeout: float = 2.0) -> redis.Redis:
        clients.append(
            redis.Redis(
                host="127.0.0.1",
                port=proxy.port,
                protocol=2,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout,
            )
        )
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def raw(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def replicated(client: redis.Redis, key: str, replicas: int, timeout_ms: int = 2000) -> int:
    """Write the key, and return how many of so many replicas confirm it in time."""
    client.set(key, "v")
    wait: Callable[..., int] = client.wait  # redis-py leaves it untyped.
    return wait(replicas, timeout_ms)


# -- the server program ----------------------------------------------------------------------


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    found = binary.require_server()
    monkeypatch.setenv("LEANMQ_TEST_REDIS_SERVER", str(found))
    assert binary.find_server() == found
    assert binary.server_version(found) >= (7, 0, 0)


def test_a_missing_server_skips_here_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANMQ_TEST_REDIS_SERVER", "/nowhere/redis-server")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="/nowhere/redis-server"):
        binary.require_server()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="/nowhere/redis-server"):
        binary.require_server()


# -- the wire --------------------------------------------------------------------------------


def test_a_dropped_reply_hides_a_command_that_was_executed(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0])
    trap = single.drop_next_reply(match=b"INCR")
    assert client.ping()
    assert not trap.triggered.is_set()
    with pytest.raises(redis.ConnectionError):
        client.incr("n")
    assert trap.wait(2)
    assert client.get("n") == b"1"
    assert client.incr("n") == 2


def test_a_reply_can_be_dropped_several_times(single: SingleTopology, connect: Connect) -> None:
    client = connect(single.proxies[0])
    trap = single.drop_next_reply(match=b"INCR", count=2)
    for hits in (1, 2):
        assert not trap.triggered.is_set()
        with pytest.raises(redis.ConnectionError):
            client.incr("n")
        assert trap.hits == hits
    assert trap.wait(2)
    assert client.incr("n") == 3


def test_half_a_reply_arrives(single: SingleTopology) -> None:
    trap = single.drop_next_reply(match=b"ECHO", keep=3)
    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"ECHO abcdef\r\n")
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"$6\r"
    assert trap.wait(2)


def test_the_rest_of_a_long_pipeline_is_executed_too(single: SingleTopology) -> None:
    single.drop_next_reply(match=b"INCR")
    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"INCR n\r\n" * 5000)  # More than the server reads at once.
        assert sock.recv(100) == b""
    admin = single.admin(single.nodes[0])
    wait_until(lambda: admin.get("n") == b"5000", 5, lambda: f"5000, not {admin.get('n')!r}")


def test_a_match_may_arrive_in_two_pieces(single: SingleTopology) -> None:
    def half_read() -> bool:
        clients = single.admin(single.nodes[0]).client_list()
        return any(client["qbuf"] != "0" and client["cmd"] == "ping" for client in clients)

    trap = single.drop_next_reply(match=b"INCR")
    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        sock.sendall(b"*2\r\n$4\r\nIN")
        wait_until(half_read, 2, "the first piece to pass")
        sock.sendall(b"CR\r\n$1\r\nn\r\n")
        assert sock.recv(100) == b""
    assert trap.wait(2)


def test_a_trap_waits_for_the_next_request_if_the_server_dies_first(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0])
    assert client.ping()
    node = single.freeze_primary()
    trap = single.drop_next_reply(match=b"INCR")
    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"INCR n\r\n")
        node.kill()
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(100) == b""
    assert trap.hits == 0
    single.revive()
    with pytest.raises(redis.ConnectionError):
        connect(single.proxies[0]).incr("n")
    assert trap.wait(2)


def test_a_cut_request_is_not_executed(single: SingleTopology, connect: Connect) -> None:
    client = connect(single.proxies[0])
    trap = single.cut_next_request(match=b"INCR")
    with pytest.raises(redis.ConnectionError):
        client.incr("n")
    assert trap.wait(2)
    assert client.get("n") is None


def test_a_cancelled_trap_and_a_healed_one_catch_nothing(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0])
    single.drop_next_reply(match=b"INCR").cancel()
    single.cut_next_request(match=b"INCR")
    single.heal()
    assert client.incr("n") == 1


def test_killed_connections_are_reset_and_new_ones_are_welcome(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0])
    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"PING\r\n")
        assert sock.recv(100) == b"+PONG\r\n"
        assert client.ping()
        assert single.kill_connections() == 2
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    assert single.proxies[0].connections() == 0
    assert connect(single.proxies[0]).ping()


def test_a_black_hole_swallows_until_it_is_opened(single: SingleTopology) -> None:
    proxy = single.proxies[0]
    with raw(proxy.port) as old:
        old.sendall(b"PING\r\n")
        assert old.recv(100) == b"+PONG\r\n"
        proxy.hold()
        with raw(proxy.port) as new:
            for sock in (old, new):
                sock.sendall(b"ECHO late\r\n")
                sock.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    sock.recv(100)
            proxy.resume()
            for sock in (old, new):
                sock.settimeout(2)
                assert sock.recv(100) == b"$4\r\nlate\r\n"


def test_each_direction_can_be_late(single: SingleTopology, connect: Connect) -> None:
    client = connect(single.proxies[0])
    assert client.ping()
    cases: list[tuple[Literal["both", "request", "reply"], float]]
    cases = [("request", 0.1), ("reply", 0.1), ("both", 0.2)]
    for direction, least in cases:
        single.proxies[0].delay(0)
        single.proxies[0].delay(0.1, direction)
        began = time.monotonic()
        assert client.ping()
        assert least <= time.monotonic() - began < least + 0.5
    single.proxies[0].delay(60, "request")
    client.close()
    single.heal()
    wait_until(lambda: single.proxies[0].connections() == 0, 1, "the late close")


def test_a_client_that_leaves_frees_its_blocked_read(single: SingleTopology) -> None:
    def blocked() -> int:
        return int(single.info(single.nodes[0], "clients")["blocked_clients"])

    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"BLPOP nothing 0\r\n")
        wait_until(lambda: blocked() == 1, 2, "a blocked reader")
    wait_until(lambda: blocked() == 0, 1, "its end")
    assert single.proxies[0].connections() == 0


def test_a_close_by_the_server_reaches_the_client_after_the_last_reply(
    single: SingleTopology,
) -> None:
    with raw(single.proxies[0].port) as sock:
        sock.sendall(b"PING\r\nQUIT\r\n")
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"+PONG\r\n+OK\r\n"


def test_the_proxy_of_a_dead_server_refuses_and_keeps_its_port(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0])
    client.set("k", "v")
    single.kill_primary()
    with pytest.raises(redis.ConnectionError):
        client.get("k")
    with pytest.raises(ConnectionRefusedError):
        raw(single.proxies[0].port)
    single.revive()
    assert client.get("k") == b"v"


def test_the_proxy_is_fast_and_rests_when_nothing_happens(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0])
    value = b"x" * (32 << 20)
    began = time.monotonic()
    client.set("big", value)
    assert client.get("big") == value
    assert 64 / (time.monotonic() - began) > 50, "MB/s"
    used = time.process_time()
    threading.Event().wait(0.2)
    assert time.process_time() - used < 0.05


# -- one server ------------------------------------------------------------------------------


def test_healing_the_healthy_takes_no_time(
    single: SingleTopology, sentinel: SentinelTopology, cluster: ClusterTopology
) -> None:
    for topology in (single, sentinel, cluster):
        took = []
        for _ in range(3):
            began = time.monotonic()
            topology.heal()
            took.append(time.monotonic() - began)
        assert min(took) < 0.05, topology.kind


def test_a_frozen_server_answers_nobody_until_it_is_thawed(
    single: SingleTopology, connect: Connect
) -> None:
    client = connect(single.proxies[0], timeout=0.1)
    assert client.ping()
    node = single.freeze_primary()
    assert node.frozen
    with pytest.raises(redis.TimeoutError):
        client.ping()
    single.thaw()
    assert client.ping()


@pytest.mark.parametrize("graceful", [True, False])
def test_a_restarted_server_has_its_data_and_its_port(
    single: SingleTopology, connect: Connect, graceful: bool
) -> None:
    client = connect(single.proxies[0])
    client.set("k", "v")
    before = single.nodes[0].pid
    node = single.restart_primary(graceful=graceful)
    assert node.pid != before
    client.close()
    assert client.get("k") == b"v"


def test_what_one_server_cannot_do_is_said(single: SingleTopology) -> None:
    assert (single.can_failover, single.can_move_slots, single.can_isolate) == (False,) * 3
    with pytest.raises(NotImplementedError, match="redis topology"):
        single.failover()
    with pytest.raises(NotImplementedError, match="redis topology"):
        single.move_slot("k")


def test_changed_settings_are_restored(single: SingleTopology) -> None:
    node = single.nodes[0]
    single.config_set("maxmemory", 5_000_000)
    single.config_set("maxmemory", 6_000_000)
    assert single.ask(node, "CONFIG", "GET", "maxmemory") == ["maxmemory", "6000000"]
    single.heal()
    assert single.ask(node, "CONFIG", "GET", "maxmemory") == ["maxmemory", "0"]


def test_commands_are_counted(single: SingleTopology, connect: Connect) -> None:
    client = connect(single.proxies[0])
    calls, total = single.command_calls().get("append", 0), single.commands_processed()
    for _ in range(7):
        client.append("k", "v")
    assert single.command_calls()["append"] == calls + 7
    assert single.commands_processed() >= total + 7


def test_an_illness_that_cannot_be_healed_is_told(single: SingleTopology) -> None:
    node = single.nodes[0]
    config = node.directory / "redis.conf"
    text = config.read_text()
    config.write_text(text + "no-such-setting yes\n")
    node.kill()
    with pytest.raises(RuntimeError, match="no-such-setting"):
        single.heal()
    config.write_text(text)


# -- Sentinel --------------------------------------------------------------------------------


def address_by_sentinels(topology: SentinelTopology) -> int:
    hosts = [("127.0.0.1", process.port) for process in topology.sentinels]
    make: Callable[..., Any] = Sentinel  # redis-py leaves it untyped.
    asked = make(hosts, sentinel_kwargs={"socket_timeout": 1, "protocol": 2})
    try:
        return int(asked.discover_master(topology.service)[1])
    finally:
        for client in asked.sentinels:
            client.close()


def test_sentinels_send_clients_to_the_proxies(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    assert sentinel.url.startswith("redis+sentinel://127.0.0.1:")
    assert sentinel.url.endswith("/leanmq-test")
    assert address_by_sentinels(sentinel) == sentinel.proxy_for().port
    assert replicated(connect(sentinel.proxy_for()), "k", 2) == 2


def test_a_planned_failover_under_sentinel_moves_the_primary(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    for _ in range(2):  # The second one is ordered while the first is being completed.
        old = sentinel.failover()
        new = sentinel.wait_for_new_primary(None, old)
        assert new is not old
    sentinel.heal()
    assert sentinel.primary_for() is new
    wait_until(lambda: address_by_sentinels(sentinel) == new.address[1], 3, "the new address")
    assert replicated(connect(sentinel.proxy_for()), "k", 2) == 2


def test_sentinels_replace_a_killed_primary_and_healing_brings_it_back(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    assert replicated(connect(sentinel.proxy_for()), "k", 2) == 2
    old = sentinel.kill_primary()
    new = sentinel.wait_for_new_primary(None, old, timeout=10)
    assert connect(sentinel.proxy_for()).get("k") == b"v"
    sentinel.heal()
    assert sentinel.primary_for() is new
    assert sentinel.ask(old, "ROLE")[0] == "slave"
    assert sentinel.ask(old, "ROLE")[2] == new.address[1]


def test_an_isolated_primary_keeps_its_clients_and_loses_its_office(
    sentinel: SentinelTopology, connect: Connect
) -> None:
    client = connect(sentinel.proxy_for())
    client.set("k", "v")
    old = sentinel.isolate_primary()
    new = sentinel.wait_for_new_primary(None, old, timeout=10)
    assert client.set("lost", "write")
    assert connect(sentinel.proxy_for()).get("lost") is None
    sentinel.heal()
    assert sentinel.primary_for() is new
    assert sentinel.ask(old, "ROLE")[0] == "slave"


def test_frozen_replicas_confirm_nothing(sentinel: SentinelTopology, connect: Connect) -> None:
    frozen = sentinel.freeze_replicas()
    assert len(frozen) == 2
    assert replicated(connect(sentinel.proxy_for()), "k", 1, timeout_ms=100) == 0


# -- Cluster ---------------------------------------------------------------------------------

TWO_KEYS = "return {redis.call('GET', KEYS[1]), redis.call('INCR', KEYS[2])}"


@pytest.fixture
def cluster_client(cluster: ClusterTopology) -> Iterator[RedisCluster]:
    client = RedisCluster(
        host="127.0.0.1", port=cluster.proxies[0].port, protocol=2, socket_timeout=2
    )
    yield client
    client.close()


def test_a_cluster_sends_clients_to_the_proxies(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    known: Callable[[], Any] = cluster_client.get_nodes  # redis-py leaves it untyped.
    assert {node.port for node in known()} == {proxy.port for proxy in cluster.proxies}
    assert cluster.url == "redis+cluster://" + ",".join(
        f"127.0.0.1:{proxy.port}" for proxy in cluster.proxies
    )
    cluster_client.set("{q}k", "v")
    assert cluster.admin(cluster.primary_for("{q}k")).get("{q}k") == b"v"


def test_a_slot_moves_away_and_back_while_it_is_used(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    for number in range(50):
        cluster_client.set(f"{{q}}{number}", number)
    source = cluster.primary_for("{q}0")
    midway: list[object] = []

    def use() -> None:
        midway.extend(cluster_client.get(f"{{q}}{number}") for number in range(50))

    moved = cluster.move_slot("{q}0", midway=use)
    assert midway == [str(number).encode() for number in range(50)]
    assert moved == (source, cluster.primary_for("{q}0"))
    assert moved[1] is not source
    assert cluster_client.eval(TWO_KEYS, 2, "{q}7", "{q}new") == [b"7", 1]
    assert cluster.admin(moved[1]).get("{q}49") == b"49"
    assert cluster.move_slot("{q}0", to=source) == (moved[1], source)
    assert cluster.primary_for("{q}0") is source
    assert cluster_client.eval(TWO_KEYS, 2, "{q}7", "{q}new") == [b"7", 2]
    assert cluster.admin(source).get("{q}49") == b"49"


def test_a_migration_left_half_way_is_finished_by_healing(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    for number in range(5):
        cluster_client.set(f"{{q}}{number}", number)
    source = cluster.primary_for("{q}0")

    def stop() -> None:
        raise KeyError("half-way")

    with pytest.raises(KeyError, match="half-way"):
        cluster.move_slot("{q}0", midway=stop)
    assert any("in migration" in complaint for complaint in cluster.complaints())
    cluster.heal()
    target = cluster.primary_for("{q}0")
    assert target is not source
    assert [cluster.ask(target, "GET", f"{{q}}{n}") for n in range(5)] == list("01234")
    cluster.move_slot("{q}0", to=source)


def test_a_planned_failover_of_a_cluster_moves_the_primary(cluster: ClusterTopology) -> None:
    (replica,) = cluster.replicas_for("k")
    old = cluster.failover("k")
    assert cluster.wait_for_new_primary("k", old) is replica
    cluster.heal()
    assert cluster.replicas_for("k") == [old]


def test_a_cluster_replaces_a_killed_primary_and_healing_brings_it_back(
    cluster: ClusterTopology, cluster_client: RedisCluster
) -> None:
    assert replicated(cluster.admin(cluster.primary_for("{q}k")), "{q}k", 1) == 1
    old = cluster.kill_primary("{q}k")
    new = cluster.wait_for_new_primary("{q}k", old)
    assert cluster.admin(new).get("{q}k") == b"v"
    cluster.heal()
    assert cluster.primary_for("{q}k") is new
    assert cluster.replicas_for("{q}k") == [old]
    assert cluster_client.get("{q}k") == b"v"


def test_cut_replication_confirms_nothing_and_is_healed(cluster: ClusterTopology) -> None:
    admin = cluster.admin(cluster.cut_replication("k"))
    assert replicated(admin, "k", 1, timeout_ms=100) == 0
    cluster.heal()
    assert replicated(admin, "k", 1) == 1


def test_resetting_everything_at_once_is_healed(cluster: ClusterTopology) -> None:
    assert cluster.kill_connections(ALL) >= 3
    cluster.heal()
    assert cluster.complaints() == []


# -- the topologies of a process -------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_topology_is_started_once(single: SingleTopology) -> None:
    assert running.get("redis") is single


def test_stopping_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    topology = SingleTopology()
    topology.start()
    (node,) = topology.nodes
    pid, folder = node.pid, node.directory
    node.freeze()
    topology.stop()
    assert pid is not None
    assert not alive(pid)
    assert not folder.exists()
    topology.stop()


def test_servers_outlive_the_thread_that_started_them() -> None:
    topology = SingleTopology()
    thread = threading.Thread(target=topology.start)
    thread.start()
    thread.join()
    try:
        assert not threading.Event().wait(0.1)
        assert topology.nodes[0].ping()
    finally:
        topology.stop()


def test_servers_die_with_a_test_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from tests.support import running\n"
        "print(running.get('redis').nodes[0].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": _python_path()}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            pid = int(process.stdout.readline())
            assert alive(pid)
        finally:
            process.kill()
    wait_until(lambda: not alive(pid), 5, f"the end of server {pid}")


def test_servers_end_with_a_test_process_that_exits_and_outlive_its_forked_child(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys\n"
        "from tests.support import running\n"
        "topology = running.get('redis')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "assert topology.nodes[0].ping()\n"
        "topology.kill_connections()\n"
        "print(topology.nodes[0].pid)\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": _python_path()}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=20,
        env=environment,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr
    wait_until(lambda: not alive(int(ended.stdout)), 5, "the end of the server")
    assert list(tmp_path.iterdir()) == []


def _python_path() -> str:
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def test_a_server_that_ignores_its_end_is_ended(tmp_path: Path) -> None:
    node = RedisProcess("stuck", binary.require_server(), tmp_path / "stuck", proxied=False)
    try:
        node.configure([])
        node.start()
        assert node.pid is not None
        os.kill(node.pid, signal.SIGSTOP)  # Behind its back, so that SIGTERM stays pending.
        with pytest.raises(TimeoutError, match="outlived"):
            node._end(signal.SIGTERM, 0.2)
        assert not node.alive
    finally:
        node.close()
