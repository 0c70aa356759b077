"""``leanmq shards``: what is in which shard and on which node; a plan, which changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from leanmq import LeanMQ, Outgoing
from leanmq.backends.many import ManyQueues, Record
from leanmq.backends.registry import Options, open_backend
from leanmq.sharding.hashing import shard_of
from tests.cli.conftest import Run, documents
from tests.support import running

SECRET = "hunter2"


@pytest.fixture
def orders(mq: LeanMQ) -> None:
    """A queue of 4 shards on one deployment: three messages and a dead letter of one key."""
    queue = mq.sharded_queue("orders", shards=4)
    queue.send_messages([Outgoing(number, key="ann") for number in range(4)])
    queue.send_message("later", key="ann", delay=60)
    queue.move_to_dlq(queue.get_messages(1), reason="no address")
    mq.queue("plain").declare()


SHARD = shard_of("ann", 4)


@pytest.fixture
def over_nodes(bare: Run, tmp_path: Path) -> Iterator[LeanMQ]:
    """A client of two deployments that ``leanmq.toml`` names, of which b weighs twice."""
    a, b = (f"memory://{tmp_path.name}-{name}" for name in "ab")
    file = tmp_path / "leanmq.toml"
    file.write_text(
        f'[nodes]\na = "{a}"\nb = {{ url = "{b}", weight = 2 }}\n[router]\nshards = 6\n'
    )
    with LeanMQ.from_config(file) as mq:
        mq.queue("orders").send_messages([Outgoing(n, key=str(n)) for n in range(12)])
        yield mq


# --- show


def test_each_shard_is_a_line_and_each_node_and_the_skew_comes_last(run: Run, orders: None) -> None:
    lines = run("shards", "orders").stdout.splitlines()

    assert lines[0] == "SHARD  NODE     READY  IN FLIGHT  DELAYED  DEAD"
    assert lines[1 + SHARD] == f"    {SHARD}  default      3          0        1     1"
    assert sum(line.endswith(" 0          0        0     0") for line in lines[1:5]) == 3
    assert lines[6:8] == [
        "NODE     WEIGHT  SHARDS  BY WEIGHT  BACKLOG  STATE",
        "default       1       4          4        4  up",
    ]
    assert lines[9] == f"skew 4.00: shard {SHARD} has a backlog of 4, the mean is 1.0"


def test_json_has_all_of_it_in_one_document(run: Run, orders: None) -> None:
    [document] = documents(run("shards", "orders", "--json"))

    assert (document["queue"], document["epoch"], document["skew"]) == ("orders", 1, 4.0)
    assert document["nodes"] == [
        {"node": "default", "weight": 1.0, "shards": 4, "quota": [4, 4], "backlog": 4,
         "error": None}
    ]  # fmt: skip
    assert document["shards"][SHARD] == {
        "shard": SHARD, "node": "default", "ready": 3, "in_flight": 0, "delayed": 1, "dead": 1,
    }  # fmt: skip


def test_shards_are_on_the_nodes_of_a_configuration(bare: Run, over_nodes: LeanMQ) -> None:
    [document] = documents(bare("shards", "orders", "--json"))
    plain = bare("shards", "orders").stdout.splitlines()

    found = {row["node"]: row["shards"] for row in document["nodes"]}
    assert found == {"a": 2, "b": 4}
    assert sum(shard["ready"] for shard in document["shards"]) == 12
    assert plain[8:10][0] == "NODE  WEIGHT  SHARDS  BY WEIGHT  BACKLOG  STATE"
    assert plain[9].startswith("a          1       2          2 ")


def test_an_empty_queue_has_no_skew(run: Run, mq: LeanMQ) -> None:
    mq.sharded_queue("empty", shards=2).declare()

    assert run("shards", "empty").stdout.splitlines()[-1] == "no backlog"
    assert documents(run("shards", "empty", "--json"))[0]["skew"] is None


def test_a_queue_may_be_called_as_a_command(run: Run, mq: LeanMQ) -> None:
    mq.sharded_queue("plan", shards=2).declare()

    shown = run("shards", "show", "plan")

    assert shown.exit_code == 0
    assert shown.stdout.startswith("SHARD  NODE")


def test_a_node_that_is_down_is_shown_as_such_and_the_rest_goes_on(
    bare: Run, redis_url: str, tmp_path: Path
) -> None:
    other = running.get("redis", 1)
    other.ask(other.nodes[0], "FLUSHALL")
    file = tmp_path / "leanmq.toml"
    file.write_text(f'[nodes]\na = "{redis_url}"\nb = "{other.url}"\n[router]\nshards = 4\n')
    with LeanMQ.from_config(file) as mq:
        mq.queue("orders").send_messages([Outgoing(n, key=str(n)) for n in range(40)])
    try:
        other.kill_primary()
        shown = bare("shards", "orders")
        told = bare("shards", "orders", "--json")
        planned = bare("shards", "plan", "orders", "--remove", "b", "--json")
    finally:
        other.heal()
        other.ask(other.nodes[0], "FLUSHALL")

    assert (shown.exit_code, told.exit_code, planned.exit_code) == (1, 1, 0)
    assert shown.stderr == "leanmq: error: no figures of node 'b': see above\n"
    rows = {line.split()[1]: line.split() for line in shown.stdout.splitlines()[1:5]}
    assert rows["b"][2:] == ["-"] * 4
    assert int(rows["a"][2]) > 0
    [document] = documents(told)
    assert [node["error"] is None for node in document["nodes"]] == [True, False]
    assert documents(planned)[0]["moves"][0]["messages"] is None


# --- what cannot be shown


@pytest.mark.parametrize("command", [["shards"], ["shards", "plan", "--add", "b=memory://"]])
@pytest.mark.parametrize(
    ("queue", "problem"),
    [
        ("plain", "queue 'plain' is not in shards; `leanmq queues` shows which are, and in how"),
        ("order", "queue 'order' does not exist; did you mean 'orders'?"),
    ],
)
def test_a_queue_without_shards_and_none_at_all_are_said_to_be_that(
    run: Run, mq: LeanMQ, orders: None, command: list[str], queue: str, problem: str
) -> None:
    result = run(*command, queue)

    assert result.exit_code == 1
    assert result.stderr.startswith(f"leanmq: error: {problem}")
    assert {info.name for info in mq.list_queues()} == {"orders", "plain"}


def test_the_nodes_of_another_configuration_are_refused(
    bare: Run, over_nodes: LeanMQ, tmp_path: Path
) -> None:
    result = bare("shards", "orders", "--url", f"memory://{tmp_path.name}-a")

    assert result.exit_code == 1
    assert "has its 6 shards on other nodes than those that were opened" in result.stderr


def test_without_a_queue_help_is_shown(bare: Run) -> None:
    result = bare("shards")

    assert result.exit_code == 0
    assert "leanmq shards [OPTIONS] QUEUE | COMMAND" in result.stdout


# --- plan


def test_a_plan_tells_what_would_move_and_changes_nothing(bare: Run, over_nodes: LeanMQ) -> None:
    before = over_nodes.sharded_queue("orders").placement()

    plain = bare("shards", "plan", "orders", "--add", f"c=redis://:{SECRET}@nowhere:1/0*3")
    [document] = documents(
        bare("shards", "plan", "orders", "--add", "c=redis://nowhere:1*3", "--json")
    )

    assert plain.stdout.endswith("\n3 of 6 shards would move; nothing was changed\n")
    assert plain.stdout.startswith("FROM  TO  SHARDS  MESSAGES  DEAD\na     c ")
    assert SECRET not in plain.output
    assert document["changed"] is False
    assert sum(move["count"] for move in document["moves"]) == 3
    assert {move["to"] for move in document["moves"]} == {"c"}
    assert document["nodes"][2] == {
        "node": "c", "weight_before": None, "weight": 3.0, "shards_before": 0, "shards": 3,
        "quota_before": None, "quota": [3, 3],
    }  # fmt: skip
    assert over_nodes.sharded_queue("orders").placement() == before


def test_the_messages_of_a_move_are_those_of_its_shards(bare: Run, over_nodes: LeanMQ) -> None:
    [document] = documents(bare("shards", "orders", "--json"))
    counts = {shard["shard"]: shard["ready"] for shard in document["shards"]}

    [planned] = documents(bare("shards", "plan", "orders", "--remove", "a", "--json"))

    [move] = planned["moves"]
    assert (move["from"], move["to"], move["count"]) == ("a", "b", 2)
    assert move["messages"] == sum(counts[shard] for shard in move["shards"])
    assert planned["nodes"][0]["weight"] is None


def test_weights_that_are_as_before_move_nothing(bare: Run, over_nodes: LeanMQ) -> None:
    same = bare("shards", "plan", "orders", "--weight", "b=2")
    other = bare("shards", "plan", "orders", "--weight", "b=1", "--weight", "a=1")

    assert same.stdout.startswith("no shard would move\n")
    assert "1 of 6 shards would move" in other.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "say what shall change: --add, --remove or --weight"),
        (["--add", "c"], "--add: write NAME=URL"),
        (["--add", "c=localhost"], "--add: write NAME=URL"),
        (["--add", f"c=redis://:{SECRET}@"], "--add c: "),
        (["--add", "a=redis://h"], "--add 'a': there is a node of this name"),
        (["--remove", "a", "--add", "a=redis://h"], "--add 'a': a node of this name is removed"),
        (["--add", "c=redis://h", "--add", "c=redis://g"], "--add 'c' is given twice"),
        (["--weight", "a=2", "--weight", "a=3"], "--weight 'a' is given twice"),
        (["--add", "c c=redis://h"], "node 'c c' cannot be named so"),
        (["--add", "c=redis://h*0"], "the weight of node 'c' is 0.0"),
        (["--remove", "x"], "--remove 'x': there is no such node; there are a, b"),
        (["--remove", "a", "--remove", "b"], "0 nodes are given"),
        (["--weight", "x=1"], "--weight 'x': there is no such node; there are a, b"),
        (["--weight", "a"], "--weight 'a': write NAME=WEIGHT"),
        (["--weight", "a=nan"], "the weight of node 'a' is nan"),
    ],
)
def test_a_plan_that_cannot_be_is_wrong_usage(
    bare: Run, over_nodes: LeanMQ, arguments: list[str], problem: str
) -> None:
    result = bare("shards", "plan", "orders", *arguments)

    assert result.exit_code == 2
    assert problem in result.stderr
    assert SECRET not in result.output


# --- a node that lost its data


def test_a_node_that_lost_its_data_is_taken_in_by_a_command(
    bare: Run, over_nodes: LeanMQ, tmp_path: Path
) -> None:
    forget_node(f"memory://{tmp_path.name}-b")

    refused = bare("shards", "orders")
    unanswered = bare("shards", "readmit", "orders", "b", input="y\n")  # a pipe cannot answer
    unknown = bare("shards", "readmit", "orders", "x", "--yes")
    done = bare("shards", "readmit", "orders", "b", "--yes")
    again = bare("shards", "readmit", "orders", "b", "--yes", "--json")
    shown = bare("shards", "orders")

    assert refused.exit_code == 1
    assert "without an id: b" in refused.stderr
    assert "`leanmq shards readmit orders b`" in refused.stderr
    assert (unanswered.exit_code, "give --yes" in unanswered.stderr) == (2, True)
    assert (unknown.exit_code, "there are a, b" in unknown.stderr) == (2, True)
    assert done.stdout == "node 'b' is taken in again\n"
    assert documents(again) == [{"queue": "orders", "node": "b", "changed": False}]
    assert shown.exit_code == 0


def forget_node(url: str) -> None:
    """Take away what says which node a deployment is, and where shards are."""
    node = open_backend(url, None, Options())
    assert isinstance(node, ManyQueues)
    for name in ("#node", "orders"):
        stored = node.record(Record(name)).value
        assert node.record(Record(name, expected=stored, forget=True)).value is None
    node.close()


# --- the other commands


def test_queues_have_a_column_of_shards_if_any_is_in_shards(run: Run, orders: None) -> None:
    listed = run("queues").stdout.splitlines()
    [document, plain] = documents(run("queues", "--json"))
    info = run("queues", "info", "orders").stdout

    assert listed[0] == "QUEUE   READY  IN FLIGHT  DELAYED  DEAD  SHARDS"
    assert [line.split()[-1] for line in listed[1:]] == ["4", "-"]
    assert (document["shards"], plain["shards"]) == (4, 0)
    assert "\nshards          4\n" in info
    assert "\nshards          none\n" in run("queues", "info", "plain").stdout


def test_a_queue_in_shards_is_looked_at_and_emptied_as_any_other(
    run: Run, mq: LeanMQ, orders: None
) -> None:
    peeked = documents(run("peek", "orders", "--json"))
    [letter] = documents(run("dlq", "list", "orders", "--json"))
    shown = run("dlq", "show", "orders", letter["id"])
    requeued = run("dlq", "requeue", "orders", "--all")
    purged = run("purge", "orders", "--yes")

    assert sorted(message["data"] for message in peeked) == [1, 2, 3]
    assert "no address" in shown.stdout
    assert requeued.stdout == "sent 1 of 1 dead letter to 'orders'\n"
    assert purged.stdout == "deleted 5 messages of 'orders'\n"


def test_messages_are_sent_to_a_queue_in_shards_by_their_keys(
    run: Run, mq: LeanMQ, orders: None
) -> None:
    one = run("send", "orders", '"one"', "--key", "bob")
    lines = run("send", "orders", "-", "--key", "bob", input="2\n3\n")

    shard = mq.sharded_queue("orders", shards=4).shard_for("bob")
    assert one.stdout.startswith(f"{shard_of('bob', 4)}#")
    assert lines.stdout == "sent 2 messages to 'orders'\n"
    found = [message.data for message in shard.peek_messages() if message.key == "bob"]
    assert found == ["one", 2, 3]


def test_a_new_queue_over_nodes_is_made_by_sending(bare: Run, over_nodes: LeanMQ) -> None:
    sent = bare("send", "new", "1")

    assert sent.exit_code == 0
    assert over_nodes.queue("new").get_info().shards == 6


def test_no_line_makes_no_queue(run: Run, mq: LeanMQ) -> None:
    run("send", "empty", "-", input="\n")

    assert mq.list_queues() == []
