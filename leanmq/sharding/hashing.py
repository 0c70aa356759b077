"""From a key to its shard: the one hash that places anything, in Python or elsewhere.

Test vectors for other languages are in ``docs/shard-vectors.json``. Where a shard is:
``placement.py``.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from leanmq.backends.protocol import Terms

__all__ = ["MAX_SHARDS", "check_shards", "hash64", "hash_of", "shard_of", "shard_of_terms"]

MAX_SHARDS = 4_096
"""Shards that one queue may have: a quarter of the slots of a cluster."""


def shard_of(key: str | bytes, shards: int) -> int:
    """The shard of a key: its hash modulo the number of shards.

    The hash is BLAKE2b (RFC 7693) of 8 bytes, read as a big-endian number, of the key's bytes; of
    a str those of UTF-8, as it stands: no normal form is made of it. It is the same in every
    process and on every machine.

    Args:
        key: What messages that belong together have in common; it may be empty.
        shards: How many shards there are, 1 to 4096.

    Returns:
        The number of the shard, from 0.

    Raises:
        TypeError: If the key is neither str nor bytes, or ``shards`` is no int.
        ValueError: If ``shards`` is out of range, or the key has a lone surrogate.

    Examples:
        >>> shard_of("order-1", 64)
        61
        >>> shard_of(b"order-1", 64)
        61
        >>> shard_of(1, 64)
        Traceback (most recent call last):
        TypeError: a key must be str or bytes, not int; write str(key) if that is what is meant
    """
    if type(shards) is not int or not 1 <= shards <= MAX_SHARDS:
        check_shards(shards)
    return hash_of(key) % shards


def hash_of(key: str | bytes) -> int:
    """The hash of a key, 0 to 2**64 - 1, whatever the number of shards.

    Raises:
        TypeError: If the key is neither str nor bytes.
        ValueError: If it has a lone surrogate.
    """
    if isinstance(key, str):
        try:
            key = key.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"a key has a lone surrogate at {error.start}, which UTF-8 cannot hold; "
                f"give the key as bytes"
            ) from None
    elif not isinstance(key, bytes):
        raise TypeError(
            f"a key must be str or bytes, not {type(key).__name__}; "
            f"write str(key) if that is what is meant"
        )
    return hash64(key)


_known_hash_of = lru_cache(maxsize=16_384)(hash_of)
"""``hash_of`` for those who send: most keys come again, and a look-up is a tenth of the work."""


def shard_of_terms(terms: Terms | None, shards: int) -> int | None:
    """The shard that a message must go to: by its key, without one by its dedup id, which must
    find what was sent before. None if any will do.

    Args:
        terms: What the message is sent with.
        shards: How many there are.
    """
    key = terms and (terms.key or terms.dedup_id)
    if not key:
        return None
    return _known_hash_of(key) % shards if shards > 1 else 0


def hash64(data: bytes) -> int:
    """The hash of some bytes, 0 to 2**64 - 1.

    Examples:
        >>> f"{hash64(b''):016x}"
        'e4a6a0577479b2b4'
    """
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")


def check_shards(shards: object) -> int:
    """A number of shards.

    Raises:
        TypeError: If it is no int.
        ValueError: If it is not 1 to 4096.

    Examples:
        >>> check_shards(0)
        Traceback (most recent call last):
        ValueError: shards is 0; a queue has 1 to 4096
    """
    if isinstance(shards, bool) or not isinstance(shards, int):
        raise TypeError(f"shards must be an int, not {type(shards).__name__}")
    if not 1 <= shards <= MAX_SHARDS:
        raise ValueError(f"shards is {shards}; a queue has 1 to {MAX_SHARDS}")
    return shards
