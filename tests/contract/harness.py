"""Opens every backend in both worlds, and breaks what is under it.

Tests are written once, as coroutines against ``AsyncQueue``. In the sync world the queue is a
``Queue`` whose calls run in threads of their own, so that tests can have several under way.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from collections.abc import (
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
)
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from typing import Any, TypeVar, cast

from leanmq import (
    AsyncLeanMQ,
    AsyncQueue,
    LeanMQ,
    Message,
)
from leanmq.aio.router import AsyncConsistentHashRouter, AsyncRoundRobinRouter
from leanmq.backends import memory
from leanmq.backends.protocol import Backend, SendBatch
from leanmq.backends.registry import Options, open_async_backend, open_backend
from leanmq.backends.streams.keys import GROUP, QueueKeys, queue_keys, registry_key
from leanmq.sharding.names import shard_name
from leanmq.sharding.router import ConsistentHashRouter, RoundRobinRouter
from leanmq.sharding.tags import shard_tags
from leanmq.testing import ManualClock
from tests.contract.composites import AsyncComposedBackend, ComposedBackend, PassThrough
from tests.contract.threaded import Client as Client
from tests.contract.threaded import ThreadedClient, Threads
from tests.docs.pages import ROOT, run
from tests.support import running
from tests.support.topology import Topology
from tests.support.weather import Stopwatch

T = TypeVar("T")

SERVERS = ("redis", "sentinel", "cluster")
ROUTERS = ("hash-memory", "round-memory", "hash-redis", "round-redis", "hash-cluster")
"""Routers: by consistent hashing or round robin, over nodes in memory, three servers, a cluster."""

SUBJECTS = ("memory", *SERVERS, "pass-through", *ROUTERS)
IN_ORDER = ("memory", *SERVERS, "pass-through")
"""Where messages of a queue come in the order of sending, whatever their keys."""

IN_MEMORY = ("memory", "pass-through", "hash-memory", "round-memory")
SHARDS = 4
"""Shards of the queues of a router: enough that they are on several nodes."""

WORLDS = ("sync", "asyncio")
DOCUMENTED = "documented"
"""The backend whose code is on the page for those who write one; runs if asked for by name."""
PASS_THROUGH = "pass-through"


@cache
def _documented() -> Callable[[Backend], Backend]:
    """The class on the page."""
    kind: type = run(ROOT / "docs" / "write-a-backend.md").namespace["Counting"]
    return kind


class Harness:
    """One subject in one world, with a prefix of its own."""

    def __init__(self, subject: str, world: str) -> None:
        self.subject, self.world = subject, world
        self.prefix = f"t{secrets.token_hex(5)}:"
        self.router, _, where = subject.rpartition("-") if subject in ROUTERS else ("", "", "")
        self.topologies = _topologies(where or subject, 3 if self.router else 1)
        self.topology = self.topologies[0] if self.topologies else None
        self._threads = Threads()
        self._clients: list[Client] = []
        self._stack = ExitStack()
        self._clock: ManualClock | None = None

    @property
    def servers(self) -> Topology:
        """The servers under this subject; only for tests that are about them."""
        assert self.topology is not None, f"{self.subject} has no servers"
        return self.topology

    @property
    def url(self) -> str:
        """Where clients of this subject connect (composites: their first part)."""
        return self.topology.url if self.topology else f"memory://{self.prefix[:-1]}"

    @property
    def urls(self) -> list[str]:
        """Of all nodes: of routers there are some."""
        if self.topologies:
            return [topology.url for topology in self.topologies]
        return [f"{self.url}{node or ''}" for node in range(3 if self.router else 1)]

    @property
    def nodes(self) -> dict[str, str]:
        """The nodes of a router by name."""
        return {f"node{number}": url for number, url in enumerate(self.urls)}

    def client(self, **options: Any) -> Client:
        """A new client of the same storage. Closed after the test."""
        if self.router:
            return self._client({"backend": self.router_backend()} | options)
        if self.subject == DOCUMENTED:
            inner = open_backend(self.url, None, Options(prefix=self.prefix))
            return self._client({"backend": _documented()(inner)} | options)
        if self.subject != PASS_THROUGH:
            return self._client({"url": self.url, "prefix": self.prefix} | options)
        return self._client(self._composed(PassThrough(), options))

    def router_backend(self, nodes: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """A new router over the subject's nodes, or over others."""
        options = {"prefix": self.prefix} | options
        if self.router == "hash":
            kind: Any = ConsistentHashRouter if self.world == "sync" else AsyncConsistentHashRouter
            options = {"shards": SHARDS} | options
        else:
            kind = RoundRobinRouter if self.world == "sync" else AsyncRoundRobinRouter
        return kind(self.nodes if nodes is None else nodes, **options)

    def configured(self, source: Any, **keywords: Any) -> Client:
        """A client as a configuration says (None: the environment), with the test's prefix."""
        world: Any = LeanMQ if self.world == "sync" else AsyncLeanMQ
        keywords = {"prefix": self.prefix} | keywords
        if source is None:
            return self._kept(world.from_env(**keywords))
        return self._kept(world.from_config(source, **keywords))

    def watched(self, watch: Callable[[SendBatch], object], **options: Any) -> Client:
        """A client whose every send is shown to ``watch`` before it is carried out."""
        router = self.router_backend() if self.router else None
        plan: Any = router.routing if router else PassThrough()
        send = plan.send

        def shown(batch: SendBatch) -> Any:
            watch(batch)
            return send(batch)

        plan.send = shown
        if router:
            return self._client({"backend": router} | options)
        return self._client(self._composed(plan, options))

    def _client(self, where: dict[str, Any]) -> Client:
        return self._kept(LeanMQ(**where) if self.world == "sync" else AsyncLeanMQ(**where))

    def _kept(self, opened: Any) -> Client:
        client: Client = opened
        if self.world == "sync":
            client = ThreadedClient(opened, self._threads)
        self._clients.append(client)
        return client

    def _composed(self, plan: PassThrough, options: dict[str, Any]) -> dict[str, Any]:
        inner = Options(prefix=self.prefix)
        if self.world == "sync":
            parts = [open_backend(self.url, None, inner)]
            return {"backend": ComposedBackend(plan, parts), **options}
        async_parts = [open_async_backend(self.url, None, inner)]
        return {"backend": AsyncComposedBackend(plan, async_parts), **options}

    async def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a method of either world returns."""
        if self.world == "sync":
            return await self.run(method, *arguments, **options)
        result = method(*arguments, **options)
        return await result if inspect.isawaitable(result) else result

    async def run(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call what blocks, in a thread."""
        return await self._threads.run(call, *args, **kwargs)

    def stopwatch(self) -> Stopwatch:
        """Started now: its ``own()`` is what bounds of seconds are for."""
        servers = [process for topology in self.topologies for process in topology.processes]
        return Stopwatch(process.pid for process in servers if process.pid is not None)

    # What users cannot do, done to the storage itself.

    def in_order(self, values: Iterable[T], key: Callable[[T], Any] | None = None) -> list[T]:
        """Values as they came; sorted where parts of a queue have orders of their own."""
        sort: Any = sorted
        return sort(values, key=key) if self.router else list(values)

    def stored(self, name: str, slot: str | None = None) -> list[QueueKeys]:
        """The keys of a queue: of each shard, if it is in shards."""
        slot = slot or name
        if self.router != "hash":
            return [queue_keys(self.prefix, name, slot)]
        tags = shard_tags(slot, SHARDS)
        return [queue_keys(self.prefix, shard_name(name, n), tag) for n, tag in enumerate(tags)]

    async def inject(
        self, name: str, body: bytes, entry: str = "*", slot: str | None = None, **fields: str
    ) -> None:
        """Put a raw body into a queue, behind the library's back."""
        others = [word for pair in fields.items() for word in pair]
        key, node = await self._somewhere(name, slot)
        await self._run_on(node, "XADD", key, entry, "b", body, *others)

    async def _somewhere(self, name: str, slot: str | None = None) -> tuple[str, int]:
        """The stream of a queue on a node that has it, or of a shard."""
        for keys in self.stored(name, slot):
            for node in range(len(self.urls)):
                if await self._run_on(node, "EXISTS", keys.live.stream):
                    return keys.live.stream, node
        return self.stored(name, slot)[0].live.stream, 0

    async def make_older_queue(self, name: str) -> None:
        """Leave what LeanMQ 0.2.0 left of a queue with a message."""
        await self._run_on(0, "SADD", f"{self.prefix}registry", f"{self.prefix}{name}")
        await self._run_on(0, "XADD", f"{self.prefix}{name}", "*", "data", '{"a": 1}')

    async def older_messages(self, name: str) -> list[Any]:
        """What is left of it."""
        return list(await self._run_on(0, "XRANGE", f"{self.prefix}{name}", "-", "+"))

    async def destroy_groups(self, name: str) -> None:
        """Destroy the consumer groups of a queue."""
        for keys in self.stored(name):
            for key in (keys.live.stream, keys.dead.stream):
                for node in range(len(self.urls)):
                    if await self._run_on(node, "EXISTS", key):
                        await self._run_on(node, "XGROUP", "DESTROY", key, GROUP)

    async def kill(self, number: int) -> None:
        """Kill a node for good, and see that its clients know.

        What was written to a server that is dead, before its end was heard of, is in doubt.
        """
        topology = self.topologies[number]
        await asyncio.to_thread(topology.kill_primary)

        async def told() -> bool:
            return not await asyncio.to_thread(topology.proxies[0].connections)

        await eventually(told, within=5, what="the end of all connections to a dead server")

    async def wipe(self, name: str, shard: int | None = None) -> None:
        """Delete the keys of a queue (or a shard), as an eviction or FLUSHALL would."""
        for keys in self.stored(name) if shard is None else [self.stored(name)[shard]]:
            await self._raw("DEL", *keys.all())

    async def spoil(self, name: str) -> None:
        """Put something else where the messages of a queue should be."""
        for keys in self.stored(name):
            await self._run_on(0, "SET", keys.live.stream, "spoiled")

    async def keys(self, name: str = "orders", slot: str | None = None) -> list[str]:
        """Which keys of a queue exist, the registry among them."""
        names = [key for keys in self.stored(name, slot) for key in keys.all()]
        if self.router != "hash":  # its nodes' ids are there
            names.append(registry_key(self.prefix))
        return [key for key in names if any(await self._raw("EXISTS", key))]

    async def recorded(self, name: str) -> list[str | None]:
        """What each node has written down in its registry under a name."""
        found = await self._raw("HGET", registry_key(self.prefix), name)
        return [text.decode() if isinstance(text, bytes) else text for text in found]

    async def empty(self, number: int) -> None:
        """Delete all that a node holds under the test's prefix, as FLUSHALL would."""
        for key in await self._run_on(number, "KEYS", f"{self.prefix}*"):
            await self._run_on(number, "DEL", key)

    async def consumers(self, name: str) -> int:
        """How many consumer names the server knows of a queue (of a part of it)."""
        key, node = await self._somewhere(name)
        return len(await self._run_on(node, "XINFO", "CONSUMERS", key, GROUP))

    async def dedup_ids(self, name: str = "orders") -> int:
        """How many dedup ids are kept for a queue."""
        total = 0
        for keys in self.stored(name):
            scores = await self._raw("ZCARD", keys.live.dedup)
            assert scores == await self._raw("HLEN", keys.live.known)
            total += sum(score - 1 for score in scores if score)  # each has a placeholder
        return total

    def advance(self, seconds: float) -> None:
        """Put the clock of a memory server forward (for the rest of the test)."""
        assert self.topology is None, "the clock of a real server cannot be moved"
        if self._clock is None:
            self._clock = self._stack.enter_context(ManualClock())
        self._clock.advance(seconds)

    async def pass_time(self, seconds: float) -> None:
        """Have the servers' clock be ``seconds`` later: it is put forward, or waited for."""
        if self.topology is None:
            self.advance(seconds)
            return
        goal = await self._server_time() + seconds

        async def later() -> bool:
            return await self._server_time() > goal

        await eventually(later, within=seconds + 10, what="the later time")

    async def _server_time(self) -> float:
        """Of one server; all of them are on this machine."""
        node = self.servers.primary_for(registry_key(self.prefix))
        now, microseconds = await asyncio.to_thread(self.servers.ask, node, "TIME")
        return int(now) + int(microseconds) / 1_000_000

    async def _raw(self, *command: Any) -> list[Any]:
        """Run a command on every node."""
        return [await self._run_on(node, *command) for node in range(len(self.urls))]

    async def _run_on(self, number: int, *command: Any) -> Any:
        """Run a command on a node, where the key in its second or third place lives."""
        if not self.topologies:
            name = self.urls[number].removeprefix("memory://")
            return memory.server(name).execute(*command)
        topology = self.topologies[number]
        key = next(str(word) for word in command if str(word).startswith(self.prefix))
        return await asyncio.to_thread(topology.ask, topology.primary_for(key), *command)

    async def _close(self) -> None:
        for client in self._clients:
            await client.close()
        self._threads.stop()
        self._stack.close()
        for topology in self.topologies:
            await asyncio.to_thread(topology.heal)


