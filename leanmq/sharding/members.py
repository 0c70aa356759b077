"""What may stand for a node of a router: a URL, a backend, or a client that is open already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from leanmq.backends.registry import Options, describe, open_async_backend, open_backend
from leanmq.compat import server_url
from leanmq.policy.names import options_of
from leanmq.sharding.weights import check_weights

__all__ = [
    "Member",
    "NodeOf",
    "TargetOf",
    "members_of",
    "prefix_of",
    "targets_of",
    "weights_of",
]

NodeOf: TypeAlias = Any
"""A URL, a backend (``Backend`` or ``AsyncBackend``), or a client (``LeanMQ``, ``AsyncLeanMQ``)."""

TargetOf: TypeAlias = "NodeOf | Mapping[str, Any]"
"""The same, or a dict with ``host`` and ``port``."""


@attrs.frozen
class Member:
    """A node, opened.

    Attributes:
        owned: Whether the router closes it.
        prefix: What keys begin with there; empty if that is not known.
    """

    name: str
    backend: Any
    display: str
    owned: bool
    prefix: str = ""


def weights_of(
    nodes: Mapping[str, NodeOf], weights: Mapping[str, float] | None
) -> Mapping[str, float]:
    """The weight of each node of a router.

    Raises:
        TypeError: if the nodes have no names, or a weight is no number.
        ValueError: if a name or a weight cannot be.
    """
    if not isinstance(nodes, Mapping):
        raise TypeError(
            f"nodes is a {type(nodes).__name__}; give each a name, by which it is known from then "
            "on: {'a': 'redis://...', 'b': 'redis://...'}"
        )
    return check_weights(nodes, weights)


def members_of(
    nodes: Mapping[str, NodeOf],
    prefix: str | None,
    connection_timeout: float | None,
    *,
    asynchronous: bool = False,
) -> Sequence[Member]:
    """The nodes of a router. Does no I/O.

    Raises:
        TypeError: if something cannot be a node.
        ValueError: if a URL cannot be.
    """
    options = options_of(False, prefix, connection_timeout)
    return [_member(name, node, options, asynchronous) for name, node in nodes.items()]


def _member(name: str, node: Any, options: Options, asynchronous: bool) -> Member:
    world, other = ("AsyncLeanMQ", "LeanMQ") if asynchronous else ("LeanMQ", "AsyncLeanMQ")
    if isinstance(node, str):
        try:
            backend: Any = (
                open_async_backend(node, None, options)
                if asynchronous
                else open_backend(node, None, options)
            )
        except ValueError as error:
            raise ValueError(f"node {name!r}: {error}") from error
        return Member(name, backend, describe(node, backend), owned=True, prefix=options.prefix)
    inner = getattr(node, "_backend", None)  # of a client
    core = getattr(node, "_core", None)
    if inner is not None and core is not None:
        if type(node).__name__ == other:
            raise TypeError(f"node {name!r} is a client of the other world; give a {world}")
        return Member(name, inner, core.name, owned=False, prefix=core.terms.prefix)
    if not hasattr(node, "exchange"):
        raise TypeError(
            f"node {name!r} is a {type(node).__name__}; give a URL, a backend or a {world}"
        )
    return Member(name, node, describe(None, node), owned=True)


def prefix_of(members: Iterable[Member]) -> str:
    """What all keys begin with; empty if that is not known, or not the same on all nodes."""
    prefixes = {member.prefix for member in members}
    return prefixes.pop() if len(prefixes) == 1 else ""


def targets_of(
    targets: Iterable[TargetOf] | Mapping[str, TargetOf],
    connection_timeout: float | None,
    *,
    asynchronous: bool = False,
) -> dict[str, NodeOf]:
    """The targets of a producer by name, dicts as backends.

    Raises:
        TypeError: if a bare string was given.
        ValueError: if there is none.
    """
    if isinstance(targets, str):
        raise TypeError("targets is a single URL; give a list of URLs, such as [url]")
    if isinstance(targets, Mapping) and "host" in targets and not _is_target(targets["host"]):
        raise TypeError("targets is the dict of a single target; put it into a list")
    if not isinstance(targets, Iterable):
        raise TypeError(
            f"targets is of type {type(targets).__name__}; give a list of URLs, clients or dicts "
            "with host and port, or a dict of these by name"
        )
    named = (
        dict(targets)
        if isinstance(targets, Mapping)
        else {f"target{number}": target for number, target in enumerate(targets, 1)}
    )
    if not named:
        raise ValueError("there are no targets; give one at least")
    open_one = open_async_backend if asynchronous else open_backend
    for name, target in named.items():
        if isinstance(target, Mapping):
            options = options_of(False, target.get("prefix", ""), connection_timeout)
            named[name] = open_one(_url_of(name, target), None, options)
    return named


def _is_target(value: object) -> bool:
    return not isinstance(value, str) or "://" in value


def _url_of(name: str, target: Mapping[str, Any]) -> str:
    known = ("host", "port", "db", "password", "prefix")
    unknown = [str(key) for key in target if key not in known]
    if unknown or "host" not in target:
        problem = f"has {unknown[0]!r}" if unknown else "has no 'host'"
        raise ValueError(f"target {name!r} {problem}; give {', '.join(known)}, or a URL")
    host, port, db = target["host"], target.get("port", 6379), target.get("db", 0)
    if not isinstance(host, str) or not host:
        raise ValueError(f"target {name!r} has the host {host!r}; give a name or an address")
    for key, number in (("port", port), ("db", db)):
        if isinstance(number, bool) or not str(number).isdecimal():
            raise ValueError(f"target {name!r} has the {key} {number!r}; give a number")
    url = server_url(None, host, port, db, target.get("password"))
    assert url is not None
    return url
