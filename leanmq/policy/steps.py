"""Policy that waits or retries is written as generators too; these are their steps and drivers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

import msgspec

from leanmq.backends.protocol import AsyncBackend, Backend
from leanmq.errors import LeanMQError

__all__ = ["Ask", "Sleep", "Steps", "drive", "drive_async"]

T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True):
    """Call a method of the backend with a request (or with nothing)."""

    method: str
    request: object | None = None


class Sleep(msgspec.Struct, frozen=True):
    """Let ``seconds`` pass."""

    seconds: float


Steps: TypeAlias = Generator["Ask | Sleep", Any, T]


def drive(steps: Steps[T], backend: Backend) -> T:
    """Run a policy on a backend. What a step raises is raised inside the policy."""
    try:
        step = next(steps)
        while True:
            try:
                result = None
                if isinstance(step, Sleep):
                    time.sleep(step.seconds)
                elif step.request is None:
                    result = getattr(backend, step.method)()
                else:
                    result = getattr(backend, step.method)(step.request)
            except LeanMQError as error:
                # Its cause stays; of its way up through the drivers nobody learns anything.
                step = steps.throw(error.with_traceback(None))
            except BaseException as error:  # noqa: BLE001  # raised in the policy instead
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def drive_async(steps: Steps[T], backend: AsyncBackend) -> T:
    """``drive`` for asyncio. A cancelled step is cancelled inside the policy."""
    try:
        step = next(steps)
        while True:
            try:
                result = None
                if isinstance(step, Sleep):
                    await asyncio.sleep(step.seconds)
                elif step.request is None:
                    result = await getattr(backend, step.method)()
                else:
                    result = await getattr(backend, step.method)(step.request)
            except LeanMQError as error:
                # Its cause stays; of its way up through the drivers nobody learns anything.
                step = steps.throw(error.with_traceback(None))
            except BaseException as error:  # noqa: BLE001  # raised in the policy instead
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
