"""``leanmq ping``: whether the servers answer."""

from __future__ import annotations

import time

from leanmq.cli.lazy import command as command_named
from leanmq.cli.session import Session

__all__ = ["command"]


@command_named("ping")
def command() -> None:
    """Ask every server that holds messages for an answer, and tell how long it took."""
    session = Session.current()
    display = session.configured().display
    with session.client() as mq:
        mq.open()  # connecting takes longer than the answer, and is not what is asked for
        began = time.perf_counter()
        mq.ping()
        took = (time.perf_counter() - began) * 1000
    session.output.say(
        f"{display} answers in {took:.1f} ms", {"url": display, "milliseconds": round(took, 3)}
    )
