"""Carries commands over redis-py's connections, to one address at a time; knows no topology.

Of redis-py it uses bare connections, not its pools: those cost 15 to 35 microseconds a call
more, differ between versions in whether they notice a dead or dirty connection, and await
while they take one back, where a cancellation can strike.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias, TypeVar

import msgspec
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import RedisError
from redis.retry import Retry

from leanmq.backends.faults import is_reply, redirect, translate, troubles
from leanmq.backends.lines import Home, Key, Line, Lines, pack, stirs
from leanmq.backends.reach import Reach
from leanmq.backends.streams.calls import Command, Outcome
from leanmq.backends.urls import Address, Target, show

__all__ = ["BLOCK_SLICE", "Address", "AsyncWire", "Drop", "NodeCall", "Steps", "Together", "Wire",
           "hang_up", "hang_up_async", "redirect", "translate", "troubles"]  # fmt: skip

BLOCK_SLICE: Final = 1.0
"""The longest ``block`` of a call, in seconds."""

_BLOCK_MARGIN: Final = 2.0  # by so many seconds the reply of a blocking call may be late

T = TypeVar("T")


class NodeCall(msgspec.Struct, frozen=True):
    """Commands for one address: written at once, answered in order, not atomic.

    Attributes:
        address: The server to ask.
        commands: See ``Call``; as are ``idempotent`` and ``block`` (at most ``BLOCK_SLICE``).
        limit: Seconds to wait for a connection and for each reply, if less than usual.
        sentinel: Whether the server is a sentinel, which has an account of its own.
    """

    address: Address
    commands: tuple[Command, ...]
    idempotent: bool
    block: float | None = None
    limit: float | None = None
    sentinel: bool = False


class Drop(msgspec.Struct, frozen=True):
    """Forget the idle connections to an address: another server may be there by now."""

    address: Address


class Together(msgspec.Struct, frozen=True):
    """Node calls for different addresses, asked at the same time.

    It is answered by a list of the outcomes of each. None of the calls blocks.
    """

    calls: tuple[NodeCall, ...]


Steps: TypeAlias = Generator["NodeCall | Together | Drop", "list[Any]", T]
"""What a topology does: yields calls and drops, is sent the outcomes, returns a T."""


class Wire:
    """Carries node calls for threads. Shared by all of them; a forked child starts afresh.

    Args:
        target: Account, database and TLS.
        timeout: Seconds to wait for a connection, and for each reply.
    """

    def __init__(self, target: Target, timeout: float = 3.0) -> None:
        self._timeout = timeout
        self._reach = Reach()
        self._lines = Lines(
            target,
            (Connection, SSLConnection, UnixDomainSocketConnection),
            retry=Retry(NoBackoff(), 0),
        )

    def run(self, call: NodeCall) -> list[Outcome]:
        """One outcome for each command; trouble is a value, never an exception."""
        written = self._write(call)
        return self._read(written) if isinstance(written, _Written) else written

    def together(self, calls: Sequence[NodeCall]) -> list[list[Outcome]]:
        """What ``run`` would return for each call, all of them asked before the first is read."""
        begun: list[_Written | list[Outcome]] = []
        try:
            for call in calls:
                begun.append(self._write(call))
            return [self._read(it) if isinstance(it, _Written) else it for it in begun]
        except BaseException:
            for it in begun:
                if isinstance(it, _Written) and not it.done:
                    hang_up(it.line)
            raise

    def _write(self, call: NodeCall) -> _Written | list[Outcome]:
        """Ask; returns what to read from, or the outcomes if that was not possible."""
        line: Line = None
        sent = False
        key = call.address, _patience(call, self._timeout), _home()
        try:
            data = pack(call.commands)
            line = self._take(key)
            if line is None:
                line = self._lines.make(key, sentinel=call.sentinel)
                line.connect()
            sent = True
            line.send_packed_command((data,), check_health=False)
        except Exception as error:  # noqa: BLE001 -- mapped, and handed on as a value
            hang_up(line)
            return _with_lost([], error, call, sent, self._reach)
        except BaseException:
            hang_up(line)
            raise
        return _Written(call, key, line)

    def _read(self, written: _Written) -> list[Outcome]:
        outcomes: list[Outcome] = []
        call, key, line = written.call, written.key, written.line
        try:
            for _ in call.commands:
                try:
                    outcomes.append(line.read_response(disconnect_on_error=False))
                except RedisError as error:
                    outcomes.append(_refusal(error, call))
        except Exception as error:  # noqa: BLE001 -- mapped, and handed on as a value
            hang_up(line)
            written.done = True
            return _with_lost(outcomes, error, call, True, self._reach)
        except BaseException:
            hang_up(line)
            raise
        written.done = True
        if self._reach.lost:
            self._reach.answers(call.address)
        if not self._lines.give_back(key, line):
            hang_up(line)
        return outcomes

    def connect(self, address: Address, limit: float) -> Line:
        """A new connection for somebody who listens, whose it is to hang up; raises if none.

        Args:
            address: The server.
            limit: Seconds to wait for it, if less than usual.
        """
        key = address, min(limit, self._timeout), _home()
        line = self._lines.make(key, sentinel=False)
        try:
            line.connect()
        except BaseException:
            hang_up(line)
            raise
        return line

    def drop(self, address: Address) -> None:
        """Close the idle connections to an address."""
        for line in self._lines.forget(_home(), address):
            hang_up(line)

    def close(self) -> None:
        """Close what is idle now, and each connection in use when its call has ended."""
        for line in self._lines.close(_home()):
            hang_up(line)

    def _take(self, key: Key) -> Line:
        """An idle line that the server has not closed meanwhile, or None.

        Checked just before the write: else a send would have an unknown outcome for no better
        reason than that the server had closed the connection an hour ago.
        """
        idle = self._lines.idle(key)
        with suppress(IndexError):  # no more, or another thread was faster
            while True:
                line = idle.pop()
                if not stirs(line._sock):
                    return line
                hang_up(line)
        return None


class AsyncWire:
    """``Wire`` for asyncio. Each event loop that uses it has connections of its own.

    Close it on the loop that used it: connections of a loop that is gone cannot be closed any
    more, they can only be forgotten.
    """

    def __init__(self, target: Target, timeout: float = 3.0) -> None:
        from redis.asyncio import connection, retry

        self._timeout = timeout
        self._reach = Reach()
        self._lines = Lines(
            target,
            (
                connection.Connection,
                connection.SSLConnection,
                connection.UnixDomainSocketConnection,
            ),
            retry=retry.Retry(NoBackoff(), 0),
            socket_timeout=None,  # it would cost a task a write and a timer a reply
        )

    async def run(self, call: NodeCall) -> list[Outcome]:
        """See ``Wire.run``. A call that is cancelled closes its connection."""
        outcomes: list[Outcome] = []
        line: Line = None
        sent = False
        loop = asyncio.get_running_loop()
        patience = _patience(call, self._timeout)
        key = call.address, patience, _home(loop)
        try:
            data = pack(call.commands)
            async with asyncio.timeout(patience) as limit:
                line = await self._take(key)
                if line is None:
                    line = self._lines.make(key, sentinel=call.sentinel)
                    await line.connect()
                    limit.reschedule(loop.time() + patience)
                sent = True
                await line.send_packed_command((data,), check_health=False)
                for _ in call.commands:
                    try:
                        outcomes.append(await line.read_response(disconnect_on_error=False))
                    except RedisError as error:
                        outcomes.append(_refusal(error, call))
                    limit.reschedule(loop.time() + patience)
        except Exception as error:  # noqa: BLE001 -- mapped, and handed on as a value
            await hang_up_async(line)
            return _with_lost(outcomes, error, call, sent, self._reach)
        except BaseException:
            await hang_up_async(line)
            raise
        if self._reach.lost:
            self._reach.answers(call.address)
        if not self._lines.give_back(key, line):
            await hang_up_async(line)
        return outcomes

    async def together(self, calls: Sequence[NodeCall]) -> list[list[Outcome]]:
        """See ``Wire.together``. If it is cancelled, all of them are."""
        if len(calls) == 1:
            return [await self.run(calls[0])]
        return await asyncio.gather(*map(self.run, calls))

    async def connect(self, address: Address, limit: float) -> Line:
        """See ``Wire.connect``."""
        patience = min(limit, self._timeout)
        line = self._lines.make((address, patience, _home()), sentinel=False)
        try:
            async with asyncio.timeout(patience):
                await line.connect()
        except BaseException:
            await hang_up_async(line)
            raise
        return line

    async def drop(self, address: Address) -> None:
        """See ``Wire.drop``, for this loop."""
        for line in self._lines.forget(_home(asyncio.get_running_loop()), address):
            await hang_up_async(line)

    async def close(self) -> None:
        """See ``Wire.close``, for this loop."""
        for line in self._lines.close(_home(asyncio.get_running_loop())):
            await hang_up_async(line)
        await asyncio.sleep(0)  # the transports close their sockets in the next turn

    async def _take(self, key: Key) -> Line:
        """See ``Wire._take``. The loop may not have run since the server closed: ask the socket."""
        idle = self._lines.idle(key)
        while idle:
            line = idle.pop()
            writer = line._writer
            if not (writer.is_closing() or stirs(writer.get_extra_info("socket"))):
                return line
            await hang_up_async(line)
        return None


class _Written:
    """A call whose replies are still to be read from the line.

    Attributes:
        done: They were; the line is another's now.
    """

    __slots__ = ("call", "done", "key", "line")

    def __init__(self, call: NodeCall, key: Key, line: Line) -> None:
        self.call, self.key, self.line = call, key, line
        self.done = False


def _patience(call: NodeCall, timeout: float) -> float:
    if call.block is not None:
        return max(timeout, BLOCK_SLICE + _BLOCK_MARGIN)
    return timeout if call.limit is None else min(call.limit, timeout)


def _home(loop: asyncio.AbstractEventLoop | None = None) -> Home:
    return os.getpid(), loop


def _refusal(error: RedisError, call: NodeCall) -> Outcome:
    """The outcome of a command that was answered by an error; raises if it was not answered."""
    if not is_reply(error):
        raise error
    return translate(error, sent=True, idempotent=call.idempotent, where=show(call.address))


def _with_lost(
    outcomes: list[Outcome], error: Exception, call: NodeCall, sent: bool, reach: Reach
) -> list[Outcome]:
    """What was read stays known; the rest shares one error."""
    lost = translate(error, sent=sent, idempotent=call.idempotent, where=show(call.address))
    if troubles([lost]):
        reach.fails(call.address, lost)
    return outcomes + [lost] * (len(call.commands) - len(outcomes))


def hang_up(line: Line) -> None:
    """Close a connection, whatever its state."""
    if line is not None:
        with suppress(Exception):
            line.disconnect()


async def hang_up_async(line: Line) -> None:
    """See ``hang_up``. Nothing in here suspends, so no cancellation can cut it short."""
    if line is not None:
        with suppress(Exception):
            if line._writer is not None:
                line._writer.transport.abort()  # a frozen peer would not take what is buffered
            await line.disconnect(nowait=True)
