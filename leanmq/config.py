"""Configuration of a client as a value: where its messages are, and the settings of its queues.

How it is read from files and variables is in ``sources.py``; what a URL means, in ``backends``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import attrs

from leanmq.backends.registry import Options
from leanmq.errors import ConfigurationError
from leanmq.policy.core import DEADLINE
from leanmq.policy.names import check_name, check_prefix, seconds_of, settings_of

__all__ = ["QUEUE_SETTINGS", "WHERE", "BackendConfig", "NowhereError", "check_keys", "checked"]

_Kind = Callable[[Any, str], Any]


class NowhereError(ConfigurationError):
    """Nothing says where the messages are: the command line has words of its own for that."""


# --- what values may be; strings are taken for numbers, as variables have nothing else


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{what} must be a string with something in it, not {_kind(value)}"
        )
    return value


def _prefix(value: Any, what: str) -> str:
    return check_prefix(value)


def _whole(value: Any, what: str) -> int:
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{what} must be a whole number, not {_kind(value)}")
    return value


def _seconds(value: Any, what: str) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ConfigurationError(f"{what} must be a number of seconds, not a str") from None
    return seconds_of(value, what)


def _flag(value: Any, what: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    found = words.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ConfigurationError(f"{what} must be true or false, not {_kind(value)}")
    return found


def _hosts(value: Any, what: str) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ConfigurationError(f"{what} must be a list of 'host' or 'host:port'")
    return tuple(_text(item, f"an item of {what}").strip() for item in items)


def _queues(value: Any, what: str) -> Mapping[str, Mapping[str, Any]]:
    result = {}
    for name, settings in _table(value, what).items():
        where = f"{what}.{check_name(name)}"
        check_keys(_table(settings, where), QUEUE_SETTINGS, where)
        of_queue = {k: QUEUE_SETTINGS[k](v, f"{where}.{k}") for k, v in settings.items()}
        try:
            settings_of(**of_queue)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{where}: {error}") from None
        result[name] = of_queue
    return result


def _table(value: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} must be a table of settings, not {_kind(value)}")
    return value


def _kind(value: Any) -> str:
    """What a value is, for errors; a string is not shown, it may be a secret."""
    if value == "":
        return "an empty string"
    return repr(value) if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


QUEUE_SETTINGS: Final[Mapping[str, _Kind]] = {
    "lease": _seconds,
    "max_deliveries": _whole,
    "max_length": _whole,
    "overflow": _text,
    "max_payload_bytes": _whole,
    "dedup_window": _seconds,
    "slot": _text,
}
"""What can be configured of a queue; see ``LeanMQ.queue``."""

_SERVERS: Final = ("redis", "sentinel", "cluster")
_BESIDE_A_URL: Final = ("username", "password", "sentinel_username", "sentinel_password")
_SECRETS: Final = ("url", "password", "sentinel_password")


def _setting(default: Any, kind: _Kind) -> Any:
    return attrs.field(default=default, metadata={"kind": kind})


def _part(*backends: str, kind: _Kind = _text) -> Any:
    """A part of an address, and the backends for which it makes sense."""
    return attrs.field(default=None, metadata={"kind": kind, "backends": backends})


@attrs.frozen(kw_only=True, repr=False)
class BackendConfig:
    """The configuration of a client, checked; ``LeanMQ.from_config`` takes it.

    Either ``url`` says where the messages are, or ``backend`` with its parts. Beside a URL that
    names no user, ``username`` and ``password`` may stand, and those of the sentinels: a secret
    then needs no percent-encoding.

    Attributes:
        url: See ``leanmq.LeanMQ``.
        backend: ``"memory"``, ``"redis"``, ``"sentinel"`` or ``"cluster"``.
        hosts: ``"host"`` or ``"host:port"`` of the server, the sentinels or the start-up nodes.
        path: Path of a Unix socket, instead of a host.
        service: The service that the sentinels watch.
        name: Name of a memory store.
        slots: ``"strict"`` for a memory store that keeps slots apart, as a cluster does.
        db: Number of the database.
        username: Of the account on the servers that hold messages, with ``password``.
        sentinel_username: Of the account on the sentinels, with ``sentinel_password``.
        tls: Whether to use TLS; the settings that begin with ``ssl_`` go with it.
        prefix: What every key in Redis begins with.
        deadline: Seconds that an operation is tried again while the server does not serve.
        connection_timeout: Seconds to wait for a connection, and for a reply.
        queues: Settings by the name of the queue, see ``LeanMQ.queue``. What a call of
            ``queue`` says itself wins.

    Raises:
        ConfigurationError: if a value cannot be, or two do not go together.

    Examples:
        >>> BackendConfig(backend="sentinel", hosts=["s1", "s2"], service="main").to_url()
        'redis+sentinel://s1,s2/main'
        >>> BackendConfig(url="redis://h", password="p@ss")
        BackendConfig(url='***', password='***')
    """

    url: str | None = _setting(None, _text)
    backend: str | None = _setting(None, _text)
    hosts: Sequence[str] | str | None = _part(*_SERVERS, kind=_hosts)
    path: str | None = _part("redis")
    service: str | None = _part("sentinel")
    name: str | None = _part("memory")
    slots: str | None = _part("memory")
    db: int | None = _part("redis", "sentinel", kind=_whole)
    username: str | None = _part(*_SERVERS)
    password: str | None = _part(*_SERVERS)
    sentinel_username: str | None = _part("sentinel")
    sentinel_password: str | None = _part("sentinel")
    tls: bool | None = _part(*_SERVERS, kind=_flag)
    ssl_ca_certs: str | None = _part(*_SERVERS)
    ssl_cert_reqs: str | None = _part(*_SERVERS)
    ssl_certfile: str | None = _part(*_SERVERS)
    ssl_check_hostname: bool | None = _part(*_SERVERS, kind=_flag)
    ssl_keyfile: str | None = _part(*_SERVERS)
    prefix: str = _setting(Options().prefix, _prefix)
    deadline: float = _setting(DEADLINE, _seconds)
    connection_timeout: float = _setting(Options().timeout, _seconds)
    queues: Mapping[str, Mapping[str, Any]] = _setting(attrs.Factory(dict), _queues)

    def __attrs_post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _made(kind, value, name))
        if self.url is None:
            _check_parts(self)
        else:
            _check_beside_url(self)

    def __repr__(self) -> str:
        shown = {k: "***" if k in _SECRETS else v for k, v in self.said().items()}
        return f"BackendConfig({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def said(self) -> dict[str, Any]:
        """The settings that are not what they are by default, secrets included."""
        usual = {field.name: field.default for field in attrs.fields(BackendConfig)}
        values = attrs.asdict(self, recurse=False)
        return {k: v for k, v in values.items() if v != usual[k] and v != {}}

    def to_url(self) -> str:
        """The URL that means the same, secrets included."""
        if self.url is not None:
            return _with_account(self)
        if self.backend == "memory":
            return f"memory://{_quoted(self.name)}{_query(self, 'slots')}"
        secure = "s" if self.tls else ""
        account = _account(self)
        if self.path is not None:
            return f"unix://{account}{quote(self.path)}{_query(self, 'db')}"
        hosts = ",".join(self.hosts or ())
        database = "" if self.db is None else f"/{self.db}"
        options = _query(self, "sentinel_username", "sentinel_password", *_TLS_OPTIONS)
        if self.backend == "sentinel":
            service = f"/{_quoted(self.service)}"
            return f"redis{secure}+sentinel://{account}{hosts}{service}{database}{options}"
        kind = "+cluster" if self.backend == "cluster" else ""
        return f"redis{secure}{kind}://{account}{hosts}{database}{options}"


_FIELDS: Final = attrs.fields_dict(BackendConfig)
_KINDS: Final[Mapping[str, _Kind]] = {n: f.metadata["kind"] for n, f in _FIELDS.items()}
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    n: f.metadata["backends"] for n, f in _FIELDS.items() if "backends" in f.metadata
}
_BACKENDS: Final = ("memory", *_SERVERS)
_TLS_OPTIONS: Final = tuple(name for name in _PARTS if name.startswith("ssl_"))

WHERE: Final = frozenset({"url", "backend", *_PARTS})
"""The settings that say together where messages are: they are taken from one source, or another."""


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a ``BackendConfig``, each by itself.

    Raises:
        ConfigurationError: if a key is not known or a value cannot be.
    """
    check_keys(settings, _FIELDS, "")
    return {k: _made(_KINDS[k], v, k) for k, v in settings.items() if v is not None}


