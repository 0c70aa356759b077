"""Every backend opens by its URL, by a mapping of its parts, by a file and by the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanmq import BackendConfig, ConfigurationError, QueueSettingsError
from leanmq.backends.urls import parse_url, show
from tests.contract.harness import Client, Harness, drain

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
    """Settings as a file; JSON of a text, a number or a list of them is TOML."""
    queues = settings.pop("queues", {})
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    for queue, of_queue in queues.items():
        lines += [f"[queues.{queue}]", *(f"{k} = {json.dumps(v)}" for k, v in of_queue.items())]
    return "\n".join(lines)


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
