"""``leanmq peek``: look at messages without receiving them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from leanmq.cli.lazy import command as command_named
from leanmq.cli.lazy import option
from leanmq.cli.messages import STORED, row_of
from leanmq.cli.session import Session, existing, queue_name

__all__ = ["command"]


@command_named("peek")
@click.argument("queue", type=queue_name)
@option(
    "-n",
    "--count",
    type=click.IntRange(1, 1_000),
    default=10,
    show_default=True,
    help="Messages at most.",
)
@option("--in-flight", is_flag=True, help="Those that consumers hold, instead of the next.")
@option("--id", "ids", multiple=True, metavar="ID", help="This one; may be given several times.")
def command(queue: str, count: int, in_flight: bool, ids: Sequence[str]) -> None:
    """Look at the next messages of a queue. Nothing is received, nothing counted."""
    if in_flight and ids:
        raise click.UsageError("--in-flight and --id do not go together")
    session = Session.current()
    with session.client() as mq:
        handle, _, _ = existing(mq, queue)
        if in_flight:
            found = handle.pending_messages(count)
        else:
            found = handle.peek_messages(count, ids=ids or None)
    state = "in flight" if in_flight else "ready"
    empty = "no such message" if ids else f"no message of {queue!r} is {state}"
    session.output.rows(map(row_of, found), STORED, empty)
