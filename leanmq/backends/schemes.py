"""The one table of URL schemes: our own, those of other tools, and the options of each.

Only values here; ``dialects.py`` reads URLs by them, ``registry.py`` finds modules by them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import attrs

__all__ = ["DIALECTS", "IGNORED", "PLAUSIBLE", "SCHEMES", "SENTINEL_OPTIONS", "TLS_OPTIONS",
           "Dialect", "Scheme", "Topology"]  # fmt: skip

PLAUSIBLE: Final = re.compile(r"[a-z][a-z0-9+.-]{0,19}")
"""What can be a scheme. Anything else before ``://`` may be part of a password: never show it."""

Topology: TypeAlias = Literal["memory", "single", "sentinel", "cluster"]

TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
)
SENTINEL_OPTIONS: Final = ("sentinel_password", "sentinel_username")

IGNORED: Final = (
    "client_name",
    "decode_responses",
    "encoding",
    "encoding_errors",
    "health_check_interval",
    "legacy_responses",
    "lib_name",
    "lib_version",
    "max_connections",
    "protocol",
    "retry_on_error",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_read_size",
    "socket_timeout",
    "timeout",
)
"""What redis-py takes in a URL and LeanMQ sets by itself: allowed, without effect.

Nothing of TLS is here: to leave that out would make a connection weaker than was asked for.
"""


@attrs.frozen
class Scheme:
    """What one of our own schemes means.

    Attributes:
        topology: Which of our four kinds of connection serves it.
        port: Of a host that names none; 0 if it has no hosts.
        options: The query options that have an effect.
        tls: Whether connections are made over TLS.
    """

    topology: Topology
    port: int = 0
    options: tuple[str, ...] = ()
    tls: bool = False


@attrs.frozen
class Dialect:
    """How a URL of another tool says what one of our schemes says.

    Attributes:
        scheme: The one of ours.
        names: Options by their names there, to ours. The option that is ``service`` names the
            service of the sentinels, which our own scheme has in the path.
        ignored: Options without effect that only this dialect has.
        lists: Whether it may be a list of whole URLs, or hosts, parted by ``;`` or ``,``.
        lone_password: Whether what stands alone before the ``@`` is the password.
    """

    scheme: str
    names: Mapping[str, str] = attrs.field(factory=dict)
    ignored: tuple[str, ...] = ()
    lists: bool = False
    lone_password: bool = False


SCHEMES: Final[Mapping[str, Scheme]] = {
    "memory": Scheme("memory", options=("slots",)),
    "redis": Scheme("single", 6379, ("db", "cluster")),
    "rediss": Scheme("single", 6379, ("db", "cluster", *TLS_OPTIONS), tls=True),
    "unix": Scheme("single", options=("db",)),
    "redis+sentinel": Scheme("sentinel", 26379, ("db", *SENTINEL_OPTIONS)),
    "rediss+sentinel": Scheme("sentinel", 26379, ("db", *SENTINEL_OPTIONS, *TLS_OPTIONS), tls=True),
    "redis+cluster": Scheme("cluster", 6379, ("db",)),
    "rediss+cluster": Scheme("cluster", 6379, ("db", *TLS_OPTIONS), tls=True),
}
"""Our own schemes. The option ``cluster`` is redisvl's, which has no scheme for it."""

_LETTUCE_IGNORED: Final = ("clientName", "libraryName", "libraryVersion")
_LETTUCE_SENTINEL: Final = {"sentinelMasterId": "service", "database": "db"}

DIALECTS: Final[Mapping[str, Dialect]] = {
    # limits
    "redis+unix": Dialect("unix"),
    # valkey-py, limits, docket
    "valkey": Dialect("redis"),
    "valkeys": Dialect("rediss"),
    "valkey+unix": Dialect("unix"),
    "valkey+sentinel": Dialect("redis+sentinel"),
    "valkeys+sentinel": Dialect("rediss+sentinel"),
    "valkey+cluster": Dialect("redis+cluster"),
    "valkeys+cluster": Dialect("rediss+cluster"),
    # kombu, and so Celery
    "redis+socket": Dialect("unix", {"virtual_host": "db"}),
    "sentinel": Dialect("redis+sentinel", {"master_name": "service"}, lists=True),
    # lettuce, and so Spring and RIOT
    "redis-socket": Dialect("unix", {"database": "db"}, _LETTUCE_IGNORED, lone_password=True),
    "redis-sentinel": Dialect(
        "redis+sentinel", _LETTUCE_SENTINEL, _LETTUCE_IGNORED, lone_password=True
    ),
    "rediss-sentinel": Dialect(
        "rediss+sentinel", _LETTUCE_SENTINEL, _LETTUCE_IGNORED, lone_password=True
    ),
}
"""Schemes of other tools."""
