"""One fault after the other, drawn at random, on the servers of a subject."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.support.topology import Topology

__all__ = ["Strikes"]

LONGEST: Final = 1.5
"""Seconds for which a server or a connection hangs at most."""


class Strikes:
    """Draws a fault, lets it strike, and ends it.

    Sentinel and Cluster replicate behind the confirmation of a write, so that a failover may lose
    some; none is called for here.

    Args:
        topologies: What is struck.
        keys: Of the queue, one a shard: they tell which node or slot is meant.
        luck: Tells what comes.
    """

    def __init__(
        self, topologies: Sequence[Topology], keys: Sequence[str], luck: random.Random
    ) -> None:
        self._topologies, self._keys, self._luck = topologies, keys, luck
        self.struck: Counter[str] = Counter()
        self._kinds: list[Callable[[Topology, str], object]] = [
            self.reset_connections,
            self.lose_replies_of_scripts,
            self.lose_replies_of_reads,
            self.cut_requests,
            self.delay,
            self.forget_scripts,
        ]
        for topology in topologies:
            if topology.kind == "redis":  # alone, it must keep what it has confirmed
                topology.config_set("appendfsync", "always")
        if all(topology.kind == "redis" for topology in topologies):
            self._kinds.append(self.restart)
        if all(topology.kind != "sentinel" for topology in topologies):  # they call for a failover
            self._kinds += [self.hang, self.freeze]
        if all(topology.can_move_slots for topology in topologies):
            self._kinds.append(self.move_slot)

    def strike(self) -> None:
        """One fault, from its beginning to its end."""
        topology, key = self._luck.choice(self._topologies), self._luck.choice(self._keys)
        kind = self._luck.choice(self._kinds)
        self.struck[getattr(kind, "__name__", "")] += 1
        kind(topology, key)

    def _while(self) -> None:
        # How long the fault lasts; nothing is waited for. In a thread of its own: see __main__.
        time.sleep(self._luck.uniform(0, LONGEST))

    def reset_connections(self, topology: Topology, key: str) -> None:
        """All connections of clients end at once."""
        topology.kill_connections()

    def lose_replies_of_scripts(self, topology: Topology, key: str) -> None:
        """What was carried out is not answered, or not wholly."""
        keep = self._luck.choice((0, 0, 5))
        topology.drop_next_reply(key, b"EVALSHA", self._luck.randint(1, 3), keep=keep)

    def lose_replies_of_reads(self, topology: Topology, key: str) -> None:
        """Messages are handed out, and nobody sees them."""
        topology.drop_next_reply(key, b"XREADGROUP", self._luck.randint(1, 3))

    def cut_requests(self, topology: Topology, key: str) -> None:
        """A connection ends before the request is carried out."""
        topology.cut_next_request(key, b"EVALSHA")

    def hang(self, topology: Topology, key: str) -> None:
        """Nothing passes for a while, and all of it comes then."""
        proxy = topology.proxy_for(key)
        proxy.hold()
        try:
            self._while()
        finally:
            proxy.resume()

    def delay(self, topology: Topology, key: str) -> None:
        """Everything takes 50 ms longer for a while."""
        proxy = topology.proxy_for(key)
        proxy.delay(0.05)
        try:
            self._while()
        finally:
            proxy.delay(0)

    def freeze(self, topology: Topology, key: str) -> None:
        """The server stands still for a while."""
        topology.freeze_primary(key)
        try:
            self._while()
        finally:
            topology.thaw()

    def forget_scripts(self, topology: Topology, key: str) -> None:
        """The server knows no script any more."""
        topology.ask(topology.primary_for(key), "SCRIPT", "FLUSH")

    def restart(self, topology: Topology, key: str) -> None:
        """The server ends, or is killed, and comes back with what it had."""
        topology.restart_primary(key, graceful=self._luck.random() < 0.5)

    def move_slot(self, topology: Topology, key: str) -> None:
        """A slot moves to another server, key by key."""
        topology.move_slot(key)
