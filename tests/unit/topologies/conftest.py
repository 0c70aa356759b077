"""A world without servers, and its clock."""

from __future__ import annotations

import pytest

from tests.unit.topologies.world import (
    Clock,
    Cluster,
    Watch,
    World,
)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(world: World, clock: Clock) -> Watch:
    return Watch(world, clock)


@pytest.fixture
def cluster(world: World, clock: Clock) -> Cluster:
    return Cluster(world, clock)
