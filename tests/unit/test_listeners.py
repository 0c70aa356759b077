"""Threads and tasks that listen, on sockets whose other end the test holds."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from leanmq.backends import listeners, subscriptions
from leanmq.backends.listeners import AsyncListener, Listener
from tests.contract.harness import eventually

SUBSCRIBED = b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n"
TOLD = b"*3\r\n$8\r\nsmessage\r\n$1\r\na\r\n$0\r\n\r\n"


class Bench:
    """A listener of either world, and the server that it is connected to."""

    def __init__(self, world: str) -> None:
        self.world = world
        self.sock, self.server = socket.socketpair()
        self.sock.settimeout(1)
        self.server.setblocking(False)
        self.woken: list[tuple[str, ...]] = []

    def listen(self) -> Any:
        if self.world == "sync":
            line = SimpleNamespace(_sock=self.sock, disconnect=self.sock.close)
            return Listener(lambda: line, self.woken.append)
        return AsyncListener(self._connect, self.woken.append)

    async def _connect(self) -> Any:
        reader, writer = await asyncio.open_connection(sock=self.sock)

        async def disconnect(nowait: bool) -> None:
            assert nowait
            writer.close()

        return SimpleNamespace(_reader=reader, _writer=writer, disconnect=disconnect)

    async def wrote(self, text: bytes) -> None:
        """Wait until the listener has written this."""
        got = b""

        async def there() -> bool:
            nonlocal got
            try:
                got += self.server.recv(4096)
            except BlockingIOError:
                return False
            return text in got

        await eventually(there, within=5, what=repr(text))

    async def was_woken(self, *times: tuple[str, ...]) -> None:
        async def enough() -> bool:
            return self.woken == list(times)

        await eventually(enough, within=5)

    async def ended(self, listener: Any) -> None:
        async def over() -> bool:
            return bool(listener.ended)

        await eventually(over, within=5)
        if self.world == "sync":
            listener.join()
        else:
            await listener.join()
            await asyncio.sleep(0)  # the transport closes its socket in the next turn
        assert self.sock.fileno() == -1, "the connection is closed"


@pytest.fixture(params=["sync", "asyncio"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(request.param)
    yield bench
    bench.sock.close()
    bench.server.close()


async def test_what_comes_for_a_key_wakes_it(bench: Bench) -> None:
    listener = bench.listen()
    assert listener.heed(["a"])
    await bench.wrote(b"SSUBSCRIBE")
    assert not listener.hears("a")

    bench.server.send(SUBSCRIBED)
    await bench.was_woken(("a",))
    assert listener.hears("a")
    bench.server.send(TOLD)
    await bench.was_woken(("a",), ("a",))

    assert listener.heed(["b"])
    await bench.wrote(b"\r\nb\r\n")
    listener.stop()
    await bench.ended(listener)


@pytest.mark.parametrize("trouble", [socket.socket.close, lambda server: server.send(b"HTTP\r\n")])
async def test_a_connection_that_is_lost_or_talks_nonsense_wakes_all_that_was_heard(
    bench: Bench, trouble: Callable[[socket.socket], object]
) -> None:
    listener = bench.listen()
    listener.heed(["a"])
    await bench.wrote(b"SSUBSCRIBE")
    bench.server.send(SUBSCRIBED)
    await bench.was_woken(("a",))

    trouble(bench.server)

    await bench.ended(listener)
    await bench.was_woken(("a",), ("a",))
    assert not listener.hears("a")
    assert not listener.heed(["a"])


async def test_a_server_that_says_nothing_is_asked_and_then_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (listeners, subscriptions):
        monkeypatch.setattr(module, "QUIET", 0.3)
    listener = bench.listen()
    listener.heed(["a"])
    await bench.wrote(b"SSUBSCRIBE")
    bench.server.send(SUBSCRIBED)

    await bench.wrote(b"PING")
    bench.server.send(b"+PONG\r\n")
    await bench.wrote(b"PING")

    await bench.ended(listener)
    await bench.was_woken(("a",), ("a",))


async def test_a_fork_closes_its_copies_and_wakes_nobody(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    if bench.world == "sync":
        monkeypatch.setattr(threading.Thread, "start", lambda _: None)  # a fork has no such thread
        listener = bench.listen()
        listener._line = listener._connect()
    else:
        listener = bench.listen()
        listener.heed(["a"])
        await bench.wrote(b"SSUBSCRIBE")

    listener.abandon()

    assert bench.server.recv(1) == b"", "the only copy was closed"
    assert bench.woken == []
    if bench.world == "sync":
        assert (listener._bell.fileno(), listener._ear.fileno()) == (-1, -1)
    else:
        listener.stop()
        await listener.join()


def refused(*_: Any) -> Any:
    raise OSError("refused")


def test_a_thread_that_cannot_connect_ends_and_heeds_nothing_more() -> None:
    woken: list[tuple[str, ...]] = []
    listener = Listener(refused, woken.append)
    listener.join()

    assert listener.ended
    assert not listener.heed(["a"])
    assert not listener.hears("a")
    assert woken == []
    listener.stop()


def test_without_another_thread_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    listener = Listener(refused, lambda _: None)

    assert listener.ended
    listener.stop()
    listener.join()


async def test_a_task_that_cannot_connect_ends_and_heeds_nothing_more() -> None:
    async def connect() -> Any:
        refused()

    listener = AsyncListener(connect, lambda _: None)
    assert listener.heed(["a"])
    await listener.join()

    assert listener.ended
    assert not listener.heed(["a"])
    assert not listener.hears("a")


async def test_a_task_that_was_cancelled_before_it_began_heeds_nothing() -> None:
    async def connect() -> Any:
        refused()

    listener = AsyncListener(connect, lambda _: None)
    listener._task.cancel()
    await listener.join()

    assert listener.ended
    assert not listener.heed(["a"])


def test_a_listener_that_rings_without_end_does_not_block() -> None:
    rung = threading.Event()

    def connect() -> Any:
        assert rung.wait(10)
        refused()

    listener = Listener(connect, lambda _: None)
    for n in range(5_000):
        listener.heed([str(n)])
    rung.set()

    listener.stop()
    listener.join()
    assert listener.ended
