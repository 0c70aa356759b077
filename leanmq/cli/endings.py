"""How a run ends that did not go well: one line on stderr, and an exit status.

No secret of a URL is shown, and no control character of a stranger reaches the terminal.
"""

from __future__ import annotations

import os
import re
import traceback

import click

from leanmq.cli.text import printable

__all__ = ["FAILED", "INTERRUPTED", "UNREAD", "WRONG_USAGE", "masked", "report"]

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
UNREAD = 141
"""As the shell reports a program that was ended by SIGPIPE."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\S*)")
_SECRET_OPTION = re.compile(r"(\w*(?:password|secret|token)\w*=)[^&\s'\"]*", re.IGNORECASE)


def report(error: BaseException) -> int:
    """Say on stderr what went wrong; returns the exit status."""
    if isinstance(error, click.Abort):  # Ctrl-C, or the end of the input, where it was asked
        return INTERRUPTED
    text, code = _told(error)
    click.echo(f"leanmq: error: {text}", err=True)
    if os.environ.get("LEANMQ_TRACEBACK"):
        click.echo(masked("".join(traceback.format_exception(error))), err=True)
    return code


def masked(text: str) -> str:
    """The text without what may be a password in a URL.

    >>> masked("no command redis://:hun@ter2@h:1/0?sentinel_password=x")
    'no command redis://***@h:1/0?sentinel_password=***'
    """
    without = _URL.sub(lambda match: match[1] + _without_account(match[2]), text)
    return _SECRET_OPTION.sub(r"\1***", without)


def _without_account(rest: str) -> str:
    account, at, place = rest.rpartition("@")
    user, colon, password = account.partition(":")
    if not at or password == "***":
        return rest
    return f"{user if colon else ''}{colon if user else ''}***@{place}"


def _told(error: BaseException) -> tuple[str, int]:
    from leanmq.errors import ConfigurationError, LeanMQError

    if isinstance(error, click.UsageError):
        text = masked(error.format_message()).rstrip(".")
        where = error.ctx.command_path if error.ctx else "leanmq"
        return f"{_line(text)}; see '{where} --help'", error.exit_code
    if isinstance(error, click.ClickException):
        return _line(masked(error.format_message())), error.exit_code
    if isinstance(error, LeanMQError):
        wrong = isinstance(error, ConfigurationError)
        return _line(masked(str(error))), WRONG_USAGE if wrong else FAILED
    if isinstance(error, OSError):
        return _line(masked(str(error))), FAILED
    return (
        f"this should not happen, please report it ({type(error).__name__}: "
        f"{_line(masked(str(error)))}); LEANMQ_TRACEBACK=1 tells where",
        FAILED,
    )


def _line(text: str) -> str:
    return printable(" ".join(text.split()), 2_000)
