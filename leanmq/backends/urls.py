"""Where the data lives, as a URL says it: one parser for every scheme, one masked way to show it.

No redis import here, and no word of a URL in an error except what cannot be a secret: people
forget the ``@`` or the host, and then the password stands where a port is expected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import unquote

import attrs

__all__ = ["Address", "Target", "Topology", "parse_url", "show"]

Address: TypeAlias = "tuple[str, int] | str"
"""A host and port, or the path of a Unix socket."""

Topology: TypeAlias = Literal["memory", "single", "sentinel", "cluster"]

_TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
)
_SENTINEL_OPTIONS: Final = ("sentinel_password", "sentinel_username")

# What each scheme means: its topology, the port of a host that names none, and its options.
_SCHEMES: Final[dict[str, tuple[Topology, int, tuple[str, ...]]]] = {
    "memory": ("memory", 0, ("slots",)),
    "redis": ("single", 6379, ("db",)),
    "rediss": ("single", 6379, ("db", *_TLS_OPTIONS)),
    "unix": ("single", 0, ("db",)),
    "redis+sentinel": ("sentinel", 26379, ("db", *_SENTINEL_OPTIONS)),
    "rediss+sentinel": ("sentinel", 26379, ("db", *_SENTINEL_OPTIONS, *_TLS_OPTIONS)),
    "redis+cluster": ("cluster", 6379, ("db",)),
    "rediss+cluster": ("cluster", 6379, ("db", *_TLS_OPTIONS)),
}
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?")
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_CERT_REQS: Final = ("none", "optional", "required")


@attrs.frozen
class Target:
    """What a URL says, decoded.

    Attributes:
        scheme: As written, in lower case.
        topology: Which of our four kinds of connection serves it.
        display: The URL with its passwords masked, for logs, errors and reprs.
        addresses: The server, the sentinels, or the cluster's start-up nodes.
        service: The service that the sentinels watch, or the name of a memory store.
        db: Database number.
        tls: Options of TLS by the names that redis-py gives them; None without TLS.
        strict_slots: A memory store that keeps slots apart, as a cluster does.
    """

    scheme: str
    topology: Topology
    display: str
    addresses: tuple[Address, ...] = ()
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = attrs.field(default=None, repr=False)
    tls: Mapping[str, Any] | None = None
    strict_slots: bool = False


def parse_url(url: str) -> Target:
    """Parse ``scheme://[user[:password]@]host[:port]{,host[:port]}[/path][?query]``.

    User, password, path and option values may be percent-encoded; ``/ ? @`` must be, except
    that a password may hold a bare ``@``.

    Raises:
        ValueError: If the URL cannot be understood. The message never holds a password.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        named = f"scheme {scheme!r}" if re.fullmatch(r"[a-z0-9+.-]{1,20}", scheme) else "URL"
        raise ValueError(
            f"{named} is not supported: a URL starts with one of "
            f"{', '.join(known + '://' for known in _SCHEMES)}"
        )
    try:
        return _parse(scheme, rest)
    except _UrlProblem as problem:
        raise ValueError(f"{scheme}:// URL: {problem}") from None


def show(address: Address) -> str:
    """The address as people write it: ``host:port``, ``[::1]:6379`` or a path."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _UrlProblem(Exception):
    """A reason and its cure, without the name of the thing."""


def _parse(scheme: str, rest: str) -> Target:
    topology, default_port, allowed = _SCHEMES[scheme]
    main, _, query = rest.partition("?")
    netloc, slash, path = main.partition("/")
    if "@" in query or ("@" in path and scheme != "unix"):
        raise _UrlProblem(
            "there is an '@' after the host part; percent-encode user, password and options "
            "('/' as %2F, '?' as %3F, '@' as %40)"
        )
    userinfo, at, hosts = netloc.rpartition("@")
    options = _options(query, allowed)
    username, colon, password = userinfo.partition(":")
    masked = username + colon + ("***" if colon else "")
    display = f"{scheme}://{masked}{at}{hosts}{slash}{path}{_shown(options)}"
    path = unquote(path)
    service = ""
    addresses: tuple[Address, ...] = ()
    if topology == "memory":
        service = unquote(hosts)
        if at or path:
            raise _UrlProblem("it has only a name; write memory:// or memory://name")
        if options.get("slots", "loose") not in ("loose", "strict"):
            raise _UrlProblem("slots must be loose, or strict as those of a cluster")
    elif scheme == "unix":
        if hosts or not path:
            raise _UrlProblem("it has a path and no host; write unix:///path/to/redis.sock")
        addresses, path = ("/" + path,), ""
    else:
        addresses = tuple(_address(text, default_port) for text in hosts.split(","))
    if topology == "sentinel":
        service, _, path = path.partition("/")
        if not service:
            raise _UrlProblem("the name of the service is missing; write host,host/service")
    if topology == "single" and len(addresses) > 1:
        raise _UrlProblem(
            "it takes one host; write redis+sentinel:// or redis+cluster:// for several"
        )
    return Target(
        scheme=scheme,
        topology=topology,
        display=display,
        addresses=addresses,
        service=service,
        db=_db(path, options.get("db"), topology),
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if scheme.startswith("rediss") else None,
        strict_slots=options.get("slots") == "strict",
    )


def _shown(options: Mapping[str, str]) -> str:
    pairs = [f"{k}={'***' if k.endswith('password') else v}" for k, v in options.items()]
    return "?" + "&".join(pairs) if pairs else ""


def _address(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match[3] or default_port) if match else 0
    if not match or not 0 < port < 65536:
        raise _UrlProblem(
            "a host is missing or not understood; write host or host:port (a number from 1 to "
            "65535), IPv6 in [brackets], and user:password@ before the first host"
        )
    return match[1] or match[2], port


def _options(query: str, allowed: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for item in filter(None, query.split("&")):
        name, _, value = item.partition("=")
        if name not in allowed:
            hint = "; TLS needs a rediss scheme" if name in _TLS_OPTIONS else ""
            raise _UrlProblem(
                f"option {name!r} is not known; allowed: {', '.join(allowed) or 'none'}{hint}"
            )
        options[name] = unquote(value)
    return options


def _db(path: str, option: str | None, topology: Topology) -> int:
    given = {text for text in (path, option) if text}
    if len(given) > 1 or not all(re.fullmatch(r"\d{1,9}", text) for text in given):
        raise _UrlProblem("the database must be one number, in the path or as ?db=")
    db = int(given.pop()) if given else 0
    if db and topology == "cluster":
        raise _UrlProblem("a cluster has only database 0; leave the number out")
    return db


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {k: v for k, v in options.items() if k in _TLS_OPTIONS}
    if tls.setdefault("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise _UrlProblem(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")
    # Said aloud: redis-py 5 leaves the name unchecked, or refuses "none" with a name to check.
    check = _BOOLEANS.get(str(tls.get("ssl_check_hostname", "true")).lower())
    if check is None:
        raise _UrlProblem("ssl_check_hostname must be true or false")
    tls["ssl_check_hostname"] = check and tls["ssl_cert_reqs"] != "none"
    return tls
