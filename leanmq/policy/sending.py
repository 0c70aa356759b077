"""Sending: one message, many, and what to do when that is not certain."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import attrs
from msgspec.structs import replace

from leanmq.api import Outgoing
from leanmq.backends.protocol import Declared, NewMessage, SendBatch, SendResult, Sent
from leanmq.errors import (
    BulkSendError,
    LeanMQError,
    MessageError,
    OutcomeUnknownError,
    QueueFullError,
    QueueNotFoundError,
    StaleSettingsError,
    UnreachableError,
)
from leanmq.policy import events
from leanmq.policy.base import QueuePolicy
from leanmq.policy.patience import repeatable_until
from leanmq.policy.steps import Ask, Steps
from leanmq.policy.terms import terms_of

__all__ = ["CHUNK_BYTES", "Sending", "message_of", "not_yet_sent", "too_large"]

CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes of payloads at which a chunk ends before that."""

Keys = str | Callable[[Any], str | None] | None


class _RefusedItem(Exception):
    """An item of a bulk send that was read and cannot be sent."""

    def __init__(self, cause: Exception, queue: str) -> None:
        super().__init__()
        self.cause, self.queue = cause, queue

    def named(self, place: int) -> Exception:
        """What the caller is told: which item it is, and why."""
        cause = self.cause
        if isinstance(cause, MessageError):
            named = MessageError(f"item {place}: {cause}", queue=self.queue)
            named.__cause__ = cause.__cause__
            return named
        cause.add_note(f"item {place} of a bulk send to queue {self.queue!r}")
        return cause


