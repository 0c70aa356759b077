"""The hub of a cluster, with listeners that say what they are told to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence

import pytest

from leanmq.backends.listeners import Wake
from leanmq.backends.streams.calls import Wait
from leanmq.backends.urls import Address
from leanmq.backends.wakes import Wakes
from leanmq.errors import ClosedError

A, B = ("10.0.0.1", 7001), ("10.0.0.2", 7002)
PLACES: dict[str, Address | None] = {"a": A, "a2": A, "b": B, "nowhere": None}


class Ear:
    """A listener that hears what a test has it hear."""

    def __init__(self, address: Address, wake: Wake) -> None:
        self.address, self.wake = address, wake
        self.began = 0.0
        self.ended = False
        self.refusal = ""
        self.heeded: list[str] = []
        self.heard: set[str] = set()
        self.story: list[str] = []

    def heed(self, keys: Sequence[str]) -> bool:
        self.heeded += keys
        return not self.ended

    def hears(self, key: str) -> bool:
        return key in self.heard

    def stop(self) -> None:
        self.story.append("stopped")

    def abandon(self) -> None:
        self.story.append("abandoned")


class Ears:
    """Makes them, and a hub of them."""

    def __init__(self) -> None:
        self.made: list[Ear] = []
        self.hears: set[str] = set()
        self.wakes: Wakes[Ear] = Wakes("redis+cluster://h", PLACES.__getitem__, self._listen)

    def _listen(self, address: Address, wake: Wake) -> Ear:
        self.made.append(Ear(address, wake))
        self.made[-1].heard = self.hears
        return self.made[-1]

    def wait(self, *keys: str, seconds: float = 0.0) -> set[str]:
        """Wait; returns what is awake then."""
        seen = tuple(map(self.wakes.version, keys))
        self.wakes.wait(Wait(self.wakes, keys, seen, seconds))
        return {key for key, v in zip(keys, seen, strict=True) if self.wakes.version(key) != v}


@pytest.fixture
def ears() -> Ears:
    return Ears()


def test_each_server_has_one_listener_which_heeds_its_keys(ears: Ears) -> None:
    for _ in range(2):
        ears.wait("a", "b", "a2")

    assert [(ear.address, ear.heeded) for ear in ears.made] == [
        (A, ["a", "a2"] * 2),
        (B, ["b"] * 2),
    ]


def test_what_was_not_listened_to_is_awake_at_the_end_of_a_wait(ears: Ears) -> None:
    ears.hears = {"a"}

    assert ears.wait("a", "b", "nowhere") == {"b", "nowhere"}
    assert ears.wait("a") == set()


def test_what_is_heard_ends_the_wait_and_is_all_that_is_awake(ears: Ears) -> None:
    ears.hears = {"a", "b"}
    keys = ("a", "b", "nowhere")
    ears.wait(*keys)
    seen = tuple(map(ears.wakes.version, keys))
    ears.made[0].wake(("a",))

    ears.wakes.wait(Wait(ears.wakes, keys, seen, 60.0))

    assert [ears.wakes.version(key) != v for key, v in zip(keys, seen, strict=True)] == [
        True,
        False,
        False,
    ]


def test_a_listener_that_ended_is_replaced_but_not_at_once_if_it_had_just_begun(
    ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    ears.wait("a")
    ears.made[0].began, ears.made[0].ended = 99.5, True

    assert ears.wait("a") == {"a"}
    assert len(ears.made) == 1

    now = 100.6
    ears.wait("a")
    assert len(ears.made) == 2


def test_a_fork_has_versions_of_its_own_and_leaves_alone_what_it_inherited(
    ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    ears.hears = {"a", "b"}
    ears.wait("a", "b")
    for _ in range(3):
        ears.made[0].wake(("a",))
    before = {key: ears.wakes.version(key) for key in PLACES}
    parent = os.getpid()

    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert all(ears.wakes.version(key) > before[key] for key in PLACES)
    assert all(ears.wakes.version(key) > max(before.values()) for key in PLACES)
    assert [ear.story for ear in ears.made] == [["abandoned"], ["abandoned"]]
    ears.wait("a")
    assert len(ears.made) == 3
    assert [ear.story for ear in ears.made[:2]] == [["abandoned"], ["abandoned"]]
    monkeypatch.setattr(os, "getpid", lambda: parent)


def test_once_it_was_stopped_nobody_listens_or_waits(ears: Ears) -> None:
    ears.wait("a")
    seen = ears.wakes.version("a")

    assert ears.wakes.stop() == ears.made
    assert ears.wakes.stop() == []

    assert ears.made[0].story == ["stopped"]
    assert ears.wakes.version("a") != seen, "who waits, or was about to, looks again"
    with pytest.raises(ClosedError, match="redis\\+cluster://h is closed"):
        ears.wait("a")


def test_another_loop_has_listeners_of_its_own_and_those_of_a_closed_one_are_forgotten(
    ears: Ears,
) -> None:
    async def wait() -> None:
        await ears.wakes.wait_async(Wait(ears.wakes, ("a",), (ears.wakes.version("a"),), 0.0))

    for _ in range(3):
        asyncio.run(wait())

    assert len(ears.made) == 3
    assert ears.wakes.stop() == ears.made[2:]
