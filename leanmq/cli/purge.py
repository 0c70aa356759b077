"""``leanmq purge``: delete all messages of a queue."""

from __future__ import annotations

import click

from leanmq.cli.asking import confirm
from leanmq.cli.lazy import command as command_named
from leanmq.cli.lazy import option
from leanmq.cli.session import Session, existing, queue_name
from leanmq.cli.text import counted

__all__ = ["command"]


@command_named("purge")
@click.argument("queue", type=queue_name)
@option("--yes", is_flag=True, help="Do not ask.")
def command(queue: str, yes: bool) -> None:
    """Delete all messages of a queue: ready, delayed, and in flight.

    Its dead letters stay, as does the queue itself. It asks first.
    """
    session = Session.current()
    with session.client() as mq:
        handle, info, _ = existing(mq, queue)
        question = (
            f"Delete all {counted(info.message_count, 'message')} of {queue!r} "
            f"({info.pending_messages:,} in flight)?"
        )
        confirm(question, yes=yes)
        purged = handle.purge()
    session.output.say(
        f"deleted {counted(purged, 'message')} of {queue!r}", {"queue": queue, "deleted": purged}
    )
