"""Which backend a URL means, or a client of redis-py.

Third parties join by the entry-point group ``leanmq.backends``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

import attrs

from leanmq.backends.clients import read_client
from leanmq.backends.protocol import AsyncBackend, Backend, Capabilities
from leanmq.backends.schemes import DIALECTS, PLAUSIBLE, SCHEMES
from leanmq.backends.urls import Target, parse_url

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

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


@runtime_checkable
class BackendFactory(Protocol):
    """What stands behind a URL scheme (a module will do). Constructs without I/O."""

    def backend(self, url: str, options: Options) -> Backend:
        """A backend for threads."""
        ...

    def async_backend(self, url: str, options: Options) -> AsyncBackend:
        """A backend for asyncio."""
        ...


class _BuiltIn(BackendFactory, Protocol):
    """A module of ours."""

    def backend_on(self, target: Target, options: Options) -> Backend: ...

    def async_backend_on(self, target: Target, options: Options) -> AsyncBackend: ...


def open_backend(
    url: str | None, backend: Backend | None, options: Options, client: object | None = None
) -> Backend:
    """The backend that was given, or the one that the URL or the client of redis-py means.

    Raises:
        TypeError: If not exactly one of them was given, or the client cannot be read.
        ValueError: If the URL cannot be.
        ImportError: If the package that serves the URL's scheme cannot be loaded.
    """
    _only_one(url=url, backend=backend, client=client)
    if backend is not None:
        return backend
    if client is not None:
        target = read_client(client, asynchronous=False)
        return _built_in(target.scheme).backend_on(target, options)
    return _factory(url).backend(cast("str", url), options)


def open_async_backend(
    url: str | None, backend: AsyncBackend | None, options: Options, client: object | None = None
) -> AsyncBackend:
    """``open_backend`` for asyncio."""
    _only_one(url=url, backend=backend, client=client)
    if backend is not None:
        return backend
    if client is not None:
        target = read_client(client, asynchronous=True)
        return _built_in(target.scheme).async_backend_on(target, options)
    return _factory(url).async_backend(cast("str", url), options)


def describe(url: str | None, backend: object) -> str:
    """Where a client sends its messages, for people; secrets masked."""
    if url is None:
        capabilities = getattr(backend, "capabilities", None)
        known = isinstance(capabilities, Capabilities)
        return cast("Capabilities", capabilities).name if known else type(backend).__name__
    scheme, _, rest = url.partition("://")
    if scheme.lower() in _BUILT_IN:
        return parse_url(url).display
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _only_one(**given: object) -> None:
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise TypeError(f"give either {' or '.join(names)}, not both")


def _built_in(scheme: str) -> _BuiltIn:
    return cast("_BuiltIn", importlib.import_module(_BUILT_IN[scheme]))


def _factory(url: str | None) -> BackendFactory:
    if not isinstance(url, str):
        raise TypeError("give a URL such as 'memory://' or 'redis://localhost:6379/0'")
    scheme, found, _ = url.partition("://")
    scheme = scheme.lower()
    if found and scheme in _BUILT_IN:
        return _built_in(scheme)
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    others = {point.name.lower(): point for point in entry_points(group=ENTRY_POINTS)}
    if found and scheme in others:
        return _loaded(others[scheme])
    known = ", ".join(sorted({*SCHEMES, *others}))
    if not found:
        what = "the URL has no scheme"
    elif PLAUSIBLE.fullmatch(scheme):
        what = f"the URL scheme {scheme!r} is unknown"
    else:
        what = "what the URL has before :// is no scheme"
    raise ValueError(f"{what}; use one of {known}, as in 'redis://localhost:6379/0'")


def _loaded(point: EntryPoint) -> BackendFactory:
    """What an installed package has behind a scheme."""
    owner = point.dist.name if point.dist else "an unknown package"
    who = f"the URL scheme {point.name!r} is that of package {owner!r}"
    try:
        factory = point.load()
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise ImportError(
            f"{who}, whose {point.value!r} cannot be loaded ({type(error).__name__}: {error}); "
            "mend or uninstall the package"
        ) from error
    if not isinstance(factory, BackendFactory):
        raise TypeError(
            f"{who}, whose {point.value!r} has no functions backend and async_backend; mend or "
            "uninstall the package"
        )
    return factory
