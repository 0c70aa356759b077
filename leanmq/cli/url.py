"""``leanmq url``: what a URL means, in a sentence."""

from __future__ import annotations

import click

from leanmq.cli.lazy import command as command_named
from leanmq.cli.session import Session

__all__ = ["command"]


@command_named("url")
@click.argument("what", metavar="URL")
def command(what: str) -> None:
    """Say what a URL means. Secrets are masked, nothing is connected to."""
    from leanmq.backends.explain import explain
    from leanmq.backends.urls import parse_url

    try:
        target = parse_url(what)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    meaning = explain(what)
    Session.current().output.say(
        meaning,
        {"url": target.display, "topology": target.topology, "meaning": meaning},
    )
