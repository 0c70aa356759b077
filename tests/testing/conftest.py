"""Runs small test files of users, in a pytest of their own that has loaded the plugin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

import leanmq

ROOT = Path(leanmq.__file__).parents[1]

ASYNCIO = ("-ppytest_asyncio.plugin", "-oasyncio_default_fixture_loop_scope=function")
"""Options that load pytest-asyncio, in strict mode."""

RunTests = Callable[..., pytest.RunResult]


@pytest.fixture
def run_tests(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> RunTests:
    """Run the text of a test file, with our plugin and those that the options name.

    None is loaded by itself, so that it does not matter which are installed here. Every warning
    is an error.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_shop=dedent(text))
        ours = ("-pleanmq.testing.plugin", "-Werror", "-ra")
        return pytester.runpytest_subprocess(*ours, *options, timeout=60)

    return run