def _made(kind: _Kind, value: Any, what: str) -> Any:
    try:
        return kind(value, what)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:  # from the checks that keywords go through, too
        raise ConfigurationError(str(error)) from None


def check_keys(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Raises ConfigurationError for a key that is not known, naming the nearest that is.

    >>> check_keys(["max_delivery"], ["lease", "max_deliveries"], "queues.orders")
    Traceback (most recent call last):
    leanmq.errors.ConfigurationError: queues.orders.max_delivery is not known, did you mean ...
    """
    for key in given:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), list(known), n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        raise ConfigurationError(f"{where + '.' if where else ''}{key} is not known{hint}")


def _check_parts(config: BackendConfig) -> None:
    backend = config.backend
    if backend is None:
        raise NowhereError(
            "nothing says where the messages are; give url (such as 'redis://localhost:6379/0') or "
            f"backend ({', '.join(_BACKENDS)})"
        )
    if backend not in _BACKENDS:
        near = difflib.get_close_matches(backend, _BACKENDS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give a url for backends of others"
        raise ConfigurationError(f"backend must be one of {', '.join(_BACKENDS)}; {hint}")
    for name, backends in _PARTS.items():
        if getattr(config, name) is not None and backend not in backends:
            raise ConfigurationError(
                f"{name} does not go with backend {backend!r}, but with {' or '.join(backends)}"
            )
    if backend in _SERVERS and (config.hosts is None) == (config.path is None):
        raise ConfigurationError(f"backend {backend!r} needs hosts, such as ['localhost:6379']")
    if backend == "sentinel" and config.service is None:
        raise ConfigurationError("backend 'sentinel' needs service, the name that they watch")
    if not config.tls and any(getattr(config, name) is not None for name in _TLS_OPTIONS):
        raise ConfigurationError("settings of TLS are given, yet tls is not true")


def _check_beside_url(config: BackendConfig) -> None:
    for name in ("backend", *_PARTS):
        if name not in _BESIDE_A_URL and getattr(config, name) is not None:
            raise ConfigurationError(f"url and {name} both say where the messages are; give one")
    account = config.username is not None or config.password is not None
    if account and "@" in (config.url or ""):
        raise ConfigurationError("the url names a user or password already; give each once")


def _with_account(config: BackendConfig) -> str:
    scheme, separator, rest = (config.url or "").partition("://")
    options = _query(config, "sentinel_username", "sentinel_password")
    if "?" in rest:
        options = options.replace("?", "&")
    return f"{scheme}{separator}{_account(config)}{rest}{options}"


def _account(config: BackendConfig) -> str:
    if config.username is None and config.password is None:
        return ""
    password = "" if config.password is None else f":{_quoted(config.password)}"
    return f"{_quoted(config.username)}{password}@"


def _quoted(text: str | None) -> str:
    return quote(text or "", safe="")


def _query(config: BackendConfig, *names: str) -> str:
    values = {name: getattr(config, name) for name in names}
    given = {k: str(v) for k, v in values.items() if v is not None}
    return "?" + urlencode(given, quote_via=quote) if given else ""
