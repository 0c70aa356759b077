"""A hash tag for each shard, such that the shards are spread evenly over the nodes of a cluster.

A pure function of the name and the number of shards. Which node has which slot is not known here.
"""

from __future__ import annotations

from binascii import crc_hqx
from functools import cache

from leanmq.sharding.hashing import check_shards, hash64

__all__ = ["SLOTS", "check_slot", "shard_tags"]

SLOTS = 16_384
"""Slots of every Redis Cluster."""

# Numbers of six digits reach every slot (a test looks), so the search ends.
_MOST_DIGITS = 6
_NONE = 10**_MOST_DIGITS


def shard_tags(name: str, shards: int) -> tuple[str, ...]:
    """The hash tag of each shard of a queue.

    With P = 16384 / ``shards``, shard i has a slot in the window that starts at
    offset + ceil(i * P), modulo 16384, and is less than (P - 1) / 2 slots wide. The offset is a
    hash of the name, so that many queues do not share slots. The tag is ``name#i`` if its slot is
    in the window, else ``name#i.k`` with the smallest k from 0 for which it is.

    So the slots of all shards differ; and if the nodes of a cluster, however many, have
    contiguous ranges of slots that differ in length by 1 at most, then the numbers of shards on
    any two nodes differ by 2 at most.

    Args:
        name: The slot of the queue, which is its name unless it was made with another.
        shards: How many shards there are, 1 to 4096.

    Raises:
        TypeError: If the name is no str, or ``shards`` is no int.
        ValueError: If the name is empty or has one of ``# { }``, or ``shards`` is out of range.

    Examples:
        >>> shard_tags("orders", 3)
        ('orders#0.0', 'orders#1.1', 'orders#2.2')
    """
    check_slot(name)
    check_shards(shards)
    # Why 2: let a range have at least L slots and the longest L + 1, a window w. A range holds at
    # most ceil((L + 1 + w) / P) shards and at least floor((L - w) / P); while 1 + 2w < P, these
    # differ by less than 3. The widest such window is taken: then the search is the shortest.
    width = (SLOTS - shards - 1) // (2 * shards)
    offset = hash64(name.encode()) % SLOTS
    return tuple(
        _tag(f"{name}#{shard}", offset - -shard * SLOTS // shards, width) for shard in range(shards)
    )


def check_slot(name: object) -> str:
    """A name that tags can be made of.

    Raises:
        TypeError: If it is no str.
        ValueError: If it is empty or has one of ``# { }``.

    Examples:
        >>> check_slot("a#b")
        Traceback (most recent call last):
        ValueError: slot 'a#b' has '#', which tags of shards are made with; use another name
    """
    if not isinstance(name, str):
        raise TypeError(f"a slot must be a str, not {type(name).__name__}")
    if not name:
        raise ValueError("a slot is empty; use the name of the queue")
    for character in "#{}":
        if character in name:
            raise ValueError(
                f"slot {name!r} has {character!r}, which tags of shards are made with; "
                f"use another name"
            )
    return name


def _tag(stem: str, start: int, width: int) -> str:
    """The first of ``stem``, ``stem.0``, ``stem.1``, ... with a slot in the window."""
    if (crc_hqx(stem.encode(), 0) - start) % SLOTS < width:
        return stem
    # CRC16 is linear: the slot of a tag is that of the number alone, XOR a mask that depends on
    # what stands before it and on how many digits follow. So the window is looked up in a table,
    # which for 4,096 shards is a thousand times faster than to try one number after another.
    before = crc_hqx(b".", crc_hqx(stem.encode(), 0))
    window = [slot % SLOTS for slot in range(start, start + width)]
    for digits in range(1, _MOST_DIGITS + 1):
        numbers, mask = _smallest_number(digits), crc_hqx(bytes(digits), before) % SLOTS
        number = min([numbers[slot ^ mask] for slot in window])
        if number != _NONE:
            return f"{stem}.{number}"
    raise AssertionError(f"{stem}: no slot in a window of {width}")  # see _MOST_DIGITS


@cache
def _smallest_number(digits: int) -> tuple[int, ...]:
    """By slot: the smallest number of so many digits that has it, by itself; _NONE if none has."""
    smallest, missing = [_NONE] * SLOTS, SLOTS
    for number in range(10 ** (digits - 1) if digits > 1 else 0, 10**digits):
        slot = crc_hqx(b"%d" % number, 0) % SLOTS
        if smallest[slot] == _NONE:
            smallest[slot] = number
            missing -= 1
            if not missing:
                break
    return tuple(smallest)
