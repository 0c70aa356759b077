"""The rules of the house that a machine can check: who may say what, import what, and how long."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

import leanmq
from leanmq.aio.queue import AsyncQueueHandle
from leanmq.backends.connections import AsyncServerConnection, ServerConnection
from leanmq.backends.many import AsyncManyQueues, ManyQueues
from leanmq.backends.memory import AsyncMemoryConnection, MemoryConnection
from leanmq.backends.protocol import AsyncBackend, Backend
from leanmq.backends.streams.driver import (
    AsyncConnection,
    AsyncStreamsBackend,
    Connection,
    StreamsBackend,
)
from leanmq.backends.streams.scripts import script
from leanmq.backends.wire import AsyncWire, Wire
from leanmq.policy.queue import QueueHandle
from scripts import mutants
from tests.contract.conftest import IN_DETAIL
from tests.contract.harness import SUBJECTS, WORLDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "leanmq"
STREAMS = PACKAGE / "backends" / "streams"
CONNECTIONS = [
    PACKAGE / "backends" / f"{name}.py"
    for name in (
        "memory",
        "stores",
        "single",
        "sentinel",
        "cluster",
        "pipelines",
        "connections",
        "wakes",
    )
]
TALKING = [*CONNECTIONS, PACKAGE / "backends" / "subscriptions.py"]
MODULES = sorted(PACKAGE.rglob("*.py"))


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def listed(names: str) -> set[str]:
    return set(names.split())


# --- one logic


# Named as nothing else is: forbidden however they are written, as method names too.
RARE = listed(
    "xack xackdel xadd xautoclaim xclaim xdel xdelex xgroup xinfo xlen xpending xrange xread "
    "xreadgroup xrevrange xsetid xtrim evalsha eval_ro evalsha_ro fcall hdel hexists hget hgetall "
    "hincrby hlen hmget hmset hset hsetnx zadd zcard zcount zincrby zpopmin zrange zrangebyscore "
    "zrangestore zrem zremrangebyscore zscore sadd smembers srem lpush rpush blpop brpop lrange "
    "setnx incr incrby unlink pexpire flushall flushdb"
)
# Words of Python or English too: forbidden as Redis writes them.
COMMON = listed(
    "APPEND COPY DECR DEL DUMP EVAL EXEC EXISTS EXPIRE FUNCTION GET KEYS MGET MSET MULTI OBJECT "
    "PERSIST PUBLISH RENAME RESTORE SCAN SCRIPT SET SORT TIME TTL TYPE WAIT WATCH"
)
TOPOLOGY = listed(
    "PING ROLE CLUSTER ASKING READWRITE SENTINEL CLIENT SUBSCRIBE PSUBSCRIBE HELLO SELECT "
    "SPUBLISH SSUBSCRIBE SUNSUBSCRIBE"
)
# What a person is told to type is no command that we send.
CURES = re.compile(r"\bSCRIPT KILL\b")


def words(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and word, for the words of all names and strings; docstrings and comments left out."""
    prose = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        texts: list[str] = []
        match node:
            case ast.Constant(value=str(text)) if node not in prose:
                texts = [text]
            case ast.Constant(value=bytes(raw)):
                texts = [raw.decode("latin-1")]
            case ast.Name(id=text) | ast.Attribute(attr=text):
                texts = [text]
            case ast.arg(arg=text) | ast.keyword(arg=str(text)):
                texts = [text]
            case ast.FunctionDef(name=text) | ast.AsyncFunctionDef(name=text):
                texts = [text]
            case ast.ClassDef(name=text):
                texts = [text]
            case ast.alias(name=name, asname=asname):
                texts = [name, asname or ""]
        for text in texts:
            for word in re.findall(r"[A-Za-z_][\w-]*", CURES.sub("", text)):
                yield getattr(node, "lineno", 0), word


