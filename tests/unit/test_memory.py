"""The server of ``memory://``: one for all threads of its process."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from leanmq.backends import memory


def test_threads_that_connect_first_and_at_once_see_the_same_server() -> None:
    # fakeredis makes a server's database at its first connection, without a lock: two threads
    # that are both the first had one each, and what one sent the other never saw.
    threads = 8
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(threads) as pool:
            for _ in range(100):
                server = memory.MemoryServer()
                start = threading.Barrier(threads)

                def count(
                    server: memory.MemoryServer = server, start: threading.Barrier = start
                ) -> Any:
                    start.wait()
                    return server.execute("INCR", "key")

                seen = [future.result() for future in [pool.submit(count) for _ in range(threads)]]
                assert sorted(seen) == list(range(1, threads + 1))
    finally:
        sys.setswitchinterval(before)
