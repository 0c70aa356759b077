"""Checks of what users hand in: names, durations, counts. Each says what is wrong and why."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Any

from leanmq.api import Message, MessageRefs, Seconds
from leanmq.backends.protocol import QueueRef, Settings
from leanmq.backends.registry import Options

__all__ = [
    "MAX_COUNT",
    "check_count",
    "check_name",
    "check_prefix",
    "ids_of",
    "options_of",
    "ref_of",
    "seconds_of",
    "settings_of",
    "wait_of",
]

MAX_COUNT = 1_000
"""Messages that one receive may return; keeps replies and scripts short."""

DAY = 86_400.0

_NAME = re.compile(r"[A-Za-z0-9._:/-]{1,200}\Z")


def check_name(name: object, what: str = "queue name") -> str:
    """The name, if it can be one.

    >>> check_name("orders.eu")
    'orders.eu'
    >>> check_name("a}b")
    Traceback (most recent call last):
    ValueError: queue name 'a}b' has '}'; use 1 to 200 of A-Z a-z 0-9 . _ : / -
    """
    if not isinstance(name, str):
        raise TypeError(f"{what} must be a str, not {type(name).__name__}")
    if _NAME.match(name):
        return name
    bad = next((c for c in name[:1_000] if not _NAME.match(c)), None)
    problem = "is empty" if not name else f"has {bad!r}" if bad else f"has {len(name)} characters"
    shown = name if len(name) <= 60 else name[:57] + "..."
    raise ValueError(f"{what} {shown!r} {problem}; use 1 to 200 of A-Z a-z 0-9 . _ : / -")


def ref_of(queue: object, prefix: str, what: str = "queue name") -> QueueRef:
    """The queue that is meant: by its name, its full name, a queue, or figures of one.

    A full name has the prefix, as keys have it. It is known as such if the prefix ends in a colon;
    else ``shopping`` under the prefix ``shop`` would be another queue's full name.

    >>> ref_of("mq:orders", "mq:")
    QueueRef(name='orders', dead=False)
    """
    if isinstance(queue, str):
        short = queue.removeprefix(prefix) if prefix.endswith(":") else queue
        return QueueRef(check_name(short or queue, what))
    name, dead = getattr(queue, "name", None), getattr(queue, "is_dlq", None)
    if isinstance(name, str) and isinstance(dead, bool):
        return QueueRef(check_name(name, what), dead)
    return QueueRef(check_name(queue, what))


def check_prefix(prefix: object) -> str:
    """The key prefix, if it can be one; it may be empty."""
    return "" if prefix == "" else check_name(prefix, "prefix")


def seconds_of(value: Seconds, what: str) -> float:
    """A duration in seconds.

    >>> seconds_of(timedelta(minutes=1), "delay")
    60.0
    >>> seconds_of(-1, "delay")
    Traceback (most recent call last):
    ValueError: delay is -1; it is a duration in seconds and cannot be negative
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:  # an int beyond all floats
            result = math.inf if value > 0 else -math.inf
    else:
        raise TypeError(f"{what} must be seconds or a timedelta, not {type(value).__name__}")
    if math.isnan(result) or result < 0:
        raise ValueError(f"{what} is {value}; it is a duration in seconds and cannot be negative")
    return result


def check_count(count: object) -> int:
    """A number of messages to receive."""
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count must be an int, not {type(count).__name__}")
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"count is {count}; receive 1 to {MAX_COUNT} messages at a time")
    return count


def ids_of(messages: MessageRefs) -> list[str]:
    """The ids of messages, each once, in order. A bare string is one id."""
    given: list[Any] = [messages] if isinstance(messages, str | Message) else list(messages)
    if set(map(type, given)) == {Message}:
        return list(dict.fromkeys([message.id for message in given]))
    ids: dict[str, None] = {}
    for item in given:
        if isinstance(item, Message):
            ids[item.id] = None
        elif isinstance(item, str):
            ids[item] = None
        else:
            raise TypeError(f"expected message ids or messages, got {type(item).__name__}")
    return list(ids)


def wait_of(block: bool | None, timeout: Seconds | None) -> float:
    """Seconds to wait: neither given, no wait; block alone, for ever.

    >>> wait_of(None, None), wait_of(True, None), wait_of(False, 5), wait_of(None, 0.5)
    (0.0, inf, 0.0, 0.5)
    """
    wait = None
    if timeout is not None:
        wait = seconds_of(timeout, "timeout")
    if block is False:
        return 0.0
    if wait is not None:
        return wait
    return math.inf if block else 0.0


def settings_of(
    *,
    lease: Seconds | None = None,
    max_deliveries: int | None = None,
    max_length: int | None = None,
    overflow: str | None = None,
    max_payload_bytes: int | None = None,
    dedup_window: Seconds | None = None,
    slot: str | None = None,
    shards: int | None = None,
) -> Settings:
    """Settings as given, checked.

    >>> settings_of(overflow="drop")
    Traceback (most recent call last):
    ValueError: overflow is 'drop'; a full queue can 'raise' or 'block' its senders
    """
    if overflow not in (None, "raise", "block"):
        raise ValueError(
            f"overflow is {overflow!r}; a full queue can 'raise' or 'block' its senders"
        )
    return Settings(
        lease=_span(lease, "lease", 0.05, 30 * DAY),
        max_deliveries=_number(max_deliveries, "max_deliveries", 0, 1_000_000),
        max_length=_number(max_length, "max_length", 0, 1_000_000_000),
        overflow=overflow,
        max_payload_bytes=_number(max_payload_bytes, "max_payload_bytes", 1, 500 * 1024 * 1024),
        dedup_window=_span(dedup_window, "dedup_window", 0.05, 30 * DAY),
        slot=None if slot is None else check_name(slot, "slot"),
        shards=_number(shards, "shards", 1, 4_096),
    )


def _span(value: Seconds | None, what: str, least: float, most: float) -> float | None:
    if value is None:
        return None
    seconds = seconds_of(value, what)
    if not least <= seconds <= most:
        raise ValueError(f"{what} is {value}; it lasts {least:g} seconds to {most / DAY:g} days")
    return round(seconds, 3)


def _number(value: int | None, what: str, least: int, most: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not least <= value <= most:
        unlimited = ", or 0 for unlimited" if least == 0 else ""
        raise ValueError(f"{what} is {value}; give {max(least, 1)} to {most:,}{unlimited}")
    return value


def options_of(
    backend_given: bool, prefix: str | None, connection_timeout: Seconds | None
) -> Options:
    """What the backend of a URL is told; a backend that was given knows for itself."""
    if backend_given and not (prefix is None and connection_timeout is None):
        raise TypeError("prefix and connection_timeout go with a URL; give them to the backend")
    return Options(
        prefix="mq:" if prefix is None else check_prefix(prefix),
        timeout=3.0
        if connection_timeout is None
        else seconds_of(connection_timeout, "connection_timeout"),
    )
