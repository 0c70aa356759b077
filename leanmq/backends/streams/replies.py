"""The shapes of all replies. Pure functions; no other file takes a reply apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from leanmq.backends.protocol import (
    Declared,
    Delivery,
    Dropped,
    Exchanged,
    QueueStats,
    Settings,
    Standing,
)
from leanmq.backends.streams.calls import Reply

__all__ = [
    "declared",
    "dropped",
    "lease",
    "parse_receipt",
    "parse_rest",
    "read",
    "receipt",
    "received",
    "sent_ids",
    "standings",
    "stats",
    "wait_hint",
]

_STANDINGS = {ord("0"): Standing.DONE, ord("1"): Standing.GONE, ord("2"): Standing.LOST}


def receipt(entry: str, times: int, consumer: str) -> str:
    """A receipt: which entry, handed out for which time, to whom.

    >>> parse_receipt(receipt("7-0", 2, "c"))
    ('7-0', '2 c')
    """
    return f"{entry} {times} {consumer}"


def parse_receipt(text: str) -> tuple[str, str]:
    """The entry of a receipt, and the rest: times and consumer, which a batch has in common."""
    entry, _, rest = text.partition(" ")
    return entry, rest


def parse_rest(rest: str) -> tuple[str, str]:
    """Times delivered and consumer.

    >>> parse_rest("2 c")
    ('2', 'c')
    """
    times, _, consumer = rest.partition(" ")
    return times, consumer


def sent_ids(reply: Reply) -> list[str]:
    """The ids of stored messages."""
    return [entry.decode() for entry in reply]


def standings(reply: Reply) -> list[Standing]:
    """One standing for each digit of the settle script."""
    return [_STANDINGS[digit] for digit in reply[1]]


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
    return Exchanged((), list(_fresh(fresh, consumer, dead)), lease=lease)


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


def _fresh(entries: Iterable[Reply], consumer: str, dead: bool) -> Iterator[Delivery]:
    # The hot path: a message that was never touched has one field.
    for entry, fields in entries:
        if len(fields) == 2 and fields[0] == b"b":
            life = entry.decode()
            sent = int(life[: life.index("-")]) / 1000
            yield Delivery(life, fields[1], f"{life} 1 {consumer}", 1, sent)
        else:
            yield _delivery(entry, fields, 1, consumer, dead, False)


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
        timestamp=int(known.get(b"t", key.split("-")[0])) / 1000,
        suspect=suspect,
        error=None if error is None else error.decode("utf-8", "replace"),
    )
