"""``docs/cli.md`` says what the commands print: they are run in order, on a real server."""

from __future__ import annotations

import re
import subprocess
import sys

from leanmq import LeanMQ, Outgoing
from tests.cli.terminal import ROOT, environment

PAGE = ROOT / "docs" / "cli.md"
EXAMPLE = re.compile(r"^```sh\n(.*?)^```\n\n```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SAID = "redis://localhost:6379/0"
CHANGING = [
    (r"\bd\d{16,}\b", "d1795623383579000001"),
    (r"\b\d{13}-\d+\b", "1795623383285-0"),
    (r"\b\d{10}\.\d+\b", "1795623383.285"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d", "2026-11-25 16:16:23+00:00"),
    (r"answers in [\d.]+ ms", "answers in 0.1 ms"),
]


def even(text: str) -> str:
    """The text with ids and times that are always the same, and columns of no certain width."""
    for pattern, same in CHANGING:
        text = re.sub(pattern, same, text)
    return re.sub(r" {2,}", "  ", text)


def printed(script: str, url: str) -> str:
    """What a shell prints when it runs this."""
    program = f'leanmq() {{ "{sys.executable}" -m leanmq "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-ec", program + script],
        cwd=ROOT,
        env=environment(LEANMQ_URL=url, TZ="UTC"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), script
    return done.stdout.replace(url, SAID)


def bury(url: str) -> str:
    """Make a dead letter of the first order; returns its id."""
    with LeanMQ(url) as mq:
        orders = mq.queue("orders")
        [message] = orders.get_messages(count=1)
        orders.move_to_dlq(message, reason="there is no address on it")
    return message.id


def fill_shards(url: str) -> None:
    """Make the queue in shards that the page shows: orders of a few customers."""
    with LeanMQ(url) as mq:
        carts = mq.sharded_queue("carts", shards=4)
        carts.send_messages([Outgoing(n, key=f"customer {n % 10}") for n in range(100)])


def test_the_commands_on_the_page_print_what_it_says(redis_url: str) -> None:
    text = PAGE.read_text("utf-8")
    examples = EXAMPLE.findall(text)

    dead = ""
    for commands, said in examples:
        if "dlq" in commands and not dead:
            dead = bury(redis_url)
        if "leanmq shards carts" in commands:
            fill_shards(redis_url)
        script = re.sub(r"^export .*\n", "", commands, flags=re.MULTILINE)
        found = printed(re.sub(r"\bID\b", dead, script), redis_url)
        assert even(found) == even(said), commands

    assert len(examples) == text.count("```sh")
