"""Asking before something is deleted."""

from __future__ import annotations

import sys

import click

__all__ = ["confirm"]


def confirm(question: str, *, yes: bool) -> None:
    """Ask on the terminal, unless the answer was given already.

    Raises:
        click.UsageError: if there is nobody to answer.
        click.ClickException: if the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("it asks first, and there is no terminal to answer; give --yes")
    if not click.confirm(question, err=True):
        raise click.ClickException("nothing was deleted")
