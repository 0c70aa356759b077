"""Configuration: what wins, what is refused and in what words, and that secrets stay secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leanmq import AsyncLeanMQ, BackendConfig, ConfigurationError, LeanMQ
from leanmq.backends.urls import parse_url
from leanmq.sources import resolve

SECRET = "hunter2 /@"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "leanmq.toml").write_text(
        'url = "redis://from-file/3"\nprefix = "file:"\ndeadline = 7\n'
        "[queues.orders]\nlease = 60\nmax_deliveries = 5\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"backend": "memory"}, "memory://"),
        ({"backend": "memory", "name": "a b", "slots": "strict"}, "memory://a%20b?slots=strict"),
        ({"backend": "redis", "hosts": "h"}, "redis://h"),
        ({"backend": "redis", "hosts": ["[::1]:7"], "db": 2}, "redis://[::1]:7/2"),
        ({"backend": "redis", "hosts": ["h"], "db": "2"}, "redis://h/2"),
        ({"backend": "redis", "path": "/run/r.sock", "db": 1}, "unix:///run/r.sock?db=1"),
        (
            {"backend": "redis", "hosts": ["h"], "tls": True, "ssl_ca_certs": "/ca.pem"},
            "rediss://h?ssl_ca_certs=%2Fca.pem",
        ),
        (
            {"backend": "sentinel", "hosts": "s1, s2:7", "service": "main", "db": 1},
            "redis+sentinel://s1,s2:7/main/1",
        ),
        (
            {"backend": "cluster", "hosts": ["a", "b"], "tls": "yes", "ssl_check_hostname": False},
            "rediss+cluster://a,b?ssl_check_hostname=False",
        ),
        (
            {"backend": "redis", "hosts": ["h"], "username": "ann", "password": SECRET},
            "redis://ann:hunter2%20%2F%40@h",
        ),
        ({"url": "redis://h/1", "password": SECRET}, "redis://:hunter2%20%2F%40@h/1"),
        (
            {"url": "redis+sentinel://s/main?db=1", "sentinel_password": "x&y"},
            "redis+sentinel://s/main?db=1&sentinel_password=x%26y",
        ),
    ],
)
def test_parts_are_the_url_that_they_mean(settings: dict[str, Any], url: str) -> None:
    config = BackendConfig(**settings)

    assert config.to_url() == url
    parse_url(url)


def test_a_password_may_hold_what_it_wants() -> None:
    config = BackendConfig(backend="redis", hosts=["h"], password=SECRET)

    assert parse_url(config.to_url()).password == SECRET
    assert SECRET not in repr(config)
    assert "hunter2" not in resolve(config).display


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "nothing says where the messages are"),
        ({"prefix": "x:"}, "nothing says where the messages are"),
        ({"urll": "redis://h"}, "urll is not known, did you mean 'url'?"),
        ({"url": "redis://h", "zzz": 1}, "zzz is not known; known: url, backend, "),
        ({"url": 7}, "url must be a string with something in it, not 7"),
        ({"url": ""}, "not an empty string"),
        ({"url": "redis://h", "hosts": ["h"]}, "url and hosts both say"),
        ({"url": "redis://h", "backend": "redis"}, "url and backend both say"),
        ({"url": "redis://:x@h", "password": "y"}, "names a user or password already"),
        ({"backend": "sentinal", "hosts": ["h"]}, "did you mean 'sentinel'?"),
        ({"backend": "kafka"}, "give a url for backends of others"),
        ({"backend": "redis"}, "'redis' needs hosts"),
        ({"backend": "sentinel", "hosts": ["h"]}, "needs service"),
        ({"backend": "cluster", "hosts": ["h"], "db": 1}, "db does not go with backend 'cluster'"),
        ({"backend": "redis", "hosts": []}, "hosts must be a list"),
        ({"backend": "redis", "hosts": ["h"], "db": "x"}, "db must be a whole number, not a str"),
        ({"backend": "redis", "hosts": ["h"], "tls": "perhaps"}, "tls must be true or false"),
        ({"backend": "redis", "hosts": ["h"], "ssl_keyfile": "k"}, "yet tls is not true"),
        ({"url": "memory://", "deadline": "soon"}, "deadline must be a number of seconds"),
        ({"url": "memory://", "deadline": -1}, "deadline is -1"),
        ({"url": "memory://", "prefix": "a{b"}, "prefix 'a{b' has '{'"),
        ({"url": "memory://", "queues": []}, "queues must be a table"),
        ({"url": "memory://", "queues": {"a": 1}}, "queues.a must be a table"),
        ({"url": "memory://", "queues": {"a}": {}}}, "has '}'"),
        (
            {"url": "memory://", "queues": {"orders": {"max_delivery": 5}}},
            "queues.orders.max_delivery is not known, did you mean 'max_deliveries'?",
        ),
        ({"url": "memory://", "queues": {"a": {"lease": 0}}}, "queues.a: lease is 0"),
        ({"url": "memory://", "queues": {"a": {"overflow": "x"}}}, "queues.a: overflow is 'x'"),
        ({"url": "redis://${NOWHERE}"}, "url names the variable NOWHERE, which is not set"),
    ],
)
def test_what_cannot_be_is_refused_in_words_that_help(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(settings, environ={})

    assert problem in str(caught.value)


def test_no_error_holds_a_secret() -> None:
    for settings in (
        {"backend": "redis", "hosts": ["h"], "db": SECRET},
        {"url": "redis://h", "password": [SECRET]},
        {"url": f"redis://:{SECRET}@h", "password": "y"},
        {"url": "redis://h", "deadline": SECRET},
    ):
        with pytest.raises(ConfigurationError) as caught:
            resolve(settings, environ={})
        assert "hunter2" not in str(caught.value)


# --- what wins


def test_the_call_wins_over_variables_over_a_file_over_the_defaults(folder: Path) -> None:
    variables = {"LEANMQ_PREFIX": "variable:", "LEANMQ_DEADLINE": "8"}

    found = resolve(folder / "leanmq.toml", environ=variables, deadline=9)

    config = found.config
    assert (config.deadline, config.prefix, config.url) == (9, "variable:", "redis://from-file/3")
    assert config.connection_timeout == 3
    assert found.origins == {
        "deadline": "the call",
        "prefix": "LEANMQ_PREFIX in the environment",
        "url": str(folder / "leanmq.toml"),
        "queues.orders.lease": str(folder / "leanmq.toml"),
        "queues.orders.max_deliveries": str(folder / "leanmq.toml"),
    }


def test_where_messages_are_comes_from_one_source_as_a_whole(folder: Path) -> None:
    (folder / "leanmq.toml").write_text('url = "redis://from-file"\npassword = "of the file"\n')

    found = resolve(folder / "leanmq.toml", environ={"LEANMQ_URL": "redis://variable"})

    assert found.url == "redis://variable"
    assert found.origins == {"url": "LEANMQ_URL in the environment"}


def test_queue_settings_of_two_sources_are_put_together(folder: Path) -> None:
    found = resolve(folder / "leanmq.toml", environ={}, queues={"orders": {"lease": 5}})

    assert found.config.queues == {"orders": {"lease": 5.0, "max_deliveries": 5}}


def test_what_the_program_says_is_not_changed_by_variables() -> None:
    variables = {"LEANMQ_URL": "redis://variable", "LEANMQ_PREFIX": "variable:"}

    for source in ({"url": "memory://a"}, BackendConfig(url="memory://a")):
        found = resolve(source, environ=variables)
        assert (found.url, found.config.prefix) == ("memory://a", "mq:")


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"LEANMQ_URL": "redis://a", "REDIS_URL": "redis://b"}, "redis://a"),
        ({"REDIS_URL": "redis://b"}, "redis://b"),
        ({"LEANMQ_CONFIG": "leanmq.toml", "REDIS_URL": "redis://b"}, "redis://from-file/3"),
        ({"LEANMQ_CONFIG": "leanmq.toml", "LEANMQ_URL": "redis://a"}, "redis://a"),
    ],
)
def test_the_environment_names_a_file_or_a_url(
    variables: dict[str, str], url: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    assert resolve(environ=variables).url == url


def test_a_folder_is_searched_for_a_file_of_either_name(folder: Path) -> None:
    assert resolve(environ={}, folder=folder).url == "redis://from-file/3"

    (folder / "leanmq.toml").unlink()
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    with pytest.raises(ConfigurationError, match="nothing says where"):
        resolve(environ={}, folder=folder)

    (folder / "pyproject.toml").write_text('[tool.leanmq]\nurl = "memory://of-project"\n')
    assert resolve(environ={}, folder=folder).url == "memory://of-project"


def test_texts_name_variables() -> None:
    variables = {"HOST": "h", "DB": "3"}

    found = resolve(
        {"backend": "redis", "hosts": ["${HOST}:${PORT:-7}"], "db": "${DB}", "password": "$${x}$$"},
        environ=variables,
    )

    assert parse_url(found.url).addresses == (("h", 7),)
    assert found.config.db == 3
    assert found.config.password == "${x}$"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"url = ", "is not TOML"),
        (b"\xff", "is not TOML"),
        (b'[tool.other]\nurl = "x"\n', r"has no table \[tool.leanmq\]"),
        (b"[tool.leanmq]\nleas = 1\n", r"pyproject.toml: leas is not known"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "pyproject.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigurationError, match=problem):
        resolve(path, environ={})


def test_a_file_that_is_not_there_is_named_with_the_cause(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.toml: No such file") as caught:
        resolve(tmp_path / "no.toml", environ={})

    assert isinstance(caught.value.__cause__, FileNotFoundError)


def test_something_else_is_no_configuration() -> None:
    with pytest.raises(TypeError, match="not int"):
        resolve(7)  # type: ignore[arg-type]  # on purpose


# --- clients of a configuration


def test_a_client_has_the_settings_of_its_configuration(folder: Path) -> None:
    file = folder / "leanmq.toml"

    with LeanMQ.from_config(file, url="memory://") as mq:
        orders = mq.queue("orders")
        assert orders.key == "file:orders"
        assert (orders.get_info().lease, orders.get_info().max_deliveries) == (60, 5)
    with LeanMQ.from_config(file, url="memory://") as mq:
        assert mq.queue("orders", lease=9).get_info().lease == 9  # what the call says, wins
        assert mq.queue("others").get_info().max_deliveries == 10


async def test_so_has_one_for_asyncio() -> None:
    async with AsyncLeanMQ.from_config(
        {"url": "memory://", "queues": {"orders": {"lease": 60}}}
    ) as mq:
        assert (await mq.queue("orders").get_info()).lease == 60
        async with mq.transaction() as tx:
            tx.send_message("orders", 1)


def test_a_client_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEANMQ_CONFIG", "REDIS_URL", "LEANMQ_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LEANMQ_URL", "memory://of-the-environment")

    with LeanMQ.from_env(prefix="a:") as mq:
        assert repr(mq) == "<LeanMQ memory://of-the-environment>"
        assert mq.queue("q").key == "a:q"

    monkeypatch.delenv("LEANMQ_URL")
    with pytest.raises(ConfigurationError, match="nothing says where"):
        LeanMQ.from_env()
