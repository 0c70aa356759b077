"""How much of a queue each node should have: names and weights, checked, and exact shares.

Which shards those are is decided in ``placement.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from leanmq.sharding.hashing import check_shards

__all__ = ["MAX_NODES", "check_weight", "check_weights", "shares"]

MAX_NODES = 128
"""Nodes that one queue may be spread over."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def check_weights(nodes: Iterable[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """The weight of each node, by its name.

    Args:
        nodes: The names of all nodes, 1 to 128.
        weights: What they weigh in relation to each other; 1.0 for those that are not named.

    Returns:
        A new dict, in the order of ``nodes``.

    Raises:
        TypeError: If a name is no str, or a weight no number.
        ValueError: If there are no nodes or too many, a name is given twice or has other
            characters than ``A-Z a-z 0-9 . _ -``, or a weight is for a node that is not
            there, or is not a finite number above 0.

    Examples:
        >>> check_weights(["a", "b"], {"b": 2})
        {'a': 1.0, 'b': 2.0}
        >>> check_weights(["a", "b"], {"c": 2})
        Traceback (most recent call last):
        ValueError: a weight is given for node 'c', which is not one of a, b
    """
    names = [_check_node(node) for node in nodes]
    if not 1 <= len(names) <= MAX_NODES:
        raise ValueError(f"{len(names)} nodes are given; a queue is on 1 to {MAX_NODES}")
    checked = dict.fromkeys(names, 1.0)
    if len(checked) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"node {twice!r} is given twice; each needs a name of its own")
    if weights is not None and not isinstance(weights, Mapping):
        raise TypeError(
            f"weights is a {type(weights).__name__}; give numbers by the names of nodes, such as "
            f"{{{names[0]!r}: 2}}"
        )
    for name, weight in (weights or {}).items():
        if name not in checked:
            known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            raise ValueError(f"a weight is given for node {name!r}, which is not one of {known}")
        checked[name] = check_weight(name, weight)
    return checked


def shares(shards: int, weights: Mapping[str, float]) -> dict[str, Fraction]:
    """How many shards each node should have, exactly: ``shards`` * weight / sum of the weights.

    A weight counts as the decimal number that it is written as, so that 0.1, 0.2 and 0.3 of 60
    are 10, 20 and 30, which no sum of floats would give.

    Args:
        shards: How many there are.
        weights: As ``check_weights`` returns them.

    Returns:
        Share by name, sorted by name: nothing that follows depends on the order given.

    Examples:
        >>> shares(64, {"b": 2.0, "a": 1.0})
        {'a': Fraction(64, 3), 'b': Fraction(128, 3)}
    """
    check_shards(shards)
    exact = {name: Fraction(repr(weights[name])) for name in sorted(weights)}
    total = sum(exact.values())
    return {name: shards * weight / total for name, weight in exact.items()}


def check_weight(name: str, weight: object) -> float:
    """The weight of one node, if it can be one; raises as ``check_weights``."""
    problem = f"the weight of node {name!r} is {weight!r}; it must be a finite number above 0"
    if isinstance(weight, bool):
        raise ValueError(problem)
    if not isinstance(weight, int | float):
        raise TypeError(problem)
    try:
        value = float(weight)
    except OverflowError:  # an int beyond all floats
        raise ValueError(problem) from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(problem)
    return value


def _check_node(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of a node must be a str, not {type(name).__name__}")
    if not _NAME.match(name):
        shown = name if len(name) <= 70 else name[:67] + "..."
        raise ValueError(f"node {shown!r} cannot be named so; use 1 to 64 of A-Z a-z 0-9 . _ -")
    return name
