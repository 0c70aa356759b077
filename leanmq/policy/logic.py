"""Every operation of a queue above the seam, written once for threads and asyncio."""

from __future__ import annotations

from typing import Any

import attrs
from msgspec.structs import replace

from leanmq.api import Message, QueueInfo, Seconds
from leanmq.backends.protocol import Drop, Dropped, QueueRef, Settings
from leanmq.errors import ConnectionError, CrossSlotError, QueueError
from leanmq.policy.core import info_of
from leanmq.policy.names import check_count, check_name, wait_of
from leanmq.policy.receiving import Receiving
from leanmq.policy.sending import Sending
from leanmq.policy.settling import Settling
from leanmq.policy.steps import Ask, Steps

__all__ = ["QueueLogic", "destination_of", "logic_of"]


@attrs.frozen
class QueueLogic(Sending, Receiving, Settling):
    """The operations of one queue (or its dead letters) of one client."""

    def check_consume(self, count: int, timeout: Seconds | None) -> None:
        """Say at once, not at the first message, what is wrong."""
        self.core.check_open()
        check_count(count)
        wait_of(True, timeout)

    def keep(self, waiting: list[Message[Any]]) -> Steps[list[Message[Any]]]:
        """Received messages whose turn has not come, without those that were lost meanwhile.

        Once half of the lease has passed, it is renewed.
        """
        clock = self.core.clock
        known = yield from self.core.declare(self.ref, self.asked)
        lease = known.settings.lease or 0.0
        if waiting[0].lease_until - clock.time() > lease / 2:
            return waiting
        yield from self.extend(waiting)
        held = self.core.inflight.held(self.ref, [message.id for message in waiting])
        until = clock.time() + lease
        return [
            replace(message, lease_until=until)
            for message, still in zip(waiting, held, strict=True)
            if still.receipt is not None
        ]

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
                doubt = doubt or error.unknown
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
