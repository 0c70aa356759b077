"""Dead letters go back; why messages failed; what cannot be read.

How messages come to be dead letters is in ``test_dead_letters.py``.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from leanmq import AsyncQueue, CrossSlotError, Message, QueueError, QueueFullError
from tests.contract.harness import IN_MEMORY, SERVERS, Client, Harness, drain, eventually
from tests.contract.test_lost_replies import call_of, lost_reply, warmed_up


async def died(queue: AsyncQueue, *payloads: Any, reason: str = "why", **options: Any) -> list[str]:
    """Send messages, and move them to the dead letters; their ids."""
    ids = [await queue.send_message(payload, **options) for payload in payloads]
    messages = await queue.get_messages(len(ids), timeout=5)
    assert await queue.move_to_dlq(messages, reason) == len(ids)
    return ids


async def counts(queue: AsyncQueue) -> tuple[int, int]:
    """Messages of the queue, and of its dead letters."""
    live, dead = await queue.get_info(), await queue.dlq.get_info()
    return live.message_count, dead.message_count


async def test_a_dead_letter_goes_back_to_its_queue_as_it_was_sent(queue: AsyncQueue) -> None:
    sent = await queue.send_message({"n": 1}, key="k", headers={"trace": 7}, message_id="mine")
    [first] = await queue.get_messages()
    await queue.retry_messages(first, reason="slow")
    await queue.move_to_dlq(await queue.get_messages(timeout=5), "broken")
    [dead] = await queue.dlq.get_messages()
    assert (dead.error, dead.redrives, dead.delivery_count) == ("broken", 0, 2)

    assert await queue.dlq.requeue_messages(dead) == 1

    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.data, again.timestamp) == (sent, {"n": 1}, first.timestamp)
    assert (again.key, again.headers, again.message_id) == ("k", {"trace": 7}, "mine")
    assert (again.delivery_count, again.redrives, again.error) == (1, 1, None)
    assert [failure.reason for failure in again.failures] == ["slow"]
    assert (again.queue, await counts(queue)) == ("orders", (1, 0))
    assert await queue.acknowledge_messages(again) == 1
    assert await counts(queue) == (0, 0)


async def test_a_dead_letter_that_nobody_holds_goes_back_by_its_id(
    queue: AsyncQueue, harness: Harness
) -> None:
    [sent] = await died(queue, "dead")
    operator = harness.client().queue("orders").dlq

    assert await operator.requeue_messages(sent) == 1
    assert await operator.requeue_messages(sent) == 0

    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.redrives) == (sent, 1)


async def test_a_delayed_dead_letter_goes_back_by_its_id(queue: AsyncQueue) -> None:
    [sent] = await died(queue, "dead")
    await queue.dlq.retry_messages(await queue.dlq.get_messages(), delay=60)

    assert await queue.dlq.requeue_messages(sent) == 1

    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.delivery_count, again.redrives) == (sent, 1, 1)
    assert await counts(queue) == (1, 0)


@pytest.mark.parametrize("named", ["by name", "by handle"])
async def test_a_dead_letter_goes_to_another_queue(mq: Client, named: str) -> None:
    queue, other = mq.queue("orders", slot="shop"), mq.queue("repair", slot="shop")
    await other.declare()
    [sent] = await died(queue, "dead", key="k")
    [dead] = await queue.dlq.get_messages()

    assert await queue.dlq.requeue_messages(dead, "repair" if named == "by name" else other) == 1

    [moved] = await other.get_messages(timeout=5)
    assert (moved.id, moved.data, moved.key, moved.queue) == (sent, "dead", "k", "repair")
    assert (moved.delivery_count, moved.redrives, moved.error) == (1, 1, None)
    assert await other.acknowledge_messages(moved) == 1
    assert (await counts(queue), await counts(other)) == ((0, 0), (0, 0))


async def test_a_destination_is_made_with_the_settings_of_its_handle(mq: Client) -> None:
    queue = mq.queue("orders", slot="shop")
    await died(queue, "dead")
    other = mq.queue("repair", slot="shop", lease=7)

    assert await queue.dlq.requeue_messages(await queue.dlq.get_messages(), other) == 1

    info = await other.get_info()
    assert (info.message_count, info.lease, info.slot) == (1, 7.0, "shop")


async def test_a_destination_that_was_deleted_meanwhile_is_made_again(
    mq: Client, harness: Harness
) -> None:
    queue, other = mq.queue("orders", slot="shop"), mq.queue("repair", slot="shop")
    [sent] = await died(queue, "dead")
    await other.declare()
    await harness.client().queue("repair").delete()

    assert await queue.dlq.requeue_messages(sent, other) == 1

    assert [m.id for m in await other.get_messages(timeout=5)] == [sent]


async def refused_across_slots(mq: Client) -> None:
    queue, other = mq.queue("orders"), mq.queue("repair")
    await other.declare()
    await died(queue, "dead")
    [dead] = await queue.dlq.get_messages()

    for destination in ("repair", other):
        with pytest.raises(CrossSlotError, match=r"'orders'.*'repair'.*same slot=") as refused:
            await queue.dlq.requeue_messages(dead, destination)
        assert refused.value.queue == "orders"

    assert (await counts(queue), await counts(other)) == ((0, 1), (0, 0))
    assert await queue.dlq.requeue_messages(dead) == 1


@pytest.mark.on("cluster")
async def test_on_a_cluster_dead_letters_do_not_leave_their_slot(mq: Client) -> None:
    await refused_across_slots(mq)


@pytest.mark.on("memory")
async def test_memory_that_is_strict_about_slots_keeps_dead_letters_in_theirs(
    harness: Harness,
) -> None:
    await refused_across_slots(harness.client(url=f"{harness.url}?slots=strict"))


async def test_dead_letters_do_not_go_to_a_queue_of_another_client(
    queue: AsyncQueue, harness: Harness
) -> None:
    [sent] = await died(queue, "dead")
    stranger = harness.client().queue("orders")

    with pytest.raises(CrossSlotError, match="another client"):
        await queue.dlq.requeue_messages(sent, stranger)

    assert await counts(queue) == (0, 1)


async def test_only_dead_letters_are_requeued_and_only_to_a_queue(queue: AsyncQueue) -> None:
    [sent] = await died(queue, "dead")

    with pytest.raises(QueueError, match="no dead letter queue"):
        await queue.requeue_messages(sent)
    with pytest.raises(QueueError, match="is the dead letter queue"):
        await queue.dlq.requeue_messages(sent, queue.dlq)
    with pytest.raises(ValueError, match="destination_queue"):
        await queue.dlq.requeue_messages(sent, "no name")

    assert await counts(queue) == (0, 1)


async def test_unknown_ids_are_not_requeued_nor_counted(queue: AsyncQueue) -> None:
    [sent] = await died(queue, "dead")
    await queue.send_message("alive")
    [alive] = await queue.get_messages()

    assert await queue.dlq.requeue_messages(["1-1", "no such id", "", alive.id, sent]) == 1

    assert await counts(queue) == (2, 0)


async def test_a_dead_letter_that_another_client_holds_stays(
    queue: AsyncQueue, harness: Harness
) -> None:
    [sent] = await died(queue, "dead")
    holder = harness.client().queue("orders").dlq
    [held] = await holder.get_messages()

    assert await queue.dlq.requeue_messages(sent) == 0

    assert await counts(queue) == (0, 1)
    assert await holder.acknowledge_messages(held) == 1


async def test_a_dead_letter_goes_back_once(queue: AsyncQueue) -> None:
    await died(queue, "dead")
    [dead] = await queue.dlq.get_messages()

    assert await queue.dlq.requeue_messages(dead) == 1
    assert await queue.dlq.requeue_messages(dead) == 0
    assert await queue.dlq.acknowledge_messages(dead) == 0

    assert await counts(queue) == (1, 0)


async def test_a_redriven_message_can_die_again(mq: Client) -> None:
    queue = mq.queue("limited", max_deliveries=1)
    await queue.send_message("bad")
    for redrives in range(3):
        [message] = await queue.get_messages(timeout=5)
        assert (message.delivery_count, message.redrives) == (1, redrives)
        assert await queue.retry_messages(message, reason=f"try {redrives}") == 1
        [dead] = await queue.dlq.get_messages(timeout=5)
        assert (dead.id, dead.delivery_count, dead.redrives) == (message.id, 1, redrives)
        assert f"try {redrives}" in (dead.error or "")
        assert await queue.dlq.requeue_messages(dead) == 1

    [message] = await queue.get_messages(timeout=5)
    assert (message.redrives, message.error) == (3, None)
    assert [f.reason for f in message.failures] == ["try 0", "try 1", "try 2"]


@pytest.mark.on(*SERVERS)
async def test_a_redrive_whose_reply_is_lost_moves_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    await died(queue, "dead")
    [dead] = await queue.dlq.get_messages()

    with lost_reply(harness, call_of("settle")):
        assert await queue.dlq.requeue_messages(dead) == 1

    assert await counts(queue) == (1, 0)
    [again] = await queue.get_messages(timeout=5)
    assert (again.id, again.redrives) == (dead.id, 1)


@pytest.mark.on(*SERVERS)
async def test_a_redrive_by_id_whose_reply_is_lost_moves_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    await warmed_up(queue)
    ids = await died(queue, "a", "b")

    with lost_reply(harness, call_of("settle")):
        await queue.dlq.requeue_messages(ids)  # how many, nobody can know

    assert await counts(queue) == (2, 0)
    assert {m.id for m in await drain(queue, 2)} == set(ids)


async def test_hundreds_of_dead_letters_go_back_at_once(queue: AsyncQueue) -> None:
    ids = await queue.send_messages(range(300))
    await queue.move_to_dlq(await queue.get_messages(300), "all of them")
    held = await queue.dlq.get_messages(150)

    rest = set(ids) - {message.id for message in held}
    assert await queue.dlq.requeue_messages([*held, *rest]) == 300

    back = await drain(queue, 300)
    assert {m.id: m.data for m in back} == dict(zip(ids, range(300), strict=True))
    assert {(m.delivery_count, m.redrives) for m in back} == {(1, 1)}
    assert await counts(queue) == (0, 0)


@pytest.mark.on("memory", "redis", "sentinel", "cluster", "pass-through")  # those that keep bounds
async def test_dead_letters_that_find_no_room_stay_dead(mq: Client) -> None:
    queue = mq.queue("small", max_length=2)
    await died(queue, 1, 2)
    dead = await queue.dlq.get_messages()
    await queue.send_message("first come")

    with pytest.raises(QueueFullError, match=r"1 dead letters went there, 1 stay"):
        await queue.dlq.requeue_messages(dead)

    assert await counts(queue) == (2, 1)
    assert len(await drain(queue, 2)) == 2
    assert await queue.dlq.requeue_messages(dead) == 1  # the other one is still held


async def twins(mq: Client, harness: Harness) -> tuple[AsyncQueue, AsyncQueue]:
    """Two queues, each with a message of the same id: ids are a queue's own."""
    entry = "9000000000005-5"
    queue, other = mq.queue("orders", slot="shop"), mq.queue("repair", slot="shop")
    for twin in (queue, other):
        await twin.declare()
        await harness.inject(twin.name, f'"{twin.name}"'.encode(), entry=entry, slot="shop")
    return queue, other


