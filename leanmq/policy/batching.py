"""What a batching producer sends, and what becomes of it: written once for threads and asyncio.

What waits is in ``buffer.py``; when somebody looks, and who settles futures, is for the shells.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from leanmq.api import Moment, Outgoing, Seconds
from leanmq.backends.protocol import Declared, NewMessage, SendBatch, SendResult, Sent
from leanmq.errors import (
    BackendError,
    BufferFullError,
    ClosedError,
    LeanMQError,
    MessageError,
    NotSentError,
    UnreachableError,
)
from leanmq.policy import events
from leanmq.policy.buffer import Batch, Buffer, Entry
from leanmq.policy.limits import Limits, no_room, not_flushed
from leanmq.policy.logic import QueueLogic
from leanmq.policy.patience import repeatable_until
from leanmq.policy.sending import message_of, not_yet_sent, too_large
from leanmq.policy.steps import Ask, Steps
from leanmq.sharding.hashing import shard_of_terms
from leanmq.sharding.names import split_name

__all__ = ["Batching"]

F = TypeVar("F")

_TOO_LATE = "what was sent with it may be stored, and the server may not know that any more"


class Batching(Generic[F]):
    """The policy of one producer.

    A batch is sent until each of its messages has a result: stored, or failed for good. While
    there is doubt whether it is stored, it is sent again as it is, under the same number; what
    was surely not stored is a batch of its own, under the next one.

    Attributes:
        ended: No more messages are taken in.
        hasty: Nothing is tried again any more.
    """

    def __init__(self, logic: QueueLogic, limits: Limits, begin: Callable[[F], bool]) -> None:
        self.logic = logic
        self.limits = limits
        self.buffer: Buffer[F] = Buffer(limits, begin)
        self.ended = False
        self.hasty, self._why = False, ""
        self.monotonic = logic.core.clock.monotonic
        self._encode = logic.codec.encode
        self._shards: int | None = None  # not asked yet
        self._turn = 0
        self._shard = split_name(logic.ref.name)[1]  # if the queue is one

    @property
    def name(self) -> str:
        """Of the queue."""
        return self.logic.ref.name

    # --- taking in

    def message_of(
        self,
        data: Any,
        key: str | None,
        ttl_seconds: Seconds | None,
        delay: Moment | None,
        headers: Mapping[str, Any] | None,
        message_id: str | None,
        dedup_id: str | None,
    ) -> NewMessage:
        """The message as it will be sent; raises what is wrong with it."""
        if (
            key is None
            and ttl_seconds is None
            and delay is None
            and headers is None
            and message_id is None
            and dedup_id is None
        ):  # as below, for a tenth less of all that a message costs
            try:
                return NewMessage(self._encode(data))
            except MessageError as error:
                error.queue = self.name
                raise
        outgoing = Outgoing(data, key, ttl_seconds, delay, headers, message_id, dedup_id)
        return message_of(self.logic, outgoing)

    def add(self, message: NewMessage, future: F) -> bool:
        """Append a message; returns whether to wake the sender."""
        if self._shards is None:
            self._choose(self.logic.shards)
        lane = self._lane(message) if self._shards else -1
        return self.buffer.add(lane, message, future, self.monotonic())

    def _choose(self, shards: int) -> None:
        """Have a lane for each shard from now on.

        Decided at the first message, and once again if the queue, which this client did not know
        yet, turns out to be in shards: two lanes would not keep the order of a key.
        """
        self._shards = shards
        self._turn = random.randrange(max(1, shards))

    def _lane(self, message: NewMessage) -> int:
        """The shard of the message's key; without one, batches go round."""
        shards = self._shards or 1
        if self._shard is not None:
            return self._shard
        bound = shard_of_terms(message.terms, shards)
        if bound is not None:
            return bound
        if self.buffer.busy(self._turn):
            self._turn = (self._turn + 1) % shards
        return self._turn

    def check_open(self) -> None:
        """Raises ClosedError once the producer was closed."""
        if self.ended:
            raise ClosedError(f"the producer of queue {self.name!r} is closed; open a new one")

    def no_room(self) -> BufferFullError:
        """The buffer was full for too long."""
        return no_room(self.name, self.limits, self.buffer.count, self.buffer.size)

    def not_flushed(self, wait: float) -> TimeoutError:
        """Something has no result after so many seconds."""
        return not_flushed(self.name, self.buffer.count, wait)

    # --- sending

    def send(self, batches: Sequence[Batch[F]]) -> Steps[list[list[SendResult]]]:
        """Send batches of different lanes; results for the entries of each. Raises nothing."""
        answers: list[list[SendResult]] = [[] for _ in batches]
        requests: dict[int, SendBatch] = {}
        for place, batch in enumerate(batches):
            try:
                request = yield from self._request(batch)
            except LeanMQError as error:
                answers[place] = [not_yet_sent(error)] * len(batch.entries)
            except Exception as error:  # noqa: BLE001  # of a backend that breaks its promise
                answers[place] = [self._broken(error)] * len(batch.entries)
            else:
                if request is not None:
                    requests[place] = request
        capabilities = self.logic.core.capabilities
        together = capabilities is not None and capabilities.sends_together
        for places in [list(requests)] if together else [[place] for place in requests]:
            in_time = []
            for place in places:
                if any(batches[place].doubts) and self.monotonic() >= batches[place].repeatable:
                    answers[place] = [self._not_sent(_TOO_LATE)] * len(batches[place].entries)
                else:
                    in_time.append(place)
            results = yield from self._answers([requests[place] for place in in_time])
            for place, some in zip(in_time, results, strict=True):
                answers[place] = some
        return answers

    def _answers(self, batches: Sequence[SendBatch]) -> Steps[list[list[SendResult]]]:
        """Results for the messages of each; sent together if there are several."""
        if not batches:
            return []
        ask = Ask("send", batches[0]) if len(batches) == 1 else Ask("together", batches)
        try:
            answer: Sent | Sequence[Sent | LeanMQError] = yield ask
            every = [answer] if isinstance(answer, Sent) else answer
        except LeanMQError as error:
            every = [error] * len(batches)
        except Exception as error:  # noqa: BLE001  # of a backend that breaks its promise
            every = [self._broken(error, in_doubt=True)] * len(batches)
        answers: list[list[SendResult]] = []
        for place, batch in enumerate(batches):
            number, one = len(batch.messages), every[place] if place < len(every) else Sent([])
            if not isinstance(one, LeanMQError) and len(one.results) != number:
                wrong = ValueError(f"{len(one.results)} results for {number} messages")
                one = self._broken(wrong, in_doubt=True)
            answers.append([one] * number if isinstance(one, LeanMQError) else list(one.results))
        return answers

    def _broken(self, error: Exception, *, in_doubt: bool = False) -> BackendError:
        """A backend raised what none should raise."""
        broken = BackendError(
            f"{self.logic.core.name} raised {type(error).__name__}; please report it to those "
            "who made this backend",
            in_doubt=in_doubt,
        )
        broken.__cause__ = error
        return broken

    def _request(self, batch: Batch[F]) -> Steps[SendBatch | None]:
        """What to ask of the backend; None if nothing of the batch is left."""
        if not batch.entries:
            return None
        capabilities = yield from self.logic.core.open()
        known = yield from self.logic.core.declare(self.logic.ref, self.logic.asked)
        batch.known = yield from self.logic.mend(known, batch.mend)
        batch.mend = ()
        shards = batch.known.settings.shards
        if not any(batch.doubts):  # else it must stay as it was
            if batch.lane.shard < 0 and shards and self._shard is None:
                batch.strayed = True
                return None
            if self._shard is None and batch.lane.shard >= 0 and shards != self._shards:
                raise self._not_sent(
                    f"the queue was made again with {shards} shards instead of {self._shards}; "
                    "open a new producer"
                )
            yield from self._fit(batch, batch.known, capabilities.max_batch)
        if not batch.entries:
            return None
        batch.sequenced = (
            self.limits.dedup and capabilities.sequences and (batch.lane.shard >= 0 or not shards)
        )
        now = self.monotonic()
        if batch.began is None:
            batch.began = now
        until = batch.repeatable if any(batch.doubts) else math.inf
        batch.repeatable = min(until, repeatable_until(now, batch.known.settings))
        return SendBatch(
            self.logic.ref,
            [message for message, _, _ in batch.entries],
            batch.known.epoch,
            batch.lane.producer if batch.sequenced else "",
            batch.lane.sequence if batch.sequenced else 0,
            batch.lane.shard,
        )

    def _fit(self, batch: Batch[F], known: Declared, most: int) -> Steps[None]:
        """Take out what is too large, and what is too much for one send."""
        messages = [message for message, _, _ in batch.entries]
        places = too_large(messages, known)
        if places:  # unless the limit was raised since
            batch.known = known = yield from self.logic.core.refresh(self.logic.ref)
            places = too_large(messages, known)
        for place in reversed(places):
            message, future, _ = batch.entries.pop(place)
            batch.refused.insert(0, (future, self.logic.size_error(message, known)))
        batch.rest[:0] = batch.entries[most:]
        del batch.entries[most:]

    # --- what becomes of it

    def conclude(
        self, batch: Batch[F], answers: Sequence[SendResult]
    ) -> list[tuple[F, SendResult]]:
        """The futures that have a result now. The batch is finished, or will be sent again."""
        batch.under_way = False
        if batch.strayed and batch.known is not None and not self.hasty:
            self._choose(batch.known.settings.shards or 0)
            self.buffer.move(batch, self._lane)
            return []
        if batch.strayed:  # nobody would come for it in other lanes
            answers = [self._not_sent(self._why)] * len(batch.entries)
        outcomes: list[tuple[F, SendResult]] = [*batch.refused]
        batch.refused = []
        if set(map(type, answers)) <= {str}:
            outcomes += [(entry[1], id_) for entry, id_ in zip(batch.entries, answers, strict=True)]
            batch.entries = []
        else:
            self._sort_out(batch, answers, outcomes)
        if self.hasty:
            outcomes += [(future, self._not_sent(self._why)) for _, future, _ in batch.rest]
            batch.rest = []
        if not batch.entries and batch.rest:
            self._next_part(batch, batch.rest)
            batch.rest, batch.again_at = [], 0.0
        elif not batch.entries:
            self.buffer.finish(batch)
        return outcomes

    def cut_off(self, batch: Batch[F]) -> list[tuple[F, SendResult]]:
        """Its send was cancelled, before or after it was carried out; what ``conclude`` says."""
        if batch.began is None and not self.hasty:
            batch.under_way = False  # it was not even begun
            return []
        error = UnreachableError("the event loop ended meanwhile", in_doubt=batch.began is not None)
        return self.conclude(batch, [error] * len(batch.entries))

    def _sort_out(
        self,
        batch: Batch[F],
        answers: Sequence[SendResult],
        outcomes: list[tuple[F, SendResult]],
    ) -> None:
        """Something is not stored, or may not be: what to send again, and what has failed."""
        now = self.monotonic()
        entries = batch.entries
        stored = any(isinstance(answer, str) for answer in answers)
        # Only an id clears up a doubt; that the next try was refused does not. Under a number, an
        # id clears up all of the batch.
        doubts = [] if stored and batch.sequenced else batch.doubts
        told = [
            answer if isinstance(answer, str) or doubt is None or answer.in_doubt else doubt
            for answer, doubt in zip(answers, doubts or [None] * len(entries), strict=True)
        ]
        again = self._places_again(batch, told, stored)
        if again:
            trouble = answers[again[0]]
            assert isinstance(trouble, LeanMQError)
            if stored:
                batch.since, batch.patience = now, None  # consumers make room
            if batch.patience is None:
                batch.patience = self.logic.core.patience(spent=now - batch.since)
            try:
                batch.again_at = now + batch.patience.pause(trouble).seconds
                batch.mend = answers
            except LeanMQError:  # no more time
                again = []
            if any(_doubt(told[place]) for place in again) and batch.again_at >= batch.repeatable:
                again = []
        chosen = set(again)
        blamed: LeanMQError | None = None
        for place, (entry, answer) in enumerate(zip(entries, told, strict=True)):
            if place in chosen:
                continue
            if isinstance(answer, str):
                outcomes.append((entry[1], answer))
                continue
            outcomes.append((entry[1], self._own(answer)))
            if entry[0].terms is not None and entry[0].terms.key is not None:
                blamed = blamed or answer
        if again and len(again) < len(entries):
            self.buffer.shrink(batch, [e for p, e in enumerate(entries) if p not in chosen])
        if stored and batch.sequenced:
            self._next_part(batch, [entries[place] for place in again])
        else:
            batch.entries = [entries[place] for place in again]
            batch.doubts = [_doubt(told[place]) for place in again]
        if blamed is not None:
            self._fail_behind(batch, blamed, outcomes)

    def _places_again(self, batch: Batch[F], told: Sequence[SendResult], stored: bool) -> list[int]:
        """Which entries to send again."""
        core = self.logic.core
        if self.hasty or core.closed or core.capabilities is None:  # it never reached its server
            return []
        if batch.sequenced and not stored and any(map(_doubt, told)):
            return list(range(len(told)))  # as it was, under its number
        messages = [message for message, _, _ in batch.entries]
        block = batch.known is not None and batch.known.settings.overflow == "block"
        return self.logic.again(messages, told, block=block)

    def _next_part(self, batch: Batch[F], entries: list[Entry[F]]) -> None:
        """What is before these is stored or failed for good: they are sent as a new batch."""
        batch.entries, batch.doubts = entries, []
        batch.began = None
        batch.lane.sequence += 1

    def _fail_behind(
        self, batch: Batch[F], cause: LeanMQError, outcomes: list[tuple[F, SendResult]]
    ) -> None:
        """With a key, what is behind must not overtake what has failed and may be sent again."""
        futures = [future for _, future, _ in batch.rest]
        futures += self.buffer.drop_waiting(batch.lane)
        batch.rest = []
        why = f"a message with a key before it failed ({cause})"
        outcomes += [(future, self._not_sent(why, cause)) for future in futures]

    def abandon(self, why: str) -> list[tuple[F, SendResult]]:
        """Give up all that is not under way just now; that ends with its next result."""
        self.hasty, self._why = True, why
        outcomes: list[tuple[F, SendResult]] = []
        for lane in self.buffer.lanes():
            batch = lane.batch
            if batch is not None and not batch.under_way:
                doubts = batch.doubts or [None] * len(batch.entries)
                for (_, future, _), doubt in zip(batch.entries, doubts, strict=True):
                    error = self._own(doubt) if doubt else self._not_sent(why)
                    outcomes.append((future, error))
                outcomes += [(future, self._not_sent(why)) for _, future, _ in batch.rest]
                self.buffer.finish(batch)
            futures = self.buffer.drop_waiting(lane)
            outcomes += [(future, self._not_sent(why)) for future in futures]
        return outcomes

    def report(self, outcomes: Sequence[tuple[F, SendResult]]) -> None:
        """Write to the log what failed: nobody may ever look at the futures."""
        errors = [outcome for _, outcome in outcomes if not isinstance(outcome, str)]
        if errors:
            events.not_stored(self.name, len(errors), str(errors[0]))
        if events.closely():
            stored = [outcome for _, outcome in outcomes if isinstance(outcome, str)]
            events.passed("sent", self.name, stored)

    def _not_sent(self, why: str, cause: LeanMQError | None = None) -> NotSentError:
        error = NotSentError(
            f"queue {self.name!r}: the message was not sent: {why}; send it again if it is still "
            "wanted",
            queue=self.name,
        )
        error.__cause__ = cause
        return error

    def _own(self, error: LeanMQError) -> LeanMQError:
        """The error for one future alone: raising an error writes to it."""
        told = self.logic.send_error(error)
        if told is error:
            told = copy.copy(error)
            told.__cause__ = error.__cause__
        return told


def _doubt(answer: SendResult) -> LeanMQError | None:
    return answer if isinstance(answer, LeanMQError) and answer.in_doubt else None
