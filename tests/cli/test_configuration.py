"""Where commands take their configuration from; ``leanmq config``, ``url`` and ``ping``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run, documents

SECRET = "hunter2"


@pytest.mark.parametrize(
    "arguments",
    [["queues"], ["send", "q", "1"], ["peek", "q"], ["purge", "q", "--yes"], ["dlq", "list", "q"],
     ["config"], ["ping"]],
)  # fmt: skip
def test_with_nothing_configured_a_command_says_how_to(bare: Run, arguments: list[str]) -> None:
    result = bare(*arguments)

    assert result.exit_code == 2
    assert result.stderr.startswith(
        "leanmq: error: nothing says where the messages are; give --url"
    )
    assert "LEANMQ_URL" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("before", [True, False])
def test_shared_options_stand_before_the_command_or_behind_it(bare: Run, before: bool) -> None:
    shared = ["--url", "memory://x", "--prefix", "shop:", "--json"]

    result = bare(*shared, "config") if before else bare("config", *shared)

    assert documents(result)[:2] == [
        {"setting": "url", "value": "memory://x", "from": "--url"},
        {"setting": "prefix", "value": "shop:", "from": "--prefix"},
    ]


def test_an_option_at_the_command_wins_over_one_before_it(bare: Run) -> None:
    result = bare("--prefix", "a:", "queues", "--prefix", "b:", "list", "--url", "memory://",
                  "--prefix", "c:", "--json")  # fmt: skip
    told = bare("--prefix", "a:", "config", "--prefix", "b:", "--url", "memory://", "--json")

    assert result.exit_code == 0
    assert documents(told)[1]["value"] == "b:"


def test_options_win_over_variables_over_a_file(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "leanmq.toml").write_text(
        f"""
        url = "redis://ann:{SECRET}@h:1/0"
        prefix = "file:"
        deadline = 1
        connection_timeout = 2
        [queues.orders]
        lease = 5
        """
    )

    result = bare("config", "--deadline", "9", "--json", LEANMQ_PREFIX="env:")

    found = {document["setting"]: document for document in documents(result)}
    assert found["deadline"]["value"] == 9.0
    assert (found["prefix"]["value"], found["prefix"]["from"]) == (
        "env:", "LEANMQ_PREFIX in the environment",
    )  # fmt: skip
    assert found["url"]["value"] == "redis://ann:***@h:1/0"
    assert "leanmq.toml" in found["connection_timeout"]["from"]
    assert found["queues.orders.lease"]["value"] == 5.0
    assert SECRET not in result.output


def test_a_file_is_named_by_an_option_or_a_variable(bare: Run, tmp_path: Path) -> None:
    named = tmp_path / "other.toml"
    named.write_text("url = 'memory://named'\n")

    by_option = bare("config", "--config", str(named))
    by_variable = bare("config", LEANMQ_CONFIG=str(named))

    assert by_option.stdout == by_variable.stdout
    assert "memory://named" in by_option.stdout


def test_a_wrong_configuration_exits_2_and_says_what_is_wrong(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "leanmq.toml").write_text("url = 'memory://'\nprefx = 'a:'\n")

    result = bare("queues")

    assert result.exit_code == 2
    assert "prefx is not known, did you mean 'prefix'?" in result.stderr


def test_config_is_a_table_for_people(bare: Run) -> None:
    result = bare("config", REDIS_URL=f"redis://:{SECRET}@h")

    assert result.stdout.splitlines()[:2] == [
        "SETTING             VALUE           FROM",
        "url                 redis://:***@h  REDIS_URL in the environment",
    ]


def test_parts_of_an_address_are_shown_without_their_secrets(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "leanmq.toml").write_text(
        f'backend = "sentinel"\nhosts = ["s1", "s2"]\nservice = "main"\npassword = "{SECRET}"\n'
        f'sentinel_password = "{SECRET}"\n'
    )

    result = bare("config")

    assert SECRET not in result.output
    assert "redis+sentinel://" in result.stdout
    assert result.stdout.count("***") >= 3


NODES = f"""
prefix = "shop:"
[nodes]
a = "memory://"
b = {{ url = "redis://ann:{SECRET}@127.0.0.1:1/0", weight = 2 }}
[router]
shards = 16
"""


def test_nodes_are_shown_one_by_one_without_their_secrets(bare: Run, tmp_path: Path) -> None:
    file = tmp_path / "leanmq.toml"
    file.write_text(NODES)

    found = documents(bare("config", "--json"))
    plain = bare("config")

    assert [(document["setting"], document["value"]) for document in found[:6]] == [
        ("nodes.a", "memory://"),
        ("nodes.b", "redis://ann:***@127.0.0.1:1/0"),
        ("nodes.b.weight", 2.0),
        ("router.strategy", "consistent-hash"),
        ("router.shards", 16),
        ("prefix", "shop:"),
    ]
    assert [document["from"] for document in found[2:5]] == [str(file), "default", str(file)]
    assert SECRET not in plain.output + json.dumps(found)


def test_ping_asks_all_nodes_and_names_the_one_that_does_not_answer(
    bare: Run, tmp_path: Path
) -> None:
    (tmp_path / "leanmq.toml").write_text(NODES)
    failed = bare("ping", "--deadline", "0")
    (tmp_path / "leanmq.toml").write_text('nodes = { a = "memory://", b = "memory://" }\n')
    answered = bare("ping")

    assert failed.exit_code == 1
    assert failed.stderr.startswith("leanmq: error: node 'b': server 127.0.0.1:1 cannot be reached")
    assert SECRET not in failed.output
    assert answered.stdout.startswith(
        "consistent-hash router over a (memory://), b (memory://) answers in "
    )


def test_json_and_options_of_commands_have_variables(run: Run) -> None:
    ids = run("send", "orders", "1", LEANMQ_JSON="1", LEANMQ_SEND_KEY="ann")
    peeked = run("--json", "peek", "orders", LEANMQ_PEEK_COUNT="1", LEANMQ_JSON="0")

    assert len(documents(ids)) == 1
    assert documents(peeked)[0]["key"] == "ann"


def test_a_url_is_explained_without_its_secrets(bare: Run) -> None:
    plain = bare("url", f"redis+sentinel://ann:{SECRET}@s1,s2/main")
    [document] = documents(bare("url", f"redis://ann:{SECRET}@h/3", "--json"))

    assert "s1:26379, s2:26379 name the primary of service 'main'" in plain.stdout
    assert SECRET not in plain.output
    assert document["url"] == "redis://ann:***@h/3"
    assert document["topology"] == "single"
    assert "database 3" in document["meaning"]


def test_a_url_that_cannot_be_is_wrong_usage(bare: Run) -> None:
    result = bare("url", f"redis://ann:{SECRET}")

    assert result.exit_code == 2
    assert "a host is missing" in result.stderr
    assert SECRET not in result.output


def test_ping_tells_how_long_the_answer_took(run: Run, url: str) -> None:
    plain = run("ping")
    [document] = documents(run("ping", "--json"))

    assert plain.stdout.startswith(f"{url} answers in ")
    assert document["url"] == url
    assert document["milliseconds"] >= 0


def test_ping_fails_where_nobody_answers(bare: Run) -> None:
    result = bare("ping", "--url", f"redis://:{SECRET}@127.0.0.1:1", "--deadline", "0")

    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
    assert SECRET not in result.stderr
    assert result.stdout == ""
