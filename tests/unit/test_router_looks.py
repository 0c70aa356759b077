"""What several looks at the parts of a queue come to, and how many there are."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from msgspec.structs import replace

from leanmq import ClosedError, LeanMQ
from leanmq.backends.protocol import Delivery, Exchange, Exchanged, QueueRef, Receive
from leanmq.clock import SystemClock
from leanmq.sharding.breaker import Breaker
from leanmq.sharding.nodes import Nodes
from leanmq.sharding.receiving import _Look
from leanmq.sharding.routing import Node, Part, Quiet, Route

NODE = Node("a", 0, Breaker(SystemClock()))
PARTS = (Part("0", NODE, "orders#0"), Part("1", NODE, "orders#1"))
ASKED = Receive(QueueRef("orders"), "me", 10)


def delivery(name: str, count: int, *, suspect: bool = False) -> Delivery:
    return Delivery(name, b"1", f"{name} {count} me", count, 0.0, suspect=suspect)


def test_of_a_message_that_came_twice_in_one_receive_the_newer_delivery_is_left() -> None:
    route = Route("orders", PARTS)
    look = _Look(route, ASKED)
    look.take(PARTS[0], ASKED, Exchanged((), [delivery("1-0", 1), delivery("2-0", 1)]))

    look.take(PARTS[0], ASKED, Exchanged((), [delivery("1-0", 2), delivery("3-0", 1)]))

    found = [(d.id, d.receipt) for d in look.result().deliveries]
    assert found == [("0#2-0", "0#2-0 1 me"), ("0#1-0", "0#1-0 2 me"), ("0#3-0", "0#3-0 1 me")]
    assert look.count == 3


def test_messages_of_one_part_stay_in_order_and_parts_take_turns() -> None:
    route = Route("orders", PARTS)
    look = _Look(route, ASKED)
    for part, names in ((0, ["1-0", "2-0"]), (1, ["1-0"]), (0, ["3-0"])):
        look.take(PARTS[part], ASKED, Exchanged((), [delivery(n, 1) for n in names]))

    found = [d.id for d in look.result().deliveries]
    assert [one for one in found if one.startswith("0#")] == ["0#1-0", "0#2-0", "0#3-0"]
    assert sorted(found) == ["0#1-0", "0#2-0", "0#3-0", "1#1-0"]


def test_a_suspect_stands_first() -> None:
    route = Route("orders", PARTS)
    look = _Look(route, ASKED)
    look.take(PARTS[0], ASKED, Exchanged((), [delivery("1-0", 1)]))

    look.take(PARTS[1], ASKED, Exchanged((), [delivery("9-0", 3, suspect=True)]))

    assert look.result().deliveries[0].id == "1#9-0"


def test_who_was_woken_looks_only_where_something_came(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[set[str]] = []
    waits = threading.Event()
    ask, watch = Nodes._ask, Nodes._watch

    def asked(self: Nodes, asks: Sequence[Any]) -> list[Any]:
        requests = [request for _, request in asks if isinstance(request, Exchange)]
        if found := {receive.queue.name for r in requests for receive in r.receive}:
            looks.append(found)
        return ask(self, asks)

    def watched(self: Nodes, step: Any) -> list[Any]:
        waits.set()
        return watch(self, step)

    monkeypatch.setattr(Nodes, "_ask", asked)
    monkeypatch.setattr(Nodes, "_watch", watched)
    with LeanMQ("memory://") as mq:
        queue = mq.sharded_queue("orders", shards=8)
        queue.declare()
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.extend(queue.get_messages(timeout=30)))
        thread.start()
        assert waits.wait(10)

        queue.send_message("there", key="ann")
        thread.join(10)

        assert [message.data for message in found] == ["there"]
        assert len(looks[0]) == 8
        assert looks[1:] == [{queue.shard_for("ann").name}]


def test_a_plain_read_that_comes_too_late_does_not_move_the_mark() -> None:
    route = Route("orders", PARTS)
    look = _Look(route, ASKED)
    told = Exchanged(mark="7-0", fresh=3)
    look.take(PARTS[0], replace(ASKED, count=0), told)
    assert route.rich == {"0": 3}

    look.take(PARTS[0], replace(ASKED, brisk=True), Exchanged(), left=1)

    assert look.marks == {"0": "7-0"}  # what came since then is not missed
    assert route.rich == {}


def test_a_plain_read_knows_nothing_of_suspects() -> None:
    route = Route("orders", PARTS)
    look = _Look(route, ASKED)
    look.take(PARTS[0], ASKED, Exchanged(suspects=True))

    look.take(PARTS[0], replace(ASKED, brisk=True), Exchanged((), [delivery("1-0", 1)]))
    assert look.result().suspects

    look.take(PARTS[0], ASKED, Exchanged())
    assert not look.result().suspects


class Looks:
    """What a router asked its node for, and what it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Receive] = []
        self.given = 0
        ask = Nodes._ask

        def spy(nodes: Nodes, asks: Sequence[Any]) -> list[Any]:
            results = ask(nodes, asks)
            for (_, request), result in zip(asks, results, strict=True):
                if isinstance(request, Exchange):
                    self.asked += request.receive
                    self.given += len(result.deliveries)
            return results

        monkeypatch.setattr(Nodes, "_ask", spy)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_no_more_is_taken_from_nodes_than_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with LeanMQ("memory://") as mq:
        queue = mq.sharded_queue("orders", shards=8)
        queue.send_messages(range(48), key=str)
        looks = Looks(monkeypatch)
        left = 48
        while left:
            messages = queue.get_messages(count)
            left -= len(messages)
            assert (len(messages), looks.given) == (count, 48 - left)
            queue.acknowledge_messages(messages)
        assert queue.get_messages(count) == []
        queue.send_messages(range(48), key=str)
        assert len(queue.get_messages(count)) == count
        assert looks.given == 48 + count


