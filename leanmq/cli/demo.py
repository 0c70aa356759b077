"""``leanmq demo``: runs the shop of ``leanmq/demo``, and shows it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from leanmq.cli.lazy import command as command_named
from leanmq.cli.lazy import option
from leanmq.cli.output import Output, Show
from leanmq.cli.queues import COUNTS, rows_of
from leanmq.cli.session import Session
from leanmq.cli.text import printable

if TYPE_CHECKING:
    from leanmq import QueueInfo

__all__ = ["command"]


@command_named("demo")
@option("--seed", type=int, default=7, show_default=True, help="Decides what goes wrong.")
@option(
    "--seconds",
    type=click.FloatRange(1, 3_600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it takes, about.",
)
def command(seed: int, seconds: float) -> None:
    """Ten seconds of a small shop: a producer, three consumers, and all that can go wrong.

    Vans break down and orders are tried again; some are to come later; quotes expire; one order
    fails until its cause is mended, one can never be shipped. In the end what became of all
    orders is read back from the queues, and must add up; else the exit status is 1.

    It runs in memory unless --url (or --config, or their variables) says where; there it has a
    prefix of its own, and deletes what it made. The code is in leanmq/demo.
    """
    import attrs

    from leanmq import LeanMQ
    from leanmq.demo.day import run, swept

    session = Session.current()
    # A REDIS_URL, or a file in this folder, is meant for an application, not for a demo.
    found = session.resolve({**os.environ, "REDIS_URL": "memory://"})
    prefix = f"{found.config.prefix}demo-{secrets.token_hex(4)}:"
    mq = LeanMQ.from_config(attrs.evolve(found.config, prefix=prefix, queues={}))
    with swept(mq), _watcher(session.output, found.display, seed, seconds) as watcher:
        summary = run(mq, watcher, seed=seed, seconds=seconds)
    session.output.say(
        str(summary),
        {
            "seed": seed,
            "seconds": seconds,
            "sent": summary.sent,
            "handled": summary.handled,
            "dead": summary.dead,
            "expired": summary.expired,
            "left": summary.left,
            "retries": summary.retries,
            "requeued": summary.requeued,
            "adds_up": summary.adds_up,
        },
    )
    if not summary.adds_up:
        raise click.ClickException("what was sent and what became of it do not add up")


@contextmanager
def _watcher(output: Output, display: str, seed: int, seconds: float) -> Iterator[_Watcher]:
    title = f"leanmq demo on {display}, seed {seed}, {seconds:g} seconds"
    if not output.json:
        click.echo(title)
    if output.drawn:
        with output.live(COUNTS) as show:
            yield _Drawn(show)
    else:
        yield _Watcher() if output.json else _Lines()


class _Watcher:
    """Says nothing."""

    def see(self, elapsed: float, sent: int, queues: Sequence[QueueInfo]) -> None:
        """See ``leanmq.demo.day.Watcher``."""

    def hear(self, elapsed: float, event: str) -> None:
        """See ``leanmq.demo.day.Watcher``."""


class _Lines(_Watcher):
    """A line a second, and one for each event."""

    def __init__(self) -> None:
        self._next = 0.0

    def see(self, elapsed: float, sent: int, queues: Sequence[QueueInfo]) -> None:
        """See ``leanmq.demo.day.Watcher``."""
        if elapsed < self._next:
            return
        self._next = elapsed // 1 + 1
        rows = {row["queue"]: row for row in rows_of(queues)}
        orders = rows["orders"]
        self.hear(
            elapsed,
            f"{sent} sent, {rows['shipped']['ready']} shipped; orders: {orders['ready']} ready, "
            f"{orders['in_flight']} in flight, {orders['delayed']} delayed, "
            f"{orders['dead']} dead",
        )

    def hear(self, elapsed: float, event: str) -> None:
        """See ``leanmq.demo.day.Watcher``."""
        click.echo(f"{elapsed:5.1f} s  {printable(event)}")


class _Drawn(_Watcher):
    """A table that is drawn anew, with the events under it."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._events: list[str] = []

    def see(self, elapsed: float, sent: int, queues: Sequence[QueueInfo]) -> None:
        """See ``leanmq.demo.day.Watcher``."""
        self._show(rows_of(queues), [f"{elapsed:.1f} s, {sent} sent", *self._events])

    def hear(self, elapsed: float, event: str) -> None:
        """See ``leanmq.demo.day.Watcher``."""
        self._events.append(f"{elapsed:.1f} s  {event}")
