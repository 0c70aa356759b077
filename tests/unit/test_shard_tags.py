"""Tags of shards lie evenly over the slots of a cluster, whatever the queue and the cluster."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import Counter
from itertools import count, pairwise
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from leanmq.backends.streams.keys import queue_keys
from leanmq.sharding import tags
from leanmq.sharding.hashing import MAX_SHARDS, hash64
from leanmq.sharding.tags import SLOTS, check_slot, shard_tags

PUBLISHED: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "docs" / "shard-vectors.json").read_text("utf-8")
)["tags"]
NAMES = st.text("abZ09._:/-", min_size=1, max_size=40)


def slots_of(name: str, shards: int) -> list[int]:
    """Where a cluster has the keys of each shard."""
    return [
        key_slot(queue_keys("mq:", name, tag).live.stream.encode())
        for tag in shard_tags(name, shards)
    ]


def ranges(nodes: int) -> list[int]:
    """The bounds of contiguous ranges, as even as they can be, as redis-cli makes them."""
    return [round(node * SLOTS / nodes) for node in range(nodes + 1)]


def skew(slots: list[int], nodes: int) -> int:
    """By how many the node with the most shards has more than the one with the fewest."""
    ordered = sorted(slots)
    before = [bisect_left(ordered, bound) for bound in ranges(nodes)]
    counts = [more - less for less, more in pairwise(before)]
    return max(counts) - min(counts)


@settings(deadline=None)
@given(NAMES, st.integers(1, 300))
def test_any_two_of_2_to_32_nodes_differ_by_2_shards_at_most(name: str, shards: int) -> None:
    slots = slots_of(name, shards)

    assert max(skew(slots, nodes) for nodes in range(2, 33)) <= 2
    assert len(set(slots)) == shards


@pytest.mark.parametrize("shards", [1, 2, 3, 64, 500, 1_000, 2_999, MAX_SHARDS - 1, MAX_SHARDS])
def test_clusters_of_any_size_get_their_shards_evenly(shards: int) -> None:
    slots = slots_of("orders", shards)

    assert max(skew(slots, nodes) for nodes in [*range(2, 200), 500, 999, 1_000]) <= 2
    assert len(set(slots)) == len(set(shard_tags("orders", shards))) == shards


def naive(name: str, shards: int) -> list[str]:
    """The tags by the words of the documentation: one number after another."""
    found = []
    for shard in range(shards):
        start = hash64(name.encode()) + math.ceil(shard * SLOTS / shards)
        width = next(w for w in count(SLOTS // 2, -1) if shards * (1 + 2 * w) < SLOTS)
        stem = f"{name}#{shard}"
        found.append(
            next(
                tag
                for k in count(-1)
                for tag in [stem if k < 0 else f"{stem}.{k}"]
                if (key_slot(tag.encode()) - start) % SLOTS < width
            )
        )
    return found


@settings(deadline=None, max_examples=30)
@given(NAMES, st.integers(1, 48))
def test_the_number_in_a_tag_is_the_smallest_that_fits(name: str, shards: int) -> None:
    assert list(shard_tags(name, shards)) == naive(name, shards)


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda published: published["name"])
def test_published_tags_hold(published: dict[str, Any]) -> None:
    name, shards = published["name"], published["shards"]

    assert list(shard_tags(name, shards)) == published["tags"] == naive(name, shards)
    assert slots_of(name, shards) == published["slots"]


def test_there_is_a_number_for_every_slot() -> None:
    by_digits = [tags._smallest_number(digits) for digits in range(1, tags._MOST_DIGITS + 1)]

    assert all(number != tags._NONE for number in by_digits[-1])
    assert by_digits[0][key_slot(b"7")] == 7
    assert by_digits[2][key_slot(b"123")] <= 123


def test_many_queues_lie_all_over_the_slots() -> None:
    first = Counter(slots_of(f"queue-{number}", 1)[0] * 16 // SLOTS for number in range(160))
    together = {slot for number in range(20) for slot in slots_of(f"queue-{number}", 64)}

    assert len(first) == 16
    assert len(together) > 0.9 * 20 * 64


def test_the_tags_of_64_shards_take_less_than_20_ms() -> None:
    taken = []
    for number in range(5):  # the fastest of five: others may have the processor
        tags._smallest_number.cache_clear()
        start = process_time()
        shard_tags(f"orders-{number}", 64)
        taken.append(process_time() - start)

    assert min(taken) < 0.020


@pytest.mark.parametrize("name", ["a#b", "{a}", "a}", "#", ""])
def test_a_name_that_would_spoil_the_tags_is_refused(name: str) -> None:
    for check in (check_slot, lambda name: shard_tags(name, 4)):
        with pytest.raises(ValueError, match=r"slot .* use "):
            check(name)


def test_a_name_or_number_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="must be a str, not int"):
        shard_tags(1, 4)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(ValueError, match="shards is 0"):
        shard_tags("a", 0)
