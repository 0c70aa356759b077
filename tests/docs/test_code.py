"""The code of the README, of the pages and of the docstrings runs, and prints what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, Example, run

WITH_CODE = [page for page in PAGES if "```python" in page.read_text("utf-8")]
MODULES = [
    "leanmq",
    *(module.name for module in pkgutil.walk_packages([str(ROOT / "leanmq")], "leanmq.")),
]


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=shown)
def test_the_code_on_a_page_runs(page: Path, subject: str) -> None:
    outcome = run(page, subject=subject)

    blocks = page.read_text("utf-8").count("```python")
    assert outcome.ran + outcome.opted_out == blocks, "a block was not recognised"


def docstrings(name: str) -> list[doctest.DocTest]:
    """The docstrings of a module that have examples."""
    found = doctest.DocTestFinder().find(importlib.import_module(name))
    return [each for each in found if each.examples]


def failures(docstring: doctest.DocTest, subject: str = "memory") -> int:
    """How many of its examples print something else; 0 if it opts out, as a block does."""
    first = (docstring.docstring or "").partition(">>> ")[2]
    if not Example(0, first, None).runs_on(subject):
        return 0
    return doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(docstring).failed


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(name: str, subject: str) -> None:
    if name == "leanmq.__main__":
        return  # importing it runs the command line

    for docstring in docstrings(name):
        assert failures(docstring, subject) == 0, docstring.name


def test_an_example_in_a_docstring_that_prints_something_else_is_noticed() -> None:
    parse = doctest.DocTestParser().get_doctest
    wrong = ">>> 1 + 1\n3\n"
    moved = f">>> # Only in memory: for fun\n{wrong}"

    assert failures(parse(wrong, {}, "wrong", None, 0)) == 1
    assert failures(parse(moved, {}, "moved", None, 0)) == 1
    assert failures(parse(moved, {}, "moved", None, 0), "redis") == 0


def test_the_readme_and_the_first_pages_have_code() -> None:
    assert {"README.md", "docs/index.md", "docs/quickstart.md"} <= set(map(shown, WITH_CODE))


def test_the_package_has_a_first_example() -> None:
    [docstring] = [each for each in docstrings("leanmq") if each.name == "leanmq"]

    assert len(docstring.examples) > 3


# --- how blocks are run

PAGE = ROOT / "page.md"


def test_code_that_does_not_run_or_prints_something_else_is_noticed() -> None:
    with pytest.raises(ZeroDivisionError) as raised:
        run(PAGE, "# Page\n\n```python\nx = 1\nx / 0\n```\n")
    assert raised.traceback[-1].lineno == 4  # counted from 0
    with pytest.raises(AssertionError, match=r"page\.md, line 2"):
        run(PAGE, "```python\nprint(1)\n```\n```text\n2\n```\n")


def test_a_block_opts_out_only_with_a_reason() -> None:
    words = "Not run: divides by zero", "Only in memory: for fun", "Not run:", "Not run"
    blocks = [f"```python\n# {said}\n1 / 0\n```\n" for said in words]

    assert run(PAGE, blocks[0]).opted_out == 1
    assert run(PAGE, blocks[1], "cluster").opted_out == 1
    for block in blocks[1:]:
        with pytest.raises(ZeroDivisionError):
            run(PAGE, block)


def test_a_block_in_a_list_is_run_and_its_output_compared() -> None:
    text = "1. First:\n\n    ```python\n    if True:\n        print(1)\n    ```\n\n"

    assert run(PAGE, f"{text}    ```text\n    1\n    ```\n").ran == 1
    with pytest.raises(AssertionError):
        run(PAGE, f"{text}    ```text\n    2\n    ```\n")
