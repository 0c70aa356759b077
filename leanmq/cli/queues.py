"""``leanmq queues``: list them, show one, watch their figures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count as counting
from typing import TYPE_CHECKING, Any

import click

from leanmq.cli.lazy import group, option
from leanmq.cli.output import Column
from leanmq.cli.session import Session, existing, queue_name
from leanmq.cli.text import moment, seconds

if TYPE_CHECKING:
    from leanmq import QueueInfo

__all__ = ["COUNTS", "command", "rows_of"]

COUNTS = (
    Column("queue", "QUEUE"),
    Column("ready", "READY", right=True),
    Column("in_flight", "IN FLIGHT", right=True),
    Column("delayed", "DELAYED", right=True),
    Column("dead", "DEAD", right=True),
)

_SHARDS = Column("shards", "SHARDS", right=True, show=lambda n: f"{n:,}" if n else "-")

_PROPERTIES = (
    Column("queue", "queue"),
    Column("ready", "ready"),
    Column("in_flight", "in flight"),
    Column("delayed", "delayed"),
    Column("dead", "dead"),
    Column("created_at", "created", show=moment),
    Column("lease", "lease", show=seconds),
    Column("max_deliveries", "max deliveries", show=lambda n: f"{n:,}" if n else "unlimited"),
    Column("max_length", "max length", show=lambda n: f"{n:,}" if n else "unlimited"),
    Column("overflow", "overflow"),
    Column("max_payload_bytes", "max payload", show=lambda n: f"{n:,} bytes"),
    Column("dedup_window", "dedup window", show=seconds),
    Column("slot", "slot"),
    Column("shards", "shards", show=lambda n: f"{n:,}" if n else "none"),
)


@group("queues")
@click.pass_context
def command(ctx: click.Context) -> None:
    """List queues, show one, or watch them. Without a command: list."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_queues)


@command.command("list")
def list_queues() -> None:
    """List all queues with their counts.

    \b
    READY      waiting to be received
    IN FLIGHT  leased to a consumer
    DELAYED    not due yet
    DEAD       dead letters: failed too often, or for good
    SHARDS     of queues in shards, if there are any: see `leanmq shards`
    """
    session = Session.current()
    with session.client() as mq:
        rows = rows_of(mq.list_queues())
        session.output.rows(rows, _columns(rows), "there are no queues")


@command.command("info")
@click.argument("queue", type=queue_name)
def info(queue: str) -> None:
    """Show the counts and the settings of a queue."""
    session = Session.current()
    with session.client() as mq:
        _, live, dead = existing(mq, queue)
    settings = ("created_at", "lease", "max_deliveries", "max_length", "overflow",
                "max_payload_bytes", "dedup_window", "slot")  # fmt: skip
    row = _counts(live, dead) | {name: getattr(live, name) for name in settings}
    session.output.record(row, _PROPERTIES)


@command.command("watch")
@click.argument("queues", nargs=-1, type=queue_name)
@option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two looks.",
)
@option("--count", type=click.IntRange(min=1), help="End after so many looks.")
def watch(queues: Sequence[str], interval: float, count: int | None) -> None:
    """Watch the counts of all queues, or of those named, until Ctrl-C."""
    session = Session.current()
    output = session.output
    looks = counting(1) if count is None else range(1, count + 1)
    with session.client() as mq:
        if output.drawn:
            with output.live(COUNTS) as show:
                for look in looks:
                    rows = rows_of(mq.list_queues(), queues)
                    show(rows, [f"{moment(time.time())}, every {interval:g} s"])
                    _pause(interval, last=look == count)
            return
        for look in looks:
            now = time.time()
            for row in rows_of(mq.list_queues(), queues):
                output.say(f"{moment(now)}  {_sentence(row)}", {"at": now} | row)
            _pause(interval, last=look == count)


def rows_of(infos: Sequence[QueueInfo], names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A row for each queue (of these names), its dead letters counted beside it."""
    dead = {info.name: info for info in infos if info.is_dlq}
    return [
        _counts(info, dead[info.name])
        for info in infos
        if not info.is_dlq and info.name in dead and (not names or info.name in names)
    ]


def _counts(live: QueueInfo, dead: QueueInfo) -> dict[str, Any]:
    return {
        "queue": live.name,
        "ready": live.ready_messages,
        "in_flight": live.pending_messages,
        "delayed": live.delayed_messages,
        "dead": dead.message_count,
        "shards": live.shards,
    }


def _columns(rows: Sequence[dict[str, Any]]) -> Sequence[Column]:
    return (*COUNTS, _SHARDS) if any(row["shards"] for row in rows) else COUNTS


def _sentence(row: dict[str, Any]) -> str:
    return (
        f"{row['queue']}: {row['ready']:,} ready, {row['in_flight']:,} in flight, "
        f"{row['delayed']:,} delayed, {row['dead']:,} dead"
    )


def _pause(interval: float, *, last: bool) -> None:
    if not last:
        time.sleep(interval)  # as the user asked: between two looks
