"""What operators find in the log: dead letters, take-overs, connections; never a payload."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from leanmq import AsyncQueue, LeanMQError
from tests.contract.harness import SERVERS, Harness, eventually

SECRET = "what was ordered"


@pytest.fixture(autouse=True)
def all_of_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "leanmq")


def told(caplog: pytest.LogCaptureFixture, event: str) -> list[tuple[str, str, str | None]]:
    """Logger, level and message of each record of an event."""
    return [
        (record.name, record.levelname, getattr(record, "leanmq_message", None))
        for record in caplog.records
        if getattr(record, "leanmq_event", None) == event
    ]


async def test_dead_letters_are_warnings_with_the_reason(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    queue = harness.client().queue("orders", max_deliveries=1, lease=0.3)
    moved, retried, dropped = [await queue.send_message(SECRET) for _ in range(3)]
    by_id = {m.id: m for m in await queue.get_messages(count=3, timeout=5)}
    while len(by_id) < 3:
        by_id |= {m.id: m for m in await queue.get_messages(count=3, timeout=5)}

    await queue.move_to_dlq(by_id[moved], "no such item")
    await queue.retry_messages(by_id[retried], reason="out of stock")
    await harness.inject("orders", b"{not json", f="")

    async def all_dead() -> bool:
        await queue.get_messages(timeout=0.1)
        return (await queue.dlq.get_info()).message_count == 4

    await eventually(all_dead, within=10)
    found = told(caplog, "dead_letter")
    assert {(name, level) for name, level, _ in found} == {("leanmq.queue", "WARNING")}
    assert {moved, retried, dropped} < {message for _, _, message in found}
    assert len(found) == 4
    for reason in ("no such item", "out of stock", "delivered 1 times", "undecodable"):
        assert reason in caplog.text


async def test_a_take_over_is_news(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    queue = harness.client().queue("orders", lease=0.3)
    sent = await queue.send_message(SECRET)
    await queue.get_messages(timeout=5)
    assert told(caplog, "taken_over") == []

    again = await harness.client().queue("orders").get_messages(timeout=10)

    assert [message.id for message in again] == [sent]
    assert told(caplog, "taken_over") == [("leanmq.queue", "INFO", sent)]


async def test_a_retry_and_a_release_are_no_take_over(
    queue: AsyncQueue, caplog: pytest.LogCaptureFixture
) -> None:
    await queue.send_message(SECRET)
    await queue.release_messages(await queue.get_messages(timeout=5))
    await queue.retry_messages(await queue.get_messages(timeout=5))
    assert await queue.get_messages(timeout=5)

    assert told(caplog, "taken_over") == []


async def test_single_messages_are_told_to_those_who_look_closely(
    queue: AsyncQueue, caplog: pytest.LogCaptureFixture
) -> None:
    one, *others = await queue.send_messages([SECRET] * 2), await queue.send_message(SECRET)
    ids = [*one, *others]
    for _ in range(20):
        messages = await queue.get_messages(timeout=5)
        await queue.acknowledge_messages(messages)
        if len(told(caplog, "acknowledge")) == 3:
            break

    for event in ("sent", "received", "acknowledge"):
        assert sorted(told(caplog, event)) == sorted(("leanmq.queue", "DEBUG", i) for i in ids)
    assert SECRET not in caplog.text


async def test_a_message_shows_what_it_is_and_not_all_of_a_large_payload(queue: AsyncQueue) -> None:
    sent = await queue.send_message({"text": "x" * 1_000})

    [message] = await queue.get_messages(timeout=5)

    assert repr(message) == f"<Message {sent} of 'orders', delivery 1: {{'text': '{'x' * 67}...>"
    assert len(repr(message)) < 200


@pytest.mark.on(*SERVERS)
async def test_a_connection_that_is_lost_and_made_again_is_told_once_each(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    queue = harness.client(deadline=0.2, connection_timeout=0.3).queue("orders")
    await queue.send_message(SECRET)
    proxy = harness.servers.proxy_for(f"{harness.prefix}{{orders}}:q:orders")

    proxy.hold()
    for _ in range(3):
        with pytest.raises(LeanMQError):
            await queue.get_info()
    proxy.resume()

    async def back() -> bool:
        try:
            return bool((await queue.get_info()).message_count)
        except LeanMQError:
            return False

    await eventually(back, within=20)
    await queue.get_info()
    lost, restored = told(caplog, "connection_lost"), told(caplog, "connection_restored")
    assert {name for name, _, _ in lost + restored} == {"leanmq.connection"}
    address = f"127.0.0.1:{proxy.port}"
    of_it = [r.leanmq_event for r in caplog.records if getattr(r, "leanmq_address", 0) == address]  # type: ignore[attr-defined]  # extra=
    assert of_it[:1] == ["connection_lost"]
    assert of_it[-1:] == ["connection_restored"]
    assert all(one != other for one, other in pairwise(of_it))
