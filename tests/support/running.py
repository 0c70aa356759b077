"""The topologies of this test process: started at first use, ended with the process."""

from __future__ import annotations

import atexit
import os
from typing import Literal, overload

from .folders import sweep
from .servers import ClusterTopology, SentinelTopology, SingleTopology, Topology

__all__ = ["Kind", "get", "stop_all"]

Kind = Literal["redis", "sentinel", "cluster"]

_KINDS: dict[Kind, type[Topology]] = {
    "redis": SingleTopology,
    "sentinel": SentinelTopology,
    "cluster": ClusterTopology,
}

# By the process that started it: a forked child must not end the servers of its parent.
_running: dict[tuple[int, Kind, int], Topology] = {}


@overload
def get(kind: Literal["cluster"], copy: int = 0) -> ClusterTopology: ...
@overload
def get(kind: Literal["sentinel"], copy: int = 0) -> SentinelTopology: ...
@overload
def get(kind: Literal["redis"], copy: int = 0) -> SingleTopology: ...
@overload
def get(kind: Kind, copy: int = 0) -> Topology: ...
def get(kind: Kind, copy: int = 0) -> Topology:
    """Return this process's topology of the kind, started if it was not. There may be copies.

    It is as the last test left it: fixtures call ``heal()`` after (or before) each test.
    Skips the test if there is no server (fails in CI).
    """
    known = _running.get((os.getpid(), kind, copy))
    if known is None or not known.running:
        known = _KINDS[kind]()
        if not _running:
            sweep()
            atexit.register(stop_all)
        known.start()
        _running[os.getpid(), kind, copy] = known
    return known


def stop_all() -> None:
    """End every topology that this process started; harmless if there is none."""
    for owner, kind, copy in list(_running):
        if owner == os.getpid():
            _running.pop((owner, kind, copy)).stop()
