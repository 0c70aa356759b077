"""Who gets the next messages: shares that are exact, targets that come and go."""

from __future__ import annotations

import itertools
import random
import re
import sys
import timeit
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq.sharding import balance
from leanmq.sharding.balance import LeastBacklog, RoundRobin, Strategy, strategy_of
from leanmq.sharding.turns import Cycle, Quota, turns_of, whole
from tests.support.shares import EVEN, HEAVY, STRAYING, Weights, add, singles, strays
from tests.support.threads import at_once

DECIMAL: Weights = {"a": 0.3, "b": 0.7}
LONG: Weights = {"a": 0.123457, "b": 0.333331, "c": 1}
"""Their common cycle has more than a million turns."""
ONE: Weights = {"a": 2.5}
ALL = [EVEN, HEAVY, DECIMAL, STRAYING, LONG, ONE]

UNHURRIED = settings(deadline=None)
KINDS = pytest.mark.parametrize("kind", [RoundRobin, LeastBacklog])


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads that take turns every few microseconds."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# --- round robin: exact


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        (EVEN, "abcabcabc"),
        (HEAVY, "aabacaaaabacaa"),
        (DECIMAL, "babbabbbab" * 2),
        (ONE, "aaaaa"),
        ({"a": 2, "b": 4}, "babbab"),
    ],
)
def test_single_messages_are_mixed_evenly(weights: Weights, order: str) -> None:
    assert singles(RoundRobin(weights), len(order), weights) == order


@pytest.mark.usefixtures("impatient")
def test_nine_thousand_messages_of_eight_threads_are_three_thousand_for_each_of_three() -> None:
    strategy = RoundRobin(EVEN)

    def send(number: int) -> Counter[str]:
        return Counter(singles(strategy, 1_125, EVEN))

    assert sum(at_once(send), Counter()) == {"a": 3_000, "b": 3_000, "c": 3_000}


@pytest.mark.usefixtures("impatient")
def test_bulks_of_mixed_sizes_of_eight_threads_are_shared_as_exactly() -> None:
    strategy = RoundRobin(EVEN)
    sizes = [1, 2, 3, 5, 7, 10, 50, 100, 200, 747]  # 1,125

    def send(number: int) -> Counter[str]:
        counts = Counter[str]()
        for size in random.Random(number).sample(sizes, len(sizes)):
            add(counts, strategy.share("q", size, EVEN))
        return counts

    assert sum(at_once(send), Counter()) == {"a": 3_000, "b": 3_000, "c": 3_000}


@pytest.mark.parametrize("weights", [EVEN, HEAVY, LONG], ids=str)
def test_no_turn_is_given_twice_or_skipped_however_threads_disturb_each_other(
    weights: Weights,
) -> None:
    strategy = RoundRobin(weights)

    def send(number: int) -> Counter[str]:
        counts = Counter(singles(strategy, 15, weights))
        add(counts, strategy.share("q", 20, weights))
        return counts

    counts = sum(at_once(send, disturb=balance), Counter[str]())

    assert counts.total() == 8 * 35
    assert strays(counts, weights, weights) < 1
    # As if one had sent them all: the next bulk completes what the first began.
    add(counts, strategy.share("q", 1_000, weights))
    assert strays(counts, weights, weights) < 1


@pytest.mark.parametrize("weights", ALL, ids=str)
@UNHURRIED
@given(sizes=st.lists(st.just(1) | st.integers(1, 12) | st.integers(1, 5_000), max_size=40))
def test_after_every_call_each_target_has_its_share_to_less_than_a_message(
    weights: Weights, sizes: list[int]
) -> None:
    strategy = RoundRobin(weights)
    counts = Counter[str]()

    for size in sizes:
        parts = strategy.share("q", size, weights)

        assert sum(number for _, number in parts) == size
        assert all(number > 0 for _, number in parts)
        assert len(dict(parts)) == len(parts)
        add(counts, parts)
        assert strays(counts, weights, weights) < 1


WEIGHT = st.integers(1, 9) | st.integers(1, 10**12) | st.floats(0.001, 1_000)


@UNHURRIED
@given(
    some=st.lists(WEIGHT, min_size=1, max_size=9),
    sizes=st.lists(st.just(1) | st.integers(1, 5_000), max_size=40),
)
def test_that_holds_for_any_weights(some: list[float], sizes: list[int]) -> None:
    weights = dict(zip("abcdefghi", some, strict=False))
    strategy = RoundRobin(weights)
    counts = Counter[str]()

    for size in sizes:
        add(counts, strategy.share("q", size, weights))
        assert strays(counts, weights, weights) < 1


