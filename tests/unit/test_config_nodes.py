"""Configuration of several deployments: what is refused, what wins, and the client that results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from leanmq import (
    AsyncLeanMQ,
    BackendConfig,
    ConfigurationError,
    ConsistentHashRouter,
    LeanMQ,
    RoundRobinRouter,
    ShardedQueue,
)
from leanmq.sources import resolve

SECRET = "hunter2 /@"
FILE = """
prefix = "file:"
connection_timeout = 7

[nodes]
a = "redis://a:6379/0"
b = { url = "redis://b:6379/0", weight = 2, password = "${PASSWORD}" }
c = { backend = "sentinel", hosts = ["s1", "s2"], service = "main", weight = "${WEIGHT:-0.5}" }

[router]
shards = "16"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "leanmq.toml"
    path.write_text(FILE)
    return path


def test_nodes_are_urls_or_tables_with_weights(file: Path) -> None:
    config = resolve(file, environ={"PASSWORD": SECRET}).config

    assert config.node_urls() == {
        "a": "redis://a:6379/0",
        "b": "redis://:hunter2%20%2F%40@b:6379/0",
        "c": "redis+sentinel://s1,s2/main",
    }
    assert config.weights() == {"a": 1.0, "b": 2.0, "c": 0.5}
    assert config.router == {"shards": 16}


def test_a_configuration_with_nodes_is_the_same_when_it_is_read_again(file: Path) -> None:
    config = resolve(file, environ={"PASSWORD": SECRET}).config

    assert resolve(config).config == config
    assert BackendConfig(**config.said()) == config


def test_secrets_of_nodes_are_masked_wherever_people_look(file: Path) -> None:
    found = resolve(file, environ={"PASSWORD": SECRET})

    assert found.display == (
        "consistent-hash router over a (redis://a:6379/0), b (redis://:***@b:6379/0), "
        "c (redis+sentinel://s1,s2/main)"
    )
    for text in (repr(found.config), found.display, repr(LeanMQ.from_config(found.config))):
        assert "hunter2" not in text
    assert "nodes={'a': {'url': '***'}, 'b': {'url': '***', 'weight': 2.0," in repr(found.config)


def test_there_is_no_url_of_all_nodes() -> None:
    with pytest.raises(ConfigurationError, match=r"see node_urls\(\)"):
        BackendConfig(nodes={"a": "memory://"}).to_url()
    assert BackendConfig(url="memory://").node_urls() == {}


