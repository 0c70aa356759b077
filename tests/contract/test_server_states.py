"""Servers that answer and do not serve: what is raised, how soon, and that clients recover.

Each test ends its state before it ends: the same client must then go on by itself.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import pytest

from leanmq import (
    AccessError,
    AsyncQueue,
    BulkSendError,
    ConnectionError,
    LeanMQError,
    Message,
    QueueFullError,
    ServerStateError,
)
from leanmq.backends.streams.keys import queue_keys
from tests.contract.harness import SERVERS, Client, Harness, drain, eventually
from tests.support import states
from tests.support.topology import Topology

pytestmark = pytest.mark.on(*SERVERS)

IMPATIENT = {"connection_timeout": 0.3, "deadline": 0.3}
"""So soon a client of these tests gives up what it may try again."""

AT_ONCE = 5.0
"""Seconds that stand for no hang: the default deadline is six times as long."""


@pytest.fixture
def key(harness: Harness) -> str:
    """A key of the queue: which node is meant."""
    return queue_keys(harness.prefix, "orders", "orders").live.stream


@pytest.fixture
def queue(harness: Harness) -> AsyncQueue:
    """A queue of an impatient client."""
    return harness.client(**IMPATIENT).queue("orders")


def chain_of(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__


@asynccontextmanager
async def refused(
    kind: type[LeanMQError], code: str, *words: str, queue: str | None = "orders"
) -> AsyncIterator[None]:
    """The block raises this error, soon, and the error tells all that it should."""
    with pytest.raises(LeanMQError) as caught:
        async with asyncio.timeout(AT_ONCE):
            yield
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.queue, error.in_doubt) == (code, queue, False)
    assert error.retryable is (kind is not AccessError)
    text = str(error)
    told = " <- ".join(map(str, chain_of(error)))
    assert "127.0.0.1:" in text  # the thing
    assert code in text or code == "ERR"  # the reason
    assert all(word in told for word in words), told  # the cure
    assert error.__cause__ is not None
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, text, vars(error))


@pytest.mark.on("redis", "sentinel", "cluster")
async def test_a_server_without_memory_takes_no_messages_and_gives_those_that_it_has(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_messages(["done", "again", "dead", "held"])

    with states.out_of_memory(harness.servers):
        async with refused(QueueFullError, "OOM", "consume faster", "maxmemory"):
            await queue.send_message("too much")
        async with refused(QueueFullError, "OOM", "consume faster", "maxmemory"):
            await queue.send_messages(["too", "much"])
        async with asyncio.timeout(AT_ONCE):
            done, again, dead, held = await queue.get_messages()
            assert await queue.acknowledge_messages(done) == 1
            assert await queue.retry_messages(again) == 1
            assert await queue.move_to_dlq(dead, "why") == 1
            assert await queue.extend_messages(held) == 1
            assert await queue.release_messages(held) == 1
            [letter] = await queue.dlq.get_messages()
            assert (letter.data, letter.error) == ("dead", "why")
            assert await queue.dlq.acknowledge_messages(letter) == 1
            assert (await queue.get_info()).message_count == 2

    await queue.send_message("room again")
    assert {m.data for m in await drain(queue, 3)} == {"again", "held", "room again"}


@pytest.mark.on(*SERVERS, "hash-redis", "round-redis", "hash-cluster")
async def test_who_starts_beside_a_server_without_memory_can_consume(harness: Harness) -> None:
    await harness.client().queue("orders").send_messages(range(9))

    with states.out_of_memory(harness.servers):
        late = harness.client().queue("orders")
        async with asyncio.timeout(AT_ONCE):
            assert (await late.get_info()).ready_messages == 9
            messages = await drain(late, 9)

        assert {message.data for message in messages} == set(range(9))


@pytest.mark.on("redis", "sentinel", "cluster")
async def test_a_queue_that_cannot_be_made_says_so(mq: Client, harness: Harness) -> None:
    await mq.ping()

    with states.out_of_memory(harness.servers):
        async with refused(QueueFullError, "OOM", "consume faster", "maxmemory"):
            await mq.queue("orders").send_message("first")

    await mq.queue("orders").send_message("later")
    assert [m.data for m in await drain(mq.queue("orders"), 1)] == ["later"]


async def test_a_bulk_send_that_fills_the_server_tells_what_is_stored(
    queue: AsyncQueue, harness: Harness
) -> None:
    def items() -> Iterator[int]:
        for n in range(600):
            if n == 500:
                harness.servers.config_set("maxmemory", 1)
            yield n

    with pytest.raises(BulkSendError, match=r"after 500 messages.*OOM") as stopped:
        await queue.send_messages(items())

    error = stopped.value
    assert list(error.confirmed) == list(range(500))
    assert (error.unknown, error.unsent) == ((), tuple(range(500, 600)))
    assert type(error.__cause__) is QueueFullError
    harness.servers.restore_settings()
    await queue.send_messages(range(500, 600))
    assert [m.data for m in await drain(queue, 600)] == list(range(600))


@pytest.mark.parametrize(
    ("enter", "code", "cure"),
    [
        (states.failing_saves, "MISCONF", "the disk is full"),
        (states.lonely, "NOREPLICAS", "bring its replicas back"),
    ],
    ids=["MISCONF", "NOREPLICAS"],
)
async def test_a_server_that_must_not_write_refuses_all_until_it_may(
    queue: AsyncQueue,
    harness: Harness,
    key: str,
    enter: Callable[[Topology, str], AbstractContextManager[None]],
    code: str,
    cure: str,
) -> None:
    await queue.send_messages(["held", "waits"])
    [held] = await queue.get_messages(1)
    newcomer = harness.client(**IMPATIENT)

    with enter(harness.servers, key):
        async with refused(ServerStateError, code, cure):
            await queue.send_message("refused")
        async with refused(ServerStateError, code, cure):
            await queue.send_messages(["refused", "too"])
        async with refused(ServerStateError, code, cure):
            await queue.acknowledge_messages(held)
        async with refused(ServerStateError, code, cure):
            await queue.get_messages(timeout=0.2)
        async with asyncio.timeout(AT_ONCE):
            await newcomer.ping()  # it is there, after all
            assert (await queue.get_info()).pending_messages == 1

    assert await queue.acknowledge_messages(held) == 1
    await newcomer.queue("orders").send_message("served")
    assert {m.data for m in await drain(queue, 2)} == {"waits", "served"}


@pytest.mark.on("redis")  # the others would take it for dead if it lasted
async def test_a_server_that_a_script_keeps_busy_refuses_all_until_the_script_ends(
    queue: AsyncQueue, harness: Harness, key: str
) -> None:
    await queue.send_message("held")
    [held] = await queue.get_messages()

    with states.busy(harness.servers, key):
        async with refused(ServerStateError, "BUSY", "SCRIPT KILL"):
            await queue.send_message("refused")
        async with refused(ServerStateError, "BUSY", "SCRIPT KILL"):
            await queue.get_info()

    assert await queue.acknowledge_messages(held) == 1
    await queue.send_message("served")
    assert [m.data for m in await drain(queue, 1)] == ["served"]


@asynccontextmanager
async def waited_for(
    queue: AsyncQueue, harness: Harness, state: AbstractContextManager[None]
) -> AsyncIterator[Message[Any]]:
    """The block runs in a state, in which a patient sender begins; once it is over, all goes on.

    Yields a message that was received before.
    """
    await queue.send_message("held")
    [held] = await queue.get_messages()
    patient = harness.client(deadline=20).queue("orders")
    await patient.declare()

    with state:
        yield held
        sending = asyncio.ensure_future(patient.send_message("waited"))
        await asyncio.wait([sending], timeout=0.1)

    await asyncio.wait_for(sending, 15)
    assert await queue.acknowledge_messages(held) == 1
    assert [m.data for m in await drain(queue, 1)] == ["waited"]


@pytest.mark.on("redis")  # for the others see the failovers
async def test_a_server_that_is_a_replica_is_waited_for_until_it_is_a_primary(
    queue: AsyncQueue, harness: Harness
) -> None:
    async with waited_for(queue, harness, states.replica(harness.servers)) as held:
        async with refused(ConnectionError, "READONLY", "write to its primary"):
            await queue.send_message("refused")
        async with refused(ConnectionError, "READONLY", "write to its primary"):
            await queue.acknowledge_messages(held)


@pytest.mark.on("redis")  # the others would take it for dead if it lasted
async def test_a_server_that_loads_its_data_is_waited_for(
    queue: AsyncQueue, harness: Harness
) -> None:
    loading = states.loading(harness.servers)
    async with (
        waited_for(queue, harness, loading),
        refused(ConnectionError, "LOADING", "wait until it has loaded"),
    ):
        await queue.send_message("refused")


@pytest.mark.on("redis")  # the servers of the others would be refused, too
async def test_a_server_with_too_many_clients_serves_those_that_it_has(
    queue: AsyncQueue, harness: Harness
) -> None:
    await queue.send_message("held")
    newcomer = harness.client(connection_timeout=0.3).queue("orders")

    async def told_why() -> None:
        try:
            await newcomer.send_message("refused")
        except ConnectionError as error:
            # The server hangs up as soon as it has said why: that can get lost on the way.
            if error.code:
                raise

    with states.crowded(harness.servers):
        async with refused(ConnectionError, "ERR", "raise its maxclients", queue=None):
            await eventually(told_why, within=AT_ONCE)
        async with asyncio.timeout(AT_ONCE):
            assert await queue.acknowledge_messages(await queue.get_messages()) == 1

    await newcomer.send_message("served")
    assert [m.data for m in await drain(queue, 1)] == ["served"]


# --- rights, passwords, TLS


def url_with(url: str, account: str) -> str:
    """The URL with an account put into it."""
    return url.replace("://", f"://{account}@")


@pytest.mark.parametrize(
    "missing", ["-evalsha", "-xadd", "resetkeys"], ids=["command", "in-script", "keys"]
)
async def test_a_user_without_a_right_is_refused_at_once_until_it_is_granted(
    harness: Harness, missing: str
) -> None:
    account = "ann", ">secret", "~*", "&*", "+@all"
    harness.servers.set_user(*account)
    url = url_with(harness.url, "ann:secret")
    queue = harness.client(url=url, connection_timeout=0.3).queue("orders")
    await queue.send_message("held")
    [held] = await queue.get_messages()

    harness.servers.set_user(*account, missing)
    async with refused(AccessError, "NOPERM", "grant the user this right by ACL SETUSER"):
        await queue.send_message("refused")

    harness.servers.set_user(*account)
    assert await queue.acknowledge_messages(held) == 1
    await queue.send_message("served")
    assert [m.data for m in await drain(queue, 1)] == ["served"]


async def test_a_wrong_password_is_refused_at_once_until_it_is_right(harness: Harness) -> None:
    harness.servers.set_user("ann", ">secret", "~*", "&*", "+@all")
    url = url_with(harness.url, "ann:guessed")
    queue = harness.client(url=url, connection_timeout=0.3).queue("orders")

    async with refused(AccessError, "WRONGPASS", "check user and password", queue=None):
        await queue.send_message("refused")

    harness.servers.set_user("ann", ">guessed", "~*", "&*", "+@all")
    await queue.send_message("served")
    assert [m.data for m in await drain(queue, 1)] == ["served"]


@pytest.mark.on("redis")
async def test_a_missing_password_is_refused_at_once(harness: Harness) -> None:
    queue = harness.client(connection_timeout=0.3).queue("orders")
    harness.servers.config_set("requirepass", "secret")
    async with refused(AccessError, "NOAUTH", "into the URL", queue=None):
        await queue.send_message("refused")

    harness.servers.restore_settings()
    await queue.send_message("served")
    assert [m.data for m in await drain(queue, 1)] == ["served"]


async def test_tls_where_none_is_spoken_says_so_in_time(harness: Harness) -> None:
    url = harness.url.replace("redis", "rediss", 1)
    queue = harness.client(url=url, connection_timeout=0.1).queue("orders")

    async with refused(ConnectionError, "", "TLS", queue=None):
        await queue.send_message("refused")