def test_a_sequence_by_quota_is_exact_for_all_small_weights_and_starts_over() -> None:
    for number in (1, 2, 3, 4):
        for some in itertools.product(range(1, 5), repeat=number):
            weights = dict(zip("abcd", some, strict=False))
            sequence, counts = Quota(weights), Counter[str]()
            place = sequence.start
            for _ in range(sum(some)):
                parts, place = sequence.take(place, 1)
                add(counts, parts)
                off = [abs(counts[t] * sum(some) - counts.total() * w) for t, w in weights.items()]
                assert max(off) < sum(some), (weights, counts)

            assert place == sequence.start
            assert sequence.take(place, 7 * sum(some))[1] == place


@UNHURRIED
@given(
    some=st.lists(st.integers(1, 60), min_size=1, max_size=9),
    sizes=st.lists(st.just(1) | st.integers(1, 300), max_size=40),
)
def test_a_sequence_by_quota_never_gets_stuck(some: list[int], sizes: list[int]) -> None:
    weights: Weights = dict(zip("abcdefghi", some, strict=False))
    sequence = Quota(whole(weights))
    place = sequence.start
    counts = Counter[str]()

    for size in sizes:
        parts, place = sequence.take(place, size)
        add(counts, parts)
        assert counts.total() <= sum(sizes)
        assert strays(counts, weights, weights) < 1
    assert counts.total() == sum(sizes)


@UNHURRIED
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 50), st.integers(1, 99))
def test_a_bulk_gives_each_target_what_single_messages_would_if_they_mix_evenly(
    some: list[int], before: int, size: int
) -> None:
    weights = dict(zip("abcd", some, strict=False))  # no four such weights go by quota
    one, other = RoundRobin(weights), RoundRobin(weights)
    assert singles(one, before, weights) == singles(other, before, weights)

    order = singles(other, size, weights)

    # In the order of their first turn, too.
    assert one.share("q", size, weights) == list(Counter(order).items())
    assert singles(one, 20, weights) == singles(other, 20, weights)


def test_weights_that_mix_evenly_do_so_and_others_go_by_quota() -> None:
    kinds = [type(turns_of(whole(weights))) for weights in ALL]

    assert kinds == [Cycle, Cycle, Cycle, Quota, Quota, Cycle]


@pytest.mark.parametrize("weights", [EVEN, HEAVY, DECIMAL, LONG], ids=str)
def test_a_bulk_takes_no_step_for_each_message(weights: Weights) -> None:
    strategy = RoundRobin(weights)

    def share(count: int) -> float:
        call = lambda: strategy.share("q", count, weights)  # noqa: E731  # for timeit
        return min(timeit.repeat(call, number=20, repeat=20)) / 20

    assert share(1_000) < 50e-6  # 3 to 11 on a quiet machine
    assert share(10**9) < 50e-6


# --- round robin: targets that leave and return, queues


def test_the_share_of_a_target_that_left_goes_to_the_others_by_weight() -> None:
    strategy = RoundRobin({"a": 5, "b": 1, "c": 2})
    strategy.share("q", 13, "abc")

    assert Counter(singles(strategy, 60, "bc")) == {"b": 20, "c": 40}
    assert dict(strategy.share("q", 600, "ab")) == {"a": 500, "b": 100}


def test_a_target_that_returns_gets_its_share_and_no_burst() -> None:
    strategy = RoundRobin(EVEN)
    before = singles(strategy, 4, EVEN)
    without = singles(strategy, 1_000, "ab")
    after = singles(strategy, 8, EVEN)

    assert (before, after) == ("abca", "bcabcabc")
    assert Counter(without) == {"a": 500, "b": 500}


def test_a_target_that_comes_and_goes_all_the_time_neither_wins_nor_loses() -> None:
    strategy = RoundRobin(HEAVY)
    whole_set, rest = Counter[str](), Counter[str]()
    for _ in range(700):
        add(whole_set, strategy.share("q", 1, "abc"))
        add(rest, strategy.share("q", 3, "bc"))

    assert whole_set == {"a": 500, "b": 100, "c": 100}
    assert rest == {"b": 1_050, "c": 1_050}


