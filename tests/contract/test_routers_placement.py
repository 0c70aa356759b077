"""Where the shards of a queue are: who decides, who is refused, and what no message may suffer."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from leanmq import PlacementError, QueueNotFoundError, QueueSettingsError
from leanmq.sharding.placement import Placement
from tests.contract.harness import Client, Harness, drain

pytestmark = pytest.mark.on("hash-memory", "hash-redis")

ROOT = Path(__file__).parents[2]
IDENTITY = "#node"
ROUNDS = 50


def on(harness: Harness, nodes: Mapping[str, str], **options: Any) -> Client:
    """A client over these nodes."""
    return harness.client(backend=harness.router_backend(nodes, **options))


def others(harness: Harness) -> dict[str, tuple[dict[str, str], str]]:
    """Nodes other than ``a`` and ``b``, and what they are told to be."""
    first, second, third = harness.urls
    return {
        "swapped": ({"a": second, "b": first}, "swapped: a with b"),
        "missing": ({"a": first}, "missing: b"),
        "additional": ({"a": first, "b": second, "c": third}, "extra: c|without an id: c"),
        "renamed": ({"a": first, "x": second}, "renamed: b to x"),
        "other": ({"a": first, "b": third}, "without an id: b"),
    }


OTHERS = ("swapped", "missing", "additional", "renamed", "other")


@pytest.mark.parametrize("kind", OTHERS)
async def test_other_nodes_are_refused_at_every_call_and_strand_nothing(
    harness: Harness, kind: str
) -> None:
    first, second, _ = harness.urls
    queue = on(harness, {"a": first, "b": second}).queue("orders")
    await queue.send_messages(range(20), key=str)
    [identity, *_] = await harness.recorded(IDENTITY)
    nodes, difference = others(harness)[kind]
    stranger = on(harness, nodes).queue("orders")

    for call in (
        lambda: stranger.send_message(20, key="k"),
        lambda: stranger.send_messages(range(20, 40)),
        lambda: stranger.get_messages(100),
        stranger.get_info,
        stranger.delete,
    ):
        with pytest.raises(PlacementError) as caught:
            await call()
        lines = str(caught.value).splitlines()
        assert any(part in lines[1] for part in difference.split("|")), lines
        assert identity is not None
        assert lines[2].startswith("stored: a=" + identity[:8])
        assert lines[3].startswith("found:")
        assert ("nodes a, b" if kind != "other" else "leanmq shards readmit orders b") in lines[4]

    assert (await queue.get_info()).message_count == 20
    assert sorted(m.data for m in await drain(queue, 20)) == list(range(20))


@pytest.mark.on("hash-redis", worlds=("sync",))  # one process is like another in both worlds
async def test_a_process_with_swapped_nodes_is_refused(harness: Harness) -> None:
    first, second, _ = harness.urls
    queue = on(harness, {"a": first, "b": second}).queue("orders")
    await queue.send_message(1, key="k")
    code = (
        "import sys; from leanmq import ConsistentHashRouter, LeanMQ, PlacementError\n"
        "nodes = {'a': sys.argv[1], 'b': sys.argv[2]}\n"
        "router = ConsistentHashRouter(nodes, shards=4, prefix=sys.argv[3])\n"
        "with LeanMQ(backend=router) as mq:\n"
        "    try: mq.queue('orders').send_message(2, key='k')\n"
        "    except PlacementError as error: print(error)"
    )
    for nodes, expected in (((second, first), b"swapped: a with b"), ((first, second), b"")):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, *nodes, harness.prefix),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        told, _ = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
        assert expected in told
        assert bool(told) == bool(expected)

    assert sorted(m.data for m in await drain(queue, 2)) == [1, 2]


async def test_a_key_is_in_the_shard_that_every_program_computes(harness: Harness) -> None:
    """Those of the published vectors: ``hash()`` differs in every process."""
    vectors = json.loads((ROOT / "docs" / "shard-vectors.json").read_text("utf-8"))["vectors"]
    shards = {one["key"]: one["shards"]["4"] for one in vectors if one["key"]}
    queue = harness.client().queue("orders")

    for key, shard in list(shards.items())[:20]:
        sent = await queue.send_message(key, key=key)
        assert sent.startswith(f"{shard}#")


# --- at the same moment


async def test_two_who_make_a_queue_at_the_same_moment_agree(harness: Harness) -> None:
    clients = [harness.client() for _ in range(2)]
    for n in range(ROUNDS):
        queues = [client.queue(f"orders{n}") for client in clients]
        await asyncio.gather(*(queue.send_message(n, key=f"k{n}") for queue in queues))
        placements = await harness.recorded(f"orders{n}")
        assert None not in placements
        assert len(set(placements)) == 1
        assert len(await drain(queues[0], 2)) == 2


async def test_of_two_with_other_nodes_one_wins_and_the_other_leaves_nothing(
    harness: Harness,
) -> None:
    urls = harness.urls
    three = {"a": urls[0], "b": urls[1], "c": urls[2]}
    rivals = [{"a": urls[0], "b": urls[1]}, {"b": urls[1], "c": urls[2]}, {"x": urls[2]}]
    over = [(on(harness, three), on(harness, rival)) for rival in rivals]
    won: Counter[int] = Counter()
    for n in range(ROUNDS):
        name = f"orders{n}"
        pair = over[n % len(over)]
        queues = [client.queue(name) for client in pair]
        results = await asyncio.gather(
            *(queue.send_message(n) for queue in queues), return_exceptions=True
        )
        [winner] = [place for place, result in enumerate(results) if isinstance(result, str)]
        won[winner] += 1
        assert isinstance(results[1 - winner], PlacementError)
        nodes = [three, rivals[n % len(over)]][winner]
        texts = await harness.recorded(name)
        [text] = {text for text in texts if text is not None}
        placement = Placement.decode(text)
        assert placement.nodes.keys() == nodes.keys()
        assert [text is not None for text in texts] == [url in nodes.values() for url in urls]
        assert len(await drain(queues[winner], 1)) == 1
        assert await queues[winner].delete(delete_dlq=True)
        assert await harness.recorded(name) == [None] * 3
    assert sum(won.values()) == ROUNDS


async def test_of_two_with_other_weights_the_first_decides_for_both(harness: Harness) -> None:
    pair = [harness.client(), on(harness, harness.nodes, weights={"node0": 5})]
    for n in range(ROUNDS // 5):
        queues = [client.queue(f"orders{n}") for client in pair]
        await asyncio.gather(*(queue.send_message(n, key=f"k{n}") for queue in queues))
        assert len(set(await harness.recorded(f"orders{n}"))) == 1
        assert len(await drain(queues[n % 2], 2)) == 2


# --- the ids of nodes


async def test_ids_of_nodes_outlive_clients_and_queues(harness: Harness) -> None:
    client = harness.client()
    await client.queue("orders").send_message(1)
    ids = await harness.recorded(IDENTITY)
    assert len(set(ids)) == 3
    assert await client.delete_queue("orders")
    other = harness.client()
    await other.queue("invoices").send_message(1)
    await client.close()

    assert await harness.recorded(IDENTITY) == ids


async def test_who_only_looks_writes_nothing(harness: Harness) -> None:
    client = harness.client()
    await client.open()
    assert await client.get_queue("orders") is None
    assert await client.list_queues() == []

    assert await harness.recorded(IDENTITY) == [None] * 3


async def test_one_deployment_named_twice_is_refused(harness: Harness) -> None:
    first, second, _ = harness.urls
    twice = on(harness, {"a": first, "b": second, "c": first})

    for _ in range(2):
        with pytest.raises(PlacementError, match=r"'[ac]' and '[ac]' are the same deployment"):
            await twice.queue("orders").send_message(1)
    assert await harness.recorded("orders") == [None] * 3


# --- a node that was emptied


async def test_who_knows_a_node_that_was_emptied_makes_its_shards_anew(harness: Harness) -> None:
    queue = harness.client().queue("orders")
    await queue.send_messages(range(40), key=str)
    ids, placements = await harness.recorded(IDENTITY), await harness.recorded("orders")
    await harness.empty(1)

    await queue.send_messages(range(40, 80), key=str)

    assert await harness.recorded(IDENTITY) == ids
    assert await harness.recorded("orders") == placements
    found = [m.data for m in await drain(queue, (await queue.get_info()).message_count)]
    assert set(found) >= set(range(40, 80))
    assert len(found) == len(set(found)) < 80


async def test_who_does_not_know_a_node_that_was_emptied_is_refused_and_harms_nobody(
    harness: Harness,
) -> None:
    queue = harness.client().queue("orders")
    await queue.send_messages(range(40), key=str)
    await harness.empty(1)
    fresh = harness.client().queue("orders")

    with pytest.raises(PlacementError, match="without an id: node1"):
        await fresh.send_message(40, key="k")

    await queue.send_messages(range(40, 80), key=str)  # it knows, and mends
    await fresh.send_message(80, key="k")
    found = [m.data for m in await drain(queue, (await queue.get_info()).message_count)]
    assert set(found) >= set(range(40, 81))


async def readmitted(
    harness: Harness, nodes: Mapping[str, str], node: str, queue: str = "orders"
) -> bool:
    """Whether a router over these nodes had to take one of them in."""
    router = harness.router_backend(nodes)
    try:
        done: bool = await harness.call(router.readmit, queue, node)
    finally:
        await harness.call(router.close)
    return done


async def test_a_node_that_nobody_knows_any_more_is_taken_in_when_somebody_says_so(
    harness: Harness,
) -> None:
    await harness.client().queue("orders").send_messages(range(40), key=str)
    ids, placements = await harness.recorded(IDENTITY), await harness.recorded("orders")
    await harness.empty(1)
    fresh = harness.client().queue("orders")

    assert await readmitted(harness, harness.nodes, "node1") is True
    assert await readmitted(harness, harness.nodes, "node1") is False

    assert await harness.recorded(IDENTITY) == ids
    assert await harness.recorded("orders") == placements
    await fresh.send_messages(range(40, 80), key=str)
    found = [m.data for m in await drain(fresh, (await fresh.get_info()).message_count)]
    assert set(range(40, 80)) <= set(found) <= set(range(80))


async def test_who_is_not_empty_or_not_alone_in_being_another_is_not_taken_in(
    harness: Harness,
) -> None:
    first, second, third = harness.urls
    await on(harness, {"a": first, "b": second}).queue("orders").send_messages(range(20), key=str)
    before = [await harness.recorded(name) for name in (IDENTITY, "orders")]

    for nodes, node, told in (
        ({"a": third, "b": first}, "a", "renamed: a to b"),
        ({"a": second, "b": third}, "a", "renamed: b to a"),
        ({"a": first, "b": second, "c": third}, "c", "extra: c"),
    ):
        with pytest.raises(PlacementError, match=told):
            await readmitted(harness, nodes, node)
    with pytest.raises(ValueError, match="no node 'x'; there are a, b"):
        await readmitted(harness, {"a": first, "b": second}, "x")
    with pytest.raises(QueueNotFoundError, match="'parcels'"):
        await readmitted(harness, {"a": first, "b": second}, "a", "parcels")

    assert [await harness.recorded(name) for name in (IDENTITY, "orders")] == before


# --- deleted, and made anew


async def test_a_deleted_queue_may_be_placed_anew_on_other_nodes(harness: Harness) -> None:
    first, second, third = harness.urls
    before = on(harness, {"a": first, "b": second})
    await before.queue("orders").send_messages(range(10), key=str)
    assert await before.delete_queue("orders")
    assert await harness.recorded("orders") == [None] * 3
    after = on(harness, {"b": second, "c": third}).queue("orders")

    await after.send_messages(range(10), key=str)

    assert [text is not None for text in await harness.recorded("orders")] == [False, True, True]
    # Who knew the old place notices by itself: what is where it was goes on, the rest is refused.
    sent, refused = [], 0
    for n in range(10, 20):
        try:
            await before.queue("orders").send_message(n, key=str(n))
            sent.append(n)
        except PlacementError:
            refused += 1
    assert refused
    found = await drain(after, 10 + len(sent))
    assert sorted(m.data for m in found) == sorted([*range(10), *sent])
    assert (await after.get_info()).message_count == 0


async def test_who_knew_a_queue_follows_when_it_was_placed_anew_on_the_same_nodes(
    harness: Harness,
) -> None:
    queue = harness.client().queue("orders")
    await queue.send_messages(range(10), key=str)
    weighted = on(harness, harness.nodes, weights={"node2": 100})
    assert await weighted.delete_queue("orders")
    await weighted.queue("orders").send_message(-1)

    await queue.send_messages(range(20), key=str)

    found = await drain(weighted.queue("orders"), 21)
    assert sorted(m.data for m in found) == [-1, *range(20)]


async def test_a_plain_queue_of_the_same_name_is_refused_and_the_other_way_round(
    harness: Harness,
) -> None:
    plain = harness.client(url=harness.urls[2], prefix=harness.prefix, backend=None)
    await plain.queue("plain").send_message(1)
    router = harness.client()
    await router.queue("sharded").send_message(2)

    with pytest.raises(QueueSettingsError, match="'plain' exists on node 'node2' without shards"):
        await router.queue("plain").send_message(3)
    with pytest.raises(QueueSettingsError, match="queue 'sharded' is sharded"):
        await plain.queue("sharded").send_message(4)

    assert await harness.recorded("plain") == [None, None, '{"tag":"plain","kind":"queue"}']
    assert [m.data for m in await drain(plain.queue("plain"), 1)] == [1]
    assert [m.data for m in await drain(router.queue("sharded"), 1)] == [2]
