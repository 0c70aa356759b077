"""What the queues of one client share: the open backend, declared queues, what is in flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from leanmq.api import QueueInfo
from leanmq.backends.protocol import (
    Alter,
    Capabilities,
    Declare,
    Declared,
    Listed,
    ListQueues,
    Purge,
    Purged,
    QueueRef,
    QueueStats,
    Settings,
    Stats,
)
from leanmq.clock import Clock, SystemClock
from leanmq.errors import (
    ClosedError,
    QueueNotFoundError,
    QueueSettingsError,
    UnreachableError,
    UnsupportedError,
)
from leanmq.policy import events
from leanmq.policy.inflight import InFlight
from leanmq.policy.names import ref_of
from leanmq.policy.patience import Patience
from leanmq.policy.steps import Ask, Steps
from leanmq.sharding.names import fold

__all__ = ["DEADLINE", "ClientCore", "ClientTerms"]

DEADLINE = 30.0
"""Seconds that an operation is tried again while its server does not serve."""


@attrs.frozen
class ClientTerms:
    """What a client was opened with, besides its backend.

    Attributes:
        deadline: Seconds that an operation is tried again while its server does not serve.
        prefix: What full names of queues begin with.
        queues: Settings by the names of queues, for handles that ask for no others.
        max_retries: How often an unreachable server is tried again at most.
        retry_interval: Seconds between two tries; None: pauses that grow.
    """

    deadline: float = DEADLINE
    prefix: str = ""
    queues: Mapping[str, Settings] = attrs.field(factory=dict)
    max_retries: int | None = None
    retry_interval: float | None = None


@attrs.define
class _Life:
    """Of a client: whether it is over."""

    over: bool = False


class ClientCore:
    """The state of a client and the steps that every operation begins with."""

    def __init__(
        self,
        name: str,
        terms: ClientTerms,
        clock: Clock | None = None,
        *,
        beside: ClientCore | None = None,
    ) -> None:
        """``beside`` is the core of the same client for another backend: what kills its process
        kills what both hold, and it is closed as one."""
        self.name = name
        self.terms = terms
        self.clock: Clock = clock or (beside.clock if beside else SystemClock())
        self.inflight: InFlight = beside.inflight if beside else InFlight(self.clock)
        self.capabilities: Capabilities | None = None
        self._life: _Life = beside._life if beside else _Life()
        self._declared: dict[str, Declared] = {}
        self._remembered: dict[str, Settings] = {}  # of queues that may vanish
        self._agreed: set[tuple[str, Settings]] = set()  # asked for, and found so

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._life.over

    def is_beside(self, other: ClientCore) -> bool:
        """Whether the two are of one client."""
        return self._life is other._life

    def patience(self, spent: float = 0.0) -> Patience:
        """For one operation, of whose deadline so many seconds are over."""
        terms = self.terms
        left = max(0.0, terms.deadline - spent)
        return Patience(self.clock, left, terms.max_retries, terms.retry_interval)

    def check_open(self) -> None:
        """Raises ClosedError after ``close``."""
        if self.closed:
            raise ClosedError(f"the client of {self.name} is closed; open a new one")

    def open(self) -> Steps[Capabilities]:
        """Connect. A client that never reached its server says so at once."""
        self.check_open()
        if self.capabilities is None:
            self.capabilities = yield Ask("open")
            for text in self.capabilities.notices:
                events.notice(self.name, text)
        return self.capabilities

    def ping(self) -> Steps[None]:
        """One round trip to every node, tried once."""
        yield from self.open()
        yield Ask("ping")

    def close(self) -> Steps[None]:
        """Close the backend; calls that wait end within a slice."""
        self._life.over = True
        yield Ask("close")

    def declare(self, queue: QueueRef, asked: Settings) -> Steps[Declared]:
        """Make or open the queue unless this client knows it.

        What a handle asks for is compared once with what is stored then: settings that are
        changed later, by ``update_queue``, are followed.
        """
        if (configured := self.terms.queues.get(queue.name)) is not None:
            asked = _filled(asked, configured)
        if self.capabilities is None or self.closed:
            yield from self.open()
        known = self._declared.get(queue.name)
        settled = asked == _NOTHING_ASKED or (queue.name, asked) in self._agreed
        if known is None or not settled:
            known = yield from self._declare(queue.name, asked)
        if not settled:
            _compare(queue.name, asked, known.settings)
            self._agreed.add((queue.name, asked))
        return known

    def _declare(self, name: str, asked: Settings) -> Steps[Declared]:
        self._check_bound(name, asked)
        wanted = self._remembered.get(name, asked)
        known: Declared = yield from self.persist("declare", Declare(name, wanted))
        self._learn(name, known)
        return known

    def _check_bound(self, name: str, settings: Settings) -> None:
        if settings.max_length and self.capabilities and not self.capabilities.bounds:
            raise UnsupportedError(
                f"{self.name} cannot keep the bound of queue {name!r}: its messages are in several "
                "places; do without max_length",
                queue=name,
            )

    def _learn(self, name: str, known: Declared) -> None:
        before = self._remembered.get(name)
        if before is not None and before.shards != known.settings.shards:  # it was made anew
            self._agreed = {pair for pair in self._agreed if pair[0] != name}
        self._declared[name] = known
        self._remembered[name] = known.settings

    def persist(self, method: str, request: object) -> Steps[Any]:
        """Ask for what does no harm if it is done twice, until time runs out."""
        patience = self.patience()
        while True:
            try:
                return (yield Ask(method, request))
            except UnreachableError as error:
                yield patience.pause(error)
                self.check_open()

    def refresh(self, queue: QueueRef) -> Steps[Declared]:
        """Read the settings again: somebody changed them."""
        self._declared.pop(queue.name, None)
        return (yield from self._declare(queue.name, _NOTHING_ASKED))

    def find(self, queue: object) -> Steps[QueueRef | None]:
        """The queue that is meant, if it exists; ``orders:dlq`` may mean dead letters."""
        ref = ref_of(queue, self.terms.prefix)
        yield from self.open()
        if (yield from self._exists(ref)):
            return ref
        if ref.name.endswith(":dlq") and len(ref.name) > len(":dlq"):
            dead = QueueRef(ref.name.removesuffix(":dlq"), True)
            if (yield from self._exists(dead)):
                return dead
        return None

    def _exists(self, queue: QueueRef) -> Steps[bool]:
        try:
            yield from self.persist("stats", Stats(queue))
        except QueueNotFoundError:
            return False
        return True

    def update(self, queue: object, changes: Settings) -> Steps[QueueInfo]:
        """Change settings for all who use the queue."""
        yield from self.open()
        name = ref_of(queue, self.terms.prefix).name
        if changes == _NOTHING_ASKED:
            raise TypeError("nothing to update; give a setting, such as lease=30")
        self._check_bound(name, changes)
        known: Declared = yield from self.persist("alter", Alter(name, changes))
        self._learn(name, known)
        return (yield from self.info(QueueRef(name), _NOTHING_ASKED))

    def ask_of(self, queue: QueueRef, asked: Settings, method: str, request: object) -> Steps[Any]:
        """``persist`` for a queue, which is made (again) if it is not there."""
        patience = self.patience()
        while True:
            yield from self.declare(queue, asked)
            try:
                return (yield Ask(method, request))
            except QueueNotFoundError as error:
                yield patience.pause(error)
                yield from self.vanished(queue, asked)
            except UnreachableError as error:
                yield patience.pause(error)

    def info(self, queue: QueueRef, asked: Settings) -> Steps[QueueInfo]:
        """Count the messages of a queue."""
        stats: QueueStats = yield from self.ask_of(queue, asked, "stats", Stats(queue))
        return _info_of(queue, stats)

    def list_queues(self) -> Steps[list[QueueInfo]]:
        """Every queue, and its dead letters; one in shards is one."""
        listed = yield from self._listed()
        return [_info_of(ref, stats) for ref, stats in fold(listed.queues).queues]

    def _listed(self) -> Steps[Listed]:
        yield from self.open()
        listed: Listed = yield from self.persist("list", ListQueues())
        return listed

    def process_expired(self) -> Steps[int]:
        """Delete what has expired, in every queue."""
        count = 0
        for ref, _ in (yield from self._listed()).queues:
            if not ref.dead:
                request = Purge(ref, expired=True)
                try:
                    purged: Purged = yield from self.persist("purge", request)
                except QueueNotFoundError:  # deleted meanwhile
                    continue
                count += purged.count
        return count

    def shards_of(self, queue: QueueRef) -> int:
        """In how many shards a queue is, if this client has declared it; else 0."""
        known = self._declared.get(queue.name)
        return (known.settings.shards or 0) if known else 0

    def forget(self, queue: QueueRef) -> None:
        """The queue was deleted: declare it anew at its next use."""
        self._declared.pop(queue.name, None)
        self._remembered.pop(queue.name, None)
        self._agreed = {pair for pair in self._agreed if pair[0] != queue.name}

    def vanished(self, queue: QueueRef, asked: Settings) -> Steps[None]:
        """The queue was there and is not any more: say so, and make it again as it was."""
        if self._declared.pop(queue.name, None) is not None:
            events.vanished(queue.name, self.name)
        yield from self.declare(queue, asked)


_NOTHING_ASKED = Settings()


def _filled(asked: Settings, configured: Settings) -> Settings:
    """What is asked for, and of the rest what is configured."""
    values = attrs.asdict(configured) | {
        k: v for k, v in attrs.asdict(asked).items() if v is not None
    }
    return Settings(**values)


def _compare(name: str, asked: Settings, stored: Settings) -> None:
    for setting, wanted in attrs.asdict(asked).items():
        found = getattr(stored, setting)
        if wanted is not None and wanted != found:
            if setting == "shards":
                raise QueueSettingsError(
                    f"queue {name!r} has {found} shards, you asked for {wanted}; open it with "
                    f"shards={found}: they stay as many, unless you delete the queue first",
                    queue=name,
                )
            raise QueueSettingsError(
                f"queue {name!r} exists with {setting}={_show(found)}, you asked for "
                f"{setting}={_show(wanted)}; open it without {setting}, change it by "
                f"mq.update_queue({name!r}, ...), or delete it first",
                queue=name,
            )


def _show(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _info_of(ref: QueueRef, stats: QueueStats) -> QueueInfo:
    """What users are told of a queue."""
    settings = stats.settings
    return QueueInfo(
        name=ref.name,
        is_dlq=ref.dead,
        message_count=stats.ready + stats.in_flight + stats.delayed,
        ready_messages=stats.ready,
        pending_messages=stats.in_flight,
        delayed_messages=stats.delayed,
        created_at=stats.created_at,
        lease=settings.lease or 0.0,
        max_deliveries=0 if ref.dead else settings.max_deliveries or 0,
        max_length=0 if ref.dead else settings.max_length or 0,
        overflow=settings.overflow or "raise",
        max_payload_bytes=settings.max_payload_bytes or 0,
        dedup_window=settings.dedup_window or 0.0,
        slot=settings.slot or ref.name,
        shards=settings.shards or 0,
    )
