"""Names, durations, encoding, patience, errors: the pure parts of policy."""

from __future__ import annotations

import pickle
import struct
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmq import BulkSendError, ConnectionError, LeanMQError, MessageError, OutcomeUnknownError
from leanmq.backends.streams.keys import queue_keys, registry_key
from leanmq.policy.encoding import UndecodableError, decode, encode
from leanmq.policy.names import check_name, ids_of, seconds_of, settings_of, wait_of
from leanmq.policy.patience import LONGEST_PAUSE, Patience
from tests.support.clock import FakeClock

NAMES = st.text("abcXYZ019._:/-", min_size=1, max_size=30)


@given(st.lists(NAMES, min_size=2, max_size=2, unique=True))
def test_no_two_queues_share_a_key(names: list[str]) -> None:
    one, other = (set(queue_keys("mq:", name, name).all()) for name in names)

    assert not one & other
    assert len(one) == 11
    assert len({key[key.index("{") : key.index("}")] for key in one}) == 1  # one slot
    assert registry_key("mq:") not in one


@given(NAMES)
def test_all_keys_of_a_queue_have_one_tag(name: str) -> None:
    tags = {key[key.index("{") : key.index("}") + 1] for key in queue_keys("p:", name, name).all()}

    assert tags == {f"{{{name}}}"}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text()
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)  # fmt: skip
def test_json_comes_back_equal(payload: Any) -> None:
    try:
        body = encode(payload)
    except MessageError:  # a lone surrogate: no JSON can hold it
        assert any("\ud800" <= c <= "\udfff" for c in repr(payload)) or "\\ud" in repr(payload)
        return
    assert decode(body) == payload


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_bytes_that_are_no_json_are_undecodable(body: bytes) -> None:
    with pytest.raises(UndecodableError, match=f"{len(body)} bytes"):
        decode(body)


def test_what_the_standard_library_wrote_is_read() -> None:
    assert decode(b'[Infinity, "\\ud800"]') == [float("inf"), "\ud800"]


@pytest.mark.parametrize("payload", [object(), {1: object()}, {"a": {1, object()}}])
def test_what_is_no_json_is_refused_without_its_content(payload: object) -> None:
    with pytest.raises(MessageError, match="not JSON") as refused:
        encode(payload)

    assert refused.value.__cause__ is not None


def test_a_payload_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(MessageError, match="nested too deeply"):
        encode(loop)


# As the bits have it: quiet and signalling, of either sign, and the two infinities.
NOT_FINITE = [struct.unpack(">d", bytes.fromhex(bits + "0" * 12))[0] for bits in
              ("7ff8", "fff8", "7ff4", "fff4", "7ff0", "fff0")]  # fmt: skip


@pytest.mark.parametrize("number", NOT_FINITE, ids=repr)
@pytest.mark.parametrize("beside", [None, [], {"a": None}, "null", 2**70, (1, {2})], ids=repr)
def test_no_number_becomes_null_without_a_word(number: float, beside: Any) -> None:
    for payload in (number, [beside, number], {"a": {"b": (number,)}, "c": beside}):
        with pytest.raises(MessageError, match="NaN or Infinity"):
            encode(payload)


def test_null_is_no_suspect_whatever_bits_are_beside_it() -> None:
    alike = struct.unpack(">q", bytes.fromhex("00cb7ff800000000"))[0]

    for payload in (
        [None, alike],
        [None, 2**70],
        ["null", alike],
        {"null": {"a": None, "b": alike}},
    ):
        assert decode(encode(payload)) == payload
    assert decode(encode((None, alike, {"t": (1,)}))) == [None, alike, {"t": [1]}]


def test_a_string_that_is_refused_is_not_kept_as_the_cause() -> None:
    with pytest.raises(MessageError, match="surrogate") as refused:
        encode("hunter2 \ud800")

    assert refused.value.__cause__ is refused.value.__context__ is None


def test_what_a_shallow_stack_could_encode_a_deep_one_can_decode() -> None:
    body = b"[" * 900 + b"]" * 900

    def deeper(levels: int) -> Any:
        return deeper(levels - 1) if levels else decode(body)

    assert deeper(300) == decode(body)


def test_durations_are_seconds() -> None:
    assert seconds_of(timedelta(minutes=2), "x") == 120.0
    assert seconds_of(0, "x") == 0.0
    with pytest.raises(TypeError, match="x must be seconds or a timedelta, not str"):
        seconds_of("5", "x")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not bool"):
        seconds_of(True, "x")
    with pytest.raises(ValueError, match="lease is inf"):
        settings_of(lease=float("inf"))


def test_waiting_is_what_the_arguments_say() -> None:
    assert wait_of(True, 2) == 2
    assert wait_of(None, timedelta(seconds=1)) == 1
    assert wait_of(False, None) == 0
    with pytest.raises(ValueError, match="timeout"):
        wait_of(False, -1)


@pytest.mark.parametrize("limit", [-1, 1_000_001, True, 1.5, "3"])
def test_a_limit_is_a_number_of_deliveries(limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="max_deliveries"):
        settings_of(max_deliveries=limit)


@pytest.mark.parametrize("lease", [0, 0.01, 40 * 86_400])
def test_a_lease_is_neither_too_short_nor_too_long(lease: float) -> None:
    with pytest.raises(ValueError, match="lease"):
        settings_of(lease=lease)


def test_names_are_checked_and_long_ones_are_cut_in_the_error() -> None:
    assert check_name("a.B_c:d/e-9") == "a.B_c:d/e-9"
    with pytest.raises(TypeError, match="must be a str, not int"):
        check_name(7)
    with pytest.raises(ValueError, match="201 characters") as refused:
        check_name("x" * 201)
    assert len(str(refused.value)) < 200


def test_ids_are_unique_and_in_order() -> None:
    assert ids_of("one") == ["one"]
    assert ids_of(["b", "a", "b"]) == ["b", "a"]
    with pytest.raises(TypeError, match="got int"):
        ids_of([1])  # type: ignore[list-item]


def test_pauses_grow_to_a_bound_and_end_at_the_deadline() -> None:
    clock = FakeClock()
    patience = Patience(clock, deadline=5)
    error = ConnectionError("down")
    pauses = []
    while clock.now < 1_000 + 5 - LONGEST_PAUSE:
        pauses.append(patience.pause(error).seconds)
        clock.now += pauses[-1]

    with pytest.raises(ConnectionError) as raised:
        patience.pause(error)
    assert raised.value is error
    assert pauses[0] < 0.02
    assert max(pauses) <= LONGEST_PAUSE
    assert sum(pauses) <= 5
    assert 15 <= len(pauses) <= 60


@pytest.mark.parametrize(
    "error",
    [
        LeanMQError("a", queue="q", message_id="m", code="OOM"),
        OutcomeUnknownError("lost", queue="q"),
        ConnectionError("down", in_doubt=True),
        BulkSendError("b", confirmed={0: "1-0"}, unknown=(1,), unsent=(2,), queue="q"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_survive_pickling(error: LeanMQError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.in_doubt == error.in_doubt


def test_only_a_connection_error_invites_to_try_again() -> None:
    assert issubclass(ConnectionError, OSError)
    assert not issubclass(OutcomeUnknownError, OSError)
    assert ConnectionError("x").retryable
    assert not OutcomeUnknownError("x").retryable
    assert OutcomeUnknownError("x").in_doubt
