"""Drives a topology on a wire: the connection that operations run on, sync and asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from leanmq.backends.listeners import AsyncListener, Listener
from leanmq.backends.pipelines import failed
from leanmq.backends.streams.calls import Call, Outcome, Outcomes
from leanmq.backends.wakes import Wakes
from leanmq.backends.wire import AsyncWire, Drop, Steps, Together, Wire
from leanmq.errors import LeanMQError

__all__ = ["AsyncServerConnection", "ServerConnection", "Topology"]

T = TypeVar("T")


class Topology(Protocol):
    """Knows which address serves a call, and notices when that changes.

    Its logic is generators that do no I/O: they yield node calls and drops and are sent the
    outcomes. Shared by threads, so what they keep is replaced as a whole, never under a lock
    held over a ``yield``.
    """

    @property
    def display(self) -> str:
        """The URL, secrets masked."""
        ...

    @property
    def slots_apart(self) -> bool:
        """Whether keys of different slots may be on different servers."""
        ...

    def open(self) -> Steps[None]:
        """One round trip to everywhere; raises a LeanMQError if there is none."""
        ...

    def route(self, call: Call) -> Steps[list[Outcome]]:
        """Run the call where its slot is; raises a LeanMQError if it was not run at all."""
        ...

    def route_many(self, calls: Sequence[Call]) -> Steps[list[list[Outcome]]]:
        """Run calls that may go together, each node's at once; raises if none of them was run."""
        ...


class ServerConnection:
    """A topology on a wire, for threads."""

    hub = None

    def __init__(
        self,
        topology: Topology,
        wire: Wire,
        wakes: Wakes[Listener] | None = None,
    ) -> None:
        self.topology = topology
        self.wakes = wakes
        self._wire = wire

    def open(self) -> None:
        """One round trip to everywhere that data lives; raises the mapped error."""
        self._drive(self.topology.open())

    def run(self, call: Call) -> list[Outcome]:
        """One outcome for each command; trouble is a value, never an exception."""
        try:
            return self._drive(self.topology.route(call))
        except LeanMQError as error:
            return failed(call, error)

    def run_many(self, calls: Sequence[Call]) -> list[Outcomes]:
        """What ``run`` would return for each call, by one pipeline to each node."""
        try:
            return list(self._drive(self.topology.route_many(calls)))
        except LeanMQError as error:
            return [failed(call, error) for call in calls]

    def close(self) -> None:
        """Close all sockets, those in use when their call has ended."""
        listeners = self.wakes.stop() if self.wakes else []
        self._wire.close()
        for listener in listeners:
            listener.join()

    def _drive(self, steps: Steps[T]) -> T:
        outcomes: list[Any] | None = None
        try:
            while True:
                step = steps.send(outcomes)  # type: ignore[arg-type]  # None starts it
                if isinstance(step, Drop):
                    self._wire.drop(step.address)
                    outcomes = []
                elif isinstance(step, Together):
                    outcomes = self._wire.together(step.calls)
                else:
                    outcomes = self._wire.run(step)
        except StopIteration as stop:
            result: T = stop.value
            return result


class AsyncServerConnection:
    """A topology on a wire, for asyncio."""

    hub = None

    def __init__(
        self,
        topology: Topology,
        wire: AsyncWire,
        wakes: Wakes[AsyncListener] | None = None,
    ) -> None:
        self.topology = topology
        self.wakes = wakes
        self._wire = wire

    async def open(self) -> None:
        """See ``ServerConnection.open``."""
        await self._drive(self.topology.open())

    async def run(self, call: Call) -> list[Outcome]:
        """See ``ServerConnection.run``."""
        try:
            return await self._drive(self.topology.route(call))
        except LeanMQError as error:
            return failed(call, error)

    async def run_many(self, calls: Sequence[Call]) -> list[Outcomes]:
        """See ``ServerConnection.run_many``."""
        try:
            return list(await self._drive(self.topology.route_many(calls)))
        except LeanMQError as error:
            return [failed(call, error) for call in calls]

    async def close(self) -> None:
        """See ``ServerConnection.close``."""
        for listener in self.wakes.stop() if self.wakes else []:
            await listener.join()
        await self._wire.close()

    async def _drive(self, steps: Steps[T]) -> T:
        outcomes: list[Any] | None = None
        try:
            while True:
                step = steps.send(outcomes)  # type: ignore[arg-type]  # None starts it
                if isinstance(step, Drop):
                    await self._wire.drop(step.address)
                    outcomes = []
                elif isinstance(step, Together):
                    outcomes = await self._wire.together(step.calls)
                else:
                    outcomes = await self._wire.run(step)
        except StopIteration as stop:
            result: T = stop.value
            return result
