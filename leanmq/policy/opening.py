"""What the arguments of a client mean, for both worlds: where its messages are, and its terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from leanmq.api import Seconds
from leanmq.backends.registry import Options
from leanmq.compat import server_url
from leanmq.policy.core import ClientTerms
from leanmq.policy.names import check_name, options_of, seconds_of, settings_of
from leanmq.sources import ConfigSource, resolve

__all__ = ["Opening", "configured", "opening"]


@attrs.frozen
class Opening:
    """Arguments of a client, checked.

    Attributes:
        url: Where the messages are; None if a backend or a client of redis-py was given.
        options: What the backend that is opened is told.
        terms: What the client keeps to.
    """

    url: str | None
    options: Options
    terms: ClientTerms


def opening(
    url: str | None,
    *,
    redis_host: str | None,
    redis_port: int | None,
    redis_db: int | None,
    redis_password: str | None,
    given: object,
    client: object,
    prefix: str | None,
    deadline: Seconds,
    connection_timeout: Seconds | None,
    max_retries: int | None,
    retry_interval: Seconds | None,
    queues: Mapping[str, Mapping[str, Any]] | None,
) -> Opening:
    """Check the arguments of a client.

    ``given`` is its backend, ``client`` the client of redis-py, if it was handed one.
    """
    options = options_of(given is not None, prefix, connection_timeout)
    where = server_url(url, redis_host, redis_port, redis_db, redis_password)
    if where is None and given is None and client is None:
        where = "redis://localhost:6379/0"
    if max_retries is not None and (isinstance(max_retries, bool) or max_retries < 0):
        raise ValueError(f"max_retries is {max_retries}; give 0 or more")
    terms = ClientTerms(
        deadline=seconds_of(deadline, "deadline"),
        # A router over URLs says what keys begin with; no other backend has to.
        prefix=options.prefix if given is None else getattr(given, "prefix", ""),
        queues={check_name(name): settings_of(**of) for name, of in (queues or {}).items()},
        max_retries=max_retries,
        retry_interval=None
        if retry_interval is None
        else seconds_of(retry_interval, "retry_interval"),
    )
    return Opening(where, options, terms)


def configured(
    source: ConfigSource | None, keywords: Mapping[str, Any], *, asynchronous: bool = False
) -> dict[str, Any]:
    """The arguments of a client that a configuration stands for."""
    config = resolve(source, **keywords).config
    terms = {"deadline": config.deadline, "queues": config.queues}
    if config.nodes is not None:
        from leanmq.sharding.configured import router_of  # not above: most need none

        return {"backend": router_of(config, asynchronous=asynchronous), **terms}
    return {
        "url": config.to_url(),
        "prefix": config.prefix,
        "connection_timeout": config.connection_timeout,
        **terms,
    }
