"""Operations as generators, driven by hand: what they ask for when things go wrong."""

from __future__ import annotations

import pytest

from leanmq.backends.protocol import (
    Declare,
    Exchange,
    Held,
    NewMessage,
    QueueRef,
    Receive,
    SendBatch,
    Settings,
    Settlement,
    Standing,
    Stats,
    Terms,
    Verb,
)
from leanmq.backends.streams.calls import Call, Many
from leanmq.backends.streams.many import requested
from leanmq.backends.streams.operations import StreamOperations
from leanmq.backends.streams.scripts import script
from leanmq.errors import (
    BackendError,
    ConnectionError,
    OutcomeUnknownError,
    QueueFullError,
    QueueNotFoundError,
    UnsupportedError,
)

ORDERS = QueueRef("orders")
do = StreamOperations("mq:")
do._tags["orders"] = "orders"  # as after a declare
UNKNOWN_SCRIPT = BackendError("no such script", code="NOSCRIPT")


def command_names(call: object) -> list[object]:
    assert isinstance(call, Call)
    return [command[0] for command in call.commands]


def test_a_queue_that_is_deleted_while_it_is_declared_is_entered_again() -> None:
    declare = StreamOperations("mq:").declare(Declare("orders", Settings()))

    asked = [command_names(next(declare)), command_names(declare.send([None]))]
    asked.append(command_names(declare.send([1, None])))
    asked.append(command_names(declare.send([1, b'{"tag":"orders","kind":"queue"}'])))

    assert asked == [["HGET"], ["HSETNX", "HGET"], ["HSETNX", "HGET"], ["EVALSHA"]]


def test_a_queue_that_is_deleted_again_and_again_is_not_found() -> None:
    declare = StreamOperations("mq:").declare(Declare("orders", Settings()))
    next(declare)
    declare.send([None])

    def goes_on() -> None:
        for _ in range(50):
            declare.send([1, None])

    with pytest.raises(QueueNotFoundError, match="'orders'"):
        goes_on()


def test_a_script_that_is_nowhere_known_travels_in_full() -> None:
    send = do.send(SendBatch(ORDERS, [NewMessage(b"1")]))

    first = next(send)
    second = send.send([UNKNOWN_SCRIPT])
    third = send.send([b"sha", UNKNOWN_SCRIPT])
    with pytest.raises(StopIteration) as done:
        send.send([[b"7-0"]])

    assert command_names(first) == ["EVALSHA"]
    assert command_names(second) == ["SCRIPT", "EVALSHA"]
    assert command_names(third) == ["EVAL"]
    assert isinstance(third, Call)
    assert third.commands[0][1] == script("send").text
    assert done.value.value.results == ["7-0"]


def test_a_send_is_not_idempotent_and_reports_its_error_for_each_message() -> None:
    send = do.send(SendBatch(ORDERS, [NewMessage(b"1"), NewMessage(b"2")]))
    call = next(send)
    lost = OutcomeUnknownError("lost")
    with pytest.raises(StopIteration) as done:
        send.send([lost])

    assert isinstance(call, Call)
    assert not call.idempotent
    assert done.value.value.results == [lost, lost]


@pytest.mark.parametrize("code", ["NOQUEUE", "NOGROUP"])
def test_a_queue_that_is_not_there_is_told_by_name(code: str) -> None:
    receive = do.exchange(Exchange((), (Receive(ORDERS, "c", 1),)))
    next(receive)

    with pytest.raises(QueueNotFoundError, match="'orders'") as missing:
        receive.send([BackendError("gone", code=code)])
    assert missing.value.queue == "orders"


def test_receipts_of_one_delivery_are_settled_by_one_call() -> None:
    held = [Held(f"{n}-0", f"{n}-0 1 lane") for n in range(100)]
    settle = do.exchange(Exchange((Settlement(ORDERS, Verb.ACKNOWLEDGE, held),)))

    call = next(settle)
    assert isinstance(call, Call)
    assert call.commands[0].count("lane") == 1
    with pytest.raises(StopIteration) as done:
        settle.send([[60_000, b"0" * 99 + b"2"]])

    assert list(done.value.value.settled[0]) == [0] * 99 + [2]


