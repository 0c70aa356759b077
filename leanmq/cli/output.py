"""How a command speaks: JSON lines, or a table: drawn by rich on a terminal, plain elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import click

from leanmq.cli.text import printable, to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Column", "Output", "Row", "Show", "plain_table"]

Row: TypeAlias = "Mapping[str, Any]"
"""One thing that is told, by the names that it has in JSON."""

Show: TypeAlias = "Callable[[Sequence[Row], Sequence[str]], None]"
"""Draws a table, and lines under it, in place of what it drew before."""


def _shown(value: Any) -> str:
    return "-" if value is None else printable(str(value))


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        key: What it shows of a row.
        title: What stands above it.
        right: Whether it is set to the right, as numbers are.
        show: Makes a line of text from the value.
    """

    key: str
    title: str
    right: bool = False
    show: Callable[[Any], str] = _shown


class Output:
    """Where a command says what it has to say: stdout.

    Attributes:
        json: Whether it speaks JSON, one document a line, and nothing else.
        drawn: Whether rich draws it.
    """

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.drawn = not json and sys.stdout.isatty() and find_spec("rich") is not None

    def say(self, text: str, row: Row) -> None:
        """One result: the sentence for people, the row for programs."""
        click.echo(to_json(row) if self.json else text)

    def rows(self, rows: Iterable[Row], columns: Sequence[Column], empty: str) -> None:
        """A table, or what is said if it is empty; in JSON a line a row."""
        if self.json:
            for row in rows:
                click.echo(to_json(row))
            return
        table = list(rows)
        if not table:
            click.echo(empty)
        elif self.drawn:
            _console().print(drawn_table(table, columns))
        else:
            for line in plain_table(table, columns):
                click.echo(line)

    def record(self, row: Row, columns: Sequence[Column]) -> None:
        """One thing with all its properties, a line each; in JSON one document."""
        if self.json:
            click.echo(to_json(row))
            return
        width = max(len(column.title) for column in columns)
        for column in columns:
            click.echo(f"{column.title:<{width}}  {column.show(row[column.key])}")

    @contextmanager
    def live(self, columns: Sequence[Column]) -> Iterator[Show]:
        """A table on the terminal that is drawn anew with every call; only if ``drawn``.

        The function takes the rows, and the lines that stand under them.
        """
        from rich.console import Group
        from rich.live import Live
        from rich.text import Text

        with Live(console=_console(), auto_refresh=False) as live:

            def show(rows: Sequence[Row], lines: Sequence[str]) -> None:
                texts = [Text(printable(line)) for line in lines]
                live.update(Group(drawn_table(rows, columns), *texts), refresh=True)

            yield show


def plain_table(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """Lines with columns of equal width.

    >>> plain_table([{"a": 1, "b": "x"}], [Column("a", "NUMBER", right=True), Column("b", "B")])
    ['NUMBER  B', '     1  x']
    """
    cells = [[column.title for column in columns]]
    cells += [[column.show(row[column.key]) for column in columns] for row in rows]
    widths = [max(map(len, texts)) for texts in zip(*cells, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in cells
    ]


def drawn_table(rows: Sequence[Row], columns: Sequence[Column]) -> Table:
    """The same as a table of rich; what strangers wrote is no markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for number, column in enumerate(columns, 1):
        table.add_column(
            column.title,
            justify="right" if column.right else "left",
            no_wrap=number < len(columns),  # an id in two lines cannot be copied
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(column.show(row[column.key])) for column in columns))
    return table


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
