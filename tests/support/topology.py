"""What every topology can suffer; the three kinds are in files of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Literal

import redis

from .deployment import Deployment
from .faults import Trap
from .links import Role
from .process import RedisProcess
from .proxy import CLIENTS, REPLICAS
from .waiting import wait_until

__all__ = ["How", "Topology"]

How = Literal["", "FORCE", "TAKEOVER"]


class Topology(Deployment):
    """A running deployment that can be broken in many ways, and healed by ``heal``.

    Attributes:
        can_failover: True if another node can take over from a primary.
        can_isolate: True if a primary can be cut off from the other servers only.
        can_move_slots: True if a key's slot can be moved to another primary.
    """

    can_failover: ClassVar[bool] = True
    can_isolate: ClassVar[bool] = False
    can_move_slots: ClassVar[bool] = False

    # -- faults ------------------------------------------------------------------------------

    def kill_connections(self, roles: Collection[Role] = CLIENTS) -> int:
        """Reset the clients' connections to all data nodes; returns how many there were."""
        return sum(proxy.kill_connections(roles) for proxy in self.proxies)

    def drop_next_reply(
        self,
        key: str | None = None,
        match: bytes | None = None,
        count: int = 1,
        *,
        keep: int = 0,
    ) -> Trap:
        """Let the key's primary execute the next request that has ``match``, but not answer it."""
        return self.proxy_for(key).drop_next_reply(count, match, keep=keep)

    def cut_next_request(
        self, key: str | None = None, match: bytes | None = None, count: int = 1
    ) -> Trap:
        """Reset the connection of the next request that has ``match`` before it is executed."""
        return self.proxy_for(key).cut_next_request(match, count)

    def kill_primary(self, key: str | None = None) -> RedisProcess:
        """Kill the key's primary with SIGKILL and return it; the topology may elect another."""
        node = self.primary_for(key)
        node.kill()
        return node

    def freeze_primary(self, key: str | None = None) -> RedisProcess:
        """Stop the key's primary with SIGSTOP and return it."""
        node = self.primary_for(key)
        node.freeze()
        return node

    def freeze_replicas(self, key: str | None = None) -> list[RedisProcess]:
        """Stop the replicas of the key's primary, so that WAIT there counts none."""
        replicas = self.replicas_for(key)
        for node in replicas:
            node.freeze()
        return replicas

    def isolate_primary(self, key: str | None = None) -> RedisProcess:
        """Cut the primary off from all other servers, while clients still reach it.

        The others elect a new primary; what clients write to the old one will be lost.

        Raises:
            NotImplementedError: if ``can_isolate`` is False.
        """
        raise NotImplementedError(f"a {self.kind} topology cannot isolate its primary")

    def move_slot(
        self,
        key: str,
        to: RedisProcess | None = None,
        midway: Callable[[], object] | None = None,
        emptied: Callable[[], object] | None = None,
    ) -> tuple[RedisProcess, RedisProcess]:
        """Move the key's slot to another primary, key by key, while clients go on using it.

        Args:
            to: The primary that shall serve the slot; by default the next one.
            midway: Called once, when the slot is open on both sides and its first key (if it
                has any) has moved: what it does, it does in the middle of a migration.
            emptied: Called when all keys have moved, and the slot is still open on both sides.

        Returns:
            The primary that served the slot, and the one that serves it now.

        Raises:
            NotImplementedError: if ``can_move_slots`` is False.
        """
        raise NotImplementedError(f"a {self.kind} topology has no slots to move")

    def cut_replication(self, key: str | None = None) -> RedisProcess:
        """Let nothing pass between the key's primary and its replicas, until ``heal``."""
        node = self.primary_for(key)
        assert node.proxy is not None
        node.proxy.hold(REPLICAS)
        return node

    def thaw(self) -> None:
        """Let all frozen processes go on."""
        for process in self.processes:
            if process.frozen:
                process.thaw()

    def restart_primary(self, key: str | None = None, *, graceful: bool = False) -> RedisProcess:
        """Kill the key's primary and start it again at once; returns it when it answers PING."""
        node = self.primary_for(key)
        node.restart(graceful=graceful)
        return node

    def failover(self, key: str | None = None, how: How = "") -> RedisProcess:
        """Order a planned failover of the key's primary, and return the old one.

        Asks again until the order is accepted, and waits for nothing else: use
        ``wait_for_new_primary``.

        Args:
            how: For a cluster, ``"FORCE"`` or ``"TAKEOVER"`` to go without the primary's help.

        Raises:
            NotImplementedError: if ``can_failover`` is False.
            TimeoutError: if nobody accepts the order.
        """
        raise NotImplementedError(f"a {self.kind} topology has nobody to fail over to")

    def wait_for_new_primary(
        self, key: str | None, old: RedisProcess, timeout: float = 20.0
    ) -> RedisProcess:
        """Wait until another node than ``old`` serves the key as a primary, and return it."""

        def found() -> RedisProcess | None:
            try:
                node = self.primary_for(key)
                if node is old or not node.alive or node.frozen:
                    return None
                return node if self.ask(node, "ROLE")[0] == "master" else None
            except (redis.RedisError, LookupError):
                return None

        node = wait_until(found, timeout, lambda: self._account(f"another primary than {old.name}"))
        assert node is not None
        return node

    def entries_added(self, node: RedisProcess, key: str) -> int:
        """Return how many entries the node's stream has seen in its life."""
        figures = self.ask(node, "XINFO", "STREAM", key)
        if isinstance(figures, dict):
            return int(figures["entries-added"])
        return int(figures[figures.index("entries-added") + 1])

    def config_set(self, name: str, value: str | int, nodes: Sequence[RedisProcess] = ()) -> None:
        """Change a setting of all data nodes (or of ``nodes``); ``heal`` restores it."""
        for node in nodes or self.nodes:
            before = self.ask(node, "CONFIG", "GET", name)[1]
            self.ask(node, "CONFIG", "SET", name, value)
            self._settings.setdefault((node, name), before)

    def set_user(self, name: str, *rules: str) -> None:
        """Give all data nodes a user with these ACL rules; ``heal`` deletes it."""
        self._users.add(name)
        for node in self.nodes:
            self.ask(node, "ACL", "SETUSER", name, "reset", "on", *rules)
