"""What a router does with nodes that are not what they were, or cannot be nodes at all.

What servers do meanwhile is played by backends in memory. The same with servers:
``test_routers.py`` and ``test_routers_placement.py`` of the contract.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from leanmq import (
    ConsistentHashRouter,
    LeanMQ,
    LeanMQError,
    PlacementError,
    QueueSettingsError,
    RoundRobinRouter,
    ShardedQueue,
    UnsupportedError,
)
from leanmq.backends.many import Record, Recorded
from leanmq.backends.protocol import Drop
from leanmq.errors import UnreachableError
from tests.support.waiting import wait_until
from tests.unit.test_doubts import Lossy


@pytest.fixture
def url() -> str:
    return f"memory://{secrets.token_hex(6)}"


@pytest.fixture
def nodes(url: str) -> Iterator[dict[str, Lossy]]:
    with LeanMQ(f"{url}-a"), LeanMQ(f"{url}-b"):
        yield {name: Lossy(f"{url}-{name}") for name in "ab"}


def out_of_reach(_: Any = None) -> Any:
    raise UnreachableError("it is away")


def key_on(mq: LeanMQ, router: ConsistentHashRouter, node: str) -> str:
    queue = mq.queue("orders")
    where = router.placement("orders").where
    for number in range(100):
        sent = queue.send_message("x", key=f"k{number}")
        if where[int(sent.partition("#")[0])] == node:
            return f"k{number}"
    raise AssertionError("no key is there")


def test_a_node_that_was_another_one_for_a_while_is_taken_back(nodes: dict[str, Lossy]) -> None:
    router, b = ConsistentHashRouter(nodes, shards=8), nodes["b"]
    with LeanMQ(backend=router, deadline=0.2) as mq:
        queue = mq.queue("orders")
        queue.declare()
        key = key_on(mq, router, "b")

        def another(request: Record) -> Recorded:
            return Recorded("another one") if request.name == "#node" else b.inner.record(request)

        b.on = dict.fromkeys(("open", "send", "together", "exchange", "record"), out_of_reach)
        with pytest.raises(UnreachableError):
            queue.send_message("x", key=key)
        b.on = {"record": another}

        def refused() -> bool:
            try:
                queue.send_message("x", key=key)
            except PlacementError:
                return True
            except UnreachableError:
                pass
            return False

        wait_until(refused, 20, "the other deployment is seen")
        with pytest.raises(PlacementError):
            queue.send_message("x", key=key)
        with pytest.raises(PlacementError) as first:  # with what is on another node
            queue.acknowledge_messages([f"{n}#1-1" for n in range(8)])
        assert first.value.in_doubt
        with pytest.raises(PlacementError) as second:
            queue.send_message("x", key=key)
        assert not second.value.in_doubt
        b.on = {}

        def taken() -> bool:
            try:
                queue.send_message("x", key=key)
            except LeanMQError:
                return False
            return True

        wait_until(taken, 20, "it is itself again")


def test_of_two_who_delete_a_queue_at_once_one_is_told_that_it_did(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Lossy(url)
    told: list[bool] = []
    with LeanMQ(backend=backend) as mq:
        queue = mq.sharded_queue("orders", shards=2)
        queue.declare()

        def meanwhile(requests: Any) -> Any:
            if isinstance(requests[0], Drop) and not told:
                told.append(False)
                told[0] = queue.delete()
            return backend.inner.together(requests)

        monkeypatch.setattr(backend, "together", meanwhile)
        told.append(queue.delete())

    assert told == [True, False]


def test_who_keeps_no_records_can_have_no_shards(nodes: dict[str, Lossy]) -> None:
    with LeanMQ(backend=RoundRobinRouter(nodes)) as mq:
        with pytest.raises(UnsupportedError, match=r"round-robin router.*cannot keep records"):
            mq.sharded_queue("orders").send_message("x")
        assert mq.queue("orders").send_message("x")


def test_a_transaction_is_counted_with_its_target(nodes: dict[str, Lossy]) -> None:
    router = RoundRobinRouter(nodes)
    with LeanMQ(backend=router) as mq:
        mq.queue("orders").declare()
        for _ in range(4):
            with mq.transaction() as tx:
                tx.send_message("orders", "x")
                tx.send_message("orders", "y")

    assert [stats.sends for stats in router.stats_by_target().values()] == [4, 4]


def test_a_handle_that_asked_for_other_shards_than_there_are_now_says_so(url: str) -> None:
    with LeanMQ(url) as other, LeanMQ(url) as mq:
        queue = mq.sharded_queue("orders", shards=8)
        queue.send_message("x")
        other.sharded_queue("orders", shards=8).delete()
        other.sharded_queue("orders", shards=3).declare()

        def sends() -> None:
            for number in range(3):
                queue.send_message("x", key=f"k{number}")

        with pytest.raises(QueueSettingsError, match="has 3 shards, you asked for 8"):
            sends()


@pytest.mark.parametrize("shards", [0, -1, "8", None, True, 5_000, 2.5])
def test_a_number_of_shards_that_cannot_be_is_refused_at_once(url: str, shards: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="shards"):
        ConsistentHashRouter({"a": url}, shards=shards)
    with pytest.raises((ValueError, TypeError), match="shards"):
        ShardedQueue("orders", {"a": url}, shards=shards)
