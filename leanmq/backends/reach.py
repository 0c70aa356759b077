"""Tells the log when a server stops to answer, and when it answers again: once each."""

from __future__ import annotations

import logging
import time
from typing import Final

from leanmq.backends.urls import Address, show
from leanmq.errors import LeanMQError

__all__ = ["Reach", "moved"]

_log: Final = logging.getLogger("leanmq.connection")


class Reach:
    """Which addresses do not answer one client at the moment. Shared by its threads.

    Attributes:
        lost: Since when (``time.monotonic``), by address.
    """

    def __init__(self) -> None:
        self.lost: dict[Address, float] = {}

    def fails(self, address: Address, error: LeanMQError) -> None:
        """A connection could not be made, or broke."""
        now = time.monotonic()
        if self.lost.setdefault(address, now) == now:
            extra = {"leanmq_event": "connection_lost", "leanmq_address": show(address)}
            _log.warning("%s", error, extra=extra)

    def answers(self, address: Address) -> None:
        """It is there."""
        since = self.lost.pop(address, None)
        if since is not None:
            _log.warning(
                "%s answers again, after %.1f s",
                show(address),
                time.monotonic() - since,
                extra={"leanmq_event": "connection_restored", "leanmq_address": show(address)},
            )


def moved(service: str, before: Address, now: Address) -> None:
    """The primary of a service is another server now."""
    _log.warning(
        "the primary of service %r is %s now, no longer %s",
        service,
        show(now),
        show(before),
        extra={"leanmq_event": "primary_moved", "leanmq_address": show(now)},
    )