def test_a_batch_is_full_though_others_took_what_was_known_of_a_part() -> None:
    with LeanMQ("memory://shared") as mq, LeanMQ("memory://shared") as other:
        queue = mq.sharded_queue("orders", shards=2)
        queue.shard(0).send_messages(range(30))
        queue.shard(1).send_messages(range(60))
        assert len(queue.get_messages(20)) == 20
        other.sharded_queue("orders", shards=2).shard(0).get_messages(100)

        left = queue.get_info().ready_messages

        assert len(queue.get_messages(left - 5)) == left - 5  # not only what it planned at first


def test_a_part_is_known_while_it_is_entered_anew_by_a_thread() -> None:
    route = Route("orders", PARTS)
    plans: list[Any] = []

    class Slow(dict[str, int | None]):
        def pop(self, *arguments: Any) -> Any:  # as if the thread had to wait just now
            found = super().pop(*arguments)
            if not thread.is_alive() and not plans:
                thread.start()
                thread.join(0.2)
            return found

    thread = threading.Thread(target=lambda: plans.append(route.plan(1, 1)))
    route.rich = Slow({"0": 5})
    route.has("0", 4)
    thread.join(10)

    assert plans == [[(PARTS[0], 1, 3)]]


def test_a_part_of_which_no_number_is_known_is_planned_by_all() -> None:
    route = Route("orders", PARTS)
    route.has("0", None)
    assert route.plan(3, 3) == route.plan(3, 3) == [(PARTS[0], 3, None)]


def test_a_backlog_is_drained_by_few_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    shards, batch = 16, 40
    with LeanMQ("memory://") as mq:
        queue = mq.sharded_queue("orders", shards=shards)
        for _ in range(2):  # it learns from the first one that there is plenty
            looks = Looks(monkeypatch)
            queue.send_messages(range(20 * shards), key=str)
            left, batches = 20 * shards, 0
            while left:
                left -= queue.acknowledge_messages(queue.get_messages(batch))
                batches += 1

        reads = [receive for receive in looks.asked if receive.count]
        assert batches == 8
        # Each shard once, and those again that a batch had no room for.
        assert len(reads) <= shards + batches


def test_one_of_those_who_wait_looks_when_that_is_due_and_the_others_do_not() -> None:
    route = Route("orders", PARTS)
    assert route.shared(0.0, 1.0, dead=False) is None  # nobody has looked
    quiet = route.quiet[False] = Quiet({"0": "", "1": ""}, due=1.0, soon=math.inf)

    assert route.shared(0.9, 1.9, dead=False) is quiet
    assert route.shared(0.9, 1.9, dead=True) is None  # dead letters are another matter
    assert route.shared(1.1, 2.1, dead=False) is None
    assert route.shared(1.1, 2.1, dead=False) is quiet
    assert quiet.due == 2.1

    slow = Quiet({"0": "", "1": ""}, due=1.3, soon=math.inf)  # it began before the other was due
    route.share(slow, dead=False)
    assert route.shared(1.4, 2.4, dead=False) is slow


def test_all_look_when_something_may_be_there() -> None:
    route = Route("orders", PARTS)
    quiet = route.quiet[False] = Quiet({"0": "", "1": ""}, due=2.0, soon=1.0)
    assert [route.shared(now, 3.0, dead=False) for now in (0.5, 1.0, 1.0)] == [quiet, None, None]

    route.has("1", None)
    assert route.shared(0.5, 3.0, dead=False) is None
    route.has("1", 0)
    assert route.shared(0.5, 3.0, dead=False) is quiet
    route.suspects["0"] = None
    assert route.shared(0.5, 3.0, dead=False) is None
    route.suspects.clear()
    NODE.breaker.failed()
    try:
        assert route.shared(0.5, 3.0, dead=False) is None  # it may be that nothing can be received
    finally:
        NODE.breaker.succeeded()


def test_a_crowd_that_waits_looks_once_a_second_not_each(monkeypatch: pytest.MonkeyPatch) -> None:
    crowd, shards = 12, 8
    looks, watches = [], []
    ask, watch = Nodes._ask, Nodes._watch

    def asked(self: Nodes, asks: Sequence[Any]) -> list[Any]:
        if len(asks) == shards and isinstance(asks[0][1], Exchange):
            looks.append(time.monotonic())
        return ask(self, asks)

    def watched(self: Nodes, step: Any) -> list[Any]:
        watches.append(threading.get_ident())
        return watch(self, step)

    monkeypatch.setattr(Nodes, "_ask", asked)
    monkeypatch.setattr(Nodes, "_watch", watched)
    mq = LeanMQ("memory://")
    queue = mq.sharded_queue("orders", shards=shards)
    queue.declare()

    def wait() -> None:
        with suppress(ClosedError):
            queue.get_messages(timeout=60)

    threads = [threading.Thread(target=wait) for _ in range(crowd)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    give_up = began + 30
    while min(Counter(watches).values(), default=0) < 4 or len(set(watches)) < crowd:
        assert time.monotonic() < give_up
        time.sleep(0.01)  # between two looks at a condition that has a bound
    seconds = time.monotonic() - began
    seen = len(looks)
    mq.close()
    for thread in threads:
        thread.join(10)

    assert seen <= crowd + seconds + 1  # each of them once, at first