async def test_a_dead_letter_and_a_message_of_its_id_elsewhere_are_not_mixed_up(
    mq: Client, harness: Harness
) -> None:
    queue, other = await twins(mq, harness)
    await queue.move_to_dlq(await queue.get_messages(), "why")

    assert await queue.dlq.requeue_messages(await queue.dlq.get_messages(), other) == 1

    for _ in range(2):
        both = await other.get_messages(timeout=5)
        assert sorted(m.data for m in both) == ["orders", "repair"]
        assert len({m.id for m in both}) == 2
        assert await other.retry_messages(both, delay=0.01) == 2
        await eventually_due(other, 2)
    assert len(await drain(other, 2)) == 2
    assert await counts(other) == (0, 0)


async def test_a_dead_letter_and_one_of_its_id_elsewhere_are_not_mixed_up(
    mq: Client, harness: Harness
) -> None:
    queue, other = await twins(mq, harness)
    for twin in (queue, other):
        await twin.move_to_dlq(await twin.get_messages(), "why")

    assert await queue.dlq.requeue_messages(await queue.dlq.get_messages(), other) == 1
    assert await other.move_to_dlq(await other.get_messages(timeout=5), "again") == 1

    both = await other.dlq.get_messages()
    assert sorted(m.data for m in both) == ["orders", "repair"]
    for dead in both:
        assert await other.dlq.acknowledge_messages(dead) == 1
    assert await counts(other) == (0, 0)


