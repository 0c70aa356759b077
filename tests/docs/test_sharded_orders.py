"""The example of orders in shards does what it says, and would notice if it did not."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import leanmq
from examples import sharded_orders
from tests.docs.pages import ROOT


def test_the_orders_of_every_customer_are_handled_in_order(
    subject: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sharded_orders.main([]) == 0, subject

    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "2,000 orders of 40 customers, 8 shards on 3 nodes"
    assert last == "  the orders of every customer were handled in order"


def test_it_runs_on_the_deployments_that_it_is_given() -> None:
    command = [sys.executable, "-m", "examples.sharded_orders", "memory://", "memory://"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stderr) == (0, "")
    assert "8 shards on 2 nodes\n  2,000 of 2,000 orders handled\n" in done.stdout


def without_keys(queue: Any, items: Any, key: Any) -> list[str]:
    return send_messages(queue, items)


def all_but_the_last(queue: Any, items: Any, key: Any) -> list[str]:
    return send_messages(queue, items[:-1], key=key)


send_messages = leanmq.ShardedQueue.send_messages


@pytest.mark.parametrize(
    ("broken", "said"),
    [(without_keys, "came after"), (all_but_the_last, "the sums are not those of what was sent")],
)
def test_what_is_out_of_order_or_missing_is_noticed(
    broken: Any, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(leanmq.ShardedQueue, "send_messages", broken)
    monkeypatch.setattr(sharded_orders, "PATIENCE", 2.0)

    assert sharded_orders.main([]) == 1
    assert said in capsys.readouterr().out
