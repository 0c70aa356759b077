"""The life and the health of a topology's servers; how to break them is in ``topology.py``."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .binary import require_server, server_version
from .folders import Folder
from .ports import HOST
from .process import RedisProcess
from .proxy import Proxy
from .waiting import wait_until

__all__ = ["Deployment"]

# Every data node writes an append-only file, so that a killed one comes back with its data. With
# everysec a write may wait for an fsync that is under way, for up to two seconds, and its reply
# does not wait for it; with "no" each is in the file before its reply. No test pulls a plug.
_DATA_SETTINGS = (
    "appendonly yes",
    "appendfsync no",
    'save ""',
    "enable-debug-command local",
    "shutdown-timeout 1",
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    "repl-ping-replica-period 1",
    "repl-timeout 10",
)


class Deployment(ABC):
    """Servers of one kind of deployment, each data node behind a proxy.

    ``key`` says whose node is meant: the one that serves this key now, as the servers see it.
    None means the only primary, or in a cluster the primary of slot 0.

    Attributes:
        nodes: The data nodes, in the order of their creation.
        sentinels: The sentinels, if the topology has any.
        binary: The server program.
        version: Its version, as in ``(7, 0, 15)``.
    """

    kind: ClassVar[str]

    def __init__(self, binary: Path | None = None) -> None:
        """Prepare a topology that is not running yet.

        Args:
            binary: The server program; by default the one that ``require_server`` finds.
        """
        self.binary = binary or require_server()
        self.version = server_version(self.binary)
        self.nodes: list[RedisProcess] = []
        self.sentinels: list[RedisProcess] = []
        self._folder: Folder | None = None
        self._clients: dict[RedisProcess, redis.Redis] = {}
        self._settings: dict[tuple[RedisProcess, str], str] = {}
        self._users: set[str] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.processes}>"

    # -- life --------------------------------------------------------------------------------

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find the topology, always through the proxies."""

    @property
    def processes(self) -> list[RedisProcess]:
        return self.nodes + self.sentinels

    @property
    def proxies(self) -> list[Proxy]:
        return [node.proxy for node in self.nodes if node.proxy is not None]

    @property
    def running(self) -> bool:
        return self._folder is not None

    def start(self, timeout: float = 30.0) -> None:
        """Start everything and wait for full health.

        Raises:
            TimeoutError: if that takes longer than ``timeout`` seconds; nothing is left then.
        """
        if self.running:
            return
        self._folder = Folder(self.kind)
        try:
            self._build()
            self._await_health(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every process, give up the ports and remove the directories."""
        for client in self._clients.values():
            client.close()
        for process in self.processes:
            process.close()
        if self._folder is not None:
            self._folder.remove()
        self._folder = None
        self._clients.clear()
        self._settings.clear()
        self._users.clear()
        self.nodes, self.sentinels = [], []

    def heal(self, timeout: float = 30.0) -> None:
        """Undo all faults and wait for full health; takes milliseconds if nothing is broken.

        Proxies are reset, frozen processes go on, dead ones are started, settings changed by
        ``config_set`` are restored, users made by ``set_user`` are deleted, and then replicas
        must be in sync and all must agree.
        Which node is the primary is left as it is; so are the data, which the tests own.

        Raises:
            TimeoutError: with what is still wrong after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        for proxy in self.proxies:
            proxy.reset()
        for process in self.processes:
            if process.frozen:
                process.thaw()
        self._revive_dead()
        self.restore_settings()
        self._delete_users()
        self._await_health(deadline - time.monotonic())

    def complaints(self) -> list[str]:
        """Return what keeps the topology from full health, one sentence each; empty if healthy."""
        missing = [f"{process!r} is not running" for process in self.processes if not process.alive]
        if missing:
            return missing
        try:
            return self._complaints()
        except (redis.RedisError, LookupError) as error:  # Somebody knows less than usual.
            return [f"{type(error).__name__}: {error}"]

    def revive(self) -> None:
        """Start all dead processes just as they were, and wait for their PONG only."""
        dead = [process for process in self.processes if not process.alive]
        for process in dead:
            process.start(wait=False)
        for process in dead:
            process.wait_ready()

    def restore_settings(self) -> None:
        """Give the settings that ``config_set`` changed their former values."""
        for (node, name), value in self._settings.items():
            self.ask(node, "CONFIG", "SET", name, value)
        self._settings.clear()

    # -- who is who --------------------------------------------------------------------------

    @abstractmethod
    def primary_for(self, key: str | None = None) -> RedisProcess:
        """Return the node that serves the key now.

        During a failover it may be one that is dead: no other has taken over yet.
        """

    @abstractmethod
    def replicas_for(self, key: str | None = None) -> list[RedisProcess]:
        """Return the nodes that are meant to replicate the key's primary."""

    def proxy_for(self, key: str | None = None) -> Proxy:
        """Return the proxy before the key's primary."""
        proxy = self.primary_for(key).proxy
        assert proxy is not None
        return proxy

    def node_at(self, port: int) -> RedisProcess:
        """Return the data node with this announced port.

        Raises:
            LookupError: if there is none.
        """
        for node in self.nodes:
            if node.address[1] == port:
                return node
        raise LookupError(f"no data node of {self!r} is behind port {port}")

    def admin(self, node: RedisProcess) -> redis.Redis:
        """Return a client straight to the node, past its proxy; it never retries.

        There is one for each node, closed by ``stop``. Answers are bytes.
        """
        client = self._clients.get(node)
        if client is None:
            client = redis.Redis(
                host=HOST,
                port=node.port,
                protocol=2,  # Also keeps redis-py 8 from asking for maintenance notifications.
                retry=Retry(NoBackoff(), 0),
                socket_timeout=2.0,
                socket_connect_timeout=1.0,
            )
            self._clients[node] = client
        return client

    def ask(self, node: RedisProcess, *command: str | int) -> Any:
        """Send one command to the node and return its answer with text for bytes.

        A connection that the node has closed since its last use is replaced once; other
        failures are raised as redis-py raises them.
        """
        return _text(self.ask_bytes(node, *command))

    def ask_bytes(self, node: RedisProcess, *command: str | int | bytes) -> Any:
        """Do as ``ask`` does, for names and answers that need not be text."""
        client = self.admin(node)
        execute: Callable[..., Any] = client.execute_command  # redis-py leaves it untyped.
        try:
            return execute(*command)
        except redis.ConnectionError:
            client.connection_pool.disconnect()
            return execute(*command)

    def info(self, node: RedisProcess, section: str) -> dict[str, Any]:
        """Return one section of the node's INFO, parsed as redis-py does."""
        answer: dict[str, Any] = self.ask(node, "INFO", section)
        return answer

    # -- counting ----------------------------------------------------------------------------

    def commands_processed(self, key: str | None = None) -> int:
        """Return how many commands the data nodes (or the key's primary) have executed.

        Includes the INFO of this question itself (one a node, and a few commands more when the
        client connects), and what the servers say to each other: PING, INFO, PUBLISH and
        REPLCONF, 13 a second and node under Sentinel, 1 in a cluster.
        ``command_calls`` tells commands apart.
        """
        nodes = self.nodes if key is None else [self.primary_for(key)]
        return sum(int(self.info(node, "stats")["total_commands_processed"]) for node in nodes)

    def command_calls(self) -> dict[str, int]:
        """Return how often each command was executed, by name in lower case, over all data nodes.

        Writes count again on every replica. Commands called by scripts count, too.
        """
        calls: dict[str, int] = {}
        for node in self.nodes:
            for name, figures in self.info(node, "commandstats").items():
                command = name.removeprefix("cmdstat_")
                calls[command] = calls.get(command, 0) + int(figures["calls"])
        return calls

    # -- for the kinds -----------------------------------------------------------------------

    @abstractmethod
    def _build(self) -> None:
        """Create and start all processes."""

    @abstractmethod
    def _complaints(self) -> list[str]:
        """Return what is wrong, all processes being alive."""

    def _add_node(self, name: str) -> RedisProcess:
        """Create a data node behind a proxy, not started yet."""
        node = RedisProcess(name, self.binary, self._place(name), proxied=True)
        self.nodes.append(node)
        node.configure([*_DATA_SETTINGS, *self._node_settings(node)])
        return node

    def _place(self, name: str) -> Path:
        """Return the directory that the process of this name shall have."""
        assert self._folder is not None
        return self._folder.path / name

    def _node_settings(self, node: RedisProcess) -> list[str]:
        """Return the settings of one data node: to begin with, that its proxy is its address."""
        host, port = node.address
        return [f"replica-announce-ip {host}", f"replica-announce-port {port}"]

    def _revive_dead(self) -> None:
        """Start dead processes in the way that leads to health soonest."""
        self.revive()

    def _nudge(self) -> None:
        """Do what brings an unhealthy topology nearer to health; called again and again."""
        return

    def _await_health(self, timeout: float) -> None:
        complaints: list[str] = []

        def healthy() -> bool:
            nonlocal complaints
            complaints = self.complaints()
            if complaints:
                with contextlib.suppress(redis.RedisError, LookupError):
                    self._nudge()
            return not complaints

        wait_until(healthy, timeout, lambda: self._account("health", complaints))

    def _account(self, what: str, details: Sequence[str] = ()) -> str:
        """Return what was waited for, and all that can explain why it did not come."""
        logs = [f"{process.name} wrote: {process.log_tail()}" for process in self.processes]
        return "\n  ".join([f"{what} of {self!r}", *details, *logs])

    def _replication_complaints(
        self, groups: Mapping[RedisProcess, Sequence[RedisProcess]]
    ) -> list[str]:
        """Return what keeps replicas from being connected to their primary and in sync."""
        wrong: list[str] = []
        for primary, replicas in groups.items():
            state = self.info(primary, "replication")
            online = {
                int(entry["port"])
                for name, entry in state.items()
                if isinstance(entry, dict) and name[5:].isdigit() and entry["state"] == "online"
            }
            if state["role"] != "master":
                wrong.append(f"{primary.name} is {state['role']}, not a primary")
            elif online != {node.address[1] for node in replicas}:
                wrong.append(f"{primary.name} serves the replicas {sorted(online)}")
            for node in replicas:
                state = self.info(node, "replication")
                link = state.get("master_link_status"), state.get("master_sync_in_progress")
                if state["role"] != "slave" or state["master_port"] != primary.address[1]:
                    wrong.append(f"{node.name} is no replica of {primary.name}")
                elif link != ("up", 0):
                    wrong.append(f"{node.name} has the link (status, syncing) {link}")
        return wrong

    def _delete_users(self) -> None:
        for name in self._users:
            for node in self.nodes:
                self.ask(node, "ACL", "DELUSER", name)
        self._users.clear()


def _text(answer: Any) -> Any:
    if isinstance(answer, bytes):
        return answer.decode(errors="replace")
    if isinstance(answer, list):
        return [_text(item) for item in answer]
    return answer
