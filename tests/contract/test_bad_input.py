"""Payloads and names that cannot be: refused before anything is stored, or stored exactly.

No payload comes back changed without a word. The one exception is what JSON has another form for,
and it is listed here.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import pickle
import uuid
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, cast

import attrs
import msgspec
import pytest

from leanmq import AsyncQueue, BulkSendError, MessageError, Outgoing
from tests.contract.harness import Client, Harness, drain

NAN, INFINITY = float("nan"), float("inf")


def nested(depth: int, inside: Any = None) -> Any:
    """A list in a list in a list, ``depth`` of them."""
    return functools.reduce(lambda inner, _: [inner], range(depth), inside)


def depth_of(payload: Any) -> int:
    """How deep a nested list goes. Neither ``==`` nor ``repr`` could tell."""
    depth = 0
    while isinstance(payload, list):
        depth += 1
        payload = payload[0]
    return depth


def holding_itself() -> Any:
    loop: dict[str, Any] = {}
    loop["self"] = [loop]
    return loop


class Amount(int):
    """A number that only Python knows."""


REFUSED: dict[str, tuple[Any, str, str]] = {  # a payload, the reason, the cure
    "an object": (object(), "objects of type object", "send dicts"),
    "a function": (len, "builtin_function", "send dicts"),
    "a class": ({"kind": int}, "objects of type type", "send dicts"),
    "a complex number": ([1j], "objects of type complex", "send dicts"),
    "an iterator": (iter([1]), "list_iterator", "send dicts"),
    "a deque": ({"a": deque([1])}, "collections.deque", "send dicts"),
    "a subclass of int": ([Amount(3)], "Amount", "send dicts"),
    "an exception": (ValueError("x"), "ValueError", "send dicts"),
    "None as a key": ({None: 1}, "keys", "send dicts"),
    "a boolean as a key": ({True: 1}, "keys", "send dicts"),
    "a tuple as a key": ({"a": [{(1, 2): 3}]}, "keys", "send dicts"),
    "a bomb of lists": (nested(100_000), "nested too deeply", "send less"),
    "a loop": (holding_itself(), "holds itself", "send less"),
    "NaN": (NAN, "NaN", "send None"),
    "negative NaN": (-NAN, "NaN", "send None"),
    "Infinity": (INFINITY, "Infinity", "send None"),
    "-Infinity in a list": ([1.5, -INFINITY], "Infinity", "send None"),
    "NaN beside None": ({"a": None, "b": {"c": [NAN]}}, "NaN", "send None"),
    "NaN beside a tuple and a huge int": ((None, 10**30, NAN), "NaN", "send None"),
    "half of a surrogate pair": ("\ud800", "surrogate", "mend the string"),
    "a surrogate in a key": ([{"x\udfff": 1}], "surrogate", "mend the string"),
    "surrogates that Python did not join": ("\ud83d\ude00", "surrogate", "mend the string"),
    "an int of 5000 digits": ({"n": 10**5_000}, "4300 digits", "set_int_max_str_digits"),
}


async def test_a_payload_that_cannot_be_sent_is_refused_and_nothing_is_stored(
    queue: AsyncQueue,
) -> None:
    for payload, reason, cure in REFUSED.values():
        kind = type(payload).__name__

        with pytest.raises(MessageError, match=rf"^cannot send a payload of type {kind}:") as one:
            await queue.send_message(payload)
        with pytest.raises(MessageError, match=rf"^item 2: cannot send a .* {kind}:") as many:
            await queue.send_messages([1, Outgoing(2), payload, 4])
        with pytest.raises(MessageError, match=rf"^item 0: cannot send a .* {kind}:"):
            await queue.send_messages([Outgoing(payload)])

        for error in (one.value, many.value):
            assert reason in str(error)
            assert cure in str(error)
            assert (error.queue, error.retryable, error.in_doubt) == ("orders", False, False)
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), vars(copy)) == (MessageError, str(error), vars(error))

    assert (await queue.get_info()).message_count == 0
    await queue.send_message("still of use")
    assert [m.data for m in await queue.get_messages()] == ["still of use"]


async def test_a_bulk_send_tells_what_it_stored_before_a_payload_that_cannot_be_sent(
    mq: Client, queue: AsyncQueue, harness: Harness
) -> None:
    chunk = (await mq.open()).best_batch
    words = rf"after {chunk} messages.*item {chunk + 200}: .*NaN"
    with pytest.raises(BulkSendError, match=words) as stopped:
        await queue.send_messages([*range(chunk + 200), NAN, *range(5)])

    error = stopped.value
    assert list(error.confirmed) == list(range(chunk))
    assert (error.unknown, error.unsent) == ((), tuple(range(chunk, chunk + 201)))
    assert type(error.__cause__) is MessageError
    assert harness.in_order([m.data for m in await drain(queue, chunk)]) == list(range(chunk))


EXACT: dict[str, Any] = {
    "an int of 401 digits": 10**400,
    "a negative one": [-(10**400)],
    "the longest int": 10**4_299,
    "ints around 64 bits": [2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63) - 1],
    "the largest floats": [1.7976931348623157e308, -1.7976931348623157e308],
    "the smallest floats": [5e-324, 2.2250738585072014e-308, -0.0, 0.0],
    "floats that are ints": [1.0, 1e22, 123456789012345680.0],
    "floats with all their digits": [0.1 + 0.2, 1 / 3, 1e-7],
    "bits like those of NaN": [None, 0x7FF8CB7FF8000000, 0xCB7FF8, 2.1e-311],
    "null in every disguise": ["null", None, {"null": None}, "NaN", "\\ud800"],
    "lists in lists": nested(200, inside=1.5),
    "dicts in dicts": {"a": {"b": {"c": {"d": {"e": {"f": {"g": [{"h": None}]}}}}}}},
    "control characters": ["\x00", "\x1f\x7f", "\r\n\t", '"\\/', "\u2028\u2029", "\ufeff"],
    "all of Unicode": ["ž", "\ud7ff\ue000\uffff", "\U0001f600", "\U0010ffff"],
    "odd keys": {"": 1, "\x00": 2, "a.b": 3, "__class__": 4, "k" * 10_000: 5, "1": 6},
    "much text": "x" * 200_000,
    "many items": list(range(10_000)),
}


async def test_an_extreme_payload_comes_back_exactly(queue: AsyncQueue, harness: Harness) -> None:
    payloads = list(EXACT.values())
    for payload in payloads:
        await queue.send_message(payload)
    await queue.send_messages(payloads)
    await queue.send_messages(map(Outgoing, payloads))

    messages = await drain(queue, 3 * len(payloads))

    # Not by ==, for which 1 is 1.0 and 0.0 is -0.0.
    texts = [repr(m.data) for m in messages]
    if not harness.router:
        assert texts == [repr(payload) for payload in payloads] * 3
    came_back = Counter(texts)
    for what, payload in EXACT.items():
        assert came_back.pop(repr(payload), 0) == 3, what
    assert not came_back


class Colour(enum.Enum):
    """Stands for its value."""

    RED = "red"


@attrs.frozen
class Item:
    """Stands for its fields."""

    sku: str


class Total(msgspec.Struct):
    """Stands for its fields."""

    cents: int


OTHER_FORMS: dict[str, tuple[Any, Any]] = {  # what is sent, and what is received
    "tuples": ((1, (2,)), [1, [2]]),
    "sets": ([{1}, frozenset({"a"})], [[1], ["a"]]),
    "numbers as keys": ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
    "bytes": ([b"\x00\xff", bytearray(b"ab")], ["AP8=", "YWI="]),
    "a time": (
        datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC),
        "2026-03-01T12:00:00Z",
    ),
    "a date": ({"on": datetime.date(2026, 3, 1)}, {"on": "2026-03-01"}),
    "a duration": (datetime.timedelta(days=1), "P1D"),
    "a decimal number": (decimal.Decimal("1.10"), "1.10"),
    "a UUID": (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    "an enum": ([Colour.RED, {Colour.RED: 1}], ["red", {"red": 1}]),
    "classes of values": ([Item("A-1"), Total(5)], [{"sku": "A-1"}, {"cents": 5}]),
}


async def test_what_json_has_another_form_for_comes_back_in_that_form(
    queue: AsyncQueue, harness: Harness
) -> None:
    payloads, forms = map(list, zip(*OTHER_FORMS.values(), strict=True))
    for payload in payloads:
        await queue.send_message(payload)
    await queue.send_messages([*payloads, None])

    messages = await drain(queue, 2 * len(payloads) + 1)

    expected = [*forms, *forms, None]
    got = [m.data for m in messages]
    assert harness.in_order(got, key=repr) == harness.in_order(expected, key=repr)


async def test_whatever_depth_can_be_sent_can_be_received(
    queue: AsyncQueue, harness: Harness
) -> None:
    accepted = []
    for depth in range(880, 1_010, 2):  # around Python's limit, less what stack is in use
        try:
            await queue.send_message(nested(depth))
        except MessageError:
            continue
        accepted.append(depth)

    async def deeper(levels: int) -> list[int]:
        """Receive from a stack that is deeper than the senders'."""
        if levels:
            return await deeper(levels - 1)
        return [depth_of(m.data) for m in await drain(queue, len(accepted))]

    assert accepted
    assert harness.in_order(await deeper(100)) == accepted
    assert (await queue.dlq.get_info()).message_count == 0


