"""Sending many: options of their own, keys, laziness, chunks; and what to do when it stops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from leanmq import AsyncQueue, BulkSendError, MessageError, OutcomeUnknownError, Outgoing
from leanmq.backends.protocol import SendBatch
from leanmq.backends.streams.keys import queue_keys
from leanmq.backends.streams.scripts import script
from tests.contract.harness import SERVERS, Client, Harness, drain
from tests.support.faults import Trap

MIB = 1024 * 1024

on_servers = pytest.mark.on(*SERVERS)


# --- options and keys


async def test_items_with_and_without_options_keep_their_order(
    queue: AsyncQueue, mq: Client
) -> None:
    items: list[Any] = [
        0,
        Outgoing(1, key="k1"),
        Outgoing(2, headers={"h": 2}, message_id="m2"),
        3,
        4,
        Outgoing(5, ttl_seconds=60, dedup_id="d5"),
        Outgoing(6, key="k6", headers={}),
        Outgoing(7),
        8,
    ]

    ids = await queue.send_messages(items)
    messages = await queue.get_messages()

    if (await mq.open()).ordered:
        assert [m.id for m in messages] == ids
    assert {m.id: m.data for m in messages} == dict(zip(ids, range(9), strict=True))
    keys = {m.data: m.key for m in messages if m.key is not None}
    assert keys == {1: "k1", 6: "k6"}
    assert {m.data: m.headers for m in messages if m.headers} == {2: {"h": 2}}
    assert {m.data: m.message_id for m in messages if m.message_id} == {2: "m2"}


async def test_ids_of_delayed_items_stand_at_their_places(queue: AsyncQueue) -> None:
    ids = await queue.send_messages([0, Outgoing(1, delay=0.1), 2, Outgoing(3, delay=0.2), 4])

    found = {m.id: m.data for m in await drain(queue, 5)}

    assert [found[i] for i in ids] == [0, 1, 2, 3, 4]


async def test_many_items_of_many_kinds_all_come_with_what_is_theirs(queue: AsyncQueue) -> None:
    def item(n: int) -> Any:
        options: dict[str, Any] = {}
        if n % 2:
            options["key"] = f"key {n}"
        if n % 3 == 0:
            options["headers"] = {"n": n}
        if n % 5 == 0:
            options["message_id"] = f"id {n}"
        return Outgoing(n, **options) if options else n

    ids = await queue.send_messages(item(n) for n in range(1_100))
    messages = {m.id: m for m in await drain(queue, 1_100)}

    for n, sent in enumerate(ids):
        m = messages[sent]
        assert m.data == n
        assert m.key == (f"key {n}" if n % 2 else None)
        assert m.headers == ({"n": n} if n % 3 == 0 else {})
        assert m.message_id == (f"id {n}" if n % 5 == 0 else None)


def by_customer(order: dict[str, Any]) -> str | None:
    return order.get("customer")


@pytest.mark.in_detail
@pytest.mark.parametrize(
    ("key", "expected"),
    [("all", ["all", "all", "own"]), (by_customer, ["ann", None, "own"])],
    ids=["text", "function"],
)
async def test_a_key_for_all_is_a_text_or_made_from_the_payload(
    queue: AsyncQueue, key: Any, expected: list[str | None]
) -> None:
    items: list[Any] = [{"customer": "ann"}, Outgoing({"n": 2}), Outgoing({"n": 3}, key="own")]

    ids = await queue.send_messages(items, key=key)

    found = {m.id: m.key for m in await drain(queue, 3)}
    assert [found[i] for i in ids] == expected


# --- laziness and chunks


async def test_an_iterable_is_read_one_chunk_ahead_at_most(harness: Harness) -> None:
    read = sent = 0
    ahead: list[int] = []

    def watch(batch: SendBatch) -> None:
        nonlocal sent
        ahead.append(read - sent)
        sent += len(batch.messages)

    def items() -> Iterator[int]:
        nonlocal read
        for n in range(3 * chunk + 200):
            read += 1
            yield n

    mq = harness.watched(watch)
    chunk = (await mq.open()).best_batch
    ids = await mq.queue("orders").send_messages(items())

    assert len(ids) == 3 * chunk + 200
    assert ahead == [chunk, chunk, chunk, 200]


async def test_an_endless_iterable_is_sent_until_it_raises(
    mq: Client, queue: AsyncQueue, harness: Harness
) -> None:
    chunk = (await mq.open()).best_batch

    def items() -> Iterator[int]:
        n = 0
        while True:
            if n == 2 * chunk + 250:
                raise OSError("no more")
            yield n
            n += 1

    with pytest.raises(BulkSendError, match="OSError") as stopped:
        await queue.send_messages(items())

    assert list(stopped.value.confirmed) == list(range(2 * chunk))
    assert stopped.value.unsent == tuple(range(2 * chunk, 2 * chunk + 250))
    assert isinstance(stopped.value.__cause__, OSError)
    got = [m.data for m in await drain(queue, 2 * chunk)]
    assert harness.in_order(got) == list(range(2 * chunk))
    assert (await queue.get_info()).message_count == 0


@pytest.mark.in_detail
@pytest.mark.parametrize("kind", [list, tuple, set, iter, deque])
async def test_items_come_from_any_iterable(
    queue: AsyncQueue, kind: Callable[[list[int]], Any]
) -> None:
    assert len(await queue.send_messages(kind([1, 2, 3]))) == 3
    assert sorted(m.data for m in await drain(queue, 3)) == [1, 2, 3]


def large_payloads() -> Iterator[Any]:
    return iter(["x" * (3 * MIB // 2)] * 7)


def large_headers() -> Iterator[Any]:
    return (Outgoing(n, headers={"h": "x" * 16_000}) for n in range(600))


@pytest.mark.in_detail
@pytest.mark.parametrize(
    ("items", "count", "most"),
    [(large_payloads, 7, 3 * MIB // 2), (large_headers, 600, 16_100)],
    ids=["payloads", "headers"],
)
async def test_one_call_holds_four_mebibytes_and_one_message_at_most(
    harness: Harness, items: Callable[[], Iterator[Any]], count: int, most: int
) -> None:
    sizes: list[int] = []

    def watch(batch: SendBatch) -> None:
        bodies = sum(len(m.body) for m in batch.messages)
        headers = sum(len(m.terms.headers or b"") for m in batch.messages if m.terms)
        sizes.append(bodies + headers)

    queue = harness.watched(watch).queue("orders")
    ids = await queue.send_messages(items())

    assert len(set(ids)) == count
    assert max(sizes) <= 4 * MIB + most
    assert min(sizes[:-1]) >= 4 * MIB, "calls are no smaller than they need be"
    assert (await queue.get_info()).message_count == count


# --- bad items


class Sour:
    """No JSON."""


def sour(payload: Any) -> str:
    if payload == "sour":
        raise LookupError("no customer")
    return "sweet"


def no_text(payload: Any) -> Any:
    return 7 if payload == "sour" else "sweet"


BAD: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "no JSON": (Sour(), None, MessageError, r"item \d+: .*Sour.*not JSON"),
    "bad option": (Outgoing(1, ttl_seconds=-1), None, MessageError, r"item \d+: ttl_seconds is -1"),
    "bad type": (Outgoing(1, delay="soon"), None, TypeError, "delay must be seconds"),  # type: ignore[arg-type]  # what is tested
    "bad key": ("sour", no_text, TypeError, "key must be a str, not int"),
    "no key": ("sour", sour, LookupError, "no customer"),
    "too large": ("x" * 1_000, None, MessageError, r"item \d+ .*1,002 bytes.*max_payload_bytes"),
}


@pytest.mark.in_detail
@pytest.mark.parametrize("case", BAD)
async def test_a_chunk_with_a_bad_item_is_not_sent_and_the_item_is_named(
    mq: Client, case: str
) -> None:
    bad, key, kind, words = BAD[case]
    queue = mq.queue("orders", max_payload_bytes=500)
    chunk = (await mq.open()).best_batch

    with pytest.raises(kind, match=words):
        await queue.send_messages([*range(3), bad, 5], key=key)
    assert (await queue.get_info()).message_count == 0

    with pytest.raises(BulkSendError) as stopped:
        await queue.send_messages([*range(chunk + 2), bad, 5], key=key)
    error, cause = stopped.value, stopped.value.__cause__
    assert isinstance(cause, kind)
    assert f"item {chunk + 2}" in "\n".join([str(cause), *getattr(cause, "__notes__", ())])
    assert list(error.confirmed) == list(range(chunk))
    assert error.unknown == ()
    assert error.unsent[:3] == (chunk, chunk + 1, chunk + 2)
    assert (await queue.get_info()).message_count == chunk


# --- when it stops


def trap(harness: Harness, executed: bool) -> Trap:
    """The next send is executed and its answer lost, or the request itself is."""
    key = queue_keys(harness.prefix, "orders", "orders").live.stream
    sha = script("send").sha.encode()
    if executed:
        return harness.servers.drop_next_reply(key, sha)
    return harness.servers.cut_next_request(key, sha)


def trapped(harness: Harness, items: list[Any], at: int, executed: bool) -> Iterator[Any]:
    traps: list[Trap] = []
    for n, item in enumerate(items):
        if n == at:
            traps.append(trap(harness, executed))
        yield item


@on_servers
@pytest.mark.parametrize("executed", [True, False], ids=["stored", "not-stored"])
async def test_a_caller_who_looks_goes_on_without_losing_or_doubling_anything(
    queue: AsyncQueue, harness: Harness, executed: bool
) -> None:
    items = list(range(1_300))
    await queue.send_messages(["warm"])
    await drain(queue, 1)

    with pytest.raises(BulkSendError) as stopped:
        await queue.send_messages(trapped(harness, items, 600, executed))
    error = stopped.value
    assert isinstance(error.__cause__, OutcomeUnknownError)
    assert list(error.confirmed) == list(range(500))
    assert error.unknown == tuple(range(500, 1_000))
    stored = {m.data for m in await queue.peek_messages(1_000)}
    assert stored >= set(range(500))
    doubtful = [items[n] for n in error.unknown if items[n] not in stored]
    assert doubtful == ([] if executed else list(range(500, 1_000)))
    read = len(error.confirmed) + len(error.unknown) + len(error.unsent)
    await queue.send_messages([*doubtful, *(items[n] for n in error.unsent), *items[read:]])

    assert [m.data for m in await drain(queue, 1_300)] == items
    assert (await queue.get_info()).message_count == 0


@on_servers
@pytest.mark.parametrize("executed", [True, False], ids=["stored", "not-stored"])
async def test_a_caller_with_dedup_ids_just_sends_again_from_there(
    harness: Harness, executed: bool
) -> None:
    queue = harness.client(deadline=0).queue("orders")  # tries once: else LeanMQ would do it
    items = [Outgoing(n, dedup_id=f"item {n}") for n in range(1_300)]
    await queue.send_messages(["warm"])
    await drain(queue, 1)

    with pytest.raises(BulkSendError) as stopped:
        await queue.send_messages(trapped(harness, items, 600, executed))
    error = stopped.value
    assert error.unknown == tuple(range(500, 1_000))
    ids = [*error.confirmed.values(), *await queue.send_messages(items[len(error.confirmed) :])]

    messages = await drain(queue, 1_300)
    assert [m.data for m in messages] == list(range(1_300))
    assert [m.id for m in messages] == ids
    assert (await queue.get_info()).message_count == 0


@on_servers
async def test_a_first_chunk_in_doubt_is_told_as_unknown(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(["warm"])
    await drain(queue, 1)

    with pytest.raises(BulkSendError) as stopped:
        await queue.send_messages(trapped(harness, [1, 2, 3], 0, executed=True))

    assert stopped.value.confirmed == {}
    assert stopped.value.unknown == (0, 1, 2)
    assert stopped.value.unsent == ()
    assert stopped.value.in_doubt
    assert [m.data for m in await drain(queue, 3)] == [1, 2, 3]
