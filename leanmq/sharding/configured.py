"""The router that a configuration with nodes means. What its settings are: ``leanmq/config.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from leanmq.backends.registry import describe
from leanmq.config import STRATEGIES
from leanmq.sharding.balancing import Balancing
from leanmq.sharding.shards import SHARDS, Sharding

if TYPE_CHECKING:
    from leanmq.config import BackendConfig

__all__ = ["router_display", "router_of"]

_SHARDING: Final = STRATEGIES[0]


def router_of(config: BackendConfig, *, asynchronous: bool = False) -> Any:
    """A router over the nodes, for threads or for asyncio. Does no I/O.

    Raises:
        ValueError: if the URL of a node cannot be.
    """
    if asynchronous:
        from leanmq.aio.router import AsyncConsistentHashRouter, AsyncRoundRobinRouter

        sharding: Any = AsyncConsistentHashRouter
        balancing: Any = AsyncRoundRobinRouter
    else:
        from leanmq.sharding.router import ConsistentHashRouter, RoundRobinRouter

        sharding, balancing = ConsistentHashRouter, RoundRobinRouter
    terms = {
        "weights": config.weights(),
        "prefix": config.prefix,
        "connection_timeout": config.connection_timeout,
    }
    strategy = _strategy(config)
    if strategy == _SHARDING:
        shards = (config.router or {}).get("shards", SHARDS)
        return sharding(config.node_urls(), shards=shards, **terms)
    return balancing(config.node_urls(), strategy=strategy, **terms)


def router_display(config: BackendConfig) -> str:
    """The router and its nodes, for people; secrets masked.

    >>> from leanmq import BackendConfig
    >>> router_display(BackendConfig(nodes={"a": "redis://:secret@h", "b": "memory://b"}))
    'consistent-hash router over a (redis://:***@h), b (memory://b)'
    """
    kind = Sharding.kind if _strategy(config) == _SHARDING else Balancing.kind
    nodes = [f"{name} ({describe(url, None)})" for name, url in config.node_urls().items()]
    return f"{kind} over {', '.join(nodes)}"


def _strategy(config: BackendConfig) -> str:
    strategy: str = (config.router or {}).get("strategy", _SHARDING)
    return strategy
