"""The names of all keys, as pure functions. No other file builds a key.

Every key is ``{prefix}{<tag>}:<kind>:<queue>``. The braces make the tag the part that a cluster
hashes, so all keys of a queue share a slot; the kind stands before the name, so that no name
can collide with another's key.
"""

from __future__ import annotations

from functools import lru_cache

import attrs

from leanmq.backends.protocol import QueueRef

__all__ = ["GROUP", "SCHEMA", "QueueKeys", "StreamKeys", "queue_keys", "registry_key"]

SCHEMA = 1
"""Version of the data layout, stored with each queue."""

GROUP = "leanmq"
"""The one consumer group of every stream."""


@attrs.frozen
class StreamKeys:
    """What one stream needs: its messages, where its dead letters go, what is not due yet."""

    stream: str
    dead: str
    due: str
    payloads: str
    meta: str

    def all(self) -> tuple[str, ...]:
        """The keys in the order in which settle and receive take them."""
        return (self.stream, self.dead, self.due, self.payloads, self.meta)


@attrs.frozen
class QueueKeys:
    """All keys of a queue and its dead letters."""

    live: StreamKeys
    dead: StreamKeys

    def of(self, queue: QueueRef) -> StreamKeys:
        """The keys of the queue, or of its dead letters."""
        return self.dead if queue.dead else self.live

    def all(self) -> tuple[str, ...]:
        """Every key once: streams, delayed messages of both, settings."""
        live, dead = self.live, self.dead
        return (live.stream, dead.stream, live.due, live.payloads, dead.due, dead.payloads,
                live.meta)  # fmt: skip


@lru_cache(maxsize=4_096)
def queue_keys(prefix: str, name: str, tag: str) -> QueueKeys:
    """The keys of queue ``name`` under hash tag ``tag``.

    >>> queue_keys("mq:", "orders", "orders").live.stream
    'mq:{orders}:q:orders'
    """

    def key(kind: str) -> str:
        return f"{prefix}{{{tag}}}:{kind}:{name}"

    live = StreamKeys(key("q"), key("d"), key("due"), key("duep"), key("meta"))
    dead = StreamKeys(key("d"), key("d"), key("ddue"), key("dduep"), key("meta"))
    return QueueKeys(live, dead)


def registry_key(prefix: str) -> str:
    """The hash that lists all queues of a prefix: name to tag and kind."""
    return f"{prefix}queues"
