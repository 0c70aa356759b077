"""Where the data lives, as a URL says it: one parser for every scheme, one masked way to show it.

No redis import here, and no word of a URL in an error except what cannot be a secret: people
forget the ``@`` or the host, and then the password stands where a port is expected. How a URL
is taken apart, in all its dialects, is in ``dialects.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import attrs

from leanmq.backends.dialects import Parts, UrlProblem, decoded, parts_of, truth
from leanmq.backends.schemes import DIALECTS, PLAUSIBLE, SCHEMES, TLS_OPTIONS, Topology

__all__ = ["Address", "Target", "Topology", "build_url", "parse_url", "show"]

Address: TypeAlias = "tuple[str, int] | str"
"""A host and port, or the path of a Unix socket."""

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([\w.-]+))(?::(\d{1,5}))?")
_CERT_REQS: Final = ("none", "optional", "required")


@attrs.frozen
class Target:
    """What a URL says, decoded; or the settings of a client (``clients.py``).

    Attributes:
        scheme: One of ours, in lower case.
        topology: Which of our four kinds of connection serves it.
        addresses: The server, the sentinels, or the cluster's start-up nodes.
        service: The service that the sentinels watch, or the name of a memory store.
        db: Database number.
        username: The account on the servers that hold data; with ``password``.
        sentinel_username: The account on the sentinels; with ``sentinel_password``.
        tls: Options of TLS by the names that redis-py gives them; None without TLS.
        strict_slots: A memory store that keeps slots apart, as a cluster does.
        credential_provider: Of redis-py: gives user and password for each new connection.
        sentinel_credential_provider: The same for sentinels.
        sentinel_tls: ``tls`` for sentinels; as that, unless a client differs in it.
        fake_server: The memory store itself, a ``fakeredis.FakeServer`` that a client brought.
        ignored: The options of the URL that have no effect: LeanMQ sets them by itself.
        display: The URL with its passwords masked, for logs, errors and reprs: as it was
            written, or ``canonical`` if that was in the dialect of another tool.
    """

    scheme: str
    topology: Topology
    addresses: tuple[Address, ...] = ()
    service: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = attrs.field(default=None, repr=False)
    tls: Mapping[str, Any] | None = attrs.field(default=None, repr=False)
    strict_slots: bool = False
    credential_provider: Any = attrs.field(default=None, repr=False)
    sentinel_credential_provider: Any = attrs.field(default=None, repr=False)
    sentinel_tls: Mapping[str, Any] | None = attrs.field(
        default=attrs.Factory(lambda target: target.tls, takes_self=True), repr=False
    )
    fake_server: Any = attrs.field(default=None, repr=False)
    ignored: tuple[str, ...] = ()
    display: str = attrs.field()

    @display.default
    def _default_display(self) -> str:
        return self.canonical

    @property
    def canonical(self) -> str:
        """The one URL of all that mean the same, with ports and database, passwords masked."""
        return _spelled(self, lambda password: "***")


def parse_url(url: str) -> Target:
    """Parse ``scheme://[user[:password]@]host[:port]{,host[:port]}[/path][?query]``.

    User, password, path and option values may be percent-encoded; ``/ ? @`` must be, except
    that a password may hold a bare ``@``. The dialects of other tools are read as well.

    Raises:
        ValueError: If the URL cannot be understood. The message never holds a password.

    Examples:
        >>> parse_url("redis+sentinel://ann:pw@h1,h2/main").display
        'redis+sentinel://ann:***@h1,h2/main'
        >>> parse_url("sentinel://:pw@h1;sentinel://h2/1?master_name=main").display
        'redis+sentinel://:***@h1:26379,h2:26379/main/1'
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or not (scheme in SCHEMES or scheme in DIALECTS):
        named = f"scheme {scheme!r}" if PLAUSIBLE.fullmatch(scheme) else "URL"
        raise ValueError(
            f"{named} is not supported: a URL starts with one of "
            f"{', '.join(known + '://' for known in SCHEMES)}"
        )
    try:
        return _target(parts_of(scheme, rest))
    except UrlProblem as problem:
        raise ValueError(f"{scheme}:// URL: {problem}") from None


def build_url(target: Target) -> str:
    """``target.canonical`` with its passwords: ``parse_url`` gives the target back.

    Examples:
        >>> build_url(Target("unix", "single", ("/run/redis.sock",), password="p@w"))
        'unix://:p%40w@/run/redis.sock'
    """
    return _spelled(target, str)


