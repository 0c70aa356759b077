"""Which backend a URL means. Third parties join by the entry-point group ``leanmq.backends``."""

from __future__ import annotations

import importlib
from typing import Protocol, cast

import attrs

from leanmq.backends.protocol import AsyncBackend, Backend
from leanmq.backends.schemes import DIALECTS, PLAUSIBLE, SCHEMES
from leanmq.backends.urls import parse_url

__all__ = ["ENTRY_POINTS", "BackendFactory", "Options", "describe", "open_async_backend",
           "open_backend"]  # fmt: skip

ENTRY_POINTS = "leanmq.backends"
"""An entry point's name is a URL scheme, its object a ``BackendFactory``."""

_BUILT_IN = {
    scheme: f"leanmq.backends.{'memory' if scheme == 'memory' else 'servers'}"
    for scheme in (*SCHEMES, *DIALECTS)
}


@attrs.frozen
class Options:
    """What a client tells the backend that it opens.

    Attributes:
        prefix: What the names of everything stored begin with.
        timeout: Seconds to wait for a connection, and for a reply.
    """

    prefix: str = "mq:"
    timeout: float = 3.0


class BackendFactory(Protocol):
    """What stands behind a URL scheme (a module will do). Constructs without I/O."""

    def backend(self, url: str, options: Options) -> Backend:
        """A backend for threads."""
        ...

    def async_backend(self, url: str, options: Options) -> AsyncBackend:
        """A backend for asyncio."""
        ...


def open_backend(url: str | None, backend: Backend | None, options: Options) -> Backend:
    """The backend that was given, or the one that the URL means."""
    if backend is not None:
        _only_one(url)
        return backend
    return _factory(url).backend(cast("str", url), options)


def open_async_backend(
    url: str | None, backend: AsyncBackend | None, options: Options
) -> AsyncBackend:
    """``open_backend`` for asyncio."""
    if backend is not None:
        _only_one(url)
        return backend
    return _factory(url).async_backend(cast("str", url), options)


def describe(url: str | None, backend: object) -> str:
    """Where a client sends its messages, for people; secrets masked."""
    if url is None:
        return type(backend).__name__
    scheme, _, rest = url.partition("://")
    if scheme.lower() in _BUILT_IN:
        return parse_url(url).display
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _only_one(url: str | None) -> None:
    if url is not None:
        raise TypeError("give either url or backend, not both")


def _factory(url: str | None) -> BackendFactory:
    if not isinstance(url, str):
        raise TypeError("give a URL such as 'memory://' or 'redis://localhost:6379/0'")
    scheme, found, _ = url.partition("://")
    scheme = scheme.lower()
    if found and scheme in _BUILT_IN:
        return cast("BackendFactory", importlib.import_module(_BUILT_IN[scheme]))
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    others = {point.name.lower(): point for point in entry_points(group=ENTRY_POINTS)}
    if found and scheme in others:
        return cast("BackendFactory", others[scheme].load())
    known = ", ".join(sorted({*SCHEMES, *others}))
    if not found:
        what = "the URL has no scheme"
    elif PLAUSIBLE.fullmatch(scheme):
        what = f"the URL scheme {scheme!r} is unknown"
    else:
        what = "what the URL has before :// is no scheme"
    raise ValueError(f"{what}; use one of {known}, as in 'redis://localhost:6379/0'")
