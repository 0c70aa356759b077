"""The fixtures, as users have them: in test files of their own, in any order, in parallel."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import leanmq.testing
from tests.testing.conftest import ASYNCIO, ROOT, RunTests


def test_the_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    # As pip writes it: which of our own versions is installed here does not matter.
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [(name, module)] = project["entry-points"]["pytest11"].items()
    folder = tmp_path / "leanmq_told-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: leanmq-told\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(f"[pytest11]\n{name} = {module}\n")

    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", name, "--fixtures", "-q", str(tmp_path)],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout

    for fixture in ("leanmq", "async_leanmq", "leanmq_url", "leanmq_clock"):
        assert f"\n{fixture} -- " in told


def test_loading_the_plugin_loads_nothing_heavy() -> None:
    heavy = "{'redis', 'fakeredis', 'hiredis', 'click', 'rich', 'lupa', 'time_machine'}"
    code = f"import leanmq.testing.plugin, sys; print(*({heavy} & set(sys.modules)))"

    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert told.stdout.split() == []


def test_the_helpers_do_without_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import leanmq.testing as t; print(*t.__all__)"

    told = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert told.stdout.split() == sorted(leanmq.testing.__all__)


def test_the_package_exports_exactly_what_it_says() -> None:
    exported = {
        name
        for name, value in vars(leanmq.testing).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert sorted(exported) == leanmq.testing.__all__


SHOP = """
    import pytest
    from leanmq import CrossSlotTransactionError, LeanMQ

    @pytest.mark.parametrize("run", range(4))
    def test_queues_are_empty_at_first(leanmq, run):
        orders = leanmq.queue("orders")
        assert orders.get_messages() == []
        orders.send_message(run)
        assert [message.data for message in orders.get_messages()] == [run]

    def test_transactions_are_as_strict_as_on_a_cluster(leanmq):
        with pytest.raises(CrossSlotTransactionError), leanmq.transaction() as tx:
            tx.send_message("orders", 1)
            tx.send_message("mails", 1)

    def take_orders(item):
        with LeanMQ.from_env() as mq:
            mq.queue("orders").send_message(item)

    @pytest.mark.parametrize("item", range(4))
    def test_code_that_opens_its_own_client(leanmq_url, item):
        take_orders(item)

        assert leanmq_url.endswith("?slots=strict")
        with LeanMQ(leanmq_url) as mq:
            assert [message.data for message in mq.queue("orders").get_messages()] == [item]
"""


@pytest.mark.parametrize("seed", [1, 2])
def test_tests_have_queues_of_their_own_in_any_order(
    run_tests: RunTests, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setenv("LEANMQ_CONFIG", "/nowhere/leanmq.toml")
    monkeypatch.setenv("LEANMQ_PREFIX", "machine:")

    result = run_tests(SHOP, "-ppytest_randomly", f"--randomly-seed={seed}")

    result.assert_outcomes(passed=9)


def test_tests_have_queues_of_their_own_in_parallel(run_tests: RunTests) -> None:
    run_tests(SHOP, "-pxdist", "-n2").assert_outcomes(passed=9)


def test_a_client_that_a_test_left_open_does_no_harm_to_the_next(run_tests: RunTests) -> None:
    result = run_tests(
        """
        import pytest
        from leanmq import LeanMQ

        left_open = []

        @pytest.mark.parametrize("run", range(2))
        def test_orders(leanmq_url, run):
            mq = LeanMQ(leanmq_url)
            left_open.append(mq)
            mq.queue("orders").send_message(run)
            assert mq.queue("orders").get_info().message_count == 1
        """
    )

    result.assert_outcomes(passed=2)


def test_after_the_test_client_queues_and_url_are_gone(run_tests: RunTests) -> None:
    result = run_tests(
        """
        import os
        import pytest
        from leanmq import ClosedError, LeanMQ

        kept = []

        def test_first(leanmq, async_leanmq, leanmq_url):
            with LeanMQ(leanmq_url) as mq:
                mq.queue("orders").send_message("tea")
            kept.extend([leanmq, async_leanmq, leanmq_url])

        def test_second():
            mq, async_mq, url = kept
            with pytest.raises(ClosedError):
                mq.queue("orders")
            with pytest.raises(ClosedError):
                async_mq.queue("orders")
            assert "LEANMQ_URL" not in os.environ
            with LeanMQ(url) as fresh:
                assert fresh.list_queues() == []
        """
    )

    result.assert_outcomes(passed=2)


IN_A_TASK = """
    async def test_orders(async_leanmq):
        orders = async_leanmq.queue("orders")
        waiting = asyncio.create_task(orders.get_messages(timeout=30))
        await asyncio.sleep(0)
        await orders.send_message("tea")
        assert [message.data for message in await waiting] == ["tea"]

        still = asyncio.create_task(orders.get_messages(timeout=30))  # ended with its loop
        await asyncio.sleep(0)
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_asyncio_fixture_works_with_pytest_asyncio(run_tests: RunTests, mode: str) -> None:
    marked = "import asyncio, pytest\n" + (mode == "strict") * "pytestmark = pytest.mark.asyncio\n"

    result = run_tests(f"{marked}{_dedented(IN_A_TASK)}", *ASYNCIO, f"--asyncio-mode={mode}")

    result.assert_outcomes(passed=1)


def test_the_asyncio_fixture_works_with_anyio(run_tests: RunTests) -> None:
    pytest.importorskip("anyio")
    marked = """
import asyncio, pytest
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

    result = run_tests(f"{marked}{_dedented(IN_A_TASK)}", "-panyio.pytest_plugin")

    result.assert_outcomes(passed=1)


def test_the_asyncio_fixture_works_with_asyncio_alone(run_tests: RunTests) -> None:
    result = run_tests(
        f"""
import asyncio
{_dedented(IN_A_TASK).replace("test_orders", "orders")}

def test_orders(async_leanmq):
    asyncio.run(orders(async_leanmq))
"""
    )

    result.assert_outcomes(passed=1)


CLOCK = """
    import time

    def test_a_delay_passes(leanmq, leanmq_clock):
        orders = leanmq.queue("orders")
        orders.send_message("tea", delay=3600)
        assert orders.get_messages() == []
        leanmq_clock.advance(3600)
        assert [message.data for message in orders.get_messages()] == ["tea"]
"""


def test_the_clock_is_right_again_after_the_test(run_tests: RunTests) -> None:
    text = f"""
        {CLOCK}
    began = time.time()

    def test_the_time():
        assert 0 <= time.time() - began < 600
    """

    run_tests(text, "-pno:randomly").assert_outcomes(passed=2)


def test_without_time_machine_the_clock_says_what_to_install(run_tests: RunTests) -> None:
    text = f"""
    import sys
    sys.modules["time_machine"] = None
    {CLOCK}
    """

    result = run_tests(text)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["E*ImportError: *: pip install 'leanmq[[]testing]'"])


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.splitlines())
