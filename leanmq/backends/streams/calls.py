"""What an operation asks of a connection, and what it gets back.

Operations (``operations.py``) are generators that yield a ``Call``, a ``Many`` or a ``Wait``; the
drivers (``driver.py``) hand these to a connection. Nothing here does I/O or knows a topology.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from leanmq.errors import LeanMQError

__all__ = [
    "Call",
    "Command",
    "Hub",
    "Many",
    "Outcome",
    "Outcomes",
    "Reply",
    "Wait",
    "is_unknown_script",
]

Command: TypeAlias = "tuple[str | bytes | int, ...]"
Reply: TypeAlias = Any
"""A reply as RESP2 has it: bytes, int, None, or a list of replies."""

Outcome: TypeAlias = "Reply | LeanMQError"
"""What became of one command: its reply, or the mapped error as a value."""


def is_unknown_script(outcome: Outcome) -> bool:
    """Whether the server did nothing, since it does not know the script by its SHA-1."""
    return isinstance(outcome, LeanMQError) and outcome.code == "NOSCRIPT"


class Call(msgspec.Struct, frozen=True):
    """Commands for one connection: written at once, answered in order, not atomic.

    Attributes:
        commands: Each a tuple of the command's name and arguments.
        slot: A key. The call runs on the node that serves the slot of this key.
        idempotent: Whether running it twice does the same as once. If the reply to an
            idempotent call is lost, its outcome is ``ConnectionError(in_doubt=True)``;
            for any other call it is ``OutcomeUnknownError``.
        block: Seconds that the server may hold back the reply, or None. Calls that block run
            on connections of their own.
        wakes: Keys whose waiters should look again after this call.
    """

    commands: tuple[Command, ...]
    slot: str
    idempotent: bool
    block: float | None = None
    wakes: tuple[str, ...] = ()


class Many(msgspec.Struct, frozen=True):
    """Calls that need not wait for each other: each node gets its share of them at once.

    They are carried out in no order. Each has outcomes of its own, so that a slot that moves,
    or a node that is gone, is no trouble for the others.

    Attributes:
        calls: None blocks. One lost reply leaves those written after it in doubt, too.
    """

    calls: tuple[Call, ...]

    def __post_init__(self) -> None:
        if not all(call.block is None for call in self.calls):
            raise ValueError("calls that go together must not block")


class Hub(Protocol):
    """Where to wait for messages where no server can be left blocking: in memory, and on many
    slots of a cluster.

    It has a version number per key: read it before looking, wait on it afterwards, and no
    wake-up in between is missed.
    """

    def version(self, key: str) -> int:
        """How often the key was woken so far."""
        ...

    def wait(self, wait: Wait) -> None:
        """Wait as told, blocking the thread."""
        ...

    async def wait_async(self, wait: Wait) -> None:
        """Wait as told, suspending the task."""
        ...


class Wait(msgspec.Struct, frozen=True):
    """Wait on ``hub`` until one of ``keys`` was woken after the version of it that was ``seen``,
    at most ``seconds``."""

    hub: Hub
    keys: tuple[str, ...]
    seen: tuple[int, ...]
    seconds: float


Outcomes: TypeAlias = Sequence[Outcome]
