"""``leanmq shards``: what is in each shard of a queue and on each node, and what would move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from leanmq.cli.asking import confirm
from leanmq.cli.endings import masked
from leanmq.cli.lazy import Group, option
from leanmq.cli.output import Column
from leanmq.cli.session import Session, existing, queue_name
from leanmq.cli.text import counted, printable

if TYPE_CHECKING:
    from leanmq import LeanMQ
    from leanmq.sharding.figures import Quota, ShardStats
    from leanmq.sharding.placement import Placement

__all__ = ["command"]


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


_SHARDS = (
    Column("shard", "SHARD", right=True),
    Column("node", "NODE"),
    Column("ready", "READY", right=True, show=_number),
    Column("in_flight", "IN FLIGHT", right=True, show=_number),
    Column("delayed", "DELAYED", right=True, show=_number),
    Column("dead", "DEAD", right=True, show=_number),
)

_NODES = (
    Column("node", "NODE"),
    Column("weight", "WEIGHT", right=True, show=lambda weight: f"{weight:g}"),
    Column("shards", "SHARDS", right=True),
    Column("quota", "BY WEIGHT", right=True, show=lambda quota: _range(quota)),
    Column("backlog", "BACKLOG", right=True, show=_number),
    Column("error", "STATE", show=lambda error: f"down: {printable(error)}" if error else "up"),
)

_MOVES = (
    Column("from", "FROM"),
    Column("to", "TO"),
    Column("count", "SHARDS", right=True),
    Column("messages", "MESSAGES", right=True, show=_number),
    Column("dead", "DEAD", right=True, show=_number),
)

_PLANNED = (
    Column("node", "NODE"),
    Column("weight_before", "WEIGHT", right=True, show=lambda w: "-" if w is None else f"{w:g}"),
    Column("weight", "AFTER", right=True, show=lambda w: "-" if w is None else f"{w:g}"),
    Column("shards_before", "SHARDS", right=True),
    Column("shards", "AFTER", right=True),
    Column("quota_before", "BY WEIGHT", right=True, show=lambda quota: _range(quota)),
    Column("quota", "AFTER", right=True, show=lambda quota: _range(quota)),
)


class _Shards(Group):
    """What is no command is the name of a queue: ``leanmq shards orders``."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command."""
        if args[0] not in self.commands:
            args = ["show", *args]
        return super().resolve_command(ctx, args)


