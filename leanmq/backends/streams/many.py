"""Operations on many queues at once, made of those on one: ``ManyQueues`` on streams."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import islice, repeat
from typing import Any, Final

from leanmq.backends.many import METHODS, Record, Recorded, Request, Watch, Watched
from leanmq.backends.protocol import Exchange, Receive
from leanmq.backends.streams import refusals, replies
from leanmq.backends.streams.calls import Call, Command, Many, Outcomes, Wait
from leanmq.backends.streams.keys import StreamKeys, registry_key
from leanmq.backends.streams.operations import StreamOperations
from leanmq.backends.streams.running import Operation, run_script
from leanmq.backends.streams.scripts import script
from leanmq.errors import LeanMQError, UnsupportedError

__all__ = ["SLICE", "operation", "record", "requested", "together", "watch"]

SLICE: Final = 1.0
"""Seconds that a watch waits in a server at most."""

_JOINED: Final = 64
"""Requests of one kind that are one call, at most."""


def operation(do: StreamOperations, request: Request) -> Operation[Any]:
    """The operation that carries out a request, which must not wait."""
    if isinstance(request, Exchange):
        if request.wait:
            raise UnsupportedError(
                "what is carried out together with others cannot wait; use watch"
            )
        if request.settle or len(request.receive) != 1:
            return do.exchange(request)
        return do.receive(request.receive[0])
    if isinstance(request, Record):
        return record(do, request)
    found: Operation[Any] = getattr(do, METHODS[type(request)])(request)
    return found


def requested(do: StreamOperations, requests: Sequence[Request]) -> Operation[list[Any]]:
    """Carry out requests in step; those of a kind, of queues on one server, in one call."""
    kinds: dict[Any, list[int]] = {}
    keys: dict[int, StreamKeys] = {}
    for place, request in enumerate(requests):
        if do.slots_apart or (kind := _kind(do, request)) is None:
            kinds[place] = [place]
        else:
            kinds.setdefault(kind[0], []).append(place)
            keys[place] = kind[1]
    groups = [
        places[at : at + _JOINED]
        for places in kinds.values()
        for at in range(0, len(places), _JOINED)
    ]
    operations = [
        _joined(do, [requests[place] for place in places], [keys[place] for place in places])
        if len(places) > 1
        else operation(do, requests[places[0]])
        for places in groups
    ]
    results: list[Any] = [None] * len(requests)
    for places, result in zip(groups, (yield from together(operations)), strict=True):
        several = len(places) > 1 and not isinstance(result, LeanMQError)
        for place, its in zip(places, result if several else repeat(result), strict=False):
            results[place] = its
    return results


def _kind(do: StreamOperations, request: Request) -> tuple[Hashable, StreamKeys] | None:
    """What has the same kind can be joined, and the keys for it; None: what cannot be joined."""
    if not isinstance(request, Exchange) or request.wait:
        return None
    if len(request.receive) + len(request.settle) != 1:
        return None
    kind: Hashable = "settle"
    if request.settle:
        queue = request.settle[0].queue
    else:
        receive = request.receive[0]
        queue = receive.queue
        if receive.brisk and receive.together and not receive.recover:
            kind = "read"
        # In memory pcall, which the joined script needs, would swallow a KeyboardInterrupt.
        elif receive.brisk or receive.recover or do.hub is not None:
            return None
        else:
            kind = (receive.consumer, queue.dead, receive.watched)
    keys = do.known_keys(queue)
    return None if keys is None else (kind, keys)


def _joined(
    do: StreamOperations, requests: Sequence[Any], keys: Sequence[StreamKeys]
) -> Operation[list[Any]]:
    """Carry out requests of one kind."""
    if requests[0].settle:
        return do.settle_each([request.settle[0] for request in requests], keys)
    receives: list[Receive] = [request.receive[0] for request in requests]
    return do.reads(receives, keys) if receives[0].brisk else _looks(do, receives, keys)


def _looks(
    do: StreamOperations, receives: Sequence[Receive], keys: Sequence[StreamKeys]
) -> Operation[list[Any]]:
    """Look at queues; alone at those that need it."""
    results: list[Any] = list((yield from do.looks(receives, keys)))
    if alone := [place for place, result in enumerate(results) if result is None]:
        looks = [do.looks((receives[place],), (keys[place],)) for place in alone]
        for place, result in zip(alone, (yield from together(looks)), strict=True):
            results[place] = result if isinstance(result, LeanMQError) else result[0]
    return results


def together(operations: Sequence[Operation[Any]]) -> Operation[list[Any]]:
    """Carry out operations in step: what each of them asks next goes out at once.

    An error is the result of its own operation alone.
    """
    results: list[Any] = [None] * len(operations)
    outcomes: list[Outcomes | list[Outcomes] | None] = [None] * len(operations)
    going: Iterable[int] = range(len(operations))
    while True:
        begun: list[tuple[int, int | None]] = []
        calls: list[Call] = []
        for place in going:
            try:
                step = operations[place].send(outcomes[place])
            except StopIteration as stop:
                results[place] = stop.value
            except LeanMQError as error:
                results[place] = error
            else:
                if isinstance(step, Call):
                    begun.append((place, None))
                    calls.append(step)
                else:
                    assert isinstance(step, Many)
                    begun.append((place, len(step.calls)))
                    calls += step.calls
        if not begun:
            return results
        answers = iter([(yield calls[0])] if len(calls) == 1 else (yield Many(tuple(calls))))
        for place, several in begun:
            outcomes[place] = next(answers) if several is None else list(islice(answers, several))
        going = [place for place, _ in begun]


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