# --- names


NAMES = {
    "empty": "",
    "a space": "a b",
    "braces": "{orders}",
    "a closing brace": "a}b",
    "an opening brace": "a{b",
    "a star": "orders*",
    "a question mark": "order?",
    "brackets": "order[sz]",
    "a backslash": "a\\b",
    "a newline": "orders\n",
    "a carriage return": "a\r\nFLUSHALL\r\n",
    "NUL": "a\x00b",
    "a letter that is not ASCII": "žluť",
    "a digit that is not ASCII": "٣",
    "half of a surrogate pair": "\ud800",
    "a quote": "a'b",
    "201 characters": "x" * 201,
    "many characters": "x" * 10_000,
}


async def test_a_name_that_no_queue_can_have_is_refused_and_nothing_is_stored(
    mq: Client, harness: Harness
) -> None:
    for name in NAMES.values():
        with pytest.raises(ValueError, match=r"^queue name ") as refused:
            mq.queue(name)

        text = str(refused.value)
        assert repr(name[:20])[1:-1] in text
        assert text.endswith("; use 1 to 200 of A-Z a-z 0-9 . _ : / -")
        assert len(text) < 200
        assert text.isprintable()  # and so can be logged

    for unfit in [None, 7, 1.5, True, b"orders", ["orders"], ("a", "b"), object()]:
        kind = type(unfit).__name__
        with pytest.raises(TypeError, match=rf"^queue name must be a str, not {kind}$"):
            mq.queue(cast("str", unfit))

    assert await harness.keys() == []


