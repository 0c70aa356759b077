"""Batching producers on a backend that does as a test tells it: lanes, parts, broken promises.

Of two shards, keys "a" go to one, keys "g" to the other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from leanmq import BatchingProducer, ConnectionError, NotSentError, OutcomeUnknownError
from leanmq.backends.protocol import (
    Capabilities,
    Declare,
    Declared,
    QueueRef,
    SendBatch,
    SendResult,
    Sent,
    Settings,
)
from leanmq.errors import BackendError
from leanmq.policy.core import ClientCore, ClientTerms
from leanmq.policy.limits import Limits, limits_of
from leanmq.policy.logic import QueueLogic
from tests.support.waiting import wait_until

LONG = 600.0
DECLARED = Settings(60.0, 10, 0, "raise", 1_000, 3_600.0, "orders")
REFUSED = ConnectionError("nobody listens")
LOST = OutcomeUnknownError("the reply was lost")


class Told:
    """A backend that stores what it is not told to refuse, and remembers what it was asked."""

    def __init__(self, answer: Callable[[SendBatch], Any], **capabilities: Any) -> None:
        self._answer = answer
        self._capabilities = Capabilities("told", **capabilities)
        self.asked: list[SendBatch] = []
        self.stored: list[bytes] = []

    def open(self) -> Capabilities:
        return self._capabilities

    def declare(self, request: Declare) -> Declared:
        shards = request.settings.shards or 0
        return Declared(attrs.evolve(DECLARED, shards=shards), False, 0.0, 1)

    def send(self, batch: SendBatch) -> Sent:
        self.asked.append(batch)
        answer = self._answer(batch)
        results: list[SendResult] = []
        for place, message in enumerate(batch.messages):
            given = answer[place] if isinstance(answer, Sequence) else answer
            if given is None:
                self.stored.append(message.body)
                given = f"id {message.body.decode()}"
            results.append(given)
        return Sent(results)


def limits(**given: Any) -> Limits:
    whole = {
        "linger": LONG, "max_batch": 500, "max_bytes": 10**6, "max_buffered": 10_000,
        "max_buffered_bytes": 10**8, "max_block": 10.0, "dedup": True,
    }  # fmt: skip
    return limits_of(**(whole | given))


@contextmanager
def producing(
    backend: Any, *, shards: int | None = None, deadline: float = 30, **given: Any
) -> Iterator[BatchingProducer[Any]]:
    core = ClientCore("told", ClientTerms(deadline=deadline))
    logic = QueueLogic(core, QueueRef("orders"), Settings(shards=shards))
    with BatchingProducer[Any](backend, logic, limits(**given)) as producer:
        yield producer


def outcomes(futures: Sequence[Future[str]]) -> list[Any]:
    return [future.exception(20) or future.result(0) for future in futures]


def test_a_lane_that_fails_holds_up_no_other() -> None:
    down = threading.Event()
    down.set()

    def answer(batch: SendBatch) -> Any:
        terms = batch.messages[0].terms
        return REFUSED if down.is_set() and terms and terms.key == "a" else None

    backend = Told(answer)
    with producing(backend, shards=2, linger=0) as producer:
        stuck = [producer.send_message(n, key="a") for n in range(3)]
        others = [producer.send_message(n, key="g") for n in range(3, 6)]
        assert outcomes(others) == ["id 3", "id 4", "id 5"]
        others = [producer.send_message(n, key="g") for n in range(6, 9)]
        assert outcomes(others) == ["id 6", "id 7", "id 8"]
        assert not any(future.done() for future in stuck)
        down.clear()
        assert outcomes(stuck) == ["id 0", "id 1", "id 2"]

    assert [body for body in backend.stored if body < b"3"] == [b"0", b"1", b"2"]


def test_a_failure_with_a_key_fails_its_own_lane_alone() -> None:
    backend = Told(lambda batch: LOST if batch.messages[0].body == b"0" else None)
    with producing(backend, shards=2, max_batch=1, linger=LONG) as producer:
        hold = producer._sender()._lock  # so that all are handed over before the first one goes
        with hold:
            lane = [producer.send_message(n, key="a") for n in range(3)]
            other = [producer.send_message(n, key="g") for n in range(3, 6)]
        unknown, *behind = outcomes(lane)

        assert outcomes(other) == ["id 3", "id 4", "id 5"]

    assert isinstance(unknown, OutcomeUnknownError)
    assert [type(error) for error in behind] == [NotSentError] * 2
    assert sorted(backend.stored) == [b"3", b"4", b"5"]


def test_each_lane_has_a_name_of_its_own_and_counts_its_batches() -> None:
    backend = Told(lambda batch: None, sequences=True)
    with producing(backend, shards=2) as producer:
        for n in range(3):
            for key in "ag":
                producer.send_message(n, key=key)
            producer.flush()

    by_lane: dict[str, list[int]] = {}
    for batch in backend.asked:
        by_lane.setdefault(batch.producer, []).append(batch.sequence)
    assert all(len(name) == 12 for name in by_lane)
    assert list(by_lane.values()) == [[1, 2, 3], [1, 2, 3]]


def test_a_queue_that_turns_out_to_be_in_shards_has_its_lanes_from_then_on() -> None:
    first, go_on = threading.Event(), threading.Event()

    class Unknown(Told):
        def declare(self, request: Declare) -> Declared:
            first.set()
            assert go_on.wait(20)
            return Declared(attrs.evolve(DECLARED, shards=2), False, 0.0, 1)

    backend = Unknown(lambda batch: None, sequences=True)
    with producing(backend, linger=0, max_batch=3) as producer:
        futures = []
        for n in range(10):
            futures.append(producer.send_message(n, key="ag"[n % 2]))
            if n == 3:
                assert first.wait(20)
        assert futures[9].cancel()
        flushed = threading.Thread(target=producer.flush)
        flushed.start()
        go_on.set()
        flushed.join(20)
        assert all(future.done() for future in futures)
        assert producer.buffered == 0
        futures.append(producer.send_message(10, key="a"))

    assert outcomes([*futures[:9], futures[10]]) == [f"id {n}" for n in (*range(9), 10)]
    assert {batch.shard for batch in backend.asked} == {0, 1}
    assert all(batch.producer for batch in backend.asked)
    for shard, own in ((1, [0, 2, 4, 6, 8, 10]), (0, [1, 3, 5, 7])):
        asked = [batch for batch in backend.asked if batch.shard == shard]
        assert [int(m.body) for batch in asked for m in batch.messages] == own


def test_at_most_one_batch_of_a_lane_is_under_way() -> None:
    under_way = threading.Semaphore(1)

    def answer(batch: SendBatch) -> None:
        assert under_way.acquire(blocking=False)
        under_way.release()

    with producing(Told(answer), max_batch=3, linger=0) as producer:
        futures = [producer.send_message(n) for n in range(100)]

    assert outcomes(futures) == [f"id {n}" for n in range(100)]


def test_a_batch_is_no_larger_than_the_backend_takes() -> None:
    fail_once = iter([None, None, LOST, *[None] * 10])
    backend = Told(lambda batch: next(fail_once), max_batch=3, sequences=True)
    with producing(backend) as producer:
        futures = [producer.send_message(n) for n in range(10)]

    assert outcomes(futures) == [f"id {n}" for n in range(10)]
    assert [len(batch.messages) for batch in backend.asked] == [3, 3, 3, 3, 1]
    assert [batch.sequence for batch in backend.asked] == [1, 2, 3, 3, 4]


def test_what_is_in_doubt_is_sent_again_as_it_was_and_what_is_not_under_the_next_number() -> None:
    answers = iter([LOST, REFUSED, LOST, [None, None, REFUSED, REFUSED], None])
    backend = Told(lambda batch: next(answers), sequences=True)
    with producing(backend) as producer:
        futures = [producer.send_message(n) for n in range(4)]

    assert outcomes(futures) == ["id 0", "id 1", "id 2", "id 3"]
    asked = [(batch.sequence, len(batch.messages)) for batch in backend.asked]
    assert asked == [(1, 4), (1, 4), (1, 4), (1, 4), (2, 2)]


def test_a_refusal_after_a_doubt_leaves_the_doubt() -> None:
    answers = iter([LOST, *[REFUSED] * 1_000])
    with producing(Told(lambda batch: next(answers), sequences=True), deadline=0.2) as producer:
        futures = [producer.send_message(n) for n in range(2)]

    assert [type(error) for error in outcomes(futures)] == [OutcomeUnknownError] * 2


def test_numbers_are_left_out_where_they_are_not_wanted_or_not_known() -> None:
    for wanted, capable in ((False, True), (True, False)):
        backend = Told(lambda batch: LOST, sequences=capable)
        with producing(backend, dedup=wanted, linger=0) as producer:
            [error] = outcomes([producer.send_message(1)])
        assert isinstance(error, OutcomeUnknownError)
        assert [(batch.producer, batch.sequence) for batch in backend.asked] == [("", 0)]


def test_a_backend_that_breaks_its_promise_does_not_end_the_producer() -> None:
    answers: Iterator[Any] = iter([ZeroDivisionError("oops"), None])

    def answer(batch: SendBatch) -> None:
        if (error := next(answers)) is not None:
            raise error

    with producing(Told(answer)) as producer:
        first = producer.send_message(1)
        producer.flush()
        second = producer.send_message(2)

    [error, stored] = outcomes([first, second])
    assert isinstance(error, OutcomeUnknownError)
    assert isinstance(error.__cause__, BackendError | ZeroDivisionError)
    assert "ZeroDivisionError" in str(error)
    assert stored == "id 2"


def test_the_deadline_counts_from_when_a_message_was_handed_over() -> None:
    backend = Told(lambda batch: REFUSED)
    with producing(backend, deadline=0.3, max_batch=1, linger=0) as producer:
        futures = [producer.send_message(n) for n in range(20)]
        errors = outcomes(futures)

    assert {type(error) for error in errors} == {ConnectionError}
    last = [batch for batch in backend.asked if batch.messages[0].body == b"19"]
    assert len(last) == 1, "it had waited behind the others for as long as it may be tried"


def test_closing_leaves_alone_what_is_under_way_until_its_result_comes() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer(batch: SendBatch) -> None:
        begun.set()
        assert go_on.wait(20)

    with producing(Told(answer), max_batch=1) as producer:
        under_way = producer.send_message(1)
        assert begun.wait(20)
        waiting = producer.send_message(2)
        producer.close(timeout=0.05)

        assert isinstance(waiting.exception(0), NotSentError)
        assert not under_way.done()
        assert producer.buffered == 1
        go_on.set()
        assert under_way.result(20) == "id 1"
        wait_until(lambda: producer.buffered == 0, 20, "an empty producer")


def test_closing_gives_up_what_would_go_to_other_lanes_or_comes_after_what_is_under_way() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Told):
        shards = 0

        def declare(self, request: Declare) -> Declared:
            begun.set()
            assert go_on.wait(20)
            return Declared(attrs.evolve(DECLARED, shards=self.shards), False, 0.0, 1)

    for shards, most, stored in ((2, 500, []), (0, 3, ["id 0", "id 1", "id 2"])):
        begun.clear()
        go_on.clear()
        backend = Slow(lambda batch: None, max_batch=most, sequences=True)
        backend.shards = shards
        with producing(backend, max_batch=10) as producer:
            futures = [producer.send_message(n, key="ag"[n % 2]) for n in range(10)]
            assert begun.wait(20)
            producer.close(timeout=0.05)
            assert producer.buffered == 10
            go_on.set()
            results = outcomes(futures)
            producer.close()

        assert producer.buffered == 0
        assert [one for one in results if isinstance(one, str)] == stored
        assert {type(one) for one in results if not isinstance(one, str)} == {NotSentError}


def test_a_backend_that_raises_anything_while_it_declares_does_not_end_the_producer() -> None:
    class Broken(Told):
        broken = True

        def declare(self, request: Declare) -> Declared:
            if self.broken:
                raise ZeroDivisionError("oops")
            return super().declare(request)

    backend = Broken(lambda batch: None)
    with producing(backend) as producer:
        first = producer.send_message(1)
        producer.flush()
        backend.broken = False
        second = producer.send_message(2)

    [error, stored] = outcomes([first, second])
    assert isinstance(error, BackendError)
    assert not error.in_doubt
    assert stored == "id 2"


def test_a_backend_that_answers_too_few_results_leaves_a_doubt() -> None:
    class Fewer(Told):
        def send(self, batch: SendBatch) -> Sent:
            return Sent(super().send(batch).results[:-1])

    with producing(Fewer(lambda batch: None)) as producer:
        futures = [producer.send_message(n) for n in range(3)]

    assert [type(error) for error in outcomes(futures)] == [OutcomeUnknownError] * 3
    assert "please report" in str(outcomes(futures)[0])


def test_a_cancelled_message_makes_room() -> None:
    with producing(Told(lambda batch: None), max_buffered=3) as producer:
        for _ in range(5):
            futures = [producer.send_message(n) for n in range(2)]
            assert all(future.cancel() for future in futures)
            producer.flush()
            assert producer.buffered == 0


@pytest.mark.parametrize("times", range(3))
def test_many_threads_share_a_producer(times: int) -> None:
    backend = Told(lambda batch: None)
    with producing(backend, linger=0, max_batch=10, max_buffered=30) as producer:
        told: dict[int, list[Any]] = {}

        def work(number: int) -> None:
            futures = [producer.send_message(number * 1_000 + n) for n in range(300)]
            told[number] = outcomes(futures)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    for number in range(1, 6):
        mine = [number * 1_000 + n for n in range(300)]
        assert told[number] == [f"id {n}" for n in mine]
        assert [int(body) for body in backend.stored if int(body) // 1_000 == number] == mine


@pytest.mark.parametrize("moment", ["it is sent", "its future is told"])
def test_what_fails_while_the_interpreter_ends_is_told_once(
    moment: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("leanmq.policy.limits.AT_EXIT", 0.1)
    go_on = threading.Event()

    def hold_up(when: str) -> None:
        if when == moment:
            assert go_on.wait(20)

    def answer(batch: SendBatch) -> Any:
        hold_up("it is sent")
        return LOST

    with producing(Told(answer)) as producer:
        sender = producer._sender()
        future = producer.send_message(1)
        future.add_done_callback(lambda _: hold_up("its future is told"))
        with pytest.warns(ResourceWarning):
            sender._leave()
        go_on.set()
        assert sender._thread is not None
        sender._thread.join(20)

    counts = [vars(r)["leanmq_count"] for r in caplog.records if hasattr(r, "leanmq_count")]
    assert counts == [1]
