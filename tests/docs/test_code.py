"""The code of the README, of the pages and of the docstrings runs, and prints what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import leanmq
from tests.docs.pages import PAGES, ROOT, examples, run

WITH_CODE = [page for page in PAGES if "```python" in page.read_text("utf-8")]
MODULES = [
    "leanmq",
    *(module.name for module in pkgutil.walk_packages([str(ROOT / "leanmq")], "leanmq.")),
]


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=shown)
def test_the_code_on_a_page_runs(
    page: Path, subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = page.read_text("utf-8")

    ran, opted_out = run(page, text, capsys, subject)

    assert ran + opted_out == text.count("```python"), "a block was not recognised"


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_run(name: str, subject: str) -> None:
    if name == "leanmq.__main__":
        return  # importing it runs the command line
    outcome = doctest.testmod(
        importlib.import_module(name), optionflags=doctest.ELLIPSIS, report=True
    )

    assert outcome.failed == 0


def test_the_readme_and_the_first_pages_have_code() -> None:
    assert {"README.md", "docs/index.md", "docs/quickstart.md"} <= set(map(shown, WITH_CODE))


def test_the_package_has_a_first_example() -> None:
    assert doctest.testmod(leanmq, optionflags=doctest.ELLIPSIS).attempted > 3


# --- how blocks are run


def test_code_that_does_not_run_or_prints_something_else_is_noticed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = ROOT / "page.md"

    with pytest.raises(ZeroDivisionError) as raised:
        run(page, "# Page\n\n```python\nx = 1\nx / 0\n```\n", capsys)
    assert raised.traceback[-1].lineno == 4  # counted from 0
    with pytest.raises(AssertionError, match=r"page\.md, line 2"):
        run(page, "```python\nprint(1)\n```\n```text\n2\n```\n", capsys)


def test_a_block_opts_out_only_with_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "page.md"
    blocks = [f"```python\n# {words}\n1 / 0\n```\n" for words in (
        "Not run: divides by zero", "Only in memory: for fun", "Not run:", "Not run"
    )]  # fmt: skip

    assert [example.only for example in examples("\n".join(blocks))] == ["never", "memory", "", ""]
    assert run(page, blocks[0], capsys) == (0, 1)
    assert run(page, blocks[1], capsys, "cluster") == (0, 1)
    with pytest.raises(ZeroDivisionError):
        run(page, blocks[1], capsys)
    with pytest.raises(ZeroDivisionError):
        run(page, blocks[2], capsys)


def test_a_block_in_a_list_is_run_and_its_output_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = "1. First:\n\n    ```python\n    if True:\n        print(1)\n    ```\n\n"

    assert run(ROOT / "page.md", f"{text}    ```text\n    1\n    ```\n", capsys) == (1, 0)
    with pytest.raises(AssertionError):
        run(ROOT / "page.md", f"{text}    ```text\n    2\n    ```\n", capsys)