async def test_every_name_that_is_allowed_is_a_queue_of_its_own(mq: Client) -> None:
    names = [".", "..", "-", ":", "::", "/", "//", "_", "a", "A", "0", "q:a", "d:a", "x" * 200]
    for name in names:
        await mq.queue(name).send_message(name)

    for name in names:
        assert [m.data for m in await drain(mq.queue(name), 1)] == [name]
        assert (await mq.queue(name).get_info()).message_count == 0


# --- other arguments


UNFIT: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda q: q.get_messages(0), ValueError, "count is 0; receive 1 to 1000"),
    (lambda q: q.get_messages(1_001), ValueError, "count is 1001; receive 1 to 1000"),
    (lambda q: q.get_messages(True), TypeError, "count must be an int, not bool"),
    (lambda q: q.get_messages("9"), TypeError, "count must be an int, not str"),
    (lambda q: q.get_messages(timeout=-1), ValueError, "timeout is -1"),
    (lambda q: q.get_messages(timeout=NAN), ValueError, "timeout is nan"),
    (lambda q: q.get_messages(timeout="9"), TypeError, "timeout must be seconds"),
    (lambda q: q.retry_messages([], delay=-1), ValueError, "delay is -1"),
    (lambda q: q.retry_messages([], delay=NAN), ValueError, "delay is nan"),
    (lambda q: q.acknowledge_messages(b"1-0"), TypeError, "expected message ids"),
    (lambda q: q.acknowledge_messages([7]), TypeError, "expected message ids"),
    (lambda q: q.send_messages(7), TypeError, "not iterable"),
]


async def test_an_argument_that_cannot_be_is_refused(queue: AsyncQueue) -> None:
    await queue.send_message("stays")

    for call, kind, match in UNFIT:
        with pytest.raises(kind, match=match):
            await call(queue)

    assert (await queue.get_info()).ready_messages == 1


async def test_an_id_that_no_message_can_have_is_not_counted_and_harms_nothing(
    queue: AsyncQueue,
) -> None:
    ids = ["", " ", "-", "+", ">", "$", "*", "0-0", "1-1-1", "9" * 40, "\ud800", "\0", "1-0\r\n"]
    await queue.send_message("stays")

    for messages in [*ids, ids]:
        assert await queue.acknowledge_messages(messages) == 0
        assert await queue.move_to_dlq(messages) == 0
        assert await queue.retry_messages(messages) == 0
        assert await queue.release_messages(messages) == 0
        assert await queue.extend_messages(messages) == 0

    assert [m.data for m in await drain(queue, 1)] == ["stays"]
