"""What the pages for people name exists: tests, files, links. Their code: ``tests/docs/``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT

PACKAGE = ROOT / "leanmq"
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")


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
