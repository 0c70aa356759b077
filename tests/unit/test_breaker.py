"""The circuit breaker: when a node is left out, who may try it again, and when it is back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from leanmq.sharding import breaker as module
from leanmq.sharding.breaker import Breaker
from tests.support.clock import FakeClock
from tests.support.threads import at_once

FIRST, LONGEST = 0.25, 2.0
SECONDS = st.floats(0.001, 0.3) | st.floats(0.3, 12.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(clock, FIRST, LONGEST)


def half_open(breaker: Breaker, clock: FakeClock) -> None:
    breaker.failed()
    clock.now += LONGEST
    assert breaker.wants_probe()
    breaker.probed(True)
    assert breaker.state == "half-open"


def pause_of(breaker: Breaker, clock: FakeClock) -> float:
    """How long it takes until the open breaker wants a probe, which is then claimed."""
    began = clock.now
    while not breaker.wants_probe():
        clock.now += 0.001
        assert clock.now < began + 60
    return clock.now - began


def test_a_node_is_used_until_a_call_fails(breaker: Breaker) -> None:
    assert (breaker.state, breaker.allows(), breaker.wants_probe()) == ("closed", True, False)

    breaker.failed()

    assert (breaker.state, breaker.allows(), breaker.wants_probe()) == ("open", False, False)


def test_a_node_that_is_well_again_is_used_after_a_probe_and_one_real_call(
    breaker: Breaker, clock: FakeClock
) -> None:
    breaker.failed()
    assert FIRST <= pause_of(breaker, clock) <= FIRST * 1.2 + 0.01
    assert (breaker.state, breaker.allows()) == ("open", False)

    breaker.probed(True)
    assert breaker.state == "half-open"
    assert [breaker.allows() for _ in range(3)] == [True, False, False]

    breaker.succeeded()
    assert breaker.state == "closed"
    assert [breaker.allows() for _ in range(3)] == [True, True, True]


def test_pauses_double_up_to_the_longest_while_a_node_stays_down(
    breaker: Breaker, clock: FakeClock
) -> None:
    breaker.failed()
    pauses = [pause_of(breaker, clock)]
    for _ in range(5):
        breaker.probed(False)
        pauses.append(pause_of(breaker, clock))

    for pause, expected in zip(pauses, [0.25, 0.5, 1.0, 2.0, 2.0, 2.0], strict=True):
        assert max(FIRST, expected * 0.8) <= pause <= min(LONGEST, expected * 1.2) + 0.01


def test_a_trial_that_fails_opens_for_longer(breaker: Breaker, clock: FakeClock) -> None:
    half_open(breaker, clock)
    assert breaker.allows()

    breaker.failed()

    assert breaker.state == "open"
    assert 0.4 <= pause_of(breaker, clock) <= 0.61


def test_a_success_makes_the_next_pause_the_first_again(breaker: Breaker, clock: FakeClock) -> None:
    for _ in range(4):
        half_open(breaker, clock)
    breaker.succeeded()

    breaker.failed()

    assert pause_of(breaker, clock) <= FIRST * 1.2 + 0.01


def test_failures_of_many_calls_at_once_count_as_one(breaker: Breaker, clock: FakeClock) -> None:
    for _ in range(50):
        breaker.failed()
        clock.now += 0.001

    assert pause_of(breaker, clock) <= FIRST * 1.2 + 0.01
    breaker.probed(False)
    assert pause_of(breaker, clock) <= 2 * FIRST * 1.2 + 0.01


def test_pauses_differ_between_clients(clock: FakeClock) -> None:
    breakers = [Breaker(clock) for _ in range(20)]
    for breaker in breakers:
        breaker.failed()

    clock.now += FIRST * 1.1
    assert 0 < sum(breaker.wants_probe() for breaker in breakers) < 20


def test_one_caller_probes_and_a_claim_that_is_not_answered_ends(
    breaker: Breaker, clock: FakeClock
) -> None:
    breaker.failed()
    clock.now += LONGEST
    assert [breaker.wants_probe() for _ in range(3)] == [True, False, False]

    clock.now += 9.9
    assert not breaker.wants_probe()
    clock.now += 0.2
    assert [breaker.wants_probe() for _ in range(3)] == [True, False, False]


def test_the_answer_to_an_old_probe_changes_nothing(breaker: Breaker, clock: FakeClock) -> None:
    breaker.failed()
    clock.now += LONGEST
    assert breaker.wants_probe()
    breaker.succeeded()  # another call, meanwhile
    for answer in (True, False):
        breaker.probed(answer)
        assert breaker.state == "closed"

    breaker.failed()
    breaker.probed(True)

    assert breaker.state == "open"


def test_a_trial_that_was_cancelled_leaves_another_caller_to_try(
    breaker: Breaker, clock: FakeClock
) -> None:
    half_open(breaker, clock)
    assert breaker.allows()

    breaker.abandon()

    assert breaker.state == "half-open"
    assert [breaker.allows() for _ in range(3)] == [True, False, False]


def test_a_trial_that_nobody_told_the_end_of_does_not_keep_the_node_out_for_ever(
    breaker: Breaker, clock: FakeClock
) -> None:
    half_open(breaker, clock)
    assert breaker.allows()

    clock.now += 9.9
    assert not breaker.allows()
    clock.now += 0.2
    assert [breaker.allows() for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize("state", ["closed", "open"])
def test_giving_up_a_trial_that_is_none_changes_nothing(breaker: Breaker, state: str) -> None:
    if state == "open":
        breaker.failed()

    breaker.abandon()

    assert (breaker.state, breaker.allows()) == (state, state == "closed")


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (-1, 1), (2, 1), (float("nan"), 1)])
def test_pauses_that_cannot_be_are_refused(clock: FakeClock, first: float, longest: float) -> None:
    with pytest.raises(ValueError, match=f"first is {first} and longest {longest}; give seconds"):
        Breaker(clock, first, longest)


# --- threads


def test_of_eight_threads_one_probes_and_one_tries(breaker: Breaker, clock: FakeClock) -> None:
    for _ in range(10):
        breaker.failed()
        clock.now += LONGEST

        assert sum(at_once(lambda _: breaker.wants_probe(), disturb=module)) == 1
        breaker.probed(True)
        assert sum(at_once(lambda _: breaker.allows(), disturb=module)) == 1
        breaker.succeeded()


def test_eight_threads_that_fail_at_once_open_once(breaker: Breaker, clock: FakeClock) -> None:
    for _ in range(10):
        at_once(lambda _: breaker.failed(), disturb=module)

        assert pause_of(breaker, clock) <= FIRST * 1.2 + 0.01
        breaker.probed(False)
        assert pause_of(breaker, clock) <= 2 * FIRST * 1.2 + 0.01
        breaker.succeeded()


def test_eight_threads_that_probe_and_try_bring_a_node_back_whatever_their_order(
    breaker: Breaker, clock: FakeClock
) -> None:
    well = False
    trials = 0

    def use(number: int) -> None:
        nonlocal trials
        for _ in range(40):
            clock.now += 0.01
            if breaker.wants_probe():
                breaker.probed(well)
            if breaker.state == "half-open" and breaker.allows():
                trials += 1
                breaker.succeeded()

    breaker.failed()
    at_once(use, disturb=module)
    assert (breaker.state, trials) == ("open", 0)

    well = True
    at_once(use, disturb=module)
    assert breaker.state == "closed"
    assert trials >= 1


# --- whatever happens, in any order


class AnyBreaker(RuleBasedStateMachine):
    """Callers that fail, succeed, probe, try, are cancelled or never heard of again."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.breaker = Breaker(self.clock, FIRST, LONGEST)
        self.opened = -1e9
        self.probe: float | None = None  # when it was claimed
        self.trial: float | None = None

    def note(self, before: str) -> None:
        """Called after what may have opened the breaker."""
        if self.breaker.state == "open" and (before != "open" or self.probe is not None):
            assert self.clock.now - self.opened >= FIRST
            self.opened, self.probe, self.trial = self.clock.now, None, None

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_caller_asks(self) -> None:
        before = self.breaker.state
        allowed = self.breaker.allows()
        assert self.breaker.state == before
        if before == "half-open":
            free = self.trial is None or self.clock.now - self.trial >= 10
            assert allowed == free, "one trial at a time, and never none"
            if allowed:
                self.trial = self.clock.now
        else:
            assert allowed == (before == "closed")

    @rule()
    def a_caller_asks_for_a_probe(self) -> None:
        wanted = self.breaker.wants_probe()
        if wanted:
            assert self.breaker.state == "open"
            assert self.clock.now - self.opened >= FIRST - 1e-9
            assert self.probe is None or self.clock.now - self.probe >= 10
            self.probe = self.clock.now
        elif self.breaker.state == "open" and self.probe is None:
            assert self.clock.now - self.opened < LONGEST + 1e-9, "open for longer than said"

    @rule(ok=st.booleans())
    def a_probe_ends(self, ok: bool) -> None:
        before = self.breaker.state
        self.breaker.probed(ok)
        if before == "open" and self.probe is not None and ok:
            assert self.breaker.state == "half-open"
            self.probe = self.trial = None
        else:
            assert self.breaker.state == before
            if not ok:
                self.note(before)

    @rule()
    def a_call_fails(self) -> None:
        before = self.breaker.state
        self.breaker.failed()
        assert self.breaker.state == "open"
        if before != "open":
            self.probe = None
            self.note(before)

    @rule()
    def a_call_succeeds(self) -> None:
        self.breaker.succeeded()
        assert self.breaker.state == "closed"
        assert self.breaker.allows()
        self.opened, self.probe, self.trial = -1e9, None, None

    @precondition(lambda self: self.trial is not None)
    @rule()
    def a_trial_is_cancelled(self) -> None:
        before = self.breaker.state
        self.breaker.abandon()
        assert self.breaker.state == before
        self.trial = None

    @invariant()
    def the_state_is_one_of_three(self) -> None:
        assert self.breaker.state in ("closed", "open", "half-open")

    def teardown(self) -> None:
        """From wherever it is, a node that is well is used again within 15 seconds."""
        for _ in range(150):
            if self.breaker.state == "closed":
                break
            if self.breaker.wants_probe():
                self.breaker.probed(True)
            if self.breaker.allows():
                self.breaker.succeeded()
            self.clock.now += 0.1
        assert self.breaker.state == "closed"


TestAnyBreaker = AnyBreaker.TestCase
TestAnyBreaker.settings = settings(deadline=None)
