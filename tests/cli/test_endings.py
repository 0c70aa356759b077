"""How a run ends: exit statuses, one line of error, help, and what is loaded for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from leanmq import BackendError, LeanMQ
from leanmq.cli import root
from leanmq.cli.lazy import Command, Group
from leanmq.cli.text import to_json
from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
EVERY = """
    demo; queues; queues list; queues info; queues watch; send; peek; purge;
    dlq; dlq list; dlq show; dlq requeue; dlq purge; shards; shards show;
    shards plan; shards readmit; url; config; ping
"""
EVERY_COMMAND = [path.strip() for path in EVERY.split(";")]


def command_of(path: str) -> click.Command:
    """The command of this path."""
    found: click.Command = root.leanmq
    for name in path.split():
        assert isinstance(found, click.Group)
        inner = found.get_command(click.Context(found), name)
        assert inner is not None
        found = inner
    return found


@pytest.mark.parametrize("path", EVERY_COMMAND)
def test_every_command_has_help_and_the_shared_options(bare: Run, path: str) -> None:
    result = bare(*path.split(), "--help")

    assert result.exit_code == 0
    assert isinstance(command_of(path), Command | Group)
    for option in ("--url", "--config", "--prefix", "--deadline", "--json"):
        assert option in result.stdout


def test_the_list_of_commands_is_complete() -> None:
    found = []
    for name, member in root.MEMBERS.items():
        command = command_of(name)
        assert command.name == name
        assert member.summary.endswith(".")
        found += [name]
        if isinstance(command, click.Group):
            found += [f"{name} {inner}" for inner in command.commands]

    assert sorted(found) == sorted(EVERY_COMMAND)


@pytest.mark.parametrize("path", EVERY_COMMAND)
def test_every_option_has_a_variable_and_says_so(path: str) -> None:
    for param in command_of(path).params:
        if isinstance(param, click.Option):
            assert param.show_envvar or "[env var: LEANMQ_" in (param.help or ""), param.name


@pytest.mark.parametrize("arguments", [["--help"], [], ["-h"]])
def test_help_tells_exit_statuses_and_variables(bare: Run, arguments: list[str]) -> None:
    result = bare(*arguments)

    assert result.exit_code == 0
    assert "Exit status: 0 all is well; 1 it failed; 2 wrong usage" in result.stdout
    assert "LEANMQ_SEND_TTL" in result.stdout


def test_the_version_is_told(bare: Run) -> None:
    from leanmq import __version__

    assert bare("--version").stdout == f"leanmq {__version__}\n"


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a run with these arguments."""
    code = (
        "import sys\n"
        "from leanmq.cli import main\n"
        f"assert main({list(arguments)!r}) == 0\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["send", "--help"], ["demo", "--help"]])
def test_help_loads_nothing_that_it_does_not_need(arguments: list[str]) -> None:
    modules = loaded_by(*arguments)

    assert not {"redis", "fakeredis", "rich", "attr", "msgspec", "asyncio"} & modules
    commands = {f"leanmq.cli.{name}" for name in root.MEMBERS} & modules
    assert commands <= {f"leanmq.cli.{arguments[0]}", "leanmq.cli.queues"}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["quues"], "no command 'quues': did you mean 'queues'?; see 'leanmq --help'"),
        (["dlq", "shw"], "no command 'shw': did you mean 'show'?; see 'leanmq dlq --help'"),
        (["ping", "--jsno"], "No such option"),
        (["redis://ann:hunter2@h"], "no command 'redis://ann:***@h'"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_cure(
    bare: Run, arguments: list[str], error: str
) -> None:
    result = bare(*arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith("leanmq: error: ")
    assert error in result.stderr
    assert result.stderr.count("\n") == 1
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("raised", "status", "told"),
    [
        (BackendError("odd\nreply of redis://u:hunter2@h \x1b[2J"), 1,
         "odd reply of redis://u:***@h \\u001b[2J"),
        (RuntimeError("redis://u:hunter2@h"), 1, "this should not happen, please report it"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
    ],
    ids=repr,
)  # fmt: skip
def test_what_a_command_raises_becomes_a_status_and_a_line(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    raised: BaseException,
    status: int,
    told: str,
) -> None:
    def fail(self: LeanMQ) -> None:
        raise raised

    monkeypatch.setattr(LeanMQ, "ping", fail)
    result = run("ping")

    assert result.exit_code == status
    assert result.stdout == ""
    assert "hunter2" not in result.stderr
    assert "Traceback" not in result.stderr
    if told:
        assert result.stderr.startswith(f"leanmq: error: {told}")
    else:
        assert result.stderr.strip() == ""


def test_a_traceback_is_shown_to_who_asks_for_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: LeanMQ) -> None:
        raise RuntimeError("redis://u:hunter2@h")

    monkeypatch.setattr(LeanMQ, "ping", fail)
    result = run("ping", LEANMQ_TRACEBACK="1")

    assert "Traceback (most recent call last)" in result.stderr
    assert "hunter2" not in result.stderr


def test_json_is_ascii_without_control_characters_and_without_what_is_no_number() -> None:
    line = to_json({"a": [float("nan"), {"b": float("inf")}, (1.5,)], "c": "\x7f\x9b\n\u202e"})

    assert line == '{"a": [null, {"b": null}, [1.5]], "c": "\\u007f\\u009b\\n\\u202e"}'
