"""``consume``, the loop over messages, and ``processing``, the work on one of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest

from leanmq import AsyncQueue, ClosedError, Message
from tests.contract.harness import IN_MEMORY, SERVERS, Client, Harness, eventually


def back_again(queue: AsyncQueue, ready: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many messages are ready, and none is in flight."""

    async def look() -> bool:
        info = await queue.get_info()
        return (info.ready_messages, info.pending_messages) == (ready, 0)

    return look


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [event for r in caplog.records if (event := getattr(r, "leanmq_event", None))]


# --- consume


async def test_a_loop_over_messages_gets_all_of_them_and_ends_at_its_timeout(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_messages(range(25))
    got: list[int] = []

    async for message in queue.consume(timeout=0.1):
        assert message.delivery_count == 1
        got.append(message.data)
        assert await queue.acknowledge_messages(message) == 1

    assert sorted(got) == list(range(25))
    if (await mq.open()).ordered:
        assert got == list(range(25))
    assert (await queue.get_info()).message_count == 0


async def test_a_loop_without_a_timeout_waits_for_messages(
    queue: AsyncQueue, harness: Harness
) -> None:
    async def first_two() -> list[Any]:
        got: list[Any] = []
        async for message in queue.consume():
            got.append(message.data)
            await queue.acknowledge_messages(message)
            if len(got) == 2:
                return got
        raise AssertionError("the loop ended")

    consuming = asyncio.create_task(first_two())
    sender = harness.client().queue("orders")
    for data in ("first", "second"):
        done, _ = await asyncio.wait([consuming], timeout=0.15)
        assert not done
        await sender.send_message(data)

    assert await asyncio.wait_for(consuming, 10) == ["first", "second"]


async def test_a_timeout_counts_from_the_last_message(queue: AsyncQueue) -> None:
    await queue.send_message("only")
    began = time.monotonic()

    got = [m.data async for m in queue.consume(timeout=0.3)]

    assert got == ["only"]
    assert 0.29 <= time.monotonic() - began < 5


async def test_messages_are_read_in_batches(queue: AsyncQueue) -> None:
    await queue.send_messages(range(5))

    async with aclosing(queue.consume(count=3)) as messages:
        first = await anext(messages)
        info = await queue.get_info()

    assert (info.pending_messages, info.ready_messages) == (3, 2)
    assert await queue.acknowledge_messages(first) == 1


async def test_after_a_break_the_rest_is_ready_again_uncounted(queue: AsyncQueue) -> None:
    await queue.send_messages(range(10))

    async for message in queue.consume():
        assert await queue.acknowledge_messages(message) == 1
        break

    await eventually(back_again(queue, 9), within=10)
    rest = await queue.get_messages(100)
    assert {m.delivery_count for m in rest} == {1}
    assert sorted(m.data for m in [message, *rest]) == list(range(10))


async def test_what_was_yielded_stays_with_the_loop_that_breaks(queue: AsyncQueue) -> None:
    await queue.send_messages(range(3))
    got = None
    async for message in queue.consume():
        got = message
        break

    async def rest_is_back() -> bool:
        info = await queue.get_info()
        return (info.ready_messages, info.pending_messages) == (2, 1)

    await eventually(rest_is_back, within=10)
    assert got is not None
    assert await queue.acknowledge_messages(got) == 1


async def test_an_exception_in_the_loop_gives_the_rest_back(queue: AsyncQueue) -> None:
    await queue.send_messages(range(5))

    async def work() -> None:
        async for message in queue.consume():
            await queue.acknowledge_messages(message)
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        await work()

    await eventually(back_again(queue, 4), within=10)
    assert {m.delivery_count for m in await queue.get_messages()} == {1}


async def test_a_cancelled_loop_gives_the_rest_back(queue: AsyncQueue) -> None:
    await queue.send_messages(range(5))
    working = asyncio.Event()

    async def work() -> None:
        async for message in queue.consume():
            await queue.acknowledge_messages(message)
            working.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.wait_for(working.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task

    await eventually(back_again(queue, 4), within=10)


@pytest.mark.on(*IN_MEMORY)
async def test_leases_of_waiting_messages_are_renewed_while_the_loop_is_slow(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("slow", lease=60)
    other = harness.client().queue("slow")
    await queue.send_messages(range(6))
    done = 0

    async for message in queue.consume(count=6, timeout=0.05):
        assert message.lease_until - time.time() > 29
        harness.advance(25)
        assert await other.get_messages() == []
        assert message.delivery_count == 1
        done += await queue.acknowledge_messages(message)

    assert done == 6


@pytest.mark.on(*SERVERS)
async def test_leases_are_renewed_on_servers_too(mq: Client) -> None:
    queue, empty = mq.queue("slow", lease=2.0), mq.queue("empty")
    await queue.send_messages(range(2))
    ends: list[float] = []

    async for message in queue.consume(count=2, timeout=0.05):
        ends.append(message.lease_until)
        [*_, last] = await queue.pending_messages()
        assert abs(last.lease_until - ends[-1]) < 0.75
        assert await empty.get_messages(timeout=1.1) == []  # more than half of the lease
        assert await queue.acknowledge_messages(message) == 1

    assert len(ends) == 2
    assert ends[1] > ends[0] + 1.0


async def test_a_lease_that_others_made_shorter_is_renewed_for_no_longer(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=600)
    await queue.send_messages(range(4))
    await harness.client().update_queue("short", lease=20)
    got: list[int] = []

    async for message in queue.consume(count=4, timeout=0.05):
        got.append(message.data)
        assert message.lease_until < time.time() + 60
        if harness.subject in IN_MEMORY:
            harness.advance(11)  # more than half of the new lease
        assert await queue.acknowledge_messages(message) == 1

    assert sorted(got) == list(range(4))


async def test_messages_that_were_lost_while_they_waited_are_not_yielded(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=0.3)
    other = harness.client().queue("short")
    await queue.send_messages(["mine", "lost"])
    got: list[str] = []
    taken: list[Message[Any]] = []

    async for message in queue.consume(count=2, timeout=0.05):
        got.append(message.data)
        assert await queue.acknowledge_messages(message) == 1
        if not taken:
            taken = await other.get_messages(timeout=5)
            await mq.update_queue("short", lease=30)

    assert len(got) == 1
    assert [m.delivery_count for m in taken] == [2]
    assert {*got, *(m.data for m in taken)} == {"mine", "lost"}
    assert await other.acknowledge_messages(taken) == 1


async def test_messages_lost_to_a_sibling_of_the_same_client_are_not_yielded_twice(
    mq: Client,
) -> None:
    queue = mq.queue("short", lease=0.3)
    await queue.send_messages(["mine", "lost"])
    got: list[str] = []
    taken: list[Message[Any]] = []

    async with aclosing(queue.consume(count=2, timeout=0.05)) as messages:
        async for message in messages:
            got.append(message.data)
            assert await queue.acknowledge_messages(message) == 1
            if not taken:
                taken = await queue.get_messages(timeout=5)
                await mq.update_queue("short", lease=30)

    assert len(got) == 1
    assert [m.delivery_count for m in taken] == [2]
    assert await queue.acknowledge_messages(taken) == 1


async def test_a_loop_that_breaks_gives_nothing_back_that_a_sibling_holds(mq: Client) -> None:
    queue = mq.queue("short", lease=0.3)
    await queue.send_messages(["mine", "lost"])
    async with aclosing(queue.consume(count=2)) as messages:
        await queue.acknowledge_messages(await anext(messages))
        [taken] = await queue.get_messages(timeout=5)

    assert taken.delivery_count == 2
    assert await queue.acknowledge_messages(taken) == 1


async def test_closing_the_client_ends_a_waiting_loop_quietly(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.declare()

    async def consume() -> list[Any]:
        return [message async for message in queue.consume()]

    consuming = asyncio.create_task(consume())
    done, _ = await asyncio.wait([consuming], timeout=0.1)
    assert not done

    await mq.close()

    assert await asyncio.wait_for(consuming, 10) == []


async def test_closing_the_client_in_the_loop_ends_it_quietly(
    harness: Harness, queue: AsyncQueue
) -> None:
    await queue.send_messages(range(3))
    client = harness.client()
    got = 0

    async for _ in client.queue("orders").consume():
        got += 1
        await client.close()

    assert got == 1
    with pytest.raises(ClosedError):
        client.queue("orders").consume()


async def test_what_is_wrong_is_told_at_the_call(queue: AsyncQueue) -> None:
    wrong: Any = "many"
    for count in (0, 1_001, -1):
        with pytest.raises(ValueError, match="count is"):
            queue.consume(count=count)
    with pytest.raises(TypeError, match="count must be an int"):
        queue.consume(count=wrong)
    with pytest.raises(ValueError, match="timeout is -1"):
        queue.consume(timeout=-1)
    with pytest.raises(TypeError, match="timeout must be seconds"):
        queue.consume(timeout=wrong)


async def test_dead_letters_are_consumed_like_any_message(queue: AsyncQueue) -> None:
    await queue.send_messages(range(3))
    await queue.move_to_dlq(await queue.get_messages(), "why")

    errors = []
    async for dead in queue.dlq.consume(timeout=0.05):
        errors.append(dead.error)
        assert await queue.dlq.requeue_messages(dead) == 1

    assert errors == ["why"] * 3
    assert (await queue.get_info()).ready_messages == 3


# --- processing


async def test_a_processed_message_is_acknowledged_at_the_end(queue: AsyncQueue) -> None:
    await queue.send_message({"n": 1})
    [message] = await queue.get_messages()

    async with queue.processing(message) as data:
        assert data == {"n": 1}
        assert (await queue.get_info()).pending_messages == 1

    assert (await queue.get_info()).message_count == 0


async def test_an_exception_has_the_message_retried_and_propagates(queue: AsyncQueue) -> None:
    await queue.send_message("bad")
    [message] = await queue.get_messages()

    with pytest.raises(ZeroDivisionError, match="mine"):
        async with queue.processing(message):
            raise ZeroDivisionError("mine ☠")

    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.delivery_count) == (message.id, 2)
    [failure] = again.failures
    assert (failure.delivery_count, failure.reason) == (1, "ZeroDivisionError: mine ☠")


async def test_at_max_deliveries_an_exception_makes_a_dead_letter(mq: Client) -> None:
    queue = mq.queue("limited", max_deliveries=2)
    await queue.send_message("bad")
    for n in range(2):
        [message] = await queue.get_messages(timeout=5)
        with pytest.raises(ValueError, match="try"):
            async with queue.processing(message):
                raise ValueError(f"try {n}")

    [dead] = await queue.dlq.get_messages(timeout=5)
    assert dead.error is not None
    assert dead.error.endswith("ValueError: try 1")
    assert [f.reason for f in dead.failures] == ["ValueError: try 0", "ValueError: try 1"]
    assert (await queue.get_info()).message_count == 0


async def test_a_cancelled_work_gives_its_message_back_uncounted(queue: AsyncQueue) -> None:
    await queue.send_message("innocent")
    [message] = await queue.get_messages()
    working = asyncio.Event()

    async def work() -> None:
        async with queue.processing(message):
            working.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await asyncio.wait_for(working.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.delivery_count, again.failures) == (message.id, 1, ())


async def test_ctrl_c_gives_the_message_back_uncounted(queue: AsyncQueue) -> None:
    await queue.send_message("innocent")
    [message] = await queue.get_messages()

    with pytest.raises(KeyboardInterrupt):
        async with queue.processing(message):
            raise KeyboardInterrupt

    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.delivery_count, again.failures) == (message.id, 1, ())


@pytest.mark.in_detail
@pytest.mark.parametrize("ends", ["well", "badly"])
@pytest.mark.parametrize("how", ["retried", "released", "dead", "acknowledged"])
async def test_what_was_settled_in_the_block_stays_as_it_was_settled(
    queue: AsyncQueue, caplog: pytest.LogCaptureFixture, how: str, ends: str
) -> None:
    sent = await queue.send_message("m")
    [message] = await queue.get_messages()

    async def work() -> None:
        async with queue.processing(message):
            if how == "retried":
                assert await queue.retry_messages(message, delay=60) == 1
            elif how == "released":
                assert await queue.release_messages(message) == 1
            elif how == "dead":
                assert await queue.move_to_dlq(message, "why") == 1
            else:
                assert await queue.acknowledge_messages(message) == 1
            if ends == "badly":
                raise ValueError("mine")

    if ends == "well":
        await work()
    else:
        with pytest.raises(ValueError, match="mine"):
            await work()

    info, dead = await queue.get_info(), await queue.dlq.get_info()
    found = (info.delayed_messages, info.ready_messages, dead.ready_messages)
    assert found == tuple(int(how == state) for state in ("retried", "released", "dead"))
    for shown in await queue.peek_messages(ids=sent):
        assert (shown.delivery_count, shown.failures) == (int(how == "retried"), ())
    assert events(caplog) == (["dead_letter"] if how == "dead" else [])


async def test_a_lease_lost_before_the_end_is_logged_and_raises_nothing(
    mq: Client, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    queue = mq.queue("short", lease=0.3)
    other = harness.client().queue("short")
    await queue.send_message("slow work")
    [message] = await queue.get_messages()

    async with queue.processing(message):
        [taken] = await other.get_messages(timeout=5)

    assert events(caplog) == ["lease_lost"]
    assert message.id in caplog.text
    assert "slow work" not in caplog.text
    assert await other.acknowledge_messages(taken) == 1


async def test_the_end_of_the_work_leaves_alone_what_a_sibling_received(
    mq: Client, caplog: pytest.LogCaptureFixture
) -> None:
    queue = mq.queue("short", lease=0.3)
    await queue.send_message("slow work")
    [message] = await queue.get_messages()

    async with queue.processing(message):
        [again] = await queue.get_messages(timeout=5)

    assert events(caplog) == ["lease_lost"]
    assert again.delivery_count == 2
    assert await queue.acknowledge_messages(again) == 1


async def test_a_failure_after_the_lease_was_lost_is_the_one_that_propagates(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=0.3)
    other = harness.client().queue("short")
    await queue.send_message("slow work")
    [message] = await queue.get_messages()

    taken: list[Message[Any]] = []

    async def work() -> None:
        async with queue.processing(message):
            taken.extend(await other.get_messages(timeout=5))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await work()

    assert [(m.delivery_count, m.failures) for m in taken] == [(2, ())]
    assert await other.acknowledge_messages(taken) == 1


@pytest.mark.in_detail
@pytest.mark.parametrize("error", [ValueError("mine"), asyncio.CancelledError("mine")])
async def test_trouble_with_giving_back_is_logged_and_hides_nothing(
    harness: Harness, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    client, other = harness.client(), harness.client().queue("orders")
    queue = client.queue("orders")
    await other.send_message("held")
    [message] = await queue.get_messages()

    async def work() -> None:
        async with queue.processing(message):
            await client.close()
            raise error

    with pytest.raises(type(error), match="mine"):
        await work()

    assert events(caplog) == ["give_back_failed"]
    assert message.id in caplog.text
    assert (await other.get_info()).pending_messages == 1


async def test_an_exception_that_has_no_text_is_still_the_one_that_propagates(
    queue: AsyncQueue,
) -> None:
    class Speechless(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    await queue.send_message("bad")
    [message] = await queue.get_messages()

    with pytest.raises(Speechless):
        async with queue.processing(message):
            raise Speechless

    [again] = await queue.get_messages(timeout=5)
    assert [f.reason for f in again.failures] == ["Speechless"]
