"""Every Python block of the founding document does what it says, on every backend.

Blocks that wait for what is not built are strict expected failures. ``expect.py`` has the
expectations; here they are bound to the blocks, held, and shown to notice what is broken.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import pytest

from leanmq import LeanMQError
from leanmq.policy.queue import QueueHandle
from tests.contract.harness import Harness, opened
from tests.seed.blocks import Block, Edit, blocks_of, compiled, document
from tests.seed.expect import ENTRIES, WEBHOOKS, Entry
from tests.seed.stage import HandlerError, Running, Stage

BLOCKS = 17


@pytest.fixture(scope="module")
def blocks() -> list[Block]:
    """The blocks of the document."""
    return required_blocks()


def required_blocks() -> list[Block]:
    """The blocks of the document; where that is not, the test skips (fails in CI)."""
    page = document()
    if not page.is_file():
        reason = f"the founding document is not at {page}; name its place in LEANMQ_SEED"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return blocks_of(page.read_text("utf-8"))


@pytest.fixture
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """The subject, healed after the test."""
    async with opened(request.param, "sync") as opened_harness:
        yield opened_harness


def name(entry: Entry) -> str:
    """A short name of an entry."""
    words = re.findall(r"[a-z]+", entry.heading.lower())
    return "-".join([*words, *(["by", entry.by] if entry.by else [])])


def cases() -> list[Any]:
    """Each entry on each of its subjects."""
    return [
        pytest.param(
            subject,
            entry,
            id=f"{name(entry)}-{subject}",
            marks=[
                pytest.mark.xfail(
                    raises=(ImportError, AttributeError),
                    strict=True,
                    reason=f"{entry.waits_for} is not built yet",
                )
            ]
            if entry.waits_for
            else [],
        )
        for entry in ENTRIES
        for subject in entry.subjects
    ]


def hold(entry: Entry, blocks: list[Block], stage: Stage) -> None:
    """Run a block, and see that what must be true is."""
    [block] = [one for one in blocks if (one.heading, one.begins) == (entry.heading, entry.begins)]
    stage.queue.send_messages(entry.sent)
    entry.before(stage)

    stage.run(compiled(block, entry.edits, document()))
    entry.run(stage)

    assert sorted(stage.handled, key=repr) == sorted(entry.handled, key=repr)
    assert sorted(stage.dead(), key=repr) == sorted(entry.dead, key=repr)
    assert stage.left() == entry.left


def test_each_block_has_its_entry_in_the_order_of_the_document(blocks: list[Block]) -> None:
    entries = [(entry.heading, entry.begins) for entry in ENTRIES]

    assert list(dict.fromkeys(entries)) == [(block.heading, block.begins) for block in blocks]
    assert len(blocks) == BLOCKS


def test_what_a_block_builds_by_hand_runs_as_it_is_built_and_by_what_leanmq_has() -> None:
    by = {name(entry): entry.by for entry in ENTRIES if entry.by}

    assert by == {
        "sharding-by-key-by-sharded_queue": "sharded_queue",
        "message-producers-by-LoadBalancedProducer": "LoadBalancedProducer",
    }
    assert {"sharding-by-key", "message-producers"} <= {name(entry) for entry in ENTRIES}


def test_what_waits_waits_for_webhooks_alone() -> None:
    waiting = {name(entry): entry.waits_for for entry in ENTRIES if entry.waits_for}

    assert waiting == {
        "multi-worker-processing": WEBHOOKS,
        "functional-partitioning": WEBHOOKS,
        "start-simple-then-scale": WEBHOOKS,
    }


@pytest.mark.parametrize(("harness", "entry"), cases(), indirect=["harness"])
def test_a_block_of_the_document_does_what_it_says(
    harness: Harness, entry: Entry, blocks: list[Block]
) -> None:
    stage = Stage(harness)
    try:
        hold(entry, blocks, stage)
    except (ImportError, AttributeError) as error:
        # Else a mistake of ours, or another missing call, would pass for what is waited for.
        if not entry.waits_for or entry.waits_for not in str(error):
            raise AssertionError(f"{error} is not what the block waits for") from error
        raise
    finally:
        stage.close()


def no_handling(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(data: Any) -> None:
        stage.attempted.append(data)
        raise HandlerError("broken")

    stage.names["process_message"] = fail
    monkeypatch.setattr(stage, "process_message", fail)


def no_acknowledging(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueHandle, "acknowledge_messages", lambda self, messages: 0)


def no_sending(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QueueHandle, "send_message", lambda self, *data, **options: "0-0")
    monkeypatch.setattr(QueueHandle, "send_messages", lambda self, items: [])


def no_logging(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.names["logger"].handlers.clear()


BREAK: dict[str, Callable[[Stage, pytest.MonkeyPatch], None]] = {
    "handlers": no_handling,
    "acknowledging": no_acknowledging,
    "sending": no_sending,
    "logging": no_logging,
}


@pytest.mark.parametrize(
    ("harness", "entry", "broken"),
    [
        pytest.param(entry.subjects[0], entry, broken, id=f"{name(entry)}-{broken}")
        for entry in ENTRIES
        for broken in entry.noticed
    ],
    indirect=["harness"],
)
def test_an_expectation_notices_what_is_broken(
    harness: Harness,
    entry: Entry,
    broken: str,
    blocks: list[Block],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stage = Stage(harness)
    BREAK[broken](stage, monkeypatch)
    try:
        with pytest.raises((AssertionError, HandlerError, TimeoutError)):
            hold(entry, blocks, stage)
    finally:
        stage.close()


@pytest.mark.parametrize(
    ("harness", "entry", "edit"),
    [
        # On the last subject, the cluster mostly: one edit is for its sake alone.
        pytest.param(entry.subjects[-1], entry, edit, id=f"{name(entry)}-{place}")
        for entry in ENTRIES
        for place, edit in enumerate(entry.edits)
    ],
    indirect=["harness"],
)
def test_without_its_edit_a_block_does_not_do_what_it_says(
    harness: Harness, entry: Entry, edit: Edit, blocks: list[Block]
) -> None:
    as_printed = attrs.evolve(entry, edits=[one for one in entry.edits if one is not edit])
    stage = Stage(harness)
    try:
        with pytest.raises((AssertionError, AttributeError, DeprecationWarning, LeanMQError)):
            hold(as_printed, blocks, stage)
    finally:
        stage.close()


PAGE = """\
## Use

