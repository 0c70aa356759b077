"""One server process: started, killed, frozen and started again on the same port."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path

from .ports import HOST, reserve_port
from .proxy import Proxy
from .waiting import wait_until

__all__ = ["RedisProcess"]

# Run in the new process before it becomes the server: ask the kernel to kill it when its parent
# dies (PR_SET_PDEATHSIG is 1), so that a test run killed with -9 leaves no servers. Done here
# and not in ``preexec_fn``, against which Python 3.12 warns in a process with threads.
_DIE_WITH_PARENT = """\
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    os._exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class RedisProcess:
    """A Redis server (or sentinel) of 127.0.0.1 with a directory, a log and ports of its own.

    Attributes:
        name: What errors call it.
        port: Its real port; clients of the topology use ``proxy.port``.
        bus_port: A second port that is kept for it, for the cluster bus.
        proxy: The proxy before it, which refuses connections while the server is dead; None
            for a sentinel.
    """

    def __init__(
        self, name: str, binary: Path, directory: Path, *, proxied: bool, sentinel: bool = False
    ) -> None:
        self.name = name
        self.directory = directory
        self._binary = binary
        self._sentinel = sentinel
        self._holders = [reserve_port(for_server=True) for _ in range(2)]
        self.port, self.bus_port = (port for _holder, port in self._holders)
        self.proxy = Proxy(self.port) if proxied else None
        self._popen: subprocess.Popen[bytes] | None = None
        self._frozen = False
        directory.mkdir(parents=True)

    def __repr__(self) -> str:
        state = "frozen" if self._frozen else "alive" if self.alive else "dead"
        front = f" behind {self.proxy.port}" if self.proxy else ""
        return f"<{self.name} :{self.port}{front} {state}>"

    @property
    def address(self) -> tuple[str, int]:
        """Where clients and other servers find it."""
        return HOST, self.proxy.port if self.proxy else self.port

    @property
    def pid(self) -> int | None:
        return self._popen.pid if self._popen else None

    @property
    def alive(self) -> bool:
        """True if the process exists, be it frozen or not."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def frozen(self) -> bool:
        return self._frozen and self.alive

    def configure(self, settings: Sequence[str]) -> None:
        """Write the configuration file; the server itself may rewrite it later."""
        common = [
            f"bind {HOST}",
            f"port {self.port}",
            f'dir "{self.directory}"',
            f'logfile "{self.directory / "redis.log"}"',
            "daemonize no",
        ]
        text = "\n".join([*common, *settings, ""])
        (self.directory / "redis.conf").write_text(text, encoding="utf-8")

    # -- life --------------------------------------------------------------------------------

    def start(self, *options: str, wait: bool = True) -> None:
        """Start the server, unless it lives.

        Args:
            options: More settings for the command line, as in ``"--replicaof", HOST, PORT``.
            wait: False if the caller will call ``wait_ready``, after having started others.
        """
        if not self.alive:
            mode = ["--sentinel"] if self._sentinel else []
            command = [str(self._binary), str(self.directory / "redis.conf"), *options, *mode]
            if sys.platform == "linux":
                wrap = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
                command = wrap + command
            self._frozen = False
            self._popen = _spawner().spawn(command, self.directory / "output.log")
            if self.proxy is not None:
                self.proxy.admit()
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout: float = 15.0) -> None:
        """Wait until the server answers PING with PONG (so not LOADING).

        Raises:
            RuntimeError: if the process ends instead.
            TimeoutError: if there is no such answer in time.
        """

        def answers() -> bool:
            if not self.alive:
                raise RuntimeError(f"{self!r} ended at its start: {self.log_tail()}")
            return self.ping()

        wait_until(answers, timeout, lambda: f"PONG of {self!r}: {self.log_tail()}", step=0.005)

    def ping(self, timeout: float = 0.5) -> bool:
        """Return True if the server itself (not its proxy) answers PONG within ``timeout``."""
        try:
            with socket.create_connection((HOST, self.port), timeout) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self) -> None:
        """End it with SIGKILL, as a crash does; returns when it is gone."""
        self._end(signal.SIGKILL, 10.0)

    def terminate(self, timeout: float = 10.0) -> None:
        """End it with SIGTERM: it saves what it is configured to save."""
        self.thaw()
        self._end(signal.SIGTERM, timeout)

    def freeze(self) -> None:
        """Stop it with SIGSTOP: its connections stay, but nothing answers."""
        self._signal(signal.SIGSTOP)
        self._frozen = self.alive

    def thaw(self) -> None:
        """Let it go on after ``freeze``."""
        self._signal(signal.SIGCONT)
        self._frozen = False

    def restart(self, *options: str, graceful: bool = False) -> None:
        """End it (by SIGKILL, or SIGTERM if ``graceful``) and start it again."""
        if graceful:
            self.terminate()
        else:
            self.kill()
        self.start(*options)

    def close(self) -> None:
        """End it and give up its ports; the directory belongs to the topology."""
        self.thaw()
        self.kill()
        if self.proxy is not None:
            self.proxy.close()
        for holder, _port in self._holders:
            holder.close()

    def log_tail(self, lines: int = 12) -> str:
        """Return the end of what the server wrote, for error messages."""
        told: list[str] = []
        for name in ("output.log", "redis.log"):
            with contextlib.suppress(OSError):
                told += (self.directory / name).read_text(errors="replace").splitlines()[-lines:]
        return "\n    ".join(told) or "(nothing)"

    def _signal(self, number: int) -> None:
        if self._popen is not None and self._popen.poll() is None:
            # Its group, which is its own: a child that it forked to write a file goes along.
            os.killpg(self._popen.pid, number)

    def _end(self, number: int, timeout: float) -> None:
        if self._popen is None:
            return
        if self.proxy is not None:
            self.proxy.refuse()
        self._signal(number)
        try:
            self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._popen.wait(5)
            raise TimeoutError(f"{self!r} outlived signal {number} by {timeout:g} s") from None
        finally:
            self._frozen = False


class _Spawner:
    """A thread that starts all servers, and does nothing else until the process ends.

    The kernel sends PR_SET_PDEATHSIG when the *thread* ends that started the child. A test may
    start a topology from a thread of its own, whose end would then kill the servers.
    """

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[list[str], Path, Future[subprocess.Popen[bytes]]]] = (
            queue.SimpleQueue()
        )
        threading.Thread(target=self._run, name="test-server-spawner", daemon=True).start()

    def spawn(self, command: list[str], output: Path) -> subprocess.Popen[bytes]:
        started: Future[subprocess.Popen[bytes]] = Future()
        self._orders.put((command, output, started))
        return started.result(timeout=30)

    def _run(self) -> None:
        while True:
            command, output, started = self._orders.get()
            try:
                with output.open("ab") as sink:
                    popen = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=sink,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # Ctrl-C in the terminal is not for servers.
                    )
            except OSError as error:
                started.set_exception(error)
            else:
                started.set_result(popen)


@cache
def _spawner() -> _Spawner:
    return _Spawner()
