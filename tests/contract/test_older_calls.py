"""The calls of LeanMQ 0.2.0, which go on working: the same code, on every backend."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from leanmq import AsyncQueue, DeadLetterQueueNotFoundError, QueueError, TransactionError
from tests.contract.harness import Client, Harness, drain


async def test_a_pair_is_made_at_once(mq: Client) -> None:
    queue, dlq = await mq.create_queue_pair("orders")

    assert (queue.name, queue.is_dlq) == ("orders", False)
    assert (dlq.name, dlq.is_dlq) == ("orders", True)
    assert [info.name for info in await mq.list_queues()] == ["orders", "orders"]
    again, _ = await mq.create_queue_pair("orders", create_consumer_group=True)
    assert await again.send_message(1)


async def test_a_queue_that_is_not_there_is_none_and_is_not_made(mq: Client) -> None:
    assert await mq.get_queue("orders") is None
    assert await mq.get_dead_letter_queue("orders") is None
    assert await mq.delete_queue("orders") is False
    assert await mq.list_queues() == []

    await mq.create_queue_pair("orders")
    queue = await mq.get_queue("orders")
    assert queue
    await queue.send_message("tea")
    assert [message.data for message in await queue.get_messages(timeout=5)] == ["tea"]


async def test_a_queue_is_named_shortly_or_in_full_or_by_itself(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_message(1)
    [info, dead] = await mq.list_queues()

    names = (queue.name, queue.key, queue, info)
    found = [await mq.get_queue(name) for name in names]
    dlqs = [await mq.get_dead_letter_queue(name) for name in names]

    assert [one and (one.name, one.is_dlq) for one in found] == [("orders", False)] * 4
    assert [one and (one.name, one.is_dlq) for one in dlqs] == [("orders", True)] * 4
    for name in (dead, queue.dlq, "orders:dlq", queue.dlq.key):
        one = await mq.get_queue(name)
        assert one
        assert (one.name, one.is_dlq) == ("orders", True)
    assert (await mq.update_queue(info, lease=9)).lease == 9
    assert await mq.delete_queue(queue.key) is True


async def test_a_queue_that_ends_in_dlq_is_itself(mq: Client) -> None:
    await mq.create_queue_pair("orders")
    await mq.create_queue_pair("orders:dlq")

    found = await mq.get_queue("orders:dlq")

    assert found
    assert (found.name, found.is_dlq) == ("orders:dlq", False)


async def test_a_queue_with_dead_letters_is_deleted_only_if_that_is_said(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_message(1)
    await queue.move_to_dlq(await queue.get_messages(timeout=5), "why")

    with pytest.raises(QueueError, match="1 dead letters"):
        await mq.delete_queue("orders")
    with pytest.raises(QueueError, match="1 dead letters"):
        await mq.delete_queue("orders", delete_dlq=False)
    assert await mq.delete_queue("orders", delete_dlq=True) is True
    assert await mq.get_queue("orders") is None


async def test_older_words_of_a_send(queue: AsyncQueue) -> None:
    older: Any = queue

    await older.send_message("a", "label", 60)
    await older.send_message("b", ttl=60, message_id="other")
    await older.send_message("c", ttl=60, ttl_seconds=60)

    received = await drain(queue, 3)
    assert {m.data: m.message_id for m in received} == {"a": "label", "b": "other", "c": None}


async def test_a_send_that_says_two_things_is_refused(queue: AsyncQueue) -> None:
    older: Any = queue

    calls: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        (("a", 60), {}, "did you mean ttl_seconds=60"),
        (("a",), {"ttl": 1, "ttl_seconds": 2}, "ttl and ttl_seconds=2 say"),
        (("a",), {"ttl_second": 2}, "did you mean ttl_seconds=?"),
    ]
    for arguments, keywords, problem in calls:
        with pytest.raises(TypeError) as caught:
            await older.send_message(*arguments, **keywords)
        assert problem in str(caught.value)
    assert (await queue.get_info()).message_count == 0


async def test_an_older_ttl_ends(harness: Harness, queue: AsyncQueue) -> None:
    older: Any = queue
    await older.send_message("short", ttl=timedelta(seconds=0.2))
    await queue.send_message("long")

    await harness.pass_time(0.3)

    assert [m.data for m in await queue.get_messages(timeout=5)] == ["long"]


async def test_older_words_of_a_receive(queue: AsyncQueue) -> None:
    older: Any = queue
    await queue.send_messages(range(4))

    for words in (
        {"count": 1, "block_for_seconds": 5},
        {"count": 1, "block_for_seconds": 5, "consumer_id": "worker-1"},
        {"count": 1, "block_for_seconds": None},
        {"count": 1, "block": True, "timeout": 5, "consumer_id": "worker-2"},
    ):
        received = await older.get_messages(**words)
        assert len(received) == 1
        assert await queue.acknowledge_messages([received[0].id]) == 1
    assert await older.get_messages(count=1, block_for_seconds=0) == []
    with pytest.raises(TypeError, match="say different things"):
        await older.get_messages(block_for_seconds=1, timeout=2)
    with pytest.raises(TypeError, match="did you mean timeout="):
        await older.get_messages(time_out=2)


async def test_dead_letters_are_moved_to_the_queue_that_is_named(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_messages([1, 2, 3, 4])
    one, two, three, four = await queue.get_messages(count=4, timeout=5)
    dlq = await mq.get_dead_letter_queue(queue.name)

    assert await queue.move_to_dlq([one.id], "why", dlq) == 1
    assert await queue.move_to_dlq([two.id], "why", queue.dlq) == 1
    assert await queue.move_to_dlq([three.id], "why", "orders") == 1
    others, others_dlq = await mq.create_queue_pair("others")
    for wrong in (others_dlq, others, queue, "others"):
        with pytest.raises(DeadLetterQueueNotFoundError, match="its own"):
            await queue.move_to_dlq([four.id], "why", wrong)
    assert (await queue.dlq.get_info()).message_count == 3


async def test_dead_letters_go_back_to_the_queue_that_is_named(
    mq: Client, queue: AsyncQueue
) -> None:
    await queue.send_message(1)
    await queue.move_to_dlq(await queue.get_messages(timeout=5), "why")
    [letter] = await queue.dlq.get_messages(timeout=5)

    assert await queue.dlq.requeue_messages([letter.id], queue) == 1
    [again] = await queue.get_messages(timeout=5)
    assert again.id == letter.id
    for name in (queue.key, await queue.get_info()):
        await queue.move_to_dlq(again, "again")
        assert await queue.dlq.requeue_messages(letter.id, name) == 1
        [again] = await queue.get_messages(timeout=5)


async def test_a_transaction_in_older_words(mq: Client, queue: AsyncQueue) -> None:
    tx = mq.transaction()
    tx.send_message(queue, {"n": 1}, "label", 60)
    tx.send_message(queue, {"n": 2}, ttl=60)
    await tx._execute()

    assert {m.data["n"]: m.message_id for m in await drain(queue, 2)} == {1: "label", 2: None}
    with pytest.raises(TransactionError, match="is over"):
        await tx._execute()


async def test_a_transaction_whose_block_raises_sends_nothing(
    mq: Client, queue: AsyncQueue
) -> None:
    async def change_ones_mind() -> None:
        async with mq.transaction() as tx:
            tx.send_message(queue, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await change_ones_mind()

    assert (await queue.get_info()).message_count == 0


async def test_data_of_0_2_0_is_told_once_and_not_touched(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    harness.client()  # not used: memory lasts as long as it has a client
    await harness.make_older_queue("orders")
    before = await harness.older_messages("orders")

    for _ in range(2):
        mq = harness.client()
        queue = mq.queue("orders")
        await queue.send_message("new")
        assert [m.data for m in await drain(queue, 1)] == ["new"]
        assert await mq.delete_queue("orders") is True

    told = [record for record in caplog.records if "0.2.0" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]
    assert "1 queues of LeanMQ 0.2.0" in told[0].getMessage()
    assert len(before) == 1
    assert await harness.older_messages("orders") == before
