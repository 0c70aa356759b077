"""The servers behind ``memory://``: of a name, of one client alone, or brought by a fake client.

Who shares a server shares its hub. How calls get there is in ``memory.py``.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import fakeredis
from redis.exceptions import ConnectionError, RedisError

from leanmq.backends.hub import LocalHub
from leanmq.backends.streams.calls import Call, Command, Outcome, Outcomes, is_unknown_script
from leanmq.backends.urls import Target
from leanmq.backends.wire import translate

__all__ = ["MemoryServer", "server", "server_of"]


class MemoryServer:
    """The server and its hub.

    Args:
        hub: The hub of all who use the same server; by default a new one.
        server: A ``FakeServer``; by default a new one.
        account: Of fakeredis: database, user and password.
    """

    def __init__(self, hub: LocalHub | None = None, server: Any = None, **account: Any) -> None:
        self.hub = hub or LocalHub()
        self.pid = os.getpid()
        # RESP2 without callbacks: replies as every other connection gives them.
        client: Any = fakeredis.FakeRedis(
            server=server or fakeredis.FakeServer(), protocol=2, decode_responses=False, **account
        )
        client.response_callbacks.clear()
        self._execute: Callable[..., Any] = client.execute_command
        # The first connection makes the database, without a lock. Two threads that were both the
        # first would have one each, and one would never see what the other sends.
        with suppress(RedisError):  # its owner has it refuse: the first call will tell
            self._execute("PING")

    def run(self, call: Call) -> Outcomes:
        """Run the commands one after the other, then wake whom they concern."""
        outcomes = [self._run(command, call.idempotent) for command in call.commands]
        if call.wakes and not all(map(is_unknown_script, outcomes)):  # which does nothing
            self.hub.wake(call.wakes)
        return outcomes

    def _run(self, command: Command, idempotent: bool) -> Outcome:
        try:
            return self._execute(*command)
        except Exception as error:  # noqa: BLE001  # mapped, and handed on as a value
            sent = not isinstance(error, ConnectionError)  # raised before anything is done
            return translate(error, sent=sent, idempotent=idempotent, where="memory://")

    def execute(self, *command: str | bytes | int) -> Outcome:
        """Run one command of any kind, and have everybody look again."""
        outcome = self._run(command, idempotent=False)
        self.hub.wake_all()
        return outcome


_named: weakref.WeakValueDictionary[str, MemoryServer] = weakref.WeakValueDictionary()
_hubs: weakref.WeakKeyDictionary[Any, tuple[int, LocalHub]] = weakref.WeakKeyDictionary()
_locks: dict[int, threading.Lock] = {}


def _making() -> threading.Lock:
    """Held while a server is made. One a process: what a fork inherits may be held for ever."""
    return _locks.setdefault(os.getpid(), threading.Lock())


def server(name: str) -> MemoryServer:
    """The server of ``memory://name``: the one that is open, or a new one."""
    if not name:
        return MemoryServer()
    with _making():
        server = _named.get(name)
        if server is None or server.pid != os.getpid():
            server = _named[name] = MemoryServer()
        return server


def server_of(target: Target) -> MemoryServer:
    """The server of a target: that which a client brought, or that of the name."""
    fake = target.fake_server
    if fake is None:
        return server(target.service)
    with _making():
        pid, hub = _hubs.get(fake, (0, LocalHub()))
        if pid != os.getpid():
            hub = LocalHub()
            _hubs[fake] = os.getpid(), hub
        account = {"username": target.username, "password": target.password}
        return MemoryServer(hub, fake, db=target.db, **account)
