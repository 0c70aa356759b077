"""Messages as the scripts take them. What comes back is for ``replies.py``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter

from leanmq.backends.protocol import NewMessage, Terms

__all__ = ["runs_of"]


def runs_of(messages: Sequence[NewMessage]) -> list[str | bytes | int]:
    """Messages as the scripts take them: in runs that have the same fields."""
    if not any(map(_TERMS, messages)):
        return [1, "b", len(messages), *[m.body for m in messages]]
    runs: list[str | bytes | int] = []
    for names, same in groupby(map(_fields, messages), key=tuple):
        rows = list(same)
        runs += (len(names), *names, len(rows), *(value for row in rows for value in row.values()))
    return runs


def _fields(message: NewMessage) -> dict[str, str | bytes | int]:
    """Fields of an entry; those with an @ tell what becomes of it, and are not stored."""
    terms = message.terms or _PLAIN
    named = {
        "b": message.body,
        "k": terms.key,
        "h": terms.headers,
        "m": terms.label,
        "x": terms.ttl,
        "@d": terms.delay,
        "@a": terms.due_at,
        "@u": terms.dedup_id,
    }
    return {n: v for n, v in named.items() if v is not None and v != 0}


_PLAIN = Terms()
_TERMS = attrgetter("terms")
