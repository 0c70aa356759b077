"""A primary with two replicas, watched by three sentinels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import ClassVar

import redis

from .ports import HOST
from .process import RedisProcess
from .proxy import PEERS
from .topology import How, Topology
from .waiting import wait_until

__all__ = ["SERVICE", "SentinelTopology"]

SERVICE = "leanmq-test"
# Intervals of a sentinel that are not Redis's own, in milliseconds.
_INTERVALS = {
    # Sentinels ping, and renew a lost connection, once a second. With 1000 ms until a silent
    # node counts as down, a reconnect (after each failover) could come too late, and the new
    # primary was deposed at once.
    "PING-PERIOD": 300,
    # A sentinel that did not run for 2 s, or whose clock was set back, does nothing for 30 s;
    # it even accepts a failover that it does not make. Frozen and busy machines do that.
    "TILT-PERIOD": 1000,
    # Sentinels ask what role a node has every 10 s. One that had asked just after a failover
    # asks again just after the next, sees a "primary" that it has seen for 8 s and more (it
    # missed the time between), and makes the newly promoted node a replica again.
    "INFO-PERIOD": 1000,
}


class SentinelTopology(Topology):
    """Three data nodes and three sentinels, two of which must agree that the primary is down."""

    kind: ClassVar[str] = "sentinel"
    can_isolate: ClassVar[bool] = True

    @property
    def url(self) -> str:
        hosts = ",".join(f"{HOST}:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    @property
    def service(self) -> str:
        return SERVICE

    def primary_for(self, key: str | None = None) -> RedisProcess:
        """Return the primary that the best informed sentinel names.

        After a failover the sentinels tell each other within about two seconds; until then
        the one with the highest configuration epoch is right.
        """
        views = [view for view in map(self._view, self.sentinels) if view]
        if not views:
            raise LookupError(f"no sentinel of {self!r} answers")
        best = max(views, key=lambda view: int(view["config-epoch"]))
        return self.node_at(int(best["current-port"]))

    def replicas_for(self, key: str | None = None) -> list[RedisProcess]:
        primary = self.primary_for(key)
        return [node for node in self.nodes if node is not primary]

    def failover(self, key: str | None = None, how: How = "") -> RedisProcess:
        if how:
            raise ValueError(f"SENTINEL FAILOVER has no option {how}")
        old: RedisProcess | None = None
        refusals: list[str] = []

        def accepted() -> bool:
            nonlocal old
            # Not while another failover goes on: sentinels that did not start that one would
            # accept, and would depose the primary before it. Nor while one of them would undo
            # the promotion, having seen the replica last in its time as a primary.
            old = self._agreed_primary()
            if any(self._mistaken(sentinel) for sentinel in self.sentinels if sentinel.alive):
                return False
            for sentinel in self.sentinels if old else ():
                try:
                    self.ask(sentinel, "SENTINEL", "FAILOVER", SERVICE)
                except redis.RedisError as error:  # NOGOODSLAVE and INPROG pass by themselves.
                    refusals.append(f"{sentinel.name}: {error}")
                else:
                    return True
            return False

        wait_until(
            accepted, 20.0, lambda: f"a sentinel to accept FAILOVER: {refusals[-3:]}", step=0.02
        )
        assert old is not None
        return old

    def isolate_primary(self, key: str | None = None) -> RedisProcess:
        node = self.primary_for(key)
        assert node.proxy is not None
        node.proxy.hold(PEERS)
        return node

    def revive(self) -> None:
        self._start_sentinels()
        super().revive()

    # -- building ----------------------------------------------------------------------------

    def _build(self) -> None:
        for name in ("data-1", "data-2", "data-3"):
            self._add_node(name)
        for node in self.nodes:
            node.start(wait=False)
        for name in ("sentinel-1", "sentinel-2", "sentinel-3"):
            self.sentinels.append(
                RedisProcess(name, self.binary, self._place(name), proxied=False, sentinel=True)
            )
        for node in self.nodes:
            node.wait_ready()
        for sentinel in self.sentinels:
            sentinel.configure(list(self._sentinel_settings(sentinel)))
        self._start_sentinels()

    def _start_sentinels(self) -> None:
        dead = [sentinel for sentinel in self.sentinels if not sentinel.alive]
        for sentinel in dead:
            sentinel.start(wait=False)
        for sentinel in dead:
            sentinel.wait_ready()
            for name, milliseconds in _INTERVALS.items():
                self.ask(sentinel, "SENTINEL", "DEBUG", name, milliseconds)

    def _node_settings(self, node: RedisProcess) -> list[str]:
        settings = super()._node_settings(node)
        if node is not self.nodes[0]:
            settings.append("replicaof {} {}".format(*self.nodes[0].address))
        return settings

    def _sentinel_settings(self, sentinel: RedisProcess) -> Iterator[str]:
        """Yield the settings of a sentinel that knows all others from its start.

        Sentinels write what they have learned into their files in this form; to be told saves
        the seconds in which they would find each other by way of the primary.
        """
        first, *others = self.nodes
        yield "protected-mode no"
        yield f"sentinel myid {_identity(sentinel)}"
        yield f"sentinel announce-ip {HOST}"
        yield f"sentinel announce-port {sentinel.port}"
        yield "sentinel monitor {} {} {} 2".format(SERVICE, *first.address)
        yield f"sentinel down-after-milliseconds {SERVICE} 1000"
        yield f"sentinel failover-timeout {SERVICE} 4000"
        yield f"sentinel parallel-syncs {SERVICE} 2"
        for node in others:
            yield "sentinel known-replica {} {} {}".format(SERVICE, *node.address)
        for other in self.sentinels:
            if other is not sentinel:
                yield f"sentinel known-sentinel {SERVICE} {HOST} {other.port} {_identity(other)}"

    # -- health ------------------------------------------------------------------------------

    def _view(self, sentinel: RedisProcess) -> dict[str, str] | None:
        """Return what one sentinel knows of the primary, or None if it does not answer.

        ``current-port`` is what it tells clients: in a failover the promoted replica's.
        ``flags`` has "tilt" in it while the sentinel does not act.
        """
        if not sentinel.alive or sentinel.frozen:
            return None
        try:
            view = _pairs(self.ask(sentinel, "SENTINEL", "MASTER", SERVICE))
            address = self.ask(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            tilt = self.info(sentinel, "sentinel")["sentinel_tilt"]
        except redis.RedisError:
            return None
        view["current-port"] = address[1]
        if tilt:
            view["flags"] += ",tilt"
        return view

    def _agreed_primary(self) -> RedisProcess | None:
        """Return the primary that all sentinels name, none of them being in a failover."""
        views = [self._view(sentinel) for sentinel in self.sentinels if sentinel.alive]
        ports = {view["current-port"] for view in views if view and view["flags"] == "master"}
        if len(ports) != 1 or not all(view and view["flags"] == "master" for view in views):
            return None
        return self.node_at(int(ports.pop()))

    def _mistaken(self, sentinel: RedisProcess) -> list[str]:
        """Return the ports of the replicas that a sentinel last saw as primaries."""
        replicas = map(_pairs, self.ask(sentinel, "SENTINEL", "REPLICAS", SERVICE))
        return [entry["port"] for entry in replicas if entry["role-reported"] != "slave"]

    def _complaints(self) -> list[str]:
        wrong: list[str] = []
        views: list[Mapping[str, str]] = []
        for sentinel in self.sentinels:
            view = self._view(sentinel)
            if view is None:
                return [f"{sentinel!r} does not answer"]
            views.append(view)
            if view["flags"] != "master":
                wrong.append(f"{sentinel.name} sees the primary as {view['flags']}")
            counts = view["num-slaves"], view["num-other-sentinels"]
            if counts != ("2", "2"):
                wrong.append(f"{sentinel.name} knows {counts} replicas and other sentinels")
            wrong += [
                f"{sentinel.name} saw {port} last as a primary" for port in self._mistaken(sentinel)
            ]
            for what in ("REPLICAS", "SENTINELS"):
                for entry in map(_pairs, self.ask(sentinel, "SENTINEL", what, SERVICE)):
                    # What another sentinel said last of the primary ("master_down") is kept
                    # for 5 s and then forgotten; it counts for nothing if one sees it alive.
                    flags = set(entry["flags"].split(",")) - {"master_down"}
                    if flags not in ({"slave"}, {"sentinel"}):
                        wrong.append(f"{sentinel.name} sees {entry['port']} as {sorted(flags)}")
        ports = {view["current-port"] for view in views}
        if len(ports) > 1:
            return [*wrong, f"the sentinels name the primaries {sorted(ports)}"]
        primary = self.node_at(int(ports.pop()))
        return wrong + self._replication_complaints({primary: self.replicas_for()})

    def _revive_dead(self) -> None:
        """Start the dead; a data node that has been deposed comes back as a replica.

        By itself it would come back as a primary, which the sentinels correct after 8 s.
        """
        self._start_sentinels()
        dead = [node for node in self.nodes if not node.alive]
        if dead:
            primary = self.primary_for()
            for node in dead:
                host, port = primary.address
                node.start(*([] if node is primary else ["--replicaof", host, str(port)]))

    def _nudge(self) -> None:
        """Make data nodes follow the agreed primary now; sentinels would do it within 10 s."""
        primary = self._agreed_primary()
        if primary is None or self.ask(primary, "ROLE")[0] != "master":
            return
        host, port = primary.address
        for node in self.nodes:
            if node is primary:
                continue
            role = self.ask(node, "ROLE")
            if role[0] == "master" or int(role[2]) != port:
                self.ask(node, "REPLICAOF", host, port)


def _identity(sentinel: RedisProcess) -> str:
    return hashlib.sha1(str(sentinel.directory).encode(), usedforsecurity=False).hexdigest()


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
