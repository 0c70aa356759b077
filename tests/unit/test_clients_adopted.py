"""Where a client of redis-py leads, with which account and TLS, is read from its settings.

No server is needed here, nor asked: a client that connects while it is read fails its test.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any
from unittest import mock

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider
from redis.retry import Retry

from leanmq import AsyncLeanMQ, LeanMQ
from leanmq.backends.clients import read_client
from leanmq.backends.lines import Lines
from leanmq.backends.urls import Target
from tests.support.given import (
    ACCOUNT,
    PASSWORD,
    WORLDS,
    Make,
    cluster,
    forbid_connections,
    master,
    read,
)

PROVIDER: CredentialProvider = UsernamePasswordCredentialProvider("ann", PASSWORD)


@pytest.fixture(autouse=True)
def _no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_connections(monkeypatch)


def pooled(url: str, **settings: Any) -> Make:
    return lambda package: package.Redis(
        connection_pool=package.ConnectionPool.from_url(url, **settings)
    )


def fields(**expected: Any) -> dict[str, Any]:
    """What a target should have; the rest should be as in this one."""
    plain = {"service": "", "db": 0, "username": None, "password": None, "tls": None}
    return plain | {"credential_provider": None, "fake_server": None} | expected


CLIENTS: dict[str, tuple[Make, str, dict[str, Any]]] = {
    "plain": (
        lambda package: package.Redis(),
        "redis://localhost:6379/0",
        fields(topology="single", addresses=(("localhost", 6379),)),
    ),
    "address and database": (
        lambda package: package.Redis(host="h", port=7, db=3),
        "redis://h:7/3",
        fields(addresses=(("h", 7),), db=3),
    ),
    "numbers as text": (
        lambda package: package.Redis(host="h", port="7", db="3"),
        "redis://h:7/3",
        fields(addresses=(("h", 7),), db=3),
    ),
    "IPv6": (
        lambda package: package.Redis(host="::1"),
        "redis://[::1]:6379/0",
        fields(addresses=(("::1", 6379),)),
    ),
    "account": (
        lambda package: package.Redis(host="h", **ACCOUNT),
        "redis://ann:***@h:6379/0",
        fields(addresses=(("h", 6379),), **ACCOUNT),
    ),
    "password alone": (
        lambda package: package.Redis(host="h", password=PASSWORD),
        "redis://:***@h:6379/0",
        fields(password=PASSWORD),
    ),
    "a name that a URL must encode": (
        lambda package: package.Redis(host="h", username="a@b", password=PASSWORD),
        "redis://a%40b:***@h:6379/0",
        fields(username="a@b", password=PASSWORD),
    ),
    "credential provider": (
        lambda package: package.Redis(host="h", credential_provider=PROVIDER),
        "redis://h:6379/0",
        fields(credential_provider=PROVIDER),
    ),
    "TLS": (
        lambda package: package.Redis(
            host="h", ssl=True, ssl_ca_certs="ca.pem", ssl_check_hostname=False
        ),
        "rediss://h:6379/0?ssl_ca_certs=ca.pem&ssl_check_hostname=false",
        {"tls.ssl_ca_certs": "ca.pem", "tls.ssl_check_hostname": False},
    ),
    "TLS without a check": (
        lambda package: package.Redis(
            host="h", ssl=True, ssl_cert_reqs=None, ssl_check_hostname=False
        ),
        "rediss://h:6379/0?ssl_cert_reqs=none",
        {"tls.ssl_cert_reqs": "none", "tls.ssl_check_hostname": False},
    ),
    "account in bytes": (
        lambda package: package.Redis(host="h", username=b"ann", password=b"hunter2"),
        "redis://ann:***@h:6379/0",
        fields(**ACCOUNT),
    ),
    "Unix socket": (
        lambda package: package.Redis(unix_socket_path="/run/redis.sock", db=2, **ACCOUNT),
        "unix://ann:***@/run/redis.sock?db=2",
        fields(scheme="unix", addresses=("/run/redis.sock",), db=2, **ACCOUNT),
    ),
    "URL": (
        pooled(f"redis://ann:{PASSWORD}@h:7/4", decode_responses=True),
        "redis://ann:***@h:7/4",
        fields(addresses=(("h", 7),), db=4, **ACCOUNT),
    ),
    "URL without a host": (
        pooled("redis://"),
        "redis://localhost:6379/0",
        fields(addresses=(("localhost", 6379),)),
    ),
    "URL of a Unix socket": (
        pooled("unix:///run/redis.sock"),
        "unix:///run/redis.sock",
        fields(addresses=("/run/redis.sock",)),
    ),
    "URL with TLS": (
        pooled("rediss://h?ssl_cert_reqs=none"),
        "rediss://h:6379/0?ssl_cert_reqs=none",
        fields(scheme="rediss", tls={"ssl_cert_reqs": "none"}),
    ),
    "pool that blocks": (
        lambda package: package.Redis(
            connection_pool=package.BlockingConnectionPool(host="h", max_connections=2, timeout=1)
        ),
        "redis://h:6379/0",
        fields(addresses=(("h", 6379),)),
    ),
    "subclass": (
        lambda package: type("Traced", (package.Redis,), {})(host="h"),
        "redis://h:6379/0",
        fields(addresses=(("h", 6379),)),
    ),
    "service": (
        master,
        "redis+sentinel://s1:26379,s2:26380/orders/0",
        fields(
            topology="sentinel",
            addresses=(("s1", 26379), ("s2", 26380)),
            service="orders",
            sentinel_username=None,
            sentinel_password=None,
            sentinel_credential_provider=None,
            sentinel_tls=None,
        ),
    ),
    "service with two accounts": (
        lambda package: master(
            package,
            {"username": "bob", "password": "other"},
            db=1,
            decode_responses=True,
            **ACCOUNT,
        ),
        "redis+sentinel://ann:***@s1:26379,s2:26380/orders/1?sentinel_username=bob&sentinel_password=***",
        fields(
            service="orders",
            db=1,
            sentinel_username="bob",
            sentinel_password="other",
            **ACCOUNT,
        ),
    ),
    "service with providers": (
        lambda package: master(
            package, {"credential_provider": PROVIDER}, credential_provider=PROVIDER
        ),
        "redis+sentinel://s1:26379,s2:26380/orders/0",
        fields(
            service="orders", credential_provider=PROVIDER, sentinel_credential_provider=PROVIDER
        ),
    ),
    "service with TLS but for its sentinels": (
        lambda package: master(package, ssl=True, ssl_ca_certs="ca.pem"),
        "rediss+sentinel://s1:26379,s2:26380/orders/0?ssl_ca_certs=ca.pem",
        fields(service="orders", tls={"ssl_ca_certs": "ca.pem"}, sentinel_tls=None),
    ),
    "service with TLS everywhere": (
        lambda package: master(package, {"ssl": True, "ssl_ca_certs": "other.pem"}, ssl=True),
        "rediss+sentinel://s1:26379,s2:26380/orders/0",
        {"tls": {}, "sentinel_tls.ssl_ca_certs": "other.pem"},
    ),
    "cluster": (
        cluster,
        "redis+cluster://c1:7000,c2:7001",
        fields(topology="cluster", addresses=(("c1", 7000), ("c2", 7001))),
    ),
    "cluster with an account": (
        lambda package: cluster(package, decode_responses=True, **ACCOUNT),
        "redis+cluster://ann:***@c1:7000,c2:7001",
        fields(topology="cluster", **ACCOUNT),
    ),
    "cluster with a provider": (
        lambda package: cluster(package, credential_provider=PROVIDER),
        "redis+cluster://c1:7000,c2:7001",
        fields(topology="cluster", credential_provider=PROVIDER),
    ),
    "cluster with TLS": (
        lambda package: cluster(package, ssl=True, ssl_ca_certs="ca.pem", ssl_check_hostname=True),
        "rediss+cluster://c1:7000,c2:7001?ssl_ca_certs=ca.pem",
        {"tls.ssl_ca_certs": "ca.pem"},
    ),
    "cluster by URL": (
        lambda package: package.RedisCluster.from_url(
            f"rediss://ann:{PASSWORD}@c1:7000", ssl_check_hostname=True
        ),
        "rediss+cluster://ann:***@c1:7000",
        fields(topology="cluster", scheme="rediss+cluster", addresses=(("c1", 7000),), **ACCOUNT)
        | {"tls": mock.ANY},
    ),
    "cluster read by its replicas": (
        lambda package: cluster(package, read_from_replicas=True),
        "redis+cluster://c1:7000,c2:7001",
        fields(topology="cluster"),
    ),
}


@WORLDS
@pytest.mark.filterwarnings("ignore:.*read_from_replicas:DeprecationWarning")
@pytest.mark.parametrize("case", CLIENTS)
def test_address_account_and_tls_are_taken(package: ModuleType, case: str) -> None:
    make, display, expected = CLIENTS[case]

    target = read(make(package), package)

    assert target.display == display
    for name, value in expected.items():
        field, _, option = name.partition(".")
        found = getattr(target, field)
        assert (found[option] if option else found) == value, name


AWKWARD: list[dict[str, Any]] = [
    {"decode_responses": True},
    {"protocol": 3},
    {"protocol": 3, "decode_responses": True},
    {"socket_timeout": 0.1, "socket_connect_timeout": 0.1},
    {"retry": Retry(NoBackoff(), 50), "retry_on_error": [redis.ConnectionError]},
    {"client_name": "web", "health_check_interval": 1, "max_connections": 1},
    {"encoding": "utf-16", "encoding_errors": "ignore"},
]


@WORLDS
@pytest.mark.parametrize("settings", AWKWARD, ids=lambda settings: "+".join(settings))
@pytest.mark.parametrize("kind", ["Redis", "service", "cluster"])
def test_other_settings_are_left_to_the_client(
    package: ModuleType, settings: dict[str, Any], kind: str
) -> None:
    def make(**more: Any) -> Any:
        if kind == "cluster":
            return cluster(package, **{k: v for k, v in more.items() if k != "retry_on_error"})
        return master(package, **more) if kind == "service" else package.Redis(**more)

    assert read(make(**settings), package) == read(make(), package)


@WORLDS
def test_a_client_is_the_same_after_it_was_read(package: ModuleType) -> None:
    client = package.Redis(host="h", decode_responses=True, **ACCOUNT)
    pool = client.connection_pool
    before = {name: repr(value) for name, value in vars(pool).items()}, dict(pool.connection_kwargs)

    read(client, package)

    assert client.connection_pool is pool
    after = {name: repr(value) for name, value in vars(pool).items()}, dict(pool.connection_kwargs)
    assert after == before


@WORLDS
def test_a_host_that_is_replaced_for_maintenance_is_not_taken_for_the_address(
    package: ModuleType,
) -> None:
    client = package.Redis(host="h")
    client.connection_pool.connection_kwargs |= {"host": "10.0.0.9", "orig_host_address": "h"}

    assert read(client, package).addresses == (("h", 6379),)


@WORLDS
def test_no_secret_of_a_client_is_shown(package: ModuleType) -> None:
    client = package.Redis(host="h", ssl=True, ssl_check_hostname=True, **ACCOUNT)
    client.connection_pool.connection_kwargs["ssl_password"] = PASSWORD
    target = read(client, package)
    taker: Any = LeanMQ if package is redis else AsyncLeanMQ
    mq = taker(client=client)

    shown = repr(target) + target.display + repr(mq) + repr(mq.queue("q")) + repr(mq._backend)

    assert PASSWORD not in shown
    assert repr(mq) == f"<{taker.__name__} rediss://ann:***@h:6379/0>"


@WORLDS
def test_connections_to_sentinels_have_the_account_and_the_tls_of_sentinels(
    package: ModuleType,
) -> None:
    made: list[tuple[str, dict[str, Any]]] = []
    kinds = [
        lambda kind=kind, **settings: made.append((kind, settings))
        for kind in ("tcp", "tls", "unix")
    ]
    client = master(package, {"credential_provider": PROVIDER}, ssl=True, **ACCOUNT)
    lines = Lines(read(client, package), (kinds[0], kinds[1], kinds[2]))

    lines.make((("h", 1), 3.0, (0, None)), sentinel=True)
    lines.make((("h", 1), 3.0, (0, None)), sentinel=False)

    (kind, to_sentinel), (other_kind, to_data) = made
    assert (kind, other_kind) == ("tcp", "tls")
    assert to_sentinel["username"] is to_sentinel["password"] is None
    assert to_sentinel["credential_provider"].get_credentials() == ("ann", PASSWORD)
    assert {name: to_data[name] for name in ACCOUNT} == ACCOUNT
    assert "credential_provider" not in to_data


# --- fakes

FAKES = [fakeredis.FakeRedis, fakeredis.FakeStrictRedis, fakeredis.FakeAsyncRedis]


def read_fake(client: Any) -> Target:
    return read_client(client, asynchronous=isinstance(client, redis.asyncio.Redis))


@pytest.mark.parametrize("kind", FAKES)
def test_a_fake_client_leads_to_its_own_server(kind: Any) -> None:
    server = fakeredis.FakeServer()

    target = read_fake(kind(server=server, db=2, decode_responses=True, protocol=3))

    assert (target.topology, target.display, target.db) == ("memory", "memory://", 2)
    assert target.fake_server is server


@pytest.mark.parametrize("kind", FAKES)
def test_a_fake_client_without_a_server_leads_where_its_address_does(kind: Any) -> None:
    one, same, other = kind(host="h"), kind(host="h"), kind()

    assert read_fake(one).fake_server is read_fake(same).fake_server
    assert read_fake(one).fake_server is not read_fake(other).fake_server
    assert read_fake(other).fake_server is read_fake(other).fake_server


@pytest.mark.parametrize("kind", [fakeredis.FakeRedis, fakeredis.FakeAsyncRedis])
def test_a_fake_client_by_url_is_one_too(kind: Any) -> None:
    assert read_fake(kind.from_url("redis://h/5")).db == 5
    assert read_fake(kind.from_url("redis://h/5")).topology == "memory"


def test_prefix_and_timeout_go_with_a_client() -> None:
    with LeanMQ(client=redis.Redis(host="h"), prefix="mine:", connection_timeout=7) as mq:
        backend: Any = mq._backend

    assert backend.prefix == "mine:"
    assert backend.connection._wire._timeout == 7
