"""Carries commands over redis-py's connections, to one address at a time; knows no topology.

Of redis-py it uses bare connections, not its pools: those cost 15 to 35 microseconds a call
more, differ between versions in whether they notice a dead or dirty connection, and await
while they take one back, where a cancellation can strike.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from contextlib import suppress
from typing import Final, TypeAlias, TypeVar

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

__all__ = ["BLOCK_SLICE", "Address", "AsyncWire", "Drop", "NodeCall", "Steps", "Wire",
           "redirect", "translate", "troubles"]  # fmt: skip

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


Steps: TypeAlias = Generator["NodeCall | Drop", "list[Outcome]", T]
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
        outcomes: list[Outcome] = []
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
            for _ in call.commands:
                try:
                    outcomes.append(line.read_response(disconnect_on_error=False))
                except RedisError as error:
                    outcomes.append(_refusal(error, call))
        except Exception as error:  # noqa: BLE001 -- mapped, and handed on as a value
            _hang_up(line)
            return _with_lost(outcomes, error, call, sent, self._reach)
        except BaseException:
            _hang_up(line)
            raise
        if self._reach.lost:
            self._reach.answers(call.address)
        if not self._lines.give_back(key, line):
            _hang_up(line)
        return outcomes

    def drop(self, address: Address) -> None:
        """Close the idle connections to an address."""
        for line in self._lines.forget(_home(), address):
            _hang_up(line)

    def close(self) -> None:
        """Close what is idle now, and each connection in use when its call has ended."""
        for line in self._lines.close(_home()):
            _hang_up(line)

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
                _hang_up(line)
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
            await _hang_up_async(line)
            return _with_lost(outcomes, error, call, sent, self._reach)
        except BaseException:
            await _hang_up_async(line)
            raise
        if self._reach.lost:
            self._reach.answers(call.address)
        if not self._lines.give_back(key, line):
            await _hang_up_async(line)
        return outcomes

    async def drop(self, address: Address) -> None:
        """See ``Wire.drop``, for this loop."""
        for line in self._lines.forget(_home(asyncio.get_running_loop()), address):
            await _hang_up_async(line)

    async def close(self) -> None:
        """See ``Wire.close``, for this loop."""
        for line in self._lines.close(_home(asyncio.get_running_loop())):
            await _hang_up_async(line)
        await asyncio.sleep(0)  # the transports close their sockets in the next turn

    async def _take(self, key: Key) -> Line:
        """See ``Wire._take``. The loop may not have run since the server closed: ask the socket."""
        idle = self._lines.idle(key)
        while idle:
            line = idle.pop()
            writer = line._writer
            if not (writer.is_closing() or stirs(writer.get_extra_info("socket"))):
                return line
            await _hang_up_async(line)
        return None


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


def _hang_up(line: Line) -> None:
    if line is not None:
        with suppress(Exception):
            line.disconnect()


async def _hang_up_async(line: Line) -> None:
    """Nothing in here suspends, so no cancellation can cut it short."""
    if line is not None:
        with suppress(Exception):
            if line._writer is not None:
                line._writer.transport.abort()  # a frozen peer would not take what is buffered
            await line.disconnect(nowait=True)
