"""Running the scripts: by their SHA-1, loaded where they are not known, some times in one call."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from leanmq.backends.streams import refusals
from leanmq.backends.streams.calls import (
    Call,
    Command,
    Many,
    Outcome,
    Outcomes,
    Reply,
    Wait,
    is_unknown_script,
)
from leanmq.backends.streams.scripts import Script
from leanmq.errors import LeanMQError

__all__ = ["Operation", "Run", "run_script", "run_scripts"]

T = TypeVar("T")
Operation: TypeAlias = Generator["Call | Many | Wait", Any, T]

Run: TypeAlias = "tuple[tuple[str, ...], Command]"
"""The keys and the arguments of a script."""

_CHUNK: Final = 500
"""Runs that are written at once; see ``pipelines``."""


def run_script(
    code: Script,
    keys: tuple[str, ...],
    arguments: Command,
    *,
    queue: str = "",
    idempotent: bool = True,
    wakes: tuple[str, ...] = (),
) -> Operation[Reply]:
    """Run a script once; its error is raised."""
    [outcome] = yield from run_scripts(
        code, ((keys, arguments),), idempotent=idempotent, wakes=wakes
    )
    return refusals.value(outcome, queue)


def run_scripts(
    code: Script,
    runs: Sequence[Run],
    *,
    idempotent: bool = True,
    wakes: tuple[str, ...] = (),
) -> Operation[Outcomes]:
    """Run a script by its SHA-1, some times in one call; load it first where it is not known."""
    if len(runs) <= _CHUNK:
        return (yield from _run(code, runs, idempotent, wakes))
    outcomes: list[Outcome] = []
    for at in range(0, len(runs), _CHUNK):
        outcomes += yield from _run(code, runs[at : at + _CHUNK], idempotent, wakes)
        last = outcomes[-1]
        if isinstance(last, LeanMQError) and not last.code:  # each chunk would wait as long
            return [*outcomes, *[last] * (len(runs) - len(outcomes))]
    return outcomes


def _run(
    code: Script, runs: Sequence[Run], idempotent: bool, wakes: tuple[str, ...]
) -> Operation[Outcomes]:
    if not runs:
        return ()
    slot = runs[0][0][0]
    by_sha: list[Command] = [
        ("EVALSHA", code.sha, len(keys), *keys, *arguments) for keys, arguments in runs
    ]
    outcomes: Outcomes = yield Call(tuple(by_sha), slot, idempotent, wakes=wakes)
    if not (unknown := _unknown(outcomes)):
        return outcomes
    load: Command = ("SCRIPT", "LOAD", code.text)
    commands = (load, *[by_sha[place] for place in unknown])
    again: Outcomes = yield Call(commands, slot, idempotent, wakes=wakes)
    outcomes = list(outcomes)
    for place, outcome in zip(unknown, again[1:], strict=True):
        outcomes[place] = outcome
    if unknown := _unknown(outcomes):
        # The slot is moving: its keys, and so the call, are sent on to a node that the load,
        # which names no key, does not reach. The text itself does.
        commands = tuple([("EVAL", code.text, *by_sha[place][2:]) for place in unknown])
        again = yield Call(commands, slot, idempotent, wakes=wakes)
        for place, outcome in zip(unknown, again, strict=True):
            outcomes[place] = outcome
    return outcomes


def _unknown(outcomes: Outcomes) -> list[int]:
    """Which runs found no script."""
    return [place for place, outcome in enumerate(outcomes) if is_unknown_script(outcome)]
