"""What a queue in shards and its shards have to do with each other, for both worlds."""

from __future__ import annotations

from leanmq.backends.protocol import QueueRef
from leanmq.policy.logic import QueueLogic
from leanmq.sharding.names import shard_name
from leanmq.sharding.shards import SHARDS

__all__ = ["shard_logic", "shards_of"]


def shards_of(logic: QueueLogic) -> int:
    """How many shards a queue was opened with."""
    return logic.asked.shards or SHARDS


def shard_logic(logic: QueueLogic, number: int) -> QueueLogic:
    """The queue that a shard is."""
    shards = shards_of(logic)
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(
            f"a shard has a number, not a {type(number).__name__}; for the shard of a "
            "key use shard_for"
        )
    if not 0 <= number < shards:
        raise ValueError(
            f"queue {logic.ref.name!r} has {shards} shards, 0 to {shards - 1}; there is no shard "
            f"{number}"
        )
    ref = QueueRef(shard_name(logic.ref.name, number), logic.ref.dead)
    return QueueLogic(logic.core, ref, logic.asked, logic.codec)
