"""Many calls in few round trips: which commands go to one server together.

Where a call goes is for topologies to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from leanmq.backends.streams.calls import Call, Command, Outcome
from leanmq.backends.streams.keys import is_of_shard
from leanmq.backends.urls import Address, show
from leanmq.backends.wire import NodeCall, Steps, Together, redirect, troubles
from leanmq.errors import ConnectionError, LeanMQError, OutcomeUnknownError

__all__ = ["abreast", "again", "failed", "hops", "pipeline", "shared_out", "telling"]

T = TypeVar("T")

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
        commands = tuple([command for call in chunk for command in call.commands])
        outcomes = yield NodeCall(address, commands, all(call.idempotent for call in chunk))
        lost = _unanswered(outcomes)
        at = 0
        for call in chunk:
            own = outcomes[at : at + len(call.commands)]
            at += len(own)
            harmless = lost is not None and call.idempotent
            results.append([_harmless(o, address) for o in own] if harmless else own)
    return results


def shared_out(
    calls: Sequence[Call],
    slots: Sequence[int],
    serving: Callable[[int], Address],
    send: Callable[[Address, Sequence[Call]], Steps[list[list[Outcome]]]],
) -> Steps[list[list[Outcome]]]:
    """Run calls, the share of each server by one ``send``, and all of these at the same time.

    What a ``send`` raises is the outcome of its calls.
    """
    results: list[list[Outcome]] = [[]] * len(calls)
    shares: dict[Address, list[int]] = {}
    for place, (call, slot) in enumerate(zip(calls, slots, strict=True)):
        try:
            shares.setdefault(serving(slot), []).append(place)
        except LeanMQError as error:
            results[place] = failed(call, error)
    told = [replace(call, commands=call.commands + telling(call)) for call in calls]
    runs = [send(server, [told[place] for place in share]) for server, share in shares.items()]
    for share, fresh in zip(shares.values(), (yield from abreast(runs)), strict=True):
        for number, place in enumerate(share):
            call = calls[place]
            if isinstance(fresh, LeanMQError):
                results[place] = failed(call, fresh)
            else:
                results[place] = fresh[number][: len(call.commands)]
    return results


def telling(call: Call) -> tuple[Command, ...]:
    """What wakes those who wait for many queues: each key is a channel, in the slot of the call.

    It goes behind the commands of the call, in the same write; nobody asks for its outcome.
    """
    return tuple(("SPUBLISH", key, "") for key in call.wakes if is_of_shard(key))


def abreast(runs: Sequence[Steps[T]]) -> Steps[list[T | LeanMQError]]:
    """Go through steps side by side: what each of them asks next is asked at the same time.

    An error is the result of its own steps alone.
    """
    results: list[Any] = [None] * len(runs)
    asked: list[tuple[int, NodeCall]] = []

    def advance(place: int, outcomes: list[Outcome] | None) -> Steps[None]:
        try:
            while True:
                step = runs[place].send(outcomes)  # type: ignore[arg-type]  # None starts it
                if isinstance(step, NodeCall):
                    asked.append((place, step))
                    return
                outcomes = yield step
        except StopIteration as stop:
            results[place] = stop.value
        except LeanMQError as error:
            results[place] = error

    for place in range(len(runs)):
        yield from advance(place, None)
    while asked:
        now, asked = asked, []
        answers = yield Together(tuple(call for _, call in now))
        for (place, _), outcomes in zip(now, answers, strict=True):
            yield from advance(place, outcomes)
    return results


def again(
    calls: Sequence[Call],
    results: list[list[Outcome]],
    route: Callable[[Call], Steps[list[Outcome]]],
) -> Steps[None]:
    """Run what was answered with trouble anew, call by call: their slot may have moved.

    Of a call only the commands in trouble: the others are done, and their answers count.
    Those that were not answered keep that as their outcome, and so does the rest once one is
    not answered now: of a frozen server each call would wait for seconds.
    """
    for place, call in enumerate(calls):
        if not troubles(results[place]) or _unanswered(results[place]):
            continue
        places = [n for n, outcome in enumerate(results[place]) if troubles([outcome])]
        rest = replace(call, commands=tuple(call.commands[n] for n in places))
        try:
            fresh = yield from route(rest)
        except LeanMQError as error:
            fresh = failed(rest, error)
        results[place] = list(results[place])
        for number, outcome in zip(places, fresh, strict=True):
            results[place][number] = outcome
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


def _chunks(calls: Sequence[Call]) -> Iterable[Sequence[Call]]:
    if sum([len(call.commands) for call in calls]) <= _CHUNK:  # nearly always
        return (calls,) if calls else ()
    return _cut(calls)


def _cut(calls: Sequence[Call]) -> Iterator[list[Call]]:
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


def _harmless(outcome: Outcome, address: Address) -> Outcome:
    """The outcome of an idempotent call that went together with others."""
    if not isinstance(outcome, OutcomeUnknownError):
        return outcome
    error = ConnectionError(
        f"the reply of server {show(address)} was lost; ask again, it does no harm", in_doubt=True
    )
    error.__cause__ = outcome.__cause__ or outcome
    return error


def _unanswered(outcomes: Sequence[Outcome]) -> LeanMQError | None:
    return next((trouble for trouble in troubles(outcomes) if not trouble.code), None)
