"""Making, opening, counting and deleting queues."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from leanmq import AsyncQueue, QueueError, QueueSettingsError
from leanmq.backends.protocol import Capabilities
from tests.contract.harness import Client, Harness


async def test_a_queue_satisfies_the_protocol(queue: AsyncQueue) -> None:
    assert isinstance(queue, AsyncQueue)
    assert isinstance(queue.dlq, AsyncQueue)
    assert queue.name == "orders"


async def test_information_counts_messages_by_state(queue: AsyncQueue) -> None:
    await queue.send_messages(range(6))
    leased = await queue.get_messages(3)
    await queue.retry_messages(leased[0], delay=60)
    await queue.move_to_dlq(leased[1], "why")

    info = await queue.get_info()
    dead = await queue.dlq.get_info()

    assert (info.name, info.is_dlq, dead.name, dead.is_dlq) == ("orders", False, "orders", True)
    assert info.message_count == 5
    assert info.ready_messages == 3
    assert info.pending_messages == 1
    assert info.delayed_messages == 1
    assert (dead.message_count, dead.ready_messages) == (1, 1)
    assert info.consumer_group
    assert abs(info.created_at - time.time()) < 60


async def test_declaring_twice_is_declaring_once(queue: AsyncQueue, harness: Harness) -> None:
    await queue.send_message("kept")
    created = (await queue.get_info()).created_at

    await queue.declare()
    await harness.client().queue("orders").declare()

    info = await queue.get_info()
    assert (info.message_count, info.created_at) == (1, created)


async def test_settings_are_stored_with_the_queue(mq: Client, harness: Harness) -> None:
    await mq.queue("q", lease=timedelta(seconds=7), max_deliveries=4).declare()

    info = await harness.client().queue("q").get_info()
    assert (info.lease, info.max_deliveries) == (7.0, 4)
    await harness.client().queue("q", lease=7).declare()
    await harness.client().queue("q", max_deliveries=4).declare()


async def test_a_new_queue_has_the_default_settings(queue: AsyncQueue) -> None:
    info = await queue.get_info()

    assert (info.lease, info.max_deliveries) == (60.0, 10)


async def test_other_settings_than_the_stored_ones_are_refused(
    mq: Client, harness: Harness
) -> None:
    await mq.queue("q", lease=7).declare()

    for client in (mq, harness.client()):
        with pytest.raises(QueueSettingsError, match=r"'q'.*lease=7.*lease=8"):
            await client.queue("q", lease=8).send_message("x")
        with pytest.raises(QueueSettingsError, match=r"max_deliveries=10.*max_deliveries=3"):
            await client.queue("q", max_deliveries=3).declare()

    assert (await mq.queue("q").get_info()).message_count == 0


async def test_a_deleted_queue_is_gone_with_its_messages(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", lease=7)
    await queue.send_messages(range(3))
    await queue.retry_messages(await queue.get_messages(1), delay=60)

    assert await queue.delete() is True
    assert await queue.delete() is False

    assert await harness.keys() == []
    fresh = harness.client().queue("orders", lease=9)
    assert await fresh.get_messages() == []
    assert (await fresh.get_info()).lease == 9.0


async def test_a_queue_with_dead_letters_is_not_deleted_by_accident(queue: AsyncQueue) -> None:
    await queue.send_messages(range(2))
    await queue.move_to_dlq(await queue.get_messages(1), "why")

    with pytest.raises(QueueError, match="1 dead letter"):
        await queue.delete()
    with pytest.raises(QueueError, match="cannot be deleted alone"):
        await queue.dlq.delete()
    assert (await queue.get_info()).message_count == 1

    assert await queue.delete(delete_dlq=True) is True
    assert (await queue.dlq.get_info()).message_count == 0


async def test_the_backend_answers_and_tells_what_it_can(mq: Client, harness: Harness) -> None:
    await mq.ping()

    capabilities = await mq.open()

    found = {
        field: getattr(capabilities, field)
        for field in ("durable", "shared", "ordered", "transactions_across_queues", "sequences")
    }
    expected = dict.fromkeys(found, True)
    if not harness.topologies:
        expected |= {"durable": False, "shared": False}
    if harness.router:
        expected |= {"ordered": False, "sequences": harness.router == "hash"}
    if harness.subject == "cluster" or harness.router == "hash":
        expected |= {"transactions_across_queues": False}
    assert isinstance(capabilities, Capabilities)
    assert found == expected
    assert capabilities.max_batch == 1_000
    if not harness.router:
        assert capabilities.best_batch == 500


async def test_a_queue_is_named_in_its_representation_and_secrets_are_not(
    mq: Client, queue: AsyncQueue
) -> None:
    assert "orders" in repr(queue)
    assert "password" not in repr(mq)


# Validation only.


@pytest.mark.parametrize(
    "name", ["", "a b", "a}b", "{a}", "a*", "a\n", "ž", "x" * 201, "#"], ids=ascii
)
async def test_a_name_that_cannot_be_a_queue_is_refused(mq: Client, name: str) -> None:
    with pytest.raises(ValueError, match="queue name"):
        mq.queue(name)


@pytest.mark.parametrize("count", [0, -1, 1_001])
async def test_a_count_out_of_range_is_refused(queue: AsyncQueue, count: int) -> None:
    with pytest.raises(ValueError, match="count is"):
        await queue.get_messages(count)


@pytest.mark.parametrize("seconds", [-1, float("nan"), timedelta(seconds=-1)])
async def test_durations_are_never_negative(
    queue: AsyncQueue, mq: Client, seconds: float | timedelta
) -> None:
    with pytest.raises(ValueError, match="timeout"):
        await queue.get_messages(timeout=seconds)
    with pytest.raises(ValueError, match="delay"):
        await queue.retry_messages("1-1", delay=seconds)
    with pytest.raises(ValueError, match="lease"):
        mq.queue("q", lease=seconds)


async def test_what_is_no_message_is_refused(queue: AsyncQueue) -> None:
    with pytest.raises(TypeError, match="message ids or messages"):
        await queue.acknowledge_messages([7])  # type: ignore[list-item]
