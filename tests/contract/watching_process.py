"""A process that forks while it listens for wake-ups.

``python -m tests.contract.watching_process WORLD URL PREFIX`` prints ``child`` for each child that
was woken by itself, ``parent`` when the parent still is, and ``done``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from leanmq.backends.many import Watch
from leanmq.backends.protocol import (
    Declare,
    Exchange,
    NewMessage,
    QueueRef,
    Receive,
    SendBatch,
    Settings,
)
from leanmq.backends.registry import Options, open_async_backend, open_backend

REFS = [QueueRef(f"orders#{n}") for n in range(6)]


class Watcher:
    """A backend of either world; its methods return, or are awaited by ``run``."""

    def __init__(self, world: str, url: str, prefix: str) -> None:
        kind: Any = open_backend if world == "sync" else open_async_backend
        self._backend = kind(url, None, Options(prefix=prefix))
        self._sync = world == "sync"

    async def ask(self, method: str, *request: Any) -> Any:
        answer = getattr(self._backend, method)(*request)
        return answer if self._sync else await answer

    async def quiet(self, *, within: float = 10.0) -> list[tuple[QueueRef, str]]:
        """Marks of which all are listened to."""
        ends = time.monotonic() + within
        while time.monotonic() < ends:
            looks = [Exchange((), (Receive(ref, "me", 0, watched=True),)) for ref in REFS]
            results: Sequence[Any] = await self.ask("together", looks)
            marks = [(ref, result.mark) for ref, result in zip(REFS, results, strict=True)]
            if not (await self.ask("watch", Watch(marks, 0.2))).awake:
                return marks
        raise TimeoutError("no quiet watch")

    async def is_woken(self, ref: QueueRef) -> None:
        """What comes to a queue ends a watch."""
        marks = await self.quiet()
        await self.ask("send", SendBatch(ref, [NewMessage(b"1")]))
        awake = (await self.ask("watch", Watch(marks, 1.0))).awake
        assert list(awake) == [ref], awake


def tell(*words: object) -> None:
    """One line for the test."""
    print(*words, flush=True)  # noqa: T201  # the protocol


def forked(story: Callable[[], Any]) -> int:
    """Run a story in a child; returns its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        # In a thread, since the loop of the parent seems to run in this one.
        errors: list[BaseException] = []

        def work() -> None:
            try:
                asyncio.run(story())
            except BaseException as error:  # noqa: BLE001  # told below
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        code = 0
    except BaseException as error:  # noqa: BLE001  # a child must not go on as its parent
        print(repr(error), file=sys.stderr, flush=True)  # noqa: T201
    finally:
        os._exit(code)


async def main(world: str, url: str, prefix: str) -> None:
    """Two children watch as their parent does; one drops what it has inherited."""
    watcher: Watcher | None = Watcher(world, url, prefix)
    assert watcher is not None
    await watcher.ask("together", [Declare(ref.name, Settings()) for ref in REFS])
    marks = await watcher.quiet()

    async def watches() -> None:
        assert watcher is not None
        # Marks of the parent are over here.
        assert (await watcher.ask("watch", Watch(marks, 1.0))).awake
        await watcher.is_woken(REFS[0])
        await watcher.ask("close")
        tell("child")

    async def drops() -> None:
        nonlocal watcher
        watcher = None
        gc.collect()
        tell("child")

    for story in (watches, drops):
        child = forked(story)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert status == 0, "a child failed"
    await watcher.is_woken(REFS[1])
    tell("parent")
    await watcher.ask("close")
    tell("done")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