def test_a_brisk_receive_that_finds_nothing_looks_after_the_queue() -> None:
    receive = do.exchange(Exchange((), (Receive(ORDERS, "c", 1, brisk=True),)))

    first = next(receive)
    second = receive.send([None, [b"60000", None]])

    assert command_names(first) == ["XREADGROUP", "HMGET"]
    assert command_names(second) == ["EVALSHA"]


def test_a_settlement_that_fails_halfway_says_that_part_of_it_may_be_done() -> None:
    held = [Held("1-0", "1-0 1 lane.0"), Held("2-0", "2-0 1 lane.1")]
    settle = do.exchange(Exchange((Settlement(ORDERS, Verb.ACKNOWLEDGE, held),)))
    call = next(settle)

    with pytest.raises(ConnectionError) as refused:  # but lane.0 is done
        settle.send([[60_000, b"0"], ConnectionError("refused", in_doubt=False)])

    assert command_names(call) == ["EVALSHA", "EVALSHA"]
    assert refused.value.in_doubt


def test_a_settlement_refused_in_part_is_in_doubt_if_the_rest_is() -> None:
    held = [Held("1-0", "1-0 1 lane.0"), Held("2-0", "2-0 1 lane.1")]
    for rest, doubt in (
        (ConnectionError("lost", in_doubt=True), True),
        (BackendError("no"), False),
    ):
        settle = do.exchange(Exchange((Settlement(ORDERS, Verb.RETRY, held),)))
        next(settle)

        with pytest.raises(QueueFullError) as refused:
            settle.send([QueueFullError("no memory", code="OOM"), rest])

        assert refused.value.in_doubt is doubt


def test_very_many_deliveries_are_settled_in_several_calls() -> None:
    held = [Held(f"{n}-0", f"{n}-0 1 lane.{n}") for n in range(501)]
    settle = do.exchange(Exchange((Settlement(ORDERS, Verb.ACKNOWLEDGE, held),)))
    done = [60_000, b"0"]

    first = next(settle)
    second = settle.send([done] * 500)
    with pytest.raises(StopIteration) as stop:
        settle.send([done])

    assert [len(command_names(call)) for call in (first, second)] == [500, 1]
    assert stop.value.value.settled == [[Standing.DONE] * 501]

    settle = do.exchange(Exchange((Settlement(ORDERS, Verb.ACKNOWLEDGE, held),)))
    next(settle)
    with pytest.raises(ConnectionError):  # the rest is not asked: it would wait as long
        settle.send([ConnectionError("lost", in_doubt=True)] * 500)


def test_only_the_runs_that_found_no_script_are_run_again() -> None:
    held = [Held(f"{n}-0", f"{n}-0 1 lane.{n}") for n in range(3)]
    settle = do.exchange(Exchange((Settlement(ORDERS, Verb.ACKNOWLEDGE, held),)))
    first = next(settle)
    second = settle.send([UNKNOWN_SCRIPT, [60_000, b"0"], UNKNOWN_SCRIPT])
    third = settle.send([b"sha", [60_000, b"1"], UNKNOWN_SCRIPT])
    with pytest.raises(StopIteration) as done:
        settle.send([[60_000, b"2"]])

    assert command_names(first) == ["EVALSHA"] * 3
    assert command_names(second) == ["SCRIPT", "EVALSHA", "EVALSHA"]
    assert command_names(third) == ["EVAL"]
    assert isinstance(first, Call)
    assert isinstance(third, Call)
    assert third.commands[0][2:] == first.commands[2][2:]
    assert done.value.value.settled == [[Standing.GONE, Standing.DONE, Standing.LOST]]


def test_looks_that_may_not_be_one_script_are_made_one_by_one() -> None:
    two = StreamOperations("mq:")
    two._tags.update(a="a", b="b")
    looks = requested(two, [Exchange((), (Receive(QueueRef(name), "me", 1),)) for name in "ab"])
    first = next(looks)
    second = looks.send([BackendError("keys of two slots", code="CROSSSLOT")])
    look = [60_000, 0, -1, 0, 0, [], [], b"", 0, 0]
    with pytest.raises(StopIteration) as done:
        looks.send([[look], [BackendError("no", code="ERR")]])

    assert command_names(first) == ["EVALSHA"]
    assert isinstance(second, Many)
    assert [command_names(call) for call in second.calls] == [["EVALSHA"], ["EVALSHA"]]
    good, bad = done.value.value
    assert good.lease == 60
    assert isinstance(bad, BackendError)
    assert bad.queue == "b"


