"""Every test here runs once for each subject and world: ids such as ``[cluster-asyncio]``."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from zlib import crc32

import pytest

from leanmq import AsyncQueue
from tests.contract.harness import DOCUMENTED, SUBJECTS, WORLDS, Client, Harness, opened


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize by subject and world; a test may narrow them with ``@pytest.mark.on``."""
    if "harness" not in metafunc.fixturenames:
        return
    mark = metafunc.definition.get_closest_marker("on")
    subjects = mark.args if mark and mark.args else SUBJECTS
    worlds = mark.kwargs.get("worlds", WORLDS) if mark else WORLDS
    pairs = [(subject, world) for subject in subjects for world in worlds]
    wanted = _wanted(metafunc.config)
    if f"{DOCUMENTED}-sync" in wanted and subjects is SUBJECTS and "sync" in worlds:
        pairs.append((DOCUMENTED, "sync"))
    # One is kept where none is wanted, and left out of the run below: a test cannot have none.
    pairs = [pair for pair in pairs if not wanted or "-".join(pair) in wanted] or pairs[:1]
    metafunc.parametrize("harness", pairs, ids=["-".join(p) for p in pairs], indirect=True)


IN_DETAIL = ("memory", "redis")
IN_TURN = ("hash-redis", "round-redis", "hash-cluster")
"""Of these, a test that is not about routers runs in one world, the next one in the other."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """What ``make quick`` asks for."""
    parser.addoption(
        "--subjects",
        default="",
        help="make contract tests for these alone, as in memory-sync,redis-asyncio",
    )
    parser.addoption(
        "--both-worlds",
        action="store_true",
        help="run every test on routers over servers for threads and for asyncio",
    )
    parser.addoption(
        "--one-world",
        action="store_true",
        help="run no test in both worlds on any subject: the next one in the other world",
    )


def _wanted(config: pytest.Config) -> set[str]:
    return set(filter(None, config.getoption("--subjects", default="").split(",")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test that is ``in_detail``, the first case runs on every subject, the others on two."""
    wanted = _wanted(config)
    first = _first_cases(items)
    left_out = {id(item) for item in items if _is_left_out(item, wanted, first)}
    if not (wanted or config.getoption("--both-worlds", default=False)):
        in_turn = SUBJECTS if config.getoption("--one-world", default=False) else IN_TURN
        left_out |= {id(item) for item in items if _is_others_turn(item, in_turn)}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
        items[:] = [item for item in items if id(item) not in left_out]


def _first_cases(items: Sequence[pytest.Item]) -> set[int]:
    """Of each test on each subject in each world: the case that was written first."""
    first: dict[tuple[str, object], tuple[tuple[int, ...], int]] = {}
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or "harness" not in call.params:
            continue
        # Places among all cases of the test, those of other subjects too.
        places = tuple(place for name, place in call.indices.items() if name != "harness")
        test = item.nodeid.partition("[")[0], call.params["harness"]
        first[test] = min(first.get(test, (places, id(item))), (places, id(item)))
    return {one for _, one in first.values()}


def _is_left_out(item: pytest.Item, wanted: set[str], first: set[int]) -> bool:
    call = getattr(item, "callspec", None)
    if call is None or "harness" not in call.params:
        return False
    subject = call.params["harness"][0]
    if wanted and "-".join(call.params["harness"]) not in wanted:
        return True
    if item.get_closest_marker("in_detail") is None or subject in IN_DETAIL:
        return False
    return id(item) not in first


def _is_others_turn(item: pytest.Item, in_turn: Sequence[str]) -> bool:
    call = getattr(item, "callspec", None)
    if call is None or "harness" not in call.params or item.get_closest_marker("on") is not None:
        return False
    if not isinstance(call.params["harness"], tuple):  # of a test elsewhere
        return False
    subject, world = call.params["harness"]
    name: str = getattr(item, "originalname", item.name)
    return subject in in_turn and world != WORLDS[crc32(name.encode()) % 2]


@pytest.fixture(scope="session", autouse=True)
def _quick_turns() -> Iterator[None]:
    """Threads take turns more often: the proxies before the servers live in one of them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """The subject under test."""
    async with opened(*request.param) as opened_harness:
        yield opened_harness


@pytest.fixture
async def mq(harness: Harness) -> Client:
    """A client of the subject."""
    return harness.client()


@pytest.fixture
async def queue(mq: Client) -> AsyncQueue:
    """A queue with the default settings."""
    return mq.queue("orders")
