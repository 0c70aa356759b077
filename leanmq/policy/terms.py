"""What a message is sent with, besides its payload: checked, and brought into the seam's form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from leanmq.api import Moment, Outgoing, Seconds
from leanmq.backends.protocol import Terms
from leanmq.errors import MessageError
from leanmq.policy.encoding import UndecodableError, encode

__all__ = ["MAX_HEADERS", "MAX_MILLISECONDS", "REASON_KEPT", "headers_of", "reason_of", "terms_of"]

_HEADERS: Final = msgspec.json.Decoder(dict[str, Any])

MAX_NAME = 1_024
"""Bytes of a key, a message_id or a dedup_id."""

MAX_HEADERS = 16 * 1024
"""Bytes of all headers of a message, encoded."""

REASON_KEPT = 1_000
"""Bytes that are kept of why a message failed."""

MAX_MILLISECONDS = 100 * 366 * 86_400_000
"""A hundred years."""


def terms_of(outgoing: Outgoing[Any], now: float) -> Terms | None:
    """The options of a message sent ``now`` (seconds since the epoch); None if it has none.

    >>> terms_of(Outgoing("tea", delay=1.5, key="table 7"), now=0.0)
    Terms(key='table 7', headers=None, label=None, ttl=0, delay=1500, due_at=0, dedup_id=None)
    >>> terms_of(Outgoing("tea", ttl_seconds=5, delay=10), now=0.0)
    Traceback (most recent call last):
    leanmq.errors.MessageError: ttl_seconds=5 ends before delay=10: the message would never ...
    """
    o = outgoing
    if (
        o.key is None
        and o.ttl_seconds is None
        and o.delay is None
        and o.headers is None
        and o.message_id is None
        and o.dedup_id is None
    ):
        return None
    ttl = 0 if o.ttl_seconds is None else _milliseconds(o.ttl_seconds, "ttl_seconds")
    if o.ttl_seconds is not None and not ttl:
        raise MessageError(
            f"ttl_seconds is {o.ttl_seconds}: the message would have expired when it arrives; "
            "give at least a millisecond"
        )
    delay = due_at = 0
    left = 0
    if isinstance(o.delay, datetime):
        due_at = _moment(o.delay)
        left = due_at - round(now * 1000)
        if left > MAX_MILLISECONDS:
            raise MessageError(f"delay is {o.delay}; a hundred years is the most")
    elif o.delay is not None:
        left = delay = _milliseconds(o.delay, "delay")
    if ttl and left >= ttl:
        raise MessageError(
            f"ttl_seconds={o.ttl_seconds} ends before delay={o.delay}: the message would never be "
            "handed out; both count from now"
        )
    return Terms(
        key=_name(o.key, "key"),
        headers=_headers(o.headers),
        label=_name(o.message_id, "message_id"),
        ttl=ttl,
        delay=delay,
        due_at=due_at,
        dedup_id=_name(o.dedup_id, "dedup_id"),
    )


def headers_of(raw: bytes | None) -> Mapping[str, Any]:
    """Headers as they were sent; raises UndecodableError if they are no JSON object."""
    if raw is None:
        return {}
    try:
        return _HEADERS.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableError(f"{len(raw)} bytes of headers that are no JSON object") from error


def reason_of(reason: object) -> str:
    """What is kept of a reason: valid text of bounded length."""
    if not isinstance(reason, str):
        raise TypeError(f"reason must be a str, not {type(reason).__name__}")
    kept = reason[:REASON_KEPT].encode("utf-8", "replace")[:REASON_KEPT]
    return kept.decode("utf-8", "ignore")


def _name(value: object, what: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}; use str({what})")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise MessageError(f"{what} holds a lone surrogate, which is no text: {error}") from error
    if not 1 <= size <= MAX_NAME:
        problem = "is empty" if not size else f"has {size} bytes"
        raise MessageError(f"{what} {problem}; use 1 to {MAX_NAME} bytes, a hash of it if need be")
    return value


def _headers(headers: object) -> bytes | None:
    if headers is None:
        return None
    if not isinstance(headers, Mapping):
        raise TypeError(f"headers must be a mapping, not {type(headers).__name__}")
    for name in headers:
        if not isinstance(name, str):
            raise TypeError(f"names of headers must be str, not {type(name).__name__}")
    try:
        encoded = encode(dict(headers))
    except MessageError as error:
        raise MessageError(f"headers: {error}") from error.__cause__
    if len(encoded) > MAX_HEADERS:
        raise MessageError(
            f"headers have {len(encoded):,} bytes, {MAX_HEADERS:,} at most; put more into the "
            "payload"
        )
    return encoded


def _milliseconds(value: Seconds, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise TypeError(f"{what} must be seconds or a timedelta, not {type(value).__name__}")
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 0 or seconds != seconds:  # isnan fails for an int that is too large for a float
        raise MessageError(f"{what} is {value}; it counts seconds from now and cannot be negative")
    if seconds > MAX_MILLISECONDS / 1000:
        raise MessageError(f"{what} is {value}; a hundred years is the most")
    return math.ceil(round(seconds * 1000, 3))


def _moment(at: Moment) -> int:
    assert isinstance(at, datetime)
    if at.tzinfo is None:
        raise MessageError(
            "delay is a datetime without a time zone, so nobody knows when that is; use "
            "datetime.now(timezone.utc) + ..., or .astimezone()"
        )
    return max(1, math.ceil(at.timestamp() * 1000))
