"""Plugins that tests ask for; pytest wants them named at the top."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.weather import Weather

pytest_plugins = ["pytester"]

_BEFORE = pytest.StashKey[Weather]()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note what the machine is like."""
    item.stash[_BEFORE] = Weather()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that failed, tell what the machine did since."""
    report = yield
    if report.failed and _BEFORE in item.stash:
        report.sections.append(("Machine meanwhile", Weather().since(item.stash[_BEFORE])))
    return report
