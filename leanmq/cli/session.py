"""What a command works with: the client that was configured, and the output that was asked for."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from leanmq.cli.output import Output

if TYPE_CHECKING:
    from leanmq import LeanMQ, Queue, QueueInfo
    from leanmq.sources import Resolved

__all__ = ["Session", "existing", "made", "queue_name"]

_KEY = "leanmq.cli.session"


class Session:
    """One run of the program.

    Attributes:
        choices: The shared options that were given, by name.
    """

    def __init__(self) -> None:
        self.choices: dict[str, Any] = {}

    @staticmethod
    def of(ctx: click.Context) -> Session:
        """The session of this run, made at its first use."""
        session = ctx.meta.setdefault(_KEY, Session())
        assert isinstance(session, Session)
        return session

    @classmethod
    def current(cls) -> Session:
        """The session of the command that runs."""
        return cls.of(click.get_current_context())

    @property
    def output(self) -> Output:
        """How to speak."""
        return Output(json=bool(self.choices.get("json")))

    def resolve(
        self, environ: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> Resolved:
        """The configuration: options over variables over a file.

        Args:
            environ: The environment; None is that of this process.
            folder: Where a file is looked for if none was named.

        Raises:
            click.UsageError: if nothing says where the messages are.
            ConfigurationError: if what says so cannot be.
        """
        from leanmq.config import NowhereError
        from leanmq.sources import resolve

        choices = {k: v for k, v in self.choices.items() if k not in ("json", "config")}
        try:
            return resolve(self.choices.get("config"), environ=environ, folder=folder, **choices)
        except NowhereError as error:
            raise click.UsageError(
                "nothing says where the messages are; give --url (as redis://localhost:6379/0), "
                "set LEANMQ_URL, or write url = '...' into leanmq.toml in this folder"
            ) from error

    def configured(self) -> Resolved:
        """The configuration for this folder."""
        return self.resolve(os.environ, Path.cwd())

    @contextmanager
    def client(self) -> Iterator[LeanMQ]:
        """The client that was configured, until the end of the block."""
        from leanmq import LeanMQ

        config = self.configured().config
        try:
            mq = LeanMQ.from_config(config)
        except (TypeError, ValueError) as error:
            raise click.UsageError(str(error)) from error
        with mq:
            yield mq


def queue_name(value: str) -> str:
    """The name of a queue, for ``type=`` of a parameter: checked before a server is asked."""
    from leanmq.policy.names import check_name

    try:
        return check_name(value)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def existing(mq: LeanMQ, name: str) -> tuple[Queue, QueueInfo, QueueInfo]:
    """A queue that exists, its figures, and those of its dead letters.

    Looking at a queue by its handle would make it: a name that was mistyped must not stay behind.

    Raises:
        click.ClickException: if there is none of this name; tells the nearest that is there.
    """
    infos = mq.list_queues()
    found = {info.is_dlq: info for info in infos if info.name == name}
    if len(found) == 2:
        return _handle(mq, found[False]), found[False], found[True]
    near = difflib.get_close_matches(name, [info.name for info in infos], n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see `leanmq queues`"
    raise click.ClickException(f"queue {name!r} does not exist; {hint}")


def made(mq: LeanMQ, name: str) -> Queue:
    """A queue, which is made if it does not exist."""
    from leanmq import QueueSettingsError

    queue = mq.queue(name)
    try:
        queue.declare()
    except QueueSettingsError:  # perhaps it is in shards, and is opened otherwise
        for info in mq.list_queues():
            if info.name == name and info.shards:
                return _handle(mq, info)
        raise
    return queue


def _handle(mq: LeanMQ, info: QueueInfo) -> Queue:
    """The queue of these figures: one in shards has its messages in queues of their own."""
    return mq.sharded_queue(info.name, shards=info.shards) if info.shards else mq.queue(info.name)
