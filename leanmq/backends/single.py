"""One server at a fixed address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from leanmq.backends.pipelines import pipeline
from leanmq.backends.streams.calls import Call, Outcome
from leanmq.backends.urls import Target
from leanmq.backends.wire import Drop, NodeCall, Steps, troubles
from leanmq.errors import LeanMQError, ServerStateError

__all__ = ["SingleServer", "prove"]


class SingleServer:
    """Sends every call to the one server."""

    slots_apart = False

    def __init__(self, target: Target) -> None:
        self.display = target.display
        self._address = target.addresses[0]

    def open(self) -> Steps[None]:
        """One round trip; raises the mapped error if there is none."""
        prove((yield NodeCall(self._address, (("PING",),), idempotent=True)))

    def route(self, call: Call) -> Steps[list[Outcome]]:
        """Run the call."""
        outcomes = yield NodeCall(self._address, call.commands, call.idempotent, call.block)
        yield from self._note(outcomes)
        return outcomes

    def route_many(self, calls: Sequence[Call]) -> Steps[list[list[Outcome]]]:
        """Run the calls in one pipeline."""
        results = yield from pipeline(self._address, calls)
        yield from self._note(chain.from_iterable(results))
        return results

    def _note(self, outcomes: Iterable[Outcome]) -> Steps[None]:
        if troubles(outcomes):
            # The name may lead to another server now: a failover by DNS, or behind a proxy.
            yield Drop(self._address)


def prove(outcomes: list[Outcome]) -> None:
    """Raise what a question was answered with, unless the server is up and only refuses work."""
    for outcome in outcomes:
        if isinstance(outcome, LeanMQError) and not isinstance(outcome, ServerStateError):
            # The caller's own commands were not sent: of these nothing is unknown.
            outcome.in_doubt = False
            raise outcome
