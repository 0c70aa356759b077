"""The Python blocks of the founding document: read at run time, corrected, and made to end.

What each block needs and must do is in ``expect.py``; the names it is given are in ``stage.py``.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import CodeType

import attrs

from tests.docs.pages import examples

__all__ = ["Block", "Edit", "blocks_of", "compiled", "document"]

ROOT = Path(__file__).parents[2]
HEADING = re.compile(r"^#{2,} (.+)$", re.MULTILINE)


@attrs.frozen
class Block:
    """A Python block of the document.

    Attributes:
        heading: The heading above it.
        line: The line of the document in which its code begins.
        code: The code, as it is printed there.
    """

    heading: str
    line: int
    code: str

    @property
    def begins(self) -> str:
        """Its first line."""
        return self.code.splitlines()[0]


@attrs.frozen
class Edit:
    """A piece of a block that does not run as it is printed, and what runs in its place.

    Attributes:
        find: Stands in the block exactly once.
        put: What runs there.
        why: What is wrong with the printed form.
        to: How the piece ends, if it is long: then ``find`` is how it begins.
    """

    find: str
    put: str
    why: str
    to: str = ""

    def applied(self, code: str) -> str:
        """The code with this piece replaced, and every line after it where it was.

        Raises:
            LookupError: if the piece is not there exactly once.
        """
        if code.count(self.find) != 1:
            raise LookupError(
                f"{self.find!r} stands {code.count(self.find)} times in the block, not once; "
                "the document has changed: see whether this edit is still needed"
            )
        begin, end = code.index(self.find), code.index(self.find) + len(self.find)
        if self.to:
            end = code.find(self.to, end) + len(self.to)
            if end < len(self.to):
                raise LookupError(
                    f"{self.to!r} does not stand behind {self.find!r}; the document has changed: "
                    "see whether this edit is still needed"
                )
        lines = code.count("\n", begin, end) - self.put.count("\n")
        return code[:begin] + self.put + "\n" * lines + code[end:]


def document() -> Path:
    """Where the founding document is: ``LEANMQ_SEED``, else beside the checkout."""
    named = os.environ.get("LEANMQ_SEED")
    return Path(named) if named else ROOT.parent / "shared" / "seed" / "scaling.md"


def blocks_of(text: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    headings = [(text[: found.start()].count("\n"), found[1]) for found in HEADING.finditer(text)]
    return [
        Block(
            heading=[title for line, title in headings if line < example.line][-1],
            line=example.line,
            code=example.code,
        )
        for example in examples(text)
    ]


def compiled(block: Block, edits: Iterable[Edit], page: Path) -> CodeType:
    """The block as it runs: edited, and each ``while True`` bounded.

    The document's loops run for ever. Each becomes ``while running``, the name that the document
    itself uses for a loop that can be ended; ``stage.py`` supplies it, and tells there when.
    Tracebacks name the lines of the document.
    """
    code = block.code
    for edit in edits:
        code = edit.applied(code)
    tree = _Bounded().visit(ast.parse("\n" * (block.line - 1) + code, str(page)))
    return compile(ast.fix_missing_locations(tree), str(page), "exec")


class _Bounded(ast.NodeTransformer):
    def visit_While(self, node: ast.While) -> ast.While:
        self.generic_visit(node)
        if isinstance(node.test, ast.Constant) and node.test.value is True:
            node.test = ast.Name("running", ast.Load())
        return node
