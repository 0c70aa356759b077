"""Every trouble of redis-py becomes one error of ours, as a value; no line is reused dirty."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from redis import exceptions as redis_errors
from redis.connection import DefaultParser

from leanmq.backends.faults import redirect, translate, troubles
from leanmq.backends.lines import pack
from leanmq.backends.urls import parse_url
from leanmq.backends.wire import AsyncWire, NodeCall, Wire
from leanmq.errors import (
    AccessError,
    BackendError,
    ClosedError,
    ConnectionError,
    LeanMQError,
    OutcomeUnknownError,
    QueueFullError,
    ServerStateError,
)

WHERE = "10.0.0.1:6379"
HERE = ("127.0.0.1", 6379)
PING = ("PING",)


# What redis-py makes of an error reply.
refusal: Callable[[str], Exception] = DefaultParser.parse_error


def ours(error: Exception, *, sent: bool = True, idempotent: bool = False) -> LeanMQError:
    return translate(error, sent=sent, idempotent=idempotent, where=WHERE)


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        ("LOADING Redis is loading the dataset in memory", ConnectionError, "LOADING"),
        ("READONLY You can't write against a read only replica.", ConnectionError, "READONLY"),
        ("CLUSTERDOWN Hash slot not served", ConnectionError, "CLUSTERDOWN"),
        ("TRYAGAIN Multiple keys request during rehashing", ConnectionError, "TRYAGAIN"),
        ("MASTERDOWN Link with MASTER is down", ConnectionError, "MASTERDOWN"),
        ("UNBLOCKED force unblock from blocking operation", ConnectionError, "UNBLOCKED"),
        ("MOVED 3999 10.0.0.2:6381", ConnectionError, "MOVED"),
        ("ASK 3999 10.0.0.2:6381", ConnectionError, "ASK"),
        ("OOM command not allowed when used memory > 'maxmemory'.", QueueFullError, "OOM"),
        ("OOM command not allowed. script: 8b, on @user_script:1.", QueueFullError, "OOM"),
        ("MISCONF Errors writing to the AOF file", ServerStateError, "MISCONF"),
        ("NOREPLICAS Not enough good replicas to write.", ServerStateError, "NOREPLICAS"),
        ("BUSY Redis is busy running a script.", ServerStateError, "BUSY"),
        ("NOPERM No permissions to access a key", AccessError, "NOPERM"),
        ("NOSCRIPT No matching script.", BackendError, "NOSCRIPT"),
        ("NOGROUP No such key 'k' or consumer group 'g'", BackendError, "NOGROUP"),
        ("BUSYGROUP Consumer Group name already exists", BackendError, "BUSYGROUP"),
        ("WRONGTYPE Operation against a key", BackendError, "WRONGTYPE"),
        ("CROSSSLOT Keys in request don't hash to the same slot", BackendError, "CROSSSLOT"),
    ],
)
def test_an_error_reply_was_not_carried_out_and_keeps_its_code(
    reply: str, kind: type[LeanMQError], code: str
) -> None:
    cause = refusal(reply)

    error = ours(cause)

    assert type(error) is kind
    assert (error.code, error.in_doubt) == (code, False)
    assert error.__cause__ is cause
    assert WHERE in str(error)
    assert code in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOAUTH Authentication required.",
        "ERR invalid password",
        "ERR Client sent AUTH, but no password is set",
    ],
)
def test_a_refused_user_is_an_access_error(reply: str) -> None:
    assert type(ours(refusal(reply))) is AccessError
    assert type(ours(refusal(reply), sent=False)) is AccessError


def test_too_many_clients_can_be_tried_again() -> None:
    error = ours(refusal("ERR max number of clients reached"), sent=False)

    assert type(error) is ConnectionError
    assert "maxclients" in str(error)


@pytest.mark.parametrize(
    "cause",
    [
        redis_errors.ConnectionError("Connection closed by server."),
        redis_errors.TimeoutError("Timeout reading from socket"),
        TimeoutError(),
        ConnectionResetError(104, "Connection reset by peer"),
        redis_errors.InvalidResponse("Protocol Error: b'...'"),
    ],
)
def test_a_lost_reply_is_unknown_and_only_a_connection_error_if_repeating_is_safe(
    cause: Exception,
) -> None:
    once, often = ours(cause), ours(cause, idempotent=True)

    assert (type(once), once.in_doubt) == (OutcomeUnknownError, True)
    assert (type(often), often.in_doubt) == (ConnectionError, True)
    assert not isinstance(once, ConnectionError)


@pytest.mark.parametrize(
    "cause",
    [
        redis_errors.ConnectionError("Error 111 connecting to 10.0.0.1:6379."),
        redis_errors.TimeoutError("Timeout connecting to server"),
        TimeoutError(),
        socket.gaierror(-2, "Name or service not known"),
    ],
)
def test_what_was_not_sent_is_known_not_to_be_carried_out(cause: Exception) -> None:
    error = ours(cause, sent=False)

    assert (type(error), error.in_doubt, error.code) == (ConnectionError, False, "")
    assert "cannot be reached" in str(error)


def test_trouble_with_tls_says_so() -> None:
    cause = redis_errors.ConnectionError("Error 1 connecting")
    cause.__context__ = ssl.SSLCertVerificationError(1, "certificate verify failed")

    error = ours(cause, sent=False)

    assert type(error) is ConnectionError
    assert str(error).startswith("TLS with server")


def test_a_mistake_of_our_own_is_no_connection_error() -> None:
    assert type(ours(TypeError("None"), sent=False)) is BackendError


@pytest.mark.parametrize(
    "cause",
    [
        refusal("ERR unknown command 'NOPE', with args beginning with: 'hunter2' "),
        TypeError("hunter2"),
        UnicodeEncodeError("utf-8", "hunter2", 0, 1, "surrogates not allowed"),
        redis_errors.InvalidResponse("Protocol Error: b'hunter2'"),
    ],
)
@pytest.mark.parametrize("sent", [True, False])
def test_no_message_quotes_a_command(cause: Exception, sent: bool) -> None:
    assert "hunter2" not in str(ours(cause, sent=sent))


def test_an_error_of_ours_stays_what_it_is() -> None:
    error = ClosedError("closed")

    assert ours(error) is error


def test_the_cause_does_not_keep_the_frames_with_the_commands() -> None:
    try:
        raise refusal("NOSCRIPT No matching script.")
    except redis_errors.RedisError as caught:
        cause = caught

    assert ours(cause).__cause__ is cause
    assert cause.__traceback__ is None


@pytest.mark.parametrize(
    ("reply", "target"),
    [
        ("MOVED 3999 10.0.0.2:6381", ("10.0.0.2", 6381)),
        ("ASK 3999 ::1:6381", ("::1", 6381)),
        ("MOVED 3999 :6381", ("127.0.0.1", 6381)),
        ("CLUSTERDOWN Hash slot not served", None),
    ],
)
def test_a_redirection_tells_its_target(reply: str, target: object) -> None:
    assert redirect(ours(refusal(reply)), HERE) == target


def test_only_what_may_have_moved_is_trouble() -> None:
    moved, lost = ours(refusal("MOVED 1 h:1")), ours(TimeoutError())
    outcomes = [b"OK", ours(refusal("NOSCRIPT x")), moved, lost, ours(refusal("OOM x"))]

    assert troubles(outcomes) == [moved, lost]


def test_commands_are_packed_alike_with_and_without_hiredis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = (("SET", "k\u00e9", b"\xff", 12), ("PING",))
    packed = pack(commands)

    monkeypatch.setattr("leanmq.backends.lines.pack_command", None)

    assert pack(commands) == packed
    assert packed.startswith(b"*4\r\n$3\r\nSET\r\n$3\r\nk\xc3\xa9\r\n$1\r\n\xff\r\n$2\r\n12\r\n")


# -- the wires, on scripted lines ------------------------------------------------------------


class Script:
    """What the lines of one test do, and what became of them."""

    def __init__(self) -> None:
        self.replies: list[Any] = []
        self.refuse: Exception | None = None
        self.made: list[ScriptedLine] = []


class ScriptedLine:
    """As much of a redis-py connection as a wire uses, in both worlds."""

    script: ClassVar[Script]

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.open = False
        self._sock, self.server = socket.socketpair()
        self._writer = self
        self.transport = self
        self.script.made.append(self)

    def get_extra_info(self, _: str) -> socket.socket:
        return self._sock

    def is_closing(self) -> bool:
        return not self.open

    def abort(self) -> None:
        self.open = False

    def _connect(self) -> None:
        if self.script.refuse:
            raise self.script.refuse
        self.open = True

    def _written(self) -> None:
        """For those who want to know."""

    def _read(self) -> Any:
        reply = self.script.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply


class SyncLine(ScriptedLine):
    def connect(self) -> None:
        self._connect()

    def send_packed_command(self, data: tuple[bytes], check_health: bool) -> None:
        assert self.open
        self._written()

    def read_response(self, disconnect_on_error: bool) -> Any:
        return self._read()

    def disconnect(self) -> None:
        self.open = False


class AsyncLine(ScriptedLine):
    async def connect(self) -> None:
        self._connect()

    async def send_packed_command(self, data: tuple[bytes], check_health: bool) -> None:
        assert self.open
        self._written()

    async def read_response(self, disconnect_on_error: bool) -> Any:
        return self._read()

    async def disconnect(self, nowait: bool) -> None:
        assert nowait
        self.open = False


class Bench:
    """A wire of either world on scripted lines, used as if it were sync."""

    def __init__(self, world: str, loop: asyncio.AbstractEventLoop) -> None:
        kind: type[ScriptedLine] = SyncLine if world == "sync" else AsyncLine
        self.kind, self.is_async = kind, world == "asyncio"
        self.script = kind.script = Script()
        target = parse_url("redis://ann:pw@127.0.0.1/2")
        self.wire = Wire(target) if world == "sync" else AsyncWire(target)
        self.wire._lines._kinds = (kind, kind, kind)
        self._loop = loop

    def do(self, made: Any) -> Any:
        return self._loop.run_until_complete(made) if asyncio.iscoroutine(made) else made

    def run(self, *commands: tuple[str, ...], **options: Any) -> list[Any]:
        outcomes = self.do(self.wire.run(NodeCall(HERE, commands or (PING,), False, **options)))
        assert isinstance(outcomes, list)
        return outcomes


@pytest.fixture(params=["sync", "asyncio"])
def bench(request: pytest.FixtureRequest) -> Any:
    loop = asyncio.new_event_loop()
    bench = Bench(request.param, loop)
    yield bench
    loop.close()
    for line in bench.script.made:
        line._sock.close()
        line.server.close()


def test_replies_come_in_order_and_the_line_is_used_again(bench: Bench) -> None:
    bench.script.replies = [b"1", None, 3, b"4"]

    assert bench.run(PING, PING, PING) == [b"1", None, 3]
    assert bench.run() == [b"4"]
    assert len(bench.script.made) == 1


def test_an_error_reply_is_one_outcome_and_reading_goes_on(bench: Bench) -> None:
    bench.script.replies = [refusal("LOADING x"), refusal("NOSCRIPT x"), b"3"]

    first, second, third = bench.run(PING, PING, PING)

    assert (first.code, second.code, third) == ("LOADING", "NOSCRIPT", b"3")
    assert bench.script.made[0].open


def test_what_was_read_before_the_line_broke_stays_known(bench: Bench) -> None:
    bench.script.replies = [b"1", redis_errors.ConnectionError("closed")]

    first, second, third = bench.run(PING, PING, PING)

    assert first == b"1"
    assert isinstance(second, OutcomeUnknownError)
    assert isinstance(third, OutcomeUnknownError)
    assert not bench.script.made[0].open


def test_a_server_that_cannot_be_reached_is_a_value(bench: Bench) -> None:
    bench.script.refuse = redis_errors.ConnectionError("refused")

    (outcome,) = bench.run()

    assert (type(outcome), outcome.in_doubt) == (ConnectionError, False)
    assert not bench.script.made[0].open


@pytest.mark.parametrize("blow", [KeyboardInterrupt, asyncio.CancelledError])
def test_an_interrupted_call_closes_its_line(bench: Bench, blow: type[BaseException]) -> None:
    bench.script.replies = [b"1", blow(), b"of the old call", b"3"]

    with pytest.raises(blow):
        bench.run(PING, PING, PING)

    assert not bench.script.made[0].open
    bench.script.replies = [b"mine"]
    assert bench.run() == [b"mine"]
    assert len(bench.script.made) == 2


@pytest.mark.parametrize("stir", [socket.socket.close, lambda server: server.send(b"+stray\r\n")])
def test_an_idle_line_that_stirs_is_not_used(
    bench: Bench, stir: Callable[[socket.socket], object]
) -> None:
    bench.script.replies = [b"1", b"2"]
    bench.run()

    stir(bench.script.made[0].server)

    assert bench.run() == [b"2"]
    assert [line.open for line in bench.script.made] == [False, True]


def test_dropped_and_closed_lines_are_closed(bench: Bench) -> None:
    bench.script.replies = [b"1", b"2"]
    bench.run()
    bench.do(bench.wire.drop(HERE))
    bench.run()
    bench.do(bench.wire.close())

    assert [line.open for line in bench.script.made] == [False, False]
    assert isinstance(bench.run()[0], ClosedError)


def test_a_forked_child_has_lines_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.script.replies = [b"1", b"2"]
    bench.run()

    monkeypatch.setattr(os, "getpid", lambda: -1)
    bench.run()
    bench.do(bench.wire.close())

    assert [line.open for line in bench.script.made] == [True, False]


def test_blocking_calls_have_a_longer_patience_than_others(bench: Bench) -> None:
    bench.wire._timeout = 2.0
    bench.script.replies = [b"1", b"2", b"3"]

    bench.run()
    bench.run(block=1.0)
    bench.run(limit=0.5)

    patience = [line.settings["socket_connect_timeout"] for line in bench.script.made]
    assert patience == [2.0, 3.0, 0.5]


def test_no_call_is_given_longer_than_the_user_wants_to_wait(bench: Bench) -> None:
    bench.wire._timeout = 0.2
    bench.script.replies = [b"1", b"2"]

    bench.run(limit=0.5)
    bench.run(limit=0.1)

    patience = [line.settings["socket_connect_timeout"] for line in bench.script.made]
    assert patience == [0.2, 0.1]


def test_lines_have_the_account_of_their_server_and_never_resend(bench: Bench) -> None:
    bench.script.replies = [b"1", b"2"]
    bench.run()
    bench.do(bench.wire.run(NodeCall(("127.0.0.1", 26379), (PING,), True, sentinel=True)))

    data, sentinel = (line.settings for line in bench.script.made)

    assert (data["username"], data["password"], data["db"]) == ("ann", "pw", 2)
    assert (sentinel["username"], sentinel["password"], sentinel["db"]) == (None, None, 0)
    assert data["retry"]._retries == 0
    assert (data["protocol"], data["decode_responses"]) == (2, False)


def test_another_loop_has_lines_of_its_own() -> None:
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    bench = Bench("asyncio", loops[0])
    bench.script.replies = [b"1", b"2", b"3"]

    bench.run()
    bench._loop = loops[1]
    bench.run()
    bench._loop = loops[0]
    bench.run()

    assert len(bench.script.made) == 2
    for loop in loops:
        loop.close()
    for line in bench.script.made:
        line._sock.close()
        line.server.close()


# -- several servers at the same time --------------------------------------------------------

THERE = ("127.0.0.1", 6380)


def calls(*addresses: Any, commands: int = 1) -> list[NodeCall]:
    return [NodeCall(address, (PING,) * commands, idempotent=False) for address in addresses]


def replying(bench: Bench, **replies: list[Any]) -> list[str]:
    """Give each server replies of its own, by its port; returns what happens, in order."""
    story: list[str] = []

    class Line(bench.kind):  # type: ignore[misc,name-defined]  # of either world
        def port(self) -> str:
            return f"p{self.settings['port']}"

        def _read(self) -> Any:
            story.append(f"read {self.port()}")
            bench.script.replies = replies[self.port()]
            return super()._read()

        def _written(self) -> None:
            story.append(f"write {self.port()}")
            if replies[self.port()] == ["broken"]:
                raise redis_errors.ConnectionError("broken")

    bench.wire._lines._kinds = (Line, Line, Line)
    return story


def test_all_are_asked_before_the_first_is_read(bench: Bench) -> None:
    story = replying(bench, p6379=[b"1", b"2"], p6380=[b"3", b"4"])

    assert bench.do(bench.wire.together(calls(HERE, THERE, commands=2))) == [
        [b"1", b"2"],
        [b"3", b"4"],
    ]

    if not bench.is_async:  # there each call goes its own way
        assert story == [f"{do} p{port}" for do in ("write", "read") for port in (6379, 6380)
                         for _ in range(1 if do == "write" else 2)]  # fmt: skip
    assert all(line.open for line in bench.script.made)
    assert bench.do(bench.wire.together([])) == []


def test_trouble_with_one_server_leaves_the_lines_to_the_others_clean(bench: Bench) -> None:
    lost = redis_errors.ConnectionError("closed")
    replying(bench, p6379=[b"1", lost], p6380=[b"3", b"4", b"5"], p6381=["broken"])
    others = calls(HERE, THERE, ("127.0.0.1", 6381), commands=2)

    first, second, third = bench.do(bench.wire.together(others))

    assert first[0] == b"1"
    assert isinstance(first[1], OutcomeUnknownError)
    assert second == [b"3", b"4"]
    assert [type(outcome) for outcome in third] == [OutcomeUnknownError] * 2
    assert sorted(line.open for line in bench.script.made) == [False, False, True]
    assert bench.do(bench.wire.together(calls(THERE))) == [[b"5"]]
    assert len(bench.script.made) == 3


def test_an_interruption_closes_every_line_that_was_not_read(bench: Bench) -> None:
    blow = asyncio.CancelledError if bench.is_async else KeyboardInterrupt
    replying(bench, p6379=[b"1"], p6380=[blow()], p6381=[b"3"])

    with pytest.raises(blow):
        bench.do(bench.wire.together(calls(HERE, THERE, ("127.0.0.1", 6381))))

    opened = {line.settings["port"]: line.open for line in bench.script.made}
    assert not opened[6380]
    assert bench.is_async or not opened[6381]


def test_a_cancelled_call_of_many_servers_closes_all_lines() -> None:
    bench = Bench("asyncio", asyncio.new_event_loop())

    class Silent(AsyncLine):
        async def read_response(self, disconnect_on_error: bool) -> Any:
            await asyncio.Event().wait()

    bench.wire._lines._kinds = (Silent, Silent, Silent)

    async def cancelled() -> None:
        asking: Any = bench.wire.together(calls(HERE, THERE))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asking, 0.05)
        assert [line.open for line in bench.script.made] == [False, False]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    bench.do(cancelled())
    bench._loop.close()
    for line in bench.script.made:
        line._sock.close()
        line.server.close()
