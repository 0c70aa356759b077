"""``leanmq demo``: its sum adds up, repeats with its seed, and tells what really happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from leanmq import LeanMQ, QueueInfo
from leanmq.demo import shop
from leanmq.demo.day import run as run_day
from leanmq.demo.day import swept
from leanmq.demo.plan import plan
from leanmq.demo.shop import Handler, Order, VanError
from leanmq.demo.summary import Summary
from tests.cli.conftest import Run, documents
from tests.cli.test_terminal import keys_of


class Notes:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.seen: list[int] = []

    def see(self, elapsed: float, sent: int, queues: Sequence[QueueInfo]) -> None:
        self.seen.append(sent)

    def hear(self, elapsed: float, event: str) -> None:
        self.events.append(event)


def live(handler: Handler | None = None, seconds: float = 1) -> tuple[Summary, Notes]:
    notes = Notes()
    with LeanMQ("memory://") as mq:
        summary = run_day(
            mq,
            notes,
            seed=7,
            seconds=seconds,
            handler=lambda warehouse: handler or warehouse.ship,
        )
    return summary, notes


def test_the_sum_adds_up_and_the_seed_repeats_it(bare: Run) -> None:
    first = bare("demo", "--seed", "7", "--seconds", "1", "--json")
    again = bare("demo", "--seed", "7", "--seconds", "1", "--json")
    other = bare("demo", "--seed", "8", "--seconds", "1", "--json")

    assert first.exit_code == 0
    assert first.stdout == again.stdout
    assert first.stdout != other.stdout
    [told] = documents(first)
    assert told["adds_up"] is True
    assert told["sent"] == told["handled"] + told["dead"] + told["expired"] == 20
    assert (told["dead"], told["requeued"], told["left"]) == (1, 1, 0)
    assert told["expired"] > 0
    assert told["retries"] > 0


def test_lines_tell_what_happens(bare: Run) -> None:
    result = bare("demo", "--seconds", "1")

    assert result.exit_code == 0
    assert result.stdout.startswith("leanmq demo on memory://, seed 7, 1 seconds\n")
    assert (
        "order 3 is a dead letter: delivered 3 times of max_deliveries 3: OutOfStockError: no "
        "unicorn in stock\n" in result.stdout
    )
    assert "bought a unicorn, and sent order 3 back\n" in result.stdout
    assert "order 5 stays a dead letter: there is no address on it\n" in result.stdout
    assert result.stdout.endswith("expired + 0 left: it adds up\n")


def test_a_handler_that_always_fails_changes_the_sum() -> None:
    usual, _ = live()

    def fail(order: Order, delivery: int) -> None:
        raise VanError("all vans broke down")

    failed, notes = live(fail)

    assert usual.handled > 0
    assert failed.handled == 0
    assert failed.dead == failed.sent - failed.expired
    assert failed.retries == 2 * failed.dead
    assert failed.expired == usual.expired
    assert failed.adds_up
    assert any("all vans broke down" in event for event in notes.events)


def test_an_order_that_gets_lost_does_not_add_up(
    bare: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shop._settle

    def settle(place: shop.Shop, queue: object, message: object, handle: Handler) -> None:
        if message.data.number == 9:  # type: ignore[attr-defined]  # a message
            queue.acknowledge_messages(message)  # type: ignore[attr-defined]  # a queue
        else:
            real(place, queue, message, handle)  # type: ignore[arg-type]  # these two

    monkeypatch.setattr(shop, "_settle", settle)
    result = bare("demo", "--seconds", "1", "--json")

    [told] = documents(result)
    assert result.exit_code == 1
    assert told["adds_up"] is False
    assert "do not add up" in result.stderr


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (Summary(sent=2, handled=1, dead=0, expired=0, left=0), "IT DOES NOT ADD UP"),
        (Summary(sent=2, handled=2, dead=0, expired=0, left=0, twice=1), "1 shipped twice"),
        (Summary(sent=2, handled=2, dead=0, expired=0, left=0, strange=1), "that were not sent"),
    ],
)
def test_what_is_lost_doubled_or_strange_is_told(summary: Summary, words: str) -> None:
    assert not summary.adds_up
    assert words in str(summary)


def test_a_handler_with_a_bug_ends_the_day_with_its_error() -> None:
    def crash(order: Order, delivery: int) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        live(crash)


def test_a_day_is_decided_by_its_seed() -> None:
    assert plan(1, 10) == plan(1, 10)
    assert plan(1, 10) != plan(2, 10)
    day = plan(7, 10)
    assert len(day) == 200
    assert sum(arrival.order.bad_roads > 0 for arrival in day) > 10
    assert sum(arrival.delay is not None for arrival in day) > 5
    assert sum(arrival.ttl is not None for arrival in day) > 3
    assert sum(arrival.quote and arrival.ttl is None for arrival in day) > 3


def test_it_runs_in_memory_unless_it_was_told_otherwise(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "leanmq.toml").write_text("url = 'redis://127.0.0.1:1'\n")

    elsewhere = bare("demo", "--seconds", "1", REDIS_URL="redis://127.0.0.1:1")
    told = bare("demo", "--seconds", "1", LEANMQ_URL="memory://told")
    refused = bare("demo", "--url", "redis://127.0.0.1:1", "--deadline", "0")

    assert elsewhere.stdout.startswith("leanmq demo on memory://,")
    assert told.stdout.startswith("leanmq demo on memory://told,")
    assert refused.exit_code == 1
    assert "cannot be reached" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_on_a_server_it_leaves_other_queues_alone_and_none_of_its_own(
    bare: Run, redis_url: str
) -> None:
    with LeanMQ(redis_url) as mq:
        mq.queue("orders").send_message("mine")
    before = keys_of(redis_url)

    result = bare("demo", "--seconds", "1", "--url", redis_url, "--json")

    assert documents(result)[0]["adds_up"] is True
    assert keys_of(redis_url) == before


def test_what_a_demo_made_is_deleted_when_it_fails(redis_url: str) -> None:
    def fail(mq: LeanMQ) -> None:
        with swept(mq):
            mq.queue("orders").send_message(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail(LeanMQ(redis_url, prefix="x:"))

    assert keys_of(redis_url) == []