@attrs.frozen
class Sending(QueuePolicy):
    """The part of a queue's policy that sends."""

    def send(self, outgoing: Outgoing[Any]) -> Steps[str]:
        """Store one message."""
        message = message_of(self, outgoing)
        results = yield from self._send([message])
        result = results[0]
        if isinstance(result, str):
            events.passed("sent", self.ref.name, [result])
            return result
        raise self.send_error(result)

    def send_many(self, items: Iterable[Any], key: Keys = None) -> Steps[list[str]]:
        """Store many, chunk by chunk: one unconfirmed chunk at a time keeps their order."""
        if isinstance(items, str | bytes | Mapping):
            raise TypeError(
                f"send_messages takes an iterable of payloads, and each part of this "
                f"{type(items).__name__} would be one; give a list, or use send_message"
            )
        ids: list[str] = []
        iterator = iter(items)
        most = (yield from self.core.open()).best_batch
        while True:
            chunk: list[NewMessage] = []
            try:
                self._fill(chunk, iterator, key, most)
            except _RefusedItem as refused:
                stopped = self._stopped(refused.named(len(ids) + len(chunk)), ids, len(chunk) + 1)
                raise stopped from stopped.__cause__
            except Exception as error:  # noqa: BLE001  # of the caller's iterable
                stopped = self._stopped(error, ids, len(chunk))
                raise stopped from stopped.__cause__
            if not chunk:
                return ids
            try:
                results = yield from self._send(chunk, first=len(ids))
            except LeanMQError as error:
                stopped = self._stopped(error, ids, len(chunk))
                raise stopped from stopped.__cause__
            if not _all_stored(results):
                cause = self.send_error(next(r for r in results if not isinstance(r, str)))
                raise self._stopped(cause, ids, results=results)
            events.passed("sent", self.ref.name, results)
            ids += results

    def _fill(self, chunk: list[NewMessage], items: Iterator[Any], key: Keys, most: int) -> None:
        """Read the next items, until there are enough messages or bytes."""
        encode = self.codec.encode
        size = 0
        for item in items:
            try:
                if key is None and not isinstance(item, Outgoing):
                    body = encode(item)
                    chunk.append(NewMessage(body))
                else:
                    message = message_of(self, _outgoing(item, key))
                    chunk.append(message)
                    body = message.body
                    if message.terms and message.terms.headers:
                        size += len(message.terms.headers)
            except Exception as error:  # noqa: BLE001  # handed on
                raise _RefusedItem(error, self.ref.name) from None
            size += len(body)
            if size >= CHUNK_BYTES or len(chunk) == most:
                return

    def _send(
        self, messages: Sequence[NewMessage], *, first: int | None = None
    ) -> Steps[Sequence[SendResult]]:
        """Send, and send again what was certainly not stored, until time runs out.

        Certainly not stored, or stored once at most: what has a dedup id may be sent again
        even if nobody knows what became of it, as long as the backend surely remembers it.
        Raises only if nothing was stored or may be.

        Args:
            messages: All of one call.
            first: The place of the first one among the items of a bulk send.
        """
        known = yield from self.fitting(messages, first)
        patience = self.core.patience()
        results: list[SendResult] = []
        places: Sequence[int] = range(len(messages))
        repeatable = math.inf  # until when, on the monotonic clock
        while True:
            now = self.core.clock.monotonic()
            if not any(_in_doubt(result) for result in results):
                repeatable = math.inf
            elif now >= repeatable:
                return results
            repeatable = min(repeatable, repeatable_until(now, known.settings))
            again = messages if not results else [messages[p] for p in places]
            try:
                try:
                    sent: Sent = yield Ask("send", SendBatch(self.ref, again, known.epoch))
                except (QueueNotFoundError, StaleSettingsError) as error:
                    yield patience.pause(error)
                    known = yield from self.mend(known, [error])
                    self._check_sizes(again, known, None if results else first)
                    continue
            except LeanMQError as error:
                if not results:
                    raise
                for place in places:  # what was in doubt, still is
                    if not _error_at(results, place).in_doubt:
                        results[place] = error
                return results
            if not results:
                if _all_stored(sent.results):
                    return sent.results
                results = list(sent.results)
            else:
                for place, result in zip(places, sent.results, strict=True):
                    # Only an id clears up a doubt; that the next try was refused does not.
                    if isinstance(result, str) or not _error_at(results, place).in_doubt:
                        results[place] = result
            if any(isinstance(result, str) for result in sent.results):
                patience = self.core.patience()  # consumers make room
            places = self.again(messages, results, block=known.settings.overflow == "block")
            if not places:
                return results
            try:
                yield patience.pause(_error_at(results, places[0]))
                if not self.core.closed:
                    known = yield from self.mend(known, [results[place] for place in places])
            except LeanMQError:
                return results
            if self.core.closed:
                return results

    def mend(self, known: Declared, results: Sequence[SendResult]) -> Steps[Declared]:
        """Before messages are sent again: the settings to send them by."""
        try:
            if any(isinstance(result, QueueNotFoundError) for result in results):
                yield from self.core.vanished(self.ref, self.asked)
                return (yield from self.core.declare(self.ref, self.asked))
            if any(isinstance(result, StaleSettingsError) for result in results):
                return (yield from self.core.refresh(self.ref))
        except LeanMQError as error:
            if not error.in_doubt:
                raise
            raise not_yet_sent(error) from error.__cause__
        return known

    def again(
        self, messages: Sequence[NewMessage], results: Sequence[SendResult], *, block: bool
    ) -> list[int]:
        """Which messages to send again: those in doubt by their dedup ids; and if that settles
        all doubt, those that were refused for a while."""
        in_doubt = {p for p, r in enumerate(results) if _in_doubt(r)}
        known = {p for p in in_doubt if (terms := messages[p].terms) and terms.dedup_id}
        if in_doubt - known:
            return sorted(known)
        passing: tuple[type[LeanMQError], ...] = (
            UnreachableError,
            StaleSettingsError,
            QueueNotFoundError,
        )
        if block:
            passing = (*passing, QueueFullError)
        return sorted(known | {p for p, r in enumerate(results) if isinstance(r, passing)})

    def fitting(self, messages: Sequence[NewMessage], first: int | None = None) -> Steps[Declared]:
        """The settings to send by; raises MessageError if a payload is larger than they allow."""
        try:
            known = yield from self.core.declare(self.ref, self.asked)
            try:
                self._check_sizes(messages, known, first)
            except MessageError:  # unless the limit was raised since
                known = yield from self.core.refresh(self.ref)
                self._check_sizes(messages, known, first)
        except LeanMQError as error:
            if not error.in_doubt:
                raise
            raise not_yet_sent(error) from error.__cause__
        return known

    def _check_sizes(
        self, messages: Sequence[NewMessage], known: Declared, first: int | None
    ) -> None:
        for place in too_large(messages, known):
            which = f"payload {place} of {len(messages)}" if len(messages) > 1 else "payload"
            if first is not None:
                which = f"payload of item {first + place}"
            raise self.size_error(messages[place], known, which)

    def size_error(
        self, message: NewMessage, known: Declared, which: str = "payload"
    ) -> MessageError:
        """The payload is larger than the settings allow."""
        return MessageError(
            f"the {which} for queue {self.ref.name!r} has {len(message.body):,} bytes, "
            f"max_payload_bytes is {known.settings.max_payload_bytes:,}; store it elsewhere and "
            "send where it is, or raise the setting by update_queue",
            queue=self.ref.name,
        )

    def send_error(self, error: LeanMQError) -> LeanMQError:
        """What a sender is told of an error result."""
        error.queue = self.ref.name
        if not error.in_doubt:
            return error
        unknown = OutcomeUnknownError(
            f"queue {self.ref.name!r}: {error}; the message may be stored or not: sending it "
            "again may double it, unless it has a dedup_id",
            queue=self.ref.name,
        )
        unknown.__cause__ = error.__cause__ or error
        return unknown

    def _stopped(
        self,
        cause: Exception,
        ids: list[str],
        unsent: int = 0,
        *,
        results: Sequence[SendResult] = (),
    ) -> Exception:
        """What a bulk send raises: its cause itself if nothing is stored or may be."""
        first = len(ids)
        confirmed = dict(enumerate(ids))
        unknown: list[int] = []
        rest = list(range(first, first + unsent))
        for place, result in enumerate(results, first):
            if isinstance(result, str):
                confirmed[place] = result
            else:
                (unknown if result.in_doubt else rest).append(place)
        if not confirmed and not unknown:
            return cause
        why = str(cause) if isinstance(cause, LeanMQError) else type(cause).__name__
        error = BulkSendError(
            f"queue {self.ref.name!r}: bulk send stopped after {len(confirmed)} messages "
            f"({len(unknown)} unknown, {len(rest)} read and not sent): {why}",
            confirmed=confirmed,
            unknown=tuple(unknown),
            unsent=tuple(rest),
            queue=self.ref.name,
        )
        error.__cause__ = cause
        return error


