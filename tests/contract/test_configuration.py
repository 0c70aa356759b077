"""Every backend opens by its URL, by a mapping of its parts, by a file and by the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanmq import BackendConfig, ConfigurationError, QueueSettingsError
from leanmq.backends.urls import parse_url, show
from tests.contract.harness import ROUTERS, SHARDS, Client, Harness, drain

pytestmark = pytest.mark.on("memory", "redis", "sentinel", "cluster")


def parts_of(url: str) -> dict[str, Any]:
    """The URL of a subject in the words of a configuration."""
    target = parse_url(url)
    if target.topology == "memory":
        return {"backend": "memory", "name": target.service}
    parts: dict[str, Any] = {"hosts": [show(address) for address in target.addresses]}
    if target.topology == "sentinel":
        parts["service"] = target.service
    return {"backend": "redis" if target.topology == "single" else target.topology, **parts}


def toml(settings: dict[str, Any]) -> str:
    """Settings as a file: tables come last."""
    lines = []
    for name, value in sorted(settings.items(), key=lambda item: isinstance(item[1], dict)):
        if isinstance(value, dict):
            of_table = [f"{key} = {inline(setting)}" for key, setting in value.items()]
            lines += [f"[{name}]", *of_table]
        else:
            lines.append(f"{name} = {inline(value)}")
    return "\n".join(lines)


def inline(value: Any) -> str:
    """A value in one line; JSON of a text, a number or a list of them is TOML."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {inline(item)}' for key, item in value.items())} }}"
    return json.dumps(value)


def router_of(harness: Harness) -> dict[str, Any]:
    """The router of a subject in the words of a configuration."""
    if harness.router == "hash":
        return {"strategy": "consistent-hash", "shards": SHARDS}
    return {"strategy": "round-robin"}


Source = Callable[[Harness, Path, pytest.MonkeyPatch], Any]


def by_url(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    return {"url": harness.url}


def by_parts(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    return parts_of(harness.url)


def by_value(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    return BackendConfig(**parts_of(harness.url))


def by_file_of_url(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    (folder / "leanmq.toml").write_text(toml({"url": "${MESSAGES}"}))
    environment.setenv("MESSAGES", harness.url)
    return folder / "leanmq.toml"


def by_file_of_parts(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    (folder / "leanmq.toml").write_text(toml(parts_of(harness.url)))
    return str(folder / "leanmq.toml")


def by_environment(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    environment.setenv("LEANMQ_URL", harness.url)
    return None


def by_file_of_environment(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    (folder / "pyproject.toml").write_text(f"[tool.leanmq]\n{toml(parts_of(harness.url))}\n")
    environment.setenv("LEANMQ_CONFIG", str(folder / "pyproject.toml"))
    return None


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("URL", "CONFIG", "PREFIX", "DEADLINE", "CONNECTION_TIMEOUT"):
        monkeypatch.delenv(f"LEANMQ_{name}", raising=False)
    monkeypatch.delenv("REDIS_URL", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "source",
    [
        by_url,
        by_parts,
        by_value,
        by_file_of_url,
        by_file_of_parts,
        by_environment,
        by_file_of_environment,
    ],
)
async def test_messages_go_through(
    source: Source,
    harness: Harness,
    mq: Client,
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
) -> None:
    configured = harness.configured(source(harness, tmp_path, environment))

    await configured.queue("orders").send_message("tea")

    assert [m.data for m in await drain(mq.queue("orders"), 1)] == ["tea"]


async def test_settings_of_queues_are_those_of_the_configuration(harness: Harness) -> None:
    queues = {"orders": {"lease": 7, "max_deliveries": 2}, "mails": {"lease": 9}}
    mq = harness.configured({"url": harness.url, "queues": queues})

    info = await mq.queue("orders", max_deliveries=3).get_info()

    assert (info.lease, info.max_deliveries) == (7, 3)
    async with mq.transaction() as tx:
        tx.send_message("mails", 1)
    assert (await mq.queue("mails").get_info()).lease == 9
    other = harness.configured({"url": harness.url, "queues": {"orders": {"lease": 8}}})
    with pytest.raises(QueueSettingsError, match="lease=7, you asked for lease=8"):
        await other.queue("orders").send_message(2)


async def test_a_variable_wins_over_the_file_and_the_call_over_both(
    harness: Harness, mq: Client, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "leanmq.toml"
    file.write_text(toml({"url": "redis://127.0.0.1:1", "deadline": 0}))

    environment.setenv("LEANMQ_URL", harness.url)
    await harness.configured(file).queue("orders").send_message("by the variable")
    environment.setenv("LEANMQ_URL", "redis://127.0.0.1:1")
    await harness.configured(file, url=harness.url).queue("orders").send_message("by the call")

    sent = [m.data for m in await drain(mq.queue("orders"), 2)]
    assert sorted(sent) == ["by the call", "by the variable"]


async def test_a_mistake_in_a_file_is_named(harness: Harness, tmp_path: Path) -> None:
    file = tmp_path / "leanmq.toml"
    file.write_text(toml({**parts_of(harness.url), "prefx": "a:"}))

    with pytest.raises(ConfigurationError, match=r"leanmq\.toml: prefx .* did you mean 'prefix'"):
        harness.configured(file)


# --- routers


def by_nodes(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    return {"nodes": harness.nodes, "router": router_of(harness)}


def by_value_of_nodes(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    nodes = {name: parts_of(url) | {"weight": 2} for name, url in harness.nodes.items()}
    return BackendConfig(nodes=nodes, router=router_of(harness))


def by_file_of_nodes(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    nodes: dict[str, Any] = {name: {"url": f"${{{name}}}"} for name in harness.nodes}
    for name, url in harness.nodes.items():
        environment.setenv(name, url)
    (folder / "leanmq.toml").write_text(toml({"nodes": nodes, "router": router_of(harness)}))
    return folder / "leanmq.toml"


def by_environment_of_nodes(harness: Harness, folder: Path, environment: pytest.MonkeyPatch) -> Any:
    environment.setenv("LEANMQ_CONFIG", str(by_file_of_nodes(harness, folder, environment)))
    environment.setenv("REDIS_URL", "redis://127.0.0.1:1")
    return None


@pytest.mark.on(*ROUTERS)
@pytest.mark.parametrize(
    "source", [by_nodes, by_value_of_nodes, by_file_of_nodes, by_environment_of_nodes]
)
async def test_a_router_opens_by_nodes_and_keeps_their_prefix(
    source: Source,
    harness: Harness,
    mq: Client,
    tmp_path: Path,
    environment: pytest.MonkeyPatch,
) -> None:
    configured = harness.configured(source(harness, tmp_path, environment))
    orders = configured.queue("orders")

    await orders.send_messages(range(20))

    assert sorted([m.data for m in await drain(mq.queue("orders"), 20)]) == list(range(20))
    assert orders.key == f"{harness.prefix}orders"
    assert (await orders.get_info()).shards == (SHARDS if harness.router == "hash" else 0)
    assert all(name in repr(configured) for name in harness.nodes)


@pytest.mark.on(*ROUTERS)
async def test_a_url_of_the_environment_wins_over_the_nodes_of_a_file(
    harness: Harness, tmp_path: Path, environment: pytest.MonkeyPatch
) -> None:
    file = by_file_of_nodes(harness, tmp_path, environment)
    environment.setenv("LEANMQ_URL", harness.urls[0])

    alone = harness.configured(file)
    await alone.queue("alone").send_message("tea")

    assert [(info.name, info.shards) for info in await alone.list_queues()] == [("alone", 0)] * 2
