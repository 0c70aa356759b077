"""What the type checker tells users of the queue API and writers of backends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TYPING = ROOT / "tests" / "typing"


def mypy(path: Path) -> tuple[int, str]:
    """What mypy --strict says of one file."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout + done.stderr


def test_user_code_is_accepted_without_an_ignore() -> None:
    path = TYPING / "accepted.py"

    assert mypy(path) == (0, "")
    assert "ignore" not in path.read_text("utf-8")


def test_what_is_wrong_is_rejected_where_it_is_wrong() -> None:
    path = TYPING / "rejected" / "wrong_backend.py"
    expected = {
        (number, found[1])
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (found := re.search(r"# expect: ([\w-]+)$", line))
    }

    _, said = mypy(path)

    found_errors = re.findall(r"^[^:\n]+:(\d+): error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    assert {(int(number), code) for number, code in found_errors} == expected, said
    assert len(expected) == 10
