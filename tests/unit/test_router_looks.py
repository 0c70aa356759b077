"""What several looks at the parts of a queue come to, and how many there are."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from leanmq import LeanMQ
from leanmq.backends.protocol import Delivery, Exchange, Exchanged, QueueRef, Receive
from leanmq.clock import SystemClock
from leanmq.sharding.breaker import Breaker
from leanmq.sharding.nodes import Nodes
from leanmq.sharding.receiving import _Look
from leanmq.sharding.routing import Node, Part, Route

NODE = Node("a", 0, Breaker(SystemClock()))
PARTS = (Part("0", NODE, "orders#0"), Part("1", NODE, "orders#1"))
ASKED = Receive(QueueRef("orders"), "me", 2)


def delivery(name: str, count: int, *, suspect: bool = False) -> Delivery:
    return Delivery(name, b"1", f"{name} {count} me", count, 0.0, suspect=suspect)


def test_of_a_message_that_came_twice_in_one_receive_the_newer_delivery_is_left() -> None:
    route, look = Route("orders", PARTS), _Look(10)
    look.take(route, PARTS[0], ASKED, Exchanged((), [delivery("1-0", 1), delivery("2-0", 1)]))

    look.take(route, PARTS[0], ASKED, Exchanged((), [delivery("1-0", 2), delivery("3-0", 1)]))

    found = [(d.id, d.receipt) for d in look.result(route).deliveries]
    assert found == [("0#2-0", "0#2-0 1 me"), ("0#1-0", "0#1-0 2 me"), ("0#3-0", "0#3-0 1 me")]
    assert look.count == 3


def test_messages_of_one_part_stay_in_order_and_parts_take_turns() -> None:
    route, look = Route("orders", PARTS), _Look(10)
    for part, names in ((0, ["1-0", "2-0"]), (1, ["1-0"]), (0, ["3-0"])):
        look.take(route, PARTS[part], ASKED, Exchanged((), [delivery(n, 1) for n in names]))

    found = [d.id for d in look.result(route).deliveries]
    assert [one for one in found if one.startswith("0#")] == ["0#1-0", "0#2-0", "0#3-0"]
    assert sorted(found) == ["0#1-0", "0#2-0", "0#3-0", "1#1-0"]


def test_a_suspect_stands_first() -> None:
    route, look = Route("orders", PARTS), _Look(10)
    look.take(route, PARTS[0], ASKED, Exchanged((), [delivery("1-0", 1)]))

    look.take(route, PARTS[1], ASKED, Exchanged((), [delivery("9-0", 3, suspect=True)]))

    assert look.result(route).deliveries[0].id == "1#9-0"


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
