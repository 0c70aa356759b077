"""Passwords and payloads stay out of reprs, errors and logs, whatever goes wrong.

Looked at are the text and the repr of an error, of its causes and contexts, its traceback as it
is printed, its pickle, and what all loggers say at DEBUG.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from leanmq import AccessError, AsyncQueue, LeanMQError, Outgoing
from leanmq.backends.registry import Options, open_async_backend, open_backend
from leanmq.backends.streams.keys import queue_keys
from leanmq.backends.streams.scripts import script
from leanmq.backends.urls import parse_url
from tests.contract.harness import SERVERS, Client, Harness, eventually
from tests.contract.test_server_states import url_with
from tests.support import states

PASSWORD = "hunter2" + "p@ss"
ENCODED = "hunter2" + "p%40ss"
MARK = "4111" + "1111"
"""Part of a payload. None of these stands as one word in a line that a traceback could quote."""

IMPATIENT = {"connection_timeout": 0.8, "deadline": 0.8}


def sight(error: BaseException) -> Iterator[str]:
    """All that people and their tools get to see of an error."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield from (str(link), repr(link), repr(link.args), repr(vars(link)))
        if isinstance(link, LeanMQError):
            yield repr(pickle.dumps(link))
        waiting += [link.__cause__, link.__context__]
    yield "".join(traceback.format_exception(error))


