"""A promise is a future of ``concurrent.futures`` in all that anybody can see, races included."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import (
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    as_completed,
    wait,
)
from typing import Any

import pytest

from leanmq.policy import promises
from leanmq.policy.promises import Promise
from tests.support.threads import at_once

ROUNDS = 300

either = pytest.mark.parametrize("kind", [Future, Promise])


def settled(future: Future[str], outcome: str | Exception) -> Future[str]:
    assert future.set_running_or_notify_cancel()
    if isinstance(outcome, str):
        future.set_result(outcome)
    else:
        future.set_exception(outcome)
    return future


@either
def test_its_states_are_told_alike(kind: type[Future[str]]) -> None:
    future = kind()
    told: list[Any] = [future.running(), future.done(), future.cancelled()]
    assert future.set_running_or_notify_cancel()
    told += [future.running(), future.done(), future.cancel()]
    future.set_result("id")
    told += [future.running(), future.done(), future.cancel(), future.cancelled()]
    told += [future.result(), future.result(0), future.exception()]

    assert told == [False] * 3 + [True, False, False] + [False, True, False, False] + [
        "id", "id", None,
    ]  # fmt: skip


@either
def test_an_exception_is_raised_and_told(kind: type[Future[str]]) -> None:
    future = settled(kind(), LookupError("no"))

    assert isinstance(future.exception(), LookupError)
    with pytest.raises(LookupError):
        future.result(0)


@either
def test_what_is_cancelled_before_it_runs_stays_so(kind: type[Future[str]]) -> None:
    future = kind()
    called: list[Any] = []
    future.add_done_callback(called.append)

    assert future.cancel()
    assert not future.set_running_or_notify_cancel()
    assert future.cancelled()
    assert future.done()
    assert called == [future]
    with pytest.raises(CancelledError):
        future.result(0)


@either
def test_callbacks_are_called_once_whether_they_come_early_or_late(kind: type[Future[str]]) -> None:
    future = kind()
    called: list[str] = []
    future.add_done_callback(lambda done: called.append(f"early {done.result()}"))
    settled(future, "id")
    future.add_done_callback(lambda done: called.append(f"late {done.result()}"))

    assert called == ["early id", "late id"]


@either
def test_the_functions_of_the_standard_library_take_it(kind: type[Future[str]]) -> None:
    futures = [kind() for _ in range(4)]
    settled(futures[0], "early")
    with ThreadPoolExecutor(3) as pool:
        all_done = pool.submit(wait, futures, 20)
        first_failed = pool.submit(wait, futures, 20, FIRST_EXCEPTION)
        in_turn = pool.submit(lambda: list(as_completed(futures, 20)))
        outcomes: list[str | Exception] = ["a", LookupError(), "b"]
        for future, outcome in zip(futures[1:], outcomes, strict=True):
            settled(future, outcome)

        assert set(all_done.result()[0]) == set(futures)
        assert futures[2] in first_failed.result()[0]
        assert set(in_turn.result()) == set(futures)


@either
async def test_asyncio_can_await_it(kind: type[Future[str]]) -> None:
    future = kind()
    waiting = asyncio.wrap_future(future)
    await asyncio.get_running_loop().run_in_executor(None, settled, future, "id")

    assert await asyncio.wait_for(waiting, 10) == "id"


def test_a_promise_that_nobody_looks_at_brings_no_lock_along() -> None:
    future = settled(Promise(), "id")
    assert vars(future)["_lock"] is promises._TAKEN
    assert future.result() == "id"


@either
def test_it_is_finished_for_nobody_before_those_who_look_at_it_are_through(
    kind: type[Future[str]],
) -> None:
    future = kind()
    assert future.set_running_or_notify_cancel()
    with future._condition:  # as the standard library does
        settling = threading.Thread(target=future.set_result, args=("id",))
        settling.start()
        settling.join(0.2)
        assert future._state == "RUNNING"
    settling.join(20)

    assert future.result(0) == "id"


@either
def test_whatever_a_callback_raises_is_logged_and_keeps_nobody_from_the_result(
    kind: type[Future[str]], caplog: pytest.LogCaptureFixture
) -> None:
    future = kind()
    called: list[Any] = []
    future.add_done_callback(lambda _: [][0])
    future.add_done_callback(called.append)
    settled(future, "id")

    assert called == [future]
    assert "exception calling callback" in caplog.text


def test_a_callback_that_wants_to_exit_ends_not_the_thread_that_settles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future = Promise()
    future.add_done_callback(lambda _: sys.exit(3))

    assert settled(future, "id").result(0) == "id"
    assert "SystemExit" in caplog.text


def raced(other: Callable[[Promise], Any]) -> list[tuple[Promise, bool, Any]]:
    """Settle promises while another thread does something with them; what both saw."""
    futures = [Promise() for _ in range(ROUNDS)]
    gates = [threading.Barrier(2) for _ in futures]

    def work(number: int) -> list[Any]:
        told = []
        for future, gate in zip(futures, gates, strict=True):
            gate.wait(30)
            if number:
                told.append(other(future))
            elif future.set_running_or_notify_cancel():
                future.set_result("id")
                told.append(True)
            else:
                told.append(False)
        return told

    ran, seen = at_once(work, threads=2, disturb=promises)
    return list(zip(futures, ran, seen, strict=True))


def test_who_waits_while_it_is_settled_is_told() -> None:
    assert {seen for _, _, seen in raced(lambda future: future.result(10))} == {"id"}


def test_a_callback_that_comes_while_it_is_settled_is_called_once() -> None:
    called: list[Any] = []

    raced(lambda future: future.add_done_callback(called.append))

    assert len(called) == ROUNDS
    assert len(set(map(id, called))) == ROUNDS


def test_who_cancels_in_time_is_obeyed_and_who_does_not_is_told_so() -> None:
    for future, ran, cancelled in raced(lambda future: future.cancel()):
        assert ran is not cancelled
        assert future.cancelled() is cancelled
        if ran:
            assert future.result(0) == "id"


def test_two_who_look_at_once_share_one_lock() -> None:
    for _ in range(ROUNDS):
        future = Promise()
        locks = at_once(lambda _, it=future: it._condition, threads=2, disturb=promises)  # type: ignore[misc]  # of no use elsewhere
        assert locks[0] is locks[1]
