"""Which backends the code of the pages runs on: memory, and in CI all four."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import get_args

import pytest

from tests.docs.elsewhere import opened_on
from tests.support import running

SUBJECTS = ("memory", *get_args(running.Kind))


def pytest_addoption(parser: pytest.Parser) -> None:
    """For ``pytest tests/docs --docs-on=cluster``."""
    parser.addoption(
        "--docs-on",
        default="",
        help=f"run the code of the pages on these: {','.join(SUBJECTS)}; or all",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize by subject."""
    if "subject" not in metafunc.fixturenames:
        return
    default = "all" if os.environ.get("CI") == "true" else "memory"
    asked = metafunc.config.getoption("--docs-on", default="") or default
    subjects = SUBJECTS if asked == "all" else asked.split(",")
    metafunc.parametrize("subject", subjects, indirect=True)


@pytest.fixture
def subject(request: pytest.FixtureRequest) -> Iterator[str]:
    """What ``memory://`` stands for in this test; its servers run."""
    name: str = request.param
    if name == "memory":
        yield name
        return
    assert name in SUBJECTS, f"{name} is none of {SUBJECTS}"
    topology = running.get(name)  # type: ignore[call-overload]  # one of the kinds, as was checked
    topology.heal()
    with opened_on(topology.url):
        yield name
