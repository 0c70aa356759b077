"""Who is next, by weight: pure functions from a place in an endless sequence to the next place.

After every call each target has its weighted share of all messages so far, to within less than
one message. Remembers nothing; ``balance.py`` keeps the places.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Protocol, TypeAlias

from leanmq.sharding.weights import check_weight

__all__ = ["Cycle", "Part", "Place", "Quota", "Turns", "turns_of", "whole"]

Part: TypeAlias = tuple[str, int]
"""A target, and how many messages go there."""

Place: TypeAlias = tuple[int, ...]
"""How far a sequence has come; what it holds is the business of its ``Turns``."""

LONGEST_CYCLE = 1_000
"""Turns of a cycle that is written out; takes a millisecond and some kilobytes."""


class Turns(Protocol):
    """An endless sequence of targets."""

    @property
    def start(self) -> Place:
        """The place before the first turn."""
        ...

    def take(self, place: Place, count: int) -> tuple[list[Part], Place]:
        """The next ``count`` turns (at least 1), and the place after them.

        Each target comes once, in the order of its first turn; those without a turn are left out.
        """
        ...


def whole(weights: Mapping[str, float]) -> dict[str, int]:
    """Weights as the smallest whole numbers that have the same proportions, decimals as written.

    Raises:
        TypeError: if a weight is not a number.
        ValueError: if there are none, or one is not above 0, or not finite.

    Examples:
        >>> whole({"a": 0.3, "b": 0.7})
        {'a': 3, 'b': 7}
        >>> whole({"a": 10, "b": 2.5})
        {'a': 4, 'b': 1}
        >>> whole({"a": 1, "b": 0})
        Traceback (most recent call last):
        ValueError: the weight of node 'b' is 0; it must be a finite number above 0
    """
    if not weights:
        raise ValueError("weights are empty; give at least one target and its weight")
    # By its shortest text, 0.1 is a tenth; as stored it is 3602879701896397 / 2**55.
    exact = {
        target: Fraction(repr(check_weight(target, weight))) for target, weight in weights.items()
    }
    scale = math.lcm(*[weight.denominator for weight in exact.values()])
    return _reduced({target: int(weight * scale) for target, weight in exact.items()})


def turns_of(weights: Mapping[str, int]) -> Turns:
    """The sequence for these weights: evenly mixed where that is exact, else by quota.

    Args:
        weights: By target, in whole numbers above 0.
    """
    reduced = _reduced(weights)
    order = smooth(reduced) if sum(reduced.values()) <= LONGEST_CYCLE else None
    return Quota(reduced) if order is None else Cycle(order)


def smooth(weights: Mapping[str, int]) -> list[str] | None:
    """A cycle of turns that mixes targets evenly, or None if its counts stray too far.

    The smooth weighted round robin of nginx (Dounin, 2012). A credit is how far a target is behind
    its share, times the sum of the weights. From five targets on some weights let one fall a whole
    message behind (2, 1, 47, 9, 51 do), which is why it is checked here.

    Examples:
        >>> "".join(smooth({"a": 5, "b": 1, "c": 1}))
        'aabacaa'
        >>> smooth({"a": 2, "b": 1, "c": 47, "d": 9, "e": 51}) is None
        True
    """
    total = sum(weights.values())
    credit = dict.fromkeys(weights, 0)
    order = []
    for _ in range(total):
        for target, weight in weights.items():
            credit[target] += weight
        chosen = max(credit, key=credit.__getitem__)  # the first of several, as nginx does
        credit[chosen] -= total
        order.append(chosen)
        if max(credit.values()) >= total:
            return None
    return order


class Cycle:
    """A sequence that repeats a list of targets. Its place is the index of the next turn.

    Examples:
        >>> turns = Cycle("aabacaa")
        >>> turns.take(turns.start, 4)
        ([('a', 3), ('b', 1)], (4,))
        >>> turns.take((4,), 1_000_000)
        ([('c', 142858), ('a', 714285), ('b', 142857)], (5,))
    """

    start: Place = (0,)

    def __init__(self, order: Sequence[str]) -> None:
        self._order = tuple(order)
        self._turns: dict[str, list[int]] = {}
        for index, target in enumerate(self._order):
            self._turns.setdefault(target, []).append(index)

    def take(self, place: Place, count: int) -> tuple[list[Part], Place]:
        """As ``Turns``; takes no longer for a million turns than for two."""
        (at,) = place
        length = len(self._order)
        cycles, end = divmod(at + count, length)
        if count == 1:
            return [(self._order[at], 1)], (end,)
        parts = []
        for target, turns in self._turns.items():
            before = bisect_left(turns, at)
            if number := cycles * len(turns) + bisect_left(turns, end) - before:
                first = turns[before] if before < len(turns) else turns[0] + length
                parts.append((first, target, number))
        parts.sort()
        return [(target, number) for _, target, number in parts], (end,)


class Quota:
    """A sequence for any weights, however large their common cycle, in whole numbers throughout.

    Its place is how many turns there were, and how many of each target. With W the sum of the
    weights, a target of weight w has after T turns T*w/W rounded down or up, never anything else.
    Those that are rounded up are the ones whose next turn is due first. Source: the quota method,
    Still, A class of new methods for congressional apportionment (1979).

    Why there are always enough turns. Turn j of a target is *due* by the first T with T*w/W >= j.
    Claim: at T, for every later T', at most T' - T turns are due by T' and not taken.

    - At T = 0 they are the sum of all T'*w/W rounded down, which is at most T'.
    - From N to T, what is due by T can be taken, by the claim at N. The rest of the turns go to
      those whose next one is due first. If they are all due by T', then T - N of the turns that
      were due by T' are taken, and the claim at N gives the claim at T. If one is due after T',
      then every target that has one due by T' was given it: each has at least T*w/W rounded up,
      what it is due until T' is at most (T' - T)*w/W, and the sum of these is T' - T.

    Examples:
        >>> turns = Quota({"a": 5, "b": 1, "c": 1})
        >>> turns.take(turns.start, 4)
        ([('a', 3), ('b', 1)], (4, 3, 1, 0))
        >>> turns.take((4, 3, 1, 0), 3)
        ([('a', 2), ('c', 1)], (0, 0, 0, 0))
    """

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = dict(weights)
        self._total = sum(weights.values())
        self.start: Place = (0,) * (1 + len(weights))

    def take(self, place: Place, count: int) -> tuple[list[Part], Place]:
        """As ``Turns``; takes no longer for a million turns than for two."""
        total = self._total
        end = place[0] + count
        rest = end
        counts, undecided = [], []
        for index, (weight, had) in enumerate(zip(self._weights.values(), place[1:], strict=True)):
            least, fraction = divmod(end * weight, total)
            if fraction and had <= least:
                undecided.append((self._due(least + 1, weight), index))
            counts.append(max(had, least))
            rest -= counts[-1]
        undecided.sort()
        for _, index in undecided[:rest]:
            counts[index] += 1
        parts = sorted(
            (self._due(had + 1, weight), target, now - had)
            for (target, weight), had, now in zip(
                self._weights.items(), place[1:], counts, strict=True
            )
            if now > had
        )
        cycles = end // total  # taken off, or the numbers would grow for ever
        left = [
            now - cycles * weight
            for weight, now in zip(self._weights.values(), counts, strict=True)
        ]
        return [(target, number) for _, target, number in parts], (end - cycles * total, *left)

    def _due(self, turn: int, weight: int) -> int:
        return -(-turn * self._total // weight)


def _reduced(weights: Mapping[str, int]) -> dict[str, int]:
    common = math.gcd(*weights.values())
    return {target: weight // common for target, weight in weights.items()}
