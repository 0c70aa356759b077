"""Loops over messages, and work that settles itself: policies that hand values to the user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import attrs
from msgspec.structs import replace

from leanmq.api import Message, Seconds
from leanmq.backends.protocol import Held, Verb
from leanmq.errors import ClosedError, LeanMQError
from leanmq.policy import events
from leanmq.policy.names import check_count, wait_of
from leanmq.policy.receiving import Receiving
from leanmq.policy.settling import Settling
from leanmq.policy.steps import Hand, Loop, Steps

__all__ = ["Looping"]


Waiting: TypeAlias = "list[tuple[Message[Any], Held]]"
"""Messages that were received and not yet handed to the user, and how they are held."""


@attrs.frozen
class Looping(Receiving, Settling):
    """The part of a queue's policy that receives and settles on behalf of the user's code."""

    def consume(self, count: int, timeout: Seconds | None) -> Loop:
        """Hand out messages one by one. Says at once, not at the first one, what is wrong."""
        self.core.check_open()
        check_count(count)
        wait_of(True, timeout)
        return self._consume(count, timeout)

    def _consume(self, count: int, timeout: Seconds | None) -> Loop:
        waiting: Waiting = []
        lease = 0.0
        try:
            while True:
                if waiting:
                    waiting, lease = yield from self._keep(waiting, lease)
                else:
                    messages = yield from self.receive(count, True, timeout)
                    if messages:
                        lease = messages[0].lease_until - self.core.clock.time()
                    held = self.core.inflight.held(self.ref, [m.id for m in messages])
                    waiting = list(zip(messages, held, strict=True))
                    if not waiting and timeout is not None:
                        return
                if waiting:
                    yield Hand(waiting.pop(0)[0])
        except ClosedError:
            return
        finally:
            with _kept_back(self.ref.name, len(waiting)):
                yield from self._give_back(waiting)

    def _keep(self, waiting: Waiting, lease: float) -> Steps[tuple[Waiting, float]]:
        """Received messages whose turn has not come, without those that were lost meanwhile.

        Once half of the lease has passed, it is renewed: for as long as the queue has it now.
        """
        self.core.check_open()
        clock = self.core.clock
        if waiting[0][0].lease_until - clock.time() > lease / 2:
            return (waiting if self._ours(waiting[:1]) else waiting[1:]), lease
        _, lease = yield from self.renew([message for message, _ in self._ours(waiting)])
        until = clock.time() + lease
        renewed = [
            (replace(message, lease_until=until), held) for message, held in self._ours(waiting)
        ]
        return renewed, lease

    def _give_back(self, waiting: Waiting) -> Steps[None]:
        """Release what waits for its turn no more."""
        ours = [message for message, _ in self._ours(waiting)]
        if ours and not self.core.closed:
            yield from self.settle(Verb.RELEASE, ours)

    def _ours(self, waiting: Waiting) -> Waiting:
        """Those still held by the same receipts: a sibling may have received one meanwhile."""
        still = self.core.inflight.still_held(self.ref, [held for _, held in waiting])
        return [pair for pair, ours in zip(waiting, still, strict=True) if ours]

    def processing(self, message: Message[Any]) -> Loop:
        """Hand out one payload, and settle its message by how that ends."""
        [begun] = self.core.inflight.held(self.ref, [message.id])
        try:
            yield Hand(message.data)
        except Exception as error:  # of the user's code: the message's fault, it is counted
            with _failed(self.ref.name, message, error):
                yield from self._finish(Verb.RETRY, message, begun, reason=_text_of(error))
            raise
        except BaseException as error:  # Ctrl-C, a cancellation: not the message's fault
            with _failed(self.ref.name, message, error):
                yield from self._finish(Verb.RELEASE, message, begun)
            raise
        if not (yield from self._finish(Verb.ACKNOWLEDGE, message, begun)):
            events.lease_lost(self.ref.name, message)

    def _finish(
        self, verb: Verb, message: Message[Any], begun: Held, *, reason: str = ""
    ) -> Steps[bool]:
        """Settle what was worked on, unless that was done on the way; false if it was lost."""
        [now] = self.core.inflight.held(self.ref, [message.id])
        if now.receipt is None and begun.receipt is not None:
            return True
        if now.receipt is not None and not all(self.core.inflight.still_held(self.ref, [begun])):
            return False  # a sibling has it
        return bool((yield from self.settle(verb, message, reason=reason)))


@contextmanager
def _failed(queue: str, message: Message[Any], error: BaseException) -> Iterator[None]:
    """Around giving a message back after ``error``, which is what the caller shall see: trouble
    with the giving back is logged, and the message comes back after its lease."""
    try:
        yield
    except LeanMQError as trouble:
        why = f"after {type(error).__name__} ({trouble})"
        events.give_back_failed(queue, f"message {message.id}", why)


@contextmanager
def _kept_back(queue: str, count: int) -> Iterator[None]:
    """Around giving back what a loop received and did not come to: nobody waits for an error at
    the end of a loop, so trouble is logged, and the messages come back after their leases."""
    try:
        yield
    except LeanMQError as trouble:
        events.give_back_failed(queue, f"{count} messages", f"at the end of a loop ({trouble})")


def _text_of(error: Exception) -> str:
    """What is kept of an exception; one that has no words has its name."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001  # of the user's class; it must not hide the user's error
        return name
