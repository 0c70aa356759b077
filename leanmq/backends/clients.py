"""Reads where a client of redis-py or fakeredis leads, so that LeanMQ can go there by itself.

Of the client nothing but settings is read: no I/O, and it stays as it was. What says where or
how to connect and cannot be read is refused, for messages in the wrong place are the worst end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import attrs

from leanmq.backends.urls import Address, Target, Topology

__all__ = ["read_client"]

Settings: TypeAlias = Mapping[str, Any]
"""What a pool of redis-py gives each of its connections, by name."""

_URL_CURE: Final = "give the URL of the server instead"


@attrs.frozen
class _World:
    """The modules of redis-py for threads, or for asyncio: their classes have the same names."""

    taker: Literal["LeanMQ", "AsyncLeanMQ"]
    client: Any
    cluster: Any
    connection: Any
    sentinel: Any

    def owns(self, kind: type) -> bool:
        """Whether a class is one of this world's, or made of one."""
        return issubclass(
            kind,
            (
                self.client.Redis,
                self.cluster.RedisCluster,
                self.cluster.ClusterPipeline,
                self.sentinel.Sentinel,
            ),
        )


def read_client(client: object, *, asynchronous: bool) -> Target:
    """Where a client leads, with the account and the TLS that it uses there.

    Args:
        client: A ``Redis``, a ``RedisCluster``, what ``Sentinel.master_for`` returns, or a
            ``FakeRedis``; of ``redis.asyncio`` (``fakeredis.FakeAsyncRedis``) if asynchronous.
        asynchronous: Whether it is for asyncio.

    Raises:
        TypeError: If it is none of these, or of the other world, or connects in a way that its
            settings do not tell.

    Examples:
        >>> import redis
        >>> client = redis.Redis(host="h", username="ann", password="pw", decode_responses=True)
        >>> read_client(client, asynchronous=False).display
        'redis://ann:***@h:6379/0'
    """
    threads, tasks = _worlds()
    world, other = (tasks, threads) if asynchronous else (threads, tasks)
    # Not isinstance: a mock passes for an instance of what it mocks.
    kind = type(client)
    try:
        if other.owns(kind):
            raise _Unreadable(
                f"it is for {'threads' if asynchronous else 'asyncio'}",
                f"give it to {other.taker}, or the same client of "
                f"{world.client.__name__.rpartition('.')[0]} to {world.taker}",
            )
        return _read(client, kind, world)
    except _Unreadable as problem:
        raise TypeError(f"client={_named(kind)}: {problem.reason}; {problem.cure}") from None


def _worlds() -> tuple[_World, _World]:
    """redis-py for threads and for asyncio, loaded at the first client only."""
    import redis.asyncio.client
    import redis.asyncio.cluster
    import redis.asyncio.connection
    import redis.asyncio.sentinel
    import redis.client
    import redis.cluster
    import redis.connection
    import redis.sentinel

    names = "client", "cluster", "connection", "sentinel"
    threads, tasks = (
        {name: getattr(package, name) for name in names} for package in (redis, redis.asyncio)
    )
    return _World("LeanMQ", **threads), _World("AsyncLeanMQ", **tasks)


class _Unreadable(Exception):
    """Why a client is refused, and the cure."""

    def __init__(self, reason: str, cure: str = _URL_CURE) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure


def _read(client: Any, kind: type, world: _World) -> Target:
    if isinstance(client, type):
        raise _Unreadable(f"{_named(client)} is a class", "give a client made of it")
    if issubclass(kind, (world.client.Pipeline, world.cluster.ClusterPipeline)):
        raise _Unreadable("it is a pipeline", "give the client that it was made by")
    if issubclass(kind, world.sentinel.Sentinel):
        raise _Unreadable("it knows many services", "give sentinel.master_for(service)")
    if issubclass(kind, world.cluster.RedisCluster):
        return _cluster(client, world)
    if issubclass(kind, world.client.Redis):
        return _plain(client, world)
    raise _Unreadable(
        "it is no client of redis-py or fakeredis",
        "give a Redis, a RedisCluster, a sentinel.master_for(service) or a FakeRedis "
        f"{'for asyncio' if world.taker == 'AsyncLeanMQ' else 'for threads'}, or a URL",
    )


# --- the kinds of clients


def _plain(client: Any, world: _World) -> Target:
    """One server, a service behind sentinels, or a fake server: the pool of the client tells."""
    pool = client.connection_pool
    if type(pool) is world.sentinel.SentinelConnectionPool:
        return _service(pool, world)
    if type(pool) not in (world.connection.ConnectionPool, world.connection.BlockingConnectionPool):
        raise _Unreadable(f"how its pool connects, a {_named(type(pool))}, is unknown")
    kind, settings = pool.connection_class, pool.connection_kwargs
    if _is_fake(kind):
        return _fake(kind, settings)
    tls = _tls(kind, settings, world)
    unix = kind is world.connection.UnixDomainSocketConnection
    address: Address = str(settings.get("path")) if unix else _host(settings)
    return _target("single", tls, (address,), settings, db=_number(settings.get("db"), 0))


