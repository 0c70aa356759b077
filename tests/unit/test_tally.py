"""Counters by target."""

from __future__ import annotations

import pytest

from leanmq.sharding import tally as module
from leanmq.sharding.tally import Tally, TargetStats
from tests.support.threads import at_once


def test_messages_are_counted_by_target_and_shown_in_the_order_asked_for() -> None:
    tally = Tally()
    tally.sent("eu", 3)
    tally.sent("eu", 4)
    tally.failed("us", 5, "refused")

    stats = tally.snapshot({"us": "open", "eu": "closed", "asia": "closed"})

    assert list(stats.items()) == [
        ("us", TargetStats(sends=0, failures=5, state="open", last_error="refused")),
        ("eu", TargetStats(sends=7, failures=0, state="closed", last_error=None)),
        ("asia", TargetStats(sends=0, failures=0, state="closed", last_error=None)),
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [("full", "full"), (TimeoutError("no answer"), "no answer"), (TimeoutError(), "TimeoutError")],
)
def test_the_latest_error_is_told_in_words(error: Exception | str, text: str) -> None:
    tally = Tally()
    tally.failed("eu", 1, "an older one")
    tally.failed("eu", 1, error)

    assert tally.snapshot({"eu": "open"})["eu"].last_error == text


def test_a_snapshot_does_not_change_afterwards() -> None:
    tally = Tally()
    tally.sent("eu", 1)
    before = tally.snapshot({"eu": "closed"})

    tally.sent("eu", 1)

    assert before["eu"].sends == 1


def test_nothing_that_eight_threads_counted_is_lost() -> None:
    tally = Tally()

    def count(number: int) -> None:
        for _ in range(20):
            tally.sent("eu", 2)
            tally.failed("eu", 1, str(number))

    at_once(count, disturb=module)

    stats = tally.snapshot({"eu": "closed"})["eu"]
    assert (stats.sends, stats.failures) == (320, 160)
