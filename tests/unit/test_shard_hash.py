"""A key has the same shard everywhere, and keys spread over the shards as chance would have it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmq.sharding.hashing import MAX_SHARDS, check_shards, hash64, shard_of

ROOT = Path(__file__).parents[2]
VECTORS: list[dict[str, Any]] = json.loads(
    (ROOT / "docs" / "shard-vectors.json").read_text("utf-8")
)["vectors"]
TEXTS = st.text(st.characters(codec="utf-8"))


def chi_squared(counts: list[int]) -> float:
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 for count in counts) / expected


def bound(freedom: int, chance: float) -> float:
    """What chi-squared stays below with this chance (Wilson and Hilferty, 1931)."""
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + NormalDist().inv_cdf(chance) * spread**0.5) ** 3)


# --- one key, one shard


@pytest.mark.parametrize(
    ("key", "hashed"),
    # From b2sum -l 64 of GNU coreutils.
    [
        (b"", 0xE4A6A0577479B2B4),
        (b"a", 0x40F89E395B66422F),
        (b"order-1", 0x2599000E8C1B023D),
        (b"\xff", 0xA72EEED9830CBF91),
    ],
)
def test_the_hash_is_that_of_other_programs(key: bytes, hashed: int) -> None:
    assert hash64(key) == hashed
    assert [shard_of(key, shards) for shards in (1, 4, 64, 1000)] == [
        0, hashed % 4, hashed % 64, hashed % 1000
    ]  # fmt: skip


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["key_hex"][:20] or "empty")
def test_a_published_vector_holds_here_and_by_its_own_words(vector: dict[str, Any]) -> None:
    raw = bytes.fromhex(vector["key_hex"])
    hashed = int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "big")

    assert vector["hash"] == f"{hashed:016x}"
    assert vector["shards"] == {shards: hashed % int(shards) for shards in vector["shards"]}
    for shards, shard in vector["shards"].items():
        assert shard_of(raw, int(shards)) == shard
        if vector["key"] is not None:
            assert shard_of(vector["key"], int(shards)) == shard


def test_the_vectors_have_keys_of_every_kind() -> None:
    keys = {vector["key"] for vector in VECTORS}
    raws = [bytes.fromhex(vector["key_hex"]) for vector in VECTORS]

    assert len(set(raws)) == len(VECTORS) > 25
    assert {"", "order-1", "\u00e9", "e\u0301", "\x00", None} <= keys
    assert max(map(len, raws)) >= 1_000
    for vector, raw in zip(VECTORS, raws, strict=True):
        if vector["key"] is None:
            with pytest.raises(UnicodeDecodeError):
                raw.decode()
        else:
            assert vector["key"].encode() == raw
        assert {"4", "64", str(MAX_SHARDS)} <= set(vector["shards"])


@given(TEXTS, st.integers(1, MAX_SHARDS))
def test_a_text_has_the_shard_of_its_bytes(key: str, shards: int) -> None:
    assert shard_of(key, shards) == shard_of(key.encode(), shards) == hash64(key.encode()) % shards
    assert 0 <= shard_of(key, shards) < shards


def test_forms_of_one_letter_are_keys_of_their_own() -> None:
    assert shard_of("\u00e9", MAX_SHARDS) != shard_of("e\u0301", MAX_SHARDS)


@pytest.mark.parametrize("key", [1, None, 1.5, ("a",), bytearray(b"a"), uuid.UUID(int=1), True])
def test_a_key_of_another_type_is_refused_and_the_cure_named(key: Any) -> None:
    with pytest.raises(
        TypeError, match=rf"str or bytes, not {type(key).__name__}; write str\(key\)"
    ):
        shard_of(key, 4)


def test_a_key_that_utf8_cannot_hold_is_refused_and_the_cure_named() -> None:
    with pytest.raises(ValueError, match=r"a lone surrogate at 1, .* give the key as bytes"):
        shard_of("a\ud800", 4)


@pytest.mark.parametrize("shards", [0, -1, MAX_SHARDS + 1])
def test_a_number_of_shards_out_of_range_is_refused(shards: int) -> None:
    for check in (check_shards, lambda shards: shard_of("a", shards)):
        with pytest.raises(ValueError, match=f"shards is {shards}; a queue has 1 to 4096"):
            check(shards)


@pytest.mark.parametrize("shards", [4.0, "4", True, None])
def test_a_number_of_shards_that_is_no_int_is_refused(shards: Any) -> None:
    for check in (check_shards, lambda shards: shard_of("a", shards)):
        with pytest.raises(TypeError, match=f"must be an int, not {type(shards).__name__}"):
            check(shards)


# --- many keys


def sequential() -> list[str]:
    return [f"order-{number}" for number in range(1, 100_001)]


def random_ids() -> list[str]:
    chance = random.Random(5)
    return [str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in range(100_000)]


def padded_numbers() -> list[bytes]:
    return [number.to_bytes(8, "big") for number in range(100_000)]


@pytest.mark.parametrize("keys", [sequential, random_ids, padded_numbers])
@pytest.mark.parametrize("shards", [2, 3, 16, 64, 100, 1_000, MAX_SHARDS])
def test_100_000_keys_spread_as_a_uniform_hash_would(keys: Any, shards: int) -> None:
    counts = Counter(shard_of(key, shards) for key in keys())

    found = chi_squared([counts[shard] for shard in range(shards)])

    # A uniform hash fails here once in 10,000 times; and one that is too even is no hash either,
    # though with one degree of freedom it may well be even.
    assert found < bound(shards - 1, 1 - 1e-4)
    if shards > 10:
        assert found > bound(shards - 1, 1e-4)


def test_the_bound_is_that_of_the_tables() -> None:
    for freedom, quantile in [(10, 29.588), (60, 99.607), (100, 149.449)]:
        assert bound(freedom, 0.999) == pytest.approx(quantile, rel=0.01)


# --- many processes

PROGRAM = """
from leanmq.sharding.hashing import shard_of
from leanmq.sharding.placement import Placement, plan, propose
from leanmq.sharding.tags import shard_tags
weights = {name: 1 + number for number, name in enumerate("abcd")}
where = propose("orders", 64, weights)
print([shard_of(f"order-{number}", 64) for number in range(100)])
print(shard_tags("orders", 64), where)
print(plan(where, {name: 1 for name in {"a", "c", "d", "e", "f"}}))
print(Placement(64, "orders", 1, {name: name * 8 for name in {*"abcd"}}, weights, where).encode())
"""


def test_every_process_places_alike_however_python_salts_its_hashes() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]

    assert told[0] == told[1]
    assert told[0].count("\n") == 4
