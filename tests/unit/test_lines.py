"""Idle connections are in one hand at a time, also while they are forgotten."""

from __future__ import annotations

from typing import Any

from leanmq.backends.lines import Lines
from leanmq.backends.urls import parse_url

ADDRESS = ("127.0.0.1", 1)
HOME = (1, None)
KEY = (ADDRESS, 3.0, HOME)


def test_a_line_that_was_forgotten_cannot_be_taken_by_who_was_about_to() -> None:
    """A thread has the list of idle lines in hand when another one drops them."""
    kinds: Any = (object, object, object)
    lines = Lines(parse_url("redis://127.0.0.1:1"), kinds)
    in_hand = lines.idle(KEY)
    first, second = object(), object()
    assert lines.give_back(KEY, first)
    assert lines.give_back(KEY, second)

    assert lines.forget(HOME, ADDRESS) == [first, second]

    assert in_hand == []
