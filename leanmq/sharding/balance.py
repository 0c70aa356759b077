"""Which target gets the next messages: round robin by weight, or the least backlog of two.

No I/O and no clock: figures and the time are handed in. What is sent, and whether it arrived, is
the router's business.
"""

from __future__ import annotations

import difflib
import math
import random
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Final, Protocol, TypeVar

import attrs

from leanmq.sharding.turns import Part, Place, Turns, turns_of, whole

__all__ = ["LeastBacklog", "RoundRobin", "Strategy", "strategy_of"]

QUEUES_KEPT = 10_000
"""Queues that a strategy remembers; the one unused for longest starts anew. A round robin counts
a queue once for each set of targets that it had."""

SETS_KEPT = 100
"""Sets of targets whose cycles are kept written out."""

FRESH = 1.0
"""Seconds that figures are used before new ones are asked for."""

ANSWER_WITHIN = 2.0
"""Seconds after which figures that were asked for are given up, and asked for by another."""

STALE = 10.0
"""Seconds after which figures that could not be renewed count as none."""

K = TypeVar("K")
V = TypeVar("V")


class Strategy(Protocol):
    """Shares messages out among targets. May be called by any number of threads.

    A router asks ``needs`` now and then, and if so brings figures with ``learn``; it tells ``sent``
    what it stored. A strategy that goes by no figures answers False and listens to nothing.
    """

    def share(self, queue: str, count: int, allowed: Collection[str]) -> list[Part]:
        """How many of the next messages go to which target.

        Args:
            queue: Name of the queue; each is shared out by itself.
            count: Number of messages, at least 1.
            allowed: The targets that may be used now, at least one.

        Returns:
            Targets with their number of messages, in the order in which they are to be taken from
            the batch. Each target at most once, none without messages; the numbers add up to
            ``count``.

        Raises:
            ValueError: if ``count`` is below 1, or ``allowed`` is empty or names a target that has
                no weight.
        """
        ...

    def needs(self, queue: str, now: float) -> bool:
        """Whether the caller should bring figures of this queue; true for one caller at a time.

        Args:
            queue: Name of the queue.
            now: Seconds on a monotonic clock.
        """
        ...

    def learn(self, queue: str, backlog: Mapping[str, int], now: float) -> None:
        """Figures of this queue.

        Args:
            queue: Name of the queue.
            backlog: Messages by target; targets that did not answer are left out.
            now: Seconds on the clock of ``needs``.
        """
        ...

    def sent(self, queue: str, target: str, count: int) -> None:
        """So many messages of this queue were stored at this target."""
        ...


