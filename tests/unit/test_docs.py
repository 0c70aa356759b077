"""What the pages for people say is true: their code runs, the tests and files they name exist.

A block marked ``python`` runs as it stands; the blocks of one page share a namespace, in order.
If the next block is marked ``text``, that is exactly what it prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "leanmq"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")


@attrs.frozen
class Example:
    """A block of code, where it begins, and what it should print (None: not said)."""

    line: int
    code: str
    prints: str | None


def examples(text: str) -> Iterator[Example]:
    """The Python blocks of a page."""
    blocks = list(FENCED.finditer(text))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        if block[1] == "python":
            told = following[2] if following and following[1] == "text" else None
            yield Example(text[: block.start(2)].count("\n") + 1, block[2], told)


def run(page: Path, text: str, capsys: pytest.CaptureFixture[str]) -> int:
    """Run all blocks of a page; returns how many there were."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    ran = 0
    for example in examples(text):
        # Empty lines before it, so that a traceback tells the line of the page.
        code = compile("\n" * (example.line - 1) + example.code, str(page), "exec")
        exec(code, namespace)
        printed = capsys.readouterr().out
        if example.prints is not None:
            assert printed == example.prints, f"{page.name}, line {example.line}"
        ran += 1
    return ran


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_on_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = page.read_text("utf-8")

    ran = run(page, text, capsys)

    assert ran == text.count("```python"), "a block was not recognised"
    assert ran or page.name != "README.md"


def test_code_that_does_not_run_or_prints_something_else_is_noticed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = ROOT / "page.md"

    with pytest.raises(ZeroDivisionError) as raised:
        run(page, "# Page\n\n```python\nx = 1\nx / 0\n```\n", capsys)
    assert raised.traceback[-1].lineno == 4  # counted from 0
    with pytest.raises(AssertionError, match=r"page\.md, line 2"):
        run(page, "```python\nprint(1)\n```\n```text\n2\n```\n", capsys)


def test_the_tests_that_hold_the_guarantees_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text("utf-8")))
    written = {
        name
        for path in (ROOT / "tests" / "contract").glob("test_*.py")
        for name in re.findall(r"^async def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }

    assert len(named) > 30
    assert sorted(named - written) == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_the_files_that_a_page_names_exist(name: str) -> None:
    named = set(
        re.findall(r"`([\w./-]+(?:\.(?:py|lua|md|toml)|/))`", (ROOT / name).read_text("utf-8"))
    )

    missing = [
        path for path in named if not any((folder / path).exists() for folder in (ROOT, PACKAGE))
    ]
    assert len(named) > 10
    assert sorted(missing) == []


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = [
        link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()
    ]

    assert broken == []
