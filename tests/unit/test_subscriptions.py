"""What a connection is subscribed to: what is written, what comes, what is taken for lost."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmq.backends.lines import pack
from leanmq.backends.subscriptions import IDLE, QUIET, Refused, Replies, Subscriptions


def push(kind: str, key: str, last: int | str = 1) -> bytes:
    """As RESP2 has it."""
    end = b":%d\r\n" % last if isinstance(last, int) else b"$%d\r\n%b\r\n" % (len(last), b"")
    words = b"".join(b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in (kind, key))
    return b"*3\r\n" + words + end


def names(requests: bytes) -> list[str]:
    """The commands that are written, each as its name and key."""
    words = re.findall(rb"\$\d+\r\n(.*?)\r\n", requests)
    return [f"{a.decode()} {b.decode()}" for a, b in zip(words[::2], words[1::2], strict=True)]


def listening(*keys: str) -> Subscriptions:
    """To these keys, since second 0."""
    subscriptions = Subscriptions(0.0)
    assert subscriptions.want(keys, 0.0)
    subscriptions.requests(0.0)
    assert subscriptions.take(b"".join(push("ssubscribe", key) for key in keys), 0.0) == {*keys}
    return subscriptions


EVERYTHING = (
    b"+OK\r\n-ERR no\r\n:-7\r\n$-1\r\n$0\r\n\r\n*-1\r\n*0\r\n*2\r\n$3\r\na\r\n\r\n*1\r\n:1\r\n"
)


@given(st.lists(st.integers(0, len(EVERYTHING)), max_size=10))
def test_replies_are_read_in_whatever_pieces_they_come(cuts: list[int]) -> None:
    replies, places = Replies(), [0, *sorted(cuts), len(EVERYTHING)]
    pieces = [EVERYTHING[a:b] for a, b in pairwise(places)]

    found = [reply for piece in pieces for reply in replies.feed(piece)]

    assert found == [b"OK", Refused("ERR no"), -7, None, b"", None, [], [b"a\r\n", [1]]]


@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b"$x\r\n", b"\r\n"])
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # its text is for nobody
        list(Replies().feed(data))


def test_a_key_is_subscribed_to_once_by_a_command_of_its_own() -> None:
    subscriptions = Subscriptions(0.0)

    assert subscriptions.want(["a", "b"], 0.0)
    assert subscriptions.want(["b", "c"], 0.0)

    assert names(subscriptions.requests(0.0)) == ["SSUBSCRIBE a", "SSUBSCRIBE b", "SSUBSCRIBE c"]
    assert not subscriptions.want(["a", "b"], 0.0)
    assert subscriptions.requests(0.0) == b""
    assert not subscriptions.holds("a")


def test_a_key_is_awake_when_it_was_subscribed_to_and_when_something_comes() -> None:
    subscriptions = listening("a", "b")

    assert subscriptions.holds("a")
    assert subscriptions.take(push("smessage", "b", "") + push("smessage", "b", ""), 1.0) == {"b"}
    assert subscriptions.take(push("smessage", "a", "")[:9], 1.0) == set()
    assert subscriptions.take(push("smessage", "a", "")[9:], 1.0) == {"a"}


def test_a_slot_that_moves_wakes_its_keys_which_are_subscribed_to_anew_when_wanted() -> None:
    subscriptions = listening("a", "b")

    assert subscriptions.take(push("sunsubscribe", "a"), 1.0) == {"a"}

    assert not subscriptions.holds("a")
    assert subscriptions.want(["a", "b"], 1.0)
    assert names(subscriptions.requests(1.0)) == ["SSUBSCRIBE a"]


def test_moved_wakes_and_what_is_refused_does_not_and_is_asked_again_when_wanted() -> None:
    subscriptions = Subscriptions(0.0)
    subscriptions.want(["a", "b", "c"], 0.0)
    subscriptions.requests(0.0)

    came = b"-MOVED 1 h:1\r\n-NOPERM no rights\r\n" + push("ssubscribe", "c")
    assert subscriptions.take(came, 0.0) == {"a", "c"}

    assert subscriptions.refusal == "NOPERM no rights"
    assert subscriptions.held() == ("c",)
    assert subscriptions.requests(0.0) == b""
    assert subscriptions.want(["a", "b", "c"], 0.0)
    assert names(subscriptions.requests(0.0)) == ["SSUBSCRIBE a", "SSUBSCRIBE b"]


def test_what_nobody_wanted_for_a_while_is_given_up_and_can_be_wanted_again_at_once() -> None:
    subscriptions = listening("a", "b")
    later = IDLE + 1
    for now in (4.0, 8.0):
        assert not subscriptions.want(["a"], now)

    assert subscriptions.want(["a"], later)
    assert subscriptions.want(["b"], later)
    assert names(subscriptions.requests(later))[:2] == ["SUNSUBSCRIBE b", "SSUBSCRIBE b"]
    assert not subscriptions.holds("b")
    came = push("sunsubscribe", "b") + push("ssubscribe", "b")
    assert subscriptions.take(came, later) == {"b"}
    assert subscriptions.holds("b")


def test_nobody_waits_any_more_after_a_while() -> None:
    subscriptions = listening("a")
    subscriptions.want(["a"], 5.0)

    assert not subscriptions.is_idle(5.0 + IDLE - 1)
    assert subscriptions.is_idle(5.0 + IDLE)


@pytest.mark.parametrize("pong", [b"+PONG\r\n", b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"])
def test_a_quiet_server_is_asked_whether_it_is_there(pong: bytes) -> None:
    subscriptions = listening("a")

    assert subscriptions.requests(QUIET - 0.1) == b""
    assert subscriptions.requests(QUIET) == pack([("PING", "")])
    assert subscriptions.requests(QUIET + 1) == b"", "once"
    assert not subscriptions.is_lost(QUIET + 1)
    assert subscriptions.is_lost(QUIET * 2)

    assert subscriptions.take(pong, QUIET * 2) == set()
    assert not subscriptions.is_lost(QUIET * 2)
    assert subscriptions.requests(QUIET * 2) == b""


@pytest.mark.parametrize(
    "data", [b"-ERR\r\n", push("ssubscribe", "other"), b"+OK\r\n", b"+PONG\r\n", b":1\r\n"]
)
def test_an_answer_to_nothing_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"without a question|not asked|unexpected"):
        listening("a").take(data, 0.0)


def test_an_answer_to_something_else_is_an_error() -> None:
    subscriptions = Subscriptions(0.0)
    subscriptions.want(["a"], 0.0)
    subscriptions.requests(0.0)

    with pytest.raises(ValueError, match="not asked"):
        subscriptions.take(push("ssubscribe", "b"), 0.0)
