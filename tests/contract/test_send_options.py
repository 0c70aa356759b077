"""What a message is sent with: key, headers, message_id, delay, time to live."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from leanmq import AsyncQueue, Message, MessageError, Outgoing
from tests.contract.harness import IN_ORDER, Client, Harness, drain, eventually

OPTIONS: dict[str, Any] = {
    "key": "customer 7 {žluťoučký} ~ \n\x00",
    "headers": {"": None, "trace": "00-ab", "tries": [1, {"deep": 2.5}], "ünï": "{}~\r\n"},
    "message_id": "order-7/2026 ☃",
}

Way = Callable[[AsyncQueue], Awaitable[Message[Any]]]


async def first(queue: AsyncQueue) -> Message[Any]:
    [message] = await queue.get_messages(timeout=10)
    return message


async def released(queue: AsyncQueue) -> Message[Any]:
    await queue.release_messages(await first(queue))
    return await first(queue)


async def retried(queue: AsyncQueue) -> Message[Any]:
    await queue.retry_messages(await first(queue), reason="once more")
    return await first(queue)


async def retried_later(queue: AsyncQueue) -> Message[Any]:
    await queue.retry_messages(await first(queue), delay=0.05)
    return await first(queue)


async def dead_lettered(queue: AsyncQueue) -> Message[Any]:
    await queue.move_to_dlq(await first(queue), "bad")
    return await first(queue.dlq)


async def redriven(queue: AsyncQueue) -> Message[Any]:
    await queue.dlq.requeue_messages(await dead_lettered(queue))
    return await first(queue)


async def all_of_it(queue: AsyncQueue) -> Message[Any]:
    await retried_later(queue)
    await queue.release_messages([m.id for m in await queue.pending_messages()])
    await redriven(queue)
    await queue.release_messages([m.id for m in await queue.pending_messages()])
    return await retried_later(queue)


WAYS: dict[str, Way] = {
    "received": first,
    "released": released,
    "retried": retried,
    "retried-later": retried_later,
    "dead-lettered": dead_lettered,
    "redriven": redriven,
    "all-of-it": all_of_it,
}


# --- what is only handed on


@pytest.mark.parametrize(
    ("way", "delay"), [*((way, None) for way in WAYS), ("received", 0.05), ("all-of-it", 0.05)]
)
async def test_key_headers_and_message_id_stay_with_the_message(
    queue: AsyncQueue, way: str, delay: float | None
) -> None:
    sent = await queue.send_message({"n": 1}, **OPTIONS, delay=delay, ttl_seconds=600)

    message = await WAYS[way](queue)

    assert message.id == sent
    assert message.data == {"n": 1}
    assert message.key == OPTIONS["key"]
    assert message.headers == OPTIONS["headers"]
    assert message.message_id == OPTIONS["message_id"]


async def test_a_message_without_options_comes_without_them(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("plain")
    await queue.send_message("one", message_id="a")
    await queue.send_message("none", headers={})

    sent = ["plain", "one", "none"]
    messages = harness.in_order(await drain(queue, 3), key=lambda m: sent.index(m.data))
    assert [message.data for message in messages] == sent
    plain, one, none = messages

    assert (plain.key, plain.headers, plain.message_id) == (None, {}, None)
    assert (one.key, one.headers, one.message_id) == (None, {}, "a")
    assert none.headers == {}


async def test_a_message_id_is_a_name_and_not_unique(queue: AsyncQueue, harness: Harness) -> None:
    ids = [await queue.send_message(n, message_id="same") for n in range(3)]

    messages = await drain(queue, 3)

    assert len(set(ids)) == 3
    got = [(m.data, m.message_id) for m in messages]
    assert harness.in_order(got) == [(n, "same") for n in range(3)]
    assert await queue.acknowledge_messages("same") == 0


async def test_options_as_large_as_they_may_be_come_back(queue: AsyncQueue) -> None:
    name = "é" * 512
    headers = {"h": "x" * (16 * 1024 - len('{"h":""}'))}
    await queue.send_message(1, key=name, message_id=name, dedup_id=name, headers=headers)

    message = await first(queue)

    assert (message.key, message.message_id, message.headers) == (name, name, headers)


# --- delay


def in_seconds(seconds: float) -> float:
    return seconds


def as_timedelta(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def as_datetime(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


def somewhere_else(seconds: float) -> datetime:
    return datetime.now(timezone(timedelta(hours=-9, minutes=-30))) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "moment", [in_seconds, as_timedelta, as_datetime, somewhere_else], ids=lambda m: m.__name__
)
async def test_a_delayed_message_comes_when_it_is_due_and_not_before(
    queue: AsyncQueue, harness: Harness, moment: Callable[[float], Any]
) -> None:
    consumer = harness.client().queue("orders")
    await consumer.declare()
    await queue.declare()
    waiting = asyncio.create_task(consumer.get_messages(timeout=20))
    began, sent_at = time.time(), time.monotonic()
    sent = await queue.send_message("later", delay=moment(0.4))
    sent_by = time.monotonic()
    info = await queue.get_info()
    seen_by = time.monotonic()
    others = await queue.get_messages()
    looked_by, watch = time.monotonic(), harness.stopwatch()
    if others:  # the machine stood still, and it was due by then
        assert looked_by - sent_at >= 0.39
        waiting.cancel()
        return
    [message] = await waiting

    assert watch.own() < max(sent_by + 0.4 - looked_by, 0) + 1.5
    assert time.monotonic() - sent_at >= 0.39
    if seen_by - sent_at < 0.4:
        assert (info.delayed_messages, info.ready_messages, info.message_count) == (1, 0, 1)
    assert (message.id, message.data, message.delivery_count) == (sent, "later", 1)
    assert began - 0.1 <= message.timestamp <= began + (sent_by - sent_at) + 0.1
    assert await consumer.acknowledge_messages(sent) == 1
    assert (await queue.get_info()).message_count == 0


async def test_a_delayed_message_waits_however_long_nobody_looks(
    queue: AsyncQueue, harness: Harness
) -> None:
    sent = await queue.send_message("later", delay=3600)
    assert (await queue.get_info()).delayed_messages == 1
    assert await queue.get_messages(timeout=0.05) == []
    if harness.topology is None:
        harness.advance(3590)
        assert await queue.get_messages(timeout=0.05) == []
        harness.advance(11)
        assert [m.id for m in await queue.get_messages()] == [sent]


async def test_messages_of_different_delays_come_in_the_order_of_their_due_times(
    queue: AsyncQueue, mq: Client
) -> None:
    began = time.monotonic()
    ids = [
        await queue.send_message("third", delay=0.45),
        await queue.send_message("second", delay=as_datetime(0.3)),
        await queue.send_message("first", delay=0.15),
        await queue.send_message("now"),
    ]
    in_time = time.monotonic() - began < 0.15
    assert len(set(ids)) == 4

    got: list[Message[Any]] = []
    while len(got) < 4:
        messages = await queue.get_messages(timeout=10)
        assert messages
        got += messages

    if in_time and (await mq.open()).ordered:
        assert [m.data for m in got] == ["now", "first", "second", "third"]
    assert {m.id for m in got} == set(ids)


@pytest.mark.parametrize("delay", [0, 0.0, timedelta(0), datetime(2000, 1, 1, tzinfo=UTC)], ids=str)
async def test_a_delay_that_is_over_is_none(queue: AsyncQueue, delay: Any) -> None:
    sent = await queue.send_message("at once", delay=delay)

    assert (await queue.get_info()).delayed_messages == 0
    assert [m.id for m in await queue.get_messages()] == [sent]


async def test_an_id_is_not_given_again_after_its_queue_was_deleted(queue: AsyncQueue) -> None:
    old = []
    for _ in range(20):  # often enough that some are made again within a millisecond
        old += [await queue.send_message("old", delay=60), await queue.send_message("old")]
        assert await queue.delete()
    new = [await queue.send_message("new", delay=60), await queue.send_message("new")]

    assert len({*old, *new}) == len(old) + len(new)
    assert await queue.delete_messages(old) == 0
    assert (await queue.get_info()).message_count == 2


async def test_many_messages_that_are_due_at_once_all_come(
    queue: AsyncQueue, harness: Harness
) -> None:
    ids = [await queue.send_message(n, delay=0.2) for n in range(230)]
    await harness.pass_time(0.25)

    messages = await drain(queue, 230)

    assert sorted(m.id for m in messages) == sorted(ids)
    assert (await queue.get_info()).message_count == 0


# --- time to live


async def test_an_expired_message_is_not_handed_out_but_deleted(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("a", ttl_seconds=0.2)
    await queue.send_message("b", ttl_seconds=timedelta(seconds=0.2))
    kept = await queue.send_message("c", ttl_seconds=60)
    await harness.pass_time(0.25)

    assert [m.id for m in await drain(queue, 1)] == [kept]
    assert await queue.get_messages(timeout=0.05) == []
    assert (await queue.get_info()).message_count == 0


async def test_a_message_is_handed_out_while_it_lives(queue: AsyncQueue) -> None:
    await queue.send_message("alive", ttl_seconds=60)

    message = await first(queue)

    assert message.data == "alive"
    assert await queue.acknowledge_messages(message) == 1


async def test_a_message_that_expired_while_it_was_delayed_never_comes(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("late", delay=0.15, ttl_seconds=0.2)
    await harness.pass_time(0.25)

    assert await queue.get_messages(timeout=0.05) == []
    assert (await queue.get_info()).message_count == 0


async def test_a_message_that_expired_before_its_lease_ended_never_comes_again(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=0.9)
    other = harness.client().queue("short")
    await queue.send_message("held", ttl_seconds=0.8)
    [held] = await queue.get_messages()
    await harness.pass_time(1.0)

    assert await other.get_messages(timeout=0.1) == []

    async def gone() -> bool:
        assert await other.get_messages() == []
        return (await other.get_info()).message_count == 0

    await eventually(gone, within=5)
    assert await queue.acknowledge_messages(held) == 0


async def test_an_expired_message_never_comes_whatever_was_done_with_it(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(Outgoing(n, ttl_seconds=1.0) for n in range(4))
    messages = {m.data: m for m in await queue.get_messages()}
    assert await queue.retry_messages(messages[0]) == 1
    assert await queue.retry_messages(messages[1], delay=0.6) == 1
    assert await queue.release_messages(messages[2]) == 1
    assert await queue.move_to_dlq(messages[3]) == 1
    await harness.pass_time(1.1)

    assert await queue.get_messages(timeout=0.05) == []
    assert (await queue.get_info()).message_count == 0
    [dead] = await queue.dlq.get_messages()  # dead letters do not expire
    assert await queue.dlq.requeue_messages(dead) == 1
    assert [m.data for m in await queue.get_messages()] == [3]


async def test_a_receive_that_waits_is_not_handed_what_has_expired(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=0.9)
    await queue.send_message("held", ttl_seconds=0.8)
    [held] = await queue.get_messages()
    other = harness.client().queue("short")
    waiting = asyncio.create_task(other.get_messages(timeout=1.2))  # past the lease's end

    assert await waiting == []
    assert held.data == "held"

    async def gone() -> bool:  # a receive that was held up ends before it looked again
        assert await other.get_messages() == []
        return (await other.get_info()).message_count == 0

    await eventually(gone, within=5)


@pytest.mark.on(*IN_ORDER)
async def test_one_receive_after_the_other_never_hands_out_what_has_expired(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("before")
    await queue.send_message("between", ttl_seconds=0.2)
    await queue.send_message("too late", ttl_seconds=0.2)
    await queue.send_message("after")
    [before] = await queue.get_messages(1)
    await harness.pass_time(0.25)
    [after] = await queue.get_messages(1)

    assert (before.data, after.data) == ("before", "after")
    assert await queue.get_messages() == []
    await queue.acknowledge_messages([before, after])
    assert (await queue.get_info()).message_count == 0


async def test_expired_messages_are_deleted_and_counted_on_demand(
    mq: Client, harness: Harness
) -> None:
    orders, mails = mq.queue("orders"), mq.queue("mails")
    assert await mq.process_expired_messages() == 0
    await orders.send_messages(range(3))
    for _ in range(4):
        await orders.send_message("short", ttl_seconds=0.2)
        await mails.send_message("short", ttl_seconds=0.2)
    await orders.send_message("long", ttl_seconds=60)
    await orders.send_message("delayed", ttl_seconds=60, delay=30)
    await harness.pass_time(0.25)

    assert await mq.process_expired_messages() == 8
    assert await mq.process_expired_messages() == 0
    assert (await orders.get_info()).message_count == 5
    assert (await mails.get_info()).message_count == 0
    got = [m.data for m in await drain(orders, 4)]
    assert harness.in_order(got, key=str) == [0, 1, 2, "long"]


async def test_deleting_expired_messages_spares_what_is_held(
    queue: AsyncQueue, mq: Client, harness: Harness
) -> None:
    await queue.send_message("held", ttl_seconds=1.0)
    held = await first(queue)
    await queue.send_message("given back", ttl_seconds=1.0)
    await queue.release_messages(await first(queue))
    await harness.pass_time(1.1)

    assert await mq.process_expired_messages() == 1
    assert await queue.extend_messages(held) == 1
    assert await queue.acknowledge_messages(held) == 1
    assert (await queue.get_info()).message_count == 0


# --- what cannot be


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "empty key": ({"key": ""}, MessageError, "key is empty"),
    "empty message_id": ({"message_id": ""}, MessageError, "message_id is empty"),
    "empty dedup_id": ({"dedup_id": ""}, MessageError, "dedup_id is empty"),
    "key of bytes": ({"key": b"k"}, TypeError, "key must be a str, not bytes"),
    "key a number": ({"key": 7}, TypeError, "key must be a str, not int"),
    "message_id a number": ({"message_id": 7}, TypeError, "message_id must be a str"),
    "dedup_id a number": ({"dedup_id": 7}, TypeError, "dedup_id must be a str"),
    "long key": ({"key": "x" * 1025}, MessageError, r"key has 1025 bytes.*1024"),
    "long message_id": ({"message_id": "é" * 513}, MessageError, "message_id has 1026 bytes"),
    "long dedup_id": ({"dedup_id": "x" * 1025}, MessageError, "dedup_id has 1025 bytes"),
    "no text": ({"key": "\ud800"}, MessageError, "lone surrogate"),
    "headers a list": ({"headers": [1]}, TypeError, "headers must be a mapping, not list"),
    "headers a text": ({"headers": "a"}, TypeError, "headers must be a mapping, not str"),
    "header of bytes": ({"headers": {b"a": 1}}, TypeError, "names of headers must be str"),
    "header no JSON": ({"headers": {"a": object()}}, MessageError, "headers.*not JSON"),
    "header no text": ({"headers": {"a": "\ud800"}}, MessageError, "headers.*not JSON"),
    "huge headers": ({"headers": {"a": "x" * 16_384}}, MessageError, r"headers have 16,392 bytes"),
    "negative ttl": ({"ttl_seconds": -1}, MessageError, "ttl_seconds is -1"),
    "no ttl": ({"ttl_seconds": 0}, MessageError, "ttl_seconds is 0"),
    "ttl NaN": ({"ttl_seconds": math.nan}, MessageError, "ttl_seconds is nan"),
    "ttl endless": ({"ttl_seconds": math.inf}, MessageError, "ttl_seconds is inf.*hundred years"),
    "ttl beyond floats": ({"ttl_seconds": 10**400}, MessageError, "hundred years"),
    "ttl a bool": ({"ttl_seconds": True}, TypeError, "ttl_seconds must be .* not bool"),
    "ttl a text": ({"ttl_seconds": "5"}, TypeError, "ttl_seconds must be .* not str"),
    "ttl a datetime": ({"ttl_seconds": datetime.now(UTC)}, TypeError, "ttl_seconds must be"),
    "negative delay": ({"delay": -0.5}, MessageError, "delay is -0.5"),
    "negative timedelta": ({"delay": timedelta(seconds=-1)}, MessageError, "delay is -1 day"),
    "delay NaN": ({"delay": math.nan}, MessageError, "delay is nan"),
    "delay endless": ({"delay": math.inf}, MessageError, "delay is inf.*hundred years"),
    "delay beyond floats": ({"delay": -(10**400)}, MessageError, "cannot be negative"),
    "delay a bool": ({"delay": False}, TypeError, "delay must be .* not bool"),
    "delay a text": ({"delay": "5"}, TypeError, "delay must be .* not str"),
    "naive datetime": ({"delay": datetime(2050, 1, 1)}, MessageError, "without a time zone"),
    "far datetime": (
        {"delay": datetime(9999, 1, 1, tzinfo=UTC)}, MessageError, "hundred years"
    ),
    "ttl before delay": ({"ttl_seconds": 5, "delay": 10}, MessageError, "ttl_seconds=5 ends"),
    "ttl at delay": ({"ttl_seconds": 5, "delay": 5}, MessageError, "ttl_seconds=5 ends before"),
    "ttl before datetime": (
        {"ttl_seconds": 5, "delay": datetime.now(UTC) + timedelta(days=1)},
        MessageError,
        "ttl_seconds=5 ends before",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
@pytest.mark.on("memory", "redis")
async def test_options_that_cannot_be_are_refused_and_nothing_is_stored(
    queue: AsyncQueue, case: str
) -> None:
    options, kind, words = BAD[case]

    with pytest.raises(kind, match=words) as refused:
        await queue.send_message("x", **options)

    if isinstance(refused.value, MessageError):
        assert refused.value.queue == "orders"
    assert (await queue.get_info()).message_count == 0
    assert await queue.get_messages() == []


async def test_expired_messages_that_wait_for_a_retry_are_deleted_on_demand(
    queue: AsyncQueue, mq: Client, harness: Harness
) -> None:
    await queue.send_messages([Outgoing(n, ttl_seconds=1.0) for n in range(3)])
    await queue.send_message("stays", ttl_seconds=60, delay=50)
    await queue.retry_messages(await queue.get_messages(), delay=50)
    await harness.pass_time(1.1)

    assert await mq.process_expired_messages() == 3
    assert (await queue.get_info()).delayed_messages == 1