class RoundRobin:
    """Each target gets its share by weight, exactly, and mixed as evenly as can be.

    As long as all targets are allowed, each has its share of a queue's messages to within less
    than one message after every call, sent one by one or in bulk, by however many threads. Every
    other set of targets has a sequence of its own, just as exact, that goes on where it stopped
    when the set was allowed last. So those that are left share out by weight what a target that
    is left out would get, and one that comes back goes on with its own turns: no burst to catch
    up, and none skipped. The sequences are those of ``turns.py``.

    Args:
        weights: By target; only the proportions matter.

    Raises:
        TypeError: if a weight is not a number.
        ValueError: if there are none, or one is not above 0, or not finite.

    Examples:
        >>> strategy = RoundRobin({"a": 5, "b": 1, "c": 1})
        >>> "".join(strategy.share("orders", 1, "abc")[0][0] for _ in range(7))
        'aabacaa'
        >>> strategy.share("orders", 700, "abc")
        [('a', 500), ('b', 100), ('c', 100)]
        >>> strategy.share("orders", 600, "ac")
        [('a', 500), ('c', 100)]
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = whole(weights)
        self._lock = threading.Lock()
        self._turns: OrderedDict[frozenset[str], Turns] = OrderedDict()
        self._places: OrderedDict[tuple[str, frozenset[str]], Place] = OrderedDict()

    def share(self, queue: str, count: int, allowed: Collection[str]) -> list[Part]:
        """As ``Strategy``; takes no longer for a thousand messages than for two."""
        targets = _checked(count, allowed, self._weights)
        key = (queue, targets)
        with self._lock:
            turns = self._turns.get(targets) or turns_of(
                {name: weight for name, weight in self._weights.items() if name in targets}
            )
            parts, place = turns.take(self._places.get(key, turns.start), count)
            _keep(self._turns, targets, turns, SETS_KEPT)
            _keep(self._places, key, place, QUEUES_KEPT)
        return parts

    def needs(self, queue: str, now: float) -> bool:
        """Never: this goes by no figures."""
        return False

    def learn(self, queue: str, backlog: Mapping[str, int], now: float) -> None:
        """Changes nothing."""

    def sent(self, queue: str, target: str, count: int) -> None:
        """Changes nothing."""


@attrs.define
class Figures:
    """What is known of one queue."""

    backlog: Mapping[str, int] = attrs.Factory(dict)
    sent: dict[str, int] = attrs.Factory(dict)
    """Own messages by target that ``backlog`` may lack."""
    since_asked: dict[str, int] | None = None
    """Own messages since new figures were asked for; None if they were not."""
    learned: float = -math.inf
    given_up: float = -math.inf
    """When another may ask for figures."""

    def load(self, weights: Mapping[str, int]) -> dict[str, float]:
        """Messages for each unit of weight, by target; empty if nothing is known of these."""
        known = [target for target in weights if target in self.backlog]
        if not known:
            return {}
        average = sum(self.backlog[t] for t in known) / sum(weights[t] for t in known)
        return {
            target: self.sent.get(target, 0) / weight
            + (self.backlog[target] / weight if target in self.backlog else average)
            for target, weight in weights.items()
        }


class LeastBacklog:
    """Of two targets taken at random by weight, the one with the smaller backlog for its weight.

    That keeps backlogs nearly as even as asking for the least of all would, and producers that
    have the same figures do not all run to the same target. Source: Mitzenmacher, The Power of
    Two Choices in Randomized Load Balancing (2001). Backlogs are the latest figures and what was
    sent since. Until there are figures it is a ``RoundRobin``, and again when they could not be
    renewed for 10 seconds. A target that the figures lack counts as the average.

    A bulk goes in as many equal portions as targets are allowed, each placed in this way.

    Args:
        weights: By target; only the proportions matter.
        seed: For choices that repeat themselves, in tests.

    Raises:
        TypeError: if a weight is not a number.
        ValueError: if there are none, or one is not above 0, or not finite.

    Examples:
        >>> strategy = LeastBacklog({"a": 1, "b": 1})
        >>> strategy.needs("orders", now=0.0)
        True
        >>> strategy.learn("orders", {"a": 20, "b": 5}, now=0.1)
        >>> strategy.share("orders", 1, ["a", "b"])
        [('b', 1)]
        >>> strategy.sent("orders", "b", 30)
        >>> strategy.share("orders", 1, ["a", "b"])
        [('a', 1)]
    """

    def __init__(self, weights: Mapping[str, float], seed: int | None = None) -> None:
        self._weights = whole(weights)
        self._rounds = RoundRobin(weights)
        # The shared generator is seeded anew in a forked child; one of ours would repeat itself.
        source = random if seed is None else random.Random(seed)
        self._below: Callable[[int], int] = source.randrange
        self._lock = threading.Lock()
        self._figures: OrderedDict[str, Figures] = OrderedDict()

    def share(self, queue: str, count: int, allowed: Collection[str]) -> list[Part]:
        """As ``Strategy``."""
        targets = _checked(count, allowed, self._weights)
        # In the order of the weights, so that a seed means the same in every process.
        weights = {name: weight for name, weight in self._weights.items() if name in targets}
        with self._lock:
            figures = self._figures.get(queue)
            load = figures.load(weights) if figures else {}
        if not load:
            return self._rounds.share(queue, count, targets)
        parts: dict[str, int] = {}
        for size in _portions(count, len(weights)):
            target = min(self._two(weights), key=load.__getitem__)
            load[target] += size / weights[target]
            parts[target] = parts.get(target, 0) + size
        return list(parts.items())

    def needs(self, queue: str, now: float) -> bool:
        """As ``Strategy``: if figures are missing or older than a second.

        A caller that does not bring them within 2 seconds is given up, and another may.
        """
        with self._lock:
            figures = self._figures.get(queue) or Figures()
            _keep(self._figures, queue, figures, QUEUES_KEPT)
            age = now - figures.learned
            if age <= FRESH or now < figures.given_up:
                return False
            if age > STALE:
                figures.backlog, figures.sent = {}, {}
            figures.since_asked = {}
            figures.given_up = now + ANSWER_WITHIN
            return True

    def learn(self, queue: str, backlog: Mapping[str, int], now: float) -> None:
        """As ``Strategy``.

        What was sent since the figures were asked for is added to them: they may have it already,
        but a message counted twice for a second does less harm than one that is not seen.
        """
        with self._lock:
            figures = self._figures.get(queue) or Figures()
            _keep(self._figures, queue, figures, QUEUES_KEPT)
            figures.backlog = dict(backlog)
            figures.sent = figures.since_asked or {}
            figures.since_asked = None
            figures.learned, figures.given_up = now, -math.inf

    def sent(self, queue: str, target: str, count: int) -> None:
        """As ``Strategy``; for a queue that nobody asked figures of this changes nothing."""
        with self._lock:
            if figures := self._figures.get(queue):
                figures.sent[target] = figures.sent.get(target, 0) + count
                if figures.since_asked is not None:
                    figures.since_asked[target] = figures.since_asked.get(target, 0) + count

    def _two(self, weights: Mapping[str, int]) -> Sequence[str]:
        """Two targets, or the only one, drawn by weight and in the order of drawing."""
        names, upto = list(weights), list(accumulate(weights.values()))
        first = bisect_right(upto, self._below(upto[-1]))
        if len(names) == 1:
            return names
        # As if the first were not there.
        weight = weights[names[first]]
        at = self._below(upto[-1] - weight)
        second = bisect_right(upto, at + weight if at >= upto[first] - weight else at)
        return names[first], names[second]


_STRATEGIES: Final[dict[str, Callable[[Mapping[str, float]], Strategy]]] = {
    "round-robin": RoundRobin,
    "least-backlog": LeastBacklog,
}


def strategy_of(name: str, weights: Mapping[str, float]) -> Strategy:
    """The strategy of this name.

    Args:
        name: ``"round-robin"`` or ``"least-backlog"``.
        weights: By target; only the proportions matter.

    Raises:
        TypeError: if a weight is not a number.
        ValueError: if there is no such strategy, or the weights cannot be.

    Examples:
        >>> strategy_of("roundrobin", {"a": 1})
        Traceback (most recent call last):
        ValueError: strategy 'roundrobin' is not known, did you mean 'round-robin'?
    """
    if name in _STRATEGIES:
        return _STRATEGIES[name](weights)
    near = difflib.get_close_matches(str(name), _STRATEGIES, n=1)
    hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(_STRATEGIES)}"
    raise ValueError(f"strategy {name!r} is not known{hint}")


def _checked(count: int, allowed: Iterable[str], weights: Mapping[str, int]) -> frozenset[str]:
    if count < 1:
        raise ValueError(f"count is {count}; share out at least 1 message")
    targets = frozenset(allowed)
    if not targets:
        raise ValueError("no target is allowed; give at least one")
    if unknown := targets - weights.keys():
        raise ValueError(f"target {min(unknown)!r} has no weight; known: {', '.join(weights)}")
    return targets


def _portions(count: int, most: int) -> list[int]:
    number = min(count, most)
    least, more = divmod(count, number)
    return [least + 1] * more + [least] * (number - more)


def _keep(kept: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > most:
        kept.popitem(last=False)
