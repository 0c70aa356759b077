"""Every queue operation, written once, as a generator.

An operation yields a ``Call`` (or a ``Wait``) and is sent its outcomes. No I/O, no clock, no
topology and no asyncio in here; that is what drivers and connections are for.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, TypeAlias, TypeVar

import attrs
import msgspec
from msgspec.structs import replace

from leanmq.backends.protocol import (
    Declare,
    Declared,
    Drop,
    Dropped,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Held,
    QueueRef,
    QueueStats,
    Receive,
    SendBatch,
    Sent,
    Settings,
    Settlement,
    Standing,
    Stats,
)
from leanmq.backends.streams import replies
from leanmq.backends.streams.calls import Call, Command, Hub, Outcome, Outcomes, Reply, Wait
from leanmq.backends.streams.keys import GROUP, SCHEMA, QueueKeys, queue_keys, registry_key
from leanmq.backends.streams.scripts import Script, script
from leanmq.errors import (
    BackendError,
    LeanMQError,
    QueueNotFoundError,
    UnsupportedError,
)

__all__ = ["DEFAULTS", "Operation", "StreamOperations"]

T = TypeVar("T")
Operation: TypeAlias = Generator["Call | Wait", Any, T]

DEFAULTS = Settings(lease=60.0, max_deliveries=10)

SWEEP_EVERY = 0.9
"""Seconds between looks for ended leases: a little less than a slice of waiting, so that one
waiting consumer sweeps once a slice."""

SWEEP_EVERY_IN_MEMORY = 0.05


@attrs.frozen
class StreamOperations:
    """The operations on the queues under one prefix.

    Attributes:
        prefix: What every key begins with.
        hub: Where waiting goes on if the server cannot be left blocking.
    """

    prefix: str
    hub: Hub | None = None

    def _keys(self, name: str) -> QueueKeys:
        return queue_keys(self.prefix, name, tag=name)

    def declare(self, request: Declare) -> Operation[Declared]:
        """Enter the queue in the registry, then make its keys in its own slot."""
        entry = msgspec.json.encode({"tag": request.name, "kind": "queue"})
        registry = registry_key(self.prefix)
        register = ("HSETNX", registry, request.name, entry)
        _reply((yield Call((register,), registry, idempotent=True)))
        keys = self._keys(request.name)
        asked = attrs.asdict(request.settings)
        wanted = {k: v if v is not None else getattr(DEFAULTS, k) for k, v in asked.items()}
        reply = yield from _run(
            script("declare"),
            keys.all(),
            (SCHEMA, "lease", _milliseconds(wanted["lease"]), "max", wanted["max_deliveries"]),
        )
        return replies.declared(reply)

    def drop(self, request: Drop) -> Operation[Dropped]:
        """Delete the keys, then the entry: an entry without keys is completed by a declare."""
        keys = self._keys(request.name)
        reply = yield from _run(
            script("drop"),
            keys.all(),
            ("1" if request.dead_letters else "0",),
            wakes=(keys.live.stream, keys.dead.stream),
        )
        result = replies.dropped(reply)
        if not result.dead_letters:
            registry = registry_key(self.prefix)
            forget = ("HDEL", registry, request.name)
            _reply((yield Call((forget,), registry, idempotent=True)))
        return result

    def send(self, batch: SendBatch) -> Operation[Sent]:
        """One script call for the whole batch."""
        keys = self._keys(batch.queue.name).of(batch.queue)
        arguments: list[str | bytes | int] = [1, "b", len(batch.messages)]
        arguments += [message.body for message in batch.messages]
        try:
            reply = yield from _run(
                script("send"),
                (keys.stream, keys.meta),
                tuple(arguments),
                queue=batch.queue.name,
                idempotent=False,
                wakes=(keys.stream,),
            )
        except QueueNotFoundError:
            raise
        except LeanMQError as error:
            return Sent([error] * len(batch.messages))
        return Sent(replies.sent_ids(reply))

    def exchange(self, request: Exchange) -> Operation[Exchanged]:
        """Settle, then receive; if nothing came, wait once."""
        if len(request.receive) > 1:
            raise UnsupportedError(
                f"this backend receives from one queue at a time, not {len(request.receive)}; "
                "receive from each in turn"
            )
        settled: list[Sequence[Standing]] = []
        try:
            for settlement in request.settle:
                settled.append((yield from self._settle(settlement)))
        except LeanMQError as error:
            error.unknown = error.unknown or bool(settled)
            raise
        if not request.receive:
            return Exchanged(settled)
        result = yield from self._receive(request.receive[0], request.wait)
        return replace(result, settled=settled) if settled else result

    def extend(self, request: Extend) -> Operation[Extended]:
        """Begin leases anew for those that still hold their messages."""
        return (yield from self._on_held(request.queue, "extend", request.messages))

    def stats(self, request: Stats) -> Operation[QueueStats]:
        """Four looks in one round trip."""
        keys = self._keys(request.queue.name).of(request.queue)
        outcomes = yield Call(
            (
                ("HMGET", keys.meta, "lease", "max", "created"),
                ("XLEN", keys.stream),
                ("XPENDING", keys.stream, GROUP),
                ("ZCOUNT", keys.due, "-inf", "(+inf"),
            ),
            keys.meta,
            idempotent=True,
        )
        meta, length, pending, delayed = (_value(o, request.queue.name) for o in outcomes)
        if meta[0] is None:
            raise _not_found(request.queue.name)
        return replies.stats(length, pending, delayed, meta)

    def _settle(self, settlement: Settlement) -> Operation[Sequence[Standing]]:
        keys = self._keys(settlement.queue.name).of(settlement.queue)
        done = yield from self._on_held(
            settlement.queue,
            settlement.verb.value,
            settlement.messages,
            delay=settlement.delay,
            reason=settlement.reason,
            wakes=(keys.stream, keys.dead),
        )
        return done.standings

    def _on_held(
        self,
        queue: QueueRef,
        verb: str,
        messages: Sequence[Held],
        *,
        delay: float = 0.0,
        reason: str = "",
        wakes: tuple[str, ...] = (),
    ) -> Operation[Extended]:
        """Run the settle script once for each delivery among the receipts."""
        keys = self._keys(queue.name).of(queue)
        standings = [Standing.GONE] * len(messages)
        lease = 0.0
        for number, (rest, (entries, places)) in enumerate(replies.by_delivery(messages).items()):
            times, consumer = replies.parse_rest(rest)
            try:
                reply = yield from _run(
                    script("settle"),
                    keys.all(),
                    (verb, consumer, times, _milliseconds(delay), reason, *entries),
                    queue=queue.name,
                    wakes=wakes,
                )
            except LeanMQError as error:
                error.unknown = error.unknown or number > 0  # those before it are done
                raise
            lease = replies.lease(reply)
            found = replies.standings(reply)
            if len(found) == len(messages):
                return Extended(found, lease)
            for place, standing in zip(places, found, strict=True):
                standings[place] = standing
        return Extended(standings, lease)

    def _receive(self, request: Receive, wait: float) -> Operation[Exchanged]:
        keys = self._keys(request.queue.name).of(request.queue)
        dead = request.queue.dead
        read: Command = ("XREADGROUP", "GROUP", GROUP, request.consumer, "COUNT", request.count)
        if request.brisk and not request.recover:
            # Without the script: half the work for the server while new messages abound.
            commands = ((*read, "STREAMS", keys.stream, ">"), ("HGET", keys.meta, "lease"))
            outcomes = yield Call(commands, keys.stream, idempotent=True)
            fresh, lease = (_value(o, request.queue.name) for o in outcomes)
            if fresh and lease:
                return replies.read(fresh, request.consumer, int(lease) / 1000, dead=dead)
        seen = self.hub.version(keys.stream) if self.hub else 0
        held = [replies.entry_of(text) for text in request.held]
        reply = yield from _run(
            script("receive"),
            keys.all(),
            (
                request.consumer,
                request.count,
                "1" if request.alone else "0",
                _milliseconds(SWEEP_EVERY_IN_MEMORY if self.hub else SWEEP_EVERY),
                "1" if request.recover else "0",
                *held,
            ),
            queue=request.queue.name,
            wakes=(keys.dead,),
        )
        result = replies.received(reply, request.consumer, dead=dead)
        if result.deliveries or result.more or wait <= 0:
            return result
        hint = replies.wait_hint(reply)
        wait = wait if hint is None else min(wait, hint)
        if self.hub:
            yield Wait(self.hub, keys.stream, seen, wait)
            return result
        if wait < 0.001:  # BLOCK 0 would be for ever
            return result
        blocking = (*read, "BLOCK", _milliseconds(wait), "STREAMS", keys.stream, ">")
        outcomes = yield Call((blocking,), keys.stream, idempotent=True, block=wait)
        return replies.read(
            _value(outcomes[0], request.queue.name), request.consumer, result.lease, dead=dead
        )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _run(
    code: Script,
    keys: tuple[str, ...],
    arguments: Command,
    *,
    queue: str = "",
    idempotent: bool = True,
    wakes: tuple[str, ...] = (),
) -> Operation[Reply]:
    """Run a script by its SHA-1; load it first where it is not known."""
    rest: Command = (len(keys), *keys, *arguments)
    by_sha: Command = ("EVALSHA", code.sha, *rest)
    outcomes: Outcomes = yield Call((by_sha,), keys[0], idempotent, wakes=wakes)
    if _unknown_script(outcomes):
        load: Command = ("SCRIPT", "LOAD", code.text)
        outcomes = yield Call((load, by_sha), keys[0], idempotent, wakes=wakes)
    if _unknown_script(outcomes):
        # The slot is moving: its keys, and so the call, are sent on to a node that the load,
        # which names no key, does not reach. The text itself does.
        by_text: Command = ("EVAL", code.text, *rest)
        outcomes = yield Call((by_text,), keys[0], idempotent, wakes=wakes)
    return _value(outcomes[-1], queue)


def _unknown_script(outcomes: Outcomes) -> bool:
    return getattr(outcomes[-1], "code", "") == "NOSCRIPT"


def _reply(outcomes: Outcomes) -> Reply:
    return _value(outcomes[0], "")


def _value(outcome: Outcome, queue: str) -> Reply:
    """The reply, or its error raised with the name of the queue."""
    if not isinstance(outcome, LeanMQError):
        return outcome
    if outcome.code in ("NOQUEUE", "NOGROUP"):
        raise _not_found(queue) from outcome
    if outcome.code == "SCHEMA":
        raise BackendError(f"{outcome}; upgrade leanmq in this process") from outcome
    outcome.queue = outcome.queue or queue or None
    raise outcome


def _not_found(queue: str) -> QueueNotFoundError:
    return QueueNotFoundError(
        f"queue {queue!r} does not exist; declare it first, or it was deleted", queue=queue
    )
