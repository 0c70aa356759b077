"""Directories of test servers, which even a killed test process does not leave for good."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

__all__ = ["Folder", "sweep"]

_PREFIX = "leanmq-test-"
_MEMORY = Path("/dev/shm")
_ROOM = 4 << 30
_LOCK = "lock"


class Folder:
    """A temporary directory that is marked as in use while its process lives."""

    def __init__(self, name: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{name}-", dir=_parent()))
        self._lock = (self.path / _LOCK).open("w", encoding="utf-8")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _parent() -> Path:
    """A file system in memory, if there is one with room: a busy disk holds up no server then."""
    with suppress(OSError):
        if shutil.disk_usage(_MEMORY).free > _ROOM:
            return _MEMORY
    return Path(tempfile.gettempdir())


def sweep() -> None:
    """Delete directories whose processes are gone: they were killed, and could not do it."""
    for path in _parent().glob(f"{_PREFIX}*"):
        try:
            with (path / _LOCK).open(encoding="utf-8") as lock:
                if time.time() - path.stat().st_mtime > 60 and _unused(lock):
                    shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # Removed by somebody else, or not ours to read.


def _unused(lock: TextIOWrapper) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
