"""Receipts, lanes and suspects, without a server."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from leanmq.backends.protocol import Delivery, Held, QueueRef
from leanmq.policy.inflight import LAPSED_KEPT, InFlight, Pause
from tests.support.clock import FakeClock

ORDERS, OTHERS = QueueRef("orders"), QueueRef("others")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def inflight(clock: FakeClock) -> InFlight:
    return InFlight(clock)


def delivery(name: str, *, suspect: bool = False, receipt: str = "") -> Delivery:
    return Delivery(name, b"1", receipt or f"{name} 1 c", 1, 0.0, suspect)


def received(
    inflight: InFlight, *deliveries: Delivery, queue: QueueRef = ORDERS, lease: float = 60.0
) -> tuple[list[str], list[str]]:
    loan = inflight.borrow(queue)
    keep, back = inflight.admit(loan, deliveries, lease)
    inflight.give_back(loan, lost_until=None)
    return [d.id for d in keep], [d.id for d in back]


def test_what_was_received_is_held_until_it_is_settled(inflight: InFlight) -> None:
    received(inflight, delivery("a"), delivery("b"))

    held = inflight.held(ORDERS, ["a", "b", "unknown"])
    assert held == [Held("a", "a 1 c"), Held("b", "b 1 c"), Held("unknown")]
    assert inflight.held(OTHERS, ["a"]) == [Held("a")]
    inflight.forget(ORDERS, held)
    assert (len(inflight), inflight.held(ORDERS, ["a"])) == (0, [Held("a")])


@pytest.mark.parametrize("times", ["2", "1"])  # a release is not counted: the same receipt again
def test_settling_an_older_delivery_does_not_forget_the_newer_one(
    inflight: InFlight, times: str
) -> None:
    received(inflight, delivery("a"))
    settled = inflight.held(ORDERS, ["a"])
    received(inflight, delivery("a", receipt=f"a {times} c"))

    inflight.forget(ORDERS, settled)

    assert inflight.held(ORDERS, ["a"]) == [Held("a", f"a {times} c")]
    assert len(inflight) == 1


def test_a_lapsed_lease_is_in_flight_no_more_but_its_receipt_is_remembered(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("a"), lease=10)
    clock.now += 11

    assert len(inflight) == 0
    assert inflight.held(ORDERS, ["a"]) == [Held("a", "a 1 c")]


def test_lapsed_receipts_are_bounded(inflight: InFlight, clock: FakeClock) -> None:
    for batch in range(12):
        received(inflight, *(delivery(f"{batch}.{n}") for n in range(1_000)), lease=1)
        clock.now += 2

    assert len(inflight) == 0
    known = [h for h in inflight.held(ORDERS, (f"{b}.0" for b in range(12))) if h.receipt]
    assert len(known) == LAPSED_KEPT // 1_000
    assert known[-1].id == "11.0"


def test_a_renewed_lease_outlives_its_batch(inflight: InFlight, clock: FakeClock) -> None:
    received(inflight, delivery("a"), delivery("b"), lease=10)
    clock.now += 6
    inflight.renew(ORDERS, inflight.held(ORDERS, ["a"]), 10)
    clock.now += 6

    assert len(inflight) == 1


def test_lanes_are_used_by_one_receive_at_a_time_and_again(inflight: InFlight) -> None:
    first, second = inflight.borrow(ORDERS), inflight.borrow(ORDERS)
    assert first.consumer != second.consumer
    inflight.give_back(first, lost_until=None)

    assert inflight.borrow(OTHERS).consumer == first.consumer


def test_a_lane_that_lost_a_reply_is_recovered_first_until_the_old_read_is_over(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("a"))
    loan = inflight.borrow(ORDERS)
    inflight.give_back(loan, lost_until=clock.now + 2)

    for after in (0, 1, 2):  # the third one began after the old read must have ended
        clock.now += after and 1
        again = inflight.borrow(ORDERS)
        assert (again.consumer, again.recover) == (loan.consumer, True)
        assert list(again.held) == (["a 1 c"] if again.consumer == loan.consumer else [])
        inflight.give_back(again, lost_until=None)

    assert not inflight.borrow(ORDERS).recover


def test_every_lane_that_lost_a_reply_gets_its_turn(inflight: InFlight, clock: FakeClock) -> None:
    loans = [inflight.borrow(ORDERS) for _ in range(3)]
    for loan in loans:
        inflight.give_back(loan, lost_until=clock.now + 2)
    seen = set()
    for _ in range(3):
        loan = inflight.borrow(ORDERS)
        assert loan.recover
        seen.add(loan.consumer)
        inflight.give_back(loan, lost_until=None)

    assert seen == {loan.consumer for loan in loans}


def test_a_lost_reply_of_one_queue_concerns_no_other(inflight: InFlight, clock: FakeClock) -> None:
    inflight.give_back(inflight.borrow(ORDERS), lost_until=clock.now + 2)

    assert not inflight.borrow(OTHERS).recover


def test_only_one_receive_of_a_client_that_holds_nothing_may_get_a_suspect(
    inflight: InFlight,
) -> None:
    first, second = inflight.borrow(ORDERS), inflight.borrow(OTHERS)
    assert (first.alone, second.alone) == (True, False)
    inflight.give_back(first, lost_until=None)
    inflight.give_back(second, lost_until=None)
    assert received(inflight, delivery("a")) == (["a"], [])

    assert not inflight.borrow(OTHERS).alone


def test_a_suspect_is_handed_out_alone(inflight: InFlight) -> None:
    suspect = delivery("s", suspect=True)

    assert received(inflight, suspect, delivery("a")) == (["s"], ["a"])
    assert inflight.must_pause(ORDERS)
    assert received(inflight, delivery("b"), queue=OTHERS) == ([], ["b"])
    inflight.forget(ORDERS, inflight.held(ORDERS, ["s"]))
    assert not inflight.must_pause(ORDERS)
    assert received(inflight, delivery("b")) == (["b"], [])


def test_a_suspect_that_meets_a_message_in_flight_goes_back(inflight: InFlight) -> None:
    assert received(inflight, delivery("a"), queue=OTHERS) == (["a"], [])

    assert received(inflight, delivery("s", suspect=True)) == ([], ["s"])
    assert not inflight.must_pause(ORDERS)


def test_a_suspect_pauses_its_client_no_longer_than_its_lease(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("s", suspect=True), lease=10)
    clock.now += 9
    assert inflight.must_pause(ORDERS)
    clock.now += 2

    assert not inflight.must_pause(ORDERS)


def test_why_nothing_is_received_is_told_once_for_each_long_pause(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("s", suspect=True), lease=60)
    assert inflight.must_pause(OTHERS)
    assert inflight.untold() is None
    clock.now += 6
    assert inflight.must_pause(OTHERS)
    assert inflight.untold() == Pause(ORDERS, "s", 1)
    assert inflight.untold() is None
    inflight.forget(ORDERS, inflight.held(ORDERS, ["s"]))
    assert not inflight.must_pause(OTHERS)

    received(inflight, delivery("a"), delivery("b"), lease=100)
    inflight.saw_suspects(ORDERS, True, patience=3)
    clock.now += 4
    inflight.saw_suspects(ORDERS, True, patience=3)
    assert inflight.must_pause(OTHERS)
    assert inflight.untold() is None
    clock.now += 5
    assert inflight.must_pause(OTHERS)
    assert inflight.untold() == Pause(ORDERS, None, 2)


def test_a_busy_client_pauses_for_suspects_that_waited_too_long(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("a"), lease=100)
    inflight.saw_suspects(ORDERS, True, patience=30)
    clock.now += 20
    inflight.saw_suspects(ORDERS, True, patience=30)
    assert not inflight.must_pause(ORDERS)
    clock.now += 20
    inflight.saw_suspects(ORDERS, True, patience=30)
    assert inflight.must_pause(ORDERS)

    inflight.forget(ORDERS, inflight.held(ORDERS, ["a"]))
    assert not inflight.must_pause(ORDERS)
    inflight.saw_suspects(ORDERS, False, patience=30)
    received(inflight, delivery("b"))
    assert not inflight.must_pause(ORDERS)


def test_suspects_of_one_queue_wait_as_long_whatever_another_queue_has(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("a"), lease=100)
    for _ in range(3):
        inflight.saw_suspects(ORDERS, True, patience=30)
        inflight.saw_suspects(OTHERS, False, patience=30)
        clock.now += 20
    inflight.saw_suspects(ORDERS, True, patience=30)
    inflight.saw_suspects(OTHERS, False, patience=30)

    assert inflight.must_pause(OTHERS)
    assert inflight.must_pause(ORDERS)


def test_suspects_of_a_queue_that_is_asked_for_nothing_more_hold_nothing_up(
    inflight: InFlight, clock: FakeClock
) -> None:
    received(inflight, delivery("a"), lease=1_000)
    for _ in range(2):
        inflight.saw_suspects(ORDERS, True, patience=30)
        clock.now += 31
    inflight.saw_suspects(ORDERS, True, patience=30)
    assert inflight.must_pause(OTHERS)
    clock.now += 31

    assert not inflight.must_pause(OTHERS)
    assert len(inflight) == 1
    inflight.forget(ORDERS, inflight.held(ORDERS, ["a"]))
    assert inflight.borrow(OTHERS).alone


def test_a_queue_without_suspects_leaves_the_turn_to_one_that_has_some(inflight: InFlight) -> None:
    inflight.saw_suspects(ORDERS, True, patience=30)

    idle, its = inflight.borrow(OTHERS), inflight.borrow(ORDERS)

    assert (idle.alone, its.alone) == (False, True)
    inflight.give_back(its, lost_until=None)
    inflight.saw_suspects(ORDERS, False, patience=30)
    assert inflight.borrow(OTHERS).alone


def test_a_receive_that_ctrl_c_cut_off_leaves_the_turn_to_the_next_one(inflight: InFlight) -> None:
    loan = inflight.borrow(ORDERS)
    assert loan.alone
    del loan  # nobody gives it back

    assert inflight.borrow(ORDERS).alone


@pytest.mark.parametrize("call", ["forget", "renew", "all_held", "still_held", "give_back"])
def test_a_forked_child_waits_for_no_thread_of_its_parent(
    inflight: InFlight, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    received(inflight, delivery("a"))
    held = inflight.held(ORDERS, ["a"])
    loan = inflight.borrow(ORDERS)
    calls: dict[str, Callable[[], object]] = {
        "forget": lambda: inflight.forget(ORDERS, held),
        "renew": lambda: inflight.renew(ORDERS, held, 10.0),
        "all_held": lambda: inflight.all_held(ORDERS),
        "still_held": lambda: inflight.still_held(ORDERS, held),
        "give_back": lambda: inflight.give_back(loan, lost_until=None),
    }
    child = os.getpid() + 1
    with inflight._lock, ThreadPoolExecutor(1) as pool:  # by a thread that the child has not
        monkeypatch.setattr(os, "getpid", lambda: child)
        done = pool.submit(calls[call])
        assert not wait([done], 10).not_done

    assert done.result() in (None, [], [False])
    assert len(inflight) == 0


def test_a_forked_child_starts_with_a_name_and_a_table_of_its_own(
    inflight: InFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    received(inflight, delivery("a"))
    loan = inflight.borrow(ORDERS)
    monkeypatch.setattr("os.getpid", lambda: -1)

    child = inflight.borrow(ORDERS)
    inflight.give_back(loan, lost_until=None)  # the parent's

    assert child.consumer.split(".")[0] != loan.consumer.split(".")[0]
    assert len(inflight) == 0


def test_a_calm_queue_is_received_from_briskly_until_then(
    inflight: InFlight, clock: FakeClock
) -> None:
    inflight.calm(ORDERS, clock.now + 1)
    assert inflight.borrow(ORDERS).brisk
    assert not inflight.borrow(OTHERS).brisk
    clock.now += 2
    assert not inflight.borrow(ORDERS).brisk


def test_many_settled_batches_leave_nothing_behind_a_long_lease(inflight: InFlight) -> None:
    received(inflight, delivery("long"), lease=1_000)
    for n in range(100):
        received(inflight, delivery(f"m{n}"), lease=1_000)
        inflight.forget(ORDERS, inflight.held(ORDERS, [f"m{n}"]))

    assert len(inflight) == 1
    assert len(inflight._batches) == 1


def test_the_first_threads_of_a_forked_child_all_get_names_of_its_own(
    inflight: InFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    inherited = inflight.borrow(ORDERS)
    inflight.give_back(inherited, lost_until=None)
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    one_is_at_it, go_on = threading.Event(), threading.Event()
    token: Callable[[int], str] = secrets.token_hex

    def slow(size: int) -> str:
        one_is_at_it.set()
        assert go_on.wait(10)
        return token(size)

    monkeypatch.setattr(secrets, "token_hex", slow)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(inflight.borrow, ORDERS)
        assert one_is_at_it.wait(10)
        second = pool.submit(inflight.borrow, ORDERS)
        threading.Timer(0.1, go_on.set).start()  # a second that did not wait is done by then
        lanes = [loan.result(10).consumer for loan in (first, second)]

    client = lanes[0].partition(".")[0]
    assert client.startswith(f"{child:x}-")
    assert sorted(lanes) == [f"{client}.0", f"{client}.1"]