@click.group(
    "shards", cls=_Shards, invoke_without_command=True, subcommand_metavar="QUEUE | COMMAND ..."
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show the shards of a queue, or plan how to move them.

    A queue is in shards on the nodes of a configuration, or by `mq.sharded_queue`.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@command.command("show")
@click.argument("queue", type=queue_name)
def show(queue: str) -> None:
    """Show what is in each shard, and what each node has. `show` may be left out.

    \b
    BY WEIGHT  how many shards the node should have
    BACKLOG    messages that nobody works on: ready and delayed
    """
    from leanmq.sharding.figures import nodes_of, skew

    session = Session.current()
    with session.client() as mq:
        placement, stats = _look(mq, queue)
    shards = [_shard_row(one) for one in stats]
    nodes = [
        {
            "node": one.node,
            "weight": one.quota.weight,
            "shards": one.shards,
            "quota": _span(one.quota),
            "backlog": None if one.error else one.backlog,
            "error": one.error and masked(one.error),
        }
        for one in nodes_of(placement, stats)
    ]
    fullest = skew(stats)
    output = session.output
    if output.json:
        row = {"queue": queue, "epoch": placement.epoch, "skew": fullest, "nodes": nodes}
        output.say("", row | {"shards": shards})
    else:
        output.rows(shards, _SHARDS, "")
        click.echo()
        output.rows(nodes, _NODES, "")
        click.echo()
        click.echo(_skew(fullest, stats))
    _check_all_known(nodes)


@command.command("plan")
@click.argument("queue", type=queue_name)
@option(
    "--add",
    "added",
    multiple=True,
    metavar="NAME=URL[*WEIGHT]",
    help="A node that there shall be; may be given several times. It is not connected to.",
)
@option(
    "--remove",
    "removed",
    multiple=True,
    metavar="NAME",
    help="A node that there shall not be any more; may be given several times.",
)
@option(
    "--weight",
    "weighed",
    multiple=True,
    metavar="NAME=WEIGHT",
    help="Another weight of a node; may be given several times.",
)
def plan(queue: str, added: Sequence[str], removed: Sequence[str], weighed: Sequence[str]) -> None:
    r"""Show what would move to other nodes, or by other weights. Changes nothing.

    \b
    leanmq shards plan orders --add c=redis://c:6379/0
    leanmq shards plan orders --remove a --weight b=2
    """
    from leanmq.sharding.figures import moves, quotas
    from leanmq.sharding.placement import plan as planned

    if not (added or removed or weighed):
        raise click.UsageError("say what shall change: --add, --remove or --weight")
    new = _once("--add", map(_addition, added))
    session = Session.current()
    with session.client() as mq:
        placement, stats = _look(mq, queue)
    weights = _weights(placement, new, removed, _once("--weight", map(_weighing, weighed)))
    try:
        after = planned(placement.where, weights)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    rows = [_move_row(move.source, move.target, move.shards, stats)
            for move in moves(placement.where, after)]  # fmt: skip
    quotas_before = quotas(placement.shards, placement.weights)
    quotas_after = quotas(placement.shards, weights)
    nodes = [
        {
            "node": node,
            "weight_before": placement.weights.get(node),
            "weight": weights.get(node),
            "shards_before": placement.where.count(node),
            "shards": after.count(node),
            "quota_before": _span(quotas_before.get(node)),
            "quota": _span(quotas_after.get(node)),
        }
        for node in sorted({*placement.weights, *weights})
    ]
    output = session.output
    if output.json:
        output.say("", {"queue": queue, "changed": False, "moves": rows, "nodes": nodes})
        return
    output.rows(rows, _MOVES, "no shard would move")
    click.echo()
    output.rows(nodes, _PLANNED, "")
    click.echo()
    moved = sum(row["count"] for row in rows)
    click.echo(f"{moved:,} of {counted(placement.shards, 'shard')} would move; nothing was changed")


@command.command("readmit")
@click.argument("queue", type=queue_name)
@click.argument("node")
@option("--yes", is_flag=True, help="Do not ask.")
def readmit(queue: str, node: str, yes: bool) -> None:
    """Take in a node that lost its data.

    For after a PlacementError that says `without an id`, if what the node held is lost for good.
    Its shards are made anew, empty. It asks first.
    """
    session = Session.current()
    with session.client() as mq:
        confirm(
            f"Is what node {node!r} held of {queue!r} lost for good? If another server has its "
            "messages, nobody will find them. Take the empty one in?",
            yes=yes,
        )
        try:
            done = mq.sharded_queue(queue).readmit(node)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    says = "is taken in again" if done else "knows who it is: nothing was to be done"
    session.output.say(f"node {node!r} {says}", {"queue": queue, "node": node, "changed": done})


def _look(mq: LeanMQ, queue: str) -> tuple[Placement, Sequence[ShardStats]]:
    """Where the shards are, and what is in them.

    Raises:
        click.ClickException: if there is no such queue, or it is not in shards.
    """
    from leanmq import QueueNotFoundError, QueueSettingsError

    handle = mq.sharded_queue(queue)
    try:
        return handle.placement(), handle.stats_by_shard()
    except QueueNotFoundError:
        existing(mq, queue)  # says which there are
        problem = "is not in shards"
    except QueueSettingsError:
        problem = "is not in shards"
    raise click.ClickException(
        f"queue {queue!r} {problem}; `leanmq queues` shows which are, and in how many"
    )


def _shard_row(stats: ShardStats) -> dict[str, Any]:
    known = stats.error is None
    return {
        "shard": stats.shard,
        "node": stats.node,
        "ready": stats.ready if known else None,
        "in_flight": stats.in_flight if known else None,
        "delayed": stats.delayed if known else None,
        "dead": stats.dead if known else None,
    }


def _move_row(
    source: str, target: str, shards: Sequence[int], stats: Sequence[ShardStats]
) -> dict[str, Any]:
    its = [stats[shard] for shard in shards]
    known = all(one.error is None for one in its)
    messages = sum(one.ready + one.in_flight + one.delayed for one in its)
    return {
        "from": source,
        "to": target,
        "count": len(shards),
        "messages": messages if known else None,
        "dead": sum(one.dead for one in its) if known else None,
        "shards": list(shards),
    }


def _skew(value: float | None, stats: Sequence[ShardStats]) -> str:
    if value is None:
        return "no backlog"
    fullest = max(stats, key=lambda one: one.backlog)
    return (
        f"skew {value:.2f}: shard {fullest.shard} has a backlog of {fullest.backlog:,}, "
        f"the mean is {fullest.backlog / value:,.1f}"
    )


def _span(quota: Quota | None) -> list[int] | None:
    return None if quota is None else [quota.floor, quota.ceiling]


def _range(quota: list[int] | None) -> str:
    """The fewest and the most shards by a weight."""
    if quota is None:
        return "-"
    return f"{quota[0]}" if quota[0] == quota[1] else f"{quota[0]}-{quota[1]}"


def _check_all_known(nodes: Sequence[dict[str, Any]]) -> None:
    down = [repr(node["node"]) for node in nodes if node["error"]]
    if down:
        raise click.ClickException(f"no figures of node {', '.join(down)}: see above")


def _addition(text: str) -> tuple[str, float]:
    """The name and the weight of a node that is added; its URL is checked, and not needed."""
    from leanmq.backends.registry import describe

    name, found, url = text.partition("=")
    address, star, weight = url.rpartition("*")
    if not star or not _is_number(weight):
        address, weight = url, "1"
    if not (name and found and "://" in address):
        raise click.UsageError("--add: write NAME=URL, as c=redis://c:6379/0, or NAME=URL*WEIGHT")
    try:
        describe(address, None)
    except ValueError as error:
        raise click.UsageError(f"--add {printable(name, 60)}: {error}") from None
    return name, float(weight)


def _weighing(text: str) -> tuple[str, float]:
    name, _, weight = text.partition("=")
    if not name or not _is_number(weight):
        raise click.UsageError(f"--weight {printable(text, 60)!r}: write NAME=WEIGHT, as b=2")
    return name, float(weight)


def _once(option: str, pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, weight in pairs:
        if name in found:
            raise click.UsageError(f"{option} {name!r} is given twice; give it once")
        found[name] = weight
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _weights(
    placement: Placement,
    added: dict[str, float],
    removed: Sequence[str],
    weighed: dict[str, float],
) -> dict[str, float]:
    """The weights that there shall be, of those that are stored."""
    weights = dict(placement.weights)
    there = ", ".join(sorted(weights))
    for name in removed:
        if weights.pop(name, None) is None:
            raise click.UsageError(f"--remove {name!r}: there is no such node; there are {there}")
    for name in added:
        if name in removed:
            raise click.UsageError(
                f"--add {name!r}: a node of this name is removed, and its shards stay on the old "
                "one; give the new node another name"
            )
        if name in weights:
            raise click.UsageError(f"--add {name!r}: there is a node of this name; choose another")
    weights |= added
    for name in weighed:
        if name not in weights:
            raise click.UsageError(f"--weight {name!r}: there is no such node; there are {there}")
    return weights | weighed
