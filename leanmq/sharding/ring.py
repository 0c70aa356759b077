"""A consistent-hash ring: for a token, an order of all nodes that few changes disturb.

After Karger et al., "Consistent Hashing and Random Trees" (1997), with virtual points as ketama
has them. It proposes where shards go; where they are is a stored map (``placement.py``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from leanmq.sharding.hashing import hash64
from leanmq.sharding.weights import check_weights

__all__ = ["MAX_POINTS", "Ring"]

MAX_POINTS = 1_000_000
"""Points of all nodes of a ring together, which take 100 bytes each."""


class Ring:
    """Nodes on a circle of 2**64 places, each at many points.

    Point j of a node, from 0, is at ``hash64`` of ``<node>#<j>``. How many points a node has
    depends on its own weight only. So a node that is added takes tokens from others and moves
    none between them; one that is removed gives its own away; and one that gets heavier only
    takes.

    Args:
        weights: Weight by name: the node has ``points`` * weight points, rounded half up, and one
            at least.
        points: Points of a node of weight 1. With 160, what nodes of one weight get differs by
            about 8% (one standard deviation).

    Raises:
        TypeError: As ``check_weights``; or if ``points`` is no int.
        ValueError: As ``check_weights``; or if ``points`` is below 1, or all nodes together
            would have more than a million.

    Examples:
        >>> ring = Ring({"a": 1, "b": 1, "c": 2})
        >>> list(ring.nodes_for("order-1"))
        ['c', 'a', 'b']
    """

    def __init__(self, weights: Mapping[str, float], points: int = 160) -> None:
        checked = check_weights(weights, weights)
        if isinstance(points, bool) or not isinstance(points, int):
            raise TypeError(f"points must be an int, not {type(points).__name__}")
        if not 1 <= points <= MAX_POINTS:
            raise ValueError(f"points is {points}; a node of weight 1 has 1 to {MAX_POINTS}")
        wanted = {node: points * weight for node, weight in checked.items()}
        if sum(wanted.values()) > MAX_POINTS:
            raise ValueError(
                f"the nodes of the ring would have more than {MAX_POINTS} points; "
                f"use weights around 1, or fewer points"
            )
        # The name stands beside its point, so that points that coincide have an order too.
        placed = sorted(
            (hash64(b"%s#%d" % (node.encode(), number)), node)
            for node, many in wanted.items()
            for number in range(max(1, int(many + 0.5)))
        )
        self._points = [point for point, _ in placed]
        self._owners = [node for _, node in placed]
        self._size = len(checked)

    def __repr__(self) -> str:
        return f"<Ring of {self._size} nodes at {len(self._points)} points>"

    def nodes_for(self, token: str) -> Iterator[str]:
        """All nodes, each once, in the order in which the ring has them from the token on.

        The first is at the first point that is not before ``hash64`` of the token; after the last
        point comes the first.

        Args:
            token: What is to be placed.
        """
        start = bisect_left(self._points, hash64(token.encode()))
        seen: set[str] = set()
        for position in range(start - len(self._owners), start):  # below 0 counts from the end
            node = self._owners[position]
            if node not in seen:
                seen.add(node)
                yield node
                if len(seen) == self._size:
                    return
