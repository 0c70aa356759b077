"""What the machine did while a test ran.

A bound of seconds can be broken by the code, or by a machine that stood still. ``Weather`` says
which, of a test that failed: how long the threads of this process were ready and waited for a
processor, for how long somebody waited for a disk, and whether the network lost anything.
``Stopwatch`` measures what a bound is meant for: the time that the code took or slept.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import attrs

__all__ = ["Stopwatch", "Weather"]

_COUNTED = (
    "TCPSynRetrans",  # the first one costs a second
    "TCPTimeouts",
    "RetransSegs",
    "ListenOverflows",
    "ListenDrops",
)


def _in_line(processes: Iterable[int | str] = ("self",)) -> dict[str, float]:
    """Seconds that each thread of these processes has waited for a processor, while ready."""
    waited = {}
    for process in processes:
        for path in Path(f"/proc/{process}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended since
                waited[path.parent.name] = int(path.read_text().split()[1]) / 1e9
    return waited


def _stolen() -> float:
    """Seconds for which a host gave this machine's processors to others, all together."""
    with suppress(OSError, IndexError):  # a kernel without it
        ticks = Path("/proc/stat").read_text().split(maxsplit=9)[8]
        return int(ticks) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Stopwatch:
    """Started as it is made.

    Args:
        processes: The servers that are waited for, by process id, besides this process.
    """

    def __init__(self, processes: Iterable[int] = ()) -> None:
        self._processes: tuple[int | str, ...] = ("self", *processes)
        self._in_line, self._stolen = _in_line(self._processes), _stolen()
        self._began = time.monotonic()

    def passed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    def own(self) -> float:
        """The same, less ``in_line()``.

        On a machine that has one free it is the time that passed. On a busy one it is less than
        the code took, by what several threads waited at once. What the code sleeps, or waits for
        an event, is never taken off: who does that is not in line.
        """
        return self.passed() - self.in_line()

    def in_line(self) -> float:
        """Seconds that threads of ours spent in line for a processor since, all together.

        With those in which a processor was there in name only, since a host had it.
        """
        now = _in_line(self._processes)
        waited = sum(now[thread] - self._in_line.get(thread, 0.0) for thread in now)
        return waited + _stolen() - self._stolen


def _pressure() -> Iterator[tuple[str, float]]:
    """Seconds for which somebody (some), or everybody (full), waited for a resource."""
    for resource in ("cpu", "io", "memory"):
        with suppress(OSError):  # a kernel without it
            for line in Path("/proc/pressure", resource).read_text().splitlines():
                kind, *figures = line.split()
                total = int(figures[-1].removeprefix("total="))
                yield f"{resource}, {kind}", total / 1e6


def _network() -> Iterator[tuple[str, float]]:
    """What the kernel counts of connections that had trouble."""
    for name in ("netstat", "snmp"):
        with suppress(OSError):
            lines = Path("/proc/net", name).read_text().splitlines()
            for names, values in zip(lines[::2], lines[1::2], strict=True):
                for known, value in zip(names.split(), values.split(), strict=True):
                    if known in _COUNTED:
                        yield known, int(value)


@attrs.frozen
class Weather:
    """The figures of a moment."""

    at: float = attrs.field(factory=time.monotonic)
    in_line: float = attrs.field(factory=lambda: sum(_in_line().values()))
    stolen: float = attrs.field(factory=_stolen)
    pressure: dict[str, float] = attrs.field(factory=lambda: dict(_pressure()))
    network: dict[str, float] = attrs.field(factory=lambda: dict(_network()))

    def since(self, before: Weather) -> str:
        """What happened between the two moments, in words."""
        passed = self.at - before.at
        waits = ", ".join(
            f"{name} {seconds - before.pressure[name]:.2f} s"
            for name, seconds in self.pressure.items()
            if name in before.pressure
        )
        troubles = ", ".join(
            f"{name} {count - before.network[name]:.0f}"
            for name, count in self.network.items()
            if count != before.network.get(name, count)
        )
        return (
            f"in {passed:.2f} s; threads of this process waited {self.in_line - before.in_line:.2f}"
            f" s for a processor, which a host had for {self.stolen - before.stolen:.2f} s; on the"
            f" machine, waits for: {waits or 'unknown'};\n"
            f"connections in trouble: {troubles or 'none'}"
        )
