"""``client=``: LeanMQ goes where a client of the application goes, and leaves that as it was."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fakeredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.retry import Retry

from leanmq import AccessError, ConnectionError
from tests.contract.harness import SERVERS, Client, Harness, drain, eventually
from tests.support.fronts import CERTIFICATE, tls_front, unix_front
from tests.support.ports import HOST
from tests.support.sentinel import SERVICE

ANN = "ann", ">secret", "~*", "&*", "+@all"
ACCOUNT = {"username": "ann", "password": "secret"}


class Application:
    """An application that has clients of a subject's servers, in its world."""

    def __init__(self, harness: Harness) -> None:
        self._harness = harness
        self._clients: list[Any] = []
        self._fake_server = fakeredis.FakeServer()
        self.package: ModuleType = redis if harness.world == "sync" else redis.asyncio

    async def do(self, call: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what blocks in one world and is awaited in the other."""
        if self._harness.world == "sync":
            return await self._harness.run(call, *args, **kwargs)
        result = call(*args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    async def client(self, **settings: Any) -> Any:
        """A client of the subject's kind."""
        return await self.keep(self._make, **settings)

    async def keep(self, make: Any, *args: Any, **settings: Any) -> Any:
        """What ``make`` makes, closed after the test."""
        client = await self.do(make, *args, **settings)
        self._clients.append(client)
        return client

    def _make(self, **settings: Any) -> Any:
        package: Any = self.package
        subject = self._harness.subject
        if subject == "memory":
            sync = package is redis
            kind = fakeredis.FakeRedis if sync else fakeredis.FakeAsyncRedis
            return kind(server=self._fake_server, **settings)
        servers = self._harness.servers
        if subject == "sentinel":
            addresses = [sentinel.address for sentinel in servers.sentinels]
            return package.sentinel.Sentinel(addresses, **settings).master_for(SERVICE)
        host, port = servers.nodes[0].address
        if subject == "cluster":
            return package.RedisCluster(host=host, port=port, **settings)
        return package.Redis(host=host, port=port, **settings)

    async def answer(self, client: Any) -> Any:
        """What the client reads after it wrote; until it does, should it be an impatient one."""
        key = f"{self._harness.prefix}theirs"

        async def answered() -> Any:
            try:
                await self.do(client.set, key, "value")
                return await self.do(client.get, key)
            except redis.TimeoutError:
                return None

        return await eventually(answered, within=10, what="an answer to the application")

    async def close(self) -> None:
        for client in self._clients:
            pool = getattr(client, "connection_pool", None)
            watchers = getattr(pool, "sentinel_manager", None)
            for one in (client, *(watchers.sentinels if watchers else ())):
                await self.do(getattr(one, "aclose", one.close))
            if pool is not None:  # not closed with its client if that was given it
                await self.do(pool.disconnect)


@pytest.fixture
async def app(harness: Harness) -> AsyncIterator[Application]:
    """An application with clients of its own; closed before the servers are healed."""
    application = Application(harness)
    yield application
    await application.close()


def state(client: Any) -> Any:
    """What of a client must not change: its pools, their settings, and the connections in them."""
    manager = getattr(client, "nodes_manager", None)
    if manager is not None:
        return (
            dict(manager.connection_kwargs),
            {name: id(node) for name, node in manager.nodes_cache.items()},
            list(manager.startup_nodes),
        )
    pool = client.connection_pool
    idle = [id(connection) for connection in pool._available_connections if connection is not None]
    return id(pool), dict(pool.connection_kwargs), pool.connection_class, sorted(idle)


async def serves(mq: Client, client_of_the_same: Client | None = None) -> None:
    """Messages go through; with another client, they are where that one looks."""
    queue = mq.queue("orders")
    await queue.send_messages(range(3))
    other = queue if client_of_the_same is None else client_of_the_same.queue("orders")
    assert [message.data for message in await drain(other, 3)] == [0, 1, 2]
    # Longer than the shortest patience of the clients here: it is not ours.
    assert await queue.get_messages(timeout=0.4) == []


SETTINGS: dict[str, dict[str, Any]] = {
    "as they come": {},
    "decoding": {"decode_responses": True},
    "protocol 3": {"protocol": 3, "decode_responses": True},
    "impatient": {"socket_timeout": 0.1},
    "repeating": {"retry": Retry(NoBackoff(), 10)},
}


@pytest.mark.on("memory", *SERVERS)
@pytest.mark.parametrize("name", SETTINGS)
async def test_messages_go_where_a_client_goes_which_stays_as_it_was(
    harness: Harness, app: Application, name: str
) -> None:
    settings = SETTINGS[name]
    client = await app.client(**settings)
    answer = await app.answer(client)
    assert answer == ("value" if settings.get("decode_responses") else b"value")
    before = state(client)
    mq = harness.client(url=None, client=client)
    own = {"client": await app.client()} if harness.subject == "memory" else {"url": harness.url}

    await serves(mq, harness.client(**{"url": None} | own))
    if name != "impatient":  # which may have dropped a connection of its own accord
        assert state(client) == before
    assert await app.answer(client) == answer
    await mq.close()

    if name != "impatient":
        assert state(client) == before
    assert await app.answer(client) == answer
    assert await app.answer(await app.client(**settings)) == answer


@pytest.mark.on(*SERVERS)
async def test_the_account_of_a_client_is_the_account_of_the_queues(
    harness: Harness, app: Application
) -> None:
    harness.servers.set_user(*ANN)
    queue = harness.client(url=None, client=await app.client(**ACCOUNT)).queue("orders")
    await queue.send_message("as ann")

    harness.servers.set_user(*ANN, "-evalsha")
    with pytest.raises(AccessError, match="NOPERM"):
        await queue.send_message("as ann, who may not")


class Vault(CredentialProvider):
    """Tells an account that can change; and may be out of reach."""

    def __init__(self) -> None:
        self.account = "ann", "secret"
        self.sealed = False

    def get_credentials(self) -> tuple[str, str]:
        if self.sealed:
            raise PermissionError("the vault is sealed, said hunter2")
        return self.account

    async def get_credentials_async(self) -> tuple[str, str]:
        return self.get_credentials()


@pytest.mark.on(*SERVERS)
async def test_a_credential_provider_is_asked_for_each_connection(
    harness: Harness, app: Application
) -> None:
    vault = Vault()
    harness.servers.set_user(*ANN)
    client = await app.client(credential_provider=vault)
    queue = harness.client(url=None, client=client, deadline=0.2).queue("orders")
    await queue.send_message("with the first password")

    harness.servers.set_user("ann", "resetpass", ">another", "~*", "&*", "+@all")
    harness.servers.kill_connections()
    vault.sealed = True
    with pytest.raises(ConnectionError, match=r"credential_provider for .* failed") as refused:
        await queue.send_message("refused")
    assert "hunter2" not in str(refused.value)

    vault.sealed, vault.account = False, ("ann", "another")
    await queue.send_message("with the second")
    assert [m.data for m in await drain(queue, 2)] == [
        "with the first password",
        "with the second",
    ]


@pytest.mark.on("redis")
async def test_a_client_with_one_connection_lends_its_settings_not_that(
    harness: Harness, app: Application
) -> None:
    host, port = harness.servers.nodes[0].address
    client = await app.keep(
        app.package.Redis,
        host=host,
        port=port,
        single_connection_client=True,
        decode_responses=True,
    )
    if hasattr(client, "initialize"):  # for asyncio the connection is made by this
        await client.initialize()
    number = await app.do(client.client_id)

    await serves(harness.client(url=None, client=client), harness.client())

    assert await app.do(client.client_id) == number


@pytest.mark.on("redis")
async def test_a_client_made_from_a_url_with_options_will_do(
    harness: Harness, app: Application
) -> None:
    harness.servers.set_user(*ANN)
    host, port = harness.servers.nodes[0].address
    url = f"redis://ann:secret@{host}:{port}/0?decode_responses=True&socket_timeout=0.1&protocol=3"
    pool = app.package.BlockingConnectionPool.from_url(url, max_connections=1, timeout=1)
    client = await app.keep(app.package.Redis, connection_pool=pool)

    await serves(harness.client(url=None, client=client), harness.client())


@pytest.mark.on("redis")
async def test_the_database_of_a_client_is_that_of_the_queues(
    harness: Harness, app: Application
) -> None:
    mq = harness.client(url=None, client=await app.client(db=3))

    await mq.queue("orders").send_message(1)

    assert await harness.client().list_queues() == []
    assert [info.message_count for info in await mq.list_queues() if not info.is_dlq] == [1]


@pytest.mark.on("redis")
async def test_a_client_on_a_unix_socket_will_do(
    harness: Harness, app: Application, tmp_path: Path
) -> None:
    path = tmp_path / "redis.sock"
    async with unix_front(harness.servers.nodes[0].address[1], path):
        client = await app.keep(app.package.Redis, unix_socket_path=str(path))
        mq = harness.client(url=None, client=client)

        await serves(mq, harness.client())

        assert (await mq.open()).name == f"unix://{path}"
        await mq.close()


@pytest.mark.on("redis")
async def test_a_client_with_tls_and_a_ca_of_its_own_will_do(
    harness: Harness, app: Application
) -> None:
    async with tls_front(harness.servers.nodes[0].address[1]) as port:
        trusting = {"ssl": True, "ssl_ca_certs": str(CERTIFICATE), "ssl_check_hostname": True}
        client = await app.keep(app.package.Redis, host=HOST, port=port, **trusting)
        mq = harness.client(url=None, client=client)

        await serves(mq, harness.client())
        await mq.close()

        stranger = await app.keep(app.package.Redis, host=HOST, port=port, ssl=True)
        with pytest.raises(ConnectionError, match="TLS with server"):
            await harness.client(url=None, client=stranger, deadline=0).ping()
