"""A consumer in a process of its own, told what to do line by line; for tests that kill it.

``python -m tests.contract.consumer_process URL PREFIX QUEUE``: answers every line of its
standard input with one line. ``take N`` receives N messages and holds them, ``settle VERB``
tries a verb on all of them, ``doom`` consumes with 8 threads until a message says ``kills``,
``fork`` has a forked child settle what its parent holds, and send a message.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from leanmq import LeanMQ, Message, Queue


def take(queue: Queue, number: int) -> list[Message[Any]]:
    """Receive ``number`` messages."""
    held: list[Message[Any]] = []
    while len(held) < number:
        held += queue.get_messages(number - len(held), timeout=5)
    return held


def doom(queue: Queue) -> None:
    """Work with 8 threads; die at once, uncleanly, by the message that kills."""

    def work() -> None:
        while True:
            messages = queue.get_messages(3, timeout=1)
            for message in messages:
                if message.data["kills"]:
                    os._exit(9)
                time.sleep(0.002)
                queue.acknowledge_messages(message)
            if not messages and not queue.get_info().message_count:
                return

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def fork(queue: Queue, held: list[Message[Any]]) -> str:
    """Tell how many of our messages a forked child could settle, and how many we could."""
    read, write = os.pipe()
    if not os.fork():
        settled = queue.acknowledge_messages(held)
        queue.send_message("from the child")
        os.write(write, str(settled).encode())
        os._exit(0)
    os.wait()
    return f"{os.read(read, 10).decode()} {queue.acknowledge_messages(held)}"


def main(url: str, prefix: str, name: str) -> None:
    """Serve commands until standard input ends."""
    queue = LeanMQ(url, prefix=prefix).queue(name)
    held: list[Message[Any]] = []
    verbs: dict[str, Callable[[Any], int]] = {
        "acknowledge": queue.acknowledge_messages,
        "release": queue.release_messages,
        "retry": queue.retry_messages,
        "extend": queue.extend_messages,
        "dead-letter": queue.move_to_dlq,
    }
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "take":
            held = take(queue, int(argument))
            answer = str(len(held))
        elif command == "settle":
            answer = str(verbs[argument](held))
        elif command == "fork":
            answer = fork(queue, held)
        else:
            doom(queue)
            answer = "done"
        print(answer, flush=True)  # noqa: T201  # the protocol


if __name__ == "__main__":
    main(*sys.argv[1:])
