"""``assert_sent`` and ``assert_sent_async``: what matches, and what a failure shows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import attrs
import pytest

from leanmq import AsyncLeanMQ, LeanMQ, Queue
from leanmq.testing import assert_sent, assert_sent_async


@attrs.frozen
class Order:
    item: str
    count: int = 1
    to: dict[str, str] = attrs.field(factory=dict)


@pytest.fixture
def mq() -> Iterator[LeanMQ]:
    with LeanMQ("memory://") as client:
        yield client


@pytest.fixture
def queue(mq: LeanMQ) -> Queue:
    return mq.queue("orders")


@pytest.fixture
async def async_mq() -> AsyncIterator[AsyncLeanMQ]:
    async with AsyncLeanMQ("memory://") as client:
        yield client


def failure(queue: Queue, match: Any = ..., *, count: int | None = None) -> str:
    """What a failing ``assert_sent`` says."""
    options: Any = {} if count is None else {"count": count}
    with pytest.raises(AssertionError) as failed:
        assert_sent(queue, match, **options)
    return str(failed.value)


# --- what matches


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        ("tea", "tea"),
        (None, None),
        (0, 0),
        ([1, [2]], (1, (2,))),
        ({}, {}),
        ({"id": 7, "item": "tea"}, {"id": 7, "item": "tea"}),
        ({"id": 7, "item": "tea"}, {"id": 7}),
        ({"to": {"name": "me", "town": "B"}, "id": 7}, {"to": {"town": "B"}}),
        ([{"id": 7, "item": "tea"}], [{"id": 7}]),
        ({"id": 7}, dict),
        ({"id": 7}, lambda order: order["id"] > 6),
        ({"id": 7}, ...),
    ],
)
def test_a_payload_matches(queue: Queue, sent: Any, match: Any) -> None:
    queue.send_message(sent)

    assert assert_sent(queue, match).data == sent


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        ("tea", "te"),
        (None, 0),
        ([1, 2], [1]),
        ({"id": 7}, {}),
        ({"id": 7}, {"id": 8}),
        ({"id": 7}, {"id": 7, "item": None}),
        ({"to": {"town": "B"}}, {"to": {"town": "B", "name": "me"}}),
        ({"id": 7}, str),
        ("tea", {"id": 7}),
        ({"id": 7}, {7: "id"}),
        ([7], {0: 7}),
        ({"id": 7}, lambda order: order["id"] > 7),
    ],
)
def test_another_payload_does_not_match(queue: Queue, sent: Any, match: Any) -> None:
    queue.send_message(sent)

    assert repr(sent) in failure(queue, match)
    assert assert_sent(queue, match, count=0) == []


def test_instances_match_by_value_type_or_fields(mq: LeanMQ) -> None:
    orders = mq.queue("orders", type=Order)
    order = Order("tea", to={"town": "B", "name": "me"})
    orders.send_message(order)

    for match in (order, Order, {"item": "tea"}, {"to": {"town": "B"}}, lambda o: o.count == 1):
        assert assert_sent(orders, match).data == order
    for other in (Order("tea"), {"item": "coffee"}, {"price": 1}):
        assert "Order(item='tea'" in failure(orders, other)


def test_nothing_is_taken_and_nothing_counted(queue: Queue) -> None:
    queue.send_message("tea")

    for _ in range(3):
        assert_sent(queue, "tea")

    [message] = queue.get_messages()
    assert message.delivery_count == 1


def test_the_message_has_all_that_it_was_sent_with(queue: Queue) -> None:
    sent = queue.send_message("tea", key="k", headers={"h": 1}, message_id="label")

    message = assert_sent(queue, "tea")

    assert (message.id, message.key, message.headers, message.message_id) == (
        sent, "k", {"h": 1}, "label"
    )  # fmt: skip


def test_delayed_messages_were_sent_too(queue: Queue) -> None:
    queue.send_message("later", delay=3600)
    queue.send_message("now")

    assert assert_sent(queue, "later").state == "delayed"
    assert [message.data for message in assert_sent(queue, count=2)] == ["now", "later"]


def test_the_first_of_several_is_returned_or_all(queue: Queue) -> None:
    first, second = queue.send_messages(["tea", "tea"])

    assert assert_sent(queue, "tea").id == first
    assert [message.id for message in assert_sent(queue, "tea", count=2)] == [first, second]


def test_a_queue_that_nobody_has_used_yet_is_empty(mq: LeanMQ) -> None:
    assert assert_sent(mq.queue("new"), count=0) == []


def test_dead_letters_can_be_looked_at(queue: Queue) -> None:
    queue.send_message("tea")
    queue.move_to_dlq(queue.get_messages(), "sold out")

    assert assert_sent(queue.dlq, "tea").error == "sold out"


# --- what a failure shows


def test_an_empty_queue_is_said_to_be_empty(queue: Queue) -> None:
    assert failure(queue, {"id": 7}) == (
        "queue 'orders' holds no messages that match {'id': 7}\n  nothing is ready or delayed there"
    )
    assert failure(queue.dlq).startswith("the dead letter queue of 'orders' holds no messages\n")


def test_a_failure_shows_what_is_there_and_where_else_to_look(queue: Queue) -> None:
    queue.send_messages(["held", "dead", "tea"])
    _, dead, _ = queue.get_messages()
    queue.move_to_dlq(dead)
    queue.release_messages(assert_held(queue, "tea"))
    queue.send_message("later", delay=60)

    assert failure(queue, "coffee") == (
        "queue 'orders' holds no messages that match 'coffee'\n"
        "  ready: 'tea'\n"
        "  delayed: 'later'\n"
        "  1 in flight, which were not looked at\n"
        "  1 among the dead letters, see queue.dlq"
    )


def assert_held(queue: Queue, data: str) -> str:
    [held] = [message.id for message in queue.pending_messages() if message.data == data]
    return held


def test_a_wrong_count_is_told(queue: Queue) -> None:
    queue.send_messages(["tea", "tea"])

    assert failure(queue, "tea", count=1) == (
        "queue 'orders' holds 2 messages that match 'tea', not 1\n  ready: 'tea'\n  ready: 'tea'"
    )
    assert failure(queue, count=0).startswith("queue 'orders' holds 2 messages, not 0\n")


def test_a_failure_stays_short(queue: Queue) -> None:
    queue.send_messages(["x" * 100_000] * 25)

    told = failure(queue, "y" * 100_000)

    assert told.endswith("\n  and 15 more")
    assert len(told) < 3000


def test_a_function_or_type_that_nothing_matches_is_named(queue: Queue) -> None:
    def is_urgent(_: object) -> bool:
        return False

    assert "match the function test_a_function_or" in failure(queue, is_urgent)
    assert "match the type Order" in failure(queue, Order)


def test_what_a_function_raises_is_told_with_the_payload(queue: Queue) -> None:
    queue.send_message({"item": "tea"})

    with pytest.raises(KeyError) as failed:
        assert_sent(queue, lambda order: order["id"] == 7)

    assert failed.value.__notes__ == [
        "assert_sent had asked its function about the payload {'item': 'tea'}"
    ]


def test_a_count_over_more_than_can_be_looked_at_is_no_success(queue: Queue) -> None:
    queue.send_messages(["tea"] * 1001)

    assert_sent(queue, "tea")
    told = failure(queue, "tea", count=1000)

    assert told.startswith("queue 'orders' holds more messages than assert_sent can count\n")
    assert "only 1,000 ready and 1,000 delayed messages were looked at" in told
    assert "only 1,000 ready" in failure(queue, "coffee")
    assert "only 1,000 ready" in failure(queue, "coffee", count=0)


@pytest.mark.parametrize(
    ("count", "error"), [(-1, ValueError), (True, TypeError), ("1", TypeError)]
)
def test_a_count_is_a_number(queue: Queue, count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="count"):
        assert_sent(queue, count=count)


# --- asyncio


async def test_asyncio_queues_are_looked_at_likewise(async_mq: AsyncLeanMQ) -> None:
    orders = async_mq.queue("orders")
    await orders.send_messages([{"id": 7}, {"id": 8}])

    assert (await assert_sent_async(orders, {"id": 8})).data == {"id": 8}
    assert len(await assert_sent_async(orders, count=2)) == 2
    with pytest.raises(AssertionError, match=r"holds no messages that match {'id': 9}\n  ready: "):
        await assert_sent_async(orders, {"id": 9})


async def test_a_queue_of_the_other_world_is_refused(mq: LeanMQ, async_mq: AsyncLeanMQ) -> None:
    other: Any = async_mq.queue("orders")
    with pytest.raises(TypeError, match="use 'await assert_sent_async"):
        assert_sent(other)
    other = mq.queue("orders")
    with pytest.raises(TypeError, match=r"belongs to a LeanMQ; use 'assert_sent\("):
        await assert_sent_async(other)
    other = None
    with pytest.raises(TypeError, match=r"assert_sent takes a queue, .*, not NoneType"):
        assert_sent(other)
