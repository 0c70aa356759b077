"""Takes the text of a URL apart, in whichever dialect it is: the result is in our own grammar.

What the parts mean, and whether they can be, is the business of ``urls.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from difflib import get_close_matches
from typing import Final
from urllib.parse import quote, unquote

import attrs

from leanmq.backends.schemes import DIALECTS, IGNORED, SCHEMES, TLS_OPTIONS, Dialect

__all__ = ["Parts", "UrlProblem", "decoded", "parts_of", "truth"]

# A password that people did not encode may hold a bare ';': the next URL shows by its scheme.
_NEXT_URL: Final = re.compile(r"[;,]\s*sentinel://", re.IGNORECASE)
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class UrlProblem(Exception):
    """A reason and its cure, without the name of the thing, and without a secret."""


@attrs.frozen
class Parts:
    """``scheme://[userinfo@]hosts[/path][?options]``; only the options are decoded.

    Attributes:
        scheme: One of ours.
        userinfo: User and password.
        hosts: One or more, with commas between them; or the name of a memory store.
        path: What follows the slash: a database, a service with or without one, or a file.
        options: Those with an effect, by our names.
        ignored: The names of those without.
        ours: Whether the URL was written in our own grammar.
    """

    scheme: str
    userinfo: str = attrs.field(repr=False)
    hosts: str
    path: str
    options: Mapping[str, str] = attrs.field(repr=False)
    ignored: tuple[str, ...] = ()
    ours: bool = True


def parts_of(scheme: str, rest: str) -> Parts:
    """The parts of a URL.

    Args:
        scheme: A key of ``SCHEMES`` or ``DIALECTS``.
        rest: What follows ``://``.

    Raises:
        UrlProblem: If it does not follow the grammar, or an option is not known.
    """
    dialect = DIALECTS.get(scheme)
    if dialect is None:
        return _with_cluster(_read(rest, Dialect(scheme)))
    texts = _NEXT_URL.split(rest) if dialect.lists else [rest]
    parts = _with_cluster(_joined([_read(text, dialect) for text in texts], dialect))
    if "service" in dialect.names.values():
        parts = _with_service(parts, dialect)
    return attrs.evolve(parts, ours=False)


def decoded(text: str) -> str:
    """The text without percent-encoding."""
    with suppress(UnicodeError):  # left before raising: this error holds the text
        result = unquote(text, errors="strict")
        result.encode()
        return result
    raise UrlProblem("it holds bytes that are not UTF-8; encode text as UTF-8, then in percent")


def truth(text: str) -> bool | None:
    """True or false as people write it, or None."""
    return _BOOLEANS.get(text.lower())


def _read(text: str, dialect: Dialect) -> Parts:
    """One URL, its options by our names; service and database are where the dialect has them."""
    main, _, query = text.partition("?")
    netloc, _, path = main.partition("/")
    if "@" in query or ("@" in path and dialect.scheme != "unix"):
        raise UrlProblem(
            "there is an '@' after the host part; percent-encode user, password and options "
            "('/' as %2F, '?' as %3F, '@' as %40)"
        )
    userinfo, _, hosts = netloc.rpartition("@")
    if dialect.lone_password and userinfo and ":" not in userinfo:
        userinfo = ":" + userinfo
    if dialect.lists:
        hosts = hosts.replace(";", ",")
    options, ignored = _options(query, dialect)
    return Parts(dialect.scheme, userinfo, hosts, path, options, ignored)


def _options(query: str, dialect: Dialect) -> tuple[dict[str, str], tuple[str, ...]]:
    own = SCHEMES[dialect.scheme].options
    ignored = () if dialect.scheme == "memory" else (*IGNORED, *dialect.ignored)
    found: dict[str, str] = {}
    without_effect: dict[str, None] = {}
    for item in filter(None, query.split("&")):
        name, assigned, text = item.partition("=")
        if not assigned:
            raise UrlProblem("an option has no value; write ?name=value&name=value")
        if name in ignored:
            without_effect[name] = None
        elif name in own or name in dialect.names:
            value, ours = decoded(text), dialect.names.get(name, name)
            if found.setdefault(ours, value) != value:
                raise UrlProblem(f"option {name!r} is given twice; leave one of them out")
        else:
            raise _unknown(name, (*own, *dialect.names), ignored)
    return found, tuple(without_effect)


def _unknown(name: str, allowed: tuple[str, ...], ignored: tuple[str, ...]) -> UrlProblem:
    # Anything else may be the rest of a password that holds a bare '?'.
    shown = repr(name) if re.fullmatch(r"[A-Za-z_]{1,40}", name) else "of this name"
    hint = ""
    if name in TLS_OPTIONS:
        hint = "; TLS needs a rediss scheme"
    elif name in ("username", "password"):
        hint = "; write user:password@ before the first host"
    elif near := get_close_matches(name, (*allowed, *ignored), 1):
        hint = f"; the nearest is {near[0]!r}"
    return UrlProblem(f"option {shown} is not known; allowed: {', '.join(allowed)}{hint}")


def _with_cluster(parts: Parts) -> Parts:
    """``?cluster=true`` put into the scheme."""
    options = dict(parts.options)
    text = options.pop("cluster", None)
    if text is None:
        return parts
    wanted = truth(text)
    if wanted is None:
        raise UrlProblem("cluster must be true or false")
    if not wanted:
        return attrs.evolve(parts, options=options)
    return attrs.evolve(parts, scheme=f"{parts.scheme}+cluster", options=options, ours=False)


def _with_service(parts: Parts, dialect: Dialect) -> Parts:
    """The service put before the database, into the path."""
    options = dict(parts.options)
    service = options.pop("service", "")
    if not service:
        raise UrlProblem(
            f"the name of the service is missing; write ?{_name_of('service', dialect)}=NAME"
        )
    path = quote(service, safe="") + (f"/{parts.path}" if parts.path else "")
    return attrs.evolve(parts, path=path, options=options)


def _joined(urls: list[Parts], dialect: Dialect) -> Parts:
    """Several URLs as one: what they have in common stands in one of them, or in each."""
    if len(urls) == 1:
        return urls[0]
    options: dict[str, str] = {}
    for url in urls:
        for name, value in url.options.items():
            if options.setdefault(name, value) != value:
                raise UrlProblem(
                    f"the URLs differ in their {_name_of(name, dialect)}; give it once"
                )
    return Parts(
        scheme=urls[0].scheme,
        userinfo=_common("user and password", (url.userinfo for url in urls)),
        hosts=",".join(url.hosts for url in urls),
        path=_common("database", (url.path for url in urls)),
        options=options,
        ignored=tuple(dict.fromkeys(name for url in urls for name in url.ignored)),
    )


def _common(what: str, texts: Iterable[str]) -> str:
    given = set(filter(None, texts))
    if len(given) > 1:
        raise UrlProblem(f"the URLs differ in their {what}; give it once, in the first")
    return given.pop() if given else ""


def _name_of(option: str, dialect: Dialect) -> str:
    """What the dialect calls an option of ours."""
    return next((name for name, ours in dialect.names.items() if ours == option), option)
