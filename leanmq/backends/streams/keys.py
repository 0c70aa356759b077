"""The names of all keys, as pure functions. No other file builds a key.

Every key is ``{prefix}{<tag>}:<kind>:<queue>``. The braces make the tag the part that a cluster
hashes, so all keys of a queue share a slot; the kind stands before the name, so that no name
can collide with another's key.
"""

from __future__ import annotations

from functools import lru_cache

import attrs

from leanmq.backends.protocol import QueueRef

__all__ = [
    "GROUP",
    "SCHEMA",
    "QueueKeys",
    "StreamKeys",
    "is_of_shard",
    "older_registry_key",
    "queue_keys",
    "registry_key",
]

SCHEMA = 1
"""Version of the data layout, stored with each queue."""

GROUP = "leanmq"
"""The one consumer group of every stream."""


@attrs.frozen
class StreamKeys:
    """What one stream needs.

    Attributes:
        stream: Its messages.
        due: Ids of those that are not due yet, by time; ``payloads``: their fields.
        ids: Entry by id for life, where these differ.
        dead: The stream of its dead letters; ``dead_ids``: as ``ids``.
        meta: Settings.
        dedup: Dedup ids by the end of their window; ``known``: the ids of their messages.
    """

    stream: str
    due: str
    payloads: str
    ids: str
    dead: str
    dead_ids: str
    meta: str
    dedup: str
    known: str

    def for_sending(self) -> tuple[str, ...]:
        """The keys in the order in which sends take them."""
        return (self.stream, self.due, self.payloads, self.meta, self.dedup, self.known)

    def for_work(self) -> tuple[str, ...]:
        """The keys in the order in which receive and settle take them."""
        return (self.stream, self.dead, self.due, self.payloads, self.ids, self.dead_ids, self.meta)

    def for_looking(self) -> tuple[str, ...]:
        """The keys in the order in which peek and purge take them."""
        return (self.stream, self.due, self.payloads, self.ids, self.meta)


@attrs.frozen
class QueueKeys:
    """All keys of a queue and its dead letters, and the tag that they share."""

    tag: str
    live: StreamKeys
    dead: StreamKeys

    def of(self, queue: QueueRef) -> StreamKeys:
        """The keys of the queue, or of its dead letters."""
        return self.dead if queue.dead else self.live

    def as_destination(self) -> tuple[str, ...]:
        """The keys that settle needs to put dead letters here."""
        live, dead = self.live, self.dead
        return (live.stream, live.ids, live.due, live.meta, live.payloads,
                dead.stream, dead.ids, dead.payloads)  # fmt: skip

    def all(self) -> tuple[str, ...]:
        """Every key once: streams, delayed messages of both, what is remembered, settings."""
        live, dead = self.live, self.dead
        return (live.stream, dead.stream, live.due, live.payloads, dead.due, dead.payloads,
                live.dedup, live.known, live.ids, dead.ids, live.meta)  # fmt: skip


@lru_cache(maxsize=4_096)
def queue_keys(prefix: str, name: str, tag: str) -> QueueKeys:
    """The keys of queue ``name`` under hash tag ``tag``.

    >>> queue_keys("mq:", "orders", "orders").live.stream
    'mq:{orders}:q:orders'
    """

    def key(kind: str) -> str:
        return f"{prefix}{{{tag}}}:{kind}:{name}"

    ends, shared = (key("d"), key("dids")), (key("meta"), key("dd"), key("ddp"))
    live = StreamKeys(key("q"), key("due"), key("duep"), key("ids"), *ends, *shared)
    dead = StreamKeys(key("d"), key("ddue"), key("dduep"), key("dids"), *ends, *shared)
    return QueueKeys(tag, live, dead)


def is_of_shard(key: str) -> bool:
    """Whether a key is one of a shard: no other queue has a ``#`` in its name.

    >>> is_of_shard("mq:{orders#3}:q:orders#3"), is_of_shard("mq:{orders#3}:q:orders")
    (True, False)
    """
    return "#" in key.partition("}:")[2]


def registry_key(prefix: str) -> str:
    """The hash that lists all queues of a prefix: name to tag and kind."""
    return f"{prefix}queues"


def older_registry_key(prefix: str) -> str:
    """The set in which LeanMQ 0.2.0 kept the names of its queues."""
    return f"{prefix}registry"
