"""The picture of keys, shards and nodes shows what the code computes, and needs nothing else."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from leanmq.sharding.hashing import shard_of
from leanmq.sharding.placement import propose
from tests.docs.pages import ROOT

PICTURE = (ROOT / "docs" / "assets" / "shards.svg").read_text("utf-8")
PAGE = (ROOT / "docs" / "scaling.md").read_text("utf-8")
SHARDS = 8


def test_the_keys_of_the_picture_lead_to_their_shards() -> None:
    drawn = re.findall(r'data-key="(\w+)" data-shard="(\d)"', PICTURE)

    assert len(drawn) == 5
    assert drawn == [(key, str(shard_of(key, SHARDS))) for key, _ in drawn]


def test_the_shards_of_the_picture_are_on_their_nodes() -> None:
    drawn = re.findall(r'class="(\w)" data-shard="(\d)" data-node="(\w)"', PICTURE)
    where = propose("orders", SHARDS, dict.fromkeys("abc", 1.0))

    assert drawn == [(node, str(shard), node) for shard, node in enumerate(where)]
    for node in "abc":
        shards = ", ".join(str(shard) for shard, on in enumerate(where) if on == node)
        assert f">node {node}</text>" in PICTURE
        assert f">shards {shards}</text>" in PICTURE


def test_the_picture_stands_for_itself_and_says_what_it_shows() -> None:
    ElementTree.fromstring(PICTURE)

    assert re.findall(r"https?://[^\"]+", PICTURE) == ["http://www.w3.org/2000/svg"]
    assert re.search(r"!\[[^]]{40,}\]\(assets/shards\.svg\)", PAGE)
    assert "<title" in PICTURE
    assert "prefers-color-scheme: dark" in PICTURE
