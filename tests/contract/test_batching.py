"""Sending in the background: what goes when, in which order, and what futures tell."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from typing import Any

import pytest

from leanmq import (
    AsyncQueue,
    BufferFullError,
    ClosedError,
    Message,
    MessageError,
    NotSentError,
    QueueFullError,
    QueueSettingsError,
)
from leanmq.backends.protocol import SendBatch
from tests.contract.harness import IN_ORDER, Client, Harness, drain
from tests.contract.shop import keeps_bounds

LONG = 600.0
"""Seconds of lingering that no test would wait for."""


async def count(queue: AsyncQueue) -> int:
    return (await queue.get_info()).message_count


async def send_all(producer: Any, items: Iterable[Any], **options: Any) -> list[Any]:
    """Hand over all of them; their futures."""
    return [await producer.send_message(item, **options) for item in items]


async def ids_of(futures: Iterable[Any]) -> list[str]:
    async with asyncio.timeout(30):
        return [await future for future in futures]


async def outcomes_of(futures: Iterable[Any]) -> list[Any]:
    """Ids, and errors as values."""
    async with asyncio.timeout(30):
        return await asyncio.gather(*futures, return_exceptions=True)


class Gate:
    """Holds sends back until it is opened, so that a test can hand over everything first.

    Needed in the sync world alone: a task that hands over messages lets no other run.
    """

    def __init__(self, harness: Harness) -> None:
        self._open = threading.Event()
        self.batches: list[SendBatch] = []
        if harness.world == "asyncio":
            self._open.set()

    def __call__(self, batch: SendBatch) -> None:
        assert self._open.wait(30)
        self.batches.append(batch)

    def open(self) -> None:
        self._open.set()


# --- what is stored


async def test_ids_are_those_of_the_messages_in_the_order_of_sending(
    queue: AsyncQueue, mq: Client
) -> None:
    async with queue.batching() as producer:
        futures = await send_all(producer, range(1_700), key="k")
    ids = await ids_of(futures)

    messages = await drain(queue, 1_700)

    assert {m.id: m.data for m in messages} == dict(zip(ids, range(1_700), strict=True))
    assert {m.key for m in messages} == {"k"}
    if (await mq.open()).ordered:
        assert [m.data for m in messages] == list(range(1_700))


async def test_messages_of_one_key_keep_their_order_among_those_of_others(
    queue: AsyncQueue, mq: Client
) -> None:
    async with queue.batching(max_batch=7, linger=0) as producer:
        for n in range(200):
            await producer.send_message(n, key=f"key {n % 5}")

    messages = await drain(queue, 200)

    by_key: dict[str | None, list[int]] = {}
    for message in messages:
        by_key.setdefault(message.key, []).append(message.data)
    assert {key: sorted(data) for key, data in by_key.items()} == {
        f"key {k}": list(range(k, 200, 5)) for k in range(5)
    }
    if (await mq.open()).ordered:
        assert all(data == sorted(data) for data in by_key.values())


async def test_a_message_comes_with_all_that_it_was_sent_with(queue: AsyncQueue) -> None:
    async with queue.batching() as producer:
        plain = await producer.send_message({"n": 1})
        rich = await producer.send_message(
            {"n": 2}, key="k", headers={"h": [1]}, message_id="mine", ttl_seconds=60, dedup_id="d"
        )
        again = await producer.send_message({"n": 3}, key="k", dedup_id="d")
        later = await producer.send_message({"n": 4}, delay=60)
    ids = await ids_of([plain, rich, again, later])

    messages = {m.id: m for m in await drain(queue, 2)}

    assert messages[ids[0]].data == {"n": 1}
    second = messages[ids[1]]
    assert (second.data, second.key, second.headers) == ({"n": 2}, "k", {"h": [1]})
    assert second.message_id == "mine"
    assert ids[2] == ids[1]
    [delayed] = await queue.peek_messages(ids=ids[3])
    assert (delayed.data, delayed.state) == ({"n": 4}, "delayed")


async def test_dead_letters_can_be_sent_in_the_background_too(queue: AsyncQueue) -> None:
    async with queue.dlq.batching() as producer:
        futures = await send_all(producer, range(3))

    assert len(set(await ids_of(futures))) == 3
    assert (await count(queue), await count(queue.dlq)) == (0, 3)


async def test_a_payload_may_be_changed_once_the_call_has_returned(queue: AsyncQueue) -> None:
    payload = {"n": 0}
    async with queue.batching(linger=LONG) as producer:
        for n in range(3):
            payload["n"] = n
            await producer.send_message(payload)

    assert sorted(m.data["n"] for m in await drain(queue, 3)) == [0, 1, 2]


async def test_producers_at_once_store_all_that_is_theirs(harness: Harness) -> None:
    queues = [harness.client().queue("orders") for _ in range(4)]

    async def produce(number: int) -> list[str]:
        async with queues[number].batching(linger=0, max_batch=20) as producer:
            return await ids_of(await send_all(producer, range(number * 100, number * 100 + 100)))

    ids = await asyncio.gather(*map(produce, range(4)))

    messages = await drain(queues[0], 400)
    assert {m.id: m.data for m in messages} == dict(
        zip([one for some in ids for one in some], range(400), strict=True)
    )


# --- when a batch goes


async def test_a_message_waits_for_others_no_longer_than_told(queue: AsyncQueue) -> None:
    async with queue.batching(linger=0.05) as producer:
        for n in range(3):
            future = await producer.send_message(n)
            assert await ids_of([future])

    assert await count(queue) == 3


@pytest.mark.on(*IN_ORDER)  # elsewhere each shard has batches of its own
@pytest.mark.parametrize(
    "limits", [{"max_batch": 10}, {"max_bytes": 1_000}], ids=["messages", "bytes"]
)
async def test_a_batch_that_is_full_goes_at_once(harness: Harness, limits: dict[str, Any]) -> None:
    gate = Gate(harness)
    queue = harness.watched(gate).queue("orders")
    async with queue.batching(linger=LONG, **limits) as producer:
        futures = await send_all(producer, ["x" * 98] * 25)
        gate.open()
        await ids_of(futures[:20])
        assert not any(future.done() for future in futures[20:])

    assert len(set(await ids_of(futures))) == 25
    assert [len(batch.messages) for batch in gate.batches] == [10, 10, 5]


async def test_flush_sends_at_once_what_was_handed_over_and_waits_for_it(
    queue: AsyncQueue,
) -> None:
    async with queue.batching(linger=LONG) as producer:
        await producer.flush()  # nothing yet
        for _ in range(3):
            futures = await send_all(producer, range(20))
            assert not any(future.done() for future in futures)
            await producer.flush()
            await asyncio.sleep(0)  # futures of other threads tell a loop on its next turn
            assert all(future.done() for future in futures)
            assert producer.buffered == 0
        await producer.flush(timeout=0)

    assert await count(queue) == 60


async def test_a_message_whose_future_is_cancelled_before_its_batch_goes_is_left_out(
    queue: AsyncQueue,
) -> None:
    async with queue.batching(linger=LONG) as producer:
        futures = await send_all(producer, range(6))
        for n in (0, 2, 5):
            assert futures[n].cancel()
        await asyncio.sleep(0)  # other threads hear of it on the loop's next turn
        await producer.flush()
        all_cancelled = await send_all(producer, "ab")
        for future in all_cancelled:
            future.cancel()
        await asyncio.sleep(0)
        await producer.flush()
        assert producer.buffered == 0

    ids = await ids_of(futures[n] for n in (1, 3, 4))
    assert all(future.cancelled() for future in all_cancelled)
    assert {m.id: m.data for m in await drain(queue, 3)} == dict(zip(ids, (1, 3, 4), strict=True))
    assert await count(queue) == 0


# --- errors


class Sour:
    """No JSON."""


@pytest.mark.in_detail
@pytest.mark.parametrize(
    ("data", "options", "kind", "words"),
    [
        (Sour(), {}, MessageError, "Sour.*not JSON"),
        (Sour(), {"key": "k"}, MessageError, "Sour.*not JSON"),
        (1, {"ttl_seconds": -1}, MessageError, "ttl_seconds is -1"),
        (1, {"key": 7}, TypeError, "key must be a str"),
        (1, {"kye": "k"}, TypeError, "kye"),
    ],
    ids=["no-JSON", "no-JSON-with-key", "option", "key", "spelling"],
)
async def test_what_cannot_be_sent_is_refused_in_the_call(
    queue: AsyncQueue, data: Any, options: Any, kind: type[Exception], words: str
) -> None:
    async with queue.batching() as producer:
        with pytest.raises(kind, match=words) as refused:
            await producer.send_message(data, **options)
        assert getattr(refused.value, "queue", "orders") == "orders"
        assert producer.buffered == 0
        assert await ids_of([await producer.send_message("fine")])

    assert await count(queue) == 1


async def test_a_payload_that_is_too_large_fails_alone(mq: Client) -> None:
    queue = mq.queue("orders", max_payload_bytes=100)
    async with queue.batching(linger=LONG) as producer:
        items = [0, "x" * 200, 2, "y" * 300, 4]
        outcomes = await outcomes_of(await flushed(producer, items, key="k"))
        [alone] = await outcomes_of(await flushed(producer, ["z" * 400], key="k"))
        [after] = await outcomes_of(await flushed(producer, [5], key="k"))

    assert isinstance(outcomes[1], MessageError)
    assert "202 bytes, max_payload_bytes is 100" in str(outcomes[1])
    assert "302 bytes" in str(outcomes[3])
    assert isinstance(alone, MessageError)
    messages = {m.id: m.data for m in await drain(queue, 4)}
    assert messages == {outcomes[0]: 0, outcomes[2]: 2, outcomes[4]: 4, after: 5}


async def flushed(producer: Any, items: Iterable[Any], **options: Any) -> list[Any]:
    futures = await send_all(producer, items, **options)
    await producer.flush()
    return futures


async def test_a_limit_that_was_raised_by_another_client_is_followed(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", max_payload_bytes=100)
    async with queue.batching() as producer:
        await ids_of([await producer.send_message("small")])
        await harness.client().update_queue("orders", max_payload_bytes=1_000)
        await ids_of([await producer.send_message("x" * 500)])
        await harness.client().update_queue("orders", max_payload_bytes=50)
        [refused] = await outcomes_of([await producer.send_message("x" * 500)])

    assert isinstance(refused, MessageError)
    assert await count(queue) == 2


async def test_an_error_of_the_queue_reaches_the_futures(mq: Client, harness: Harness) -> None:
    await harness.client().queue("orders", lease=7).declare()
    async with mq.queue("orders", lease=8).batching() as producer:
        outcomes = await outcomes_of(await send_all(producer, range(3)))

    assert [type(outcome) for outcome in outcomes] == [QueueSettingsError] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3, "one error was raised for several"
    assert await count(harness.client().queue("orders")) == 0


async def test_a_queue_that_vanished_is_made_again(queue: AsyncQueue, harness: Harness) -> None:
    async with queue.batching() as producer:
        await ids_of([await producer.send_message("before")])
        await harness.wipe("orders")
        ids = await ids_of(await send_all(producer, range(3)))

    assert {m.id: m.data for m in await drain(queue, 3)} == dict(zip(ids, range(3), strict=True))


# --- bounds


async def bounded(client: Client, room: int, **settings: Any) -> AsyncQueue:
    queue = client.queue("orders", max_length=room, **settings)
    await queue.declare()
    return queue


@keeps_bounds
async def test_a_full_queue_refuses_what_has_no_room_and_no_more(harness: Harness) -> None:
    gate = Gate(harness)
    queue = await bounded(harness.watched(gate), 3)
    async with queue.batching(max_batch=2, linger=LONG) as producer:
        futures = await send_all(producer, range(6))
        gate.open()
        await producer.flush()
        outcomes = await outcomes_of(futures)

    assert [type(outcome) for outcome in outcomes[3:]] == [QueueFullError] * 3
    assert [m.id for m in await drain(queue, 3)] == outcomes[:3]
    assert await count(queue) == 0


@keeps_bounds
async def test_with_keys_nothing_overtakes_what_was_refused(harness: Harness) -> None:
    gate = Gate(harness)
    queue = await bounded(harness.watched(gate), 3)
    async with queue.batching(max_batch=2, linger=LONG) as producer:
        futures = await send_all(producer, range(6), key="k")
        gate.open()
        await producer.flush()
        outcomes = await outcomes_of(futures)
        await drain(queue, 3)
        later = await ids_of(await flushed(producer, ["later"], key="k"))

    assert isinstance(outcomes[3], QueueFullError)
    for behind in outcomes[4:]:
        assert isinstance(behind, NotSentError)
        assert not behind.in_doubt
        assert "'orders'" in str(behind)
        assert "is full" in str(behind)
    assert [len(batch.messages) for batch in gate.batches] == [2, 2, 1]
    assert [m.id for m in await drain(queue, 1)] == later


@keeps_bounds
async def test_a_full_queue_that_blocks_is_waited_for_in_order(mq: Client) -> None:
    queue = await bounded(mq, 3, overflow="block")
    async with queue.batching(max_batch=4) as producer:
        futures = await send_all(producer, range(10), key="k")
        messages: list[Message[Any]] = []
        while len(messages) < 10:
            messages += await drain(queue, 1)
        ids = await ids_of(futures)

    assert [m.data for m in messages] == list(range(10))
    assert [m.id for m in messages] == ids


@keeps_bounds
async def test_a_producer_without_room_waits_and_then_says_so(mq: Client) -> None:
    queue = await bounded(mq, 1, overflow="block")
    async with queue.batching(max_buffered=5, max_block=0.05) as producer:
        futures = await send_all(producer, range(1), key="k")
        await ids_of(futures)
        futures += await send_all(producer, range(1, 6), key="k")
        with pytest.raises(BufferFullError, match=r"'orders' holds 5 of 5 messages") as full:
            await producer.send_message("too many", key="k")
        with pytest.raises(TimeoutError, match="5 messages"):
            await producer.flush(timeout=0.05)
        assert full.value.retryable
        messages = await drain(queue, 6)
        ids = await ids_of(futures)
        [last] = await ids_of([await producer.send_message("last", key="k")])
        messages += await drain(queue, 1)

    assert [m.data for m in messages] == [*range(6), "last"]
    assert [m.id for m in messages] == [*ids, last]


@pytest.mark.parametrize("key", ["k", None])
async def test_a_large_batch_is_stored_whole_and_in_order(
    queue: AsyncQueue, harness: Harness, key: str | None
) -> None:
    async with queue.batching(max_batch=1_200, linger=LONG) as producer:
        futures = await send_all(producer, range(1_200), key=key)
        await producer.flush()
        ids = await ids_of(futures)

    assert len(set(ids)) == 1_200
    messages = await drain(queue, 1_200)
    assert {m.id: m.data for m in messages} == dict(zip(ids, range(1_200), strict=True))
    if key and harness.router != "round":
        assert [m.data for m in messages] == list(range(1_200))
    assert (await queue.get_info()).message_count == 0


@keeps_bounds
async def test_bytes_that_are_held_are_bounded_too(mq: Client) -> None:
    queue = await bounded(mq, 1, overflow="block")
    limits: dict[str, Any] = {"max_buffered_bytes": 1_000, "max_bytes": 200, "max_block": 0.05}
    async with queue.batching(**limits) as producer:
        futures = await send_all(producer, ["x" * 98] * 11)
        with pytest.raises(BufferFullError, match=r"1,000 of 1,000 bytes"):
            await producer.send_message("x")
        await drain(queue, 11)
        assert len(set(await ids_of(futures))) == 11


@keeps_bounds
async def test_a_send_that_waits_for_room_gets_it(mq: Client) -> None:
    queue = await bounded(mq, 1, overflow="block")
    async with queue.batching(max_buffered=2) as producer:
        futures = await send_all(producer, range(3))
        waiting = asyncio.create_task(producer.send_message("waits"))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        messages = await drain(queue, 4)
        futures.append(await waiting)
        ids = await ids_of(futures)

    assert [m.id for m in messages] == ids


@pytest.mark.in_detail
@pytest.mark.parametrize(
    ("limits", "kind", "words"),
    [
        ({"max_batch": 0}, ValueError, "max_batch is 0"),
        ({"max_buffered": 1.5}, TypeError, "max_buffered must be an int, not float"),
        ({"linger": -1}, ValueError, "linger is -1"),
        ({"max_block": "long"}, TypeError, "max_block must be seconds"),
    ],
    ids=["zero", "float", "negative", "text"],
)
async def test_limits_that_cannot_be_are_refused(
    queue: AsyncQueue, limits: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        queue.batching(**limits)


# --- the end


async def test_closing_sends_what_is_held(queue: AsyncQueue) -> None:
    producer = queue.batching(linger=LONG)
    futures = await send_all(producer, range(1_200))
    await producer.close()
    await producer.close()

    assert len(set(await ids_of(futures))) == 1_200
    assert await count(queue) == 1_200
    with pytest.raises(ClosedError, match="the producer of queue 'orders' is closed"):
        await producer.send_message("late")
    await producer.flush()
    assert "'orders'" in repr(producer)


async def test_closing_before_the_first_message_does_nothing(queue: AsyncQueue) -> None:
    async with queue.batching() as producer:
        pass
    with pytest.raises(ClosedError):
        await producer.send_message("late")
    assert await count(queue) == 0


@keeps_bounds
async def test_what_cannot_be_sent_in_time_fails_at_the_end(mq: Client) -> None:
    queue = await bounded(mq, 1, overflow="block")
    producer = queue.batching(max_batch=2)
    futures = await send_all(producer, range(5))
    async with asyncio.timeout(10):
        await futures[0]
        await producer.close(timeout=0.05)
        outcomes = await outcomes_of(futures)

    assert {type(outcome) for outcome in outcomes[1:]} <= {NotSentError, QueueFullError}
    assert isinstance(outcomes[4], NotSentError)
    assert "the producer was closed" in str(outcomes[4])
    assert [m.id for m in await drain(queue, 1)] == outcomes[:1]
    assert await count(queue) == 0


@keeps_bounds
async def test_who_waits_for_room_hears_of_the_end(mq: Client) -> None:
    queue = await bounded(mq, 1, overflow="block")
    producer = queue.batching(max_buffered=2)
    await send_all(producer, range(3))
    waiting = asyncio.create_task(producer.send_message("waits"))
    await asyncio.wait([waiting], timeout=0.05)
    await producer.close(timeout=0.05)

    with pytest.raises(ClosedError):
        await waiting


async def test_a_closed_client_sends_no_more(mq: Client) -> None:
    async with mq.queue("orders").batching(linger=LONG) as producer:
        futures = await send_all(producer, range(3), key="k")
        await mq.close()
        await producer.flush()
        outcomes = await outcomes_of(futures)

    assert {type(outcome) for outcome in outcomes} == {ClosedError}


async def test_many_tasks_share_a_producer(queue: AsyncQueue) -> None:
    async with queue.batching(max_buffered=50, max_batch=20) as producer:

        async def send(number: int) -> list[str]:
            return await ids_of(await send_all(producer, range(number * 40, number * 40 + 40)))

        ids = await asyncio.gather(*map(send, range(8)))

    messages = await drain(queue, 320)
    assert {m.id: m.data for m in messages} == dict(
        zip([one for some in ids for one in some], range(320), strict=True)
    )


@pytest.mark.on("memory", worlds=("sync",))
async def test_a_callback_may_send_and_cannot_hang_its_producer(
    harness: Harness, queue: AsyncQueue
) -> None:
    told: list[Any] = []
    plain: Any = queue
    producer = plain._queue.batching(linger=LONG, max_buffered=3)

    def again(future: Any) -> None:
        for call in (lambda: producer.send_message("again"), producer.flush, producer.close):
            try:
                told.append(call())
            except Exception as error:  # noqa: BLE001  # what is tested
                told.append(error)

    def use() -> None:
        futures = [producer.send_message(n) for n in range(2)]
        futures[0].add_done_callback(again)
        producer.flush(timeout=10)
        producer.close()

    await harness.run(use)
    assert isinstance(told[0].result(), str)
    assert [type(error) for error in told[1:]] == [RuntimeError, RuntimeError]
    assert sorted(map(str, [m.data for m in await drain(queue, 3)])) == ["0", "1", "again"]


async def test_a_debug_log_tells_of_each_message(
    queue: AsyncQueue, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("DEBUG", "leanmq.queue"):
        async with queue.batching() as producer:
            ids = await ids_of(await send_all(producer, range(3)))

    sent = [record for record in caplog.records if _event(record) == "sent"]
    assert [vars(record)["leanmq_message"] for record in sent] == ids


def _event(record: Any) -> str:
    return getattr(record, "leanmq_event", "")


async def test_the_log_tells_how_many_failed_and_why(
    mq: Client, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    queue = mq.queue("orders", max_payload_bytes=10)
    async with queue.batching(linger=LONG) as producer:
        await outcomes_of(await flushed(producer, [1, "x" * 10, 2, "y" * 10]))

    [record] = [record for record in caplog.records if _event(record) == "not_stored"]
    assert (record.levelname, record.name) == ("WARNING", "leanmq.queue")
    assert vars(record)["leanmq_count"] == 2
    assert "12 bytes" in record.getMessage()
    assert "xxx" not in record.getMessage()