async def eventually_due(queue: AsyncQueue, number: int) -> None:
    """Wait until so many delayed messages are ready."""
    seen: list[Message[Any]] = []

    async def all_of_them() -> bool:
        seen.extend(await queue.get_messages(timeout=0.1))
        return len(seen) == number

    await eventually(all_of_them, within=10)
    await queue.release_messages(seen)


# --- why they failed


async def test_reasons_of_retries_are_kept_in_order(queue: AsyncQueue) -> None:
    await queue.send_message("bad")
    began = time.time()
    for reason in ("no route", "", "timeout ☠"):
        [message] = await queue.get_messages(timeout=5)
        await queue.retry_messages(message, reason=reason)

    [message] = await queue.get_messages(timeout=5)

    found = [(f.delivery_count, f.reason) for f in message.failures]
    assert found == [(1, "no route"), (3, "timeout ☠")]
    times = [f.at for f in message.failures]
    assert times == sorted(times)
    assert all(abs(at - began) < 30 for at in times)


async def test_the_last_five_reasons_are_kept(queue: AsyncQueue) -> None:
    await queue.send_message("bad")
    for n in range(8):
        [message] = await queue.get_messages(timeout=5)
        await queue.retry_messages(message, reason=f"reason {n}")

    [message] = await queue.get_messages(timeout=5)

    found = [(f.delivery_count, f.reason) for f in message.failures]
    assert found == [(n + 1, f"reason {n}") for n in range(3, 8)]


