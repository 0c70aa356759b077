"""Transactions: sends and acknowledgements that are carried out together or not at all."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from leanmq.api import Message, Outgoing
from leanmq.backends.protocol import (
    Held,
    NewMessage,
    QueueRef,
    SendBatch,
    Sent,
    Settings,
    Settlement,
    Transact,
    Verb,
)
from leanmq.errors import (
    CrossSlotTransactionError,
    LeanMQError,
    OutcomeUnknownError,
    QueueFullError,
    QueueNotFoundError,
    StaleSettingsError,
    TransactionError,
    UnreachableError,
)
from leanmq.policy.core import ClientCore
from leanmq.policy.logic import QueueLogic
from leanmq.policy.names import ref_of
from leanmq.policy.patience import repeatable_until
from leanmq.policy.sending import message_of, not_yet_sent
from leanmq.policy.steps import Ask, Steps

__all__ = ["TransactionLogic"]

_AS_IT_IS = Settings()


class TransactionLogic:
    """What a transaction has gathered, and how it is carried out. Used by one thread or task."""

    def __init__(self, core: ClientCore) -> None:
        self._core = core
        self._policies: dict[QueueRef, dict[Settings, QueueLogic]] = {}
        self._sends: list[tuple[QueueRef, NewMessage]] = []
        self._acknowledge: dict[QueueRef, dict[str, None]] = {}
        self._over = False

    def moves_to(self, queue: str | QueueLogic) -> bool:
        """Go over to where a queue in shards of the same client is, if nothing is sent elsewhere.

        Returns whether that is so: the transaction is carried out by the backend of that queue.
        """
        if isinstance(queue, str) or queue.core is self._core or self._sends:
            return False
        if not queue.core.is_beside(self._core):
            return False
        self._core = queue.core
        return True

    def send(self, queue: str | QueueLogic, outgoing: Outgoing[Any]) -> None:
        """Note a message to be sent; it is validated and encoded now."""
        self._check_open()
        policy = self._policy(queue)
        self._sends.append((policy.ref, message_of(policy, outgoing)))

    def acknowledge(self, messages: Message[Any] | Iterable[Message[Any]]) -> None:
        """Note received messages to be acknowledged."""
        self._check_open()
        for message in [messages] if isinstance(messages, Message) else list(messages):
            if not isinstance(message, Message):
                raise TypeError(
                    "a transaction acknowledges messages as get_messages returned them, not "
                    f"{type(message).__name__}: an id does not tell its queue"
                )
            self._acknowledge.setdefault(self._ref_of(message), {})[message.id] = None

    @property
    def over(self) -> bool:
        """Whether it was carried out, or tried, or abandoned."""
        return self._over

    def abandon(self) -> None:
        """Nothing is carried out."""
        self._over = True

    def execute(self) -> Steps[list[str]]:
        """All of it, or nothing; the ids of what was sent, in order."""
        self._check_open()
        self._over = True
        core = self._core
        capabilities = yield from core.open()
        settlements = self._settlements()
        total = len(self._sends) + sum(len(s.messages) for s in settlements)
        if not total:
            return []
        if total > capabilities.max_batch:
            raise TransactionError(
                f"the transaction has {total:,} sends and acknowledgements, of at most "
                f"{capabilities.max_batch:,}; nothing was carried out: use several transactions"
            )
        repeatable = not settlements and all(m.terms and m.terms.dedup_id for _, m in self._sends)
        patience = core.patience()
        mend: LeanMQError | None = None
        doubt: LeanMQError | None = None  # once there is one, no later error clears it up
        until = math.inf  # when a try in doubt may be repeated
        while True:
            asked = False
            try:
                yield from self._mend(mend)
                batches, windows_end = yield from self._batches()
                if doubt is not None and core.clock.monotonic() >= until:
                    break
                until = min(until, windows_end) if doubt else windows_end
                core.check_open()
                asked = True
                sent: Sent = yield Ask("transact", Transact(batches, settlements))
            except LeanMQError as caught:
                error = caught if asked else not_yet_sent(caught)
                if error.in_doubt:
                    doubt = _unknown(error)
                try:
                    again = yield from self._again(error)
                except LeanMQError:
                    if doubt is None:
                        raise
                    break
                if not again or (error.in_doubt and not repeatable):
                    if doubt is None:
                        raise error from error.__cause__
                    break
                yield patience.pause(doubt or error)
                mend = error
            else:
                for settlement in settlements:
                    core.inflight.forget(settlement.queue, settlement.messages)
                return self._in_order(batches, sent)
        raise doubt from doubt.__cause__

    def _check_open(self) -> None:
        if self._over:
            raise TransactionError("the transaction is over; begin another one")

    def _policy(self, queue: str | QueueLogic) -> QueueLogic:
        if isinstance(queue, str):
            ref = ref_of(queue, self._core.terms.prefix)
            queue = QueueLogic(self._core, ref, _AS_IT_IS)
        if queue.core is not self._core and queue.core.is_beside(self._core):
            raise CrossSlotTransactionError(
                f"queue {queue.ref.name!r} and the others of this transaction are not alike: it "
                "takes either queues in shards, or queues that are not",
                queue=queue.ref.name,
            )
        if queue.core is not self._core:
            raise CrossSlotTransactionError(
                f"queue {queue.ref.name!r} was opened by another client, the one of "
                f"{queue.core.name}; a transaction takes queues of its own client",
                queue=queue.ref.name,
            )
        self._policies.setdefault(queue.ref, {})[queue.asked] = queue
        return queue

    def _ref_of(self, message: Message[Any]) -> QueueRef:
        live, dead = QueueRef(message.queue), QueueRef(message.queue, dead=True)
        if message.error is not None:
            return dead
        # What was sent to the dead letters by hand has no error there.
        held = self._core.inflight.held
        found = [ref for ref in (live, dead) if held(ref, [message.id])[0].receipt is not None]
        return found[0] if found else live

    def _settlements(self) -> list[Settlement]:
        settlements = []
        for ref, ids in self._acknowledge.items():
            held: Sequence[Held] = self._core.inflight.held(ref, ids)
            for one in held:
                if one.receipt is None:
                    raise TransactionError(
                        f"message {one.id} of queue {ref.name!r} is not held by this client: it "
                        "was settled before, or received by another one; nothing was carried out",
                        queue=ref.name,
                        message_id=one.id,
                    )
            settlements.append(Settlement(ref, Verb.ACKNOWLEDGE, held))
        return settlements

    def _batches(self) -> Steps[tuple[list[SendBatch], float]]:
        """What to send, and until when that may be repeated if it stays in doubt."""
        now, until = self._core.clock.monotonic(), math.inf
        grouped: dict[QueueRef, list[NewMessage]] = {}
        for ref, message in self._sends:
            grouped.setdefault(ref, []).append(message)
        batches = []
        for ref, messages in grouped.items():
            for policy in self._policies[ref].values():  # handles may ask for different settings
                known = yield from policy.fitting(messages)
            batches.append(SendBatch(ref, messages, known.epoch))
            until = min(until, repeatable_until(now, known.settings))
        return batches, until

    def _again(self, error: LeanMQError) -> Steps[bool]:
        """Whether another try can end better."""
        if isinstance(error, QueueFullError):
            for ref, _ in self._sends:
                if ref.name == error.queue:
                    known = yield from self._core.declare(ref, _AS_IT_IS)
                    return known.settings.overflow == "block"
            return False
        gone = isinstance(error, QueueNotFoundError) and error.queue
        if gone and gone not in {ref.name for ref, _ in self._sends}:
            raise TransactionError(
                f"queue {gone!r} does not exist any more, nor do its messages that were to be "
                "acknowledged; nothing was carried out",
                queue=gone,
            ) from error
        passing = (StaleSettingsError, QueueNotFoundError, UnreachableError)
        return error.in_doubt or isinstance(error, passing)

    def _mend(self, error: LeanMQError | None) -> Steps[None]:
        """Before another try: read settings again, make again what had vanished."""
        if not isinstance(error, StaleSettingsError | QueueNotFoundError):
            return
        refs = {ref.name: ref for ref, _ in self._sends}
        if error.queue in refs:
            refs = {error.queue: refs[error.queue]}
        for ref in refs.values():
            if isinstance(error, StaleSettingsError):
                yield from self._core.refresh(ref)
            else:
                yield from self._core.vanished(ref, _AS_IT_IS)

    def _in_order(self, batches: Sequence[SendBatch], sent: Sent) -> list[str]:
        results = iter(sent.results)
        ids = {batch.queue: iter([str(next(results)) for _ in batch.messages]) for batch in batches}
        return [next(ids[ref]) for ref, _ in self._sends]


def _unknown(error: LeanMQError) -> OutcomeUnknownError:
    unknown = OutcomeUnknownError(
        f"{error}; the transaction may be carried out, as a whole, or not: look before you "
        "repeat it",
        queue=error.queue,
    )
    unknown.__cause__ = error.__cause__ or error
    return unknown
