"""A client in a process of its own that is interrupted, forked or forgotten.

``python -m tests.contract.client_process STORY WORLD URL PREFIX`` tells a story, a line for each
of its events; the last line is ``done``. A story is written once for both worlds: ``done`` awaits
what an asyncio client returns, and takes what a sync client returns as it is.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any
from unittest.mock import patch

from leanmq import AsyncLeanMQ, ClosedError, LeanMQ, UnsupportedError
from leanmq.backends import wire
from leanmq.backends.lines import Lines

Story = Coroutine[Any, Any, Any]
Connect = Callable[[], Any]

WORKERS = 4
ENDS = ("leaves", "closes", "exits")
"""How a forked child ends: at once; after it has closed the client; as any program does."""

kept: list[object] = []
"""What lives until the interpreter ends."""


def tell(*words: object) -> None:
    """One line for the test."""
    print(*words, flush=True)  # noqa: T201  # the protocol


async def done(result: Any) -> Any:
    """What a call to either kind of client, or what was begun, comes to."""
    if isinstance(result, Future):
        return result.result()
    return await result if inspect.isawaitable(result) else result


def run(story: Story) -> Any:
    """Run a story of a sync client: it never suspends."""
    try:
        story.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a sync client has suspended")


async def wait_a_little(world: str) -> None:
    """Between two looks."""
    if world == "asyncio":
        await asyncio.sleep(0.001)
    else:
        time.sleep(0.001)  # noqa: ASYNC251  # nothing else runs in a story of a sync client


def begin(world: str, story: Callable[[], Story]) -> Future[Any] | asyncio.Task[Any]:
    """Run a story beside this one: in a task, or in a thread that does not hold up the exit."""
    if world == "asyncio":
        return asyncio.ensure_future(story())
    future: Future[Any] = Future()

    def work() -> None:
        try:
            future.set_result(run(story()))
        except BaseException as error:  # noqa: BLE001  # raised where it is awaited
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


async def lives(world: str, connect: Connect) -> None:
    """Wait for a message until Ctrl-C; go on as clients do; close while receives wait."""
    client = connect()
    queue = client.queue("orders")
    await done(client.ping())
    await done(queue.declare())
    try:
        tell("waiting")
        await waits(queue)
    except KeyboardInterrupt:
        pass
    except asyncio.CancelledError:  # asyncio's word for it
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()
    tell("interrupted")
    await done(queue.send_messages(range(3)))
    messages = await done(queue.get_messages(timeout=10))
    assert [message.data for message in messages] == [0, 1, 2]
    assert await done(queue.acknowledge_messages(messages)) == 3
    waiting = [begin(world, lambda: waits(queue)) for _ in range(2)]
    for _ in range(10):  # they have at least been started; most often they wait in the server
        assert (await done(queue.get_info())).message_count == 0
    await done(client.close())
    for receive in waiting:
        with suppress(ClosedError):
            await done(receive)


async def waits(queue: Any, timeout: float | None = None) -> None:
    """Wait for a message that never comes."""
    await done(queue.get_messages(block=True, timeout=timeout))


async def is_not_closed(world: str, connect: Connect) -> None:
    """Forget a client that was used; end the program with another, by which a receive waits."""
    client = connect()
    queue = client.queue("forgotten")
    await done(queue.send_message(1))
    assert await done(queue.get_messages())
    assert await done(queue.dlq.get_messages(timeout=0.1)) == []
    del client, queue
    gc.collect()
    kept.append(client := connect())
    kept.append(begin(world, lambda: waits(client.queue("kept"))))
    await done(client.queue("kept").get_info())


async def is_forked(world: str, connect: Connect) -> None:
    """Fork again and again while others work; each child tells what it could do."""
    client = connect()
    queue = client.queue("orders")
    await done(queue.send_messages(range(3)))
    held = await done(queue.get_messages(3))
    # That many receives at once leave more connections idle than the workers will need.
    idle = client.queue("idle")
    spares = [begin(world, lambda: waits(idle, timeout=0.2)) for _ in range(2 * WORKERS)]
    for spare in spares:
        await done(spare)
    rounds = [0] * WORKERS
    stop = threading.Event()

    async def works(number: int) -> None:
        mine = client.queue(f"worker{number}")
        while not stop.is_set():
            await done(mine.send_message(rounds[number]))
            [message] = await done(mine.get_messages(timeout=20))
            assert message.data == rounds[number]
            assert await done(mine.acknowledge_messages(message)) == 1
            rounds[number] += 1

    async def all_go_on() -> None:
        goals = [count + 2 for count in rounds]
        while any(count < goal for count, goal in zip(rounds, goals, strict=True)):
            for worker in workers:
                if worker.done():
                    await done(worker)  # it failed
            await wait_a_little(world)

    with none_given_up():
        workers = [begin(world, partial(works, number)) for number in range(WORKERS)]
        await all_go_on()
        ends = ENDS if world == "sync" else ENDS[:2] * 2  # an exit would also end the loop
        for end in ends:
            if world == "asyncio":
                # From a thread: the child must not find itself inside this loop.
                told = await asyncio.to_thread(fork, asyncio.run, child(client, held, end), end)
            else:
                told = fork(run, child(client, held, end), end)
            tell(json.dumps(told))
            await all_go_on()
        stop.set()
        for worker in workers:
            await done(worker)
    assert await done(queue.acknowledge_messages(held)) == 3
    await done(client.close())


async def child(client: Any, held: Any, end: str) -> dict[str, Any]:
    """What a forked child can do with the client that it inherited."""
    queue = client.queue("orders")
    told: dict[str, Any] = {}
    made: list[None] = []
    make = Lines.make

    def make_noticed(*args: Any, **options: Any) -> Any:
        made.append(None)
        return make(*args, **options)

    noticed = patch.object(Lines, "make", make_noticed)
    noticed.start()
    try:
        told["settled"] = await done(queue.acknowledge_messages(held))
        await done(queue.send_message("from a child"))
        messages = await done(queue.get_messages(timeout=20))
        told["got"] = [message.data for message in messages]
        told["acknowledged"] = await done(queue.acknowledge_messages(messages))
    except UnsupportedError as error:
        told["refused"] = str(error)
        for call in (client.ping, queue.get_info, queue.get_messages, queue.delete):
            with suppress(UnsupportedError):
                await done(call())
                told["capable"] = call.__name__
    if end == "closes":
        await done(client.close())
    told["connected"] = bool(made)
    return told


def fork(run_story: Callable[[Story], Any], story: Story, end: str) -> Any:
    """Run a story in a forked child, and tell what it returned."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        signal.alarm(60)  # whoever kills the parent does not know of this one
        try:
            os.write(write, json.dumps(run_story(story)).encode())
        except BaseException:  # noqa: BLE001  # the parent reads nothing, and says so
            traceback.print_exc()
        if end == "exits":
            sys.exit()
        os._exit(0)
    story.close()
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = json.loads(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    return told


@contextmanager
def none_given_up() -> Iterator[None]:
    """No connection of this process may need to be given up meanwhile."""
    given_up: list[object] = []
    originals = {name: getattr(wire, name) for name in ("hang_up", "hang_up_async")}

    def watched(name: str) -> Callable[[Any], Any]:
        def hang_up(line: Any) -> Any:
            given_up.append(line)
            return originals[name](line)

        return hang_up

    with ExitStack() as patches:
        for name in originals:
            patches.enter_context(patch.object(wire, name, watched(name)))
        yield
    assert not given_up, f"{len(given_up)} connections were disturbed"


def is_dropped_by_a_child(url: str, prefix: str) -> None:
    """Fork between two uses of an asyncio client; the child, on a loop of its own, drops it."""

    async def used() -> None:
        queue = clients[0].queue("orders")
        await queue.send_message("again")
        messages = await queue.get_messages(timeout=20)
        assert await queue.acknowledge_messages(messages) == len(messages) == 1

    async def dropped() -> None:
        clients.clear()
        gc.collect()

    clients = [AsyncLeanMQ(url, prefix=prefix)]
    with asyncio.Runner() as runner:
        runner.run(used())
        with none_given_up():
            fork(asyncio.run, dropped(), "leaves")
            runner.run(used())
        runner.run(clients[0].close())


async def on_a_loop(story: Story) -> None:
    """Run a story of an asyncio client; its callbacks may be slow, the machine may be busy."""
    asyncio.get_running_loop().slow_callback_duration = 60
    await story


def main(name: str, world: str, url: str, prefix: str) -> None:
    """Tell the story of this name."""
    # A shell has its background jobs ignore Ctrl-C, and so their children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Python 3.12 warns of forks beside threads; the library's word is that it bears them.
    warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
    story = globals()[name]
    if name == "is_dropped_by_a_child":
        story(url, prefix)
    elif world == "sync":
        run(story(world, lambda: LeanMQ(url, prefix=prefix)))
    else:
        asyncio.run(on_a_loop(story(world, lambda: AsyncLeanMQ(url, prefix=prefix))))
    tell("done")


if __name__ == "__main__":
    main(*sys.argv[1:])
