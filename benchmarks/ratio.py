"""How fast LeanMQ is, as a share of what the bare protocol can do, in one run.

``python -m benchmarks.ratio``: medians of five rounds in which the bare socket, redis-py's own
pipeline and LeanMQ take turns; then the commands that an idle consumer costs. Exit 1 below the
marks (60% for bulk sends, 45% for receive + acknowledge, two commands a second idle), or if
the yardstick itself is broken: a bare socket is faster than redis-py's pipeline.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.raw import RawRedis
from benchmarks.server import server
from leanmq import LeanMQ, Queue

BODY = {"id": 1234567, "customer": "c" * 60, "note": "n" * 93}
SEND, RECEIVE = 500, 100
MARKS = {"send": 0.60, "receive": 0.45}
IDLE_MARK = 2.0

encode = msgspec.json.encode
decode = msgspec.json.decode


def raw_send(raw: RawRedis, messages: int) -> None:
    """XADD by 500, one ``sendall`` a batch, bodies encoded on the way as ours are."""
    for _ in range(0, messages, SEND):
        raw.run([("XADD", "raw", "*", "b", encode(BODY)) for _ in range(SEND)])


def raw_receive(raw: RawRedis, messages: int) -> None:
    """XREADGROUP 100, decode, XACK + XDEL in one write."""
    done = 0
    while done < messages:
        [reply] = raw.run(
            [("XREADGROUP", "GROUP", "g", "c", "COUNT", RECEIVE, "STREAMS", "raw", ">")]
        )
        entries = reply[0][1]
        for _, fields in entries:
            decode(fields[1])
        ids = [entry for entry, _ in entries]
        raw.run([("XACK", "raw", "g", *ids), ("XDEL", "raw", *ids)])
        done += len(ids)


def pipeline_send(client: Any, messages: int) -> None:
    """redis-py's own pipeline, for comparison."""
    for _ in range(0, messages, SEND):
        pipeline = client.pipeline(transaction=False)
        for _ in range(SEND):
            pipeline.xadd("raw", {"b": encode(BODY)})
        pipeline.execute()


def our_send(queue: Queue, messages: int) -> None:
    """One bulk send."""
    queue.send_messages(BODY for _ in range(messages))


def our_receive(queue: Queue, messages: int) -> None:
    """Receive 100, acknowledge 100."""
    done = 0
    while done < messages:
        batch = queue.get_messages(RECEIVE)
        queue.acknowledge_messages(batch)
        done += len(batch)


def seconds(work: Callable[..., None], *arguments: Any) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def ratios(port: int, messages: int, rounds: int) -> dict[str, float]:
    """Prints a line a round; returns the medians of our share."""
    shares: dict[str, list[float]] = {"send": [], "receive": [], "pipeline": []}
    client = redis.Redis(port=port, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=30)
    with RawRedis("127.0.0.1", port) as raw, LeanMQ(f"redis://127.0.0.1:{port}/0") as mq:
        queue = mq.queue("ours")
        raw.run([("XGROUP", "CREATE", "raw", "g", "0", "MKSTREAM")])
        raw_send(raw, SEND * 4)  # warm up everything
        raw_receive(raw, SEND * 4)
        our_send(queue, SEND * 4)
        our_receive(queue, SEND * 4)
        for number in range(1, rounds + 1):
            took = {
                "raw send": seconds(raw_send, raw, messages),
                "raw receive": seconds(raw_receive, raw, messages),
                "our send": seconds(our_send, queue, messages),
                "our receive": seconds(our_receive, queue, messages),
                "pipeline": seconds(pipeline_send, client, messages // 5) * 5,
            }
            raw_receive(raw, messages // 5)
            shares["send"].append(took["raw send"] / took["our send"])
            shares["receive"].append(took["raw receive"] / took["our receive"])
            shares["pipeline"].append(took["raw send"] / took["pipeline"])
            rates = "  ".join(f"{name} {messages / t:9,.0f}/s" for name, t in took.items())
            print(
                f"round {number}: {rates}  "
                f"share: send {shares['send'][-1]:.0%}, receive {shares['receive'][-1]:.0%}"
            )
    client.close()
    return {name: statistics.median(values) for name, values in shares.items()}


class CountingProxy:
    """A loopback proxy that counts the requests of one client, and its round trips."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.commands = 0
        self.trips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server_side = socket.create_connection(("127.0.0.1", self._upstream))
            turn = {"asked": False}
            for pair in ((client, server_side), (server_side, client)):
                threading.Thread(target=self._pump, args=(*pair, turn), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, turn: dict[str, bool]) -> None:
        upstream = target.getpeername()[1] == self._upstream
        with suppress(OSError):  # the other direction has closed
            while data := source.recv(1 << 16):
                if upstream:
                    self.commands += sum(line[:1] == b"*" for line in data.split(b"\r\n"))
                    self.trips += not turn["asked"]
                turn["asked"] = upstream
                target.sendall(data)
        target.close()


def idle_commands(port: int) -> float:
    """Commands a second that one ``get_messages(block=True)`` costs on an empty queue.

    The difference of a long wait and a short one: what each costs to begin drops out.
    """
    proxy = CountingProxy(port)
    with LeanMQ(f"redis://127.0.0.1:{proxy.port}/0") as mq:
        queue = mq.queue("idle")
        queue.get_messages(timeout=0.1)
        counts = []
        for span in (2.5, 7.5):
            before = proxy.commands
            queue.get_messages(block=True, timeout=span)
            counts.append(proxy.commands - before)
    return (counts[1] - counts[0]) / 5.0


def main() -> int:
    """Run and judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    body = len(encode(BODY))
    print(f"{options.messages:,} messages of {body} bytes, sends by {SEND}, receives by {RECEIVE}")
    with server() as port:
        medians = ratios(port, options.messages, options.rounds)
        idle = idle_commands(port)
    failures = []
    for name, mark in MARKS.items():
        print(f"median share of the bare socket, {name}: {medians[name]:.0%} (mark {mark:.0%})")
        if medians[name] < mark:
            failures.append(name)
    print(f"redis-py's pipeline sends at {medians['pipeline']:.0%} of the bare socket")
    if medians["pipeline"] >= 1:
        failures.append("the yardstick: a bare socket slower than redis-py's pipeline")
    print(f"idle get_messages(block=True): {idle:.2f} commands a second (mark {IDLE_MARK:.0f})")
    if idle > IDLE_MARK:
        failures.append("idle")
    if failures:
        print("below the mark: " + "; ".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
