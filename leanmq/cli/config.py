"""``leanmq config``: what was configured, and where each setting came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from leanmq.cli.lazy import command as command_named
from leanmq.cli.output import Column
from leanmq.cli.session import Session

if TYPE_CHECKING:
    from leanmq.sources import Resolved

__all__ = ["command"]

_SECRETS = ("password", "sentinel_password")
_COLUMNS = (
    Column("setting", "SETTING"),
    Column("value", "VALUE"),
    Column("from", "FROM"),
)


@command_named("config")
def command() -> None:
    """Show the configuration, and where each setting comes from. Secrets are masked.

    Options win over variables, variables over a file, a file over the defaults.
    """
    import attrs

    session = Session.current()
    found = session.configured()
    rows = list(_where(found))
    values = attrs.asdict(found.config, recurse=False)
    for name, value in values.items():
        if name in ("url", "nodes", "router", "queues") or value is None:
            continue
        shown = "***" if name in _SECRETS else value
        rows.append({"setting": name, "value": shown, "from": _origin(found, name, "default")})
    for queue, settings in found.config.queues.items():
        for name, value in settings.items():
            setting = f"queues.{queue}.{name}"
            rows.append({"setting": setting, "value": value, "from": found.origins[setting]})
    session.output.rows(rows, _COLUMNS, "")


def _where(found: Resolved) -> Iterator[dict[str, Any]]:
    """The URL; of nodes each one, and how they are used."""
    from leanmq.backends.registry import describe
    from leanmq.config import STRATEGIES

    config = found.config
    if config.nodes is None:
        origin = _origin(found, "url", "its parts")
        yield {"setting": "url", "value": found.display, "from": origin}
        return
    origin = _origin(found, "nodes", "")
    for name, url in config.node_urls().items():
        yield {"setting": f"nodes.{name}", "value": describe(url, None), "from": origin}
        if "weight" in config.nodes[name]:
            weight = config.nodes[name]["weight"]
            yield {"setting": f"nodes.{name}.weight", "value": weight, "from": origin}
    usual: dict[str, Any] = {"strategy": STRATEGIES[0]}
    for name, value in (usual | dict(config.router or {})).items():
        given = name in (config.router or {})
        origin = _origin(found, "router", "") if given else "default"
        yield {"setting": f"router.{name}", "value": value, "from": origin}


def _origin(found: Resolved, name: str, otherwise: str) -> str:
    """What a setting was taken from, as a user of the command line would call it."""
    origin = found.origins.get(name, otherwise)
    return f"--{name.replace('_', '-')}" if origin == "the call" else origin
