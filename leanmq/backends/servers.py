"""The backends on real servers: a topology, on a wire, under the streams."""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from functools import partial
from typing import TypeVar, cast

from leanmq.backends.connections import AsyncServerConnection, ServerConnection, Topology
from leanmq.backends.listeners import LIMIT, AsyncListener, Listener, Wake
from leanmq.backends.protocol import AsyncBackend, Backend, Capabilities
from leanmq.backends.registry import Options
from leanmq.backends.streams.driver import AsyncStreamsBackend, StreamsBackend
from leanmq.backends.urls import Address, Target, parse_url
from leanmq.backends.wakes import Listens, SlotMap, Wakes
from leanmq.backends.wire import AsyncWire, Wire

__all__ = ["async_backend", "async_backend_on", "backend", "backend_on"]

L = TypeVar("L", bound=Listens)

_TOPOLOGIES = {
    "single": ("leanmq.backends.single", "SingleServer"),
    "sentinel": ("leanmq.backends.sentinel", "SentinelService"),
    "cluster": ("leanmq.backends.cluster", "ClusterSlots"),
}


def backend(url: str, options: Options) -> Backend:
    """A backend on the servers of the URL, for threads."""
    return backend_on(_checked(parse_url(url)), options)


def backend_on(target: Target, options: Options) -> Backend:
    """A backend on these servers, for threads."""
    topology = _topology(target)
    wire = Wire(target, options.timeout)

    def listen(address: Address, wake: Wake) -> Listener:
        return Listener(partial(wire.connect, address, LIMIT), wake)

    connection = ServerConnection(topology, wire, _wakes(topology, listen))
    return StreamsBackend(connection, _capabilities(topology), options.prefix)


def async_backend(url: str, options: Options) -> AsyncBackend:
    """A backend on the servers of the URL, for asyncio."""
    return async_backend_on(_checked(parse_url(url)), options)


def async_backend_on(target: Target, options: Options) -> AsyncBackend:
    """A backend on these servers, for asyncio."""
    topology = _topology(target)
    wire = AsyncWire(target, options.timeout)

    def listen(address: Address, wake: Wake) -> AsyncListener:
        return AsyncListener(partial(wire.connect, address, LIMIT), wake)

    connection = AsyncServerConnection(topology, wire, _wakes(topology, listen))
    return AsyncStreamsBackend(connection, _capabilities(topology), options.prefix)


def _checked(target: Target) -> Target:
    """The target; warns of what a URL may say and nobody should want.

    Here and not where URLs are parsed, so that a client warns once however often it reads them.
    """
    if (target.tls or {}).get("ssl_cert_reqs") == "none":
        warnings.warn(
            f"{target.display}: ssl_cert_reqs=none leaves certificates unchecked, so a machine in "
            "between can read and change everything, passwords too; leave it out, and name the "
            "file of a CA of your own by ssl_ca_certs",
            UserWarning,
            stacklevel=_level_of_the_user(),
        )
    return target


def _level_of_the_user() -> int:
    """The ``stacklevel``, seen from our caller, of the nearest frame that is not LeanMQ's."""
    level = 0
    frame = inspect.currentframe()
    while frame and frame.f_globals.get("__name__", "").partition(".")[0] == "leanmq":
        frame = frame.f_back
        level += 1
    return level


def _topology(target: Target) -> Topology:
    module, name = _TOPOLOGIES[target.topology]
    return cast("Topology", getattr(importlib.import_module(module), name)(target))


def _wakes(topology: Topology, listen: Callable[[Address, Wake], L]) -> Wakes[L] | None:
    """How many queues are waited for, if not by blocking one server for all of them."""
    if not isinstance(topology, SlotMap):
        return None
    return Wakes(topology.display, topology.where, listen)


def _capabilities(topology: Topology) -> Capabilities:
    return Capabilities(
        topology.display,
        transactions_across_queues=not topology.slots_apart,
        many_queues=True,
        sends_together=True,
        sequences=True,
    )
