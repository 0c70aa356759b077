"""``leanmq send``: one message from the command line, or one for each line of the input."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import BufferedReader
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import click

from leanmq.cli.lazy import command as command_named
from leanmq.cli.lazy import option
from leanmq.cli.output import Output
from leanmq.cli.session import Session, made, queue_name
from leanmq.cli.text import counted, printable

if TYPE_CHECKING:
    from leanmq import LeanMQ, LeanMQError, Outgoing, Queue

__all__ = ["command"]

AT_ONCE = 64 * 1024
"""Bytes that are read at once: some hundred messages, or what a slow writer has ready."""

LONGEST_LINE = 64 * 1024 * 1024
"""Bytes. A longer line is no message, but input without line ends."""


@command_named("send")
@click.argument("queue", type=queue_name)
@click.argument("data", required=False)
@option("--key", help="What it is about, such as a customer's number.")
@option(
    "--ttl",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Not handed out after this time, but deleted.",
)
@option(
    "--delay",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Not handed out before this time.",
)
@option("--dedup-id", help="A second message with the same one is not stored.")
@option(
    "--header",
    "headers",
    multiple=True,
    metavar="NAME=VALUE",
    help="Travels with it; may be given several times.",
)
def command(
    queue: str,
    data: str | None,
    key: str | None,
    ttl: float | None,
    delay: float | None,
    dedup_id: str | None,
    headers: Sequence[str],
) -> None:
    r"""Send DATA, which is JSON, to a queue; it is made if it does not exist.

    With - for DATA, or without DATA from a pipe, each line of the input is one message.

    \b
    leanmq send orders '{"id": 7}'
    leanmq send orders --delay 60 '"a string has its quotes"'
    leanmq send orders - < orders.jsonl
    """
    session = Session.current()
    fields = _headers(headers)
    if data is None and sys.stdin.isatty():
        raise click.UsageError("there is nothing to send; give DATA, or - to type lines")
    if data is None or data == "-":
        if dedup_id is not None:
            raise click.UsageError("--dedup-id is for one message; all lines would count as one")
        from leanmq import Outgoing

        outgoing = partial(Outgoing, key=key, ttl_seconds=ttl, delay=delay, headers=fields)
        with session.client() as mq:
            _send_lines(mq, queue, outgoing, session.output)
        return
    try:
        value = _decoded(data)
    except ValueError as error:
        raise click.UsageError(_not_json("DATA", data, error)) from None
    with session.client() as mq:
        _say_if_lost(mq)
        sent = made(mq, queue).send_message(
            value, key=key, ttl_seconds=ttl, delay=delay, headers=fields, dedup_id=dedup_id
        )
    session.output.say(sent, {"queue": queue, "id": sent})


def _send_lines(mq: LeanMQ, queue: str, outgoing: partial[Outgoing[Any]], output: Output) -> None:
    """Send what comes, as it comes: a slow writer waits for nobody."""
    from leanmq import BulkSendError, LeanMQError

    _say_if_lost(mq)
    handle: Queue[Any] | None = None
    source = sys.stdin.buffer
    sent = number = 0
    with _progress(source) as advance:
        for lines, size in _batches(source):
            batch: list[Outgoing[Any]] = []
            wrong: str | None = None
            for line in lines:
                number += 1
                try:
                    if line.strip():
                        batch.append(outgoing(_decoded(line)))
                except ValueError as error:
                    wrong = _not_json(f"line {number}", line.decode("utf-8", "replace"), error)
                    break
            failure: LeanMQError | None = None
            ids: Iterable[str] = ()
            try:
                if batch:
                    handle = handle or made(mq, queue)
                    ids = handle.send_messages(batch)
            except BulkSendError as error:
                failure, ids = error, error.confirmed.values()
            except LeanMQError as error:
                failure = error
            for sent_id in ids:
                sent += 1
                if output.json:
                    output.say("", {"queue": queue, "id": sent_id})
            if failure:
                _stopped(queue, sent, failure)
            if wrong:
                raise click.ClickException(f"{wrong}; {_were(sent)} sent to {queue!r}")
            advance(size, sent)
    if not output.json:
        click.echo(f"sent {counted(sent, 'message')} to {queue!r}")


def _stopped(queue: str, sent: int, error: LeanMQError) -> NoReturn:
    """Say what was sent, and what may have been."""
    unknown = len(getattr(error, "unknown", ()))
    if not sent and not unknown:
        raise error
    doubt = f", {unknown:,} more may have been" if unknown else ""
    raise click.ClickException(
        f"{error.__cause__ or error}; {_were(sent)} sent to {queue!r}{doubt}"
    ) from error


def _were(sent: int) -> str:
    return f"{counted(sent, 'message')} {'was' if sent == 1 else 'were'}"


def _batches(source: BinaryIO) -> Iterator[tuple[list[bytes], int]]:
    """Whole lines, as many as are there, and how many bytes were read for them."""
    read = cast("BufferedReader", source).read1  # what is there, without waiting for more
    begun: list[bytes] = []  # of a line whose end has not come
    size = 0
    while chunk := read(AT_ONCE):
        size += len(chunk)
        head, found, rest = chunk.rpartition(b"\n")
        if not found:
            begun.append(chunk)
            if sum(map(len, begun)) > LONGEST_LINE:
                raise click.ClickException(
                    f"a line has more than {LONGEST_LINE // 1024**2} MiB; end each message with "
                    "a line feed"
                )
            continue
        yield b"".join([*begun, head]).split(b"\n"), size
        begun, size = [rest] if rest else [], 0
    if begun:
        yield [b"".join(begun)], size


@contextmanager
def _progress(source: BinaryIO) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal: of the file's size, or only a count if that is not known."""
    if not sys.stderr.isatty() or source.isatty():
        yield lambda size, sent: None
        return
    status = os.fstat(source.fileno())
    if stat.S_ISREG(status.st_mode) and status.st_size:
        with click.progressbar(length=status.st_size, label="sending", file=sys.stderr) as bar:
            yield lambda size, sent: bar.update(size)
        return
    try:
        yield lambda size, sent: click.echo(f"\rsending: {sent:,}", nl=False, err=True)
    finally:
        click.echo(err=True)


def _say_if_lost(mq: LeanMQ) -> None:
    """Who tries memory:// here looks for the message in vain afterwards."""
    if not mq.open().shared:
        click.echo("leanmq: note: memory:// ends with this command, and all it holds", err=True)


def _headers(pairs: Sequence[str]) -> dict[str, str] | None:
    headers = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not name or not found:
            raise click.UsageError(f"--header {printable(pair, 60)!r}: write NAME=VALUE")
        headers[name] = value
    return headers or None


def _decoded(text: str | bytes) -> Any:
    """The value that JSON says; ValueError if it is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _not_json(what: str, text: str, error: ValueError) -> str:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return (
        f"{what} is not JSON ({reason}): {printable(text.strip(), 60)}; a string needs its "
        "double quotes"
    )
