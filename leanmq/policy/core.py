"""What the queues of one client share: the open backend, declared queues, what is in flight."""

from __future__ import annotations

import logging

from leanmq.backends.protocol import Capabilities, Declare, Declared, QueueRef, Settings
from leanmq.clock import Clock, SystemClock
from leanmq.errors import ClosedError, ConnectionError, QueueSettingsError
from leanmq.policy.inflight import InFlight
from leanmq.policy.patience import Patience
from leanmq.policy.steps import Ask, Steps

__all__ = ["ClientCore"]

log = logging.getLogger("leanmq")


class ClientCore:
    """The state of a client and the steps that every operation begins with."""

    def __init__(self, name: str, *, deadline: float, clock: Clock | None = None) -> None:
        self.name = name
        self.deadline = deadline
        self.clock: Clock = clock or SystemClock()
        self.inflight = InFlight(self.clock)
        self.capabilities: Capabilities | None = None
        self.closed = False
        self._declared: dict[str, Declared] = {}
        self._remembered: dict[str, Settings] = {}  # of queues that may vanish

    def patience(self) -> Patience:
        """For one operation."""
        return Patience(self.clock, self.deadline)

    def check_open(self) -> None:
        """Raises ClosedError after ``close``."""
        if self.closed:
            raise ClosedError(f"the client of {self.name} is closed; open a new one")

    def open(self) -> Steps[Capabilities]:
        """Connect. A client that never reached its server says so at once."""
        self.check_open()
        if self.capabilities is None:
            self.capabilities = yield Ask("open")
        return self.capabilities

    def ping(self) -> Steps[None]:
        """One round trip to every node, tried once."""
        yield from self.open()
        yield Ask("ping")

    def close(self) -> Steps[None]:
        """Close the backend; calls that wait end within a slice."""
        self.closed = True
        yield Ask("close")

    def declare(self, queue: QueueRef, asked: Settings) -> Steps[Declared]:
        """Make or open the queue unless this client knows it."""
        if self.capabilities is None or self.closed:
            yield from self.open()
        known = self._declared.get(queue.name)
        if known is None:
            patience = self.patience()
            wanted = self._remembered.get(queue.name, asked)
            while known is None:
                try:
                    known = yield Ask("declare", Declare(queue.name, wanted))
                except ConnectionError as error:
                    yield patience.pause(error)
                    self.check_open()
            self._declared[queue.name] = known
            self._remembered[queue.name] = known.settings
        if asked != _NOTHING_ASKED:
            _compare(queue.name, asked, known.settings)
        return known

    def forget(self, queue: QueueRef) -> None:
        """The queue was deleted: declare it anew at its next use."""
        self._declared.pop(queue.name, None)
        self._remembered.pop(queue.name, None)

    def vanished(self, queue: QueueRef, asked: Settings) -> Steps[None]:
        """The queue was there and is not any more: say so, and make it again as it was."""
        if self._declared.pop(queue.name, None) is not None:
            log.warning(
                "queue %r had vanished from %s (flushed, evicted or deleted): created again",
                queue.name,
                self.name,
                extra={"leanmq_event": "queue_vanished", "leanmq_queue": queue.name},
            )
        yield from self.declare(queue, asked)


_NOTHING_ASKED = Settings()


def _compare(name: str, asked: Settings, stored: Settings) -> None:
    for setting in ("lease", "max_deliveries"):
        wanted, found = getattr(asked, setting), getattr(stored, setting)
        if wanted is not None and wanted != found:
            raise QueueSettingsError(
                f"queue {name!r} exists with {setting}={found:g}, you asked for "
                f"{setting}={wanted:g}; open it without {setting}, or delete it first",
                queue=name,
            )
