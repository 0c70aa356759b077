"""Settling: what becomes of messages that were received; leases; dead letters; purging."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import attrs

from leanmq.api import Message, MessageRefs, Seconds
from leanmq.backends.protocol import (
    Exchange,
    Exchanged,
    Extend,
    Extended,
    Held,
    Purge,
    Purged,
    QueueRef,
    Redrive,
    Redriven,
    Settlement,
    Standing,
    Verb,
)
from leanmq.errors import QueueError, QueueFullError, QueueNotFoundError, UnreachableError
from leanmq.policy import events
from leanmq.policy.base import QueuePolicy, chunks
from leanmq.policy.names import MAX_COUNT, ids_of, seconds_of
from leanmq.policy.steps import Ask, Steps
from leanmq.policy.terms import MAX_MILLISECONDS, reason_of

__all__ = ["Settling"]

LONGEST = MAX_MILLISECONDS / 1000
"""Seconds for which a message can be put off."""


@attrs.frozen
class Settling(QueuePolicy):
    """The part of a queue's policy that settles."""

    def settle(
        self, verb: Verb, messages: MessageRefs, *, delay: Seconds = 0, reason: str = ""
    ) -> Steps[int]:
        """Settle by the receipts that this client holds, or by id what nobody holds."""
        ids, by_id = _named(messages)
        seconds = seconds_of(delay, "delay")
        if seconds > LONGEST:
            raise ValueError(f"delay is {delay}; a hundred years is the most")
        if verb is Verb.DEAD_LETTER and self.ref.dead:
            raise QueueError(
                f"{self.ref.name!r} is a dead letter queue: its messages are dead already; "
                "acknowledge or release them",
                queue=self.ref.name,
            )
        reason = reason_of(reason)
        done = 0
        for chunk in chunks(ids, MAX_COUNT):
            if verb is Verb.DELETE:  # whoever holds it
                held = [Held(message_id) for message_id in chunk]
            else:
                held = self._held(chunk, by_id)
            if not held:
                self.core.check_open()
                continue

            def request(messages: Sequence[Held]) -> Exchange:
                return Exchange((Settlement(self.ref, verb, messages, seconds, reason),))

            uncounted = verb is Verb.RELEASE
            standings, doubt = yield from self._on_held(
                "exchange", request, held, uncounted=uncounted
            )
            if verb is Verb.DELETE:
                self.core.inflight.forget(self.ref, self.core.inflight.held(self.ref, chunk))
            else:
                self.core.inflight.forget(self.ref, held)
            if verb is not Verb.ACKNOWLEDGE:  # it may come again before what is new
                self.core.inflight.calm(self.ref, 0.0)
            _log(request(held).settle[0], standings)
            done += standings.count(Standing.DONE)
            if done < len(ids):
                done += standings.count(Standing.BURIED)
            if doubt:  # an earlier try may have done it, and its reply got lost
                ours = [
                    standing
                    for standing, h in zip(standings, held, strict=True)
                    if h.receipt is not None or verb is Verb.DELETE
                ]
                done += ours.count(Standing.GONE)
                done += ours.count(Standing.LOST) if verb is Verb.RELEASE else 0
        return done

    def requeue(self, messages: MessageRefs, destination: QueuePolicy | None) -> Steps[int]:
        """Send dead letters back to their queue, or to another."""
        if not self.ref.dead:
            raise QueueError(
                f"{self.ref.name!r} is no dead letter queue: requeue messages of "
                f"mq.queue({self.ref.name!r}).dlq; messages of the queue itself are released or "
                "retried",
                queue=self.ref.name,
            )
        ids, by_id = _named(messages)
        target = destination or QueuePolicy(self.core, QueueRef(self.ref.name), self.asked)
        name = destination.ref.name if destination else None
        done = refused = 0
        for chunk in chunks(ids, MAX_COUNT):
            held = self._held(chunk, by_id)
            yield from self.core.declare(target.ref, target.asked)
            redrive = partial(Redrive, self.ref, destination=name)
            standings, doubt = yield from self._on_held("redrive", redrive, held, target.ref)
            moved = [
                h
                for h, s in zip(held, standings, strict=True)
                if s is Standing.DONE or (doubt and s is Standing.GONE and h.receipt is not None)
            ]
            stay = [s is Standing.REFUSED for s in standings]
            gone = [h for h, stays in zip(held, stay, strict=True) if not stays]
            self.core.inflight.forget(self.ref, gone)
            self.core.inflight.calm(target.ref, 0.0)
            done += len(moved)
            refused += sum(stay)
        if refused:
            raise QueueFullError(
                f"queue {target.ref.name!r} is full: {done} dead letters went there, {refused} "
                "stay dead; let consumers catch up, or raise max_length by update_queue",
                queue=target.ref.name,
            )
        return done

    def purge(self) -> Steps[int]:
        """Delete all that is there."""
        yield from self.core.declare(self.ref, self.asked)
        held = self.core.inflight.all_held(self.ref)  # not what is received meanwhile
        try:
            purged: Purged = yield from self.core.persist("purge", Purge(self.ref))
        except QueueNotFoundError:
            self.core.forget(self.ref)
            return 0
        self.core.inflight.forget(self.ref, held)
        return purged.count

    def extend(self, messages: MessageRefs) -> Steps[int]:
        """Renew leases; what was lost is held no more."""
        done, _ = yield from self.renew(messages)
        return done

    def renew(self, messages: MessageRefs) -> Steps[tuple[int, float]]:
        """See ``extend``. How many, and for how many seconds."""
        done, lease = 0, math.inf
        for chunk in chunks(ids_of(messages), MAX_COUNT):
            held = [h for h in self.core.inflight.held(self.ref, chunk) if h.receipt is not None]
            if not held:
                continue
            request = partial(Extend, self.ref)
            standings, _ = yield from self._on_held("extend", request, held)
            alive = [h for h, s in zip(held, standings.standings, strict=True) if not s]
            gone = [h for h, s in zip(held, standings.standings, strict=True) if s]
            self.core.inflight.renew(self.ref, alive, standings.lease)
            self.core.inflight.forget(self.ref, gone)
            done, lease = done + len(alive), min(lease, standings.lease)
        return done, lease

    def _held(self, ids: list[str], by_id: Collection[str]) -> list[Held]:
        """What can be settled of these: what is held; what is not, only by its id.

        A received message stands for its delivery. Were it looked for by its id once that is
        settled, an acknowledgement after a retry would delete what is to be tried again.
        """
        held = self.core.inflight.held(self.ref, ids)
        return [h for h in held if h.receipt is not None or h.id in by_id]

    def _on_held(
        self,
        method: str,
        request: Callable[[Sequence[Held]], object],
        held: Sequence[Held],
        target: QueueRef | None = None,
        *,
        uncounted: bool = False,
    ) -> Steps[Any]:
        """The answer, and whether an earlier try may have been carried out.

        What is ``uncounted`` leaves a message such that the next delivery has an equal receipt: a
        repeat leaves out what another thread of this client has received since.
        """
        asked = held
        yield from self.core.declare(self.ref, self.asked)
        patience = self.core.patience()
        doubt = False
        while True:
            self.core.check_open()
            try:
                answer: Exchanged | Extended | Redriven = yield Ask(method, request(asked))
            except UnreachableError as error:
                doubt = doubt or error.in_doubt
                yield patience.pause(error)
                if doubt and uncounted:
                    still = self.core.inflight.still_held(self.ref, asked)
                    asked = [
                        h for h, ours in zip(asked, still, strict=True) if ours or h.receipt is None
                    ]
                    if not asked:
                        return [Standing.DONE] * len(held), doubt
            except QueueNotFoundError as error:
                doubt = doubt or error.in_doubt
                if target is not None:  # one of the two was deleted: which one, nobody says
                    yield patience.pause(error)
                    yield from self.core.refresh(self.ref)
                    yield from self.core.refresh(target)
                    continue
                self.core.forget(self.ref)
                gone = [Standing.GONE] * len(held)
                return (Extended(gone, 0.0) if method == "extend" else gone), doubt
            else:
                if isinstance(answer, Exchanged):
                    if asked is held:
                        return answer.settled[0], doubt
                    found = dict(zip((h.id for h in asked), answer.settled[0], strict=True))
                    return [found.get(h.id, Standing.DONE) for h in held], doubt
                return (answer.standings if isinstance(answer, Redriven) else answer), doubt


def _named(messages: MessageRefs) -> tuple[list[str], Collection[str]]:
    """The ids, and those that were given as ids, or as messages that were only looked at."""
    given = [messages] if isinstance(messages, str | Message) else list(messages)
    ids = ids_of(given)
    others = [item for item in given if type(item) is not Message]
    return ids, frozenset(ids_of(others)) if others else ()


def _log(settlement: Settlement, standings: Sequence[Standing]) -> None:
    queue, reason = settlement.queue.name, settlement.reason

    def those(standing: Standing) -> list[str]:
        pairs = zip(settlement.messages, standings, strict=True)
        return [held.id for held, found in pairs if found is standing]

    if settlement.verb is Verb.RETRY and Standing.BURIED in standings:
        why = f"max_deliveries reached: {reason or 'retried'}"
        events.buried(queue, those(Standing.BURIED), why)
    if settlement.verb is Verb.DEAD_LETTER:
        events.buried(queue, those(Standing.DONE), reason or "moved there")
    elif events.closely():
        events.passed(settlement.verb.name.lower(), queue, those(Standing.DONE))
