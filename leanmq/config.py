"""Configuration of a client as a value: where its messages are, and the settings of its queues.

How it is read from files and variables is in ``sources.py``; what a URL means, in ``backends``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import attrs

from leanmq import kinds
from leanmq.backends.registry import Options
from leanmq.errors import ConfigurationError
from leanmq.policy.core import DEADLINE
from leanmq.policy.names import check_name, settings_of

__all__ = [
    "NODE_SETTINGS",
    "QUEUE_SETTINGS",
    "STRATEGIES",
    "WHERE",
    "BackendConfig",
    "NowhereError",
    "checked",
]


class NowhereError(ConfigurationError):
    """Nothing says where the messages are: the command line has words of its own for that."""


def _queues(value: Any, what: str) -> Mapping[str, Mapping[str, Any]]:
    result = {}
    for name, settings in kinds.table(value, what).items():
        where = f"{what}.{check_name(name)}"
        kinds.check_keys(kinds.table(settings, where), QUEUE_SETTINGS, where)
        of_queue = {k: QUEUE_SETTINGS[k](v, f"{where}.{k}") for k, v in settings.items()}
        try:
            settings_of(**of_queue)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{where}: {error}") from None
        result[name] = of_queue
    return result


def _nodes(value: Any, what: str) -> Mapping[str, Mapping[str, Any]]:
    from leanmq.sharding.weights import check_weights  # not above: most have no nodes

    result = {}
    for name, given in kinds.table(value, what).items():
        where = f"{what}.{name}"
        if not isinstance(given, str | Mapping):
            raise ConfigurationError(
                f"{where} must be a URL or a table of settings, not {kinds.shown(given)}"
            )
        node = {"url": given} if isinstance(given, str) else given
        for key in node:
            if key in _KINDS and key not in NODE_SETTINGS:
                raise ConfigurationError(
                    f"{where}.{key} is not of one node; give {key} beside {what}"
                )
        kinds.check_keys(node, NODE_SETTINGS, where)
        of_node = {
            key: kinds.made(NODE_SETTINGS[key], setting, f"{where}.{key}")
            for key, setting in node.items()
            if setting is not None
        }
        try:
            _address(of_node)
        except NowhereError:
            raise ConfigurationError(
                f"{where} does not say where it is; give it url, or backend with its parts"
            ) from None
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from None
        result[name] = of_node
    try:
        check_weights(result, None)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{what}: {error}") from None
    return result


def _address(node: Mapping[str, Any]) -> BackendConfig:
    """Where a node is, as if it were alone."""
    return BackendConfig(**{key: value for key, value in node.items() if key != "weight"})


def _router(value: Any, what: str) -> Mapping[str, Any]:
    from leanmq.sharding.hashing import check_shards

    given = kinds.table(value, what)
    kinds.check_keys(given, _ROUTER_SETTINGS, what)
    router = {
        key: kinds.made(_ROUTER_SETTINGS[key], setting, f"{what}.{key}")
        for key, setting in given.items()
        if setting is not None
    }
    strategy = router.get("strategy", STRATEGIES[0])
    if strategy not in STRATEGIES:
        near = difflib.get_close_matches(strategy, STRATEGIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"{what}.strategy must be one of {', '.join(STRATEGIES)}{hint}")
    if "shards" in router:
        if strategy != STRATEGIES[0]:
            raise ConfigurationError(
                f"{what}.shards goes with strategy {STRATEGIES[0]!r}, not {strategy!r}: that keeps "
                "no shards"
            )
        try:
            check_shards(router["shards"])
        except ValueError as error:
            raise ConfigurationError(f"{what}.{error}") from None
    return router


QUEUE_SETTINGS: Final[Mapping[str, kinds.Kind]] = {
    "lease": kinds.seconds,
    "max_deliveries": kinds.whole,
    "max_length": kinds.whole,
    "overflow": kinds.text,
    "max_payload_bytes": kinds.whole,
    "dedup_window": kinds.seconds,
    "slot": kinds.text,
}
"""What can be configured of a queue; see ``LeanMQ.queue``."""

STRATEGIES: Final = ("consistent-hash", "round-robin", "least-backlog")
"""How messages can be spread over nodes; the first one is the default."""

_ROUTER_SETTINGS: Final[Mapping[str, kinds.Kind]] = {"strategy": kinds.text, "shards": kinds.whole}

_SERVERS: Final = ("redis", "sentinel", "cluster")
_BESIDE_A_URL: Final = ("username", "password", "sentinel_username", "sentinel_password")
_SECRETS: Final = ("url", "password", "sentinel_password")


def _setting(default: Any, kind: kinds.Kind) -> Any:
    return attrs.field(default=default, metadata={"kind": kind})


def _part(*backends: str, kind: kinds.Kind = kinds.text) -> Any:
    """A part of an address, and the backends for which it makes sense."""
    return attrs.field(default=None, metadata={"kind": kind, "backends": backends})


@attrs.frozen(kw_only=True, repr=False)
class BackendConfig:
    """The configuration of a client, checked; ``LeanMQ.from_config`` takes it.

    Either ``url`` says where the messages are, or ``backend`` with its parts, or ``nodes``: several
    deployments. Beside a URL that names no user, ``username`` and ``password`` may stand, and
    those of the sentinels: a secret then needs no percent-encoding.

    Attributes:
        url: See ``leanmq.LeanMQ``.
        backend: ``"memory"``, ``"redis"``, ``"sentinel"`` or ``"cluster"``.
        nodes: Deployments by name, each a URL or a table: ``url``, or ``backend`` with its parts,
            and perhaps ``weight``, 1 if not given. They are used through a router.
        router: How messages are spread over the nodes: ``strategy``, which is
            ``"consistent-hash"`` (the default), ``"round-robin"`` or ``"least-backlog"``; and
            ``shards`` of a new queue (64), for consistent hashing alone.
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

    url: str | None = _setting(None, kinds.text)
    backend: str | None = _setting(None, kinds.text)
    nodes: Mapping[str, Any] | None = _setting(None, _nodes)
    router: Mapping[str, Any] | None = _setting(None, _router)
    hosts: Sequence[str] | str | None = _part(*_SERVERS, kind=kinds.hosts)
    path: str | None = _part("redis")
    service: str | None = _part("sentinel")
    name: str | None = _part("memory")
    slots: str | None = _part("memory")
    db: int | None = _part("redis", "sentinel", kind=kinds.whole)
    username: str | None = _part(*_SERVERS)
    password: str | None = _part(*_SERVERS)
    sentinel_username: str | None = _part("sentinel")
    sentinel_password: str | None = _part("sentinel")
    tls: bool | None = _part(*_SERVERS, kind=kinds.flag)
    ssl_ca_certs: str | None = _part(*_SERVERS)
    ssl_cert_reqs: str | None = _part(*_SERVERS)
    ssl_certfile: str | None = _part(*_SERVERS)
    ssl_check_hostname: bool | None = _part(*_SERVERS, kind=kinds.flag)
    ssl_keyfile: str | None = _part(*_SERVERS)
    prefix: str = _setting(Options().prefix, kinds.prefix)
    deadline: float = _setting(DEADLINE, kinds.seconds)
    connection_timeout: float = _setting(Options().timeout, kinds.seconds)
    queues: Mapping[str, Mapping[str, Any]] = _setting(attrs.Factory(dict), _queues)

    def __attrs_post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, kinds.made(kind, value, name))
        if self.nodes is not None:
            _check_beside_nodes(self, self.nodes)
        elif self.router is not None:
            raise ConfigurationError(
                "router says how nodes are used, and there are none; give nodes"
            )
        elif self.url is None:
            _check_parts(self)
        else:
            _check_beside_url(self)

    def __repr__(self) -> str:
        shown = _masked(self.said())
        if self.nodes is not None:
            shown["nodes"] = {name: _masked(node) for name, node in self.nodes.items()}
        return f"BackendConfig({', '.join(f'{k}={v!r}' for k, v in shown.items())})"

    def said(self) -> dict[str, Any]:
        """The settings that are not what they are by default, secrets included."""
        usual = {field.name: field.default for field in attrs.fields(BackendConfig)}
        values = attrs.asdict(self, recurse=False)
        return {k: v for k, v in values.items() if v != usual[k] and v != {}}

    def to_url(self) -> str:
        """The URL that means the same, secrets included.

        Raises:
            ConfigurationError: if there are nodes; each has its URL, see ``node_urls``.
        """
        if self.nodes is not None:
            raise ConfigurationError("nodes have no common URL; each has its own, see node_urls()")
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

    def node_urls(self) -> dict[str, str]:
        """The URLs of the nodes by name, secrets included; none if there are no nodes.

        >>> BackendConfig(nodes={"a": "redis://a", "b": {"backend": "memory"}}).node_urls()
        {'a': 'redis://a', 'b': 'memory://'}
        """
        return {name: _address(node).to_url() for name, node in (self.nodes or {}).items()}

    def weights(self) -> dict[str, float]:
        """How much of the messages each node gets, by name."""
        return {name: node.get("weight", 1.0) for name, node in (self.nodes or {}).items()}


