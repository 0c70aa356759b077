"""What a call leaves alone that another thread of its client does meanwhile; and Ctrl-C.

The other thread is played by a call that comes while the backend answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from leanmq import LeanMQ, Message
from leanmq.errors import UnreachableError
from leanmq.policy import steps
from leanmq.policy.receiving import Receiving
from tests.unit.test_doubts import Lossy


@pytest.fixture
def backend() -> Lossy:
    return Lossy("memory://")


@pytest.fixture
def mq(backend: Lossy) -> Iterator[LeanMQ]:
    with LeanMQ(backend=backend) as mq:
        mq.queue("orders").declare()
        yield mq


@pytest.mark.parametrize("how", ["purge", "drop"])
def test_what_was_received_during_a_purge_is_still_held(
    mq: LeanMQ, backend: Lossy, how: str
) -> None:
    queue = mq.queue("orders")
    queue.send_messages(["old", "held"])
    queue.get_messages(1)
    received: list[Message[Any]] = []

    def meanwhile(request: Any) -> Any:
        backend.on = {}
        answer = getattr(backend.inner, how)(request)
        queue.send_message("new")
        received.extend(queue.get_messages())
        return answer

    backend.on = {how: meanwhile}
    assert queue.purge() == 2 if how == "purge" else queue.delete()

    assert [m.data for m in received] == ["new"]
    assert queue.acknowledge_messages(received) == 1
    assert queue.get_info().message_count == 0


def test_a_release_in_doubt_takes_nothing_from_who_received_it_since(
    mq: LeanMQ, backend: Lossy
) -> None:
    queue = mq.queue("orders")
    queue.send_messages(["a", "b"])
    messages = queue.get_messages(2)
    received: list[Message[Any]] = []

    def meanwhile(request: Any) -> Any:
        backend.on = {}
        backend.inner.exchange(request)
        received.extend(queue.get_messages(1))
        raise UnreachableError("the reply was lost", in_doubt=True)

    backend.on = {"exchange": meanwhile}
    assert queue.release_messages(messages) == 2

    rest = queue.get_messages(2)
    assert sorted(m.data for m in received + rest) == ["a", "b"]
    assert {m.delivery_count for m in received + rest} == {1}
    assert queue.acknowledge_messages(received + rest) == 2


def test_what_ctrl_c_kept_from_the_caller_comes_first_and_uncounted(
    mq: LeanMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = mq.queue("orders")
    queue.send_messages(range(3))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Receiving, "_messages", interrupted)
        with pytest.raises(KeyboardInterrupt):
            queue.get_messages()

    again = queue.get_messages()
    assert [(m.data, m.delivery_count) for m in again] == [(0, 1), (1, 1), (2, 1)]
    assert queue.acknowledge_messages(again) == 3


@pytest.mark.parametrize("turn", range(1, 5))
def test_what_a_loop_had_in_hand_when_ctrl_c_came_between_its_steps_is_given_back(
    mq: LeanMQ, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    queue = mq.queue("orders")
    queue.send_messages(range(4))
    go_on, turns = steps._go_on, 0

    def interrupted(*arguments: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns == turn:
            raise KeyboardInterrupt
        return go_on(*arguments)

    seen: list[int] = []

    def work() -> None:
        for message in queue.consume(count=4, timeout=0.05):
            seen.append(message.data)
            queue.acknowledge_messages(message)

    monkeypatch.setattr(steps, "_go_on", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work()

    rest = queue.get_messages(4)
    assert turns >= turn
    assert [m.data for m in rest] == list(range(len(seen), 4))
    assert {m.delivery_count for m in rest} <= {1}
