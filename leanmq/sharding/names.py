"""How what a router keeps is called: shards as queues of their nodes, messages by their parts.

A shard is a queue of its node, called ``orders#3``; ``#`` cannot occur in the name of a queue. A
message is called by its part and by what it is called there: ``3#1732550400000-0``.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from leanmq.backends.protocol import Listed, QueueRef, QueueStats

__all__ = ["fold", "inside", "outside", "shard_name", "split_name", "total"]

_MARK = "#"


def shard_name(queue: str, shard: int) -> str:
    """The name of a shard on its node.

    >>> shard_name("orders", 3)
    'orders#3'
    """
    return f"{queue}{_MARK}{shard}"


def split_name(name: str) -> tuple[str, int | None]:
    """The queue, and which shard of it.

    >>> split_name("orders#3"), split_name("orders")
    (('orders', 3), ('orders', None))
    """
    queue, mark, shard = name.partition(_MARK)
    return (queue, int(shard)) if mark else (name, None)


def outside(part: str, name: str) -> str:
    """What a message (or a receipt) of a part is called outside of it.

    >>> outside("3", "1-0")
    '3#1-0'
    """
    return f"{part}{_MARK}{name}"


def inside(name: str) -> tuple[str, str]:
    """The part, and what a message is called there; what cannot be of any part has the part ''.

    >>> inside("3#1-0"), inside("1-0")
    (('3', '1-0'), ('', '1-0'))
    """
    part, mark, rest = name.partition(_MARK)
    return (part, rest) if mark else ("", name)


def fold(listed: Iterable[tuple[QueueRef, QueueStats]]) -> Listed:
    """The figures of each queue, those of its shards added up; by name, dead letters second."""
    found: dict[QueueRef, list[QueueStats]] = {}
    sharded: set[QueueRef] = set()
    for ref, stats in listed:
        name, shard = split_name(ref.name)
        whole = attrs.evolve(ref, name=name)
        found.setdefault(whole, []).append(stats)
        if shard is not None:
            sharded.add(whole)
    return Listed(
        [
            (ref, total(parts, slot=_slot(parts) if ref in sharded else None))
            for ref, parts in sorted(found.items(), key=lambda item: (item[0].name, item[0].dead))
        ]
    )


def total(parts: list[QueueStats], *, slot: str | None) -> QueueStats:
    """Figures of parts, added up. ``slot`` is that of the whole, if it is in shards."""
    first = parts[0]
    settings = first.settings
    if slot is not None:
        settings = attrs.evolve(settings, slot=slot, shards=settings.shards or len(parts))
    return QueueStats(
        ready=sum(stats.ready for stats in parts),
        in_flight=sum(stats.in_flight for stats in parts),
        delayed=sum(stats.delayed for stats in parts),
        created_at=min(stats.created_at for stats in parts),
        settings=settings,
    )


def _slot(parts: list[QueueStats]) -> str:
    """The slot of the whole: the tags of its shards begin with it."""
    return (parts[0].settings.slot or "").partition(_MARK)[0]
