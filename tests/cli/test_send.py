"""``leanmq send``: one message, or one for each line."""

from __future__ import annotations

from typing import Any

import pytest

from leanmq import LeanMQ
from leanmq.cli import send
from tests.cli.conftest import Run, documents


def payloads(mq: LeanMQ, queue: str = "orders") -> list[Any]:
    return [message.data for message in mq.queue(queue).peek_messages(1_000)]


def test_a_message_is_sent_and_its_id_printed(run: Run, mq: LeanMQ) -> None:
    plain = run("send", "orders", '{"id": 7}')
    [document] = documents(run("send", "orders", '"tea"', "--json"))

    [first, second] = mq.queue("orders").peek_messages()
    assert (plain.stdout, plain.exit_code) == (f"{first.id}\n", 0)
    assert document == {"queue": "orders", "id": second.id}
    assert [first.data, second.data] == [{"id": 7}, "tea"]


def test_options_go_with_the_message(run: Run, mq: LeanMQ) -> None:
    run("send", "orders", "1", "--key", "ann", "--header", "a=b=c", "--header", "d=")
    run("send", "orders", "2", "--delay", "60", "--ttl", "90")
    twice = [run("send", "orders", "3", "--dedup-id", "x").stdout for _ in range(2)]

    [first, third] = mq.queue("orders").peek_messages()
    assert (first.key, first.headers) == ("ann", {"a": "b=c", "d": ""})
    assert third.data == 3
    assert twice[0] == twice[1]
    assert mq.queue("orders").get_info().delayed_messages == 1


def test_every_line_of_a_pipe_is_a_message(run: Run, mq: LeanMQ) -> None:
    dash = run("send", "orders", "-", "--key", "k", input='1\n\n{"a": 2}\n')
    pipe = run("send", "orders", input='"no line feed at the end"')
    json_lines = run("send", "orders", "--json", input="4\n5\n")

    assert dash.stdout == "sent 2 messages to 'orders'\n"
    assert pipe.stdout == "sent 1 message to 'orders'\n"
    assert payloads(mq) == [1, {"a": 2}, "no line feed at the end", 4, 5]
    found = mq.queue("orders").peek_messages()
    assert [document["id"] for document in documents(json_lines)] == [m.id for m in found[3:]]
    assert [message.key for message in found] == ["k", "k", None, None, None]


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_lines_are_put_together_however_they_arrive(
    run: Run, mq: LeanMQ, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(send, "AT_ONCE", at_once)

    run("send", "orders", input='"one"\n"two"\n\n3\n"four"')

    assert payloads(mq) == ["one", "two", 3, "four"]


def test_input_without_line_ends_is_refused_before_it_fills_the_memory(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "LONGEST_LINE", 2 * 1024 * 1024)

    result = run("send", "orders", input="1" * 3 * 1024 * 1024)

    assert result.exit_code == 1
    assert "a line has more than 2 MiB" in result.stderr


def test_a_bad_line_stops_it_and_says_which_and_what_was_sent(run: Run, mq: LeanMQ) -> None:
    result = run("send", "orders", input="1\n2\nthree\n4\n")

    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == (
        "leanmq: error: line 3 is not JSON (Expecting value): three; a string needs its double "
        "quotes; 2 messages were sent to 'orders'"
    )
    assert payloads(mq) == [1, 2]


def test_a_full_queue_stops_it_and_says_what_was_sent(run: Run, mq: LeanMQ) -> None:
    mq.queue("orders", max_length=3).declare()

    result = run("send", "orders", "--json", input="".join(f"{n}\n" for n in range(9)))

    assert result.exit_code == 1
    assert "queue 'orders' is full" in result.stderr
    assert len(documents(result)) == 3
    assert "3 messages were sent to 'orders'" in result.stderr
    assert payloads(mq) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["orders", "tea"], "DATA is not JSON (Expecting value): tea; a string needs its double"),
        (["orders", "NaN"], "NaN is no number of JSON"),
        (["orders", "[" * 100_000], "it is nested too deeply"),
        (["a}b", "1"], "queue name 'a}b' has '}'"),
        (["orders", "1", "--header", "novalue"], "write NAME=VALUE"),
        (["orders", "1", "--ttl", "-1"], "--ttl"),
        (["orders", "-", "--dedup-id", "x"], "all lines would count as one"),
        (["orders", "1", "2"], "unexpected extra argument"),
        ([], "Missing argument 'QUEUE'"),
    ],
)
def test_wrong_usage_exits_2_and_sends_nothing(
    run: Run, mq: LeanMQ, arguments: list[str], reason: str
) -> None:
    result = run("send", *arguments)

    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert mq.list_queues() == []


def test_what_the_library_refuses_exits_1(run: Run) -> None:
    result = run("send", "orders", "1", "--ttl", "1", "--delay", "5")

    assert result.exit_code == 1
    assert "the message would never be handed out" in result.stderr


def test_it_says_that_memory_ends_with_the_command(run: Run) -> None:
    result = run("send", "orders", "1", "--json")

    assert result.stderr == "leanmq: note: memory:// ends with this command, and all it holds\n"
    assert len(documents(result)) == 1
