"""The command line on a memory store that the test's own client keeps open."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from leanmq import LeanMQ
from leanmq.cli.root import leanmq
from tests.support import running
from tests.support.servers import SingleTopology


class Run(Protocol):
    """Runs ``leanmq`` with these arguments, in this process."""

    def __call__(self, *arguments: str, input: str = "", **variables: str) -> Result: ...


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("LEANMQ_") and not name.startswith("LEANMQ_TEST_"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def url() -> str:
    return f"memory://cli-{uuid4().hex}"


@pytest.fixture
def mq(url: str) -> Iterator[LeanMQ]:
    with LeanMQ(url) as mq:
        mq.open()
        yield mq


@pytest.fixture
def bare() -> Run:
    """With nothing configured."""

    def run(*arguments: str, input: str = "", **variables: str) -> Result:
        return CliRunner().invoke(leanmq, arguments, input=input, env=variables)

    return run


@pytest.fixture
def run(url: str, mq: LeanMQ, bare: Run) -> Run:
    """With the store of ``mq`` configured."""

    def run(*arguments: str, input: str = "", **variables: str) -> Result:
        return bare(*arguments, input=input, **{"LEANMQ_URL": url, **variables})

    return run


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A real server, for commands in processes of their own."""
    server: SingleTopology = running.get("redis")
    server.ask(server.nodes[0], "FLUSHALL")  # what other tests left there
    yield server.url
    server.ask(server.nodes[0], "FLUSHALL")


def documents(result: Result) -> list[Any]:
    """What was said in JSON, a document a line."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C, and programs hand that on."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
