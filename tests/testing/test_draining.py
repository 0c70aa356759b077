"""``drain`` and ``drain_async``: what a handler is given, what becomes of it, and when it ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from leanmq import AsyncLeanMQ, BackendError, LeanMQ, Queue, UnsupportedError
from leanmq.backends.protocol import Capabilities, Exchange
from leanmq.backends.streams.driver import StreamsBackend
from leanmq.testing import Drained, ManualClock, drain, drain_async


@pytest.fixture
def mq() -> Iterator[LeanMQ]:
    with LeanMQ("memory://") as client:
        yield client


@pytest.fixture
async def async_mq() -> AsyncIterator[AsyncLeanMQ]:
    async with AsyncLeanMQ("memory://") as client:
        yield client


def refuse(payload: Any) -> None:
    raise LookupError(f"no {payload}")


# --- what becomes of messages


def test_an_empty_queue_is_drained_at_once(mq: LeanMQ) -> None:
    assert drain(mq.queue("orders"), refuse) == Drained()


def test_each_message_is_handled_in_order_and_acknowledged(mq: LeanMQ) -> None:
    orders, seen = mq.queue("orders"), list[int]()
    orders.send_messages(range(25))

    assert drain(orders, seen.append) == Drained(handled=25)
    assert seen == list(range(25))
    assert orders.get_info().message_count == 0


def test_what_fails_is_retried_until_it_is_a_dead_letter(mq: LeanMQ) -> None:
    orders = mq.queue("orders", max_deliveries=3)
    orders.send_messages(["tea", "coffee"])

    done = drain(orders, refuse)

    assert done == Drained(handled=0, failed=6, dead=2)
    assert {str(error) for error in done.errors} == {"no tea", "no coffee"}
    [letter, _] = orders.dlq.get_messages()
    assert letter.error is not None
    assert "no tea" in letter.error


def test_what_fails_once_is_handled_the_second_time(mq: LeanMQ) -> None:
    orders = mq.queue("orders")
    orders.send_message("tea")
    tries = []

    def at_second_try(payload: str) -> None:
        tries.append(payload)
        if len(tries) == 1:
            raise OSError("not yet")

    assert drain(orders, at_second_try) == Drained(handled=1, failed=1)


def test_what_the_handler_sends_to_the_queue_is_handled_too(mq: LeanMQ) -> None:
    numbers = mq.queue("numbers")
    numbers.send_message(3)

    done = drain(numbers, lambda number: number and numbers.send_message(number - 1))

    assert done.handled == 4


def test_what_nobody_can_read_is_counted_as_dead(mq: LeanMQ) -> None:
    mq.queue("numbers").send_messages([1, "two"])

    assert drain(mq.queue("numbers", type=int), lambda _: None) == Drained(handled=1, dead=1)


def test_delayed_messages_and_those_in_flight_are_left_alone(mq: LeanMQ) -> None:
    orders = mq.queue("orders")
    orders.send_message("held")
    held = orders.get_messages()
    orders.send_message("tomorrow", delay=86_400)
    orders.send_message("now")
    seen: list[str] = []

    drain(orders, seen.append)

    assert seen == ["now"]
    assert orders.acknowledge_messages(held) == 1


def test_dead_letters_can_be_drained(mq: LeanMQ) -> None:
    orders = mq.queue("orders", max_deliveries=1)
    orders.send_messages(["tea", "coffee"])
    drain(orders, refuse)

    assert drain(orders.dlq, lambda _: None) == Drained(handled=2)


def test_the_errors_of_the_first_ten_calls_are_kept(mq: LeanMQ) -> None:
    orders = mq.queue("orders", max_deliveries=1)
    orders.send_messages(range(25))

    done = drain(orders, refuse)

    assert (done.failed, len(done.errors)) == (25, 10)
    assert str(done.errors[0]) == "no 0"


@pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration(), RuntimeError()])
async def test_a_handler_may_raise_what_generators_take_for_their_end(
    mq: LeanMQ, async_mq: AsyncLeanMQ, error: Exception
) -> None:
    def fail(_: object) -> None:
        raise error

    orders, async_orders = mq.queue("o", max_deliveries=2), async_mq.queue("o", max_deliveries=2)
    orders.send_messages([1, 2])
    await async_orders.send_messages([1, 2])

    assert drain(orders, fail) == Drained(failed=4, dead=2)
    assert await drain_async(async_orders, fail) == Drained(failed=4, dead=2)


# --- when it ends


def test_it_never_goes_on_for_ever(mq: LeanMQ) -> None:
    orders = mq.queue("orders", max_deliveries=0)
    orders.send_message("tea")

    with pytest.raises(AssertionError) as failed:
        drain(orders, refuse, limit=20)

    assert str(failed.value) == (
        "queue 'orders' is not empty after 20 calls of the handler (0 handled, 20 failed; the last "
        "error was LookupError('no tea')): does it send to this queue, or is max_deliveries 0? "
        "Else raise limit="
    )
    assert [message.data for message in orders.get_messages()] == ["tea"]  # nobody holds it


def test_the_limit_itself_is_allowed(mq: LeanMQ) -> None:
    orders = mq.queue("orders")
    orders.send_messages(range(20))

    assert drain(orders, lambda _: None, limit=20) == Drained(handled=20)


def test_an_assertion_in_the_handler_ends_the_test(mq: LeanMQ) -> None:
    orders, calls = mq.queue("orders"), []
    orders.send_message("tea")

    def check(payload: str) -> None:
        calls.append(payload)
        assert payload == "coffee"

    with pytest.raises(AssertionError, match="coffee"):
        drain(orders, check)
    assert calls == ["tea"]
    assert orders.get_info().ready_messages == 1


def test_ctrl_c_gives_the_message_back_uncounted(mq: LeanMQ) -> None:
    orders = mq.queue("orders")
    orders.send_message("tea")

    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(orders, interrupted)
    assert [message.delivery_count for message in orders.get_messages()] == [1]


def test_trouble_of_leanmq_is_not_taken_for_one_of_the_handler(
    mq: LeanMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = mq.queue("orders")
    orders.send_messages(["tea", "coffee"])

    def broken(self: StreamsBackend, _: Exchange) -> None:
        monkeypatch.undo()
        raise BackendError("an odd reply")

    with pytest.raises(BackendError, match="an odd reply"):
        drain(orders, lambda _: monkeypatch.setattr(StreamsBackend, "exchange", broken))


# --- delayed messages


def test_a_clock_is_put_forward_to_what_is_delayed() -> None:
    with ManualClock() as clock, LeanMQ("memory://") as mq:
        mails, seen = mq.queue("mails"), list[str]()
        mails.send_message("in a month", delay=30 * 86_400)
        mails.send_message("in an hour", delay=3600)
        mails.send_message("now")

        assert drain(mails, seen.append, clock=clock) == Drained(handled=3)
        assert seen == ["now", "in an hour", "in a month"]


def test_what_expires_before_it_is_due_is_not_waited_for() -> None:
    with ManualClock() as clock, LeanMQ("memory://") as mq:
        mails = mq.queue("mails")
        mails.send_message("too late", ttl_seconds=60)
        mails.retry_messages(mails.get_messages(), delay=3600)
        mails.send_message("in two hours", delay=7200)

        assert drain(mails, lambda _: None, clock=clock) == Drained(handled=1)


def test_a_clock_is_refused_for_a_server_that_has_its_own(
    mq: LeanMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mq._core, "capabilities", Capabilities("redis://h"))

    with ManualClock() as clock, pytest.raises(UnsupportedError, match="memory://"):
        drain(mq.queue("orders"), refuse, clock=clock)


# --- asyncio


async def test_a_coroutine_function_is_awaited_and_retried(async_mq: AsyncLeanMQ) -> None:
    orders = async_mq.queue("orders", max_deliveries=2)
    await orders.send_messages([1, 0, 2])
    seen = []

    async def divide(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(1 / number)

    assert await drain_async(orders, divide) == Drained(handled=2, failed=2, dead=1)
    assert seen == [1.0, 0.5]
    assert (await orders.get_info()).message_count == 0


async def test_a_plain_function_handles_asyncio_queues_too(async_mq: AsyncLeanMQ) -> None:
    orders, seen = async_mq.queue("orders"), list[str]()
    await orders.send_message("tea")

    assert await drain_async(orders, seen.append) == Drained(handled=1)
    assert seen == ["tea"]


async def test_an_asyncio_drain_has_the_same_limit_clock_and_verdicts(
    async_mq: AsyncLeanMQ,
) -> None:
    orders = async_mq.queue("orders", max_deliveries=0)
    await orders.send_message("tea", delay=3600)

    async def check(_: str) -> None:
        pytest.fail("never")  # no Exception: as little caught as Ctrl-C

    with ManualClock() as clock:
        with pytest.raises(pytest.fail.Exception, match="never"):
            await drain_async(orders, check, clock=clock)
        with pytest.raises(AssertionError, match="after 5 calls"):
            await drain_async(orders, refuse, limit=5)


async def test_a_cancelled_drain_gives_its_message_back(async_mq: AsyncLeanMQ) -> None:
    orders, begun = async_mq.queue("orders"), asyncio.Event()
    await orders.send_message("tea")

    async def stuck(_: str) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(drain_async(orders, stuck))
    await begun.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert [message.delivery_count for message in await orders.get_messages()] == [1]


# --- what people are told


class Awaited:
    async def __call__(self, _: object) -> None: ...


@pytest.mark.parametrize(
    "handler", [Awaited(), functools.partial(Awaited.__call__, Awaited())], ids=["call", "partial"]
)
def test_a_coroutine_function_is_refused_by_drain(
    mq: LeanMQ, handler: Callable[[Any], object]
) -> None:
    orders = mq.queue("orders")
    orders.send_message("tea")

    with pytest.raises(TypeError, match=r"is a coroutine function.*; use drain_async"):
        drain(orders, handler)
    assert orders.get_info().ready_messages == 1


async def test_a_queue_of_the_other_world_is_refused(mq: LeanMQ, async_mq: AsyncLeanMQ) -> None:
    other: Any = async_mq.queue("orders")
    with pytest.raises(TypeError, match=r"'orders' belongs to an AsyncLeanMQ; use 'await drain_a"):
        drain(other, refuse)
    other = mq.queue("orders")
    with pytest.raises(TypeError, match=r"'orders' belongs to a LeanMQ; use 'drain\(\.\.\.\)'"):
        await drain_async(other, refuse)
    other = "orders"
    with pytest.raises(TypeError, match=r"drain takes a queue, as mq\.queue\('orders'\).*not str"):
        drain(other, refuse)
    with pytest.raises(TypeError, match="drain_async takes a queue"):
        await drain_async(other, refuse)


@pytest.mark.parametrize(("limit", "error"), [(0, ValueError), (True, TypeError), ("9", TypeError)])
def test_a_limit_is_a_number_of_calls(mq: LeanMQ, limit: Any, error: type[Exception]) -> None:
    queue: Queue = mq.queue("orders")
    with pytest.raises(error, match="limit"):
        drain(queue, refuse, limit=limit)
