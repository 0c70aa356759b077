"""Many calls in few round trips: which commands go to one server together.

Where a call goes is for topologies to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from leanmq.backends.streams.calls import Call, Outcome
from leanmq.backends.urls import Address, show
from leanmq.backends.wire import NodeCall, Steps, redirect, troubles
from leanmq.errors import ConnectionError, LeanMQError

__all__ = ["again", "failed", "hops", "pipeline", "shared_out"]

_CHUNK: Final = 500
"""Commands that are written at once: what is on its way, either way, is held in memory."""


def failed(call: Call, error: LeanMQError) -> list[Outcome]:
    """The outcomes of a call that was not run."""
    return [error] * len(call.commands)


def pipeline(address: Address, calls: Sequence[Call]) -> Steps[list[list[Outcome]]]:
    """Run calls on one server, some hundred commands at a time.

    Once one was not answered the rest is not asked: each chunk would wait as long.
    """
    results: list[list[Outcome]] = []
    lost: LeanMQError | None = None
    for chunk in _chunks(calls):
        if lost is not None:
            results += [failed(call, _unasked(lost, address)) for call in chunk]
            continue
        commands = tuple(command for call in chunk for command in call.commands)
        outcomes = yield NodeCall(address, commands, all(call.idempotent for call in chunk))
        lost = _unanswered(outcomes)
        rest = iter(outcomes)
        results += [list(islice(rest, len(call.commands))) for call in chunk]
    return results


def shared_out(
    calls: Sequence[Call],
    slots: Sequence[int],
    serving: Callable[[int], Address],
    send: Callable[[Address, Sequence[Call]], Steps[list[list[Outcome]]]],
) -> Steps[list[list[Outcome]]]:
    """Run calls, the share of each server by one ``send``; what these raise is the outcome."""
    results: list[list[Outcome]] = [[]] * len(calls)
    shares: dict[Address, list[int]] = {}
    for place, (call, slot) in enumerate(zip(calls, slots, strict=True)):
        try:
            shares.setdefault(serving(slot), []).append(place)
        except LeanMQError as error:
            results[place] = failed(call, error)
    for address, places in shares.items():
        share = [calls[place] for place in places]
        try:
            fresh = yield from send(address, share)
        except LeanMQError as error:
            fresh = [failed(call, error) for call in share]
        for place, outcomes in zip(places, fresh, strict=True):
            results[place] = outcomes
    return results


def again(
    calls: Sequence[Call],
    results: list[list[Outcome]],
    route: Callable[[Call], Steps[list[Outcome]]],
) -> Steps[None]:
    """Run those anew, one by one, that were answered with trouble: their slot may have moved.

    Those that were not answered keep that as their outcome, and so does the rest once one is
    not answered now: of a frozen server each call would wait for seconds.
    """
    for place, call in enumerate(calls):
        if not troubles(results[place]) or _unanswered(results[place]):
            continue
        try:
            results[place] = yield from route(call)
        except LeanMQError as error:
            results[place] = failed(call, error)
        if _unanswered(results[place]):
            return


def hops(outcomes: Iterable[Outcome], asked: list[Address]) -> dict[tuple[Address, str], list[int]]:
    """Where to turn to for which commands, by address and by MOVED or ASK."""
    hops: dict[tuple[Address, str], list[int]] = {}
    for place, outcome in enumerate(outcomes):
        target = redirect(outcome, asked[place])
        if target is not None:
            hops.setdefault((target, outcome.code), []).append(place)
    return hops


def _chunks(calls: Sequence[Call]) -> Iterator[list[Call]]:
    chunk: list[Call] = []
    size = 0
    for call in calls:
        if chunk and size + len(call.commands) > _CHUNK:
            yield chunk
            chunk, size = [], 0
        chunk.append(call)
        size += len(call.commands)
    if chunk:
        yield chunk


def _unasked(lost: LeanMQError, address: Address) -> LeanMQError:
    """What is said of a call that was not written, since one before it was not answered."""
    error = ConnectionError(f"{show(address)} was not asked, after: {lost}")
    error.__cause__ = lost.__cause__ or lost
    return error


def _unanswered(outcomes: Sequence[Outcome]) -> LeanMQError | None:
    return next((trouble for trouble in troubles(outcomes) if not trouble.code), None)