```python
# A comment is no heading
while True:
    seen.append(hash(1))
```
"""


def test_a_block_knows_its_heading_and_its_endless_loop_ends() -> None:
    [block] = blocks_of(PAGE)
    names: dict[str, Any] = {"seen": []}
    names["running"] = Running(lambda: len(names["seen"]) >= 2)

    exec(compiled(block, [Edit("hash(1)", "line", "so")], document()), names | {"line": block.line})

    assert (block.heading, block.begins) == ("Use", "# A comment is no heading")
    assert names["seen"] == [4, 4, 4]  # two turns, and one that finds nothing


def test_a_loop_that_does_not_end_is_a_failure() -> None:
    running = Running(lambda: False)

    assert all(running for _ in range(12))
    with pytest.raises(AssertionError, match="did not end after 12 turns"):
        bool(running)


@pytest.mark.parametrize("find", ["hash(2)", "e"])
def test_an_edit_whose_place_is_not_there_once_is_noticed(find: str) -> None:
    [block] = blocks_of(PAGE)

    with pytest.raises(LookupError, match="times in the block, not once; the document has"):
        compiled(block, [Edit(find, "", "so")], document())


@pytest.mark.parametrize("ci", ["", "true"])
def test_without_the_document_nothing_runs_and_in_ci_that_is_a_failure(
    ci: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("LEANMQ_SEED", "nowhere.md")
    kind = pytest.fail.Exception if ci else pytest.skip.Exception

    with pytest.raises(kind, match=r"not at nowhere\.md; name its place"):
        required_blocks()
