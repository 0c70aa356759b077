"""A primary that moves, found by asking the sentinels that watch it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import attrs

from leanmq.backends.pipelines import pipeline
from leanmq.backends.reach import moved
from leanmq.backends.single import prove
from leanmq.backends.streams.calls import Call, Command, Outcome
from leanmq.backends.urls import Address, Target
from leanmq.backends.wire import Drop, NodeCall, Steps, troubles
from leanmq.clock import Clock, SystemClock
from leanmq.errors import AccessError, ConnectionError, LeanMQError

__all__ = ["SentinelService"]

_LOOK: Final = 0.5
"""Seconds between two looks at a sentinel while all is well.

In a planned failover the old primary stays up and takes writes for 11 s; all are lost.
"""

_LOOK_IN_VAIN: Final = 5.0
"""The same once no sentinel answers: a primary that is well must not suffer from that."""

_QUICK: Final = 0.5
"""Seconds given to one server when another could be asked instead."""


@attrs.frozen(order=True)
class _Answer:
    """What a sentinel believes; of two beliefs the one of the later epoch is right."""

    epoch: int
    address: tuple[str, int]

    def replaces(self, other: _Answer) -> bool:
        return self.address != other.address and self.epoch >= other.epoch


class SentinelService:
    """Sends every call to the primary of a service.

    Searches for it when it is unknown or a call met trouble; while all is well it looks at one
    sentinel every half a second in passing, each in turn, and searches if that one names
    another address. A search asks until more than half of the sentinels have answered, and
    believes the latest configuration epoch: one that was cut off, and still holds to the old
    primary, is outvoted; nor does a primary that answers lose us to an earlier epoch. What was
    found must also say itself (ROLE) that it is a primary.
    """

    slots_apart = False

    def __init__(self, target: Target, clock: Clock | None = None) -> None:
        self.display = target.display
        self._service = target.service
        self._sentinels = target.addresses
        self._now = (clock or SystemClock()).monotonic
        # Each is replaced as a whole. Of threads that race one has searched in vain, no more.
        self._primary: _Answer | None = None
        self._doubted = True
        self._failed: frozenset[Address] = frozenset()
        self._strikes = 0
        self._looks = 0
        self._look_at = 0.0

    def open(self) -> Steps[None]:
        """Find the primary and ask it once; raises the mapped error if either fails."""
        try:
            address = yield from self._search(_QUICK)
        except ConnectionError:
            address = yield from self._search(None)  # a host may be slow rather than gone
        prove((yield NodeCall(address, (("PING",),), idempotent=True)))

    def route(self, call: Call) -> Steps[list[Outcome]]:
        """Run the call on the primary; raises ConnectionError if none is found."""
        address = yield from self._locate()
        outcomes = yield NodeCall(address, call.commands, call.idempotent, call.block)
        yield from self._note(address, outcomes)
        return outcomes

    def route_many(self, calls: Sequence[Call]) -> Steps[list[list[Outcome]]]:
        """Run the calls on the primary in one pipeline."""
        address = yield from self._locate()
        results = yield from pipeline(address, calls)
        yield from self._note(address, chain.from_iterable(results))
        return results

    def _note(self, address: Address, outcomes: Iterable[Outcome]) -> Steps[None]:
        if troubles(outcomes):
            if self._primary is not None and address == self._primary.address:
                self._doubted = True
            yield Drop(address)

    def _locate(self) -> Steps[Address]:
        primary = self._primary
        if primary is None or self._doubted:
            # Each search in vain doubles the patience of the next, up to four seconds.
            return (yield from self._search(_QUICK * 2 ** min(self._strikes, 3)))
        if self._now() >= self._look_at:
            self._look_at = self._now() + _LOOK
            sentinel = self._next_to_look_at()
            answer = yield from self._ask(sentinel, _QUICK)
            if isinstance(answer, _Answer) and answer.replaces(primary):
                try:
                    return (yield from self._search(_QUICK, first=sentinel))
                except LeanMQError:
                    pass  # the new one is not ready: the old one is what we have until then
        return primary.address

    def _next_to_look_at(self) -> Address:
        healthy = [sentinel for sentinel in self._sentinels if sentinel not in self._failed]
        if not healthy:
            self._look_at = self._now() + _LOOK_IN_VAIN
        self._looks += 1
        choice = healthy or self._sentinels
        return choice[self._looks % len(choice)]

    def _search(self, limit: float | None, first: Address | None = None) -> Steps[Address]:
        self._strikes += 1
        found = yield from self._vote(limit, first)
        yield from self._confirm(found.address, limit)
        previous, self._primary = self._primary, found
        self._doubted = False
        self._strikes = 0
        self._look_at = self._now() + _LOOK
        if previous is not None and previous.address != found.address:
            moved(self._service, previous.address, found.address)
            yield Drop(previous.address)
        return found.address

    def _vote(self, limit: float | None, first: Address | None) -> Steps[_Answer]:
        answers: list[_Answer] = []
        problem: LeanMQError | None = None
        # Those that failed last time come last: a host that is gone costs the whole limit.
        for sentinel in sorted(self._sentinels, key=lambda s: (s != first, s in self._failed)):
            answer = yield from self._ask(sentinel, limit)
            if isinstance(answer, _Answer):
                answers.append(answer)
                if 2 * len(answers) > len(self._sentinels):
                    break
            elif not isinstance(problem, AccessError):
                problem = answer
        if answers:
            return max(answers)
        if isinstance(problem, AccessError):
            raise problem
        raise ConnectionError(
            f"no sentinel of {self.display} names a primary of {self._service!r} ({problem}); "
            "check that they run, their addresses and the name of the service"
        ) from problem

    def _ask(self, sentinel: Address, limit: float | None) -> Steps[_Answer | LeanMQError]:
        """What a sentinel believes, or why it does not say."""
        commands: tuple[Command, ...] = (
            ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
            ("SENTINEL", "MASTER", self._service),
        )
        place, state = yield NodeCall(sentinel, commands, True, limit=limit, sentinel=True)
        if isinstance(place, LeanMQError):
            self._failed |= {sentinel}
            return place
        self._failed -= {sentinel}
        if place is None:
            return ConnectionError(f"a sentinel does not know the service {self._service!r}")
        return _Answer(_epoch(state), (place[0].decode(), int(place[1])))

    def _confirm(self, address: Address, limit: float | None) -> Steps[None]:
        (role,) = yield NodeCall(address, (("ROLE",),), idempotent=True, limit=limit)
        if isinstance(role, AccessError) and role.code == "NOPERM":
            return  # a user without the right to ask: the word of the sentinels must do
        if isinstance(role, LeanMQError):
            prove([role])
        elif role[0] != b"master":
            raise ConnectionError(
                f"the new primary of {self.display} is still a replica; wait for the failover"
            )


def _epoch(state: Outcome) -> int:
    """The epoch in the flat list of names and values that SENTINEL MASTER answers."""
    if isinstance(state, LeanMQError):
        return 0  # not allowed to ask
    return int(dict(zip(state[::2], state[1::2], strict=True))[b"config-epoch"])
