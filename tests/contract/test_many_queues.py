"""The part of the seam that routers build on: many queues in few round trips, and watching them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from leanmq import BackendError, LeanMQError, QueueNotFoundError, QueueSettingsError
from leanmq.backends.many import Record, Watch
from leanmq.backends.protocol import (
    Drop,
    Exchange,
    Held,
    ListQueues,
    NewMessage,
    Purge,
    QueueRef,
    Receive,
    SendBatch,
    Settlement,
    Standing,
    Stats,
    Terms,
    Verb,
)
from tests.contract.harness import SERVERS, Client, Harness, eventually
from tests.contract.seam import REFS, Seam

pytestmark = pytest.mark.on("memory", *SERVERS)


@pytest.fixture
async def seam(harness: Harness) -> Any:
    seam = Seam(harness)
    yield seam
    await seam.close()


@pytest.fixture
async def second(harness: Harness) -> Any:
    seam = Seam(harness)
    yield seam
    await seam.close()


def brisk(ref: QueueRef) -> Receive:
    return Receive(ref, "me", 10, brisk=True, together=True)


async def test_requests_go_together_and_each_has_its_own_result(seam: Seam) -> None:
    await seam.declared()
    batches = [SendBatch(ref, [NewMessage(b"%d" % n)]) for n, ref in enumerate(REFS)]

    sent = await seam.together([*batches, Stats(QueueRef("nowhere")), ListQueues()])

    ids = [s.results[0] for s in sent[:5]]
    assert all(isinstance(one, str) for one in ids)
    assert isinstance(sent[5], QueueNotFoundError)
    looks = await seam.together([Exchange((), (Receive(ref, "me", 10),)) for ref in REFS])
    assert [look.deliveries[0].body for look in looks] == [b"0", b"1", b"2", b"3", b"4"]
    assert [look.deliveries[0].id for look in looks] == ids
    assert [purged.count for purged in await seam.together([Purge(ref) for ref in REFS])] == [1] * 5


async def test_what_waits_cannot_go_together_with_others(seam: Seam) -> None:
    await seam.declared()

    with pytest.raises(LeanMQError, match="use watch"):
        await seam.together([Exchange((), (Receive(REFS[0], "me", 1),), wait=1.0)])


async def test_a_receive_of_none_tells_whether_there_is_a_message(seam: Seam) -> None:
    await seam.declared()
    assert not (await seam.look(REFS[0], count=0)).more

    await seam.send(SendBatch(REFS[0], [NewMessage(b"1")]))
    probe = await seam.look(REFS[0], count=0)
    assert probe.more
    assert not probe.deliveries
    [delivery] = (await seam.look(REFS[0])).deliveries
    assert (delivery.body, delivery.delivery_count) == (b"1", 1)
    assert not (await seam.look(REFS[0], count=0)).more


async def test_a_look_tells_how_many_new_messages_it_left(seam: Seam) -> None:
    await seam.declared()
    assert (await seam.look(REFS[0], count=0)).fresh == 0

    await seam.send(SendBatch(REFS[0], [NewMessage(b"%d" % n) for n in range(5)]))
    assert (await seam.look(REFS[0], count=0)).fresh == 5
    taken = await seam.look(REFS[0], count=2)
    assert (len(taken.deliveries), taken.fresh) == (2, 3)
    assert (await seam.look(REFS[0], count=1)).fresh in (2, 3, 4)  # those in flight may be counted
    assert (await seam.look(REFS[0], count=3)).fresh == 0
    assert (await seam.look(REFS[0], count=0)).fresh == 0  # all of them are in flight


async def test_what_came_free_is_not_told_as_new(seam: Seam) -> None:
    await seam.declared()
    await seam.send(SendBatch(REFS[0], [NewMessage(b"%d" % n) for n in range(4)]))
    held = [Held(d.id, d.receipt) for d in (await seam.look(REFS[0], count=3)).deliveries]
    await seam.exchange(Exchange((Settlement(REFS[0], Verb.RELEASE, held),)))

    for count in (0, 2, 1):
        look = await seam.look(REFS[0], count=count)
        assert (len(look.deliveries), look.fresh, look.more) == (count, None, count == 0)
    assert (await seam.look(REFS[0], count=0)).fresh >= 1
    assert (await seam.look(REFS[0], count=2)).fresh == 0


async def test_a_brisk_look_beside_others_leaves_upkeep_to_the_next(seam: Seam) -> None:
    await seam.declared()
    await seam.send(SendBatch(REFS[0], [NewMessage(b"1")]))
    held = [Held(d.id, d.receipt) for d in (await seam.look(REFS[0])).deliveries]
    await seam.exchange(Exchange((Settlement(REFS[0], Verb.RELEASE, held),)))

    beside = Receive(REFS[0], "me", 10, brisk=True, together=True)
    [look] = await seam.together([Exchange((), (beside,))])
    assert not look.deliveries
    assert [d.body for d in (await seam.look(REFS[0])).deliveries] == [b"1"]

    await seam.send(SendBatch(REFS[0], [NewMessage(b"2")]))
    [look] = await seam.together([Exchange((), (beside,))])
    assert [d.body for d in look.deliveries] == [b"2"]


async def test_looks_together_fail_each_by_itself(
    seam: Seam, second: Seam, harness: Harness
) -> None:
    await seam.declared()
    await seam.together([SendBatch(ref, [NewMessage(ref.name.encode())]) for ref in REFS])
    await second.drop(Drop(REFS[1].name))
    await harness.spoil(REFS[3].name)

    looks = await seam.together([Exchange((), (Receive(ref, "me", 10),)) for ref in REFS])

    assert isinstance(looks[1], QueueNotFoundError)
    assert looks[1].queue == REFS[1].name
    assert isinstance(looks[3], BackendError)
    for place in (0, 2, 4):
        [delivery] = looks[place].deliveries
        assert (delivery.body, delivery.delivery_count) == (REFS[place].name.encode(), 1)
        assert (await seam.stats(Stats(REFS[place]))).in_flight == 1


async def test_reads_together_fail_each_by_itself(
    seam: Seam, second: Seam, harness: Harness
) -> None:
    await seam.declared()
    await seam.together([SendBatch(ref, [NewMessage(ref.name.encode())] * 2) for ref in REFS])
    await second.drop(Drop(REFS[1].name))
    await harness.spoil(REFS[3].name)

    reads = await seam.together([Exchange((), (brisk(ref),)) for ref in REFS])

    assert isinstance(reads[1], QueueNotFoundError)
    assert isinstance(reads[3], LeanMQError)
    for place in (0, 2, 4):
        assert [d.body for d in reads[place].deliveries] == [REFS[place].name.encode()] * 2
        assert reads[place].lease == 9.0


async def test_reads_together_hand_out_nothing_that_expired(seam: Seam, harness: Harness) -> None:
    await seam.declared()
    short, long = Terms(ttl=200), Terms(ttl=600_000)
    terms: list[list[Terms | None]] = [[short], [None], [short, long, short], [long], []]
    for ref, each in zip(REFS, terms, strict=True):
        messages = [NewMessage(b"%d" % n, one) for n, one in enumerate(each)]
        await seam.send(SendBatch(ref, messages))
    await harness.pass_time(0.3)

    reads = await seam.together([Exchange((), (brisk(ref),)) for ref in REFS])

    found = [[delivery.body for delivery in read.deliveries] for read in reads]
    assert found == [[], [b"0"], [b"1"], [b"0"], []]
    counts = [await seam.stats(Stats(ref)) for ref in REFS]
    assert [(each.ready, each.in_flight) for each in counts] == [
        (0, 0), (0, 1), (0, 1), (0, 1), (0, 0)
    ]  # fmt: skip


async def test_settlements_together_fail_each_by_itself(
    seam: Seam, second: Seam, harness: Harness
) -> None:
    await seam.declared()
    await seam.together([SendBatch(ref, [NewMessage(b"1"), NewMessage(b"2")]) for ref in REFS])
    looks = await seam.together([Exchange((), (Receive(ref, "me", 10),)) for ref in REFS])
    held = [[Held(d.id, d.receipt) for d in look.deliveries] for look in looks]
    await second.drop(Drop(REFS[1].name))
    await harness.spoil(REFS[3].name)
    await seam.exchange(Exchange((Settlement(REFS[2], Verb.RELEASE, held[2][:1]),)))
    await seam.exchange(Exchange((), (Receive(REFS[2], "other", 1),)))
    verbs = [Verb.ACKNOWLEDGE, Verb.ACKNOWLEDGE, Verb.ACKNOWLEDGE, Verb.RETRY, Verb.RELEASE]
    settlements = [Settlement(*each) for each in zip(REFS, verbs, held, strict=True)]

    done = await seam.together([Exchange((one,)) for one in settlements])

    assert list(done[0].settled[0]) == [Standing.DONE] * 2
    assert isinstance(done[1], QueueNotFoundError)
    assert list(done[2].settled[0]) == [Standing.LOST, Standing.DONE]
    assert isinstance(done[3], BackendError)
    assert list(done[4].settled[0]) == [Standing.DONE] * 2
    counts = [await seam.stats(Stats(REFS[place])) for place in (0, 2, 4)]
    assert [(each.ready, each.in_flight) for each in counts] == [(0, 0), (0, 1), (2, 0)]


async def test_looks_together_do_upkeep_of_each(seam: Seam) -> None:
    await seam.declared()
    await seam.together([SendBatch(ref, [NewMessage(b"%d" % n) for n in range(3)]) for ref in REFS])
    looks = await seam.together([Exchange((), (Receive(ref, "me", 2),)) for ref in REFS])
    for ref, look in zip(REFS, looks, strict=True):
        first = Held(look.deliveries[0].id, look.deliveries[0].receipt)
        await seam.exchange(Exchange((Settlement(ref, Verb.RELEASE, [first]),)))

    again = await seam.together(
        [Exchange((), (Receive(ref, "me", count),)) for count, ref in enumerate(REFS)]
    )

    found = [[d.body for d in look.deliveries] for look in again]
    assert found == [[], [b"0"], [b"0", b"2"], [b"0", b"2"], [b"0", b"2"]]
    assert again[0].more


async def test_a_watch_ends_when_a_message_comes_and_takes_nothing(seam: Seam) -> None:
    await seam.declared()
    marks = await seam.watched()
    watching = asyncio.ensure_future(seam.until_awake(marks))

    await seam.send(SendBatch(REFS[3], [NewMessage(b"1")]))

    async with asyncio.timeout(10):
        assert await watching == [REFS[3]]
    assert len((await seam.look(REFS[3])).deliveries) == 1


@pytest.mark.parametrize("ref", REFS[1:4:2])
async def test_a_watch_that_waits_is_woken_by_any_of_its_queues(seam: Seam, ref: QueueRef) -> None:
    await seam.declared()
    loop = asyncio.get_running_loop()
    took: list[float] = []
    for _ in range(3):  # the machine may be busy once, and not three times
        marks = await seam.watched()
        watching = asyncio.ensure_future(seam.watch(Watch(marks, 1.0)))
        for _ in range(20):  # turns of the loop in which the watch begins to wait
            await asyncio.sleep(0)
        sent = loop.time()
        await seam.send_one(ref)
        assert list((await watching).awake) == [ref]
        took.append(loop.time() - sent)
        if took[-1] < 0.5:
            return
        await seam.look(ref)
    raise AssertionError(f"it slept on, and looked when its time was over: {took}")


async def test_what_comes_between_a_look_and_its_watch_is_not_missed(
    harness: Harness, seam: Seam
) -> None:
    await seam.declared()
    marks = await seam.watched()
    await seam.send(SendBatch(REFS[1], [NewMessage(b"1")]))

    stopwatch = harness.stopwatch()
    watched = await seam.watch(Watch(marks, 1.0))

    assert list(watched.awake) == [REFS[1]]
    assert stopwatch.own() < 0.9


async def test_a_watch_of_quiet_queues_ends_in_time(seam: Seam) -> None:
    await seam.declared()
    marks = await seam.watched()

    async with asyncio.timeout(5):
        assert list((await seam.watch(Watch(marks, 0.05))).awake) == []


async def test_dead_letters_are_watched_as_well(seam: Seam) -> None:
    await seam.declared()
    dead = QueueRef(REFS[2].name, dead=True)
    marks = await seam.watched([dead])
    watching = asyncio.ensure_future(seam.until_awake(marks))
    await seam.send_one(REFS[2])
    [delivery] = (await seam.look(REFS[2])).deliveries

    held = Held(delivery.id, delivery.receipt)
    settlement = Settlement(REFS[2], Verb.DEAD_LETTER, [held])
    await seam.exchange(Exchange((settlement,), ()))

    async with asyncio.timeout(10):
        assert await watching == [dead]


async def test_nothing_is_missed_at_the_first_watch(seam: Seam) -> None:
    await seam.declared()
    marks = [(ref, (await seam.look(ref)).mark) for ref in REFS]
    await seam.send(SendBatch(REFS[1], [NewMessage(b"1")]))

    async def awake() -> bool:
        return REFS[1] in (await seam.watch(Watch(marks, 1.0))).awake

    await eventually(awake, within=3)


async def test_a_record_is_replaced_only_if_it_is_what_was_expected(seam: Seam) -> None:
    async def record(value: str | None = None, expected: str | None = None, **more: Any) -> Any:
        return (await seam.record(Record("#node", value, expected, **more))).value

    assert await record() is None
    assert await record("one") == "one"
    assert await record("two") == "one"
    assert await record("two", "zero") == "one"
    assert await record("two", "one") == "two"
    assert await record(expected="one", forget=True) == "two"
    assert await record() == "two"
    assert await record(expected="two", forget=True) is None


async def test_a_name_is_a_queue_or_a_record(seam: Seam, mq: Client) -> None:
    await mq.queue("plain").send_message(1)
    assert '"kind":"queue"' in (await seam.record(Record("plain", "mine"))).value

    assert (await seam.record(Record("sharded", "mine"))).value == "mine"
    with pytest.raises(QueueSettingsError, match="'sharded' is sharded"):
        await mq.queue("sharded").send_message(1)
    with pytest.raises(QueueSettingsError, match="'sharded' is sharded"):
        await mq.get_queue("sharded")
    assert [info.name for info in await mq.list_queues()] == ["plain", "plain"]
