"""The lesser of two backlogs: figures, what was sent since, and choices by chance."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq.sharding import balance
from leanmq.sharding.balance import LeastBacklog, RoundRobin
from tests.support.shares import EVEN, HEAVY, STRAYING, Weights, singles, strays
from tests.support.threads import at_once

EVEN_BACKLOG = {"a": 0, "b": 0, "c": 0}
UNHURRIED = settings(deadline=None)


def informed(weights: Weights, **backlog: int) -> LeastBacklog:
    strategy = LeastBacklog(weights, seed=7)
    assert strategy.needs("q", 0.0)
    strategy.learn("q", backlog, 0.0)
    return strategy


def fill(strategy: LeastBacklog, backlog: Counter[str], number: int, allowed: str) -> None:
    """Send messages one by one, each of them counted."""
    for _ in range(number):
        for target, count in strategy.share("q", 1, allowed):
            backlog[target] += count
            strategy.sent("q", target, count)


def test_of_two_targets_the_one_with_less_gets_the_message() -> None:
    strategy = informed({"a": 1, "b": 1}, a=20, b=5)

    assert singles(strategy, 20, "ab") == "b" * 20


def test_a_backlog_counts_by_weight() -> None:
    assert singles(informed({"a": 5, "b": 1}, a=20, b=5), 20, "ab") == "a" * 20
    assert singles(informed({"a": 5, "b": 1}, a=30, b=5), 20, "ab") == "b" * 20


def test_two_are_drawn_by_weight_and_the_worst_of_all_is_never_taken() -> None:
    strategy = informed({"a": 2, "b": 1, "c": 1, "d": 1}, a=0, b=1, c=2, d=3)

    counts = Counter(singles(strategy, 10_000, "abcd"))

    # a is the first with 2/5, else the second with 2/4; then it is best, and d never is.
    assert counts["d"] == 0
    assert counts["a"] == pytest.approx(7_000, abs=250)
    # b when a is not drawn, and b is: three pairs are left, two of them with b.
    assert counts["b"] == pytest.approx(2_000, abs=250)


def test_what_was_sent_since_is_added() -> None:
    strategy = informed({"a": 1, "b": 1}, a=20, b=5)

    strategy.sent("q", "b", 14)
    assert singles(strategy, 5, "ab") == "bbbbb"
    strategy.sent("q", "b", 2)
    assert singles(strategy, 5, "ab") == "aaaaa"
    strategy.sent("another queue", "a", 100)
    assert singles(strategy, 5, "ab") == "aaaaa"


@pytest.mark.parametrize("weights", [EVEN, HEAVY, {"a": 0.2, "b": 0.3, "c": 0.5}], ids=str)
def test_backlogs_become_even_by_weight(weights: Weights) -> None:
    backlog = Counter(a=500, b=0, c=100)
    strategy = informed(weights, **backlog)

    fill(strategy, backlog, 6_400, "abc")

    assert strays(backlog, weights, "abc") < 15


def test_until_there_are_figures_messages_go_round() -> None:
    strategy = LeastBacklog(HEAVY, seed=7)
    assert singles(strategy, 7, HEAVY) == "aabacaa"
    assert strategy.needs("q", 0.0)
    assert singles(strategy, 7, HEAVY) == "aabacaa"

    strategy.learn("q", {}, 0.0)  # nobody answered
    assert singles(strategy, 7, HEAVY) == "aabacaa"
    assert not strategy.needs("q", 0.5), "asking again at once would not help"
    strategy.learn("q", {"c": 5}, 0.5)
    assert singles(strategy, 6, "ab") == "aaabaa"  # nothing is known of these
    assert singles(strategy, 7, HEAVY) != "aabacaa"


def test_figures_are_asked_for_by_one_caller_when_they_are_missing_or_a_second_old() -> None:
    strategy = LeastBacklog(EVEN)
    assert [strategy.needs("q", 100.0) for _ in range(3)] == [True, False, False]
    assert strategy.needs("another", 100.0)

    strategy.learn("q", EVEN_BACKLOG, 100.2)

    assert not strategy.needs("q", 101.2)
    assert [strategy.needs("q", 101.3) for _ in range(3)] == [True, False, False]


def test_who_does_not_bring_the_figures_within_two_seconds_is_given_up() -> None:
    strategy = LeastBacklog(EVEN)
    assert strategy.needs("q", 100.0)

    assert not strategy.needs("q", 101.9)
    assert [strategy.needs("q", 102.0) for _ in range(3)] == [True, False, False]


def test_what_is_sent_while_figures_are_asked_for_is_not_forgotten() -> None:
    strategy = informed({"a": 1, "b": 1}, a=0, b=0)
    strategy.sent("q", "a", 100)
    assert strategy.needs("q", 1.5)
    strategy.sent("q", "a", 8)

    strategy.learn("q", {"a": 0, "b": 7}, 1.6)

    assert singles(strategy, 5, "ab") == "bbbbb", "a has 0 and 8, without the 100"
    strategy.learn("q", {"a": 0, "b": 7}, 1.7)
    assert singles(strategy, 5, "ab") == "aaaaa"


def test_figures_that_could_not_be_renewed_are_forgotten_after_ten_seconds() -> None:
    strategy = informed(EVEN, a=1_000, b=0, c=0)
    for second in (3.0, 6.0, 9.0):
        assert strategy.needs("q", second)
        assert "a" not in singles(strategy, 9, EVEN)

    assert strategy.needs("q", 12.0)

    assert singles(strategy, 9, EVEN) == "abcabcabc"


def test_a_target_without_figures_counts_as_the_average() -> None:
    strategy = informed({"a": 1, "b": 1, "c": 2}, a=4, b=6)  # c: 5 for each unit of weight

    assert set(singles(strategy, 100, "abc")) == {"a", "c"}
    strategy.sent("q", "c", 1)  # 5.5
    assert set(singles(strategy, 100, "abc")) == {"a", "c"}
    strategy.sent("q", "c", 2)  # 6.5
    assert set(singles(strategy, 100, "abc")) == {"a", "b"}


@UNHURRIED
@given(
    count=st.integers(1, 2_000),
    allowed=st.sets(st.sampled_from("abcde"), min_size=1),
    backlog=st.dictionaries(st.sampled_from("abcdex"), st.integers(0, 10_000)),
)
def test_a_bulk_goes_in_as_many_portions_as_targets_at_most(
    count: int, allowed: set[str], backlog: dict[str, int]
) -> None:
    parts = informed(STRAYING, **backlog).share("q", count, allowed)

    assert sum(number for _, number in parts) == count
    assert all(number > 0 for _, number in parts)
    assert len(dict(parts)) == len(parts) <= len(allowed)
    assert {target for target, _ in parts} <= allowed


def test_a_bulk_is_not_all_for_one() -> None:
    parts = informed(EVEN, a=0, b=10, c=20).share("q", 900, EVEN)

    assert sorted(number for _, number in parts) in ([300, 300, 300], [300, 600])


def test_bulks_keep_backlogs_even_too() -> None:
    backlog = Counter(a=0, b=0, c=0)
    strategy = informed(HEAVY, **backlog)
    for _ in range(200):
        for target, count in strategy.share("q", 70, "abc"):
            backlog[target] += count
            strategy.sent("q", target, count)

    assert strays(backlog, HEAVY, "abc") < 150


def test_a_seed_makes_choices_repeat_themselves() -> None:
    def choices(seed: int | None) -> str:
        strategy = LeastBacklog(EVEN, seed)
        strategy.learn("q", EVEN_BACKLOG, 0.0)
        return singles(strategy, 60, EVEN)

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)
    assert choices(None) != choices(None)


def test_weights_beyond_all_reason_are_no_trouble() -> None:
    weights: Weights = {"a": 1e300, "b": 1e-300, "c": 1}
    strategy = informed(weights, a=5, b=5)

    assert Counter(singles(RoundRobin(weights), 50, "abc")) == {"a": 50}
    assert set(singles(strategy, 50, "abc")) <= {"a", "c"}


def test_of_eight_threads_one_asks_for_figures() -> None:
    strategy = LeastBacklog(EVEN)

    def claims(now: float) -> int:
        return sum(at_once(lambda _: strategy.needs("q", now), disturb=balance))

    assert [claims(now) for now in range(0, 100, 5)] == [1] * 20


@pytest.mark.parametrize(("other", "least"), [(159, "b"), (161, "a")])
def test_nothing_that_eight_threads_sent_is_lost(other: int, least: str) -> None:
    strategy = informed({"a": 1, "b": 1}, a=0, b=other)

    def send(number: int) -> None:
        for _ in range(20):
            strategy.sent("q", "a", 1)

    at_once(send, disturb=balance)

    assert singles(strategy, 5, "ab") == least * 5


def test_ten_thousand_queues_have_figures() -> None:
    strategy = LeastBacklog({"a": 1, "b": 1})
    for number in range(10_001):
        strategy.learn(f"q{number}", {"a": 9, "b": 0}, 0.0)

    assert singles(strategy, 3, "ab", "q0") == "aba", "forgotten, so it goes round"
    assert singles(strategy, 3, "ab", "q1") == "bbb"
    strategy.sent("q0", "b", 100)
    assert strategy.needs("q0", 0.5)
