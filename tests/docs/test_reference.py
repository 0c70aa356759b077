"""The reference has every public name, and what it shows of a docstring is laid out as code."""

from __future__ import annotations

import re

import leanmq
import leanmq.testing
from tests.docs.pages import ROOT

PAGES = "".join(path.read_text("utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))


def test_every_public_name_is_in_the_reference() -> None:
    shown = set(re.findall(r"^::: leanmq\.[\w.]+\.(\w+)$", PAGES, re.MULTILINE))

    public = {*leanmq.__all__, *leanmq.testing.__all__} - {"__version__"}
    named = {name for name in public if f"`{name}`" in PAGES}
    errors = {name for name in public if name.endswith("Error")}  # they have a page of their own
    twins = {name for name in named if name.startswith("Async")}
    assert public - errors - twins == shown & public
    assert {name for name in public if name.startswith("Async")} == twins


def test_examples_in_docstrings_have_the_title_that_the_reference_shows_as_code() -> None:
    """``Example:`` would become a paragraph, with the prompts run together."""
    wrong = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "leanmq").rglob("*.py")
        if re.search(r"^ +Example:$", path.read_text("utf-8"), re.MULTILINE)
    ]

    assert wrong == []
