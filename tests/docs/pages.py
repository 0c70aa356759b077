"""The Python blocks of a page: finding them, running them, and how one opts out.

A block marked ``python`` runs as it stands; the blocks of one page share a namespace, in order.
If the next block is marked ``text``, that is exactly what it prints. A block that cannot run
says so in its first line, where readers see it too: ``# Not run: `` or ``# Only in memory: ``,
and the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import attrs

__all__ = ["PAGES", "ROOT", "Example", "Run", "examples", "run"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Blocks may be indented, in a list or in a tab of the built pages.
FENCED = re.compile(r"^(?P<indent> *)```(\w*)[^\n]*\n(.*?)^(?P=indent)```$", re.M | re.S)
NEVER = re.compile(r"# Not run: \S")
IN_MEMORY = re.compile(r"# Only in memory: \S")


@attrs.frozen
class Example:
    """A block of code.

    Attributes:
        line: Where its code begins.
        code: What is run.
        prints: What it should print; None if that is not said.
    """

    line: int
    code: str
    prints: str | None

    def runs_on(self, subject: str) -> bool:
        """Whether it is to run on ``memory``, ``redis``, ``sentinel`` or ``cluster``."""
        if NEVER.match(self.code):
            return False
        return subject == "memory" or not IN_MEMORY.match(self.code)


def examples(text: str) -> Iterator[Example]:
    """The Python blocks of a page."""
    blocks = list(FENCED.finditer(text))
    for block, following in zip_longest(blocks, blocks[1:]):
        if block[2] == "python":
            told = following and following[2] == "text"
            yield Example(
                text[: block.start(3)].count("\n") + 1,
                _dedented(block),
                _dedented(following) if following and told else None,
            )


@attrs.frozen
class Run:
    """What came of a page.

    Attributes:
        ran: How many blocks ran.
        opted_out: How many did not, as they say.
        namespace: What the blocks defined.
    """

    ran: int
    opted_out: int
    namespace: dict[str, Any]


def run(page: Path, text: str | None = None, subject: str = "memory") -> Run:
    """Run the blocks of a page, in order; ``text`` instead of what is in the file.

    Raises:
        AssertionError: if a block prints something else than the page says.
    """
    namespace: dict[str, Any] = {"__name__": page.stem}
    ran = opted_out = 0
    for example in examples(page.read_text("utf-8") if text is None else text):
        if not example.runs_on(subject):
            opted_out += 1
            continue
        # Empty lines before it, so that a traceback tells the line of the page.
        code = compile("\n" * (example.line - 1) + example.code, str(page), "exec")
        with redirect_stdout(StringIO()) as printed:
            exec(code, namespace)
        if example.prints is not None:
            assert printed.getvalue() == example.prints, f"{page.name}, line {example.line}"
        ran += 1
    return Run(ran, opted_out, namespace)


def _dedented(block: re.Match[str]) -> str:
    width = len(block["indent"])
    return "".join(line[width:] if line.strip() else "\n" for line in block[3].splitlines(True))
