"""What is run anew after a slot has moved."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from leanmq.backends.pipelines import again
from leanmq.backends.streams.calls import Call, Outcome
from leanmq.errors import ConnectionError, ServerStateError


def trouble(code: str) -> ConnectionError:
    error = ConnectionError("try again")
    error.code = code
    return error


def test_of_a_call_in_trouble_only_what_is_in_trouble_is_run_again() -> None:
    done, refused = b"read", ServerStateError("no")
    call = Call((("XREADGROUP",), ("HMGET", "a"), ("HMGET", "b"), ("TIME",)), "{a}", True)
    quiet = Call((("TIME",),), "{a}", True)
    results: list[list[Outcome]] = [
        [done, trouble("TRYAGAIN"), refused, trouble("TRYAGAIN")],
        [b"now"],
    ]
    asked: list[Call] = []

    def route(part: Call) -> Generator[Any, Any, list[Outcome]]:
        asked.append(part)
        yield from ()
        return [b"settings", b"later"]

    for _ in again([call, quiet], results, route):
        raise AssertionError("nothing is asked beside")

    assert [part.commands for part in asked] == [(("HMGET", "a"), ("TIME",))]
    assert results == [[done, b"settings", refused, b"later"], [b"now"]]
