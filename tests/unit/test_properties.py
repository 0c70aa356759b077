"""What holds for any names, any sequence of calls, any text: tried with many of them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis.crc import key_slot

from leanmq import BulkSendError, LeanMQ, Queue, QueueFullError
from leanmq.backends.streams.keys import queue_keys, registry_key
from leanmq.policy.codec import codec_for
from leanmq.policy.encoding import UndecodableError

NAMES = st.text("abZ09._:/-", min_size=1, max_size=12)
PREFIXES = st.just("") | NAMES
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
NUMBERS = count()
FEW = settings(max_examples=12, deadline=None)


@pytest.fixture(scope="module")
def mq() -> Iterator[LeanMQ]:
    with LeanMQ("memory://") as client:
        yield client


@given(PREFIXES, st.lists(NAMES, min_size=2, max_size=5, unique=True), st.lists(NAMES, min_size=5))
def test_no_two_queues_share_a_key_whatever_their_names_and_slots(
    prefix: str, names: list[str], slots: list[str]
) -> None:
    queues = [queue_keys(prefix, name, slots[n]).all() for n, name in enumerate(names)]

    for keys in queues:
        assert len(set(keys)) == len(keys)
        assert registry_key(prefix) not in keys
    for some, others in combinations(queues, 2):
        assert not set(some) & set(others)


@given(PREFIXES, st.lists(NAMES, min_size=1, max_size=4), NAMES)
def test_queues_of_one_slot_are_on_one_node_of_a_cluster(
    prefix: str, names: list[str], slot: str
) -> None:
    keys = [key for name in names for key in queue_keys(prefix, name, slot).all()]

    assert len({key_slot(key.encode()) for key in keys}) == 1


@FEW
@given(
    bound=st.integers(1, 4),
    calls=st.lists(
        st.sampled_from(["send", "delayed", "bulk", "transaction", "acknowledge", "retry"]),
        min_size=5,
        max_size=20,
    ),
)
def test_a_bound_holds_and_is_used_up_whatever_happens(
    mq: LeanMQ, bound: int, calls: list[str]
) -> None:
    queue = mq.queue(f"q{next(NUMBERS)}", max_length=bound)
    stored = 0
    for call in calls:
        room = bound - stored
        if call == "acknowledge":
            stored -= queue.acknowledge_messages(queue.get_messages(1))
        elif call == "retry":
            queue.retry_messages(queue.get_messages(1))
        else:
            sent = _sent(mq, queue, call)
            wanted = 2 if call in ("bulk", "transaction") else 1
            # A bulk send stores what it can, a transaction all or nothing.
            assert sent == (min(wanted, room) if call == "bulk" else wanted * (wanted <= room))
            stored += sent
        assert queue.get_info().message_count == stored
    queue.delete(delete_dlq=True)


def _sent(mq: LeanMQ, queue: Queue, how: str) -> int:
    """How many messages a call stored."""
    try:
        if how == "transaction":
            with mq.transaction() as tx:
                tx.send_message(queue, 1)
                tx.send_message(queue, 2, delay=60)
            return 2
        if how == "bulk":
            return len(queue.send_messages([1, 2]))
        queue.send_message(1, delay=60 if how == "delayed" else None)
    except QueueFullError:
        return 0
    except BulkSendError as stopped:
        return len(stopped.confirmed)
    return 1


@FEW
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXTS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
        max_leaves=8,
    ),
    key=TEXTS,
    label=TEXTS,
    headers=st.dictionaries(TEXTS, TEXTS, max_size=3),
    reason=TEXTS,
)
def test_what_waits_until_it_is_due_is_kept_as_it_was(
    mq: LeanMQ, data: Any, key: str, label: str, headers: dict[str, str], reason: str
) -> None:
    queue = mq.queue("delayed")
    sent = queue.send_message(data, key=key, headers=headers, message_id=label)
    [message] = queue.get_messages()
    queue.retry_messages(message, delay=60, reason=reason)  # packs its fields, failures in them
    again = queue.send_message(data, key=key, headers=headers, message_id=label, delay=60)

    for seen in queue.peek_messages(ids=[sent, again]):
        assert seen.state == "delayed"
        assert (seen.data, seen.key, seen.message_id) == (data, key, label)
        assert seen.headers == headers
        assert [f.reason for f in seen.failures] == ([reason] if seen.id == sent else [])
    assert queue.purge() == 2


@given(st.binary(max_size=60))
def test_a_typed_codec_never_fails_otherwise_than_by_saying_so(body: bytes) -> None:
    for wanted in (int, list[int], dict[str, int], None):
        codec = codec_for(wanted)
        try:
            payload = codec.decode(body)
        except UndecodableError:
            continue
        assert codec.decode(codec.encode(payload)) == payload
