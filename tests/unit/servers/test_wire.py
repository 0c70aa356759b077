"""The proxies: dropped replies, cut requests, black holes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import pytest
import redis

from tests.support.servers import (
    SingleTopology,
)
from tests.support.waiting import wait_until
from tests.unit.servers.clients import Connect, raw


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
    value = b"x" * (32 << 20)

    def best(client: redis.Redis) -> float:
        took = []
        for _ in range(3):
            began = time.monotonic()
            client.set("big", value)
            assert client.get("big") == value
            took.append(time.monotonic() - began)
        return min(took)

    bare = best(single.admin(single.nodes[0]))
    assert best(connect(single.proxies[0])) < 3 * bare, "much slower than without it"
    used = time.process_time()
    threading.Event().wait(0.2)
    assert time.process_time() - used < 0.05


def test_a_trap_that_is_set_while_another_strikes_is_not_lost(
    single: SingleTopology, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = single.proxies[0]
    call = proxy._call

    def struck_meanwhile(work: Callable[[], Any]) -> Any:
        proxy._traps = []  # as the hub's thread does when a trap has struck
        return call(work)

    with monkeypatch.context() as patch:
        patch.setattr(proxy, "_call", struck_meanwhile)
        trap = proxy.cut_next_request(b"APPEND")

    assert proxy._traps == [trap]
