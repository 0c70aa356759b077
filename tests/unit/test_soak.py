"""The account that a soak gives: it must notice what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.soak.__main__ import main
from tests.soak.history import History, Moment

LEASE = 3.0


def history(*moments: tuple[float, str, str, int], message_id: str = "1-0") -> History:
    """Of a message "m" that was sent and confirmed; moments are time, what, who, delivery."""
    found = History(LEASE, confirmed={"m": "1-0"})
    for at, what, who, count in moments:
        found.note("m", Moment(at, what, who, message_id, count))
    return found


def broken(found: History) -> list[tuple[str, tuple[Any, ...]]]:
    return [(finding.what, finding.payloads) for finding in found.findings()]


def test_handed_out_and_acknowledged_is_well() -> None:
    assert broken(history((1.0, "got", "a", 1), (1.1, "acknowledged", "a", 1))) == []


def test_what_was_tried_again_first_is_well() -> None:
    tried = history(
        (1.0, "got", "a", 1),
        (1.1, "retried", "a", 1),
        (1.2, "got", "b", 2),
        (1.3, "acknowledged", "b", 2),
    )

    assert broken(tried) == []


def test_a_lost_message_is_noticed() -> None:
    assert broken(history()) == [("confirmed, and never handed out", ("m",))]


def test_an_acknowledgement_that_did_nothing_is_noticed() -> None:
    found = history(
        (1.0, "got", "a", 1),
        (1.1, "acknowledged", "a", 1),
        (4.2, "got", "b", 2),
        (4.3, "acknowledged", "b", 2),
    )

    [finding] = found.findings()

    assert finding.what == "acknowledged, and handed out again"
    assert str(finding).splitlines()[1:] == [
        "         1.000 a got 1-0, delivery 1",
        "         1.100 a acknowledged 1-0, delivery 1",
        "         4.200 b got 1-0, delivery 2",
        "         4.300 b acknowledged 1-0, delivery 2",
    ]


def test_who_acknowledges_after_the_lease_may_be_second() -> None:
    late = history(
        (1.0, "got", "a", 1),
        (4.1, "got", "b", 2),
        (4.2, "acknowledged", "a", 1),
        (4.3, "got", "c", 3),
    )

    assert broken(late) == []


def test_a_message_that_was_stored_twice_is_noticed() -> None:
    found = history((1.0, "got", "a", 1))
    found.note("m", Moment(1.1, "got", "b", "2-0", 1))

    assert ("stored twice", ("m",)) in broken(found)


def test_another_id_than_that_of_the_send_is_noticed() -> None:
    found = history((1.0, "got", "a", 1), message_id="2-0")

    assert broken(found) == [("handed out under another id than the send returned", ("m",))]


@pytest.mark.parametrize(
    ("fate", "what"),
    [("refused", ["said to be not stored, and handed out"]), ("unknown", [])],
)
def test_only_what_is_unknown_may_be_there_unconfirmed(fate: str, what: list[str]) -> None:
    found = history((1.0, "got", "a", 1))
    found.confirmed.clear()
    getattr(found, fate).add("m")

    assert [name for name, _ in broken(found)] == what


def test_what_nobody_sent_is_noticed() -> None:
    found = history((1.0, "got", "a", 1))
    found.confirmed.clear()

    assert broken(found) == [("handed out, and never sent", ("m",))]


def test_a_soak_without_faults_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--subjects", "hash-memory", "--seconds", "0.3", "--seed", "1"]) == 0

    assert capsys.readouterr().out.count(" ok; told: nothing\n") == 2
