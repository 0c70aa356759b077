"""The tests that ``docs/testing.md`` shows run as tests, with the plugin."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import examples
from tests.testing.conftest import ASYNCIO, RunTests

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


def test_the_tests_on_the_page_pass(run_tests: RunTests) -> None:
    code = ""
    for example in examples(PAGE.read_text("utf-8")):
        # Empty lines before it, so that a traceback tells the line of the page.
        code += "\n" * (example.line - 1 - code.count("\n")) + example.code
    written = len(re.findall(r"^(?:async )?def test_", code, re.MULTILINE))

    result = run_tests(code, *ASYNCIO)

    assert written > 8
    result.assert_outcomes(passed=written)


def test_the_failure_on_the_page_is_what_people_see(run_tests: RunTests) -> None:
    [shown] = re.findall(r"```\n(AssertionError.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

    result = run_tests(
        """
        from leanmq.testing import assert_sent

        def test_milk(leanmq):
            orders = leanmq.queue("orders")
            orders.send_messages([{"item": item, "count": 1} for item in ("tea", "coffee")])
            assert_sent(orders, {"item": "milk"})
        """
    )

    result.assert_outcomes(failed=1)
    seen = [line.removeprefix("E").strip() for line in result.outlines if line.startswith("E ")]
    assert seen == [line.strip() for line in shown.splitlines()]
    # The test's own line is shown, none of ours.
    assert not [line for line in result.outlines if "sent.py" in line]
