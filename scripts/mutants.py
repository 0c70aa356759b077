"""Whether the contract can fail: break one thing at a time, and count the tests that notice.

The mutants are in ``tests/mutants/mutants.toml``. Each is applied to a copy of the checkout of
its own, so nothing here ever changes; a mutant that no test notices is a hole in the contract.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import attrs

__all__ = ["Edit", "Mutant", "Verdict", "files_of", "load", "main"]

ROOT: Final = Path(__file__).parents[1]
MEMORY: Final = "memory-sync or memory-asyncio"
# Enough to be sure, and a mutant that makes every test wait is over soon.
ENOUGH: Final = 3
# Tests that find nothing that a quicker one does not find.
SLOW: Final = "twenty_seeds"
SUBJECT: Final = (
    "((?:hash-|round-)?(?:memory|redis|sentinel|cluster)|pass-through)(?:-(sync|asyncio))?"
)
ROUTERS: Final = "(hash-memory or round-memory or hash-redis or round-redis or hash-cluster)"


@attrs.frozen
class Edit:
    """Text that a file holds exactly once, and what stands there instead."""

    file: str
    find: str
    replace: str


@attrs.frozen
class Mutant:
    """One thing broken.

    Attributes:
        name: What breaks, in a few words.
        why: What its users would see.
        edits: What is replaced.
        first: The file of the contract that runs first, since it should notice soonest.
        tests: Which tests run, as pytest's ``-k`` has it.
    """

    name: str
    why: str
    edits: tuple[Edit, ...]
    first: str
    tests: str = MEMORY

    def mutated(self, root: Path) -> dict[str, str]:
        """The broken files: name and text.

        Raises:
            ValueError: if a text to replace is not in its file exactly once.
        """
        texts: dict[str, str] = {}
        for edit in self.edits:
            text = texts.get(edit.file) or (root / edit.file).read_text("utf-8")
            times = text.count(edit.find)
            if times != 1:
                raise ValueError(
                    f"mutant {self.name!r}: {edit.file} holds this text {times} times, not once; "
                    f"mend tests/mutants/mutants.toml:\n{edit.find}"
                )
            texts[edit.file] = text.replace(edit.find, edit.replace)
        return texts


@attrs.frozen
class Verdict:
    """What the tests said: how many ran and failed, in how many seconds, and their words."""

    ran: int
    failed: int
    seconds: float
    output: str


def load(root: Path) -> list[Mutant]:
    """All mutants."""
    with (root / "tests" / "mutants" / "mutants.toml").open("rb") as file:
        entries = tomllib.load(file)["mutant"]
    return [
        Mutant(edits=tuple(Edit(**edit) for edit in entry.pop("edit")), **entry)
        for entry in entries
    ]


def files_of(root: Path) -> list[str]:
    """The files of a checkout: in git, or new and not ignored."""
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    names = told.stdout.decode().split("\0")
    return sorted({name for name in names if name and (root / name).is_file()})


def narrowed(expression: str) -> str:
    """The tests without those on routers, unless these are named.

    A part of a name is enough for -k, and "memory-sync" is in "hash-memory-sync", too.
    """
    named = re.search("hash-|round-", expression)
    return f"({expression})" if named else f"(({expression}) and not {ROUTERS})"


def subjects_of(expression: str) -> str:
    """The subjects that an expression names: no others are collected, which takes seconds."""
    found = re.findall(SUBJECT, expression)
    worlds = ("sync", "asyncio")
    pairs = {
        f"{subject}-{one}" for subject, world in found for one in ((world,) if world else worlds)
    }
    return ",".join(sorted(pairs))


def judge(mutant: Mutant | None, expression: str, enough: int) -> Verdict:
    """Run the contract on a copy, with the mutant in it if there is one."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="leanmq-mutant-") as folder:
        copy = Path(folder, "checkout")
        for name in files_of(ROOT):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
        if mutant is not None:
            for name, text in mutant.mutated(copy).items():
                (copy / name).write_text(text, "utf-8")
        files = sorted(
            str(path.relative_to(copy)) for path in copy.glob("tests/contract/test_*.py")
        )
        rounds = [files]
        if mutant is not None and enough < sys.maxsize:
            # Mostly one file is enough, and to collect all of them takes longer than to run it.
            rounds = [[f"tests/contract/{mutant.first}"], files]
        for some in rounds:
            ran, failed, output = _run(copy, some, expression, enough)
            if failed:
                break
    return Verdict(ran, failed, time.monotonic() - began, output)


