"""The shapes of all replies. Pure functions; no other file takes a reply apart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from leanmq.backends.protocol import (
    Declared,
    Delivery,
    Dropped,
    Exchanged,
    Failure,
    Held,
    QueueStats,
    Receive,
    Settings,
    Standing,
    State,
    Stored,
)
from leanmq.backends.streams.calls import Reply

__all__ = [
    "SETTINGS",
    "by_delivery",
    "declared",
    "dropped",
    "entries",
    "entry_of",
    "is_id",
    "lease",
    "pairs",
    "parse_rest",
    "peeked",
    "purged",
    "read",
    "receipt",
    "receipts_by_delivery",
    "received",
    "sent_ids",
    "standings",
    "stats",
    "stored_settings",
    "tag",
    "text",
    "unexpired",
]

VERSION = 1
"""Of the form of an entry; one of a later form says so in its field ``v``."""

SETTINGS = ("lease", "max", "len", "over", "size", "dedup")
"""The settings of a queue, as they are called in its hash."""

_NO_RECEIPT = "0 "
_ID = re.compile(r"(?:\d{1,19}-\d{1,19}|d\d{1,19})\Z")
_STANDINGS = {ord("0") + standing: standing for standing in Standing}


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


def is_id(text: str) -> bool:
    """Whether a message can be called so: entry ids, and d and a number if it was sent delayed."""
    return _ID.match(text) is not None


def by_delivery(messages: Sequence[Held]) -> Mapping[str, tuple[list[str], Sequence[int]]]:
    """What settle takes for each message, and their places, by what their receipts have in common.

    Left out are ids that no message ever had.
    """
    receipts = [held.receipt for held in messages]
    if None not in receipts:
        parts = [text.partition(" ") for text in receipts if text is not None]
        if len({part[2] for part in parts}) == 1:
            entries = [
                part[0] if part[0] == held.id else f"{part[0]} {held.id}"
                for part, held in zip(parts, messages, strict=True)
            ]
            return {parts[0][2]: (entries, range(len(parts)))}
    groups: dict[str, tuple[list[str], list[int]]] = {}
    for place, held in enumerate(messages):
        if held.receipt is not None:
            entry, _, rest = held.receipt.partition(" ")
            if entry != held.id:
                entry = f"{entry} {held.id}"
        elif is_id(held.id):
            entry, rest = held.id, _NO_RECEIPT
        else:
            continue
        entries, places = groups.setdefault(rest, ([], []))
        entries.append(entry)
        places.append(place)
    return groups


def receipts_by_delivery(messages: Sequence[Held]) -> Mapping[str, list[tuple[str, str]]]:
    """Entry and id for life of each message, by what their receipts have in common."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for held in messages:
        entry, _, rest = (held.receipt or "").partition(" ")
        groups.setdefault(rest, []).append((entry, held.id))
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
    lease, more, soon, suspects, calm, fresh, buried, mark, left, stranded = reply[:10]
    again = reply[10:]
    deliveries = [
        _delivery(entry, fields, times, consumer, dead, bool(suspect))
        for entry, times, fields, suspect in again
    ]
    deliveries += _fresh(fresh, consumer, dead)
    return Exchanged(
        (),
        deliveries,
        bool(more),
        bool(suspects),
        lease / 1000,
        calm / 1000,
        [(life.decode(), times) for life, times in buried],
        mark.decode(),
        None if soon < 0 else soon / 1000,
        lost=bool(stranded),
        fresh=None if left < 0 else left,
    )


def entries(reply: Reply) -> Sequence[Reply]:
    """The entries of the one stream that XREADGROUP was asked about."""
    found: Sequence[Reply] = reply[0][1] if reply else ()
    return found


def read(fresh: Sequence[Reply], request: Receive, lease: float) -> Exchanged:
    """The deliveries of a plain read."""
    deliveries = _fresh(fresh, request.consumer, request.queue.dead)
    return Exchanged((), deliveries, lease=lease)


def unexpired(fresh: Sequence[Reply], consumer: str, time: Reply) -> tuple[list[Reply], list[Held]]:
    """Those of the entries just read that had not expired at ``time`` (as TIME tells it), and
    the others as held messages."""
    now = int(time[0]) * 1000 + int(time[1]) // 1000
    alive: list[Reply] = []
    expired: list[Held] = []
    for entry, fields in fresh:
        known = dict(zip(fields[::2], fields[1::2], strict=False))
        if b"x" in known and int(known[b"x"]) <= now:
            name = entry.decode()
            life = known[b"i"].decode() if b"i" in known else name
            expired.append(Held(life, receipt(name, 1, consumer)))
        else:
            alive.append((entry, fields))
    return alive, expired


