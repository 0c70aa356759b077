"""Reads the configuration of a client: keywords over variables over a file over the defaults.

What the settings are is in ``config.py``.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import attrs

from leanmq.backends.registry import describe
from leanmq.config import WHERE, BackendConfig, checked
from leanmq.errors import ConfigurationError

__all__ = ["ConfigSource", "Resolved", "resolve"]

ConfigSource: TypeAlias = "Mapping[str, Any] | BackendConfig | str | os.PathLike[str]"
"""A mapping, a ``BackendConfig``, or the path of a TOML file."""

_FILE: Final = "leanmq.toml"
_PROJECT_FILE: Final = "pyproject.toml"
_VARIABLES: Final = {
    "LEANMQ_URL": "url",
    "LEANMQ_PREFIX": "prefix",
    "LEANMQ_DEADLINE": "deadline",
    "LEANMQ_CONNECTION_TIMEOUT": "connection_timeout",
}
_LOCATING: Final = frozenset({"url", "backend", "nodes"})
_REFERENCE: Final = re.compile(r"\$\$|\$\{([A-Za-z_]\w*)(?::-([^}]*))?\}")


@attrs.frozen
class _Layer:
    """Settings of one source, checked, and what people call the source."""

    origin: str
    settings: Mapping[str, Any]


@attrs.frozen
class Resolved:
    """A configuration, and where each of its settings came from.

    Attributes:
        config: The settings, checked.
        origins: Name of a setting (``"url"``, ``"queues.orders.lease"``) to what it was taken
            from, in words. What has its default is not there.
    """

    config: BackendConfig
    origins: Mapping[str, str]

    @property
    def url(self) -> str:
        """Where the messages are, secrets included; of nodes there is no such URL, see
        ``BackendConfig.node_urls``."""
        return self.config.to_url()

    @property
    def display(self) -> str:
        """Where the messages are, for people; secrets masked."""
        if self.config.nodes is not None:
            from leanmq.sharding.configured import router_display  # not above: most need none

            return router_display(self.config)
        return describe(self.url, None)


def resolve(
    source: ConfigSource | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    folder: str | os.PathLike[str] | None = None,
    **keywords: Any,
) -> Resolved:
    """Read a configuration.

    Keywords win over variables, variables over a file, a file over the defaults. Settings that
    say where messages are come from one of them as a whole. A mapping or a ``BackendConfig`` is
    what the program says: variables do not change it. ``${NAME}`` in a text, or
    ``${NAME:-otherwise}``, stands for a variable of the environment, ``$$`` for a dollar sign.

    Args:
        source: A mapping, a ``BackendConfig``, or a file: ``leanmq.toml``, or a
            ``pyproject.toml`` with a table ``tool.leanmq``. None: what the environment names
            by ``LEANMQ_CONFIG`` (a file), else by ``LEANMQ_URL``, else by ``REDIS_URL``.
        environ: The environment; None is that of this process.
        folder: Where to look for a ``leanmq.toml`` or ``pyproject.toml`` if source is None and
            ``LEANMQ_CONFIG`` is not set.
        keywords: Settings of ``BackendConfig``; those that are None are not given.

    Raises:
        ConfigurationError: if something is not known, cannot be, or does not go together; its
            text names the source and the setting.

    Examples:
        >>> found = resolve({"url": "redis://h:6380", "queues": {"orders": {"lease": 30}}})
        >>> found.display, found.origins["queues.orders.lease"]
        ('redis://h:6380', 'the mapping')
        >>> resolve(environ={"REDIS_URL": "redis://:secret@h"}, prefix="shop:").origins
        {'prefix': 'the call', 'url': 'REDIS_URL in the environment'}
    """
    variables = os.environ if environ is None else environ
    layers = [_checked("the call", keywords, variables)]
    if isinstance(source, BackendConfig):
        layers.append(_Layer("the BackendConfig", source.said()))
    elif isinstance(source, Mapping):
        layers.append(_checked("the mapping", source, variables))
    elif source is None or isinstance(source, str | os.PathLike):
        layers += _from_environment(variables)
        path = _path(source, variables, folder)
        if path is not None:
            layers.append(_checked(str(path), _read(path), variables))
        if not any(_LOCATING & layer.settings.keys() for layer in layers):
            layers += _fallback(variables)
    else:
        raise TypeError(
            "a configuration is a mapping, a BackendConfig or the path of a file, not "
            f"{type(source).__name__}"
        )
    return _merged(layers)


def _from_environment(variables: Mapping[str, str]) -> Iterator[_Layer]:
    for variable, setting in _VARIABLES.items():
        if variables.get(variable):
            origin = f"{variable} in the environment"
            yield _checked(origin, {setting: variables[variable]}, {})


def _fallback(variables: Mapping[str, str]) -> Iterator[_Layer]:
    if variables.get("REDIS_URL"):
        yield _checked("REDIS_URL in the environment", {"url": variables["REDIS_URL"]}, {})


def _path(
    source: str | os.PathLike[str] | None,
    variables: Mapping[str, str],
    folder: str | os.PathLike[str] | None,
) -> Path | None:
    """The file to read, if there is one to read."""
    if source is not None:
        return Path(source)
    if variables.get("LEANMQ_CONFIG"):
        return Path(variables["LEANMQ_CONFIG"])
    if folder is not None:
        own, project = Path(folder, _FILE), Path(folder, _PROJECT_FILE)
        if own.is_file():
            return own
        if project.is_file() and "leanmq" in _load(project).get("tool", {}):
            return project
    return None


def _read(path: Path) -> Mapping[str, Any]:
    content = _load(path)
    if path.name != _PROJECT_FILE:
        return content
    tools = content.get("tool", {})
    if "leanmq" not in tools:
        raise ConfigurationError(f"{path} has no table [tool.leanmq]; add one, or name a file")
    settings: Mapping[str, Any] = tools["leanmq"]
    return settings


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigurationError(f"cannot read the configuration file {path}: {reason}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def _checked(origin: str, settings: Mapping[str, Any], variables: Mapping[str, str]) -> _Layer:
    try:
        filled = settings if origin == "the call" else _filled(settings, variables)
        return _Layer(origin, checked(filled))
    except ConfigurationError as error:
        raise ConfigurationError(f"{origin}: {error}") from error.__cause__


def _filled(value: Any, variables: Mapping[str, str], what: str = "") -> Any:
    """A value with the variables that its texts name."""
    if isinstance(value, Mapping):
        return {k: _filled(v, variables, f"{what}.{k}".lstrip(".")) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(item, variables, what) for item in value]
    if not isinstance(value, str):
        return value

    def fill(reference: re.Match[str]) -> str:
        name, otherwise = reference[1], reference[2]
        if name is None:
            return "$"
        found = variables.get(name) or otherwise
        if found is None:
            raise ConfigurationError(
                f"{what} names the variable {name}, which is not set; set it, or write "
                f"${{{name}:-otherwise}}"
            )
        return found

    return _REFERENCE.sub(fill, value)


def _merged(layers: list[_Layer]) -> Resolved:
    """The settings of all layers, the first that has one wins."""
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    queues: dict[str, dict[str, Any]] = {}
    located = False
    for layer in layers:
        here = WHERE.intersection(layer.settings)
        for name, value in layer.settings.items():
            if name == "queues":
                for queue, of_queue in value.items():
                    for key, setting in of_queue.items():
                        if key not in queues.setdefault(queue, {}):
                            queues[queue][key] = setting
                            origins[f"queues.{queue}.{key}"] = layer.origin
            elif name not in settings and not (located and name in here):
                settings[name] = value
                origins[name] = layer.origin
        located = located or bool(here)
    try:
        config = BackendConfig(**settings, queues=queues)
    except ConfigurationError as error:
        sources = ", ".join(dict.fromkeys(origins.values()))
        raise type(error)(f"{sources}: {error}" if sources else str(error)) from None
    return Resolved(config, origins)
