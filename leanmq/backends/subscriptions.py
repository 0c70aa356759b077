"""What one connection to a server is subscribed to, and what comes there. Does no I/O.

The replies are read here and not by redis-py, whose parsers differ between its versions in what
they hold back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

import attrs

from leanmq.backends.lines import pack
from leanmq.backends.streams.calls import Command

__all__ = ["IDLE", "QUIET", "Refused", "Replies", "Subscriptions"]

IDLE: Final = 10.0
"""Seconds after which a subscription that nobody needed is given up."""

QUIET: Final = 2.0
"""Seconds without a word after which the server is asked whether it is there, and given again."""


@attrs.frozen
class Refused:
    """An error reply."""

    text: str


Reply: TypeAlias = "bytes | int | Refused | list[Reply] | None"


class Replies:
    """Takes bytes as they come and gives the replies that are complete.

    >>> replies = Replies()
    >>> list(replies.feed(b"*2\\r\\n$2\\r\\nhi\\r\\n:1\\r\\n-NOPERM n"))
    [[b'hi', 1]]
    >>> list(replies.feed(b"o\\r\\n"))
    [Refused(text='NOPERM no')]
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Reply]:
        """The replies that end in this piece; raises ValueError if it is none of RESP2."""
        data, at = self._rest + data, 0
        while (found := _parse(data, at)) is not None:
            reply, at = found
            yield reply
        self._rest = data[at:]


def _parse(data: bytes, at: int) -> tuple[Reply, int] | None:
    """The reply that begins there, and where it ends; None if that is still to come."""
    end = data.find(b"\r\n", at)
    if end < 0:
        return None
    kind, text, after = data[at : at + 1], data[at + 1 : end], end + 2
    if kind == b"+":
        return text, after
    if kind == b"-":
        return Refused(text.decode(errors="replace")), after
    size = int(text)
    if kind == b":":
        return size, after
    if size < 0:
        return None, after
    if kind == b"$":
        end = after + size
        return (data[after:end], end + 2) if len(data) >= end + 2 else None
    if kind != b"*":
        raise ValueError(f"{kind!r} begins no reply")
    items: list[Reply] = []
    while len(items) < size:
        found = _parse(data, after)
        if found is None:
            return None
        item, after = found
        items.append(item)
    return items, after


class Subscriptions:
    """The keys that are waited for on one connection. Not thread-safe.

    Args:
        now: Seconds on a clock that never goes back, here and below.
    """

    def __init__(self, now: float) -> None:
        self.refusal = ""
        self._replies = Replies()
        self._wanted: dict[str, float] = {}  # when somebody last waited for it
        self._fresh: list[str] = []
        self._stale: list[str] = []
        self._held: set[str] = set()
        self._unanswered: deque[tuple[str, str]] = deque()
        self._used = self._tidied = self._heard = now
        self._asked: float | None = None  # whether it is there

    def want(self, keys: Iterable[str], now: float) -> bool:
        """Somebody waits for these; returns whether there is something to write for that."""
        for key in keys:
            if key not in self._wanted:
                self._fresh.append(key)
            self._wanted[key] = now
        self._used = now
        if now >= self._tidied + IDLE:
            self._tidied = now
            for key in [key for key in self._held if self._wanted[key] < now - IDLE]:
                self._stale.append(key)
                self._forget(key)
        return bool(self._fresh or self._stale)

    def holds(self, key: str) -> bool:
        """Whether a wake-up for the key would come here."""
        return key in self._held

    def held(self) -> tuple[str, ...]:
        """The keys whose wake-ups come here."""
        return tuple(self._held)

    def is_idle(self, now: float) -> bool:
        """Whether nobody waits any more."""
        return now >= self._used + IDLE

    def is_lost(self, now: float) -> bool:
        """Whether the server does not answer."""
        return self._asked is not None and now >= self._asked + QUIET

    def requests(self, now: float) -> bytes:
        """What is to be written now: a command for each key, since they may differ in slot."""
        commands: list[Command] = [("SUNSUBSCRIBE", key) for key in self._stale]
        commands += [("SSUBSCRIBE", key) for key in self._fresh]
        self._stale, self._fresh = [], []
        if self._asked is None and now >= self._heard + QUIET:
            self._asked = now
            commands.append(("PING", ""))
        self._unanswered += [(str(name).lower(), str(key)) for name, key in commands]
        return pack(commands)

    def take(self, data: bytes, now: float) -> set[str]:
        """Read what came; returns the keys to look at again.

        Raises:
            ValueError: If it makes no sense. The connection is then of no use.
        """
        self._heard, self._asked = now, None
        awake: set[str] = set()
        for reply in self._replies.feed(data):
            if isinstance(reply, Refused):
                awake |= self._refused(reply.text)
                continue
            match reply:
                case [b"smessage", bytes(channel), _]:
                    awake.add(channel.decode())
                case [b"ssubscribe", bytes(channel), _]:
                    # What came between the look and now was told to nobody.
                    awake.add(channel.decode())
                    self._held.add(self._answered("ssubscribe", channel.decode()))
                case [b"sunsubscribe", bytes(channel), _]:
                    awake |= self._unsubscribed(channel.decode())
                case b"PONG" | [b"pong", _]:
                    self._answered("ping", "")
                case _:
                    raise ValueError(f"unexpected reply {reply!r}")
        return awake

    def _answered(self, name: str, key: str) -> str:
        if not self._unanswered or self._unanswered.popleft() != (name, key):
            raise ValueError(f"an answer to {name}, which was not asked")
        return key

    def _unsubscribed(self, key: str) -> set[str]:
        """We asked for it, or its slot went to another server."""
        if self._unanswered and self._unanswered[0] == ("sunsubscribe", key):
            self._unanswered.popleft()
            return set()
        if key not in self._held:
            return set()
        self._forget(key)
        return {key}

    def _refused(self, text: str) -> set[str]:
        if not self._unanswered:
            raise ValueError("an error without a question")
        name, key = self._unanswered.popleft()
        if name != "ssubscribe":
            return set()
        self._wanted.pop(key, None)
        if text.startswith("MOVED "):
            return {key}  # who looks learns where it is now
        self.refusal = text
        return set()

    def _forget(self, key: str) -> None:
        self._held.discard(key)
        self._wanted.pop(key, None)
