"""What the machine did while a test ran: told of one that failed.

A bound of seconds can be broken by the code, or by a machine that stood still. This says which:
how long the threads of this process were ready and waited for a processor, for how long
somebody waited for a disk, and whether the network lost anything.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import attrs

__all__ = ["Weather"]

_COUNTED = (
    "TCPSynRetrans",  # the first one costs a second
    "TCPTimeouts",
    "RetransSegs",
    "ListenOverflows",
    "ListenDrops",
)


def _seconds_in_line() -> float:
    """Seconds that the threads of this process have waited for a processor, all together."""
    nanoseconds = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(OSError):  # it has ended since
            nanoseconds += int(path.read_text().split()[1])
    return nanoseconds / 1e9


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
    in_line: float = attrs.field(factory=_seconds_in_line)
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
            f" s for a processor; on the machine, waits for: {waits or 'unknown'};\n"
            f"connections in trouble: {troubles or 'none'}"
        )
