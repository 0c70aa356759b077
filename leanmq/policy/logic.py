"""Every operation of a queue above the seam, written once for threads and asyncio."""

from __future__ import annotations

import attrs

from leanmq.api import QueueInfo
from leanmq.backends.protocol import Drop, Dropped, QueueRef, Settings
from leanmq.errors import (
    CrossSlotError,
    DeadLetterQueueNotFoundError,
    QueueError,
    UnreachableError,
)
from leanmq.policy.loops import Looping
from leanmq.policy.names import ref_of
from leanmq.policy.sending import Sending
from leanmq.policy.steps import Ask, Steps

__all__ = ["QueueLogic", "destination_of", "logic_of"]


@attrs.frozen
class QueueLogic(Sending, Looping):
    """The operations of one queue (or its dead letters) of one client."""

    @property
    def full_name(self) -> str:
        """Name with the prefix of the client, as version 0.2.0 had it, dead letters too."""
        return f"{self.core.terms.prefix}{self.ref.name}{':dlq' if self.ref.dead else ''}"

    @property
    def shards(self) -> int:
        """In how many shards its messages are, as far as this client knows; 0: it is in none."""
        return self.asked.shards or self.core.shards_of(self.ref)

    def check_own_dlq(self, dlq: object) -> None:
        """Raises DeadLetterQueueNotFoundError unless it is the dead letter queue of this queue."""
        if dlq is None:
            return
        own = QueueRef(self.ref.name, True)
        if isinstance(dlq, str):
            dlq = dlq.removesuffix(":dlq")
            own = QueueRef(self.ref.name)
        named = ref_of(dlq, self.core.terms.prefix, "dlq")
        if named != own:
            raise DeadLetterQueueNotFoundError(
                f"queue {self.ref.name!r} has one dead letter queue, its own, and "
                f"{named.name!r} is not that; leave dlq out",
                queue=self.ref.name,
            )

    def declare(self) -> Steps[None]:
        """Make it, or compare its settings."""
        yield from self.core.declare(self.ref, self.asked)

    def info(self) -> Steps[QueueInfo]:
        """Count."""
        return (yield from self.core.info(self.ref, self.asked))

    def delete(self, delete_dlq: bool) -> Steps[bool]:
        """Delete all of it."""
        if self.ref.dead:
            raise QueueError(
                f"the dead letter queue of {self.ref.name!r} cannot be deleted alone; "
                "delete its queue with delete_dlq=True",
                queue=self.ref.name,
            )
        yield from self.core.open()
        inflight, dead = self.core.inflight, QueueRef(self.ref.name, True)
        held = {ref: inflight.all_held(ref) for ref in (self.ref, dead)}
        patience = self.core.patience()
        doubt = False
        while True:
            try:
                dropped: Dropped = yield Ask("drop", Drop(self.ref.name, delete_dlq))
                break
            except UnreachableError as error:
                doubt = doubt or error.in_doubt
                yield patience.pause(error)
        if dropped.dead_letters:
            raise QueueError(
                f"queue {self.ref.name!r} has {dropped.dead_letters} dead letters; settle them "
                "first, or delete them too with delete_dlq=True",
                queue=self.ref.name,
            )
        self.core.forget(self.ref)
        for ref, messages in held.items():
            inflight.forget(ref, messages)
        return dropped.existed or doubt  # an earlier try may have deleted it


def destination_of(origin: QueueLogic, queue: object) -> QueueLogic | None:
    """The queue where dead letters shall go; None is their own."""
    if queue is None:
        return None
    logic = logic_of(queue)
    if isinstance(logic, str):
        ref = ref_of(logic, origin.core.terms.prefix, "destination_queue")
        return QueueLogic(origin.core, ref, Settings())
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
    if isinstance(queue, QueueInfo) and not queue.is_dlq:
        return queue.name
    logic = getattr(queue, "_logic", None)
    if not isinstance(logic, QueueLogic):
        raise TypeError(f"expected a queue of this client or its name, not {type(queue).__name__}")
    return logic
