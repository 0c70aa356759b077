"""The backends on real servers: a topology, on a wire, under the streams."""

from __future__ import annotations

import importlib
from typing import cast

from leanmq.backends.connections import AsyncServerConnection, ServerConnection, Topology
from leanmq.backends.protocol import AsyncBackend, Backend, Capabilities
from leanmq.backends.registry import Options
from leanmq.backends.streams.driver import AsyncStreamsBackend, StreamsBackend
from leanmq.backends.urls import Target, parse_url
from leanmq.backends.wire import AsyncWire, Wire

__all__ = ["async_backend", "backend"]

_TOPOLOGIES = {
    "single": ("leanmq.backends.single", "SingleServer"),
    "sentinel": ("leanmq.backends.sentinel", "SentinelService"),
    "cluster": ("leanmq.backends.cluster", "ClusterSlots"),
}


def backend(url: str, options: Options) -> Backend:
    """A backend on the servers of the URL, for threads."""
    target = parse_url(url)
    topology = _topology(target)
    connection = ServerConnection(topology, Wire(target, options.timeout))
    return StreamsBackend(connection, _capabilities(topology), options.prefix)


def async_backend(url: str, options: Options) -> AsyncBackend:
    """A backend on the servers of the URL, for asyncio."""
    target = parse_url(url)
    topology = _topology(target)
    connection = AsyncServerConnection(topology, AsyncWire(target, options.timeout))
    return AsyncStreamsBackend(connection, _capabilities(topology), options.prefix)


def _topology(target: Target) -> Topology:
    module, name = _TOPOLOGIES[target.topology]
    return cast("Topology", getattr(importlib.import_module(module), name)(target))


def _capabilities(topology: Topology) -> Capabilities:
    return Capabilities(topology.display, transactions_across_queues=not topology.slots_apart)
