"""The server of ``memory://``: one for all threads of its process, or that of a fake client."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fakeredis
import pytest

from leanmq import AccessError, AsyncLeanMQ, ConnectionError, LeanMQ, OutcomeUnknownError
from leanmq.backends import memory
from leanmq.backends.streams.calls import Call


def test_a_script_that_is_not_known_wakes_nobody() -> None:
    server = memory.MemoryServer()
    unknown = ("EVALSHA", "f" * 40, 0)
    versions = [server.hub.version("key")]

    for commands in ((unknown,), (unknown, ("INCR", "key"))):
        server.run(Call(commands, "key", idempotent=True, wakes=("key",)))
        versions.append(server.hub.version("key"))

    assert versions[0] == versions[1] != versions[2]


def test_threads_that_connect_first_and_at_once_see_the_same_server() -> None:
    # fakeredis makes a server's database at its first connection, without a lock: two threads
    # that are both the first had one each, and what one sent the other never saw.
    threads = 8
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(100):
                server = memory.MemoryServer()
                start = threading.Barrier(threads)

                def count(
                    server: memory.MemoryServer = server, start: threading.Barrier = start
                ) -> Any:
                    start.wait()
                    return server.execute("INCR", "key")

                seen = [future.result() for future in [pool.submit(count) for _ in range(threads)]]
                assert sorted(seen) == list(range(1, threads + 1))
    finally:
        sys.setswitchinterval(before)


# --- brought by a client of fakeredis


def test_clients_on_one_fake_server_share_its_queues() -> None:
    server = fakeredis.FakeServer()
    one = LeanMQ(client=fakeredis.FakeRedis(server=server, decode_responses=True))
    other = LeanMQ(client=fakeredis.FakeStrictRedis(server=server, protocol=3))
    apart = LeanMQ(client=fakeredis.FakeRedis(server=server, db=1))

    with one, other, apart:
        one.queue("orders").send_message("shared")

        assert apart.queue("orders").get_messages() == []
        assert [m.data for m in other.queue("orders").get_messages()] == ["shared"]
        assert repr(one) == "<LeanMQ memory://>"


async def test_threads_and_tasks_on_one_fake_server_wake_each_other() -> None:
    server = fakeredis.FakeServer()
    sync = LeanMQ(client=fakeredis.FakeRedis(server=server))
    tasks = AsyncLeanMQ(client=fakeredis.FakeAsyncRedis(server=server))

    with sync:
        async with tasks:
            sync_backend: Any = sync._backend
            async_backend: Any = tasks._backend
            assert sync_backend.connection.hub is async_backend.connection.hub
            await tasks.queue("orders").declare()
            task = asyncio.create_task(tasks.queue("orders").get_messages(timeout=30))
            thread = asyncio.to_thread(sync.queue("mails").get_messages, timeout=30)
            waiting = asyncio.gather(task, thread)
            await asyncio.to_thread(sync.queue("orders").send_message, "to the task")
            await tasks.queue("mails").send_message("to the thread")

            received = await waiting

    assert [[m.data for m in messages] for messages in received] == [
        ["to the task"],
        ["to the thread"],
    ]


def test_what_is_in_a_fake_server_outlives_the_clients_of_its_queues() -> None:
    client = fakeredis.FakeRedis()
    with LeanMQ(client=client) as mq:
        mq.queue("orders").send_message("kept")

    with LeanMQ(client=client) as again:
        assert [m.data for m in again.queue("orders").get_messages()] == ["kept"]
    assert client.keys("mq:*")


def test_a_fake_server_is_not_kept_once_nobody_uses_it() -> None:
    server = fakeredis.FakeServer()
    gone = weakref.ref(server)
    with LeanMQ(client=fakeredis.FakeRedis(server=server)) as mq:
        mq.queue("orders").send_message(1)

    del server, mq
    gc.collect()
    assert gone() is None


def test_a_fake_server_that_refuses_connections_is_a_server_that_is_away() -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    with LeanMQ(client=fakeredis.FakeRedis(server=server), deadline=0) as mq:
        queue = mq.queue("orders")
        with pytest.raises(ConnectionError, match="cannot be reached"):
            queue.send_message("never stored")

        server.connected = True
        queue.send_message("stored")
        server.connected = False
        with pytest.raises(ConnectionError) as away:
            queue.send_message("nor this")
        assert not isinstance(away.value, OutcomeUnknownError)

        server.connected = True
        assert [m.data for m in queue.get_messages()] == ["stored"]


def test_the_account_of_a_fake_client_is_used() -> None:
    server = fakeredis.FakeServer(config={b"requirepass": b"secret"})
    with LeanMQ(client=fakeredis.FakeRedis(server=server, password="secret")) as mq:
        mq.queue("orders").send_message(1)

    with (
        LeanMQ(client=fakeredis.FakeRedis(server=server, password="guessed"), deadline=0) as other,
        pytest.raises(AccessError),
    ):
        other.queue("orders").send_message(2)


def test_a_fork_that_is_given_the_fake_client_has_a_hub_of_its_own() -> None:
    code = """
import fakeredis, os, signal, leanmq
client = fakeredis.FakeRedis()
parent = leanmq.LeanMQ(client=client)
with parent._backend.connection.hub._lock:  # as if another thread were just there
    child = os.fork()
    if not child:
        signal.alarm(10)
        with leanmq.LeanMQ(client=client) as own:
            own.queue("orders").send_message("only here")
        os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
assert parent.queue("orders").get_messages() == []
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_waiting_for_dead_letters_asks_the_server_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    run = memory.MemoryServer.run

    def counted(server: memory.MemoryServer, call: Call) -> Any:
        asked.append(call)
        return run(server, call)

    monkeypatch.setattr(memory.MemoryServer, "run", counted)
    with LeanMQ("memory://") as mq:
        letters = mq.queue("orders").dlq
        letters.declare()
        asked.clear()

        assert letters.get_messages(timeout=0.3) == []

    assert len(asked) < 10, "it was woken by its own looks"
