"""Memory and a real Redis give the same answers to the same random questions.

Two clients on each side do the same at the same time; ids are told apart by the order in which
they were first seen, and no absolute time is compared. Nothing here depends on how fast the
machine is: leases, delays and windows last for hours, and end because the storage is told that
they did (``time_passes``). Only a time to live is written into the message itself, so that one
rule really waits for it.

``LEANMQ_EQUIVALENCE=200`` has it try so many examples instead of a few.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from leanmq import LeanMQ, LeanMQError, Message, Outgoing, Queue, QueueInfo, StoredMessage
from leanmq.backends import memory
from leanmq.backends.protocol import QueueRef
from leanmq.backends.streams.keys import GROUP, StreamKeys, queue_keys, registry_key
from leanmq.clock import SystemClock
from tests.support import running
from tests.support.topology import Topology

EXAMPLES = int(os.environ.get("LEANMQ_EQUIVALENCE", "12"))
STEPS = 40

SLOT = "s"
NAMES = ("a", "b")
SETTINGS: dict[str, dict[str, Any]] = {
    "a": {"max_deliveries": 3, "max_length": 6, "max_payload_bytes": 40},
    "b": {"max_deliveries": 0},
}
LONG = 3_600.0
"""Seconds of a lease and of a window: much longer than a run, and over when time passes."""
SHORT_LIFE = 0.02
"""Seconds of a time to live that is over when the rule which used it ends."""

CLIENTS = st.integers(0, 1)
# Sends go there alone: what is sent to dead letters by hand may be called like a message of the
# queue, if both were sent in one millisecond, as happens on one side and not on the other.
LIVE = st.sampled_from(NAMES)
QUEUES = st.sampled_from(["a", "b", "a!", "b!"])  # with !: the dead letters
PICKS = st.lists(st.integers(0, 12), min_size=1, max_size=4)
COUNTS = st.integers(1, 5)
DATA = st.none() | st.integers(0, 9) | st.text(max_size=12) | st.just("x" * 50)
KEYS = st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
HEADERS = st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2)
DEDUP = st.none() | st.sampled_from(["d1", "d2", "d3"])
REASONS = st.just("") | st.text(st.characters(codec="utf-8"), max_size=20)


# Makes all that is in flight idle for long, and what was to come earlier by that much.
TIME_PASSES = """
for _, row in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000)) do
  redis.call('XCLAIM', KEYS[1], ARGV[1], row[2], 0, row[1], 'IDLE', 36000000, 'JUSTID')
end
redis.call('HDEL', KEYS[2], ARGV[2])
for i = 3, 4 do
  for _, member in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
    if member ~= '~' then redis.call('ZINCRBY', KEYS[i], -36000000, member) end
  end