def test_together_as_well_one_exchange_receives_from_one_queue() -> None:
    receive = Receive(ORDERS, "c", 1)
    steps = requested(do, [Exchange((), (receive, receive)), Exchange((), (receive,))])

    next(steps)
    with pytest.raises(StopIteration) as done:
        steps.send([[60_000, 0, -1, 0, 0, [], [], b"", 0, 0]])

    assert isinstance(done.value.value[0], UnsupportedError)
    assert done.value.value[1].lease == 60


def test_a_queue_that_was_dropped_meanwhile_is_no_trouble_for_the_others() -> None:
    two = StreamOperations("mq:")
    two._tags.update(a="a", b="b")
    brisk = [Receive(QueueRef(n), "me", 1, brisk=True, together=True) for n in "ab"]
    steps = requested(two, [Exchange((), (receive,)) for receive in brisk])
    next(steps)
    entry = [b"5-0", [b"b", b"1"]]
    mortal = [b"6-0", [b"b", b"1", b"x", b"7"]]
    steps.send([[[b"a", [entry]]], [b"60000", None], [[b"b", [mortal]]], [b"60000", b"1"]])
    two._tags.clear()  # by another thread
    acknowledge = steps.send([[b"9", b"0"]])
    with pytest.raises(StopIteration) as done:
        steps.send([BackendError("NOQUEUE", code="NOQUEUE")])

    assert command_names(acknowledge) == ["EVALSHA"]
    good, gone = done.value.value
    assert [delivery.id for delivery in good.deliveries] == ["5-0"]
    assert isinstance(gone, QueueNotFoundError)


def test_what_is_of_one_kind_is_one_call_and_an_error_is_for_all_of_it() -> None:
    many = StreamOperations("mq:")
    names = [f"q{n}" for n in range(70)]
    many._tags.update({name: name for name in names})
    reads = [Receive(QueueRef(name), "me", 1, brisk=True, together=True) for name in names]
    steps = requested(many, [Exchange((), (read,)) for read in reads])
    first = next(steps)
    assert isinstance(first, Many)
    assert [len(call.commands) for call in first.calls] == [128, 12]
    lost = ConnectionError("lost", in_doubt=True)
    with pytest.raises(StopIteration) as done:
        steps.send([[lost] * 128, [None, [b"60000", None]] * 6])
    results = done.value.value
    assert results[:64] == [lost] * 64
    assert [result.deliveries for result in results[64:]] == [()] * 6


def test_too_many_queues_are_refused_before_anything_is_settled() -> None:
    settlement = Settlement(ORDERS, Verb.ACKNOWLEDGE, [Held("1-0", "1-0 1 c")])
    receive = Receive(ORDERS, "c", 1)

    with pytest.raises(UnsupportedError, match="one queue at a time, not 2"):
        next(do.exchange(Exchange((settlement,), (receive, receive))))


def test_the_registry_is_asked_once_where_a_queue_is() -> None:
    fresh = StreamOperations("mq:")
    stats = fresh.stats(Stats(ORDERS))

    first = next(stats)
    second = stats.send([b'{"tag":"shop","kind":"queue"}'])

    assert isinstance(first, Call)
    assert first.commands == (("HGET", "mq:queues", "orders"),)
    assert isinstance(second, Call)
    assert second.slot == "mq:{shop}:meta:orders"
    again = next(fresh.stats(Stats(ORDERS)))
    assert isinstance(again, Call)
    assert again.slot == second.slot


def test_messages_with_the_same_fields_travel_together() -> None:
    urgent = Terms(key="k")
    keyed = [NewMessage(b"2", urgent), NewMessage(b"3", urgent)]
    send = do.send(SendBatch(ORDERS, [NewMessage(b"1"), *keyed, NewMessage(b"4")]))

    call = next(send)

    assert isinstance(call, Call)
    runs = ((1, "b", 1, b"1"), (2, "b", "k", 2, b"2", "k", b"3", "k"), (1, "b", 1, b"4"))
    assert call.commands[0][-16:] == tuple(word for run in runs for word in run)