@pytest.mark.parametrize(
    "path", [path for path in MODULES if not path.is_relative_to(STREAMS)], ids=shown
)
def test_commands_are_named_by_the_streams_engine_and_topologies_alone(path: Path) -> None:
    found = [
        f"{shown(path)}:{line}: {word}"
        for line, word in words(ast.parse(path.read_text("utf-8")))
        if word.lower() in RARE or word in COMMON or (word in TOPOLOGY and path not in TALKING)
    ]

    assert found == []


QUEUE_WORDS = ("message", "consumer", "lease", "deliver", "receipt", "acknowledge", "stream")


@pytest.mark.parametrize("path", CONNECTIONS, ids=shown)
def test_a_connection_module_knows_nothing_of_queues(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    wiring = {"leanmq", "backends"}
    for node in ast.walk(tree):
        # What the engine is called is not the module's choice.
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            "leanmq.backends.streams"
        ):
            wiring |= {alias.name for alias in node.names}

    found = [
        f"{shown(path)}:{line}: {word}"
        for line, word in words(tree)
        if word not in wiring
        for part in re.findall(r"[A-Z]?[a-z]+", word)
        if part.lower().startswith(QUEUE_WORDS)
    ]

    assert found == []


@pytest.mark.parametrize("path", CONNECTIONS, ids=shown)
def test_a_connection_module_is_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) < 200


