"""Sentinel: which primary is believed, and when another is looked for."""

from __future__ import annotations

import pytest

from leanmq.errors import AccessError, ConnectionError, OutcomeUnknownError
from tests.unit.topologies.world import (
    S1,
    S2,
    S3,
    A,
    B,
    Watch,
    World,
    data,
    error,
)


def test_the_primary_is_what_a_majority_of_sentinels_names_and_itself_confirms(
    watch: Watch, world: World
) -> None:
    watch.connection.open()

    assert [address for address, _ in world.log] == [S1, S1, S2, S2, A, A]
    assert world.asked("ROLE", "PING") == [A, A]
    assert watch.run() == "k"
    assert all(made.sentinel == (made.address in (S1, S2, S3)) for made in world.calls)


def test_between_two_looks_a_call_costs_nothing_extra(watch: Watch, world: World) -> None:
    watch.connection.open()
    watch.later(0.4)

    watch.run()

    assert world.log == [(A, "GET")]


def test_a_look_asks_each_sentinel_in_turn(watch: Watch, world: World) -> None:
    watch.connection.open()
    asked = []
    for _ in range(3):
        watch.later(0.5)
        watch.run()
        asked += world.asked("SENTINEL")[:1]

    assert set(asked) == {S1, S2, S3}


def test_a_planned_failover_is_noticed_though_the_old_primary_still_answers(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over()
    world.servers[A] = data()  # not demoted yet
    watch.later(0.5)

    watch.run()

    assert world.asked("GET") == [B]
    assert world.dropped == [A]


@pytest.mark.parametrize("trouble", ["READONLY x", "UNBLOCKED x", "LOADING x"])
def test_trouble_is_the_outcome_and_the_next_call_searches(
    watch: Watch, world: World, trouble: str
) -> None:
    watch.connection.open()
    watch.fail_over()
    world.servers[A] = lambda _: error(trouble)

    first, second = watch.run(), watch.run()

    assert first.code == trouble.split()[0]
    assert second == "k"
    assert world.asked("GET") == [A, B]


def test_a_lost_primary_is_searched_until_the_failover_is_done(watch: Watch, world: World) -> None:
    watch.connection.open()
    del world.servers[A]

    outcomes = [watch.run(idempotent=False) for _ in range(3)]
    watch.fail_over()
    del world.servers[A]

    assert all(type(outcome) is ConnectionError for outcome in outcomes)
    assert watch.run(idempotent=False) == "k"


def test_a_frozen_primary_gets_no_second_send(watch: Watch, world: World) -> None:
    watch.connection.open()
    world.frozen.add(A)

    first, second = watch.run(idempotent=False), watch.run(idempotent=False)

    assert isinstance(first, OutcomeUnknownError)
    assert (type(second), second.in_doubt) == (ConnectionError, False)
    assert world.calls[-1].commands == (("ROLE",),)
    assert world.calls[-1].limit == 0.5


def test_a_sentinel_that_was_cut_off_is_outvoted(watch: Watch, world: World) -> None:
    watch.fail_over(told=(S2, S3))
    world.servers[A] = data()  # cut off together with S1, and still a primary
    watch.connection.open()

    for _ in range(6):
        watch.later(0.5)
        watch.run()
        assert world.asked("GET") == [B]


def test_the_news_of_one_sentinel_counts_though_the_others_do_not_know_yet(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over(told=(S3,))
    world.servers[A] = data()  # not demoted yet
    homes = []

    for _ in range(6):
        watch.later(0.5)
        watch.run()
        homes += world.asked("GET")

    assert homes[2:] == [B] * 4  # from then on, whatever the others say


def test_a_new_primary_that_is_not_ready_leaves_us_with_the_old_one(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    watch.fail_over()
    world.servers |= {A: data(), B: data("slave")}
    watch.later(0.5)

    assert watch.run() == "k"
    assert world.asked("GET") == [A]


def test_dead_sentinels_are_asked_last_and_soon_only_now_and_then(
    watch: Watch, world: World
) -> None:
    watch.connection.open()
    del world.servers[S1], world.servers[S2]
    in_vain = []
    for _ in range(8):
        watch.later(0.5)
        assert watch.run() == "k"
        in_vain += [address for address in world.asked("SENTINEL") if address in (S1, S2)]
    assert set(in_vain) <= {S1, S2}
    assert len(in_vain) <= 4  # two commands each, once

    del world.servers[S3]
    looks = 0
    for _ in range(40):
        watch.later(0.5)
        assert watch.run() == "k"
        looks += bool(world.asked("SENTINEL"))
    assert looks <= 6


def test_nobody_to_ask_is_an_error_that_tells_what_to_check(watch: Watch, world: World) -> None:
    for sentinel in (S1, S2, S3):
        del world.servers[sentinel]

    with pytest.raises(ConnectionError, match=r"no sentinel of .* check that they run") as caught:
        watch.connection.open()

    assert isinstance(caught.value.__cause__, ConnectionError)
    assert [made.limit for made in world.calls if made.sentinel][:6] == [0.5] * 3 + [None] * 3


def test_an_unknown_service_is_an_error_that_names_it(watch: Watch) -> None:
    watch.belief = dict.fromkeys(watch.belief, None)

    with pytest.raises(ConnectionError, match="'main'"):
        watch.connection.open()


def test_a_wrong_password_for_the_sentinels_is_an_access_error(watch: Watch) -> None:
    watch.belief = dict.fromkeys(watch.belief, error("NOAUTH Authentication required."))

    with pytest.raises(AccessError):
        watch.connection.open()


def test_a_user_who_may_not_ask_for_the_role_trusts_the_sentinels(
    watch: Watch, world: World
) -> None:
    answer = data()
    world.servers[A] = lambda c: error("NOPERM x") if c[0] == "ROLE" else answer(c)

    watch.connection.open()

    assert watch.run() == "k"