def _service(pool: Any, world: _World) -> Target:
    """A service that sentinels watch."""
    if not pool.is_master:
        raise _Unreadable("it reads from replicas", "give sentinel.master_for(service)")
    manager, settings = pool.sentinel_manager, pool.connection_kwargs
    if type(manager) is not world.sentinel.Sentinel:
        raise _Unreadable(f"how its {_named(type(manager))} finds the primary is unknown")
    if getattr(manager, "_force_master_ip", None) is not None:  # redis-py 8
        raise _Unreadable(
            "its force_master_ip replaces what the sentinels say",
            "have them announce an address that can be reached",
        )
    watchers = [_plain(sentinel, world) for sentinel in manager.sentinels]
    if not watchers:
        raise _Unreadable("it has no sentinels", "name some where Sentinel is made")
    if any(watcher.topology != "single" for watcher in watchers):
        raise _Unreadable("its sentinels are no servers of their own")
    first, *others = watchers
    if any(_login(watcher) != _login(first) for watcher in others):
        raise _Unreadable("its sentinels differ in account or TLS", "give all of them the same")
    managed = {
        world.sentinel.SentinelManagedConnection: world.connection.Connection,
        world.sentinel.SentinelManagedSSLConnection: world.connection.SSLConnection,
    }
    kind = pool.connection_class
    return _target(
        "sentinel",
        _tls(managed.get(kind, kind), settings, world),
        tuple(watcher.addresses[0] for watcher in watchers),
        settings,
        db=_number(settings.get("db"), 0),
        service=str(pool.service_name),
        sentinel_username=first.username,
        sentinel_password=first.password,
        sentinel_credential_provider=first.credential_provider,
        sentinel_tls=first.tls,
    )


def _cluster(client: Any, world: _World) -> Target:
    """A cluster, by the nodes that its client would ask first."""
    manager = client.nodes_manager
    settings = dict(manager.connection_kwargs)
    if manager.address_remap is not None:
        raise _Unreadable(
            "its address_remap replaces what the nodes say",
            "have them announce addresses that can be reached (cluster-announce-ip)",
        )
    pools = getattr(manager, "connection_pool_class", world.connection.ConnectionPool)
    if pools is not world.connection.ConnectionPool:
        raise _Unreadable(f"how its pools connect, each a {_named(pools)}, is unknown")
    if settings.get("redis_connect_func") == client.on_connect:  # its own, for READONLY
        settings["redis_connect_func"] = getattr(client, "user_on_connect_func", None)
    tcp, tls = world.connection.Connection, world.connection.SSLConnection
    kind = settings.get("connection_class") or (tls if settings.get("ssl") else tcp)
    nodes = tuple((node.host, _number(node.port, 6379)) for node in manager.startup_nodes.values())
    return _target("cluster", _tls(kind, settings, world), nodes, settings)


def _fake(kind: Any, settings: Settings) -> Target:
    """A server of fakeredis in this process."""
    # Making a connection does not connect, and the connection alone knows which server it means.
    server = kind(**settings)._server
    db = _number(settings.get("db"), 0)
    return Target("memory", "memory", db=db, fake_server=server, **_account(settings))


def _is_fake(kind: type) -> bool:
    return any(base.__module__.partition(".")[0] == "fakeredis" for base in kind.__mro__)


# --- what their settings say


def _target(
    topology: Topology,
    tls: Settings | None,
    addresses: tuple[Address, ...],
    settings: Settings,
    *,
    db: int = 0,
    service: str = "",
    **more: Any,
) -> Target:
    """A target with the account of the settings."""
    unix = topology == "single" and isinstance(addresses[0], str)
    scheme = "unix" if unix else "redis" if tls is None else "rediss"
    return Target(
        scheme if topology == "single" else f"{scheme}+{topology}",
        topology,
        addresses,
        service=service,
        db=db,
        tls=tls,
        **_account(settings),
        **more,
    )


def _tls(kind: Any, settings: Settings, world: _World) -> Settings | None:
    """The options of TLS, None without it; refuses connections that are not redis-py's own."""
    if settings.get("redis_connect_func") is not None:
        raise _Unreadable(
            "what its redis_connect_func does to a new connection is unknown",
            "do without it (accounts are username, password or credential_provider), or give "
            "the URL of the server instead",
        )
    if kind is world.connection.SSLConnection:
        told = {name: value for name, value in settings.items() if name.startswith("ssl_")}
        if told.get("ssl_cert_reqs", "") is None:
            told["ssl_cert_reqs"] = "none"  # what redis-py takes it for
        return {name: value for name, value in told.items() if value is not None}
    if kind not in (world.connection.Connection, world.connection.UnixDomainSocketConnection):
        raise _Unreadable(f"how its connections, each a {_named(kind)}, connect is unknown")
    return None


def _host(settings: Settings) -> Address:
    # While a server is maintained, redis-py 8 puts another one in its place, for a time.
    host = settings.get("orig_host_address") or settings.get("host") or "localhost"
    return str(host), _number(settings.get("port"), 6379)


def _account(settings: Settings) -> dict[str, Any]:
    """Either a name and a password, or a provider of both."""
    return {
        "username": _text(settings.get("username")),
        "password": _text(settings.get("password")),
        "credential_provider": settings.get("credential_provider"),
    }


def _text(value: Any) -> str | None:
    return (value.decode() if isinstance(value, bytes) else str(value)) if value else None


def _login(target: Target) -> tuple[Any, ...]:
    return target.username, target.password, target.credential_provider, target.tls


def _number(value: Any, default: int) -> int:
    try:
        return default if value is None else int(value)
    except (TypeError, ValueError):
        raise _Unreadable("its port and db are not both numbers", "give it numbers") from None


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