def test_the_wire_knows_no_topology() -> None:
    for name in ("wire", "lines", "faults"):
        tree = ast.parse((PACKAGE / "backends" / f"{name}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert not {"single", "sentinel", "cluster"} & set((node.module or "").split("."))


# --- imports


def loaded_by(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after ``code``."""
    heavy = "{'redis', 'fakeredis', 'hiredis', 'click', 'rich', 'lupa'}"
    told = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*({heavy} & set(sys.modules)))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(told.stdout.split())


def test_importing_leanmq_loads_no_client_library() -> None:
    assert loaded_by("import leanmq") == set()


def test_opening_servers_never_loads_the_memory_server() -> None:
    urls = ("redis://nowhere.invalid", "redis+sentinel://nowhere.invalid/s",
            "redis+cluster://nowhere.invalid")  # fmt: skip

    loaded = loaded_by(
        f"import leanmq\nfor url in {urls}: leanmq.LeanMQ(url), leanmq.AsyncLeanMQ(url)"
    )

    assert loaded - {"hiredis"} == {"redis"}


def test_reading_a_client_of_redis_never_loads_the_memory_server() -> None:
    loaded = loaded_by("import leanmq, redis; leanmq.LeanMQ(client=redis.Redis())")

    assert loaded - {"hiredis"} == {"redis"}


def test_importing_leanmq_loads_no_more_than_itself() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import leanmq, sys; print(*sys.modules)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    loaded = {name for name in told.stdout.split() if name.startswith("leanmq")}
    assert loaded == {"leanmq", "leanmq._version"}
    assert not {"attr", "msgspec", "asyncio"} & set(told.stdout.split())


def test_a_name_that_the_package_lacks_is_an_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'leanmq' has no attribute 'Quue'"):
        getattr(leanmq, "Quue")  # noqa: B009  # mypy would tell, too


def test_the_package_exports_exactly_what_it_says() -> None:
    for name in leanmq.__all__:
        getattr(leanmq, name)  # loaded at its first use
    exported = {
        name
        for name, value in vars(leanmq).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert leanmq.__all__ == sorted(leanmq.__all__)
    assert exported | {"__version__"} == set(leanmq.__all__)
    assert set(leanmq.__all__) <= set(dir(leanmq))


# --- two worlds, one interface


class Full(Backend, ManyQueues, Protocol):
    """Both parts of the seam."""


class AsyncFull(AsyncBackend, AsyncManyQueues, Protocol):
    """Both parts of the seam, for asyncio."""


MIRRORS = [
    (leanmq.Queue, leanmq.AsyncQueue),
    (leanmq.Queue, QueueHandle),
    (leanmq.AsyncQueue, AsyncQueueHandle),
    (leanmq.LeanMQ, leanmq.AsyncLeanMQ),
    (leanmq.BatchingProducer, leanmq.AsyncBatchingProducer),
    (Backend, AsyncBackend),
    (ManyQueues, AsyncManyQueues),
    (Full, StreamsBackend),
    (AsyncFull, AsyncStreamsBackend),
    (Connection, AsyncConnection),
    (ServerConnection, AsyncServerConnection),
    (MemoryConnection, AsyncMemoryConnection),
    (Wire, AsyncWire),
]


def interface(kind: type) -> dict[str, str]:
    """Public methods and properties with their signatures, ``async`` left out."""
    result = {}
    for member_name, member in inspect.getmembers(kind):
        name = re.sub("^__a(?=enter|exit)", "__", member_name)
        if name.startswith("_") and name not in ("__init__", "__enter__", "__exit__"):
            continue
        if isinstance(member, property):
            signature = f"property {inspect.signature(member.fget or len)}"
        elif inspect.isfunction(member):
            signature = str(inspect.signature(member))
        else:
            continue
        # Annotations are strings here, and Async is the only difference that there may be.
        signature = re.sub(r"\b(Abstract|)Async(?=[A-Z])", r"\1", signature)
        result[name] = re.sub(r"\bQueueHandle\b", "Queue", signature)  # a handle is a queue
    return result


@pytest.mark.parametrize(("one", "other"), MIRRORS, ids=lambda kind: kind.__name__)
def test_both_worlds_have_the_same_methods(one: type, other: type) -> None:
    first, second = interface(one), interface(other)
    if "_is_protocol" in vars(one):
        first.pop("__init__", None)  # nobody but us makes these
        second.pop("__init__", None)

    assert second == first
    assert len(first) > 2


@pytest.mark.parametrize(
    "kind",
    [leanmq.AsyncQueue, AsyncQueueHandle, AsyncBackend, AsyncStreamsBackend, AsyncServerConnection],
)
def test_what_does_io_is_a_coroutine_in_the_asyncio_world(kind: type) -> None:
    plain = [
        name
        for name, member in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_") and not inspect.iscoroutinefunction(member)
    ]

    # These return at once what does the I/O when it is iterated, entered, or sent to.
    assert plain == [name for name in ("batching", "consume", "processing") if hasattr(kind, name)]


# --- the Lua scripts

SCRIPTS = sorted(path for path in (STREAMS / "scripts").glob("*.lua") if path.name[0] != "_")
LUA_GLOBALS = listed(
    "redis KEYS ARGV string table math tonumber tostring ipairs pairs pcall unpack"
)
REDIS_FUNCTIONS = {"call", "pcall", "error_reply", "status_reply"}


class Bytecode:
    """Reads which globals a chunk gets and sets, as the compiler of Lua 5.1 put it.

    See luaU_dump (ldump.c) and OpCode (lopcodes.h) of Lua 5.1. All of this machine's sizes.
    """

    GETGLOBAL, SETGLOBAL = 5, 7

    def __init__(self, dumped: bytes) -> None:
        assert dumped[:5] == b"\x1bLua\x51", "not Lua 5.1"
        self._data, self._at = dumped, 12
        self.got: set[str] = set()
        self.assigned: set[str] = set()
        self._function()

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, size: int = 4) -> int:
        return int.from_bytes(self._take(size), sys.byteorder)

    def _string(self) -> str:
        return self._take(self._number(8))[:-1].decode()

    def _function(self) -> None:
        self._string()
        self._take(4 + 4 + 4)
        code = [self._number() for _ in range(self._number())]
        constants: list[str] = []
        for _ in range(self._number()):
            kind = self._take(1)[0]
            constants.append(self._string() if kind == 4 else "")
            self._take({1: 1, 3: 8}.get(kind, 0))
        for instruction in code:
            operation, constant = instruction & 0x3F, instruction >> 14
            if operation == self.GETGLOBAL:
                self.got.add(constants[constant])
            elif operation == self.SETGLOBAL:
                self.assigned.add(constants[constant])
        for _ in range(self._number()):
            self._function()
        self._take(4 * self._number())
        for _ in range(self._number()):
            self._string()
            self._take(8)
        for _ in range(self._number()):
            self._string()


def compiled(text: str) -> Bytecode:
    lua51 = pytest.importorskip("lupa.lua51")
    runtime = lua51.LuaRuntime(encoding=None)
    dump = runtime.execute(
        b"return function(text) return string.dump(assert(loadstring(text))) end"
    )
    return Bytecode(dump(text.encode()))


def test_the_reader_of_bytecode_finds_globals_at_every_depth() -> None:
    code = compiled(
        "local a = 1; b = a; local function f(x) return function() c = x + d end end; return f"
    )

    assert (code.got, code.assigned) == ({"d"}, {"b", "c"})


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_uses_no_globals_but_those_of_every_server(path: Path) -> None:
    code = compiled(script(path.stem).text)

    assert code.assigned == set()
    assert code.got <= LUA_GLOBALS


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_says_what_it_takes_and_binds_it(path: Path) -> None:
    text = path.read_text("utf-8")
    header = text[: re.search(r"^(?!--)", text, re.MULTILINE).start()]  # type: ignore[union-attr]  # not all of it is comment
    code = re.sub(r"--.*", "", text)

    for line in (f"{path.stem}: ", "KEYS: ", "ARGV: ", "Reply: "):
        assert re.search(rf"^-- {line}\S", header, re.MULTILINE), f"the header lacks {line!r}"
    unbound = [
        line.strip()
        for line in code.splitlines()
        if re.search(r"\b(?:KEYS|ARGV)\[\d+\]", line)
        and (not re.match(r"\s*local [\w, ]+ = ", line) or "redis.call" in line)
    ]
    assert unbound == []
    assert set(re.findall(r"\bredis\.(\w+)", code)) <= REDIS_FUNCTIONS
    assert not re.search(r"'(?:KEYS|SCAN|CONFIG|INFO|WAIT)'", code)


# --- the repository


def test_no_file_names_a_registry_or_a_place_on_this_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    # Split, so that this file may hold them.
    hosts = ["py" + "pi.org", "python" + "hosted.org", "np" + "mjs.org", "deb" + "ian.org"]
    forbidden = re.compile(
        "|".join([*map(re.escape, hosts), r"(?<![\w.~-])/(?:work|root|home|Users)/\w"])
    )

    found = []
    for name in mutants.files_of(ROOT):
        try:
            text = (ROOT / name).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {match[0]}" for match in forbidden.finditer(text)]

    assert found == []


def test_every_mutant_still_finds_its_place() -> None:
    for mutant in mutants.load(ROOT):
        mutant.mutated(ROOT)


def test_of_a_test_in_detail_one_case_runs_on_every_subject() -> None:
    """What runs on two subjects alone would be a skipped backend."""
    path = "tests/contract/test_bulk.py"
    collect = [sys.executable, "-m", "pytest", path, "--collect-only", "-q", "--both-worlds"]
    told = subprocess.run(collect, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    cases: dict[str, list[str]] = {}
    for subject, case in re.findall(
        r"test_items_come_from_any_iterable\[(.*?sync|.*?asyncio)-(.*)]", told
    ):
        cases.setdefault(subject, []).append(case)

    assert cases.keys() == {f"{subject}-{world}" for subject in SUBJECTS for world in WORLDS}
    assert {subject for subject, some in cases.items() if len(some) > 1} == {
        f"{subject}-{world}" for subject in IN_DETAIL for world in WORLDS
    }
    assert len({some[0] for some in map(sorted, cases.values()) if len(some) == 1}) == 1
