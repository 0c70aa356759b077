"""The group that all commands are in, and how a run of the program ends.

What a command does is in the module that the table here names; it is loaded when it is used.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from leanmq._version import __version__
from leanmq.cli.endings import INTERRUPTED, UNREAD, report
from leanmq.cli.lazy import LazyGroup, Member

__all__ = ["leanmq", "main"]

MEMBERS = {
    "demo": Member("leanmq.cli.demo", "A shop in ten seconds: retries, dead letters, and a sum."),
    "queues": Member("leanmq.cli.queues", "List queues, show one, or watch them."),
    "send": Member("leanmq.cli.send", "Send a message, or one for each line of the input."),
    "peek": Member("leanmq.cli.peek", "Look at messages without receiving them."),
    "purge": Member("leanmq.cli.purge", "Delete all messages of a queue."),
    "dlq": Member("leanmq.cli.dlq", "List, show, requeue or delete dead letters."),
    "shards": Member("leanmq.cli.shards", "Show the shards of a queue, or plan how to move them."),
    "url": Member("leanmq.cli.url", "Say what a URL means."),
    "config": Member("leanmq.cli.config", "Show the configuration, and where it comes from."),
    "ping": Member("leanmq.cli.ping", "Ask every server for an answer."),
}

EPILOG = """\b
Where the messages are: --url, or LEANMQ_URL, or a file (--config, LEANMQ_CONFIG, or leanmq.toml
or pyproject.toml in this folder), or REDIS_URL. `leanmq config` shows what was found.

\b
Every option has a variable: --json is LEANMQ_JSON, --ttl of send is LEANMQ_SEND_TTL.

\b
Exit status: 0 all is well; 1 it failed; 2 wrong usage or configuration;
130 ended by Ctrl-C; 141 nobody read the output to its end."""


class Root(LazyGroup):
    """Ends in one line on stderr and an exit status, whatever happens."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Both endings are told here, as click has other ideas of them."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            ctx.exit(UNREAD)
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal shows ^C
            ctx.exit(INTERRUPTED)
        return result

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run as a program: see ``click.Command.main``."""
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as error:  # noqa: BLE001  # told in one line; a traceback helps no user
            code = report(error)
        if standalone_mode:
            sys.exit(code)
        return code


@click.group(
    cls=Root,
    members=MEMBERS,
    name="leanmq",
    epilog=EPILOG,
    invoke_without_command=True,
    context_settings={
        "auto_envvar_prefix": "LEANMQ",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(__version__, prog_name="leanmq", message="%(prog)s %(version)s")
@click.pass_context
def leanmq(ctx: click.Context) -> None:
    """Message queues on Redis: send, look, watch, and mend."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return its exit status.

    Args:
        arguments: What stands after the program's name; None takes it from the process.
    """
    signal.signal(signal.SIGTERM, _terminated)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # payloads hold what it may not know
    code: int | None = leanmq.main(arguments, prog_name="leanmq", standalone_mode=False)
    return code or 0


def _terminated(number: int, frame: object) -> NoReturn:
    """End as by Ctrl-C, so that what was begun is tidied up, with the status of the signal."""
    sys.exit(128 + number)