ONE = {"nodes": {"a": "memory://"}}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"nodes": "redis://a"}, "nodes must be a table of settings, not a str"),
        ({"nodes": {}}, "nodes: 0 nodes are given"),
        ({"nodes": {"a": 7}}, "nodes.a must be a URL or a table of settings, not 7"),
        ({"nodes": {"a b": "memory://"}}, "nodes: node 'a b' cannot be named so"),
        ({"nodes": {"a": {}}}, "nodes.a does not say where it is; give it url, or backend"),
        ({"nodes": {"a": ""}}, "nodes.a.url must be a string with something in it"),
        ({"nodes": {"a": {"ulr": "x"}}}, "nodes.a.ulr is not known, did you mean 'url'?"),
        ({"nodes": {"a": {"prefix": "x:"}}}, "nodes.a.prefix is not of one node; give prefix besi"),
        ({"nodes": {"a": {"nodes": {}}}}, "nodes.a.nodes is not of one node"),
        ({"nodes": {"a": {"backend": "redis"}}}, "nodes.a: backend 'redis' needs hosts"),
        (
            {"nodes": {"a": {"url": "redis://h", "hosts": ["h"]}}},
            "nodes.a: url and hosts both say where the messages are",
        ),
        (
            {"nodes": {"a": "memory://", "b": {"url": "memory://", "weight": 0}}},
            "nodes.b.weight is 0; it must be a finite number above 0",
        ),
        ({"nodes": {"b": {"url": "memory://", "weight": "nan"}}}, "nodes.b.weight is nan"),
        ({"nodes": {"b": {"url": "memory://", "weight": 10**400}}}, "nodes.b.weight is inf"),
        (
            {"nodes": {"b": {"url": "memory://", "weight": "much"}}},
            "nodes.b.weight must be a number above 0, not a str",
        ),
        (
            {"nodes": {"b": {"url": "memory://", "weight": True}}},
            "nodes.b.weight must be a number above 0, not True",
        ),
        (ONE | {"url": "memory://"}, "url and nodes both say where the messages are; give one"),
        (ONE | {"backend": "memory"}, "backend and nodes both say where the messages are"),
        (
            ONE | {"password": "x"},
            "password is of one node; give it to each that needs it, as node",
        ),
        ({"router": {}}, "router says how nodes are used, and there are none; give nodes"),
        ({"url": "memory://", "router": {"shards": 4}}, "router says how nodes are used, and th"),
        (ONE | {"router": "round-robin"}, "router must be a table of settings, not a str"),
        (ONE | {"router": {"shard": 4}}, "router.shard is not known, did you mean 'shards'?"),
        (
            ONE | {"router": {"strategy": "roundrobin"}},
            "router.strategy must be one of consistent-hash, round-robin, least-backlog; "
            "did you mean 'round-robin'?",
        ),
        (ONE | {"router": {"shards": 0}}, "router.shards is 0; a queue has 1 to 4096"),
        (ONE | {"router": {"shards": "x"}}, "router.shards must be a whole number, not a str"),
        (
            ONE | {"router": {"strategy": "least-backlog", "shards": 4}},
            "router.shards goes with strategy 'consistent-hash', not 'least-backlog'",
        ),
        (
            {"nodes": {"a": {"url": "redis://${NOWHERE}"}}},
            "nodes.a.url names the variable NOWHERE, which is not set",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_name_of_the_setting(
    settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(settings, environ={})

    assert f"the mapping: {problem}" in str(caught.value)


def test_no_error_about_a_node_holds_a_secret() -> None:
    for node in (
        {"url": f"redis://:{SECRET}@h", "password": "y"},
        {"url": "memory://", "weight": SECRET},
        {"url": [SECRET]},
        {"url": "redis://h", "password": [SECRET]},
        {"url": f"nope://:{SECRET}@h"},
    ):
        with pytest.raises(ValueError, match=r"nodes\.a|node 'a'") as caught:
            LeanMQ.from_config({"nodes": {"a": node}})
        assert "hunter2" not in str(caught.value)


# --- what wins


@pytest.mark.parametrize("variable", ["LEANMQ_URL", "REDIS_URL"])
def test_a_url_of_the_environment_takes_the_place_of_nodes_as_it_does_of_a_url(
    variable: str, file: Path
) -> None:
    variables = {"PASSWORD": SECRET, variable: "redis://variable"}

    found = resolve(file, environ=variables)

    if variable == "REDIS_URL":  # counts only if nothing else says where
        assert found.origins["nodes"] == str(file)
        assert found.config.url is None
    else:
        assert found.url == "redis://variable"
        assert (found.config.nodes, found.config.router) == (None, None)
        assert found.origins["prefix"] == str(file)


def test_nodes_of_the_call_take_the_place_of_a_url_and_of_a_router(file: Path) -> None:
    found = resolve(file, environ={"PASSWORD": "x", "LEANMQ_URL": "redis://v"}, nodes=ONE["nodes"])

    assert found.config.node_urls() == ONE["nodes"]
    assert found.config.router is None
    assert found.origins["nodes"] == "the call"


# --- clients of a configuration


def test_the_client_is_over_the_router_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    for kind in (ConsistentHashRouter, RoundRobinRouter):
        made = kind.__init__

        def spy(self: Any, *args: Any, made: Any = made, **kwargs: Any) -> None:
            seen.append((type(self), args, kwargs))
            made(self, *args, **kwargs)

        monkeypatch.setattr(kind, "__init__", spy)
    nodes = {"a": "memory://", "b": {"backend": "memory", "weight": 3}}
    terms = {"weights": {"a": 1.0, "b": 3.0}, "prefix": "x:", "connection_timeout": 2.0}

    for router in (None, {"shards": 8}, {"strategy": "round-robin"}, {"strategy": "least-backlog"}):
        settings = {"nodes": nodes, "router": router, "prefix": "x:", "connection_timeout": 2}
        LeanMQ.from_config(settings).close()

    urls = ({"a": "memory://", "b": "memory://"},)
    assert seen == [
        (ConsistentHashRouter, urls, terms | {"shards": 64}),
        (ConsistentHashRouter, urls, terms | {"shards": 8}),
        (RoundRobinRouter, urls, terms | {"strategy": "round-robin"}),
        (RoundRobinRouter, urls, terms | {"strategy": "least-backlog"}),
    ]


SETTINGS = {
    "nodes": {"a": "memory://", "b": {"backend": "memory", "weight": 2}},
    "router": {"shards": 6},
    "prefix": "shop:",
    "queues": {"orders": {"lease": 7}},
}
SHOWN = "consistent-hash router over a (memory://), b (memory://)"


def test_a_client_has_the_prefix_and_the_settings_of_its_configuration() -> None:
    with LeanMQ.from_config(SETTINGS) as mq:
        orders = mq.queue("orders")

        assert repr(mq) == f"<LeanMQ {SHOWN}>"
        assert (orders.key, orders.dlq.key) == ("shop:orders", "shop:orders:dlq")
        assert mq.queue("shop:orders").name == "orders"
        assert (orders.get_info().shards, orders.get_info().lease) == (6, 7.0)


async def test_so_has_one_for_asyncio() -> None:
    async with AsyncLeanMQ.from_config(SETTINGS) as mq:
        orders = mq.queue("orders")
        await orders.send_message("tea")

        assert repr(mq) == f"<AsyncLeanMQ {SHOWN}>"
        assert orders.key == "shop:orders"
        assert (await orders.get_info()).shards == 6


def test_a_router_over_urls_says_what_keys_begin_with() -> None:
    nodes = {"a": "memory://a", "b": "memory://b"}
    with LeanMQ("memory://a", prefix="x:") as one, LeanMQ("memory://b", prefix="y:") as other:
        routers = [
            ConsistentHashRouter(nodes),
            RoundRobinRouter(nodes, prefix="z:"),
            RoundRobinRouter({"one": one}),
            RoundRobinRouter({"one": one, "other": other}),
        ]
        assert [LeanMQ(backend=router).queue("orders").key for router in routers] == [
            "mq:orders",
            "z:orders",
            "x:orders",
            "orders",  # it has several names
        ]
    assert ShardedQueue("orders", nodes, prefix="z:").key == "z:orders"


def test_a_url_that_cannot_be_is_told_with_its_node() -> None:
    with pytest.raises(ValueError, match="node 'b': the URL scheme 'nope' is unknown"):
        LeanMQ.from_config({"nodes": {"a": "memory://", "b": "nope://h"}})
