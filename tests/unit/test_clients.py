"""Clients: opening, failing, forking; what needs no server."""

from __future__ import annotations

import asyncio
import builtins
import pickle
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

import leanmq
from leanmq import ClosedError, ConnectionError, LeanMQ, LeanMQError, Outgoing, Queue
from leanmq.backends.hub import LocalHub
from leanmq.backends.protocol import Exchange, Held, QueueRef, Receive, Settlement, Verb
from leanmq.backends.registry import Options, open_backend
from leanmq.backends.streams.calls import Wait
from leanmq.errors import QueueNotFoundError, UnsupportedError


def test_named_memory_is_shared_while_it_is_open() -> None:
    one, other = LeanMQ("memory://shared"), LeanMQ("memory://shared")
    one.queue("q").send_message("kept")
    one.close()
    assert [m.data for m in other.queue("q").get_messages()] == ["kept"]
    other.close()

    with LeanMQ("memory://shared") as fresh:
        assert fresh.queue("q").get_messages() == []


def test_unnamed_memory_belongs_to_its_client() -> None:
    with LeanMQ("memory://") as one, LeanMQ("memory://") as other:
        one.queue("q").send_message("mine")
        assert other.queue("q").get_messages() == []


def test_a_fork_of_a_process_with_memory_is_told_so() -> None:
    code = """
import os, leanmq
mq = leanmq.LeanMQ("memory://"); queue = mq.queue("q"); queue.send_message(1)
if not os.fork():
    try:
        queue.send_message(2)
    except leanmq.UnsupportedError as error:
        assert "fork" in str(error) and "redis://" in str(error)
        os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
assert queue.get_info().message_count == 1
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_fork_waits_for_no_lock_that_a_thread_of_its_parent_held() -> None:
    code = """
import contextlib, os, signal, leanmq
from leanmq.backends import memory, stores
mq = leanmq.LeanMQ("memory://m"); queue = mq.queue("q"); queue.send_message(1)
with memory.server("m").hub._lock, stores._making():  # as if another thread were just there
    child = os.fork()
    if not child:
        signal.alarm(10)
        for call in (queue.get_messages, queue.get_info, mq.open, mq.ping):
            with contextlib.suppress(leanmq.UnsupportedError):
                call()
        mq.close()
        with leanmq.LeanMQ("memory://m") as own:
            assert own.queue("q").get_messages() == []
        os._exit(7)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 7
