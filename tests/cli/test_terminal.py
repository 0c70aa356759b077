"""What only a real process shows: tables on a terminal, questions, Ctrl-C, pipes that break."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from leanmq import LeanMQ
from tests.cli.terminal import PROGRAM, ROOT, environment, on_terminal

LINE = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * 5
WITHOUT_RICH = (
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None\n"
    "from leanmq.cli import main\nsys.exit(main(sys.argv[1:]))",
)


@pytest.fixture
def mq(redis_url: str) -> LeanMQ:
    """A queue of three messages on a server."""
    with LeanMQ(redis_url) as mq:
        mq.queue("orders").send_messages([{"id": n} for n in range(3)])
    return mq


def test_a_terminal_gets_a_drawn_table(mq: LeanMQ, redis_url: str) -> None:
    with on_terminal("queues", "--url", redis_url) as terminal:
        status = terminal.end()

    assert status == 0
    assert LINE in terminal.text
    assert "\x1b[" in terminal.text


def test_without_rich_a_terminal_gets_plain_lines(mq: LeanMQ, redis_url: str) -> None:
    with on_terminal("queues", "--url", redis_url, program=WITHOUT_RICH) as terminal:
        status = terminal.end()

    assert status == 0
    assert terminal.text.splitlines() == [
        "QUEUE   READY  IN FLIGHT  DELAYED  DEAD",
        "orders      3          0        0     0",
    ]


def test_json_on_a_terminal_is_not_drawn(mq: LeanMQ, redis_url: str) -> None:
    with on_terminal("queues", "--url", redis_url, "--json") as terminal:
        terminal.end()

    assert terminal.text.startswith('{"queue": "orders"')
    assert "\x1b" not in terminal.text


def test_no_color_is_respected() -> None:
    with on_terminal("demo", "--seconds", "1", variables={"NO_COLOR": "1"}) as terminal:
        status = terminal.end()

    assert status == 0
    assert LINE in terminal.text
    assert not [code for code in range(30, 38) if f"\x1b[{code}m" in terminal.text]


def test_a_purge_asks_and_obeys(mq: LeanMQ, redis_url: str) -> None:
    with on_terminal("purge", "orders", "--url", redis_url) as terminal:
        terminal.wait_for("Delete all 3 messages of 'orders' (0 in flight)? [y/N]")
        terminal.type("n\n")
        refused = terminal.end()
    assert "nothing was deleted" in terminal.text
    with on_terminal("purge", "orders", "--url", redis_url) as terminal:
        terminal.wait_for("[y/N]")
        interrupted = terminal.interrupt()
    with on_terminal("purge", "orders", "--url", redis_url) as terminal:
        terminal.wait_for("[y/N]")
        terminal.type("y\n")
        agreed = terminal.end()

    assert (refused, interrupted, agreed) == (1, 130, 0)
    assert "deleted 3 messages of 'orders'" in terminal.text


def test_watching_draws_one_table_until_ctrl_c(mq: LeanMQ, redis_url: str) -> None:
    with on_terminal("queues", "watch", "--interval", "0.1", "--url", redis_url) as terminal:
        terminal.wait_for("every 0.1 s\r\x1b[2K\x1b[1A")  # drawn, and drawn over
        status = terminal.interrupt()

    assert status == 130
    assert "\x1b[?25h" in terminal.text, "the cursor is not shown again"
    assert "Traceback" not in terminal.text


def test_a_bulk_send_shows_how_far_it_is(redis_url: str, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text("".join(f"{n}\n" for n in range(50_000)))

    with (
        lines.open("rb") as stdin,
        on_terminal("send", "bulk", "--url", redis_url, stdin=stdin) as terminal,
    ):
        status = terminal.end()

    assert status == 0
    assert "sending  [####################################]  100%" in terminal.text
    assert "sent 50,000 messages to 'bulk'" in terminal.text


def test_nothing_to_send_is_said_and_not_waited_for(redis_url: str) -> None:
    with on_terminal("send", "orders", "--url", redis_url) as terminal:
        status = terminal.end()

    assert status == 2
    assert "there is nothing to send" in terminal.text


def test_a_reader_that_leaves_ends_it_in_silence(redis_url: str) -> None:
    with subprocess.Popen(
        [*PROGRAM, "send", "bulk", "--json", "--url", redis_url],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(b"1\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b'{"queue": "bulk"')
        process.stdout.close()
        process.stdin.write(b"2\n3\n")
        process.stdin.close()
        status, told = process.wait(60), process.stderr.read()

    assert (status, told) == (141, b"")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"]
)
def test_a_demo_that_is_stopped_deletes_what_it_made(
    redis_url: str, number: signal.Signals, status: int
) -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo", "--url", redis_url, "--seconds", "60"],
        cwd=ROOT,
        env=environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        while "shipped" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(number)
        ended, told = process.wait(60), process.stderr.read()

    assert (ended, told) == (status, "")
    assert keys_of(redis_url) == []


def keys_of(url: str) -> list[bytes]:
    import redis

    with redis.Redis.from_url(url) as client:
        return sorted(client.keys("*"))
