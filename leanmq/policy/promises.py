"""Futures by the hundred thousand: those of ``concurrent.futures``, without a lock until needed.

The lock that each future brings along would be half of what sending in the background costs, and
mostly nobody waits on it before its result is there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, FINISHED, PENDING, RUNNING
from typing import Any, Final, cast

__all__ = ["Promise"]


_TAKEN: Final = object()
"""In place of a lock: the result came before anybody looked, and needs none."""

_log: Final = logging.getLogger("concurrent.futures")


class _AtFirstUse:
    """An attribute that is made when somebody looks at it; of two who do at once, both get one."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, future: Any, owner: type) -> Any:
        return future.__dict__.setdefault(self._name, self._make())


class _Condition:
    """The condition of a promise, made when somebody looks at it."""

    def __get__(self, future: Any, owner: type) -> Any:
        its = future.__dict__
        found = its.get("_lock") or its.setdefault("_lock", threading.Condition())
        if found is _TAKEN:
            future._state = FINISHED  # its result is there; who has set it may be about to say so
            found = its.get("_late") or its.setdefault("_late", threading.Condition())
        return found


class Promise(Future[str]):
    """A future whose condition is made at its first use.

    Whoever waits, cancels or adds a callback takes the condition first, and looks at the state
    under it. Whoever sets the result takes the place of the condition, if nobody has made one:
    then there is nobody to be told, and who comes later finds the promise finished. Else the
    state changes under the condition, as that of any future does.
    """

    _state = PENDING
    _result: str | None = None
    _exception: BaseException | None = None
    _condition = cast("threading.Condition", _Condition())
    _waiters = cast("list[Any]", _AtFirstUse(list))
    _done_callbacks = cast("list[Any]", _AtFirstUse(list))

    def __init__(self) -> None:
        """Nothing yet: what ``Future`` sets here are the attributes above."""

    def set_running_or_notify_cancel(self) -> bool:
        """See ``Future``."""
        state = self.__dict__
        state.setdefault("_state", RUNNING)  # unless it was cancelled
        if "_lock" not in state:
            return True
        with self._condition:
            if self._state == CANCELLED:
                return super().set_running_or_notify_cancel()
            self._state = RUNNING
            return True

    def set_result(self, result: str) -> None:
        """See ``Future``."""
        self._result = result
        self._finish()

    def set_exception(self, exception: BaseException | None) -> None:
        """See ``Future``."""
        self._exception = exception
        self._finish()

    def _finish(self) -> None:
        if self.__dict__.setdefault("_lock", _TAKEN) is _TAKEN:
            self._state = FINISHED
            return
        with self._condition:
            self._state = FINISHED
            for waiter in self._waiters:
                if self._exception is None:
                    waiter.add_result(self)
                else:
                    waiter.add_exception(self)
            self._condition.notify_all()
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException:  # noqa: BLE001  # the caller settles other promises, too
                _log.exception("exception calling callback for %r", self)
