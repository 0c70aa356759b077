"""Numbered batches at the seam: what a backend stores of them, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from leanmq.backends.memory import MemoryServer, server
from leanmq.backends.protocol import (
    Backend,
    Declare,
    NewMessage,
    QueueRef,
    SendBatch,
    SendResult,
    Settings,
    Stats,
    Terms,
)
from leanmq.backends.registry import Options, open_backend
from leanmq.errors import BackendError, QueueFullError
from leanmq.testing import ManualClock

ORDERS = QueueRef("orders")
NAME = "sequences"


@pytest.fixture
def backend() -> Iterator[Backend]:
    opened = open_backend(f"memory://{NAME}", None, Options(prefix="mq:"))
    opened.open()
    opened.declare(Declare("orders", Settings(dedup_window=60.0)))
    yield opened
    opened.close()


def send(
    backend: Backend, sequence: int, *messages: NewMessage | bytes, producer: str = "p"
) -> list[SendResult]:
    whole = [m if isinstance(m, NewMessage) else NewMessage(m) for m in messages]
    return list(backend.send(SendBatch(ORDERS, whole, 0, producer, sequence)).results)


def count(backend: Backend) -> int:
    stats = backend.stats(Stats(ORDERS))
    return stats.ready + stats.delayed


def kept() -> list[bytes]:
    """What is remembered of producers."""
    memory: MemoryServer = server(NAME)
    words: list[bytes] = memory.execute("HGETALL", "mq:{orders}:ddp:orders")  # type: ignore[assignment]  # a list of bytes
    pairs = zip(words[::2], words[1::2], strict=True)
    return [value for name, value in pairs if name.startswith(b"s")]


def test_a_batch_that_comes_again_is_answered_and_not_stored(backend: Backend) -> None:
    first = send(backend, 1, *[b"1"] * 500)

    assert send(backend, 1, *[b"1"] * 500) == first
    assert len(set(first)) == count(backend) == 500


def test_ids_in_a_row_are_kept_in_few_bytes(backend: Backend) -> None:
    ids = send(backend, 1, *[b"1"] * 1_000)

    [value] = kept()
    milliseconds = {str(one).partition("-")[0] for one in ids}
    assert value.count(b"*") <= len(milliseconds)
    assert len(value) < 10 + 25 * len(milliseconds)


def test_a_batch_after_a_later_one_is_refused(backend: Backend) -> None:
    send(backend, 7, b"1")

    [refused] = send(backend, 6, b"2")

    assert isinstance(refused, BackendError)
    assert refused.code == "SEQUENCE"
    assert not refused.in_doubt
    assert count(backend) == 1


def test_a_gap_is_no_trouble(backend: Backend) -> None:
    send(backend, 9, b"1")
    send(backend, 1_000, b"2")

    assert count(backend) == 2


def test_numbers_count_as_numbers(backend: Backend) -> None:
    send(backend, 9, b"1")
    send(backend, 10, b"2")

    assert count(backend) == 2


def test_producers_do_not_mind_each_other(backend: Backend) -> None:
    ids = [send(backend, n, b"1", producer=name) for n in (1, 2) for name in ("p", "pp", "~", "")]

    assert len({one for [one] in ids}) == count(backend) == 8
    assert len(kept()) == 3


def test_a_producer_is_no_dedup_id(backend: Backend) -> None:
    send(backend, 1, b"1", producer="p")

    for dedup_id in ("p", "sqp", "qp", "s"):
        send(backend, 0, NewMessage(b"2", Terms(dedup_id=dedup_id)), producer="")

    assert count(backend) == 5


def test_a_mixed_batch_is_answered_with_all_kinds_of_ids(backend: Backend) -> None:
    [known] = send(backend, 0, NewMessage(b"0", Terms(dedup_id="a")), producer="")
    mixed = [
        NewMessage(b"1"),
        NewMessage(b"2", Terms(delay=60_000)),
        NewMessage(b"3", Terms(dedup_id="a")),
        NewMessage(b"4", Terms(key="k")),
        NewMessage(b"5", Terms(delay=60_000)),
    ]

    first = send(backend, 1, *mixed)

    assert send(backend, 1, *mixed) == first
    assert first[2] == known
    assert count(backend) == 5


def test_what_was_refused_by_a_full_queue_is_refused_again_and_stored_as_the_next_batch(
    backend: Backend,
) -> None:
    backend.declare(Declare("small", Settings(max_length=2)))
    small = QueueRef("small")
    three = [NewMessage(b"1"), NewMessage(b"2"), NewMessage(b"3")]
    first = backend.send(SendBatch(small, three, 0, "p", 1)).results

    again = backend.send(SendBatch(small, three, 0, "p", 1)).results

    assert list(again[:2]) == list(first[:2])
    assert isinstance(again[2], QueueFullError)
    # A batch of which nothing was stored may come again under its number.
    for _ in range(2):
        [refused] = backend.send(SendBatch(small, three[2:], 0, "p", 2)).results
        assert isinstance(refused, QueueFullError)


def test_after_twice_the_window_a_producer_is_forgotten(backend: Backend) -> None:
    with ManualClock() as clock:
        send(backend, 5, b"1")
        clock.advance(119)
        send(backend, 5, b"1")
        assert count(backend) == 1
        clock.advance(2)
        send(backend, 5, b"1")
        assert count(backend) == 2
        clock.advance(121)
        send(backend, 1, b"1", producer="other")
        assert len(kept()) == 1
