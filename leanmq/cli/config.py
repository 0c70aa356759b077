"""``leanmq config``: what was configured, and where each setting came from."""

from __future__ import annotations

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
    rows: list[dict[str, Any]] = [
        {"setting": "url", "value": found.display, "from": _origin(found, "url", "its parts")}
    ]
    values = attrs.asdict(found.config, recurse=False)
    for name, value in values.items():
        if name in ("url", "queues") or value is None:
            continue
        shown = "***" if name in _SECRETS else value
        rows.append({"setting": name, "value": shown, "from": _origin(found, name, "default")})
    for queue, settings in found.config.queues.items():
        for name, value in settings.items():
            setting = f"queues.{queue}.{name}"
            rows.append({"setting": setting, "value": value, "from": found.origins[setting]})
    session.output.rows(rows, _COLUMNS, "")


def _origin(found: Resolved, name: str, otherwise: str) -> str:
    """What a setting was taken from, as a user of the command line would call it."""
    origin = found.origins.get(name, otherwise)
    return f"--{name.replace('_', '-')}" if origin == "the call" else origin
