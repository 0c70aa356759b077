"""``leanmq`` in a process of its own, on a terminal of its own (a pty)."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

__all__ = ["PROGRAM", "ROOT", "Terminal", "environment", "on_terminal"]

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "leanmq")
PATIENCE = 60.0  # seconds


class Terminal:
    """A program on a terminal, and what it wrote there: stdout and stderr alike."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self.text = ""

    def type(self, text: str) -> None:
        """Type something; ``\\x03`` is Ctrl-C."""
        os.write(self._master, text.encode())

    def interrupt(self) -> int:
        """Press Ctrl-C until the program ends; returns its status.

        More than once: Python misses one that comes just before it waits for a line.
        """
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(3)
                return self.end()
        raise AssertionError(f"Ctrl-C does not end the program, which wrote {self.text!r}")

    def wait_for(self, words: str) -> None:
        """Wait until these words were written."""
        ends = time.monotonic() + PATIENCE
        while words not in self.text:
            assert self._read(ends), f"no {words!r} in {self.text!r}"

    def end(self) -> int:
        """Wait for the end of the program; returns its status."""
        ends = time.monotonic() + PATIENCE
        while self._read(ends):
            pass
        return self.process.wait(max(0.0, ends - time.monotonic()))

    def _read(self, ends: float) -> bool:
        """Read what comes next; false at the end."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, ends - time.monotonic()))
        assert ready, f"the program does not end, and wrote {self.text!r}"
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # Linux: the other side was closed
            return False
        self.text += chunk.decode("utf-8", "replace")
        return bool(chunk)


def environment(**variables: str) -> dict[str, str]:
    """The environment of this process, LeanMQ not configured but by these variables."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LEANMQ_", "NO_COLOR", "FORCE_COLOR")) and name != "REDIS_URL"
    }
    return {**kept, "TERM": "xterm-256color", **variables}


@contextmanager
def on_terminal(
    *arguments: str,
    program: Sequence[str] = PROGRAM,
    variables: Mapping[str, str] | None = None,
    stdin: IO[bytes] | None = None,
    columns: int = 100,
) -> Iterator[Terminal]:
    """Run ``leanmq`` on a terminal, killed at the end of the block if it still runs."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (40, columns))
    try:
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=ROOT,
            env=environment(**(variables or {})),
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            # The terminal is to be the process's own: Ctrl-C goes to whom it belongs to.
            preexec_fn=lambda: _take_terminal(slave),
        )
    finally:
        os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def _take_terminal(slave: int) -> None:
    import fcntl

    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
