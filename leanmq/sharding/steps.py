"""What a router asks of its nodes: its plans are generators that yield these steps.

The plans (``routing.py``) do no I/O and know neither threads nor asyncio; ``nodes.py`` drives them.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

from leanmq.backends.many import Request, Watch

__all__ = ["TOGETHER", "Ask", "Asks", "Background", "Plan", "Sleep", "Watching"]

T = TypeVar("T")

Ask: TypeAlias = tuple[int, "Request | Literal['open', 'ping', 'close']"]
"""The place of a node, and what is asked of it."""


class Asks(msgspec.Struct, frozen=True):
    """Ask nodes at the same time, each all that it is asked together.

    Answered by a list of results in order. An error of LeanMQ is a result; nothing is raised.
    """

    asks: Sequence[Ask]


TOGETHER: Final = 0.05
"""Seconds within which watches that began together end."""


class Watching(msgspec.Struct, frozen=True):
    """Wait until something came on one of the nodes, or a watch ended early; about ``seconds``.

    Answered by a list: for each node what its watch returned, its error, or None if it still
    goes on. Watches that end with the time are all waited for: else the next wait would join one
    that is about to end.
    """

    watches: Sequence[tuple[int, Watch]]
    seconds: float


class Sleep(msgspec.Struct, frozen=True):
    """Let ``seconds`` pass."""

    seconds: float


class Background(msgspec.Struct, frozen=True):
    """Carry out a plan beside all else; nobody waits for it. What it raises is dropped."""

    plan: Plan[None]


Plan: TypeAlias = Generator["Asks | Watching | Sleep | Background", Any, T]
