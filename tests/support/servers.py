"""The three deployments that LeanMQ runs on, as test servers that can be broken."""

from __future__ import annotations

from .cluster import ClusterTopology
from .process import RedisProcess
from .sentinel import SentinelTopology
from .single import SingleTopology
from .topology import Topology

__all__ = [
    "ClusterTopology",
    "RedisProcess",
    "SentinelTopology",
    "SingleTopology",
    "Topology",
]
