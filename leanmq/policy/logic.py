"""Every operation of a queue above the seam, written once for threads and asyncio."""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs
from msgspec.structs import replace

from leanmq.api import Message, QueueInfo, Seconds
from leanmq.backends.protocol import Drop, Dropped, Held, QueueRef, Settings, Verb
from leanmq.errors import ConnectionError, CrossSlotError, QueueError
from leanmq.policy.core import info_of
from leanmq.policy.names import check_count, check_name, wait_of
from leanmq.policy.receiving import Receiving
from leanmq.policy.sending import Sending
from leanmq.policy.settling import Settling
from leanmq.policy.steps import Ask, Steps

__all__ = ["QueueLogic", "Waiting", "destination_of", "logic_of"]

Waiting: TypeAlias = "list[tuple[Message[Any], Held]]"
"""Messages that were received and not yet handed to the user, and how they are held."""


@attrs.frozen
class QueueLogic(Sending, Receiving, Settling):
    """The operations of one queue (or its dead letters) of one client."""

    def check_consume(self, count: int, timeout: Seconds | None) -> None:
        """Say at once, not at the first message, what is wrong."""
        self.core.check_open()
        check_count(count)
        wait_of(True, timeout)

    def batch(self, count: int, timeout: Seconds | None) -> Steps[Waiting]:
        """Receive messages that wait for their turn, with their receipts."""
        messages = yield from self.receive(count, True, timeout)
        held = self.core.inflight.held(self.ref, [message.id for message in messages])
        return list(zip(messages, held, strict=True))

    def keep(self, waiting: Waiting) -> Steps[Waiting]:
        """Received messages whose turn has not come, without those that were lost meanwhile.

        Once half of the lease has passed, it is renewed.
        """
        clock = self.core.clock
        known = yield from self.core.declare(self.ref, self.asked)
        lease = known.settings.lease or 0.0
        if waiting[0][0].lease_until - clock.time() > lease / 2:
            return waiting if self._ours(waiting[:1]) else waiting[1:]
        yield from self.extend([message for message, _ in self._ours(waiting)])
        until = clock.time() + lease
        return [
            (replace(message, lease_until=until), held) for message, held in self._ours(waiting)
        ]

    def give_back(self, waiting: Waiting) -> Steps[None]:
        """Release what waits for its turn no more."""
        ours = [message for message, _ in self._ours(waiting)]
        if ours and not self.core.closed:
            yield from self.settle(Verb.RELEASE, ours)

    def begin(self, message: Message[Any]) -> Held:
        """How a message is held when the work on it begins."""
        return self.core.inflight.held(self.ref, [message.id])[0]

    def finish(
        self, verb: Verb, message: Message[Any], begun: Held, *, reason: str = ""
    ) -> Steps[bool]:
        """Settle what was worked on, unless that was done on the way; false if it was lost."""
        now = self.begin(message)
        if now.receipt is None and begun.receipt is not None:
            return True
        if now != begun:  # a sibling has it
            return False
        return bool((yield from self.settle(verb, message, reason=reason)))

    def _ours(self, waiting: Waiting) -> Waiting:
        """Those still held by the same receipts: a sibling may have received one meanwhile."""
        now = self.core.inflight.held(self.ref, [message.id for message, _ in waiting])
        return [pair for pair, held in zip(waiting, now, strict=True) if held == pair[1]]

    def declare(self) -> Steps[None]:
        """Make it, or compare its settings."""
        yield from self.core.declare(self.ref, self.asked)

    def info(self) -> Steps[QueueInfo]:
        """Count."""
        return info_of(self.ref, (yield from self.core.stats(self.ref, self.asked)))

    def delete(self, delete_dlq: bool) -> Steps[bool]:
        """Delete all of it."""
        if self.ref.dead:
            raise QueueError(
                f"the dead letter queue of {self.ref.name!r} cannot be deleted alone; "
                "delete its queue with delete_dlq=True",
                queue=self.ref.name,
            )
        yield from self.core.open()
        patience = self.core.patience()
        doubt = False
        while True:
            try:
                dropped: Dropped = yield Ask("drop", Drop(self.ref.name, delete_dlq))
                break
            except ConnectionError as error:
                doubt = doubt or error.in_doubt
                yield patience.pause(error)
        if dropped.dead_letters:
            raise QueueError(
                f"queue {self.ref.name!r} has {dropped.dead_letters} dead letters; settle them "
                "first, or delete them too with delete_dlq=True",
                queue=self.ref.name,
            )
        self.core.forget(self.ref)
        self.core.inflight.forget_all(self.ref)
        self.core.inflight.forget_all(QueueRef(self.ref.name, True))
        return dropped.existed or doubt  # an earlier try may have deleted it


def destination_of(origin: QueueLogic, queue: object) -> QueueLogic | None:
    """The queue where dead letters shall go; None is their own."""
    if queue is None:
        return None
    if isinstance(queue, str):
        ref = QueueRef(check_name(queue, "destination_queue"))
        return QueueLogic(origin.core, ref, Settings())
    logic = logic_of(queue)
    assert isinstance(logic, QueueLogic)
    if logic.core is not origin.core:
        raise CrossSlotError(
            f"queue {logic.ref.name!r} belongs to another client, the one of {logic.core.name}: "
            "dead letters cannot go there in one step; send their payloads there and acknowledge "
            "them here",
            queue=origin.ref.name,
        )
    if logic.ref.dead:
        raise QueueError(
            f"destination_queue is the dead letter queue of {logic.ref.name!r}; name a queue",
            queue=origin.ref.name,
        )
    return logic


def logic_of(queue: object) -> QueueLogic | str:
    """What stands behind a handle; a name stays one."""
    if isinstance(queue, str):
        return queue
    logic = getattr(queue, "_logic", None)
    if not isinstance(logic, QueueLogic):
        raise TypeError(f"expected a queue of this client or its name, not {type(queue).__name__}")
    return logic
