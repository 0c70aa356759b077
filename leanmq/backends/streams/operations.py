"""Every queue operation, written once, as a generator.

An operation yields a ``Call`` (or a ``Wait``) and is sent its outcomes. No I/O, no clock, no
topology and no asyncio in here; that is what drivers and connections are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TypeAlias

import attrs
import msgspec
from msgspec.structs import replace

from leanmq.backends.protocol import (
    Alter,
    Declare,
    Declared,
    Drop,
    Dropped,
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Held,
    Listed,
    ListQueues,
    Peek,
    Peeked,
    Purge,
    Purged,
    QueueRef,
    QueueStats,
    Receive,
    Redrive,
    Redriven,
    SendBatch,
    Sent,
    Settings,
    Settlement,
    Standing,
    State,
    Stats,
    Transact,
    Verb,
)
from leanmq.backends.streams import refusals, replies
from leanmq.backends.streams.calls import Call, Command, Hub, Many, Outcomes, Reply, Wait
from leanmq.backends.streams.entries import runs_of
from leanmq.backends.streams.keys import (
    GROUP,
    SCHEMA,
    QueueKeys,
    StreamKeys,
    queue_keys,
    registry_key,
)
from leanmq.backends.streams.running import Operation, Run, run_script, run_scripts
from leanmq.backends.streams.scripts import script
from leanmq.backends.streams.work import Work, milliseconds
from leanmq.errors import (
    BackendError,
    CrossSlotError,
    LeanMQError,
    QueueNotFoundError,
    StaleSettingsError,
    UnsupportedError,
)

__all__ = ["DEFAULTS", "StreamOperations"]

Results: TypeAlias = "list[Exchanged | LeanMQError]"
"""Of queues: what came of each, an error of its own."""

DEFAULTS = Settings(
    lease=60.0,
    max_deliveries=10,
    max_length=0,
    overflow="raise",
    max_payload_bytes=8 * 1024 * 1024,
    dedup_window=3600.0,
)

_TRIES = 5
"""How often a queue is entered in the registry that somebody else deletes at that moment."""

SWEEP_EVERY = 0.9
"""Seconds between looks for ended leases: a little less than a slice of waiting, so that one
waiting consumer sweeps once a slice."""

SWEEP_EVERY_IN_MEMORY = 0.05

_ENDS = (Verb.ACKNOWLEDGE, Verb.DELETE)

_STATES = {State.READY: "ready", State.IN_FLIGHT: "flight", State.DELAYED: "delayed"}


@attrs.frozen
class StreamOperations:
    """The operations on the queues under one prefix.

    Attributes:
        prefix: What every key begins with.
        hub: Where waiting goes on if the server cannot be left blocking.
        slots_apart: Queues of different slots cannot be touched in one step.
        wakes: Where waiting on many queues goes on, if not in the server.
    """

    prefix: str
    hub: Hub | None = None
    slots_apart: bool = False
    wakes: Hub | None = None
    _tags: dict[str, str] = attrs.field(factory=dict, init=False, repr=False, eq=False)

    def _keys(self, name: str) -> Operation[QueueKeys]:
        """The keys of a queue: the registry knows under which tag they are."""
        tag = self._tags.get(name)
        if tag is None:
            registry = registry_key(self.prefix)
            look = ("HGET", registry, name)
            entry = refusals.reply((yield Call((look,), registry, idempotent=True)))
            if entry is None:
                raise refusals.not_found(name)
            tag = self._tags[name] = _tag(entry, name)
        return queue_keys(self.prefix, name, tag)

    def keys_of(self, queue: QueueRef) -> Operation[StreamKeys]:
        """The keys of a queue, or of its dead letters; raises QueueNotFoundError."""
        return (yield from self._keys(queue.name)).of(queue)

    def known_keys(self, queue: QueueRef) -> StreamKeys | None:
        """What ``keys_of`` returns, if it need not ask: without a generator for each message."""
        tag = self._tags.get(queue.name)
        return None if tag is None else queue_keys(self.prefix, queue.name, tag).of(queue)

    def declare(self, request: Declare) -> Operation[Declared]:
        """Enter the queue in the registry, then make its keys in its own slot.

        The first entry stays: it is the authority for the tag. What is there is not written again:
        of a server that is full it may be read.
        """
        registry = registry_key(self.prefix)
        look = ("HGET", registry, request.name)
        outcomes = yield Call((look,), registry, idempotent=True)
        found = refusals.value(outcomes[0], request.name)
        for _ in range(_TRIES):
            if found is not None:
                break  # else it is new, or was deleted between the two commands
            entry = {"tag": request.settings.slot or request.name, "kind": "queue"}
            register = ("HSETNX", registry, request.name, msgspec.json.encode(entry))
            outcomes = yield Call((register, look), registry, idempotent=True)
            _, found = (refusals.value(outcome, request.name) for outcome in outcomes)
        if found is None:
            raise refusals.not_found(request.name)
        tag = self._tags[request.name] = _tag(found, request.name)
        keys = queue_keys(self.prefix, request.name, tag)
        asked = attrs.asdict(request.settings)
        wanted = {k: v if v is not None else getattr(DEFAULTS, k) for k, v in asked.items()}
        reply = yield from run_script(
            script("declare"), keys.all(), (SCHEMA, *replies.stored_settings(Settings(**wanted)))
        )
        return replies.declared(reply, tag)

    def alter(self, request: Alter) -> Operation[Declared]:
        """Change what is stored; processes learn of it by the epoch."""
        keys = yield from self._keys(request.name)
        if request.settings.slot not in (None, keys.tag):
            raise UnsupportedError(
                f"queue {request.name!r} is in slot {keys.tag!r}, and a queue stays in its slot; "
                "make a queue of another name there, and move the messages",
                queue=request.name,
            )
        changes = replies.stored_settings(request.settings)
        reply = yield from run_script(
            script("alter"), (keys.live.meta,), changes, queue=request.name
        )
        return replies.declared(reply, keys.tag)

    def drop(self, request: Drop) -> Operation[Dropped]:
        """Delete the keys, then the entry: an entry without keys is completed by a declare."""
        try:
            keys = yield from self._keys(request.name)
        except QueueNotFoundError:
            return Dropped(False)
        reply = yield from run_script(
            script("drop"),
            keys.all(),
            ("1" if request.dead_letters else "0",),
            wakes=(keys.live.stream, keys.dead.stream),
        )
        result = replies.dropped(reply)
        if not result.dead_letters:
            registry = registry_key(self.prefix)
            forget = ("HDEL", registry, request.name)
            refusals.reply((yield Call((forget,), registry, idempotent=True)))
            self._tags.pop(request.name, None)
        return result

    def list(self, request: ListQueues) -> Operation[Listed]:
        """The registry, then one look at each queue, all those of a node together."""
        registry = registry_key(self.prefix)
        entries = refusals.reply((yield Call((("HGETALL", registry),), registry, idempotent=True)))
        places: list[tuple[QueueRef, QueueKeys]] = []
        for name, entry in sorted(replies.pairs(entries)):
            if (tag := replies.tag(entry)) is None:
                continue
            keys = queue_keys(self.prefix, name.decode(), tag)
            places += [(QueueRef(name.decode(), dead), keys) for dead in (False, True)]
        looks = tuple(_look(keys.of(ref)) for ref, keys in places)
        answers = (yield Many(looks)) if looks else []
        found: list[tuple[QueueRef, QueueStats]] = []
        for (ref, keys), outcomes in zip(places, answers, strict=True):
            try:
                found.append((ref, _stats(outcomes, ref.name, keys.tag)))
            except QueueNotFoundError:  # an entry that was not completed, or is being deleted
                continue
        return Listed(found)

    def send(self, batch: SendBatch) -> Operation[Sent]:
        """One script call for the whole batch."""
        keys = yield from self.keys_of(batch.queue)
        kind = "d" if batch.queue.dead else "q"
        runs = runs_of(batch.messages)
        try:
            reply = yield from run_script(
                script("send"),
                keys.for_sending(),
                (batch.epoch, kind, batch.producer, batch.sequence, *runs),
                queue=batch.queue.name,
                idempotent=False,
                wakes=(keys.stream,),
            )
        except (QueueNotFoundError, StaleSettingsError):
            raise
        except LeanMQError as error:
            return Sent([error] * len(batch.messages))
        ids = replies.sent_ids(reply)
        if len(ids) == len(batch.messages):
            return Sent(ids)
        full = refusals.full(batch.queue.name)
        return Sent([*ids, *[full] * (len(batch.messages) - len(ids))])

    def transact(self, request: Transact) -> Operation[Sent]:
        """One script call for everything."""
        keys: list[str] = []
        arguments: list[str | bytes | int] = [len(request.sends)]
        tags: dict[str, str] = {}
        wakes = []
        for batch in request.sends:
            queue = yield from self._keys(batch.queue.name)
            tags.setdefault(queue.tag, batch.queue.name)
            stream = queue.of(batch.queue)
            keys += stream.for_sending()
            runs = runs_of(batch.messages)
            arguments += (batch.epoch, "d" if batch.queue.dead else "q", len(runs), *runs)
            wakes.append(stream.stream)
        names = [batch.queue.name for batch in request.sends]
        groups: list[str | bytes | int] = []
        for settlement in request.acknowledge:
            queue = yield from self._keys(settlement.queue.name)
            tags.setdefault(queue.tag, settlement.queue.name)
            stream = queue.of(settlement.queue)
            for rest, entries in replies.receipts_by_delivery(settlement.messages).items():
                times, consumer = replies.parse_rest(rest)
                keys += (stream.stream, stream.ids, stream.meta)
                groups += (consumer, times, len(entries), *(w for pair in entries for w in pair))
                names.append(settlement.queue.name)
        if self.slots_apart and len(tags) > 1:
            raise refusals.apart(tags)
        try:
            reply = yield from run_script(
                script("transact"),
                tuple(keys),
                (*arguments, len(names) - len(request.sends), *groups),
                queue=names[0],
                idempotent=False,
                wakes=tuple(wakes),
            )
        except (BackendError, QueueNotFoundError, StaleSettingsError) as error:
            refusal = refusals.refused_transaction(error, names)
            if refusal is error:
                raise
            raise refusal from error.__cause__ or error
        return Sent(replies.sent_ids(reply))

    def exchange(self, request: Exchange) -> Operation[Exchanged]:
        """Settle, then receive; if nothing came, wait once."""
        if len(request.receive) > 1:
            raise UnsupportedError(
                f"an exchange receives from one queue at a time, not {len(request.receive)}; use "
                "one exchange for each, together"
            )
        settled: list[Sequence[Standing]] = []
        try:
            for settlement in request.settle:
                keys = self.known_keys(settlement.queue) or (
                    yield from self.keys_of(settlement.queue)
                )
                [done] = yield from self.settle_each((settlement,), (keys,))
                if isinstance(done, LeanMQError):
                    raise done
                settled += done.settled
        except LeanMQError as error:
            error.in_doubt = error.in_doubt or bool(settled)
            raise
        if not request.receive:
            return Exchanged(settled)
        result = yield from self.receive(request.receive[0], request.wait)
        return replace(result, settled=settled) if settled else result

    def extend(self, request: Extend) -> Operation[Extended]:
        """Begin leases anew for those that still hold their messages."""
        return (yield from self._on_held(request.queue, "extend", request.messages))

    def stats(self, request: Stats) -> Operation[QueueStats]:
        """Four looks in one round trip."""
        keys = yield from self._keys(request.queue.name)
        outcomes = yield _look(keys.of(request.queue))
        return _stats(outcomes, request.queue.name, keys.tag)

    def peek(self, request: Peek) -> Operation[Peeked]:
        """One script call that writes nothing."""
        keys = yield from self.keys_of(request.queue)
        what: Command = (_STATES[request.state], request.count)
        if request.ids is not None:
            what = ("ids", *filter(replies.is_id, request.ids))
        reply = yield from run_script(
            script("peek"), keys.for_looking(), what, queue=request.queue.name
        )
        return Peeked(replies.peeked(reply, dead=request.queue.dead))

    def redrive(self, request: Redrive) -> Operation[Redriven]:
        """Settle the dead letters as messages of the destination."""
        name = request.destination or request.queue.name
        origin = yield from self._keys(request.queue.name)
        keys = yield from self._keys(name)
        if self.slots_apart and keys.tag != origin.tag:
            raise CrossSlotError(
                f"dead letters of {request.queue.name!r} (slot {origin.tag!r}) cannot be moved to "
                f"queue {name!r} (slot {keys.tag!r}) in one step; make both queues with the same "
                "slot=, or send their payloads there and acknowledge them here",
                queue=request.queue.name,
            )
        done = yield from self._on_held(
            request.queue,
            "requeue",
            request.messages,
            destination=keys.as_destination(),
            wakes=(keys.live.stream,),
        )
        return Redriven(done.standings)

    def purge(self, request: Purge) -> Operation[Purged]:
        """Page by page, so that nobody waits for long; what comes meanwhile stays."""
        keys = yield from self.keys_of(request.queue)
        what = "expired" if request.expired else "all"
        count, at, last, left = 0, "-", "", 0
        while at:
            reply = yield from run_script(
                script("purge"),
                keys.for_looking(),
                (what, at, last, left),
                queue=request.queue.name,
            )
            deleted, at, last, left = replies.purged(reply)
            count += deleted
        return Purged(count)

    def _on_held(
        self,
        queue: QueueRef,
        verb: str,
        messages: Sequence[Held],
        *,
        destination: tuple[str, ...] = (),
        wakes: tuple[str, ...] = (),
    ) -> Operation[Extended]:
        """Run the settle script, once for each delivery among the receipts."""
        keys = self.known_keys(queue) or (yield from self.keys_of(queue))
        work = Work(keys, queue.name, verb, messages, destination=destination)
        outcomes = yield from run_scripts(script("settle"), work.runs(), wakes=wakes)
        return work.done(outcomes)

    def settle_each(
        self, settlements: Sequence[Settlement], keys: Sequence[StreamKeys]
    ) -> Operation[Results]:
        """Settle messages of queues in one call; an error is the result of its own queue alone."""
        works: list[Work] = []
        runs: list[Run] = []
        wakes: list[str] = []
        ends = [0]
        for one, its in zip(settlements, keys, strict=True):
            verb, name = one.verb.value, one.queue.name
            work = Work(its, name, verb, one.messages, one.delay, one.reason)
            works.append(work)
            runs += work.runs()
            ends.append(len(runs))
            if one.verb not in _ENDS:  # what is done is nobody else's to receive
                wakes += (its.stream, its.dead)
        outcomes = yield from run_scripts(script("settle"), runs, wakes=tuple(wakes))
        results: Results = []
        for work, (begin, end) in zip(works, pairwise(ends), strict=True):
            try:
                results.append(Exchanged((work.done(outcomes[begin:end]).standings,)))
            except LeanMQError as error:
                results.append(error)
        return results

    def receive(self, request: Receive, wait: float = 0.0) -> Operation[Exchanged]:
        """See ``exchange``."""
        keys = self.known_keys(request.queue) or (yield from self.keys_of(request.queue))
        if request.brisk and not request.recover:
            [read] = yield from self.reads((request,), (keys,))
            if isinstance(read, LeanMQError):
                raise read
            if read.deliveries or request.together:
                return read
        seen = self.hub.version(keys.stream) if self.hub else 0
        [result] = yield from self.looks((request,), (keys,))
        assert result is not None
        if result.deliveries or result.more or result.buried or wait <= 0:
            return result
        wait = wait if result.soon is None else min(wait, result.soon)
        if self.hub:
            yield Wait(self.hub, (keys.stream,), (seen,), wait)
            return result
        if wait < 0.001:  # BLOCK 0 would be for ever
            return result
        # What comes now was sent, or fell due, this moment: it has not expired yet.
        blocking = (*_read(request), "BLOCK", milliseconds(wait), "STREAMS", keys.stream, ">")
        outcomes = yield Call((blocking,), keys.stream, idempotent=True, block=wait)
        fresh = replies.entries(refusals.value(outcomes[0], request.queue.name))
        return replies.read(fresh, request, result.lease) if fresh else result

    def looks(
        self, requests: Sequence[Receive], keys: Sequence[StreamKeys]
    ) -> Operation[Sequence[Exchanged | None]]:
        """Look at queues, in one script, for one consumer; and keep them in order on the way.

        Only a look at one queue recovers. None: this one is to be looked at alone, since it failed
        among others, or since these took long enough.
        """
        first, dead = requests[0], requests[0].queue.dead
        hub = self.wakes if first.watched else self.hub
        seen = [str(hub.version(each.stream)) for each in keys] if hub and first.watched else None
        terms: list[str | int] = [
            first.consumer,
            milliseconds(SWEEP_EVERY_IN_MEMORY if self.hub else SWEEP_EVERY),
            "1" if first.watched and not hub else "0",
            "1" if first.recover else "0",
        ]
        for request in requests:
            terms += (request.count, "1" if request.alone else "0")
        try:
            reply = yield from run_script(
                script("receive"),
                tuple(chain.from_iterable([each.for_work() for each in keys])),
                (*terms, *[replies.entry_of(text) for text in first.held if first.recover]),
                queue=first.queue.name,
                # Who receives dead letters buries none: it would only wake itself, without end. On
                # servers it is too seldom to be published with every look.
                wakes=() if dead or not self.hub else tuple([each.dead for each in keys]),
            )
        except LeanMQError as error:
            if len(requests) == 1 or not error.code:
                raise
            return [None] * len(requests)  # such as CROSSSLOT
        found = [reply] if len(requests) == 1 else reply
        results = [each and replies.received(each, first.consumer, dead=dead) for each in found]
        if seen:
            results = [
                each and replace(each, mark=mark) for each, mark in zip(results, seen, strict=True)
            ]
        return results

    def reads(self, requests: Sequence[Receive], keys: Sequence[StreamKeys]) -> Operation[Results]:
        """Read new messages without the script: half the work for the server.

        Of all queues in one call; an error is the result of its own queue alone.
        """
        commands: list[Command] = []
        for request, its in zip(requests, keys, strict=True):
            commands += (
                (*_read(request), "STREAMS", its.stream, ">"),
                ("HMGET", its.meta, "lease", "ttl"),
            )
        outcomes = yield Call(tuple(commands), keys[0].stream, idempotent=True)
        results: Results = []
        mortal: list[tuple[int, Sequence[Reply], float]] = []
        answers = iter(outcomes)
        for request, read, meta in zip(requests, answers, answers, strict=True):
            try:
                lease, has_ttl = refusals.value(meta, request.queue.name)
                if lease is None and isinstance(read, BackendError):  # its words are not the same
                    raise refusals.not_found(request.queue.name) from read
                fresh = replies.entries(refusals.value(read, request.queue.name))
            except LeanMQError as error:
                results.append(error)
                continue
            if not (fresh and lease):  # without a lease: just deleted, the script will tell
                results.append(Exchanged())
                continue
            seconds = int(lease) / 1000
            if has_ttl:
                mortal.append((len(results), fresh, seconds))
            results.append(replies.read(fresh, request, seconds))
        if mortal:
            yield from self._without_expired(requests, keys, results, mortal)
        return results

    def _without_expired(
        self,
        requests: Sequence[Receive],
        keys: Sequence[StreamKeys],
        results: Results,
        mortal: Sequence[tuple[int, Sequence[Reply], float]],
    ) -> Operation[None]:
        """Take what has expired out of results, and delete it."""
        [time] = yield Call((("TIME",),), keys[0].stream, idempotent=True)
        over: dict[int, Settlement] = {}
        for place, read, lease in mortal:
            request = requests[place]
            if isinstance(time, LeanMQError):
                results[place] = time
                continue
            fresh, expired = replies.unexpired(read, request.consumer, time)
            results[place] = replies.read(fresh, request, lease)
            if expired:
                over[place] = Settlement(request.queue, Verb.ACKNOWLEDGE, expired)
        if over:
            its = [keys[place] for place in over]
            done = yield from self.settle_each(list(over.values()), its)
            for place, result in zip(over, done, strict=True):
                if isinstance(result, LeanMQError):
                    results[place] = result


def _tag(entry: bytes, name: str) -> str:
    """The tag of a queue, by its entry in the registry."""
    tag = replies.tag(entry)
    if tag is None:
        raise refusals.sharded(name)
    return tag


def _read(request: Receive) -> Command:
    return ("XREADGROUP", "GROUP", GROUP, request.consumer, "COUNT", request.count)


def _look(keys: StreamKeys) -> Call:
    """What it takes to count the messages of a stream."""
    return Call(
        (
            ("HMGET", keys.meta, "created", *replies.SETTINGS),
            ("XLEN", keys.stream),
            ("XPENDING", keys.stream, GROUP),
            ("ZCOUNT", keys.due, "-inf", "(+inf"),
        ),
        keys.meta,
        idempotent=True,
    )


def _stats(outcomes: Outcomes, name: str, tag: str) -> QueueStats:
    meta, length, pending, delayed = (refusals.value(outcome, name) for outcome in outcomes)
    if meta[0] is None:
        raise refusals.not_found(name)
    return replies.stats(length, pending, delayed, meta, tag)
