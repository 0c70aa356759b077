"""One Redis server."""

from __future__ import annotations

from typing import ClassVar

from .ports import HOST
from .process import RedisProcess
from .topology import Topology

__all__ = ["SingleTopology"]


class SingleTopology(Topology):
    """One Redis with an append-only file; when it is killed, nothing happens until ``revive``."""

    kind: ClassVar[str] = "redis"
    can_failover: ClassVar[bool] = False

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.nodes[0].address[1]}/0"

    def primary_for(self, key: str | None = None) -> RedisProcess:
        return self.nodes[0]

    def replicas_for(self, key: str | None = None) -> list[RedisProcess]:
        return []

    def _build(self) -> None:
        self._add_node("redis").start()

    def _complaints(self) -> list[str]:
        node = self.nodes[0]
        if not node.ping():
            return [f"{node!r} does not answer PING: {node.log_tail()}"]
        role = self.ask(node, "ROLE")[0]
        return [] if role == "master" else [f"{node!r} is {role}, not a primary"]

    def _nudge(self) -> None:
        """Make it a primary again after a test has made it a replica."""
        self.ask(self.nodes[0], "REPLICAOF", "NO", "ONE")