def assert_hidden(secrets: Iterable[str], texts: Iterable[str], log: Any = None) -> None:
    """No text, and no record of the log, has a secret in it."""
    told = [*texts]
    for record in log.records if log else ():
        told += [record.getMessage(), repr(vars(record)), log.handler.format(record)]
    found = [text for text in told for secret in secrets if secret in text]
    assert found == []


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that is logged, by anybody, at any level."""
    caplog.set_level(logging.DEBUG)
    return caplog


# --- passwords

NOBODY = "127.0.0.1:1"  # nothing listens there
ACCOUNTS = [f":{ENCODED}@", f"ann:{ENCODED}@", f"ann:{PASSWORD}@"]
URLS = [
    *(f"redis://{account}{NOBODY}/0" for account in ACCOUNTS),
    *(f"rediss://{account}{NOBODY}/0?ssl_cert_reqs=none" for account in ACCOUNTS),
    *(f"unix://{account}/nowhere/redis.sock?db=1" for account in ACCOUNTS),
    *(f"redis+sentinel://{account}{NOBODY}/orders" for account in ACCOUNTS),
    *(
        f"{scheme}+sentinel://{account}{NOBODY}/orders/0?sentinel_username=bob"
        f"&sentinel_password={ENCODED}"
        for scheme in ("redis", "rediss")
        for account in ("", *ACCOUNTS)
    ),
    *(f"redis+cluster://{account}{NOBODY},127.0.0.1:2" for account in ACCOUNTS),
    *(f"rediss+cluster://{account}{NOBODY}" for account in ACCOUNTS),
    *(f"valkey://{account}{NOBODY}" for account in ACCOUNTS),
    f"sentinel://:{ENCODED}@{NOBODY};sentinel://:{ENCODED}@127.0.0.1:2?master_name=orders",
    f"redis-sentinel://{ENCODED}@{NOBODY}/0?sentinelMasterId=orders",
    f"redis-socket://{ENCODED}@/nowhere/redis.sock",
    f"redis://:{ENCODED}@{NOBODY}?cluster=true",
]
BROKEN = [
    f"redis://ann:{ENCODED}",  # the host forgotten, the password is where the port should be
    f"redis://{ENCODED}",
    f"redis://ann:{ENCODED}@",
    f"redis://ann:{ENCODED}@:6379",
    f"redis://ann:{ENCODED}@127.0.0.1:99999",
    f"redis://ann:{ENCODED}@127.0.0.1/zero",
    f"redis://ann:{ENCODED}@127.0.0.1,127.0.0.2",
    f"redis://ann:{ENCODED}/x@127.0.0.1",
    f"redis://ann:{ENCODED}?x@127.0.0.1",
    f"redis://127.0.0.1?password={ENCODED}",
    f"redis://127.0.0.1/0?db=1&password={ENCODED}",
    f"redis://127.0.0.1?sentinel_password={ENCODED}",
    f"redis+sentinel://ann:{ENCODED}@127.0.0.1",
    f"redis+cluster://ann:{ENCODED}@127.0.0.1/3",
    f"rediss://ann:{ENCODED}@127.0.0.1?ssl_cert_reqs=maybe",
    f"unix://ann:{ENCODED}@",
    f"unix://ann:{ENCODED}@host/redis.sock",
    f"memory://ann:{ENCODED}@name",
    f"sentinel://:{ENCODED}@127.0.0.1",
    f"sentinel://:{ENCODED}@127.0.0.1;sentinel://:x@127.0.0.2?master_name=orders",
    f"redis-sentinel://{ENCODED}/x@127.0.0.1?sentinelMasterId=orders",
    f"redis://127.0.0.1?cluster={ENCODED}",
    f"ann:{ENCODED}://127.0.0.1",
    f"rabbit://ann:{ENCODED}@127.0.0.1",
    f"//ann:{ENCODED}@127.0.0.1",
    f"ann:{ENCODED}@127.0.0.1",
]
SECRETS = ["hunter2", "p@ss", "p%40ss"]


@pytest.mark.on("memory")  # none of the servers is there
@pytest.mark.filterwarnings("ignore:.*ssl_cert_reqs=none leaves certificates:UserWarning")
async def test_a_password_is_in_no_repr_and_no_error_of_a_server_that_is_not_there(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    for url in URLS:
        options = Options()
        backends: list[Any] = [
            open_backend(url, None, options),
            open_async_backend(url, None, options),
        ]
        client = harness.client(url=url, **IMPATIENT)
        queue = client.queue("orders")
        texts = [repr(backend) for backend in backends]
        texts += [repr(vars(backend.connection)) for backend in backends]
        texts += [repr(parse_url(url)), repr(client), repr(queue), repr(queue.dlq)]

        with pytest.raises(LeanMQError) as unreachable:
            await queue.send_message("x")
        with pytest.raises(LeanMQError) as silent:
            await client.ping()
        await client.close()
        with pytest.raises(LeanMQError) as closed:
            client.queue("orders")

        errors = (unreachable.value, silent.value, closed.value)
        assert_hidden(SECRETS, [*texts, *(text for error in errors for text in sight(error))])
    assert_hidden(SECRETS, [], log)


@pytest.mark.on("memory")
async def test_a_password_is_in_no_error_about_the_url_that_holds_it(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    for url in BROKEN:
        with pytest.raises(ValueError) as broken:  # noqa: PT011  # the texts are the test
            harness.client(url=url)

        assert_hidden(SECRETS, sight(broken.value))
    with pytest.raises(TypeError) as both:
        harness.client(url=URLS[0], backend=object())
    assert_hidden(SECRETS, sight(both.value), log)


@pytest.mark.on(*SERVERS)
async def test_a_password_that_is_wrong_or_right_is_not_told(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    right, wrong = f"{PASSWORD}-right", f"{PASSWORD}-wrong"
    harness.servers.set_user("ann", f">{right}", "~*", "&*", "+@all", "-@connection", "+auth")
    clients = {
        password: harness.client(url=url_with(harness.url, f"ann:{password}"), **IMPATIENT)
        for password in (right, wrong)
    }

    with pytest.raises(AccessError, match="WRONGPASS") as refused:
        await clients[wrong].queue("orders").send_message("x")
    with pytest.raises(AccessError, match="WRONGPASS") as silent:
        await clients[wrong].ping()
    with pytest.raises(AccessError, match="NOPERM") as forbidden:
        await clients[right].ping()

    errors = (refused.value, silent.value, forbidden.value)
    assert_hidden(SECRETS, [text for error in errors for text in sight(error)], log)
    assert_hidden(SECRETS, [repr(client) for client in clients.values()])


@pytest.mark.on("sentinel")
async def test_a_password_for_sentinels_is_not_told(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    client = harness.client(url=f"{harness.url}?sentinel_password={ENCODED}", **IMPATIENT)

    with pytest.raises(AccessError) as refused:
        await client.queue("orders").send_message("x")

    assert_hidden(SECRETS, [*sight(refused.value), repr(client)], log)


# --- payloads


class Shy:
    """What is no JSON, and tells all in its repr."""

    def __repr__(self) -> str:
        return MARK


PAYLOAD = {"card": MARK, MARK: [MARK]}


async def failing(queue: AsyncQueue, *payloads: Any) -> list[str]:
    """The sight of the errors of sending these, one by one and together."""
    texts: list[str] = []
    for payload in payloads:
        for send in (
            lambda payload=payload: queue.send_message(payload),
            lambda payload=payload: queue.send_messages([payload] * 3),
            lambda payload=payload: queue.send_messages([PAYLOAD] * 500 + [Outgoing(payload)]),
        ):
            with pytest.raises((LeanMQError, ValueError)) as failed:
                await send()
            texts += sight(failed.value)
    return texts


async def test_a_payload_that_cannot_be_sent_is_not_told(
    queue: AsyncQueue, log: pytest.LogCaptureFixture
) -> None:
    bad = [
        Shy(),
        {"card": MARK, "x": Shy()},
        {MARK: float("nan")},
        [MARK, {"x": f"{MARK}\ud800"}],
        {f"{MARK}\ud800": 1},
        {(MARK, 1): 2},
        int(MARK) * 10**5_000,
        ValueError(MARK),
    ]

    assert_hidden([MARK], await failing(queue, *bad), log)


async def test_a_body_that_nobody_can_decode_is_not_told(
    queue: AsyncQueue, harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    await queue.declare()
    for body in (f'{{"card": "{MARK}"', MARK + "\xff", f"[{MARK}, nul]"):
        await harness.inject("orders", body.encode("latin-1"))
    await queue.get_messages()

    letters = await queue.dlq.get_messages()

    assert len(letters) == 3
    assert_hidden([MARK], [str(letter.error) for letter in letters], log)


@pytest.mark.on(*SERVERS)
async def test_a_payload_that_a_server_refuses_is_not_told(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    servers = harness.servers
    key = queue_keys(harness.prefix, "orders", "orders").live.stream
    account = "ann", ">secret", "~*", "&*", "+@all"
    servers.set_user(*account)
    url = url_with(harness.url, "ann:secret")
    queue = harness.client(url=url, **IMPATIENT).queue("orders")
    await queue.declare()
    texts: list[str] = []

    with states.out_of_memory(servers):
        texts += await failing(queue, PAYLOAD)
    with states.lonely(servers, key):
        texts += await failing(queue, PAYLOAD)
    for missing in ("-evalsha", "-xadd", "resetkeys"):
        servers.set_user(*account, missing)
        texts += await failing(queue, PAYLOAD)
    servers.set_user(*account)
    servers.ask(servers.primary_for(key), "SET", key, "what a queue is not")
    texts += await failing(queue, PAYLOAD)

    assert_hidden([MARK], texts, log)


@pytest.mark.on(*SERVERS)
async def test_a_payload_on_a_connection_that_breaks_is_not_told(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    key = queue_keys(harness.prefix, "orders", "orders").live.stream
    queue = harness.client(connection_timeout=1.0, deadline=1.0).queue("orders")
    await queue.send_message("scripts are loaded")
    call = script("send").sha.encode()
    breaks: list[Callable[[], Any]] = [
        lambda: harness.servers.drop_next_reply(key, call),
        lambda: harness.servers.cut_next_request(key, call),
    ]
    texts: list[str] = []

    for arm in breaks:
        for send in (queue.send_message, lambda payload: queue.send_messages([payload, payload])):
            trap = arm()
            with pytest.raises(LeanMQError) as lost:
                await send(PAYLOAD)
            assert trap.wait(5)
            texts += sight(lost.value)
    harness.servers.proxy_for(key).hold()
    with pytest.raises(LeanMQError) as unanswered:
        await queue.send_message(PAYLOAD)
    texts += sight(unanswered.value)
    harness.servers.proxy_for(key).resume()

    assert_hidden([MARK], texts, log)


@pytest.mark.on("redis")
async def test_a_payload_for_a_server_that_dies_is_not_told(
    harness: Harness, log: pytest.LogCaptureFixture
) -> None:
    mq: Client = harness.client(**IMPATIENT)
    queue = mq.queue("orders")
    await queue.declare()

    harness.servers.kill_primary()
    texts = await failing(queue, PAYLOAD)
    harness.servers.revive()

    async def sent() -> str:
        return await queue.send_message(PAYLOAD)

    await eventually(sent, within=10)
    [message] = await queue.get_messages()
    texts += [repr(queue), repr(mq)]
    assert message.data == PAYLOAD
    assert_hidden([MARK], texts, log)
