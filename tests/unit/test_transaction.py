"""Transactions and sends, driven by hand: what their policy makes of answers in any order."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from leanmq import ConnectionError, LeanMQError, OutcomeUnknownError, QueueFullError
from leanmq.api import Outgoing
from leanmq.backends.protocol import (
    Capabilities,
    Declare,
    Declared,
    QueueRef,
    Sent,
    Settings,
)
from leanmq.errors import QueueNotFoundError, StaleSettingsError
from leanmq.policy.core import ClientCore, ClientTerms
from leanmq.policy.logic import QueueLogic
from leanmq.policy.steps import Ask, Sleep, Steps
from leanmq.policy.transaction import TransactionLogic
from tests.support.clock import FakeClock

STORED = Settings(5.0, 3, 0, "raise", 100, 60.0, "shop")
LOST = OutcomeUnknownError("the reply was lost")


class Server:
    """Answers: to ``transact`` in turn, the last one again and again."""

    def __init__(self, clock: FakeClock, *answers: LeanMQError | Sent) -> None:
        self.clock, self.answers = clock, list(answers)
        self.asked: list[str] = []
        self.stored = STORED

    def carry_out(self, steps: Steps[Any]) -> Any:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Sleep):
                    self.clock.now += step.seconds
                    step = steps.send(None)
                    continue
                answer = self._answer(step)
                step = (
                    steps.throw(answer)
                    if isinstance(answer, LeanMQError)
                    else steps.send(answer)
                )  # fmt: skip
        except StopIteration as stop:
            return stop.value

    def _answer(self, step: Ask) -> Any:
        if step.method == "open":
            return Capabilities("hand-made")
        if step.method == "declare":
            assert isinstance(step.request, Declare)
            self.asked.append(f"declare {step.request.name}")
            return Declared(self.stored, False, 0.0, 1)
        self.asked.append(step.method)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def begun(clock: FakeClock, *, dedup: bool) -> TransactionLogic:
    logic = TransactionLogic(ClientCore("hand-made", ClientTerms(deadline=5.0), clock))
    for n, name in enumerate(["orders", "mails"]):
        logic.send(name, Outgoing("some words", dedup_id=f"d{n}" if dedup else None))
    return logic


@pytest.mark.parametrize(
    "then",
    [ConnectionError("nobody listens"), QueueFullError("full", queue="mails")],
    ids=["unreachable", "refused"],
)
def test_no_later_error_hides_that_it_may_have_been_carried_out(then: LeanMQError) -> None:
    clock = FakeClock()
    server = Server(clock, LOST, then)

    with pytest.raises(OutcomeUnknownError, match="as a whole, or not") as unknown:
        server.carry_out(begun(clock, dedup=True).execute())

    assert unknown.value.__cause__ is LOST


def test_settings_that_are_refused_later_do_not_hide_it_either() -> None:
    clock = FakeClock()
    server = Server(clock, LOST, StaleSettingsError("changed", queue="mails"))
    logic = begun(clock, dedup=True)
    for ref, _ in logic._sends:
        server.carry_out(logic._core.declare(ref, Settings()))
    server.stored = attrs.evolve(STORED, max_payload_bytes=5)  # less than it has

    with pytest.raises(OutcomeUnknownError):
        server.carry_out(logic.execute())


@pytest.mark.parametrize(
    "then",
    [ConnectionError("nobody listens"), QueueFullError("full", queue="orders")],
    ids=["unreachable", "refused"],
)
def test_no_later_error_hides_that_a_message_may_have_been_stored(then: LeanMQError) -> None:
    clock = FakeClock()
    server = Server(clock, Sent([LOST]), Sent([then]))
    orders = QueueLogic(
        ClientCore("hand-made", ClientTerms(deadline=5.0), clock), QueueRef("orders"), Settings()
    )

    with pytest.raises(OutcomeUnknownError, match="may be stored or not"):
        server.carry_out(orders.send(Outgoing(1, dedup_id="d")))


def test_a_doubt_about_a_message_ends_when_it_is_stored() -> None:
    clock = FakeClock()
    server = Server(clock, Sent([LOST]), Sent([ConnectionError("failover")]), Sent(["7-0"]))
    orders = QueueLogic(
        ClientCore("hand-made", ClientTerms(deadline=5.0), clock), QueueRef("orders"), Settings()
    )

    assert server.carry_out(orders.send(Outgoing(1, dedup_id="d"))) == "7-0"


def test_without_dedup_ids_a_doubt_ends_it_at_once() -> None:
    clock = FakeClock()
    server = Server(clock, LOST)

    with pytest.raises(OutcomeUnknownError):
        server.carry_out(begun(clock, dedup=False).execute())

    assert server.asked.count("transact") == 1


def test_what_was_surely_not_carried_out_is_tried_again() -> None:
    clock = FakeClock()
    server = Server(
        clock, ConnectionError("failover"), ConnectionError("failover"), Sent(["1", "2"])
    )

    assert server.carry_out(begun(clock, dedup=False).execute()) == ["1", "2"]
    assert server.asked.count("transact") == 3


@pytest.mark.parametrize("queue", ["mails", None])
@pytest.mark.parametrize("kind", [StaleSettingsError, QueueNotFoundError])
def test_only_the_queue_that_changed_is_looked_at_again(
    kind: type[LeanMQError], queue: str | None
) -> None:
    clock = FakeClock()
    server = Server(clock, kind("changed", queue=queue), Sent(["1", "2"]))

    assert server.carry_out(begun(clock, dedup=False).execute()) == ["1", "2"]

    again = server.asked[server.asked.index("transact") + 1 : -1]
    assert again == (["declare mails"] if queue else ["declare orders", "declare mails"])
