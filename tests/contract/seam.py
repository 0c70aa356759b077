"""A backend of a subject, for tests of the part of the seam that routers build on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from leanmq import ConnectionError
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
from tests.contract.harness import Harness, eventually

__all__ = ["REFS", "Seam"]

REFS = [QueueRef(f"orders#{n}") for n in range(5)]


class Seam:
    """A backend of the subject; its methods are asynchronous in both worlds."""

    def __init__(self, harness: Harness, url: str = "") -> None:
        self.harness = harness
        url = url or harness.url
        options = Options(prefix=harness.prefix)
        self.backend: Any = (
            open_backend(url, None, options)
            if harness.world == "sync"
            else open_async_backend(url, None, options)
        )

    def __getattr__(self, method: str) -> Any:
        async def call(*request: Any) -> Any:
            return await self.harness.call(getattr(self.backend, method), *request)

        return call

    async def declared(self, refs: Sequence[QueueRef] = REFS) -> Seam:
        declared = await self.together([Declare(ref.name, Settings(lease=9.0)) for ref in refs])
        assert [d.created for d in declared] == [True] * len(refs)
        return self

    async def look(self, ref: QueueRef, count: int = 10) -> Any:
        receive = Receive(ref, "me", count, watched=True)
        [result] = await self.together([Exchange((), (receive,))])
        return result

    async def marks(self, refs: Sequence[QueueRef] = REFS) -> list[tuple[QueueRef, str]]:
        """Look whether there is something, at all of them together."""
        looks = [Exchange((), (Receive(ref, "me", 0, watched=True),)) for ref in refs]
        results = await self.together(looks)
        return [(ref, result.mark) for ref, result in zip(refs, results, strict=True)]

    async def send_one(self, ref: QueueRef, body: bytes = b"1") -> None:
        """Send a message."""
        sent = await self.send(SendBatch(ref, [NewMessage(body)]))
        assert isinstance(sent.results[0], str), sent.results

    async def watched(self, refs: Sequence[QueueRef] = REFS) -> list[tuple[QueueRef, str]]:
        """Marks of quiet queues, once watching them has begun: at first it may find too many."""
        marks: list[tuple[QueueRef, str]] = []

        async def quiet() -> bool:
            marks[:] = await self.marks(refs)
            return not (await self.watch(Watch(marks, 0.2))).awake

        await eventually(quiet, within=10)
        return marks

    async def until_awake(self, marks: list[tuple[QueueRef, str]]) -> list[QueueRef]:
        """Watch until something came, and return in which queues."""
        while not (watched := await self.watch(Watch(marks, 1.0))).awake:
            pass
        return list(watched.awake)

    async def found(self, marks: list[tuple[QueueRef, str]]) -> QueueRef:
        """Watch as a router does, which looks at nothing that is not awake, until a message is
        there; returns in which queue."""
        known = dict(marks)
        while True:
            for ref in await self.until_awake(list(known.items())):
                probe = await self.look(ref, count=0)
                if isinstance(probe, ConnectionError):  # its mark stays, so it is awake still
                    await asyncio.sleep(0.05)
                elif probe.more:
                    return ref
                else:
                    known[ref] = probe.mark
