"""``leanmq queues``, ``peek`` and ``purge``: looking at queues, and emptying one."""

from __future__ import annotations

import pytest

from leanmq import LeanMQ
from tests.cli.conftest import Run, documents


@pytest.fixture(autouse=True)
def orders(mq: LeanMQ) -> None:
    queue = mq.queue("orders", lease=30)
    queue.send_messages([{"id": 1}, {"id": 2}, {"id": 3}])
    queue.send_message({"id": 4}, delay=60)
    [held, dying] = queue.get_messages(count=2)
    queue.move_to_dlq(dying, reason="no address")
    assert held.data == {"id": 1}


COUNTS = {"queue": "orders", "ready": 1, "in_flight": 1, "delayed": 1, "dead": 1, "shards": 0}


@pytest.mark.parametrize("arguments", [["queues"], ["queues", "list"]])
def test_queues_are_listed_with_the_counts_of_each_state(run: Run, arguments: list[str]) -> None:
    plain = run(*arguments)
    json_lines = run(*arguments, "--json")

    assert plain.stdout.splitlines() == [
        "QUEUE   READY  IN FLIGHT  DELAYED  DEAD",
        "orders      1          1        1     1",
    ]
    assert documents(json_lines) == [COUNTS]


def test_no_queues_are_said_to_be_none(run: Run) -> None:
    plain = run("queues", "--prefix", "other:")
    json_lines = run("queues", "--prefix", "other:", "--json")

    assert plain.stdout == "there are no queues\n"
    assert json_lines.stdout == ""


def test_info_tells_counts_and_settings(run: Run) -> None:
    plain = run("queues", "info", "orders")
    [document] = documents(run("queues", "info", "orders", "--json"))

    assert "lease           30 s\n" in plain.stdout
    assert "max length      unlimited\n" in plain.stdout
    assert document.items() >= {**COUNTS, "lease": 30.0, "max_deliveries": 10}.items()


@pytest.mark.parametrize(
    "arguments", [["queues", "info"], ["peek"], ["purge", "--yes"], ["dlq", "list"]]
)
def test_looking_at_a_queue_that_does_not_exist_fails_and_does_not_make_it(
    run: Run, mq: LeanMQ, arguments: list[str]
) -> None:
    result = run(*arguments, "order")

    assert result.exit_code == 1
    assert result.stderr == (
        "leanmq: error: queue 'order' does not exist; did you mean 'orders'?\n"
    )
    assert {info.name for info in mq.list_queues()} == {"orders"}


def test_watch_tells_a_line_a_queue_with_every_look(run: Run) -> None:
    plain = run("queues", "watch", "--count", "2", "--interval", "0.1")
    found = documents(run("queues", "watch", "orders", "nix", "--count", "1", "--json"))

    lines = plain.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.endswith("  orders: 1 ready, 1 in flight, 1 delayed, 1 dead")
    assert [document | {"at": 0} for document in found] == [{"at": 0, **COUNTS}]


def test_peek_shows_what_comes_next_and_receives_nothing(run: Run, mq: LeanMQ) -> None:
    plain = run("peek", "orders")
    [document] = documents(run("peek", "orders", "--json"))

    assert plain.stdout.splitlines()[1].endswith('0  ready  {"id": 3}')
    assert (document["state"], document["deliveries"]) == ("ready", 0)
    assert document["data"] == {"id": 3}
    assert mq.queue("orders").get_info().ready_messages == 1


def test_peek_shows_what_consumers_hold(run: Run) -> None:
    [document] = documents(run("peek", "orders", "--in-flight", "--json"))

    assert (document["data"], document["state"]) == ({"id": 1}, "in_flight")


def test_peek_finds_messages_by_their_ids(run: Run, mq: LeanMQ) -> None:
    later = mq.queue("orders").send_message("later", delay=60)

    [document] = documents(run("peek", "orders", "--id", later, "--json"))
    none = run("peek", "orders", "--id", "nix")

    assert (document["id"], document["state"]) == (later, "delayed")
    assert none.stdout == "no such message\n"


def test_what_strangers_wrote_cannot_steer_the_terminal(run: Run, mq: LeanMQ) -> None:
    mq.queue("evil").send_message({"a": "\x1b[2J\x9b\u202e[red]\x7f\n"})

    plain = run("peek", "evil")
    json_lines = run("peek", "evil", "--json")

    assert all(c.isprintable() or c == "\n" for c in plain.stdout)
    assert r'{"a": "\u001b[2J\u009b\u202e[red]\u007f\n"}' in plain.stdout
    assert all(" " <= c <= "~" or c == "\n" for c in json_lines.stdout)
    [document] = documents(json_lines)
    assert document["data"] == {"a": "\x1b[2J\x9b\u202e[red]\x7f\n"}


def test_a_large_payload_is_shown_in_part_and_is_whole_in_json(run: Run, mq: LeanMQ) -> None:
    mq.queue("big").send_message("x" * 100_000)

    plain = run("peek", "big")
    [document] = documents(run("peek", "big", "--json"))

    assert len(plain.stdout) < 600
    assert "... (99,802 more)" in plain.stdout
    assert document["data"] == "x" * 100_000


def test_purge_deletes_messages_in_every_state_and_leaves_dead_letters(
    run: Run, mq: LeanMQ
) -> None:
    plain = run("purge", "orders", "--yes")
    again = run("purge", "orders", "--yes", "--json")

    assert plain.stdout == "deleted 3 messages of 'orders'\n"
    assert documents(again) == [{"queue": "orders", "deleted": 0}]
    assert mq.queue("orders").dlq.get_info().message_count == 1


@pytest.mark.parametrize("arguments", [["purge", "orders"], ["dlq", "purge", "orders"]])
def test_nothing_is_purged_without_an_answer(run: Run, mq: LeanMQ, arguments: list[str]) -> None:
    result = run(*arguments, input="y\n")  # a pipe cannot answer

    assert result.exit_code == 2
    assert "give --yes" in result.stderr
    assert mq.queue("orders").get_info().message_count == 3
    assert mq.queue("orders").dlq.get_info().message_count == 1
