"""Values as text: for people, bounded and without control characters, and as JSON."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from datetime import datetime
from typing import Any

__all__ = ["counted", "moment", "payload", "printable", "seconds", "to_json"]


def printable(text: str, limit: int = 200) -> str:
    r"""The text in one line of at most ``limit`` characters or little more.

    What a terminal would obey, or what would turn other text around, is escaped.

    >>> printable("caf\xe9\x1b[2J\u202e")
    'café\\u001b[2J\\u202e'
    >>> printable("x" * 50, 10)
    'xxxxxxxxxx... (40 more)'
    """
    more = len(text) - limit
    kept = text if more <= 0 else text[:limit]
    if not kept.isprintable():
        kept = "".join(c if c.isprintable() else _escape(c) for c in kept)
    return kept if more <= 0 else f"{kept}... ({more:,} more)"


def payload(data: Any, limit: int = 200) -> str:
    """A payload for people: its JSON, or the bytes if they could not be decoded.

    >>> payload({"id": 7}), payload(b"\\xff"), payload(float("nan"))
    ('{"id": 7}', "b'\\\\xff'", 'NaN')
    """
    if isinstance(data, bytes):
        return printable(repr(data[: limit + 1]), limit)
    try:
        return printable(json.dumps(data, ensure_ascii=False), limit)
    except (RecursionError, TypeError, ValueError):  # nested too deeply, or not JSON
        return f"({type(data).__name__} that cannot be shown)"


def to_json(value: Any) -> str:
    """One line of JSON that every reader takes, of ASCII without control characters.

    Bytes become ``{"base64": ...}``; what is not a number, null.

    >>> to_json({"data": b"\\xff", "rate": float("nan")})
    '{"data": {"base64": "/w=="}, "rate": null}'
    """
    try:
        text = json.dumps(value, allow_nan=False, default=_plain)
    except ValueError:
        text = json.dumps(_finite(value), allow_nan=False, default=_plain)
    return text.replace("\x7f", "\\u007f")  # the only control character that JSON lets through


def counted(number: int, thing: str) -> str:
    """So many of a thing.

    >>> counted(1, "message"), counted(1234, "dead letter")
    ('1 message', '1,234 dead letters')
    """
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def moment(epoch: float) -> str:
    """A moment in this machine's time zone; ``-`` if there is none."""
    if not epoch:
        return "-"
    return datetime.fromtimestamp(epoch).astimezone().isoformat(" ", "seconds")


def seconds(value: float) -> str:
    """A duration.

    >>> seconds(60.0), seconds(0.25)
    ('60 s', '0.25 s')
    """
    return f"{value:,.10g} s"


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
