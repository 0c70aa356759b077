"""Has what is written for ``memory://`` run on servers, without a word of it being changed."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import attrs

from leanmq.backends import memory, servers
from leanmq.backends.protocol import AsyncBackend, Backend
from leanmq.backends.registry import Options

__all__ = ["Elsewhere", "opened_on"]


@attrs.frozen
class Elsewhere:
    """A backend factory that takes the place of memory's.

    ``memory://`` becomes a prefix that nobody else has, ``memory://name`` one for each name. A
    URL with options asks for what only memory can do, and stays there.

    Attributes:
        url: The servers.
    """

    url: str
    _token: str = attrs.field(init=False, factory=lambda: f"docs{secrets.token_hex(5)}")
    _numbers: Iterator[int] = attrs.field(init=False, factory=lambda: itertools.count(1))
    _in_memory = (memory.backend, memory.async_backend)

    def backend(self, url: str, options: Options) -> Backend:
        """See ``BackendFactory``."""
        if "?" in url:
            return self._in_memory[0](url, options)
        return servers.backend(self.url, self._moved(url, options))

    def async_backend(self, url: str, options: Options) -> AsyncBackend:
        """See ``BackendFactory``."""
        if "?" in url:
            return self._in_memory[1](url, options)
        return servers.async_backend(self.url, self._moved(url, options))

    def _moved(self, url: str, options: Options) -> Options:
        place = url.removeprefix("memory://") or f"{next(self._numbers)}"
        return attrs.evolve(options, prefix=f"{self._token}:{place}:{options.prefix}")


@contextmanager
def opened_on(url: str) -> Iterator[None]:
    """Within the block, clients of ``memory://`` are clients of these servers."""
    elsewhere = Elsewhere(url)
    with mock.patch.multiple(
        memory, backend=elsewhere.backend, async_backend=elsewhere.async_backend
    ):
        yield
