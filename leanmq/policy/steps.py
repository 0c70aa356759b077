"""Policy that waits or retries is written as generators too; these are their steps and drivers."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator
from typing import Any, TypeAlias, TypeVar, cast

import msgspec

from leanmq.backends.protocol import AsyncBackend, Backend
from leanmq.errors import LeanMQError

__all__ = [
    "Ask",
    "Hand",
    "Loop",
    "Sleep",
    "Steps",
    "drive",
    "drive_async",
    "iterate",
    "iterate_async",
]

S = TypeVar("S")
T = TypeVar("T")


class Ask(msgspec.Struct, frozen=True):
    """Call a method of the backend with a request (or with nothing)."""

    method: str
    request: object | None = None


class Sleep(msgspec.Struct, frozen=True):
    """Let ``seconds`` pass."""

    seconds: float


class Hand(msgspec.Struct, frozen=True):
    """Hand a value to the user, and go on when they are done with it. An exception of theirs is
    raised here, and so is GeneratorExit if they want no more."""

    value: Any


Steps: TypeAlias = Generator["Ask | Sleep", Any, T]
Loop: TypeAlias = Generator["Ask | Sleep | Hand", Any, None]


def drive(steps: Steps[T], backend: Backend) -> T:
    """Run a policy on a backend. What a step raises is raised inside the policy."""
    try:
        step = next(steps)
        while True:
            result, raised = _carry_out(step, backend)
            step = steps.send(result) if raised is None else steps.throw(raised)
    except StopIteration as stop:
        value: T = stop.value
        return value


def iterate(loop: Loop, backend: Backend) -> Generator[Any, None]:
    """Run a policy that hands out values, as a generator of these."""
    try:
        step = next(loop)
        while True:
            if not isinstance(step, Hand):
                step = _go_on(loop, *_carry_out(step, backend))
                continue
            raised: BaseException | None = None
            try:
                yield step.value
            except BaseException as error:  # noqa: BLE001  # raised in the policy instead
                raised = error
            step = _go_on(loop, None, raised)
    except StopIteration:
        return
    except BaseException as error:
        if getattr(loop, "gi_frame", None) is None:
            raise
        # Ctrl-C between two steps: what the policy has in hand it gives back.
        give_back = cast("Steps[None]", loop)  # it hands out nothing more
        step = give_back.throw(error)
        while True:
            step = _go_on(give_back, *_carry_out(step, backend))


async def drive_async(steps: Steps[T], backend: AsyncBackend) -> T:
    """``drive`` for asyncio. A cancelled step is cancelled inside the policy."""
    try:
        step = next(steps)
        while True:
            result, raised = await _carry_out_async(step, backend)
            step = steps.send(result) if raised is None else steps.throw(raised)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def iterate_async(loop: Loop, backend: AsyncBackend) -> AsyncGenerator[Any, None]:
    """``iterate`` for asyncio: there, under ``asyncio.run``, Ctrl-C cancels a step."""
    try:
        step = next(loop)
        while True:
            if not isinstance(step, Hand):
                step = _go_on(loop, *(await _carry_out_async(step, backend)))
                continue
            raised: BaseException | None = None
            try:
                yield step.value
            except BaseException as error:  # noqa: BLE001  # raised in the policy instead
                raised = error
            step = _go_on(loop, None, raised)
    except StopIteration:
        return


def _go_on(steps: Generator[S, Any, Any], result: Any, raised: BaseException | None) -> S:
    return steps.send(result) if raised is None else steps.throw(raised)


def _carry_out(step: Ask | Sleep, backend: Backend) -> tuple[Any, BaseException | None]:
    """What came of a step, or what it raised."""
    try:
        if isinstance(step, Sleep):
            time.sleep(step.seconds)
            return None, None
        method = getattr(backend, step.method)
        return method() if step.request is None else method(step.request), None
    except LeanMQError as error:
        # Its cause stays; of its way up through the drivers nobody learns anything.
        return None, error.with_traceback(None)
    except BaseException as error:  # noqa: BLE001  # raised in the policy instead
        return None, error


async def _carry_out_async(
    step: Ask | Sleep, backend: AsyncBackend
) -> tuple[Any, BaseException | None]:
    try:
        if isinstance(step, Sleep):
            import asyncio  # not above: ``import leanmq`` is a third slower with it

            await asyncio.sleep(step.seconds)
            return None, None
        method = getattr(backend, step.method)
        return await (method() if step.request is None else method(step.request)), None
    except LeanMQError as error:
        return None, error.with_traceback(None)
    except BaseException as error:  # noqa: BLE001  # raised in the policy instead
        return None, error
