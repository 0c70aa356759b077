"""Looking without receiving; what is done to messages by their id alone; all of them at once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest

from leanmq import AsyncQueue, Outgoing
from tests.contract.harness import IN_MEMORY, Client, Harness, drain, eventually

Make = Callable[[AsyncQueue], Awaitable[str]]


# Messages that nobody holds, in every way that there is; each returns the id.


async def ready(queue: AsyncQueue) -> str:
    return await queue.send_message("m")


async def delayed(queue: AsyncQueue) -> str:
    return await queue.send_message("m", delay=60)


async def released(queue: AsyncQueue) -> str:
    sent = await queue.send_message("m")
    await queue.release_messages(await queue.get_messages(timeout=5))
    return sent


async def retried(queue: AsyncQueue) -> str:
    sent = await queue.send_message("m")
    await queue.retry_messages(await queue.get_messages(timeout=5))
    return sent


async def retried_later(queue: AsyncQueue) -> str:
    sent = await queue.send_message("m")
    await queue.retry_messages(await queue.get_messages(timeout=5), delay=60)
    return sent


async def redriven(queue: AsyncQueue) -> str:
    sent = await queue.send_message("m")
    await queue.move_to_dlq(await queue.get_messages(timeout=5), "why")
    await queue.dlq.requeue_messages(sent)
    return sent


async def due(queue: AsyncQueue) -> str:
    sent = await queue.send_message("m", delay=0.01)
    await queue.release_messages(await queue.get_messages(timeout=5))
    return sent


UNHELD: dict[str, Make] = {
    "ready": ready,
    "delayed": delayed,
    "released": released,
    "retried": retried,
    "retried later": retried_later,
    "redriven": redriven,
    "due": due,
}
COUNTED = ("retried", "retried later")
unheld = pytest.mark.parametrize("way", UNHELD)


async def counts(queue: AsyncQueue) -> tuple[int, int, int]:
    """Ready, in flight, delayed."""
    info = await queue.get_info()
    return info.ready_messages, info.pending_messages, info.delayed_messages


# --- peek


async def test_peek_shows_the_next_messages_and_changes_nothing(
    mq: Client, queue: AsyncQueue
) -> None:
    ids = [
        await queue.send_message({"n": n}, key=f"k{n}", headers={"n": n}, message_id=f"m{n}")
        for n in range(5)
    ]

    for _ in range(3):
        shown = await queue.peek_messages(4)
        assert len(shown) == 4
        for m in shown:
            n = m.data["n"]
            assert (m.id, m.key, m.headers, m.message_id) == (ids[n], f"k{n}", {"n": n}, f"m{n}")
            assert (m.state, m.delivery_count, m.lease_until) == ("ready", 0, 0)
            assert (m.due_at, m.consumer, m.error, m.queue) == (None, None, None, "orders")
        if (await mq.open()).ordered:
            assert [m.data["n"] for m in shown] == [0, 1, 2, 3]
    assert await counts(queue) == (5, 0, 0)

    got = await queue.get_messages()
    assert {m.id for m in got} == set(ids)
    assert {m.delivery_count for m in got} == {1}
    assert {m.timestamp for m in shown} <= {m.timestamp for m in got}
    assert await queue.peek_messages() == []


async def test_peek_shows_first_what_is_handed_out_first(mq: Client, queue: AsyncQueue) -> None:
    await queue.send_messages(range(4))
    await queue.release_messages(await queue.get_messages(2))

    shown = [m.data for m in await queue.peek_messages()]

    assert sorted(shown) == [0, 1, 2, 3]
    if (await mq.open()).ordered:
        assert shown == [0, 1, 2, 3]
        assert [m.data for m in await queue.get_messages()] == shown


async def test_peek_tells_how_often_a_message_was_handed_out_and_why_again(
    queue: AsyncQueue,
) -> None:
    await queue.send_message("bad")
    for n in range(3):
        [message] = await queue.get_messages(timeout=5)
        await queue.retry_messages(message, reason=f"no {n}")
        [shown] = await queue.peek_messages()
        assert (shown.id, shown.delivery_count) == (message.id, n + 1)
        assert [f.reason for f in shown.failures] == [f"no {m}" for m in range(n + 1)]

    [shown] = await queue.peek_messages(ids=message.id)
    assert shown.delivery_count == 3


async def test_peek_shows_suspects_and_what_dead_consumers_had(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=0.2)
    sent = await queue.send_message("again")
    await harness.client().queue("short").get_messages()
    [message] = await queue.get_messages(timeout=5)
    await queue.release_messages(message)

    [shown] = await queue.peek_messages()

    assert (shown.id, shown.state, shown.delivery_count) == (sent, "ready", 1)


@unheld
async def test_peek_finds_a_message_that_nobody_holds_by_its_id(
    queue: AsyncQueue, way: str
) -> None:
    sent = await UNHELD[way](queue)
    late = way in ("delayed", "retried later")

    [shown] = await queue.peek_messages(ids=[sent])

    assert (shown.id, shown.data) == (sent, "m")
    assert shown.delivery_count == (1 if way in COUNTED else 0)
    assert shown.state == ("delayed" if late else "ready")
    if late:
        assert shown.due_at is not None
        assert abs(shown.due_at - time.time() - 60) < 5
    else:
        assert shown.due_at is None
        assert [m.id for m in await queue.peek_messages()] == [sent]


async def test_peek_finds_messages_in_flight_and_dead_ones_by_their_ids(
    queue: AsyncQueue, harness: Harness
) -> None:
    flying, dead, waiting = [await queue.send_message(n) for n in range(3)]
    a, b, c = await queue.get_messages()
    await queue.move_to_dlq(dead, "why")
    await queue.release_messages(waiting)
    other = harness.client().queue("orders")

    shown = await other.peek_messages(ids=[dead, flying, waiting, flying, "no such id"])
    [buried] = await other.dlq.peek_messages(ids=[flying, dead])

    assert {m.id: m.state for m in shown} == {flying: "in_flight", waiting: "ready"}
    assert (buried.id, buried.error, buried.delivery_count) == (dead, "why", 1)
    assert {a.id, b.id, c.id} == {flying, dead, waiting}
    assert await queue.acknowledge_messages(flying) == 1
    assert await other.peek_messages(ids=flying) == []


async def test_peek_does_not_extend_leases(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", lease=30)
    sent = await queue.send_message("held")
    [message] = await harness.client().queue("orders").get_messages()

    for _ in range(5):
        [shown] = await queue.peek_messages(ids=sent)
        assert abs(shown.lease_until - message.lease_until) < 1


async def test_expired_messages_are_not_shown(queue: AsyncQueue) -> None:
    short = await queue.send_messages(Outgoing(n, ttl_seconds=0.05) for n in range(120))
    lasting = await queue.send_message("lasting", ttl_seconds=60)

    async def gone() -> bool:
        return not await queue.peek_messages(ids=short)

    await eventually(gone, within=5)
    assert [m.id for m in await queue.peek_messages(3)] == [lasting]
    assert [m.id for m in await queue.peek_messages(ids=[*short, lasting])] == [lasting]


async def test_what_expires_while_it_is_delayed_is_not_shown(queue: AsyncQueue) -> None:
    sent = await queue.send_message("short", ttl_seconds=0.3)
    await queue.retry_messages(await queue.get_messages(), delay=60)

    async def gone() -> bool:
        return not await queue.peek_messages(ids=sent)

    await eventually(gone, within=5)


async def test_bytes_that_cannot_be_decoded_are_shown_as_they_are(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    await harness.inject("orders", b"\xff{")

    [shown] = await queue.peek_messages()

    assert shown.data == b"\xff{"
    assert (await queue.peek_messages(ids=shown.id))[0].data == b"\xff{"
    assert await counts(queue) == (1, 0, 0)


async def test_what_cannot_be_peeked_is_told(queue: AsyncQueue) -> None:
    for count in (0, 1_001):
        with pytest.raises(ValueError, match="count is"):
            await queue.peek_messages(count)
        with pytest.raises(ValueError, match="count is"):
            await queue.pending_messages(count)

    assert await queue.peek_messages() == await queue.pending_messages() == []
    assert await queue.peek_messages(ids=["", "~", "1-1", "d1", "x y"]) == []


# --- in flight


async def test_pending_messages_tell_who_holds_what_until_when(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("orders", lease=30)
    ids = await queue.send_messages(range(4))
    mine = await queue.get_messages(2)
    theirs = await harness.client().queue("orders").get_messages(2)

    shown = {m.id: m for m in await queue.pending_messages()}

    assert set(shown) == set(ids)
    for message in [*mine, *theirs]:
        m = shown[message.id]
        assert (m.state, m.data, m.delivery_count) == ("in_flight", message.data, 1)
        assert abs(m.lease_until - message.lease_until) < 1
        assert m.due_at is None
    holders = [{shown[m.id].consumer for m in messages} for messages in (mine, theirs)]
    assert None not in holders[0] | holders[1]
    assert not holders[0] & holders[1]


async def test_pending_messages_are_none_that_were_given_back(queue: AsyncQueue) -> None:
    await queue.send_messages(range(6))
    a, b, c, d, *held = await queue.get_messages()
    await queue.release_messages(a)
    await queue.retry_messages(b)
    await queue.retry_messages(c, delay=60)
    await queue.move_to_dlq(d)

    assert {m.id for m in await queue.pending_messages()} == {m.id for m in held}
    assert await counts(queue) == (2, 2, 1)
    assert await queue.dlq.pending_messages() == []


async def test_hundreds_of_messages_in_flight_are_shown(queue: AsyncQueue) -> None:
    ids = await queue.send_messages(range(350))
    messages = await queue.get_messages(350)
    by_data = sorted(messages, key=lambda m: m.data)
    await queue.release_messages(by_data[:150])

    assert len(await queue.pending_messages(120)) == 120
    shown = await queue.pending_messages(1_000)

    assert {m.id: m.data for m in shown} == dict(zip(ids[150:], range(150, 350), strict=True))


# --- delete


@unheld
async def test_a_message_that_nobody_holds_is_deleted_by_its_id(
    queue: AsyncQueue, harness: Harness, way: str
) -> None:
    sent = await UNHELD[way](queue)
    operator = harness.client().queue("orders")

    assert await operator.delete_messages([sent, "1-1", "no such id"]) == 1
    assert await operator.delete_messages(sent) == 0

    assert await counts(queue) == (0, 0, 0)
    assert await queue.get_messages() == []


async def test_messages_in_flight_are_deleted_whoever_holds_them(
    queue: AsyncQueue, harness: Harness
) -> None:
    ids = await queue.send_messages(range(3))
    first = await queue.get_messages(1)
    await queue.retry_messages(first)  # its entry is another one now
    holder = harness.client().queue("orders")
    held = await holder.get_messages(10, timeout=5)
    assert len(held) == 3

    assert await queue.delete_messages(ids[:2]) == 2

    assert await holder.acknowledge_messages([m for m in held if m.id in ids[:2]]) == 0
    assert await holder.retry_messages(ids[:2]) == 0
    assert await holder.extend_messages(held) == 1
    assert await holder.acknowledge_messages(held) == 1
    assert await counts(queue) == (0, 0, 0)


async def test_what_this_client_holds_is_deleted_too(queue: AsyncQueue) -> None:
    await queue.send_messages(range(3))
    messages = await queue.get_messages()

    assert await queue.delete_messages(messages) == 3
    assert await queue.delete_messages(messages) == 0

    assert await queue.acknowledge_messages(messages) == 0
    assert await counts(queue) == (0, 0, 0)


async def test_dead_letters_are_deleted_by_their_ids(queue: AsyncQueue) -> None:
    sent = await queue.send_message("dead")
    await queue.move_to_dlq(await queue.get_messages(), "why")

    assert await queue.delete_messages(sent) == 0
    assert await queue.dlq.delete_messages(sent) == 1
    assert await queue.dlq.delete_messages(sent) == 0

    assert (await queue.dlq.get_info()).message_count == 0


# --- settling by id


@unheld
async def test_a_message_that_nobody_holds_is_acknowledged_by_its_id(
    queue: AsyncQueue, harness: Harness, way: str
) -> None:
    sent = await UNHELD[way](queue)
    operator = harness.client().queue("orders")

    assert await operator.acknowledge_messages(sent) == 1
    assert await operator.acknowledge_messages(sent) == 0

    assert await counts(queue) == (0, 0, 0)


@unheld
async def test_a_message_that_nobody_holds_is_retried_and_released_by_its_id(
    queue: AsyncQueue, harness: Harness, way: str
) -> None:
    sent = await UNHELD[way](queue)
    operator = harness.client().queue("orders")
    before = 1 if way in COUNTED else 0

    assert await operator.retry_messages(sent, delay=60, reason="by hand") == 1
    assert await counts(queue) == (0, 0, 1)
    assert await operator.release_messages(sent) == 1
    assert await operator.release_messages(sent) == 1
    assert await counts(queue) == (1, 0, 0)
    assert await operator.retry_messages(sent) == 1

    [message] = await queue.get_messages(timeout=5)
    assert (message.id, message.data, message.delivery_count) == (sent, "m", before + 1)
    assert [f.reason for f in message.failures] == ["by hand"]
    assert await queue.acknowledge_messages(message) == 1


@unheld
async def test_a_message_that_nobody_holds_is_made_a_dead_letter_by_its_id(
    queue: AsyncQueue, harness: Harness, way: str
) -> None:
    sent = await UNHELD[way](queue)
    operator = harness.client().queue("orders")

    assert await operator.move_to_dlq(sent, "by hand") == 1
    assert await operator.move_to_dlq(sent, "twice") == 0

    assert await counts(queue) == (0, 0, 0)
    [dead] = await queue.dlq.get_messages(timeout=5)
    assert (dead.id, dead.data, dead.error) == (sent, "m", "by hand")
    assert dead.delivery_count == (1 if way in COUNTED else 0)


async def test_a_received_message_stands_for_its_delivery_not_for_its_id(
    queue: AsyncQueue,
) -> None:
    await queue.send_message("m")
    [message] = await queue.get_messages()
    assert await queue.retry_messages(message, delay=60) == 1

    assert await queue.acknowledge_messages(message) == 0
    assert await queue.release_messages([message]) == 0
    assert await queue.retry_messages(message) == 0
    assert await queue.move_to_dlq(message) == 0

    assert await counts(queue) == (0, 0, 1)
    [shown] = await queue.peek_messages(ids=message.id)
    assert await queue.acknowledge_messages(shown) == 1  # which was looked at, not received


async def test_releasing_what_nobody_holds_uncounts_no_delivery(
    mq: Client, harness: Harness
) -> None:
    queue = mq.queue("short", lease=0.2)
    sent = await queue.send_message("kills")
    assert await harness.client().queue("short").get_messages()

    [again] = await queue.get_messages(timeout=5)
    assert await queue.release_messages(again) == 1
    operator = harness.client().queue("short")
    for _ in range(3):
        assert await operator.release_messages(sent) == 1

    [message] = await queue.get_messages(timeout=5)
    assert message.delivery_count == 2


async def test_no_call_takes_an_entry_for_the_message_of_that_id(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.declare()
    # The id of the second one is what the entry of the first one is called.
    await harness.inject("orders", b'"first"', entry="9000000000005-5", i="4-4", t="4")
    await harness.inject("orders", b'"second"', entry="9000000000006-6", i="9000000000005-5", t="5")
    both = {m.data: m for m in await queue.get_messages()}
    await queue.release_messages(both["first"])
    await queue.retry_messages(both["second"])
    operator = harness.client().queue("orders")
    second = both["second"].id

    [shown] = await operator.peek_messages(ids=second)
    assert shown.data == "second"
    assert await operator.retry_messages(second, delay=60) == 1
    assert [m.data for m in await operator.peek_messages(ids=second)] == ["second"]
    assert await operator.delete_messages(second) == 1
    for settle in (operator.delete_messages, operator.acknowledge_messages):
        assert await settle(second) == 0

    assert [m.data for m in await queue.get_messages()] == ["first"]


# --- purge


async def test_purge_deletes_everything_that_is_there(mq: Client, harness: Harness) -> None:
    queue = mq.queue("orders", lease=7, max_deliveries=3)
    await queue.send_message("dead")
    await queue.move_to_dlq(await queue.get_messages())
    await queue.send_messages(range(1_200))
    await queue.send_messages(Outgoing(n, delay=60) for n in range(2))
    held = await queue.get_messages(100)
    later, again, free = held[:3]
    await queue.retry_messages(later, delay=60)
    await queue.retry_messages(again)
    await queue.release_messages(free)
    theirs = await harness.client().queue("orders").get_messages(1)
    await queue.send_message("ready")

    assert await queue.purge() == 1_203
    assert await queue.purge() == 0

    assert await counts(queue) == (0, 0, 0)
    assert await queue.acknowledge_messages([*held, *theirs]) == 0
    kept = await queue.send_message("new")
    delayed = await queue.send_message("later", delay=60)
    assert [m.id for m in await queue.get_messages()] == [kept]
    assert [m.id for m in await queue.peek_messages(ids=delayed)] == [delayed]
    info = await queue.get_info()
    assert (info.lease, info.max_deliveries) == (7.0, 3)
    assert (await queue.dlq.get_info()).message_count == 1


async def test_purge_deletes_thousands_of_delayed_messages(queue: AsyncQueue) -> None:
    await queue.send_messages(Outgoing(n, delay=60) for n in range(1_203))
    await queue.send_message("ready")

    assert await queue.purge() == 1_204

    assert await counts(queue) == (0, 0, 0)


async def test_purge_of_a_queue_that_was_never_used_deletes_nothing(queue: AsyncQueue) -> None:
    assert await queue.purge() == 0
    assert await queue.dlq.purge() == 0
    assert await counts(queue) == (0, 0, 0)


@pytest.mark.on(*IN_MEMORY)
@pytest.mark.parametrize("how", ["purge", "delete"])
async def test_a_suspect_that_was_deleted_with_its_queue_holds_nothing_up(
    mq: Client, harness: Harness, how: str
) -> None:
    queue = mq.queue("risky", lease=60, max_deliveries=2)
    await queue.send_message("suspect")
    assert await harness.client().queue("risky").get_messages()
    harness.advance(61)
    [suspect] = await queue.get_messages(timeout=5)
    assert suspect.delivery_count == 2
    await mq.queue("orders").send_message("healthy")
    assert await mq.queue("orders").get_messages() == []  # it could kill the healthy one too

    assert await (queue.purge() if how == "purge" else queue.delete())

    assert [m.data for m in await mq.queue("orders").get_messages()] == ["healthy"]


# --- all queues


async def test_all_queues_are_listed_with_their_figures(mq: Client, harness: Harness) -> None:
    assert await mq.list_queues() == []
    orders, mails = mq.queue("orders", lease=7), mq.queue("mails/new", slot="shop")
    await mails.declare()
    await orders.send_messages(range(5))
    await orders.send_message("late", delay=60)
    a, b, _ = await orders.get_messages(3)
    await orders.move_to_dlq(a)
    await orders.release_messages(b)

    listed = await harness.client().list_queues()

    assert [(q.name, q.is_dlq) for q in listed] == [
        ("mails/new", False),
        ("mails/new", True),
        ("orders", False),
        ("orders", True),
    ]
    figures = [
        (q.message_count, q.ready_messages, q.pending_messages, q.delayed_messages) for q in listed
    ]
    assert figures == [(0, 0, 0, 0), (0, 0, 0, 0), (5, 3, 1, 1), (1, 1, 0, 0)]
    assert [q.slot for q in listed] == ["shop", "shop", "orders", "orders"]
    assert listed[2].lease == 7.0
    expected = [await q.get_info() for q in (mails, mails.dlq, orders, orders.dlq)]
    assert listed == expected


async def test_fifty_queues_are_listed_and_deleted_ones_are_gone(
    mq: Client, harness: Harness
) -> None:
    names = [f"q{n:02}" for n in range(50)]
    for name in names:
        await mq.queue(name).declare()
    other = harness.client()

    assert [q.name for q in await other.list_queues() if not q.is_dlq] == names
    for name in names[10:]:
        assert await mq.queue(name).delete()

    assert [q.name for q in await other.list_queues() if q.is_dlq] == names[:10]
    assert len(await mq.list_queues()) == 20


async def test_everything_can_be_received_after_it_was_looked_at(queue: AsyncQueue) -> None:
    ids = [await make(queue) for name, make in UNHELD.items() if name in ("ready", "retried")]
    for _ in range(3):
        await queue.peek_messages()
        await queue.peek_messages(ids=ids)
        await queue.pending_messages()

    assert {m.id for m in await drain(queue, 2)} == set(ids)