async def test_long_reasons_are_cut_between_characters(queue: AsyncQueue) -> None:
    await queue.send_message("bad")
    [message] = await queue.get_messages()
    await queue.retry_messages(message, reason="☠" * 5_000)
    [message] = await queue.get_messages(timeout=5)
    assert [f.reason for f in message.failures] == ["☠" * 333]

    await queue.move_to_dlq(message, "x" + "é" * 5_000)

    [dead] = await queue.dlq.get_messages()
    assert dead.error == "x" + "é" * 499
    assert [f.reason for f in dead.failures] == ["☠" * 333]


async def test_a_reason_that_is_no_text_is_refused_at_once(queue: AsyncQueue) -> None:
    await queue.send_message("held")
    [message] = await queue.get_messages()
    wrong: Any = ValueError("no text")

    with pytest.raises(TypeError, match="reason must be a str"):
        await queue.retry_messages(message, reason=wrong)
    with pytest.raises(TypeError, match="reason must be a str"):
        await queue.move_to_dlq(message, wrong)

    assert await queue.move_to_dlq(message, "lone \ud800 surrogate") == 1
    [dead] = await queue.dlq.get_messages()
    assert dead.error == "lone ? surrogate"


async def test_a_retry_at_the_limit_tells_the_last_reason(mq: Client) -> None:
    queue = mq.queue("limited", max_deliveries=2)
    await queue.send_message("bad")
    for reason in ("first", "second"):
        [message] = await queue.get_messages(timeout=5)
        await queue.retry_messages(message, reason=reason)

    [dead] = await queue.dlq.get_messages(timeout=5)

    assert dead.error is not None
    assert "max_deliveries 2" in dead.error
    assert dead.error.endswith("second")
    assert [(f.delivery_count, f.reason) for f in dead.failures] == [(1, "first"), (2, "second")]


# --- a queue like any other


async def test_dead_letters_are_looked_at_counted_and_deleted(
    queue: AsyncQueue, harness: Harness
) -> None:
    ids = await died(queue, "a", "b", "c", "d")
    dlq, other = queue.dlq, harness.client().queue("orders").dlq
    [held] = await other.get_messages(1)
    [late] = await dlq.get_messages(1)
    await dlq.retry_messages(late, delay=60)

    info = await dlq.get_info()
    assert (info.name, info.is_dlq, info.max_deliveries) == ("orders", True, 0)
    assert (info.ready_messages, info.pending_messages, info.delayed_messages) == (2, 1, 1)
    shown = await dlq.peek_messages()
    assert {m.id for m in shown} == set(ids) - {held.id, late.id}
    assert {(m.error, m.delivery_count, m.state) for m in shown} == {("why", 1, "ready")}
    [pending] = await dlq.pending_messages()
    assert (pending.id, pending.error, pending.state) == (held.id, "why", "in_flight")
    assert await dlq.delete_messages([held, late.id]) == 2
    assert await other.acknowledge_messages(held) == 0
    assert await dlq.purge() == 2
    assert (await dlq.get_info()).message_count == 0