def _run(copy: Path, files: list[str], expression: str, enough: int) -> tuple[int, int, str]:
    """Run some files of the contract in a copy: how many ran and failed, and what was said."""
    report = copy.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *files, "-q", "--no-header"]
    command += ["-k", f"({expression}) and not {SLOW}", f"--maxfail={enough}"]
    command += [f"--subjects={subjects_of(expression.replace(ROUTERS, ''))}"]
    command += ["--timeout=60", f"--junitxml={report}", "-p", "no:cacheprovider"]
    command += ["-p", "no:randomly"]  # one figure for one state of the code
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    return *_counts(report), done.stdout + done.stderr


def _counts(report: Path) -> tuple[int, int]:
    """How many tests ran and failed; none if pytest did not come to its end."""
    if not report.exists():
        return 0, 0
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    rows = [
        [int(suite.get(name, "0")) for name in ("tests", "failures", "errors")] for suite in suites
    ]
    return sum(row[0] for row in rows), sum(row[1] + row[2] for row in rows)


def _imports_the_copy() -> bool:
    """Whether a test run in a copy would import that copy's leanmq, not an installed one."""
    with tempfile.TemporaryDirectory(prefix="leanmq-mutant-") as folder:
        package = Path(folder).resolve() / "leanmq"
        package.mkdir()
        (package / "__init__.py").touch()
        told = subprocess.run(
            [sys.executable, "-c", "import leanmq; print(leanmq.__file__)"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return Path(told.stdout.strip()).is_relative_to(package)


def _commit() -> int:
    """The number of the commit that is checked out: as good as drawn by lot."""
    told = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(told.stdout, 16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all mutants, or those whose name holds one of the words given."""
    parser = argparse.ArgumentParser(prog="mutants", description=__doc__)
    parser.add_argument("words", nargs="*", help="only mutants whose name holds one of these")
    parser.add_argument("--jobs", type=int, default=3, help="how many run at a time")
    parser.add_argument("--all", action="store_true", help="count all failures, do not stop early")
    parser.add_argument(
        "--known-green", action="store_true", help="the code as it is was tested just now"
    )
    parser.add_argument(
        "--share",
        type=int,
        default=1,
        metavar="N",
        help="only every Nth; which ones depends on the commit, so that each has its turn",
    )
    parser.add_argument("--verbose", action="store_true", help="show what the tests said")
    options = parser.parse_args(arguments)
    if options.share < 1:
        parser.error("--share: 1 is all of them, 3 a third")

    mutants = load(ROOT)
    chosen = [m for m in mutants if not options.words or any(w in m.name for w in options.words)]
    if options.share > 1:
        chosen = chosen[_commit() % options.share :: options.share]
    for mutant in mutants:
        mutant.mutated(ROOT)  # all of them still apply, or nothing runs
    if not _imports_the_copy():
        print("mutants: a copy would be tested with another leanmq than its own", file=sys.stderr)
        return 1
    beside = "" if options.known_green else ", and the code as it is"
    print(f"mutants: {len(chosen)} of {len(mutants)}{beside}", flush=True)

    began = time.monotonic()
    enough = sys.maxsize if options.all else ENOUGH
    expressions = sorted({narrowed(mutant.tests) for mutant in chosen})
    with ThreadPoolExecutor(max_workers=options.jobs) as pool:
        expression = " or ".join(expressions)
        healthy = None if options.known_green else pool.submit(judge, None, expression, 1)
        verdicts = pool.map(lambda mutant: judge(mutant, narrowed(mutant.tests), enough), chosen)
        survivors = []
        for mutant, verdict in zip(chosen, verdicts, strict=True):
            caught = f"{verdict.failed}{'+' if verdict.failed >= enough else ''}"
            if not verdict.failed:
                survivors.append(mutant)
            print(f"{caught:>4} failed in {verdict.seconds:5.1f} s  {mutant.name}", flush=True)
            if options.verbose or not verdict.failed:
                print(verdict.output, flush=True)
    green, said = True, "was not tested"
    if healthy is not None:
        verdict = healthy.result()
        green = verdict.ran > 0 and not verdict.failed
        said = "is green" if green else "FAILS"
        print(f"{verdict.failed:>4} failed of {verdict.ran} in {verdict.seconds:5.1f} s  as it is")
        if not green:
            print(verdict.output)
    for mutant in survivors:
        print(f"SURVIVED: {mutant.name}. {mutant.why}")
    print(
        f"mutants: {len(chosen) - len(survivors)} caught, {len(survivors)} survived, the code as "
        f"it is {said}, {time.monotonic() - began:.0f} s"
    )
    return 1 if survivors or not green or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
