"""Settings of a queue: stored with it, agreed by all who open it, changed for all at once."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta
from typing import Any

import pytest

from leanmq import (
    AsyncQueue,
    MessageError,
    QueueFullError,
    QueueNotFoundError,
    QueueSettingsError,
)
from tests.contract.harness import IN_MEMORY, Client, Harness, drain, eventually

bounded = pytest.mark.on("memory", "redis", "sentinel", "cluster", "pass-through")
"""Where ``Capabilities.bounds`` is declared: two queues cannot keep one bound together."""

# Setting: what is stored, another value, and how both are shown.
OTHERS: dict[str, tuple[Any, Any, str, str]] = {
    "lease": (30, timedelta(seconds=45.5), "lease=30", "lease=45.5"),
    "max_deliveries": (3, 0, "max_deliveries=3", "max_deliveries=0"),
    "overflow": ("block", "raise", "overflow='block'", "overflow='raise'"),
    "max_payload_bytes": (1_000, 2_000, "max_payload_bytes=1000", "max_payload_bytes=2000"),
    "dedup_window": (60, 90.25, "dedup_window=60", "dedup_window=90.25"),
    "slot": ("shop", "bank", "slot='shop'", "slot='bank'"),
}
STORED: dict[str, Any] = {name: values[0] for name, values in OTHERS.items()}
DEFAULTS = {
    "lease": 60.0,
    "max_deliveries": 10,
    "max_length": 0,
    "overflow": "raise",
    "max_payload_bytes": 8 * 1024 * 1024,
    "dedup_window": 3600.0,
    "slot": "orders",
}


async def shown(queue: AsyncQueue) -> dict[str, Any]:
    info = await queue.get_info()
    return {name: getattr(info, name) for name in DEFAULTS}


# --- opening


async def test_a_new_queue_has_the_default_settings(queue: AsyncQueue) -> None:
    assert await shown(queue) == DEFAULTS


async def test_opening_without_settings_takes_the_stored_ones(mq: Client, harness: Harness) -> None:
    await mq.queue("orders", **STORED).declare()
    other = harness.client()

    assert await shown(other.queue("orders")) == DEFAULTS | STORED
    await other.queue("orders").send_message("x")
    [info] = [i for i in await other.list_queues() if not i.is_dlq]
    assert {name: getattr(info, name) for name in DEFAULTS} == DEFAULTS | STORED


@bounded
async def test_the_bound_is_stored_and_shown(mq: Client, harness: Harness) -> None:
    await mq.queue("orders", max_length=7).declare()

    assert await shown(harness.client().queue("orders")) == DEFAULTS | {"max_length": 7}
    with pytest.raises(QueueSettingsError, match=r"max_length=7.*asked for max_length=8"):
        await harness.client().queue("orders", max_length=8).declare()


@pytest.mark.parametrize("setting", OTHERS)
async def test_a_setting_that_differs_is_refused_and_both_values_are_shown(
    mq: Client, harness: Harness, setting: str
) -> None:
    await mq.queue("orders", **STORED).declare()
    _, wanted, has, asks = OTHERS[setting]
    other = harness.client()
    handle = other.queue("orders", **{setting: wanted})

    for _ in range(2):
        with pytest.raises(QueueSettingsError) as refused:
            await handle.send_message("x")
        text = str(refused.value)
        assert "'orders'" in text
        assert f"exists with {has}, you asked for {asks}" in text
        assert "update_queue" in text
        assert refused.value.queue == "orders"
    assert await shown(other.queue("orders", **STORED)) == DEFAULTS | STORED
    assert (await other.queue("orders").get_info()).message_count == 0


async def test_of_clients_who_open_at_once_one_decides(harness: Harness) -> None:
    queues = [harness.client().queue("orders", lease=10 + n) for n in range(8)]

    results = await asyncio.gather(*(q.declare() for q in queues), return_exceptions=True)

    assert results.count(None) == 1
    assert sum(isinstance(r, QueueSettingsError) for r in results) == 7
    lease = (await harness.client().queue("orders").get_info()).lease
    assert lease == 10 + results.index(None)


# --- updating


async def test_an_update_changes_what_it_names_and_tells(mq: Client, queue: AsyncQueue) -> None:
    await queue.send_message("x")
    changes = {"lease": 5.5, "overflow": "block", "max_deliveries": 0}

    info = await mq.update_queue("orders", **changes)

    assert {name: getattr(info, name) for name in DEFAULTS} == DEFAULTS | changes
    assert info.message_count == 1
    assert await mq.update_queue("orders", **changes) == info
    more = {"max_payload_bytes": 77, "dedup_window": timedelta(minutes=1)}
    await mq.update_queue("orders", **more)
    assert await shown(queue) == DEFAULTS | changes | more | {"dedup_window": 60.0}


async def test_a_queue_that_does_not_exist_cannot_be_updated(mq: Client) -> None:
    with pytest.raises(QueueNotFoundError, match="'unheard'") as unknown:
        await mq.update_queue("unheard", lease=5)

    assert unknown.value.queue == "unheard"
    assert await mq.list_queues() == []


async def test_an_update_of_nothing_is_refused(mq: Client, queue: AsyncQueue) -> None:
    await queue.declare()

    with pytest.raises(TypeError, match="nothing to update"):
        await mq.update_queue("orders")
    with pytest.raises(TypeError, match="slot"):
        await mq.update_queue("orders", slot="elsewhere")


async def test_a_longer_lease_counts_for_what_is_in_flight(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", lease=1.2)
    other = harness.client().queue("orders")
    await queue.send_messages(["old", "new"])
    [old] = await queue.get_messages(1)
    await harness.client().update_queue("orders", lease=90)
    await harness.pass_time(1.3)

    [new] = await other.get_messages()

    assert harness.in_order([old.data, new.data]) == harness.in_order(["old", "new"])
    assert new.lease_until - time.time() == pytest.approx(90, abs=3)
    assert await other.get_messages(timeout=0.1) == []
    assert await queue.extend_messages(old) == 1


async def test_a_shorter_lease_counts_when_the_old_one_has_run_out_once(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", lease=0.6)
    other = harness.client().queue("orders")
    await queue.send_message("promised")
    before = time.time()
    [message] = await queue.get_messages()
    await harness.client().update_queue("orders", lease=0.1)
    await harness.pass_time(0.2)
    again = await other.get_messages()
    if time.time() - before < 0.6:
        assert again == []
    again = again or await other.get_messages(timeout=10)

    assert [m.id for m in again] == [message.id]
    assert time.time() - before >= 0.59
    assert before + 0.6 < again[0].lease_until < time.time() + 0.3
    assert await queue.acknowledge_messages(message) == 0


@pytest.mark.on(*IN_MEMORY)
async def test_a_lease_made_shorter_twice_still_keeps_the_first_promise(
    mq: Client, harness: Harness
) -> None:
    queue, other = mq.queue("orders", lease=100), harness.client().queue("orders")
    await queue.send_message("promised")
    [message] = await queue.get_messages()
    await mq.update_queue("orders", lease=50)
    await mq.update_queue("orders", lease=10)

    harness.advance(95)
    assert await other.get_messages(timeout=0.1) == []
    harness.advance(6)
    assert [m.id for m in await other.get_messages(timeout=1)] == [message.id]
    harness.advance(11)
    third = harness.client().queue("orders")
    assert [m.id for m in await third.get_messages(timeout=1)] == [message.id]


async def test_max_deliveries_counts_from_its_change_on(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders")
    await queue.send_message("fails")
    for _ in range(2):
        [message] = await queue.get_messages()
        await queue.retry_messages(message)
    await harness.client().update_queue("orders", max_deliveries=3)
    [message] = await queue.get_messages()

    assert message.delivery_count == 3
    assert await queue.retry_messages(message) == 1
    [dead] = await queue.dlq.get_messages()
    assert dead.error is not None
    assert "max_deliveries 3" in dead.error


@bounded
async def test_a_bound_that_changes_is_kept_by_all_producers(mq: Client, harness: Harness) -> None:
    queue, admin = mq.queue("orders"), harness.client()
    await queue.send_messages(range(3))

    await admin.update_queue("orders", max_length=3)
    with pytest.raises(QueueFullError):
        await queue.send_message("x")
    await admin.update_queue("orders", max_length=4)
    await queue.send_message(3)
    with pytest.raises(QueueFullError):
        await queue.send_messages(["x"])
    await admin.update_queue("orders", max_length=2)
    with pytest.raises(QueueFullError):
        await queue.send_message("x")
    await admin.update_queue("orders", max_length=0)
    await queue.send_message(4)

    assert [m.data for m in await drain(queue, 5)] == list(range(5))


@bounded
async def test_a_blocked_sender_follows_a_change_of_overflow(mq: Client, harness: Harness) -> None:
    queue, admin = mq.queue("orders", max_length=1), harness.client()
    await queue.send_message("x")
    with pytest.raises(QueueFullError):
        await queue.send_message("refused")

    await admin.update_queue("orders", overflow="block")
    sending = asyncio.create_task(queue.send_message("waits"))
    done, _ = await asyncio.wait([sending], timeout=0.1)
    assert not done
    await admin.update_queue("orders", overflow="raise")
    with pytest.raises(QueueFullError):
        await asyncio.wait_for(sending, 10)

    await admin.update_queue("orders", overflow="block")
    sending = asyncio.create_task(queue.send_message("gets in"))
    await admin.update_queue("orders", max_length=2)
    await asyncio.wait_for(sending, 10)
    assert sorted(m.data for m in await drain(queue, 2)) == ["gets in", "x"]


async def test_a_payload_limit_is_followed_by_clients_that_knew_another(
    mq: Client, harness: Harness
) -> None:
    queue, admin = mq.queue("orders"), harness.client()
    large = "x" * 998
    await queue.send_message(large)

    await admin.update_queue("orders", max_payload_bytes=999)
    with pytest.raises(MessageError, match=r"1,000 bytes, max_payload_bytes is 999"):
        await queue.send_message(large)
    with pytest.raises(MessageError, match=r"item 1 .*1,000 bytes"):
        await queue.send_messages([1, large])
    await queue.send_message("small")
    await admin.update_queue("orders", max_payload_bytes=1_000)
    await queue.send_message(large)
    await queue.send_messages([large])

    assert (await queue.get_info()).message_count == 4


async def test_a_dedup_window_counts_for_sends_after_its_change(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders")
    long = await queue.send_message("long", dedup_id="long")
    await harness.client().update_queue("orders", dedup_window=0.3)
    short = await queue.send_message("short", dedup_id="short")
    await harness.pass_time(0.35)

    assert await queue.send_message("again", dedup_id="long") == long
    assert await queue.send_message("again", dedup_id="short") != short


async def test_producers_and_consumers_at_work_notice_nothing_of_updates(
    harness: Harness,
) -> None:
    admin = harness.client()
    await admin.queue("orders").declare()
    producers = [harness.client().queue("orders") for _ in range(2)]
    consumers = [harness.client().queue("orders") for _ in range(2)]
    stop, produced = asyncio.Event(), asyncio.Event()
    sent: list[str] = []
    got: list[str] = []

    async def produce(queue: AsyncQueue) -> None:
        while not stop.is_set():
            sent.append(await queue.send_message("one"))
            sent.extend(await queue.send_messages(["many"] * 3))

    async def produce_all() -> None:
        await asyncio.gather(*map(produce, producers))
        produced.set()

    async def consume(queue: AsyncQueue) -> None:
        while not produced.is_set() or (await queue.get_info()).message_count:
            messages = await queue.get_messages(5, timeout=0.05)
            assert await queue.acknowledge_messages(messages) == len(messages)
            got.extend(m.id for m in messages)

    async def update() -> None:
        for n in range(8):
            await admin.update_queue("orders", lease=40 + n, dedup_window=50 + n)
            await admin.update_queue("orders", max_payload_bytes=1_000 + n, max_deliveries=n)
            await eventually(more_than(got, len(got)), within=10)
        stop.set()

    tasks = [produce_all(), *map(consume, consumers), update()]
    await asyncio.wait_for(asyncio.gather(*tasks), 30)

    assert len(got) == len(set(got))
    assert sorted(got) == sorted(sent)


def more_than(got: list[str], number: int) -> Any:
    async def reached() -> bool:
        return len(got) > number

    return reached


async def test_a_handle_with_old_settings_works_on_and_new_clients_are_refused(
    mq: Client, harness: Harness
) -> None:
    old = mq.queue("orders", lease=20, max_payload_bytes=500)
    await old.send_message(1)
    await harness.client().update_queue("orders", lease=30)

    await old.send_message(2)
    await old.send_messages([3])
    messages = await old.get_messages()
    assert await old.acknowledge_messages(messages) == 3
    assert messages[0].lease_until - time.time() == pytest.approx(30, abs=3)
    assert (await old.get_info()).lease == 30
    with pytest.raises(QueueSettingsError, match=r"lease=30, you asked for lease=20"):
        await harness.client().queue("orders", lease=20).send_message("x")
    await harness.client().queue("orders", lease=30).send_message("new")
    await mq.queue("orders", lease=30).send_message("new, by the client that knew the old one")
    assert (await old.get_info()).message_count == 2


async def test_a_client_compares_with_what_is_stored_now(mq: Client, harness: Harness) -> None:
    await mq.queue("orders", lease=20).declare()
    await harness.client().update_queue("orders", lease=30)

    with pytest.raises(QueueSettingsError, match=r"lease=30, you asked for lease=40"):
        await mq.queue("orders", lease=40).declare()


# --- payload limit


async def test_a_payload_at_the_limit_is_sent_and_one_byte_more_is_not(mq: Client) -> None:
    queue = mq.queue("orders", max_payload_bytes=100)
    await queue.send_message("é" * 49)
    await queue.send_messages(["x" * 98, "y" * 98])

    with pytest.raises(MessageError, match=r"'orders' has 101 bytes, max_payload_bytes is 100"):
        await queue.send_message("x" * 99)
    with pytest.raises(MessageError, match="102 bytes"):
        await queue.send_message("é" * 50)

    assert {m.data for m in await drain(queue, 3)} == {"é" * 49, "x" * 98, "y" * 98}
    assert (await queue.get_info()).message_count == 0


async def test_eight_mebibytes_is_the_limit_unless_told(queue: AsyncQueue) -> None:
    most = 8 * 1024 * 1024
    largest = "x" * (most - 2)
    await queue.send_message(largest)

    with pytest.raises(MessageError, match=r"8,388,609 bytes, max_payload_bytes is 8,388,608"):
        await queue.send_message(largest + "x")

    [message] = await queue.get_messages()
    assert message.data == largest
    assert await queue.acknowledge_messages(message) == 1


# --- slot


async def test_queues_of_one_slot_have_their_keys_under_its_tag(
    mq: Client, harness: Harness
) -> None:
    for name in ("orders", "mails"):
        queue = mq.queue(name, slot="shop")
        await queue.send_message(name, dedup_id="a")
        assert (await queue.get_info()).slot == "shop"
        keys = await harness.keys(name, slot="shop")
        assert len(keys) == 11 * len(harness.stored(name)) + (harness.router != "hash")
        tag = "{shop#" if harness.router == "hash" else "{shop}"
        assert all(tag in key for key in keys if not key.endswith(":queues"))
        assert len(await harness.keys(name)) == (harness.router != "hash")  # the registry

    other = harness.client()  # that knows of no slot
    for name in ("orders", "mails"):
        await other.queue(name).send_message("more")
        assert {m.data for m in await drain(other.queue(name), 2)} == {name, "more"}
        assert (await other.queue(name).get_info()).slot == "shop"
    assert await other.queue("orders").delete()
    assert len(await harness.keys("orders", slot="shop")) == (harness.router != "hash")
    assert len(await harness.keys("mails", slot="shop")) == len(keys)


async def test_a_slot_may_be_called_like_another_queue(mq: Client) -> None:
    await mq.queue("shop").send_message("shop")
    await mq.queue("orders", slot="shop").send_message("orders")

    assert [m.data for m in await drain(mq.queue("shop"), 1)] == ["shop"]
    assert [m.data for m in await drain(mq.queue("orders"), 1)] == ["orders"]


async def test_a_deleted_queue_may_come_again_in_another_slot(mq: Client, harness: Harness) -> None:
    other = harness.client().queue("orders")
    await mq.queue("orders", slot="shop").send_message("old")
    await other.send_message("old, too")
    await mq.queue("orders").delete()
    await mq.queue("orders", slot="bank").send_message("new")

    await other.send_message("new, too")

    assert {m.data for m in await drain(mq.queue("orders"), 2)} == {"new", "new, too"}
    assert (await other.get_info()).slot == "bank"


# --- what cannot be

WRONG: dict[str, tuple[str, Any, type[Exception]]] = {
    "lease nothing": ("lease", 0, ValueError),
    "lease negative": ("lease", -1, ValueError),
    "lease NaN": ("lease", math.nan, ValueError),
    "lease endless": ("lease", math.inf, ValueError),
    "lease beyond floats": ("lease", 10**400, ValueError),
    "lease too long": ("lease", timedelta(days=31), ValueError),
    "lease a text": ("lease", "60", TypeError),
    "lease a bool": ("lease", True, TypeError),
    "max_deliveries negative": ("max_deliveries", -1, ValueError),
    "max_deliveries huge": ("max_deliveries", 10**7, ValueError),
    "max_deliveries a float": ("max_deliveries", 3.0, TypeError),
    "max_deliveries a bool": ("max_deliveries", False, TypeError),
    "max_length negative": ("max_length", -1, ValueError),
    "max_length a text": ("max_length", "5", TypeError),
    "max_length a bool": ("max_length", True, TypeError),
    "overflow unknown": ("overflow", "drop", ValueError),
    "overflow a bool": ("overflow", True, ValueError),
    "overflow a list": ("overflow", ["raise"], ValueError),
    "max_payload_bytes nothing": ("max_payload_bytes", 0, ValueError),
    "max_payload_bytes huge": ("max_payload_bytes", 2**30, ValueError),
    "max_payload_bytes a float": ("max_payload_bytes", 1e3, TypeError),
    "dedup_window nothing": ("dedup_window", 0, ValueError),
    "dedup_window too long": ("dedup_window", 31 * 86_400, ValueError),
    "dedup_window a text": ("dedup_window", "1h", TypeError),
    "slot empty": ("slot", "", ValueError),
    "slot with a brace": ("slot", "a}b", ValueError),
    "slot a number": ("slot", 7, TypeError),
}


@pytest.mark.on("memory", "redis")
@pytest.mark.parametrize("case", WRONG)
async def test_a_setting_that_cannot_be_is_refused_by_its_name(mq: Client, case: str) -> None:
    setting, value, kind = WRONG[case]
    await mq.queue("orders").declare()

    with pytest.raises(kind, match=setting):
        mq.queue("new", **{setting: value})
    if setting != "slot":
        with pytest.raises(kind, match=setting):
            await mq.update_queue("orders", **{setting: value})

    assert await shown(mq.queue("orders")) == DEFAULTS
    assert [info.name for info in await mq.list_queues() if not info.is_dlq] == ["orders"]
