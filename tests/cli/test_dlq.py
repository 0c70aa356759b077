"""``leanmq dlq``: dead letters are listed, shown, sent back and deleted."""

from __future__ import annotations

import pytest

from leanmq import LeanMQ
from leanmq.cli import dlq
from tests.cli.conftest import Run, documents


@pytest.fixture(autouse=True)
def letters(mq: LeanMQ) -> list[str]:
    """Ids of three dead letters."""
    queue = mq.queue("mails")
    queue.send_message({"to": "ann"}, key="k", headers={"a": 1}, message_id="m")
    [message] = queue.get_messages()
    queue.retry_messages(message, reason="smtp is\ndown")
    queue.send_messages(["bob", "cid"])
    messages = queue.get_messages()
    queue.move_to_dlq(messages, reason="no such \x1b[31muser")
    return [message.id for message in sorted(messages, key=lambda m: m.id)]


def test_dead_letters_are_listed_with_the_reason(run: Run, letters: list[str]) -> None:
    plain = run("dlq", "list", "mails", "-n", "2")
    found = documents(run("dlq", "list", "mails", "--json"))

    assert len(plain.stdout.splitlines()) == 3
    assert "no such \\u001b[31muser" in plain.stdout
    assert sorted(document["id"] for document in found) == letters
    assert {document["error"] for document in found} == {"no such \x1b[31muser"}


def test_a_queue_without_dead_letters_is_said_to_have_none(run: Run, mq: LeanMQ) -> None:
    mq.queue("fine").declare()

    assert run("dlq", "list", "fine").stdout == "queue 'fine' has no dead letters\n"
    assert run("dlq", "list", "fine", "--json").stdout == ""


def test_a_dead_letter_is_shown_with_its_history(run: Run, letters: list[str]) -> None:
    plain = run("dlq", "show", "mails", letters[0])
    [document] = documents(run("dlq", "show", "mails", letters[0], "--json"))

    assert plain.exit_code == 0
    assert "deliveries  2\n" in plain.stdout
    assert "delivery 1: smtp is\\u000adown\n" in plain.stdout
    assert 'data        {"to": "ann"}\n' in plain.stdout
    [failure] = document.pop("failures")
    assert (failure["delivery"], failure["reason"]) == (1, "smtp is\ndown")
    assert document["headers"] == {"a": 1}
    assert (document["key"], document["message_id"]) == ("k", "m")


def test_showing_what_is_not_there_fails_after_showing_the_rest(
    run: Run, letters: list[str]
) -> None:
    result = run("dlq", "show", "mails", letters[1], "nix", letters[2])

    assert result.exit_code == 1
    assert result.stdout.count('data        "') == 2
    assert "queue 'mails' has no dead letter 'nix'" in result.stderr


def test_dead_letters_go_back_to_their_queue(run: Run, mq: LeanMQ, letters: list[str]) -> None:
    plain = run("dlq", "requeue", "mails", letters[0])
    json_lines = run("dlq", "requeue", "mails", "--all", "--json")

    assert plain.stdout == "sent 1 of 1 dead letter to 'mails'\n"
    assert documents(json_lines) == [{"queue": "mails", "requeued": 2}]
    assert sorted(m.id for m in mq.queue("mails").peek_messages()) == letters


def test_all_go_back_in_pages_and_what_dies_meanwhile_is_left(
    run: Run, mq: LeanMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dlq, "PAGE", 2)

    run("dlq", "requeue", "mails", "--all")

    assert mq.queue("mails").get_info().ready_messages == 3
    assert mq.queue("mails").dlq.get_info().message_count == 0


def test_dead_letters_go_to_another_queue_that_exists(run: Run, mq: LeanMQ) -> None:
    missing = run("dlq", "requeue", "mails", "--all", "--to", "letters")
    mq.queue("letters").declare()
    moved = run("dlq", "requeue", "mails", "--all", "--to", "letters")

    assert (missing.exit_code, moved.exit_code) == (1, 0)
    assert "queue 'letters' does not exist" in missing.stderr
    assert mq.queue("letters").get_info().ready_messages == 3


def test_requeueing_what_is_not_there_fails(run: Run, letters: list[str]) -> None:
    result = run("dlq", "requeue", "mails", letters[0], "nix")

    assert result.exit_code == 1
    assert result.stdout == "sent 1 of 2 dead letters to 'mails'\n"
    assert "the others are not there, or a client holds them" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["x", "--all"]])
def test_requeue_wants_to_know_which(run: Run, arguments: list[str]) -> None:
    result = run("dlq", "requeue", "mails", *arguments)

    assert result.exit_code == 2
    assert "say which: one ID or more, or --all" in result.stderr


def test_dead_letters_are_deleted_one_by_one_or_all(
    run: Run, mq: LeanMQ, letters: list[str]
) -> None:
    one = run("dlq", "purge", "mails", letters[1], "--yes")
    [left] = documents(run("queues", "--json"))
    others = run("dlq", "purge", "mails", "--yes", "--json")

    assert one.stdout == "deleted 1 dead letter of 'mails'\n"
    assert left["dead"] == 2
    assert documents(others) == [{"queue": "mails", "deleted": 2}]
    assert mq.queue("mails").dlq.get_info().message_count == 0