def show(address: Address) -> str:
    """The address as people write it: ``host:port``, ``[::1]:6379`` or a path."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _target(parts: Parts) -> Target:
    scheme = SCHEMES[parts.scheme]
    options = parts.options
    username, _, password = parts.userinfo.partition(":")
    service, db, addresses = _place(parts)
    target = Target(
        scheme=parts.scheme,
        topology=scheme.topology,
        addresses=addresses,
        service=service,
        db=_db(db, options.get("db"), scheme.topology),
        username=decoded(username) or None,
        password=decoded(password) or None,
        sentinel_username=options.get("sentinel_username"),
        sentinel_password=options.get("sentinel_password"),
        tls=_tls(options) if scheme.tls else None,
        strict_slots=options.get("slots") == "strict",
        ignored=parts.ignored,
    )
    return attrs.evolve(target, display=_written(parts)) if parts.ours else target


def _place(parts: Parts) -> tuple[str, str, tuple[Address, ...]]:
    """Service, database as text, and addresses."""
    scheme = SCHEMES[parts.scheme]
    if scheme.topology == "memory":
        if parts.userinfo or parts.path:
            raise UrlProblem("it has only a name; write memory:// or memory://name")
        if parts.options.get("slots", "loose") not in ("loose", "strict"):
            raise UrlProblem("slots must be loose, or strict as those of a cluster")
        return decoded(parts.hosts), "", ()
    if not scheme.port:
        if parts.hosts or not parts.path:
            raise UrlProblem("it has a path and no host; write unix:///path/to/redis.sock")
        return "", "", ("/" + decoded(parts.path),)
    addresses = tuple(_address(text, scheme.port) for text in parts.hosts.split(","))
    if scheme.topology == "sentinel":
        service, _, db = parts.path.partition("/")
        if not service:
            raise UrlProblem("the name of the service is missing; write host,host/service")
        return decoded(service), decoded(db), addresses
    if scheme.topology == "single" and len(addresses) > 1:
        raise UrlProblem(
            "it takes one host; write redis+sentinel:// or redis+cluster:// for several"
        )
    return "", decoded(parts.path), addresses


def _address(text: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match[3] or default_port) if match else 0
    if not match or not 0 < port < 65536:
        raise UrlProblem(
            "a host is missing or not understood; write host or host:port (a number from 1 to "
            "65535), IPv6 in [brackets], and user:password@ before the first host"
        )
    return match[1] or match[2], port


def _db(path: str, option: str | None, topology: Topology) -> int:
    given = {text for text in (path, option) if text}
    if len(given) > 1 or not all(re.fullmatch(r"\d{1,9}", text) for text in given):
        raise UrlProblem("the database must be one number, in the path or as ?db=")
    db = int(given.pop()) if given else 0
    if db and topology == "cluster":
        raise UrlProblem("a cluster has only database 0; leave the number out")
    return db


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    tls: dict[str, Any] = {k: v for k, v in options.items() if k in TLS_OPTIONS}
    if tls.setdefault("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise UrlProblem(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")
    # Said aloud: redis-py 5 leaves the name unchecked, or refuses "none" with a name to check.
    check = truth(str(tls.get("ssl_check_hostname", "true")))
    if check is None:
        raise UrlProblem("ssl_check_hostname must be true or false")
    tls["ssl_check_hostname"] = check and tls["ssl_cert_reqs"] != "none"
    return tls


def _written(parts: Parts) -> str:
    """A URL of ours as it was written, but for passwords and options without effect."""
    username, colon, _ = parts.userinfo.partition(":")
    account = f"{username}{colon and ':***'}@" if parts.userinfo else ""
    slash = "/" if parts.path else ""
    shown = {k: "***" if k.endswith("password") else v for k, v in parts.options.items()}
    return f"{parts.scheme}://{account}{parts.hosts}{slash}{parts.path}{_query(shown)}"


def _spelled(target: Target, secret: Callable[[str], str]) -> str:
    account = quote(target.username or "", safe="")
    if target.password:
        account += ":" + quote(secret(target.password), safe="*")
    where = ",".join(map(show, target.addresses))
    options: dict[str, str] = {}
    if target.topology == "memory":
        where = quote(target.service, safe="")
    elif target.topology == "sentinel":
        where += f"/{quote(target.service, safe='')}/{target.db}"
    elif not SCHEMES[target.scheme].port:
        where = quote(where)
        options |= {"db": str(target.db)} if target.db else {}
    elif target.topology == "single":
        where += f"/{target.db}"
    if target.sentinel_username:
        options["sentinel_username"] = target.sentinel_username
    if target.sentinel_password:
        options["sentinel_password"] = secret(target.sentinel_password)
    if target.strict_slots:
        options["slots"] = "strict"
    options |= _tls_options(target.tls or {})
    return f"{target.scheme}://{account}{account and '@'}{where}{_query(options)}"


def _tls_options(tls: Mapping[str, Any]) -> dict[str, str]:
    """Those that are not what they would be if nothing was said."""
    unchecked = tls.get("ssl_cert_reqs") == "none"
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in sorted(tls.items())
        if name in TLS_OPTIONS
        and (name, value) != ("ssl_cert_reqs", "required")
        and not (name == "ssl_check_hostname" and (value or unchecked))
    }


def _query(options: Mapping[str, str]) -> str:
    pairs = [f"{name}={quote(value, safe='/*')}" for name, value in options.items()]
    return "?" + "&".join(pairs) if pairs else ""
