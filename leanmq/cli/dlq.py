"""``leanmq dlq``: dead letters, which failed too often: see why, send them back, or delete them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from leanmq.cli.asking import confirm
from leanmq.cli.lazy import group, option
from leanmq.cli.messages import DEAD, DETAILS, row_of
from leanmq.cli.session import Session, existing, queue_name
from leanmq.cli.text import counted

if TYPE_CHECKING:
    from leanmq import Queue

__all__ = ["command"]

PAGE = 1_000
"""Messages that one look shows at most."""


@group("dlq")
@click.pass_context
def command(ctx: click.Context) -> None:
    """List, show, requeue or delete dead letters.

    `leanmq queues` tells which queues have some.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("list")
@click.argument("queue", type=queue_name)
@option(
    "-n",
    "--count",
    type=click.IntRange(1, PAGE),
    default=10,
    show_default=True,
    help="Dead letters at most.",
)
def list_letters(queue: str, count: int) -> None:
    """List dead letters of a queue, oldest first, and why they died."""
    session = Session.current()
    with session.client() as mq:
        handle, _, _ = existing(mq, queue)
        found = handle.dlq.peek_messages(count)
    session.output.rows(map(row_of, found), DEAD, f"queue {queue!r} has no dead letters")


@command.command("show")
@click.argument("queue", type=queue_name)
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
def show(queue: str, ids: Sequence[str]) -> None:
    """Show all that is known of dead letters."""
    session = Session.current()
    with session.client() as mq:
        handle, _, _ = existing(mq, queue)
        found = handle.dlq.peek_messages(ids=ids)
    for number, message in enumerate(found):
        if number and not session.output.json:
            click.echo()
        session.output.record(row_of(message), DETAILS)
    _check_all_there(queue, ids, {message.id for message in found})


@command.command("requeue")
@click.argument("queue", type=queue_name)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@option("--all", "everything", is_flag=True, help="All that are there now.")
@option("--to", type=queue_name, metavar="QUEUE", help="Another queue than the one they were in.")
def requeue(queue: str, ids: Sequence[str], everything: bool, to: str | None) -> None:
    """Send dead letters back to their queue, counted anew."""
    if bool(ids) == everything:
        raise click.UsageError("say which: one ID or more, or --all")
    session = Session.current()
    with session.client() as mq:
        handle, _, dead = existing(mq, queue)
        target = existing(mq, to)[0] if to else None
        if everything:
            moved = _requeue_all(handle, target, dead.message_count)
        else:
            moved = handle.dlq.requeue_messages(ids, target)
        asked = dead.message_count if everything else len(set(ids))
        there = to or queue
    session.output.say(
        f"sent {moved:,} of {counted(asked, 'dead letter')} to {there!r}",
        {"queue": there, "requeued": moved},
    )
    if not everything and moved < asked:
        raise click.ClickException(
            f"the others are not there, or a client holds them; see `leanmq dlq list {queue}`"
        )


def _requeue_all(handle: Queue[Any], target: Queue[Any] | None, count: int) -> int:
    """Send back so many at most: what dies again meanwhile is not sent round for ever."""
    moved = 0
    while moved < count:
        letters = handle.dlq.peek_messages(min(PAGE, count - moved))
        # An id, unlike a message that was received, names a letter that nobody holds.
        done = handle.dlq.requeue_messages([letter.id for letter in letters], target)
        if not done:
            break
        moved += done
    return moved


@command.command("purge")
@click.argument("queue", type=queue_name)
@click.argument("ids", metavar="[ID]...", nargs=-1)
@option("--yes", is_flag=True, help="Do not ask.")
def purge(queue: str, ids: Sequence[str], yes: bool) -> None:
    """Delete dead letters of a queue: all, or those named. It asks first."""
    session = Session.current()
    with session.client() as mq:
        handle, _, dead = existing(mq, queue)
        if ids:
            question = f"Delete {counted(len(set(ids)), 'dead letter')} of {queue!r}?"
        else:
            question = f"Delete all {counted(dead.message_count, 'dead letter')} of {queue!r}?"
        confirm(question, yes=yes)
        deleted = handle.dlq.delete_messages(ids) if ids else handle.dlq.purge()
    session.output.say(
        f"deleted {counted(deleted, 'dead letter')} of {queue!r}",
        {"queue": queue, "deleted": deleted},
    )
    if ids and deleted < len(set(ids)):
        raise click.ClickException(f"the others are not there; see `leanmq dlq list {queue}`")


def _check_all_there(queue: str, ids: Sequence[str], found: set[str]) -> None:
    missing = [repr(name) for name in dict.fromkeys(ids) if name not in found]
    if missing:
        raise click.ClickException(
            f"queue {queue!r} has no dead letter {', '.join(missing)}; see "
            f"`leanmq dlq list {queue}`"
        )