def peeked(reply: Reply, *, dead: bool) -> list[Stored]:
    """Messages as they are stored."""
    return [
        Stored(
            # Not handed out now: the next time is not counted yet.
            _delivery(entry, fields, times, "", dead, False),
            State(state),
            until / 1000,
            consumer.decode() or None,
        )
        for entry, fields, times, state, until, consumer in reply[1:]
    ]


def purged(reply: Reply) -> tuple[int, str, str, int]:
    """Deleted, where to go on ('' if it is done), up to where, and delayed ones to go."""
    count, at, last, left = reply
    return count, at.decode(), last.decode(), left


def tag(entry: bytes) -> str | None:
    """The tag in an entry of the registry; None if it is a record, not a queue."""
    try:
        found: str | None = msgspec.json.decode(entry).get("tag")
    except (AttributeError, msgspec.DecodeError):  # a record may hold any text
        return None
    return found


def pairs(flat: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Names and values of a hash."""
    return zip(flat[::2], flat[1::2], strict=True)


def declared(reply: Reply, tag: str) -> Declared:
    """Settings as stored, and whether anything was made."""
    made, created, epoch, *stored = reply
    values = dict(pairs(stored))
    settings = _settings([values[name.encode()] for name in SETTINGS], tag)
    return Declared(settings, bool(made), int(created) / 1000, epoch)


def dropped(reply: Reply) -> Dropped:
    """Whether the queue existed, and how many dead letters saved it."""
    existed, dead = reply
    return Dropped(bool(existed), dead)


def stats(length: Reply, pending: Reply, delayed: Reply, meta: Reply, tag: str) -> QueueStats:
    """Counts of a stream with one group that deletes what it acknowledges."""
    created, *settings = meta
    # What the reserved consumers "hold" is held by nobody.
    holders = pending[3] if pending and pending[0] else None
    in_flight = sum(int(count) for name, count in holders or () if name[:1] != b"~")
    return QueueStats(
        ready=length - in_flight,
        in_flight=in_flight,
        delayed=delayed,
        created_at=int(created) / 1000,
        settings=_settings(settings, tag),
    )


# How each setting is stored: its field in the hash, to there, and back.
_FORMS: dict[str, tuple[str, Callable[[Any], str], Callable[[bytes], Any]]] = {
    "lease": ("lease", lambda seconds: str(round(seconds * 1000)), lambda raw: int(raw) / 1000),
    "max_deliveries": ("max", str, int),
    "max_length": ("len", str, int),
    "overflow": ("over", str, bytes.decode),
    "max_payload_bytes": ("size", str, int),
    "dedup_window": (
        "dedup",
        lambda seconds: str(round(seconds * 1000)),
        lambda raw: int(raw) / 1000,
    ),
}


def stored_settings(settings: Settings) -> tuple[str, ...]:
    """Name and value of each setting that is given, as the hash has them."""
    given = [
        (field, store(value))
        for name, (field, store, _) in _FORMS.items()
        if (value := getattr(settings, name)) is not None
    ]
    return tuple(word for pair in given for word in pair)


def _settings(values: Sequence[bytes], tag: str) -> Settings:
    raw = dict(zip(SETTINGS, values, strict=True))
    known = {name: load(raw[field]) for name, (field, _, load) in _FORMS.items()}
    return Settings(**known, slot=tag)


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
    return Delivery(
        id=known[b"i"].decode() if b"i" in known else key,
        body=known.get(b"b", b""),
        receipt=receipt(key, times, consumer),
        # A dead letter tells how often its queue had handed it out.
        delivery_count=carried if dead and b"n" in known else carried + times,
        timestamp=int(known[b"t"]) / 1000 if b"t" in known else _sent_at(key),
        suspect=suspect,
        error=text(known.get(b"e")),
        key=text(known.get(b"k")),
        headers=known.get(b"h"),
        label=text(known.get(b"m")),
        failures=_failures(known[b"f"]) if b"f" in known else (),
        redrives=int(known.get(b"r", 0)),
        foreign=int(known.get(b"v", VERSION)) > VERSION,
        taken_over=times > 1,
    )


def text(raw: bytes | None) -> str | None:
    """What is stored as text; None stays None."""
    return None if raw is None else raw.decode("utf-8", "replace")


def _failures(packed: bytes) -> tuple[Failure, ...]:
    """Moments, counts and reasons, packed as the scripts do: each part after its length."""
    parts: list[bytes] = []
    while packed:
        length, _, rest = packed.partition(b":")
        parts.append(rest[: int(length)])
        packed = rest[int(length) :]
    rows = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    return tuple(
        Failure(int(at) / 1000, int(count), reason.decode("utf-8", "replace"))
        for at, count, reason in rows
    )
