"""The backend on the page for those who write one passes the contract: it is a true model."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

CONTRACT = ROOT / "tests" / "contract"
MAIN = ("queue", "sending", "dead_letters", "transactions", "redrive", "looking")


@pytest.mark.timeout(600)
def test_the_backend_on_the_page_passes_the_contract() -> None:
    """All of it in CI, the main operations elsewhere."""
    everything = os.environ.get("CI") == "true"
    files = [CONTRACT] if everything else [CONTRACT / f"test_{name}.py" for name in MAIN]

    outcome = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--subjects=documented-sync", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert outcome.returncode == 0, outcome.stdout[-5_000:] + outcome.stderr
    passed = re.search(r"^(\d+) passed", outcome.stdout, re.MULTILINE)
    assert passed, outcome.stdout
    assert int(passed[1]) > (300 if everything else 100)
    assert "skipped" not in outcome.stdout