def _topologies(kind: str, number: int) -> list[Topology]:
    """The servers of a kind; one cluster is enough nodes."""
    if kind == "redis":
        return [running.get("redis", copy) for copy in range(number)]
    return [running.get(cast("running.Kind", kind))] if kind in SERVERS else []


@asynccontextmanager
async def opened(subject: str, world: str) -> AsyncIterator[Harness]:
    """A harness, closed at the end, its servers healed."""
    harness = Harness(subject, world)
    try:
        yield harness
    finally:
        await harness._close()


async def eventually(
    condition: Callable[[], Any], *, within: float, what: str = "the condition"
) -> Any:
    """Await ``condition`` (a coroutine function) until it is true, at most ``within`` seconds."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + within
    while True:
        result = await condition()
        if result:
            return result
        assert loop.time() < ends, f"{what} did not come true within {within} s: {result!r}"
        await asyncio.sleep(0.01)


async def drain(queue: AsyncQueue, expected: int, *, within: float = 10.0) -> list[Message[Any]]:
    """Receive and acknowledge ``expected`` messages."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + within
    got: list[Message[Any]] = []
    while len(got) < expected:
        left = ends - loop.time()
        assert left > 0, f"got {len(got)} of {expected} messages within {within} s"
        messages = await queue.get_messages(100, timeout=min(left, 1.0))
        await queue.acknowledge_messages(messages)
        got += messages
    return got
