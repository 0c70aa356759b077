"""Spellings of LeanMQ 0.2.0, brought into those of today; for both worlds, kept for ever."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeAlias, TypeVar, cast
from urllib.parse import quote

__all__ = ["older_spellings", "receive_spellings", "send_spellings", "server_url"]

P = ParamSpec("P")
R = TypeVar("R")

Arguments: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
Rewrite: TypeAlias = Callable[[tuple[Any, ...], dict[str, Any]], Arguments]


def server_url(
    url: str | None, host: str | None, port: int | None, db: int | None, password: str | None
) -> str | None:
    """The URL that is meant by the arguments of a client; None if they name nothing.

    Raises:
        TypeError: if both a URL and parts of one are given.

    >>> server_url(None, "localhost", 6380, None, "s/t")
    'redis://:s%2Ft@localhost:6380/0'
    >>> server_url("10.0.0.7", None, None, 2, None)  # as the first positional argument
    'redis://10.0.0.7:6379/2'
    """
    if url is not None and host is None and isinstance(url, str) and _is_host(url):
        url, host = None, url
    parts = {"redis_host": host, "redis_port": port, "redis_db": db, "redis_password": password}
    given = [name for name, value in parts.items() if value is not None]
    if url is not None:
        if given:
            raise TypeError(f"give either a URL or {given[0]}, not both; a URL has it all")
        return url
    if not given:
        return None
    host = host or "localhost"
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    account = f":{quote(password, safe='')}@" if password else ""
    return f"redis://{account}{host}:{6379 if port is None else port}/{db or 0}"


def _is_host(text: str) -> bool:
    return bool(text) and not set(text) & set(":/@?,")


def send_spellings(leading: int) -> Rewrite:
    """Of sends: ``ttl=`` for ``ttl_seconds=``, and positional ``message_id, ttl`` after so many.

    >>> send_spellings(1)(("tea", "id-7", 30), {})
    (('tea',), {'message_id': 'id-7', 'ttl_seconds': 30})
    >>> send_spellings(1)(("tea", 30), {})
    Traceback (most recent call last):
    TypeError: after the payload comes message_id, a str, not 30; did you mean ttl_seconds=30?
    """

    def rewrite(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
        label, *rest = args[leading:] or (None,)
        if label is not None:
            if not isinstance(label, str):
                raise TypeError(
                    f"after the payload comes message_id, a str, not {label!r}; did you mean "
                    f"ttl_seconds={label!r}?"
                )
            _put(keywords, "message_id", label, "the positional message_id")
        if rest:
            _put(keywords, "ttl_seconds", rest.pop(0), "the positional ttl")
        if "ttl" in keywords:
            _put(keywords, "ttl_seconds", keywords.pop("ttl"), "ttl")
        return (*args[:leading], *rest), keywords

    return rewrite


def receive_spellings(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
    """Of receives: ``block_for_seconds`` for ``timeout``, where 0 is no wait; ``consumer_id``.

    >>> receive_spellings((10, 2.5, "worker-1"), {})
    ((10,), {'timeout': 2.5})
    >>> receive_spellings((), {"block_for_seconds": 0})
    ((), {'block': False})
    """
    count, (second, third, *rest) = args[:1], (*args[1:], None, None)[: max(2, len(args) - 1)]
    keywords.pop("consumer_id", None)  # consumers name themselves
    if second is None or isinstance(second, bool):
        _put(keywords, "block", second, "the second argument")
    else:
        _put(keywords, "block_for_seconds", second, "the second argument")
    if not isinstance(third, str):
        _put(keywords, "timeout", third, "the third argument")
    seconds = keywords.pop("block_for_seconds", None)
    if seconds is not None:
        if not seconds:
            _put(keywords, "block", False, "block_for_seconds=0")
        elif keywords.get("block") is False:
            raise TypeError("block=False and block_for_seconds say different things; give timeout")
        else:
            _put(keywords, "timeout", seconds, "block_for_seconds")
    return (*count, *rest), keywords


def _put(keywords: dict[str, Any], name: str, value: Any, what: str) -> None:
    """Set a keyword, unless it says something else already."""
    if value is None:
        return
    if keywords.get(name) not in (None, value):
        raise TypeError(f"{what} and {name}={keywords[name]!r} say different things; give {name}")
    keywords[name] = value


def older_spellings(
    rewrite: Rewrite | None = None, positional: int = 99
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a method accept what ``rewrite`` brings into the form that it takes.

    A keyword that is unknown even so is a TypeError that names the right one. Calls in today's
    spelling pay for one comparison of sets.

    Args:
        rewrite: Makes today's arguments of older ones (those after ``self``).
        positional: From so many positional arguments on it is asked.
    """

    def decorate(method: Callable[P, R]) -> Callable[P, R]:
        known = frozenset(list(inspect.signature(method).parameters)[1:])

        def todays(args: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
            if rewrite is not None:
                args, keywords = rewrite(args, keywords)
            for name in keywords.keys() - known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = (
                    f"did you mean {near[0]}=?" if near else f"it takes {', '.join(sorted(known))}"
                )
                raise TypeError(f"{method.__name__}() has no argument {name!r}; {hint}")
            return args, keywords

        if inspect.iscoroutinefunction(method):
            waiting = cast("Callable[..., Awaitable[Any]]", method)

            @functools.wraps(method)
            async def call_async(self: Any, *args: Any, **keywords: Any) -> Any:
                if len(args) > positional or not known.issuperset(keywords):
                    args, keywords = todays(args, keywords)
                return await waiting(self, *args, **keywords)

            return cast("Callable[P, R]", call_async)

        plain = cast("Callable[..., Any]", method)

        @functools.wraps(method)
        def call(self: Any, *args: Any, **keywords: Any) -> Any:
            if len(args) > positional or not known.issuperset(keywords):
                args, keywords = todays(args, keywords)
            return plain(self, *args, **keywords)

        return cast("Callable[P, R]", call)

    return decorate