async def test_dead_letters_that_nobody_holds_are_settled_by_their_ids(
    queue: AsyncQueue, harness: Harness
) -> None:
    done, later, again = await died(queue, "done", "later", "again")
    await queue.dlq.requeue_messages(again)
    await queue.move_to_dlq(await queue.get_messages(timeout=5), "twice")
    operator = harness.client().queue("orders").dlq

    assert await operator.acknowledge_messages([done, "1-1"]) == 1
    assert await operator.retry_messages([later, again], delay=60, reason="by hand") == 2
    assert (await operator.get_info()).delayed_messages == 2
    assert await operator.release_messages(later) == 1

    [dead] = await operator.get_messages(timeout=5)
    assert (dead.id, dead.error, dead.delivery_count) == (later, "why", 1)
    [shown] = await operator.peek_messages(ids=[done, again])
    assert (shown.id, shown.error, shown.redrives, shown.state) == (again, "twice", 1, "delayed")


async def test_the_leases_of_dead_letters_end(mq: Client, harness: Harness) -> None:
    queue = mq.queue("short", lease=0.2)
    [sent] = await died(queue, "dead")
    assert await harness.client().queue("short").dlq.get_messages()

    [dead] = await queue.dlq.get_messages(timeout=5)

    assert (dead.id, dead.error, dead.delivery_count) == (sent, "why", 1)


async def test_retries_among_the_dead_do_not_count_as_deliveries(queue: AsyncQueue) -> None:
    await died(queue, "dead")
    for _ in range(3):
        [dead] = await queue.dlq.get_messages(timeout=5)
        assert (dead.delivery_count, dead.error) == (1, "why")
        assert await queue.dlq.retry_messages(dead, reason="not yet") == 1

    [shown] = await queue.dlq.peek_messages()
    assert shown.delivery_count == 1
    assert [(f.delivery_count, f.reason) for f in shown.failures] == [(1, "not yet")] * 3


# --- what cannot be read


async def test_what_cannot_be_decoded_is_dead_with_its_bytes_and_can_go_back(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    await harness.inject("orders", b"\xff\x00{")

    for redrives in range(2):
        assert await queue.get_messages(timeout=0.05) == []
        [dead] = await queue.dlq.get_messages(timeout=5)
        assert (dead.data, dead.redrives, dead.delivery_count) == (b"\xff\x00{", redrives, 1)
        assert dead.error == "undecodable: 3 bytes that are not JSON"
        assert await queue.dlq.requeue_messages(dead) == 1


async def test_messages_behind_what_cannot_be_read_are_received_at_once(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    for body in (b"{", b"]"):
        await harness.inject("orders", body)
    await harness.inject("orders", b'"of later"', v="2")
    await queue.send_message("fine")

    assert [m.data for m in await queue.get_messages(1)] == ["fine"]


async def test_what_a_later_version_stored_is_left_to_it(
    queue: AsyncQueue, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.declare()
    await harness.inject("orders", b'"secret"', v="2", z="unknown")
    [stored] = await queue.peek_messages()

    assert await queue.get_messages(timeout=0.05) == []

    assert await counts(queue) == (1, 0)
    [delayed] = await queue.peek_messages(ids=[stored.id])
    assert (delayed.state, delayed.delivery_count, delayed.failures) == ("delayed", 0, ())
    assert delayed.due_at is not None
    assert 5 < delayed.due_at - time.time() < 11
    events = {getattr(record, "leanmq_event", None) for record in caplog.records}
    assert "foreign_message" in events
    assert "secret" not in caplog.text


@pytest.mark.on(*IN_MEMORY)
async def test_what_a_later_version_stored_never_dies_of_those_that_do_not_know_it(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", max_deliveries=2)
    await queue.declare()
    await harness.inject("orders", b'"later"', v="2", z="unknown")
    [stored] = await queue.peek_messages()

    for _ in range(4):
        assert await queue.get_messages() == []
        harness.advance(11)

    assert await counts(queue) == (1, 0)
    [left] = await queue.peek_messages(ids=stored.id)
    assert (left.data, left.delivery_count) == ("later", 0)
