"""Watching many queues of a cluster, whose wake-ups come by connections that break."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from leanmq import ClosedError, ConnectionError
from leanmq.backends import listeners, pipelines, subscriptions
from leanmq.backends.many import Watch
from leanmq.backends.protocol import NewMessage, QueueRef, SendBatch
from leanmq.backends.streams.keys import queue_keys
from leanmq.backends.streams.scripts import script
from tests.contract.harness import Harness, eventually
from tests.contract.seam import REFS, Seam
from tests.support.cluster import ClusterTopology

pytestmark = pytest.mark.on("cluster")

ROOT = Path(__file__).parents[2]

WITHIN = 2.5
"""Seconds in which a message is found after trouble."""

Open = Callable[..., Seam]


@pytest.fixture
async def opened(harness: Harness) -> AsyncIterator[Open]:
    """Opens backends, and closes them after the test."""
    seams: list[Seam] = []

    def make(**options: Any) -> Seam:
        seams.append(Seam(harness, **options))
        return seams[-1]

    yield make
    for seam in seams:
        await seam.close()


@pytest.fixture
async def seam(opened: Open) -> Seam:
    return await opened().declared()


def key_of(harness: Harness, ref: QueueRef) -> str:
    return queue_keys(harness.prefix, ref.name, ref.name).of(ref).stream


async def listening(harness: Harness) -> int:
    """How many connections to the servers are subscribed to something."""
    lines = await asyncio.to_thread(
        lambda: [
            harness.servers.ask(node, "CLIENT", "LIST", "TYPE", "pubsub")
            for node in harness.servers.nodes
        ]
    )
    return sum(len(text.splitlines()) for text in lines)


async def stored(seam: Seam, ref: QueueRef) -> None:
    """Send a message, again while it is surely not stored."""

    async def sent() -> bool:
        with suppress(ConnectionError):
            answer = await seam.send(SendBatch(ref, [NewMessage(b"1")]))
            return not isinstance(answer.results[0], ConnectionError)
        return False

    await eventually(sent, within=20)


async def test_every_client_that_watches_a_queue_is_woken(opened: Open, seam: Seam) -> None:
    other = opened()
    watching = [
        asyncio.ensure_future(one.until_awake(await one.watched())) for one in (seam, other)
    ]

    await seam.send_one(REFS[2])

    async with asyncio.timeout(WITHIN):
        assert await asyncio.gather(*watching) == [[REFS[2]], [REFS[2]]]


async def test_hundreds_of_queues_and_many_watches_share_a_connection_a_node(
    harness: Harness, opened: Open
) -> None:
    before = await listening(harness)
    refs = [QueueRef(f"many#{n}") for n in range(200)]
    seam = await opened().declared(refs)
    marks = await seam.watched(refs)
    watching = [asyncio.ensure_future(seam.until_awake(marks)) for _ in range(8)]
    assert 1 <= await listening(harness) - before <= 3

    await seam.send_one(refs[150])

    async with asyncio.timeout(WITHIN):
        assert await asyncio.gather(*watching) == [[refs[150]]] * 8


async def test_a_message_is_found_though_the_connections_broke_while_it_was_waited_for(
    harness: Harness, seam: Seam
) -> None:
    marks = await seam.watched()
    finding = asyncio.ensure_future(seam.found(marks))
    await asyncio.sleep(0)

    assert await asyncio.to_thread(harness.servers.kill_connections) > 0
    await stored(seam, REFS[1])

    async with asyncio.timeout(WITHIN):
        assert await finding == REFS[1]


async def test_after_a_connection_broke_every_queue_is_looked_at_and_then_watched_again(
    harness: Harness, seam: Seam
) -> None:
    marks = await seam.watched()
    watching = asyncio.ensure_future(seam.until_awake(marks))
    await asyncio.to_thread(harness.servers.kill_connections)
    async with asyncio.timeout(WITHIN):
        assert await watching

    async def again() -> bool:
        try:
            marks[:] = await seam.watched()
        except AttributeError:  # an error in the place of a mark: a connection that was killed
            return False
        return True

    await eventually(again, within=10)
    watching = asyncio.ensure_future(seam.until_awake(marks))
    await seam.send_one(REFS[4])
    async with asyncio.timeout(WITHIN):
        assert await watching == [REFS[4]]


async def test_a_message_is_found_after_its_slot_has_moved(harness: Harness, seam: Seam) -> None:
    key = key_of(harness, REFS[0])
    source = harness.servers.primary_for(key)
    finding = asyncio.ensure_future(seam.found(await seam.watched()))

    await asyncio.to_thread(harness.servers.move_slot, key)
    await stored(seam, REFS[0])

    async with asyncio.timeout(WITHIN):
        assert await finding == REFS[0]
    await asyncio.to_thread(harness.servers.move_slot, key, source)


async def test_a_message_is_found_that_is_sent_while_its_slot_moves(
    harness: Harness, opened: Open, seam: Seam
) -> None:
    key, sender = key_of(harness, REFS[0]), opened()
    source = harness.servers.primary_for(key)
    finding = asyncio.ensure_future(seam.found(await seam.watched()))
    midway = threading.Event()

    moving = asyncio.ensure_future(
        asyncio.to_thread(harness.servers.move_slot, key, midway=midway.set)
    )
    await eventually(_is_set(midway), within=10)
    await stored(sender, REFS[0])

    async with asyncio.timeout(WITHIN):
        assert await finding == REFS[0]
    await moving
    await asyncio.to_thread(harness.servers.move_slot, key, source)


@pytest.mark.on("cluster", worlds=("sync",))  # the other would stand still with the sender
async def test_a_message_is_found_whose_sender_was_sent_on_just_before_its_slot_moved(
    harness: Harness, opened: Open, seam: Seam, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, sender = key_of(harness, REFS[0]), opened()
    source = harness.servers.primary_for(key)
    assert isinstance(harness.servers, ClusterTopology)
    for server in harness.servers.primaries():  # else it is sent anew, by what it knows then
        harness.servers.ask(server, "SCRIPT", "LOAD", script("send").text)
    emptied, sent_on, settled = threading.Event(), threading.Event(), threading.Event()

    def slow_hops(*arguments: Any) -> Any:
        found = pipelines.hops(*arguments)
        if "ASK" in {code for _, code in found} and not sent_on.is_set():
            sent_on.set()
            assert settled.wait(20)
        return found

    def wait() -> None:
        emptied.set()
        assert sent_on.wait(20)

    monkeypatch.setattr("leanmq.backends.cluster.hops", slow_hops)
    moving = asyncio.ensure_future(asyncio.to_thread(harness.servers.move_slot, key, emptied=wait))
    await eventually(_is_set(emptied), within=10)
    sending = asyncio.ensure_future(stored(sender, REFS[0]))
    await moving
    marks = await seam.watched(REFS[:1])  # it has looked, and listens where the slot is now
    settled.set()
    await sending

    async with asyncio.timeout(WITHIN):
        assert await seam.until_awake(marks) == [REFS[0]]
    await asyncio.to_thread(harness.servers.move_slot, key, source)


@pytest.mark.parametrize("trouble", ["failover", "kill_primary", "freeze_primary"])
async def test_a_message_is_found_after_another_server_took_over(
    harness: Harness, opened: Open, seam: Seam, trouble: str
) -> None:
    key, sender, servers = key_of(harness, REFS[3]), opened(), harness.servers
    finding = asyncio.ensure_future(seam.found(await seam.watched()))

    old = await asyncio.to_thread(getattr(servers, trouble), key)
    await asyncio.to_thread(servers.wait_for_new_primary, key, old)
    await stored(sender, REFS[3])

    # A server that says nothing is asked whether it is there, and given up.
    patience = 2 * subscriptions.QUIET if trouble == "freeze_primary" else 0
    async with asyncio.timeout(WITHIN + patience):
        assert await finding == REFS[3]


async def test_closing_ends_a_watch_and_leaves_nobody_who_listens(
    harness: Harness, seam: Seam, opened: Open
) -> None:
    before = await listening(harness)
    other = await opened().declared([QueueRef("other#1")])
    marks = await other.watched([QueueRef("other#1")])
    watching = asyncio.ensure_future(other.watch(Watch(marks, 1.0)))
    await asyncio.sleep(0)
    watch = harness.stopwatch()

    await other.close()

    await asyncio.gather(watching, return_exceptions=True)
    assert watch.own() < 0.9
    with pytest.raises(ClosedError, match="is closed; open another"):
        await other.watch(Watch(marks, 1.0))
    assert not [thread for thread in threading.enumerate() if thread.name == "leanmq-listener"]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "leanmq-listener"]

    async def nobody() -> bool:
        return await listening(harness) == before

    await eventually(nobody, within=5)


async def test_nobody_listens_any_more_when_nobody_has_watched_for_a_while(
    harness: Harness, seam: Seam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "QUIET", 0.05)
    monkeypatch.setattr(subscriptions, "IDLE", 0.5)
    before = await listening(harness)
    await seam.watched()

    async def nobody() -> bool:
        return await listening(harness) <= before

    await eventually(nobody, within=5)
    marks = await seam.watched()
    await seam.send_one(REFS[0])
    async with asyncio.timeout(WITHIN):
        assert await seam.until_awake(marks) == [REFS[0]]


async def test_where_the_channels_are_refused_each_wait_ends_in_a_look_and_the_log_tells_once(
    harness: Harness, opened: Open, seam: Seam, caplog: pytest.LogCaptureFixture
) -> None:
    password = secrets.token_hex(5)
    harness.servers.set_user("mute", f">{password}", "~*", "+@all")
    mute = opened(url=harness.url.replace("://", f"://mute:{password}@"))
    marks = await mute.marks()

    with caplog.at_level(logging.WARNING, "leanmq.connection"):
        for _ in range(3):
            watched = await mute.watch(Watch(marks, 0.3))
            assert list(watched.awake) == REFS
            marks = await mute.marks()
        await mute.send_one(REFS[2])  # which is no trouble for who sends

    records = [r for r in caplog.records if getattr(r, "leanmq_event", "") == "wakes_refused"]
    assert 1 <= len(records) <= 3, "once a node"
    assert len({r.leanmq_address for r in records}) == len(records)  # type: ignore[attr-defined]  # it has
    assert "grant" in records[0].getMessage()


async def test_a_forked_child_listens_by_itself_and_disturbs_nobody(harness: Harness) -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error::ResourceWarning",
        "-m", "tests.contract.watching_process", harness.world, harness.url, harness.prefix,
        stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe, cwd=ROOT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            told, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert errors.decode() == ""
    assert told.decode().split() == ["child", "child", "parent", "done"]


def _is_set(event: threading.Event) -> Callable[[], Any]:
    async def is_set() -> bool:
        return event.is_set()

    return is_set