_FIELDS: Final = attrs.fields_dict(BackendConfig)
_KINDS: Final[Mapping[str, kinds.Kind]] = {n: f.metadata["kind"] for n, f in _FIELDS.items()}
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    n: f.metadata["backends"] for n, f in _FIELDS.items() if "backends" in f.metadata
}
_BACKENDS: Final = ("memory", *_SERVERS)
_TLS_OPTIONS: Final = tuple(name for name in _PARTS if name.startswith("ssl_"))

NODE_SETTINGS: Final[Mapping[str, kinds.Kind]] = {
    **{name: _KINDS[name] for name in ("url", "backend", *_PARTS)},
    "weight": kinds.weight,
}
"""What can be configured of a node."""

WHERE: Final = frozenset({"url", "backend", "nodes", "router", *_PARTS})
"""The settings that say together where messages are: they are taken from one source, or another."""


def checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a ``BackendConfig``, each by itself.

    Raises:
        ConfigurationError: if a key is not known or a value cannot be.
    """
    kinds.check_keys(settings, _FIELDS, "")
    return {k: kinds.made(_KINDS[k], v, k) for k, v in settings.items() if v is not None}


def _check_parts(config: BackendConfig) -> None:
    backend = config.backend
    if backend is None:
        raise NowhereError(
            "nothing says where the messages are; give url (such as 'redis://localhost:6379/0'), "
            f"backend ({', '.join(_BACKENDS)}) or nodes"
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


def _check_beside_nodes(config: BackendConfig, nodes: Mapping[str, Any]) -> None:
    for name in ("url", "backend"):
        if getattr(config, name) is not None:
            raise ConfigurationError(f"{name} and nodes both say where the messages are; give one")
    example = next(iter(nodes))
    for name in _PARTS:
        if getattr(config, name) is not None:
            raise ConfigurationError(
                f"{name} is of one node; give it to each that needs it, as nodes.{example}.{name}"
            )


def _masked(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: "***" if key in _SECRETS else value for key, value in settings.items()}


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
