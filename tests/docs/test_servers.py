"""What the pages tell people to set on their servers can be set, is enough, and is no more.

The lines are read from the pages and given to real servers: first the settings, then the user,
with whose rights alone all that the library does must work.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import leanmq
from leanmq.backends.many import Watch
from leanmq.backends.protocol import (
    Declare,
    Exchange,
    NewMessage,
    QueueRef,
    Receive,
    SendBatch,
    Settings,
)
from leanmq.backends.registry import Options, open_backend
from tests.docs.pages import ROOT
from tests.support import running
from tests.support.process import RedisProcess
from tests.support.topology import Topology
from tests.support.waiting import wait_until

KINDS: tuple[running.Kind, ...] = ("redis", "sentinel", "cluster")
STREAMS = ROOT / "leanmq" / "backends" / "streams"


def blocks(kind: str, language: str) -> list[str]:
    page = ROOT / "docs" / "backends" / f"{kind}.md"
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S)


def user_lines(kind: str) -> list[list[str]]:
    """What comes after ``ACL SETUSER leanmq``: on data nodes, and on sentinels."""
    commands = [shlex.split(block.replace("\\\n", " ")) for block in blocks(kind, "sh")]
    return [words[words.index("leanmq") + 1 :] for words in commands if "SETUSER" in words]


def add_user(topology: Topology, node: RedisProcess, rules: list[str], prefix: str) -> None:
    rules = [re.sub("^([~&])mq:", rf"\g<1>{prefix}", rule) for rule in rules]
    topology.ask(node, "ACL", "SETUSER", "leanmq", *rules)


@pytest.fixture(params=KINDS)
def topology(request: pytest.FixtureRequest) -> Iterator[Topology]:
    servers = running.get(request.param)
    servers.heal()
    yield servers
    for node in servers.processes:
        servers.ask(node, "ACL", "DELUSER", "leanmq")
    servers.heal()


def use_everything(mq: leanmq.LeanMQ) -> None:
    """All that the library does with a server, once."""
    mq.ping()
    orders = mq.queue("orders", slot="shop", lease=0.3, max_deliveries=2, max_length=1_000)
    mails = mq.queue("mails", slot="shop")
    assert orders.send_message("a", dedup_id="a") == orders.send_message("a", dedup_id="a")
    orders.send_message("expires", ttl_seconds=0.001)
    orders.send_message("later", delay=0.05)
    orders.send_messages(range(10))
    wait_until(lambda: orders.get_info().delayed_messages == 0 or _receive(orders), 10, "the due")
    held = _receive(orders)
    assert orders.extend_messages(held)
    assert orders.release_messages(held)
    assert orders.retry_messages(_receive(orders), delay=0.01)
    assert orders.acknowledge_messages(_receive(orders))
    assert orders.move_to_dlq(_receive(orders), "why")
    # The others are left until their leases have ended twice: then they are dead.
    wait_until(lambda: not _receive(orders) and not orders.get_info().message_count, 20, "the end")
    assert orders.dlq.peek_messages()
    [letter, *_] = orders.dlq.get_messages()
    assert orders.dlq.pending_messages()
    assert orders.dlq.requeue_messages(letter, mails) == 1
    [message] = mails.get_messages(timeout=5)
    with mq.transaction() as tx:
        tx.send_message(orders, "caused")
        tx.acknowledge(message)
    assert orders.delete_messages(orders.send_message("gone", delay=60)) == 1
    mq.update_queue("orders", lease=60)
    assert len(mq.list_queues()) == 4
    mq.process_expired_messages()
    assert orders.purge() == 1
    assert orders.delete(delete_dlq=True)


def watch_everything(url: str, prefix: str) -> None:
    """What routers do besides: wait for many queues."""
    refs = [QueueRef(f"orders#{shard}") for shard in range(3)]
    seam: Any = open_backend(url, None, Options(prefix=prefix))
    with closing(seam):
        seam.open()
        seam.together([Declare(ref.name, Settings()) for ref in refs])

        def awake(*, sent: bool) -> bool:
            looks = [Exchange((), (Receive(ref, "me", 0, watched=True),)) for ref in refs]
            marks = [result.mark for result in seam.together(looks)]
            if sent:
                seam.send(SendBatch(refs[0], [NewMessage(b"tea")]))
            return bool(seam.watch(Watch(list(zip(refs, marks, strict=True)), 0.2)).awake)

        wait_until(lambda: not awake(sent=False), 10, "a quiet watch")
        assert awake(sent=True)


def _receive(queue: leanmq.Queue) -> list[leanmq.Message]:
    return queue.get_messages(3, timeout=0.2)


def test_the_settings_on_a_page_are_accepted_by_its_servers(topology: Topology) -> None:
    [text] = blocks(topology.kind, "conf")
    settings = [line.split() for line in text.splitlines()]

    for name, value in settings:
        topology.config_set(name, value)

    assert ["maxmemory-policy", "noeviction"] in settings
    assert ["appendonly", "yes"] in settings
    with leanmq.LeanMQ(topology.url, prefix=f"{secrets.token_hex(5)}:") as mq:
        mq.queue("orders").send_message("tea")


def test_the_user_on_a_page_may_do_all_that_the_library_does(topology: Topology) -> None:
    prefix = f"{secrets.token_hex(5)}:"
    on_nodes, *on_sentinels = user_lines(topology.kind)
    for node in topology.nodes:
        topology.ask(node, "SCRIPT", "FLUSH")  # they must be loaded by this user
        topology.ask(node, "ACL", "LOG", "RESET")
        add_user(topology, node, on_nodes, prefix)
    url = topology.url.replace("://", "://leanmq:PASSWORD@")
    if topology.sentinels:
        for sentinel in topology.sentinels:
            topology.ask(sentinel, "ACL", "LOG", "RESET")
            add_user(topology, sentinel, on_sentinels[0], prefix)
        url += "?sentinel_username=leanmq&sentinel_password=PASSWORD"

    with leanmq.LeanMQ(url, prefix=prefix) as mq:
        use_everything(mq)
    watch_everything(url, prefix)

    refused = [
        entry
        for node in topology.processes
        for entry in topology.ask(node, "ACL", "LOG")
        if entry[entry.index("object") + 1] != "client|setinfo"  # redis-py asks, and does without
    ]
    assert refused == []


def test_the_user_on_a_page_reaches_no_other_keys(topology: Topology) -> None:
    prefix = f"{secrets.token_hex(5)}:"
    for node in topology.nodes:
        add_user(topology, node, user_lines(topology.kind)[0], prefix)
    url = topology.url.replace("://", "://leanmq:PASSWORD@")

    with leanmq.LeanMQ(url, prefix="else:") as mq, pytest.raises(leanmq.AccessError):
        mq.queue("orders").send_message("tea")


@pytest.mark.parametrize("kind", KINDS)
def test_the_user_on_a_page_has_no_right_too_many(kind: str) -> None:
    of_topology = {
        "redis": {"xread"},
        "sentinel": {"xread", "role"},
        "cluster": {"cluster|slots", "asking", "spublish", "ssubscribe", "sunsubscribe"},
    }[kind]
    called = called_commands() | of_topology | {"ping"}

    granted = {rule[1:] for rule in user_lines(kind)[0] if rule.startswith("+")}

    assert granted == called


def called_commands() -> set[str]:
    """The commands that the streams engine sends: from its scripts, and from Python."""
    text = "\n".join(path.read_text("utf-8") for path in (STREAMS / "scripts").glob("*.lua"))
    found = re.findall(r"(?:redis\.p?call|on_all)\('(\w+)'(?:, '(\w+)')?", text)
    for name in ("operations", "running", "older"):
        code = (STREAMS / f"{name}.py").read_text("utf-8")
        found += re.findall(r'\("([A-Z]+)", (?:"([A-Z]+)")?', code)
    with_parts = {"XGROUP", "XINFO", "SCRIPT"}
    return {
        f"{command}|{part}".lower() if command in with_parts else command.lower()
        for command, part in found
    }


def test_the_commands_are_found_in_scripts_and_in_python() -> None:
    found = called_commands()

    assert {"evalsha", "xreadgroup", "script|load", "xgroup|create", "xdel", "hgetall"} <= found
