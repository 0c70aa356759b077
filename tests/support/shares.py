"""Weights of targets, and how exactly messages are shared out by them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from fractions import Fraction
from typing import TypeAlias

from leanmq.sharding.balance import Strategy

__all__ = ["EVEN", "HEAVY", "STRAYING", "Weights", "add", "singles", "strays"]

Weights: TypeAlias = dict[str, float]

EVEN: Weights = {"a": 1, "b": 1, "c": 1}
HEAVY: Weights = {"a": 5, "b": 1, "c": 1}
STRAYING: Weights = {"a": 2, "b": 1, "c": 47, "d": 9, "e": 51}
"""Smooth weighted round robin would let one of them fall a whole message behind."""


def singles(strategy: Strategy, number: int, allowed: Collection[str], queue: str = "q") -> str:
    """Where so many messages go, sent one by one."""
    return "".join(strategy.share(queue, 1, allowed)[0][0] for _ in range(number))


def add(counts: Counter[str], parts: list[tuple[str, int]]) -> None:
    """Count the messages of one call."""
    counts.update(dict(parts))


def strays(counts: Counter[str], weights: Weights, among: Collection[str]) -> Fraction:
    """How far the counts are off the exact share at most, in messages."""
    exact = {target: Fraction(str(weights[target])) for target in among}
    total = sum(exact.values())
    sent = sum(counts.values())
    return max(abs(counts[target] - sent * weight / total) for target, weight in exact.items())