end
"""


class ShiftedClock(SystemClock):
    """The clock of a client, which can be put forward."""

    offset = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.offset

    def time(self) -> float:
        return super().time() + self.offset


@attrs.define
class Side:
    """One of the two storages with its two clients, and what is known of its messages."""

    prefix: str
    execute: Callable[..., Any]
    clients: list[LeanMQ]
    clock: ShiftedClock
    symbols: dict[tuple[str, str], int] = attrs.Factory(dict)
    ids: list[tuple[str, str]] = attrs.Factory(list)
    sent_at: dict[tuple[str, str], float] = attrs.Factory(dict)
    received: list[dict[int, Message[Any]]] = attrs.Factory(lambda: [{}, {}])

    def queue(self, client: int, name: str) -> Queue:
        live = self.clients[client].queue(
            name[0], slot=SLOT, lease=LONG, dedup_window=LONG, **SETTINGS[name[0]]
        )
        return live.dlq if name.endswith("!") else live

    def symbol(self, name: str, message_id: str) -> int:
        """What both sides call this message: messages keep their ids, queues have their own."""
        known = (name[0], message_id)
        if known not in self.symbols:
            self.symbols[known] = len(self.ids)
            self.ids.append(known)
        return self.symbols[known]

    def pick(self, name: str, picks: Sequence[int]) -> list[str]:
        """Ids of the queue's messages, the latest ones first; then ids that never were. (Ids of
        another queue may be ids of this one too, on one side by chance.)"""
        known = [message_id for queue, message_id in self.ids[::-1] if queue == name[0]]
        return [known[p] if p < len(known) else f"{9_000 + p}-1" for p in picks]

    def seen(self, message: Message[Any]) -> tuple[Any, ...]:
        """All that both sides must agree on."""
        symbol = self.symbol(message.queue, message.id)
        sent_at = self.sent_at.setdefault((message.queue, message.id), message.timestamp)
        assert sent_at == message.timestamp, "the moment of sending has changed"
        told: tuple[Any, ...] = (
            symbol, message.data, message.delivery_count, message.error, message.key,
            message.headers, message.message_id, message.redrives, message.queue,
            [(f.delivery_count, f.reason) for f in message.failures],
        )  # fmt: skip
        if isinstance(message, StoredMessage):
            return *told, message.state, message.due_at is None, message.consumer is None
        return told

    def streams(self) -> list[tuple[str, StreamKeys]]:
        both = [queue_keys(self.prefix, name, SLOT) for name in NAMES]
        return [pair for keys in both for pair in (("q", keys.live), ("d", keys.dead))]

    def let_time_pass(self) -> None:
        """All leases and delays end, and what was sent once may be sent again."""
        self.clock.offset += LONG + 1
        for kind, keys in self.streams():
            places = (keys.stream, keys.meta, keys.due, keys.dedup)
            self.execute("EVAL", TIME_PASSES, len(places), *places, GROUP, f"sweep_{kind}")

    def close(self) -> None:
        for name in NAMES:
            self.execute("DEL", *queue_keys(self.prefix, name, SLOT).all())
        self.execute("DEL", registry_key(self.prefix))
        for client in self.clients:
            client.close()


def side(url: str, execute: Callable[..., Any], prefix: str) -> Side:
    clock = ShiftedClock()
    clients = [LeanMQ(url, prefix=prefix, deadline=5) for _ in range(2)]
    for client in clients:
        client._core.clock = client._core.inflight._clock = clock
    return Side(prefix, execute, clients, clock)


class Equivalence(RuleBasedStateMachine):
    """The rules: each does one thing on both sides and compares what is told."""

    topology: Topology

    def __init__(self) -> None:
        super().__init__()
        prefix = f"e{secrets.token_hex(5)}:"
        server = memory.server(prefix[:-1])
        node = self.topology.primary_for(None)
        self.sides = [
            side(f"memory://{prefix[:-1]}", server.execute, prefix),
            side(self.topology.url, lambda *words: self.topology.ask(node, *words), prefix),
        ]
        self.delays = itertools.count(100)

    @initialize()
    def declare(self) -> None:
        for one in self.sides:
            for client, name in itertools.product((0, 1), NAMES):
                one.queue(client, name).declare()

    def teardown(self) -> None:
        for one in self.sides:
            one.close()

    def both(self, act: Callable[[Side], Any]) -> Any:
        """What both sides answer; an error is an answer too."""
        answers = []
        for one in self.sides:
            try:
                answers.append(act(one))
            except LeanMQError as error:
                answers.append((type(error).__name__, error.queue))
        in_memory, on_server = answers
        assert in_memory == on_server
        return in_memory

    def delay(self, wanted: bool) -> float | None:
        """A delay that no other message has: of two that are due at once, ids say who is first,
        and the sides may have sent them at different moments."""
        return float(next(self.delays)) if wanted else None

    # --- sending

    @rule(
        client=CLIENTS, name=LIVE, data=DATA, key=KEYS, headers=HEADERS, label=KEYS,
        delayed=st.booleans(), dedup_id=DEDUP,
    )  # fmt: skip
    def send(
        self, client: int, name: str, data: Any, key: str | None, headers: Any,
        label: str | None, delayed: bool, dedup_id: str | None,
    ) -> None:  # fmt: skip
        delay = self.delay(delayed)

        def act(one: Side) -> int:
            message_id = one.queue(client, name).send_message(
                data, key=key, headers=headers, message_id=label, delay=delay, dedup_id=dedup_id
            )
            return one.symbol(name, message_id)

        self.both(act)

    @rule(client=CLIENTS, name=LIVE, items=st.lists(st.tuples(DATA, DEDUP), max_size=5))
    def send_many(self, client: int, name: str, items: list[tuple[Any, str | None]]) -> None:
        outgoing = [Outgoing(data, dedup_id=dedup_id) for data, dedup_id in items]

        def act(one: Side) -> Any:
            try:
                ids = dict(enumerate(one.queue(client, name).send_messages(outgoing, key="k")))
                rest: Any = None
            except LeanMQError as error:
                ids = getattr(error, "confirmed", {})
                rest = type(error).__name__, getattr(error, "unsent", None)
            return {n: one.symbol(name, message_id) for n, message_id in ids.items()}, rest

        self.both(act)

    @rule(name=LIVE, count=st.integers(1, 2))
    def what_is_sent_expires(self, name: str, count: int) -> None:
        outgoing = [Outgoing(n, ttl_seconds=SHORT_LIFE) for n in range(count)]

        def act(one: Side) -> list[int]:
            ids = one.queue(0, name).send_messages(outgoing)
            return [one.symbol(name, message_id) for message_id in ids]

        self.both(act)
        time.sleep(2 * SHORT_LIFE)  # its time to live is in the message, and cannot be moved

    @rule(
        client=CLIENTS,
        sends=st.lists(st.tuples(LIVE, DATA, DEDUP, st.booleans()), max_size=4),
        picks=st.lists(st.integers(0, 5), max_size=2),
    )
    def transaction(
        self, client: int, sends: list[tuple[str, Any, str | None, bool]], picks: list[int]
    ) -> None:
        messages = [(*send[:3], self.delay(send[3])) for send in sends]

        def act(one: Side) -> Any:
            held = list(one.received[client].values())[::-1]
            with one.clients[client].transaction() as tx:
                for name, data, dedup_id, delay in messages:
                    queue = one.queue(client, name)
                    tx.send_message(queue, data, dedup_id=dedup_id, delay=delay)
                tx.acknowledge(held[p] for p in picks if p < len(held))
            return [one.symbol(m[0], i) for m, i in zip(messages, tx.ids, strict=True)]

        self.both(act)

    # --- receiving and settling

    @rule(client=CLIENTS, name=QUEUES, count=COUNTS)
    def receive(self, client: int, name: str, count: int) -> None:
        def act(one: Side) -> Any:
            ref = QueueRef(name[0], name.endswith("!"))
            # Otherwise it may read new messages before older ones that became free, for a while
            # that is not equally long here and there.
            one.clients[client]._core.inflight.calm(ref, 0.0)
            messages = one.queue(client, name).get_messages(count)
            for message in messages:
                one.received[client][one.symbol(name, message.id)] = message
            return [one.seen(message) for message in messages]

        self.both(act)

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS)
    def acknowledge(self, client: int, name: str, picks: list[int]) -> None:
        self.both(lambda one: one.queue(client, name).acknowledge_messages(one.pick(name, picks)))

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS)
    def release(self, client: int, name: str, picks: list[int]) -> None:
        self.both(lambda one: one.queue(client, name).release_messages(one.pick(name, picks)))

    @rule(client=CLIENTS, name=QUEUES, pick=PICKS, delayed=st.booleans(), reason=REASONS)
    def retry(self, client: int, name: str, pick: list[int], delayed: bool, reason: str) -> None:
        delay = self.delay(delayed) or 0.0
        picks = pick[:1] if delayed else pick
        self.both(
            lambda one: one.queue(client, name).retry_messages(
                one.pick(name, picks), delay, reason=reason
            )
        )

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS)
    def extend(self, client: int, name: str, picks: list[int]) -> None:
        self.both(lambda one: one.queue(client, name).extend_messages(one.pick(name, picks)))

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS, reason=REASONS)
    def dead_letter(self, client: int, name: str, picks: list[int], reason: str) -> None:
        self.both(lambda one: one.queue(client, name).move_to_dlq(one.pick(name, picks), reason))

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS, named=st.booleans())
    def requeue(self, client: int, name: str, picks: list[int], named: bool) -> None:
        to = name[0] if named else None
        self.both(lambda one: one.queue(client, name).requeue_messages(one.pick(name, picks), to))

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS)
    def delete(self, client: int, name: str, picks: list[int]) -> None:
        self.both(lambda one: one.queue(client, name).delete_messages(one.pick(name, picks)))

    @precondition(lambda self: len(self.sides[0].ids) > 8)
    @rule(client=CLIENTS, name=QUEUES)
    def purge(self, client: int, name: str) -> None:
        self.both(lambda one: one.queue(client, name).purge())

    @rule(client=CLIENTS)
    def delete_what_has_expired(self, client: int) -> None:
        self.both(lambda one: one.clients[client].process_expired_messages())

    @rule()
    def time_passes(self) -> None:
        for one in self.sides:
            one.let_time_pass()

    # --- looking

    @rule(client=CLIENTS, name=QUEUES, count=COUNTS)
    def peek(self, client: int, name: str, count: int) -> None:
        self.both(lambda one: list(map(one.seen, one.queue(client, name).peek_messages(count))))

    @rule(client=CLIENTS, name=QUEUES, picks=PICKS)
    def peek_at_some(self, client: int, name: str, picks: list[int]) -> None:
        def act(one: Side) -> Any:
            return list(
                map(one.seen, one.queue(client, name).peek_messages(ids=one.pick(name, picks)))
            )

        self.both(act)

    @rule(client=CLIENTS, name=QUEUES, count=COUNTS)
    def pending(self, client: int, name: str, count: int) -> None:
        self.both(lambda one: list(map(one.seen, one.queue(client, name).pending_messages(count))))

    @invariant()
    def the_figures_are_the_same(self) -> None:
        def act(one: Side) -> list[QueueInfo]:
            return [_without_time(info) for info in one.clients[0].list_queues()]

        figures = self.both(act)
        for info in figures:
            assert not info.max_length or info.message_count <= info.max_length


def _without_time(info: QueueInfo) -> QueueInfo:
    states = info.ready_messages, info.pending_messages, info.delayed_messages
    assert sum(states) == info.message_count
    assert min(states) >= 0
    return QueueInfo(
        info.name, info.is_dlq, info.message_count, *states, 0.0, info.lease, info.max_deliveries,
        max_length=info.max_length, slot=info.slot,
    )  # fmt: skip


@pytest.mark.timeout(600)  # Hypothesis looks for a short example for five minutes, if it fails
def test_memory_answers_as_a_real_server_does() -> None:
    Equivalence.topology = running.get("redis")
    run_state_machine_as_test(
        Equivalence,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
