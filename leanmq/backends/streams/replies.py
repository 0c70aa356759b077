"""The shapes of all replies. Pure functions; no other file takes a reply apart."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from leanmq.backends.protocol import (
    Declared,
    Delivery,
    Dropped,
    Exchanged,
    Held,
    QueueStats,
    Settings,
    Standing,
)
from leanmq.backends.streams.calls import Reply

__all__ = [
    "by_delivery",
    "declared",
    "dropped",
    "entry_of",
    "lease",
    "parse_rest",
    "read",
    "receipt",
    "received",
    "sent_ids",
    "standings",
    "stats",
    "wait_hint",
]

_NO_RECEIPT = "0 "
_ENTRY = re.compile(r"\d{1,19}-\d{1,19}\Z")
_STANDINGS = {ord("0"): Standing.DONE, ord("1"): Standing.GONE, ord("2"): Standing.LOST}


def receipt(entry: str, times: int, consumer: str) -> str:
    """A receipt: which entry, handed out for which time, to whom.

    >>> entry_of(receipt("7-0", 2, "c"))
    '7-0'
    """
    return f"{entry} {times} {consumer}"


def entry_of(text: str) -> str:
    """The entry of a receipt."""
    return text.partition(" ")[0]


def parse_rest(rest: str) -> tuple[str, str]:
    """Times delivered and consumer.

    >>> parse_rest("2 c")
    ('2', 'c')
    """
    times, _, consumer = rest.partition(" ")
    return times, consumer


def by_delivery(messages: Sequence[Held]) -> Mapping[str, tuple[list[str], Sequence[int]]]:
    """Entries and their places among the messages, by what their receipts have in common.

    Left out are ids that no entry ever had.
    """
    receipts = [held.receipt for held in messages]
    if None not in receipts:
        parts = [text.partition(" ") for text in receipts if text is not None]
        if len({part[2] for part in parts}) == 1:
            return {parts[0][2]: ([part[0] for part in parts], range(len(parts)))}
    groups: dict[str, tuple[list[str], list[int]]] = {}
    for place, held in enumerate(messages):
        if held.receipt is not None:
            entry, _, rest = held.receipt.partition(" ")
        elif _ENTRY.match(held.id):
            entry, rest = held.id, _NO_RECEIPT
        else:
            continue
        entries, places = groups.setdefault(rest, ([], []))
        entries.append(entry)
        places.append(place)
    return groups


def sent_ids(reply: Reply) -> list[str]:
    """The ids of stored messages."""
    return [entry.decode() for entry in reply]


def standings(reply: Reply) -> list[Standing]:
    """One standing for each digit of the settle script."""
    digits: bytes = reply[1]
    if not digits.strip(b"0"):
        return [Standing.DONE] * len(digits)
    return [_STANDINGS[digit] for digit in digits]


def lease(reply: Reply) -> float:
    """Seconds of a lease, as the settle script tells."""
    milliseconds: int = reply[0]
    return milliseconds / 1000


def received(reply: Reply, consumer: str, *, dead: bool) -> Exchanged:
    """The deliveries of the receive script, oldest claims first, then new messages."""
    lease, more, _, suspects, calm, fresh = reply[:6]
    again = reply[6:]
    deliveries = [
        _delivery(entry, fields, times, consumer, dead, bool(suspect))
        for entry, times, fields, suspect in again
    ]
    deliveries += _fresh(fresh, consumer, dead)
    return Exchanged((), deliveries, bool(more), bool(suspects), lease / 1000, calm / 1000)


def wait_hint(reply: Reply) -> float | None:
    """Seconds until something may become available; None if nobody knows."""
    milliseconds: int = reply[2]
    return None if milliseconds < 0 else milliseconds / 1000


def read(reply: Reply, consumer: str, lease: float, *, dead: bool) -> Exchanged:
    """The deliveries of a plain blocking read of one stream."""
    fresh = reply[0][1] if reply else ()
    return Exchanged((), _fresh(fresh, consumer, dead), lease=lease)


def declared(reply: Reply) -> Declared:
    """Settings as stored, and whether anything was made."""
    made, created, *pairs = reply
    stored = dict(zip(map(bytes.decode, pairs[::2]), pairs[1::2], strict=True))
    return Declared(_settings(stored["lease"], stored["max"]), bool(made), int(created) / 1000)


def dropped(reply: Reply) -> Dropped:
    """Whether the queue existed, and how many dead letters saved it."""
    existed, dead = reply
    return Dropped(bool(existed), dead)


def stats(length: Reply, pending: Reply, delayed: Reply, meta: Reply) -> QueueStats:
    """Counts of a stream with one group that deletes what it acknowledges."""
    lease, limit, created = meta
    in_flight = int(pending[0]) if pending and pending[0] else 0
    return QueueStats(
        ready=length - in_flight,
        in_flight=in_flight,
        delayed=delayed,
        created_at=int(created) / 1000,
        settings=_settings(lease, limit),
    )


def _settings(lease: bytes, limit: bytes) -> Settings:
    return Settings(lease=int(lease) / 1000, max_deliveries=int(limit))


def _fresh(entries: Sequence[Reply], consumer: str, dead: bool) -> list[Delivery]:
    # The hot path: a message that was never touched has one field, and mostly all of a batch
    # are of the same millisecond.
    if not entries:
        return []
    rest = f" 1 {consumer}"
    first = entries[0][0].partition(b"-")[0]
    same = int(first) / 1000 if entries[-1][0].startswith(first + b"-") else 0.0
    return [
        Delivery(life := entry.decode(), fields[1], life + rest, 1, same or _sent_at(life))
        if len(fields) == 2 and fields[0] == b"b"
        else _delivery(entry, fields, 1, consumer, dead, False)
        for entry, fields in entries
    ]


def _sent_at(entry: str) -> float:
    return int(entry.partition("-")[0]) / 1000


def _delivery(
    entry: bytes, fields: Reply, times: int, consumer: str, dead: bool, suspect: bool
) -> Delivery:
    key = entry.decode()
    known = dict(zip(fields[::2], fields[1::2], strict=False))
    carried = int(known.get(b"n", 0))
    error = known.get(b"e")
    return Delivery(
        id=known[b"i"].decode() if b"i" in known else key,
        body=known.get(b"b", b""),
        receipt=receipt(key, times, consumer),
        # A dead letter tells how often its queue had handed it out.
        delivery_count=carried if dead and b"n" in known else carried + times,
        timestamp=int(known[b"t"]) / 1000 if b"t" in known else _sent_at(key),
        suspect=suspect,
        error=None if error is None else error.decode("utf-8", "replace"),
    )
