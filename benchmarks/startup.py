"""How long the command line takes to start: `--help` is to be there within 150 ms.

    python -m benchmarks.startup

What takes the time is told by ``python -X importtime -m leanmq --help``.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 20
COMMANDS = {
    "python alone": ["-c", "pass"],
    "import leanmq": ["-c", "import leanmq"],
    "import leanmq, used": ["-c", "import leanmq; leanmq.LeanMQ"],
    "leanmq --help": ["-m", "leanmq", "--help"],
    "leanmq send --help": ["-m", "leanmq", "send", "--help"],
    "leanmq url": ["-m", "leanmq", "url", "redis://localhost"],
}


def milliseconds(arguments: list[str]) -> float:
    """How long one run of the interpreter takes."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Print the best and the median of each."""
    print(f"milliseconds, of {RUNS} runs       best  median")
    for name, arguments in COMMANDS.items():
        times = [milliseconds(arguments) for _ in range(RUNS)]
        print(f"{name:<30} {min(times):5.0f} {statistics.median(times):7.0f}")


if __name__ == "__main__":
    main()