def message_of(policy: QueuePolicy, outgoing: Outgoing[Any]) -> NewMessage:
    """A message as the seam takes it; its errors know the queue."""
    try:
        terms = terms_of(outgoing, policy.core.clock.time())
        return NewMessage(policy.codec.encode(outgoing.data), terms)
    except MessageError as error:
        error.queue = policy.ref.name
        raise


def not_yet_sent(error: LeanMQError) -> LeanMQError:
    """What failed was on the way to a send: whatever it left in doubt, messages it did not."""
    if not error.in_doubt:
        return error
    sure = copy.copy(error)
    sure.__cause__, sure.in_doubt = error.__cause__, False
    return sure


def too_large(messages: Sequence[NewMessage], known: Declared) -> list[int]:
    """The places of the messages that are larger than the settings allow."""
    most = known.settings.max_payload_bytes
    if not most or max([len(message.body) for message in messages]) <= most:
        return []
    return [place for place, message in enumerate(messages) if len(message.body) > most]


def _outgoing(item: Any, key: Keys) -> Outgoing[Any]:
    outgoing = item if isinstance(item, Outgoing) else Outgoing(item)
    if key is None or outgoing.key is not None:
        return outgoing
    found = key(outgoing.data) if callable(key) else key
    return outgoing if found is None else replace(outgoing, key=found)


def _in_doubt(result: SendResult) -> bool:
    return isinstance(result, LeanMQError) and result.in_doubt


def _error_at(results: Sequence[SendResult], place: int) -> LeanMQError:
    error = results[place]
    assert isinstance(error, LeanMQError)
    return error


def _all_stored(results: Sequence[SendResult]) -> TypeGuard[Sequence[str]]:
    return set(map(type, results)) == {str}
