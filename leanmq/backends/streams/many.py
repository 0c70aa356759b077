"""Operations on many queues at once, made of those on one: ``ManyQueues`` on streams."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, Final

from leanmq.backends.many import METHODS, Record, Recorded, Request, Watch, Watched
from leanmq.backends.protocol import Exchange
from leanmq.backends.streams import refusals, replies
from leanmq.backends.streams.calls import Call, Command, Many, Outcomes, Wait
from leanmq.backends.streams.keys import registry_key
from leanmq.backends.streams.operations import Operation, StreamOperations, run_script
from leanmq.backends.streams.scripts import script
from leanmq.errors import LeanMQError, UnsupportedError

__all__ = ["SLICE", "operation", "record", "together", "watch"]

SLICE: Final = 1.0
"""Seconds that a watch waits in a server at most."""


def operation(do: StreamOperations, request: Request) -> Operation[Any]:
    """The operation that carries out a request, which must not wait."""
    if isinstance(request, Exchange):
        if request.wait:
            raise UnsupportedError(
                "what is carried out together with others cannot wait; use watch"
            )
        return do.exchange(request)
    if isinstance(request, Record):
        return record(do, request)
    found: Operation[Any] = getattr(do, METHODS[type(request)])(request)
    return found


def together(operations: Sequence[Operation[Any]]) -> Operation[list[Any]]:
    """Carry out operations in step: what each of them asks next goes out at once.

    An error is the result of its own operation alone.
    """
    results: list[Any] = [None] * len(operations)
    begun: list[tuple[int, Call | Many]] = []

    def advance(place: int, outcomes: Outcomes | list[Outcomes] | None) -> None:
        try:
            step = operations[place].send(outcomes)
        except StopIteration as stop:
            results[place] = stop.value
        except LeanMQError as error:
            results[place] = error
        else:
            assert not isinstance(step, Wait)
            begun.append((place, step))

    for place in range(len(operations)):
        advance(place, None)
    while begun:
        steps, begun = begun, []
        calls: list[Call] = []
        for _, step in steps:
            calls += (step,) if isinstance(step, Call) else step.calls
        answers = iter((yield Many(tuple(calls))))
        for place, step in steps:
            if isinstance(step, Call):
                advance(place, next(answers))
            else:
                advance(place, list(islice(answers, len(step.calls))))
    return results


def watch(do: StreamOperations, request: Watch) -> Operation[Watched]:
    """One blocking read of all the streams, which takes nothing; or a wait on the hub."""
    streams: list[str] = []
    for queue, _ in request.queues:
        streams.append((yield from do.keys_of(queue)).stream)
    wait = min(request.wait, SLICE)
    if do.wakes is not None:
        seen = tuple(int(mark) for _, mark in request.queues)
        yield Wait(do.wakes, tuple(streams), seen, wait)
        versions = [do.wakes.version(stream) for stream in streams]
        pairs = zip(request.queues, versions, seen, strict=True)
        return Watched([queue for (queue, _), now, before in pairs if now != before])
    if wait < 0.001:  # BLOCK 0 would be for ever
        return Watched(())
    marks = [mark or "$" for _, mark in request.queues]
    blocking: Command = (
        "XREAD",
        "COUNT",
        1,
        "BLOCK",
        round(wait * 1000),
        "STREAMS",
        *streams,
        *marks,
    )
    outcomes: Outcomes = yield Call((blocking,), streams[0], idempotent=True, block=wait)
    found = {name.decode() for name, _ in refusals.reply(outcomes) or ()}
    queues = zip(request.queues, streams, strict=True)
    return Watched([queue for (queue, _), stream in queues if stream in found])


def record(do: StreamOperations, request: Record) -> Operation[Recorded]:
    """Compare and set in the registry."""
    verb = "forget" if request.forget else "read" if request.value is None else "set"
    expected = ("0", "") if request.expected is None else ("1", request.expected)
    reply = yield from run_script(
        script("record"),
        (registry_key(do.prefix),),
        (request.name, verb, *expected, request.value or ""),
    )
    return Recorded(replies.text(reply))
