"""What a package of somebody else has behind its URL scheme: here, queues in memory."""

from __future__ import annotations

from urllib.parse import urlsplit

from leanmq.backends.protocol import AsyncBackend, Backend
from leanmq.backends.registry import Options, open_async_backend, open_backend

__all__ = ["async_backend", "backend"]


def backend(url: str, options: Options) -> Backend:
    return open_backend(_inner(url), None, options)


def async_backend(url: str, options: Options) -> AsyncBackend:
    return open_async_backend(_inner(url), None, options)


def _inner(url: str) -> str:
    return f"memory://{urlsplit(url).hostname}"
