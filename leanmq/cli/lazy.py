"""Commands with the options that all of them share, and groups that load a command when it is used.

The shared options may stand anywhere: before the command's name, or behind it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple, TypeVar, cast

import click
from click.core import ParameterSource

from leanmq.cli.session import Session
from leanmq.cli.text import printable

__all__ = ["Command", "Group", "LazyGroup", "Member", "command", "group", "option"]


F = TypeVar("F", bound="Callable[..., Any]")


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """``click.option`` that tells the variable it is taken from."""
    return click.option(*names, show_envvar=True, **settings)


def _shared_options(root: bool) -> list[click.Parameter]:
    """New ones for each command. Where messages are, ``leanmq.sources`` reads from variables."""

    def shared(*names: str, **settings: Any) -> click.Option:
        return click.Option(
            names, callback=_choose, expose_value=False, allow_from_autoenv=False, **settings
        )

    json = click.Option(
        ("--json",),
        is_flag=True,
        callback=_choose,
        expose_value=False,
        allow_from_autoenv=root,  # one variable for all commands, not LEANMQ_PEEK_JSON
        help="Print JSON, one document a line, and nothing else.  [env var: LEANMQ_JSON]",
    )
    return [
        shared("--url", help="Where the messages are.  [env var: LEANMQ_URL]"),
        shared(
            "--config",
            type=click.Path(dir_okay=False),
            metavar="FILE",
            help="A TOML file that says so.  [env var: LEANMQ_CONFIG]",
        ),
        shared("--prefix", help="What keys begin with (mq:).  [env var: LEANMQ_PREFIX]"),
        shared(
            "--deadline",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="How long to try again while a server does not serve (30).  "
            "[env var: LEANMQ_DEADLINE]",
        ),
        shared(
            "--connection-timeout",
            type=click.FloatRange(min=0, min_open=True),
            metavar="SECONDS",
            help="How long to wait for a connection and for a reply (3).  "
            "[env var: LEANMQ_CONNECTION_TIMEOUT]",
        ),
        json,
    ]


def _choose(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Note what was said; what is said last, at the command, wins."""
    assert param.name is not None
    if ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
        Session.of(ctx).choices[param.name] = value


class Command(click.Command):
    """A command with the shared options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options(root=False)


class Group(click.Group):
    """A group with the shared options, which names the nearest command for one it lacks."""

    command_class = Command
    is_root = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params += _shared_options(root=self.is_root)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            ctx.fail(f"no command {printable(args[0], 100)!r}: {hint}")
        return super().resolve_command(ctx, args)


class Member(NamedTuple):
    """A command of a ``LazyGroup``.

    Attributes:
        module: The module whose name ``command`` it is.
        summary: What the group's help says of it.
    """

    module: str
    summary: str


class LazyGroup(Group):
    """A group that loads no module of a command before the command is used."""

    is_root = True

    def __init__(self, *args: Any, members: Mapping[str, Member], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.members = members

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self.members)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command."""
        if cmd_name not in self.members:
            return None
        return cast("click.Command", import_module(self.members[cmd_name].module).command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Say what there is, by the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, member.summary) for name, member in self.members.items()])


def command(name: str) -> Callable[[Callable[..., Any]], Command]:
    """``click.command`` with the shared options."""
    return click.command(name, cls=Command)


def group(name: str) -> Callable[[Callable[..., Any]], Group]:
    """``click.group`` with the shared options, whose function runs without a command, too."""
    return click.group(name, cls=Group, invoke_without_command=True)
