"""Policy driven by hand: what it makes of a backend's trouble."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq import BulkSendError, ConnectionError
from leanmq.backends.protocol import (
    Capabilities,
    Declared,
    Delivery,
    Dropped,
    Exchanged,
    QueueRef,
    Sent,
    Settings,
    Standing,
    Verb,
)
from leanmq.policy.core import ClientCore, ClientTerms
from leanmq.policy.logic import QueueLogic
from leanmq.policy.steps import Ask, Sleep, Steps

ORDERS = QueueRef("orders")
REFUSED = ConnectionError("refused")
LOST = ConnectionError("lost", in_doubt=True)


def logic() -> QueueLogic:
    return QueueLogic(ClientCore("nowhere", ClientTerms(deadline=30)), ORDERS, Settings())


def run(steps: Steps[Any], *answers: Any) -> Any:
    """Drive a policy: each question gets the next answer, errors are raised; sleeps are skipped."""
    script = iter(answers)
    ready = {
        "open": Capabilities("nowhere"),
        "declare": Declared(Settings(60.0, 10), False, 0.0),
    }
    try:
        step = next(steps)
        while True:
            answer = None
            if isinstance(step, Ask):
                answer = ready[step.method] if step.method in ready else next(script)
            else:
                assert isinstance(step, Sleep)
            step = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer)
    except StopIteration as stop:
        return stop.value


def test_a_delete_whose_reply_was_lost_has_deleted() -> None:
    assert run(logic().delete(False), LOST, Dropped(existed=False)) is True
    assert run(logic().delete(False), REFUSED, Dropped(existed=False)) is False


def test_what_an_earlier_try_may_have_settled_counts_as_settled() -> None:
    queue = logic()
    loan = queue.core.inflight.borrow(ORDERS)
    for _ in range(2):
        queue.core.inflight.admit(loan, [Delivery("a", b"1", "a 1 c", 1, 0.0)], 60.0)
        gone = Exchanged([[Standing.GONE]])
        assert run(queue.settle(Verb.ACKNOWLEDGE, "a"), LOST, gone) == 1
    queue.core.inflight.admit(loan, [Delivery("a", b"1", "a 1 c", 1, 0.0)], 60.0)
    assert run(queue.settle(Verb.ACKNOWLEDGE, "a"), REFUSED, gone) == 0


def test_only_what_was_refused_is_sent_again() -> None:
    ids = run(logic().send_many([1, 2, 3]), Sent(["1-0", REFUSED, "3-0"]), Sent(["2-0"]))

    assert list(ids) == ["1-0", "2-0", "3-0"]


def test_closing_the_client_does_not_hide_what_a_bulk_send_has_stored() -> None:
    queue = logic()
    steps = queue.send_many([1, 2])
    for answer in (None, Capabilities("nowhere"), Declared(Settings(60.0, 10), False, 0.0)):
        steps.send(answer)
    assert isinstance(steps.send(Sent(["1-0", REFUSED])), Sleep)
    list(queue.core.close())

    with pytest.raises(BulkSendError) as stopped:
        steps.send(None)

    assert stopped.value.confirmed == {0: "1-0"}
    assert stopped.value.unsent == (1,)