assert [message.data for message in queue.get_messages()] == [1]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("kafka://x", "scheme 'kafka' is unknown; use one of .*memory"),
        ("localhost:6379", "has no scheme"),
        ("redis://:hunter2@h:port/0", "redis"),
        ("redis+sentinel://h", "service"),
        ("redis+cluster://h/3", "0"),
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_secrets(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        LeanMQ(url)

    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_secrets_are_in_no_representation() -> None:
    mq = LeanMQ("redis://user:hunter2@127.0.0.1:1/0")

    assert "hunter2" not in repr(mq) + repr(mq.queue("q")) + repr(mq._backend)


def test_either_a_url_or_a_backend() -> None:
    backend = open_backend("memory://", None, Options())
    with pytest.raises(TypeError, match="not both"):
        LeanMQ("memory://", backend=backend)
    with LeanMQ() as mq:
        assert repr(mq) == "<LeanMQ redis://localhost:6379/0>"
    with LeanMQ(backend=backend) as mq:
        assert mq.queue("q").send_message(1)


def test_a_failed_send_shows_eight_frames_of_ours_at_most() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        queue = LeanMQ(f"redis://127.0.0.1:{nobody.getsockname()[1]}/0").queue("q")
        with pytest.raises(ConnectionError) as refused:
            queue.send_message(1)

    frames = [f for f in traceback.extract_tb(refused.tb) if "/leanmq/" in f.filename]
    assert len(frames) <= 8, [f"{f.filename}:{f.name}" for f in frames]


def test_a_client_that_is_closed_opens_no_queue() -> None:
    mq = LeanMQ("memory://")
    mq.close()
    with pytest.raises(ClosedError):
        mq.queue("q")
    with pytest.raises(ClosedError):
        mq.ping()


def test_a_queue_is_always_true_and_satisfies_the_protocol() -> None:
    with LeanMQ("memory://") as mq:
        queue = mq.queue("q")
        assert queue
        assert isinstance(queue, Queue)
        assert isinstance(queue.dlq, Queue)
        queue.send_messages([Outgoing(1)])


def test_an_exchange_settles_and_receives_in_one_call() -> None:
    backend = open_backend("memory://", None, Options())
    with LeanMQ(backend=backend) as mq:
        mq.queue("q").send_messages(range(4))
        ref = QueueRef("q")
        first = backend.exchange(Exchange((), (Receive(ref, "c", 2),)))
        held = [Held(d.id, d.receipt) for d in first.deliveries]

        both = backend.exchange(
            Exchange((Settlement(ref, Verb.ACKNOWLEDGE, held),), (Receive(ref, "c", 2),))
        )

        assert [list(s) for s in both.settled] == [[0, 0]]
        assert [d.body for d in both.deliveries] == [b"2", b"3"]
        assert mq.queue("q").get_info().message_count == 2


def test_what_a_backend_cannot_do_it_refuses() -> None:
    backend = open_backend("memory://", None, Options())
    receive = Receive(QueueRef("q"), "c", 1)
    with pytest.raises(UnsupportedError, match="one queue at a time, not 2"):
        backend.exchange(Exchange((), (receive, receive)))
    with pytest.raises(QueueNotFoundError, match="'q'"):
        backend.exchange(Exchange((), (receive,)))
    backend.close()


def test_a_wake_up_between_the_look_and_the_wait_is_not_missed() -> None:
    hub = LocalHub()
    seen = hub.version("k")
    hub.wake(("k",))

    hub.wait(Wait(hub, ("k",), (seen,), seconds=60))  # returns at once, or the test times out


def test_a_hub_forgets_those_who_do_not_wait_any_more() -> None:
    hub = LocalHub()
    hub.wait(Wait(hub, ("k",), (hub.version("k"),), seconds=0.01))

    assert not hub._waiters


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.send_message(object()),
        lambda queue: queue.move_to_dlq("1-1", "x") or queue.dlq.move_to_dlq("1-1"),
        lambda queue: queue.dlq.delete(),
    ],
)
def test_errors_carry_the_name_of_their_queue(call: Callable[[Queue], object]) -> None:
    with LeanMQ("memory://") as mq, pytest.raises(LeanMQError) as raised:
        call(mq.queue("orders"))

    assert raised.value.queue == "orders"


def test_a_backend_that_was_given_knows_its_own_prefix() -> None:
    backend = open_backend("memory://", None, Options(prefix="mine:"))
    with pytest.raises(TypeError, match="give them to the backend"):
        LeanMQ(backend=backend, prefix="other:")
    backend.close()


def test_a_waiter_whose_loop_is_gone_does_not_fail_a_send() -> None:
    hub = LocalHub()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(hub.wait_async(Wait(hub, ("k",), (0,), seconds=60)))
    loop.run_until_complete(asyncio.sleep(0))
    closing = loop.call_soon_threadsafe

    def closed(*_: object, **__: object) -> asyncio.Handle:
        raise RuntimeError("Event loop is closed")

    loop.call_soon_threadsafe = closed  # type: ignore[method-assign]  # as if closed just now
    hub.wake(("k",))

    loop.call_soon_threadsafe = closing  # type: ignore[method-assign]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(waiting)
    loop.close()


def test_a_connection_error_is_the_one_that_people_catch_anyway() -> None:
    from redis import exceptions

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}/0"
        for kind in (leanmq.ConnectionError, exceptions.ConnectionError, builtins.ConnectionError):
            with pytest.raises(kind) as caught:
                LeanMQ(url).ping()
            assert type(caught.value) is leanmq.ConnectionError
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy)) == (leanmq.ConnectionError, str(caught.value))
    assert repr(copy) == f"ConnectionError({str(copy)!r})"


def test_importing_leanmq_and_catching_its_errors_imports_no_redis() -> None:
    code = """
import sys, leanmq
slow = {"redis", "fakeredis", "click", "rich", "asyncio", "importlib.metadata"}
assert not slow & set(sys.modules), slow & set(sys.modules)
from leanmq import *
assert issubclass(ConnectionError, sys.modules["redis"].exceptions.ConnectionError)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