@pytest.mark.parametrize("weights", [HEAVY, STRAYING, LONG], ids=str)
@UNHURRIED
@given(data=st.data())
def test_for_any_changes_each_set_of_targets_has_its_own_exact_shares(
    weights: Weights, data: st.DataObject
) -> None:
    strategy = RoundRobin(weights)
    counts: dict[frozenset[str], Counter[str]] = {}
    sets = st.sets(st.sampled_from(sorted(weights)), min_size=1)
    calls = data.draw(st.lists(st.tuples(sets, st.just(1) | st.integers(1, 500)), max_size=30))

    for allowed, size in calls:
        parts = strategy.share("q", size, allowed)

        assert {target for target, _ in parts} <= allowed
        mine = counts.setdefault(frozenset(allowed), Counter())
        add(mine, parts)
        assert strays(mine, weights, allowed) < 1


def test_queues_are_shared_out_apart() -> None:
    strategy = RoundRobin(EVEN)

    assert singles(strategy, 2, EVEN, "one") == "ab"
    assert singles(strategy, 4, EVEN, "other") == "abca"
    assert singles(strategy, 2, EVEN, "one") == "ca"


def test_the_order_of_those_allowed_and_being_told_twice_make_no_difference() -> None:
    strategy = RoundRobin(EVEN)

    assert [strategy.share("q", 1, allowed) for allowed in ("abc", "cba", "bbaacc")] == [
        [("a", 1)],
        [("b", 1)],
        [("c", 1)],
    ]


def test_ten_thousand_queues_are_remembered_and_the_one_unused_for_longest_is_forgotten() -> None:
    strategy = RoundRobin(EVEN)
    for number in range(10_000):
        strategy.share(f"q{number}", 1, EVEN)
    assert strategy.share("q0", 1, EVEN) == [("b", 1)]

    strategy.share("one more", 1, EVEN)

    assert strategy.share("q0", 1, EVEN) == [("c", 1)]
    assert strategy.share("q2", 1, EVEN) == [("b", 1)]
    assert strategy.share("q1", 1, EVEN) == [("a", 1)], "forgotten, so it starts anew"


def test_round_robin_goes_by_no_figures() -> None:
    strategy: Strategy = RoundRobin(EVEN)

    assert not strategy.needs("q", 0.0)
    strategy.learn("q", {"a": 1_000_000}, 0.0)
    strategy.sent("q", "b", 1_000_000)

    assert singles(strategy, 6, EVEN) == "abcabc"


# --- by name, and what cannot be


def test_a_strategy_is_chosen_by_its_name() -> None:
    assert isinstance(strategy_of("round-robin", EVEN), RoundRobin)
    assert isinstance(strategy_of("least-backlog", EVEN), LeastBacklog)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("round_robin", ", did you mean 'round-robin'?"),
        ("leastbacklog", ", did you mean 'least-backlog'?"),
        ("random", "; known: round-robin, least-backlog"),
        ("", "; known: round-robin, least-backlog"),
    ],
)
def test_a_strategy_that_there_is_not_is_refused_and_the_nearest_named(
    name: str, hint: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"strategy {name!r} is not known{hint}")):
        strategy_of(name, EVEN)


@KINDS
@pytest.mark.parametrize(
    ("weights", "error", "text"),
    [
        ({}, ValueError, "weights are empty; give at least one target and its weight"),
        ({"a": 1, "b": 0}, ValueError, "the weight of node 'b' is 0; it must be a finite number"),
        ({"a": float("nan")}, ValueError, "the weight of node 'a' is nan"),
        ({"a": "2"}, TypeError, "the weight of node 'a' is '2'"),
    ],
)
def test_weights_that_cannot_be_are_refused(
    kind: type[RoundRobin | LeastBacklog], weights: Weights, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        kind(weights)


@KINDS
@pytest.mark.parametrize(
    ("count", "allowed", "text"),
    [
        (0, "ab", "count is 0; share out at least 1 message"),
        (1, "", "no target is allowed; give at least one"),
        (1, ["a", "x"], "target 'x' has no weight; known: a, b, c"),
    ],
)
def test_calls_that_cannot_be_answered_are_refused(
    kind: type[RoundRobin | LeastBacklog], count: int, allowed: Sequence[str], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        kind(EVEN).share("q", count, allowed)
