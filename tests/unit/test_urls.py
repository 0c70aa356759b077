"""URLs say where the data lives; their errors help and never leak a password."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import attrs
import pytest
from redis.connection import URL_QUERY_ARGUMENT_PARSERS
from redis.connection import parse_url as untyped_parse_url

import leanmq
from leanmq.backends.registry import Options, open_async_backend, open_backend
from leanmq.backends.schemes import IGNORED, SCHEMES
from leanmq.backends.urls import parse_url, show

SECRET = "hunter2"
parse_url_of_redis_py: Any = untyped_parse_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://", {"topology": "memory", "service": "", "addresses": ()}),
        ("memory://orders", {"topology": "memory", "service": "orders"}),
        ("redis://h", {"topology": "single", "addresses": (("h", 6379),), "db": 0, "tls": None}),
        ("redis://h:6380/2", {"addresses": (("h", 6380),), "db": 2}),
        ("redis://h?db=2", {"db": 2}),
        ("redis://h/2?db=2", {"db": 2}),
        ("REDIS://h", {"scheme": "redis"}),
        ("redis://[::1]:6380", {"addresses": (("::1", 6380),)}),
        ("redis://[fe80::1]", {"addresses": (("fe80::1", 6379),)}),
        ("redis://ann@h", {"username": "ann", "password": None}),
        ("redis://:pw@h", {"username": None, "password": "pw"}),
        ("redis://ann:p%2Fw%40@h", {"username": "ann", "password": "p/w@"}),
        ("redis://ann:p@w:#x@h", {"password": "p@w:#x"}),
        ("rediss://h", {"tls": {"ssl_cert_reqs": "required", "ssl_check_hostname": True}}),
        (
            "rediss://h?ssl_cert_reqs=optional&ssl_ca_certs=%2Fca.pem&ssl_check_hostname=no",
            {
                "tls": {
                    "ssl_cert_reqs": "optional",
                    "ssl_ca_certs": "/ca.pem",
                    "ssl_check_hostname": False,
                }
            },
        ),
        (
            "rediss://h?ssl_cert_reqs=none",
            {"tls": {"ssl_cert_reqs": "none", "ssl_check_hostname": False}},
        ),
        ("unix:///run/redis.sock", {"topology": "single", "addresses": ("/run/redis.sock",)}),
        ("unix:///a@b.sock?db=3", {"addresses": ("/a@b.sock",), "db": 3}),
        ("unix:///a%20b.sock", {"addresses": ("/a b.sock",)}),
        ("redis+sentinel://h/a%2Fb/1", {"service": "a/b", "db": 1}),
        ("redis://h?cluster=false", {"topology": "single", "scheme": "redis"}),
        ("redis://h?db=2&db=2", {"db": 2}),
        ("unix://ann:pw@/r.sock", {"username": "ann", "password": "pw"}),
        (
            "redis+sentinel://h1,h2:1/main",
            {
                "topology": "sentinel",
                "addresses": (("h1", 26379), ("h2", 1)),
                "service": "main",
                "db": 0,
            },
        ),
        (
            "rediss+sentinel://d:x@h/main/4?sentinel_username=s&sentinel_password=a+b",
            {
                "username": "d",
                "password": "x",
                "sentinel_username": "s",
                "sentinel_password": "a+b",
                "db": 4,
            },
        ),
        (
            "redis+cluster://h1:7000,h2/0",
            {"topology": "cluster", "addresses": (("h1", 7000), ("h2", 6379))},
        ),
    ],
)
def test_a_url_is_understood(url: str, expected: dict[str, Any]) -> None:
    target = parse_url(url)

    assert {name: getattr(target, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "display"),
    [
        ("redis://ann:hunter2@h:1/2", "redis://ann:***@h:1/2"),
        ("redis://:hunter2@h", "redis://:***@h"),
        ("redis://ann@h", "redis://ann@h"),
        ("redis://h?db=1", "redis://h?db=1"),
        ("redis://h?socket_timeout=5&db=1", "redis://h?db=1"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("memory://orders?slots=strict", "memory://orders?slots=strict"),
        ("rediss://h?ssl_ca_certs=/a%0Ab.pem", "rediss://h?ssl_ca_certs=/a%0Ab.pem"),
        ("unix://:hunter2@/r.sock", "unix://:***@/r.sock"),
        (
            "redis+sentinel://h/main?sentinel_password=hunter2",
            "redis+sentinel://h/main?sentinel_password=***",
        ),
    ],
)
def test_a_url_is_shown_without_its_passwords(url: str, display: str) -> None:
    target = parse_url(url)

    assert target.display == display
    assert SECRET not in repr(target)


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("h:6379", "starts with"),
        ("foo://h", "'foo'"),
        ("redis://", "a host is missing"),
        ("redis://h1, h2", "a host is missing or not understood"),
        ("redis://h:0", "from 1 to 65535"),
        ("redis://h:65536", "from 1 to 65535"),
        ("redis://::1", "IPv6 in [brackets]"),
        ("redis://a,b", "takes one host"),
        ("redis://h/x", "must be one number"),
        ("redis://h/1?db=2", "must be one number"),
        ("redis://h?database=1", "'database' is not known; allowed: db"),
        ("rediss://h?ssl_ca_cert=x", "nearest is 'ssl_ca_certs'"),
        ("redis://h?socket_timout=5", "nearest is 'socket_timeout'"),
        ("redis+sentinel://h/s?sentinel_user=x", "nearest is 'sentinel_username'"),
        ("redis://h?password=x", "write user:password@ before"),
        ("redis+cluster://h?username=x", "write user:password@ before"),
        ("rediss://h?ssl_min_version=771", "'ssl_min_version' is not known"),
        ("redis+sentinel://h/s?cluster=true", "'cluster' is not known"),
        ("redis://h?cluster=maybe", "cluster must be true or false"),
        ("redis://h?db", "write ?name=value"),
        ("redis://h?db=1&db=2", "'db' is given twice"),
        ("redis://%ff@h", "not UTF-8"),
        ("redis://\udcff@h", "not UTF-8"),
        ("memory://a?socket_timeout=1", "'socket_timeout' is not known"),
        ("redis+sentinel://h//1", "name of the service"),
        ("redis://h?ssl_cert_reqs=none", "TLS needs a rediss scheme"),
        ("rediss://h?ssl_cert_reqs=maybe", "none, optional, required"),
        ("rediss://h?ssl_check_hostname=maybe", "true or false"),
        ("redis+sentinel://h", "name of the service"),
        ("redis+cluster://h/1", "only database 0"),
        ("memory://a/b", "memory://name"),
        ("memory://a?db=1", "allowed: slots"),
        ("memory://a?slots=tight", "slots must be loose, or strict"),
        ("unix://", "unix:///path"),
        ("unix://h/r.sock", "unix:///path"),
    ],
)
def test_a_url_that_is_wrong_says_what_and_how_to_mend_it(url: str, names: str) -> None:
    with pytest.raises(ValueError, match=r"URL|scheme") as caught:
        parse_url(url)

    assert names in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://ann:hunter2",  # no host: the password stands where a port belongs
        "redis://hunter2!",  # no host name
        "redis://hunter2%21:6379",
        "redis://:hunter2:6379",
        "redis://:hunter2/x@h/0",  # not encoded: the host part ends too early
        "redis://:x/hunter2@h/0",
        "redis://:x?hunter2@h",
        "redis://:hunter2@h:port",
        "redis://:hunter2@h?x=1",
        "redis://h?password=hunter2",
        "redis://ann:x?hunter2",
        "redis://ann:x?hunter2=",
        "redis://h?db=hunter2",
        "redis://h?db=1&db=hunter2",
        "redis://h?cluster=hunter2",
        "redis://:hunter2%ff@h",
        "redis+sentinel://h/main?sentinel_password=hunter2&nope=1",
        "redis+sentinel://h/main?sentinel_password=@hunter2",
        "unix://:hunter2/r.sock",
        "memory://:hunter2@a",
        "ann:hunter2@h",
        "foo:hunter2://h",
    ],
)
def test_no_error_ever_holds_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|scheme") as caught:
        parse_url(url)

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "host", ["h", "10.0.0.1", "a_b-c.example.com", "redis.", "k\u016f\u0148.cz"]
)
def test_a_host_has_letters_of_any_alphabet(host: str) -> None:
    assert parse_url(f"redis://{host}:1").addresses == ((host, 1),)


def test_addresses_are_shown_as_people_write_them() -> None:
    assert [show(("h", 1)), show(("::1", 2)), show("/r.sock")] == ["h:1", "[::1]:2", "/r.sock"]


def test_parsing_does_not_import_redis() -> None:
    code = "import leanmq.backends.urls, sys; sys.exit('redis' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- many URLs, one meaning


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("redis://h", "redis://h:6379/0"),
        ("REDIS://:hunter2@h?db=2&timeout=1", "redis://:***@h:6379/2"),
        ("redis://[::1]", "redis://[::1]:6379/0"),
        ("redis+sentinel://a,b:1/main", "redis+sentinel://a:26379,b:1/main/0"),
        (
            "redis+sentinel://a/main?sentinel_password=hunter2&sentinel_username=bob",
            "redis+sentinel://a:26379/main/0?sentinel_username=bob&sentinel_password=***",
        ),
        ("redis+cluster://a/0", "redis+cluster://a:6379"),
        ("unix:///r.sock?db=0", "unix:///r.sock"),
        ("memory://x?slots=loose", "memory://x"),
        ("rediss://h?ssl_cert_reqs=required&ssl_check_hostname=1", "rediss://h:6379/0"),
        ("rediss://h?ssl_check_hostname=0", "rediss://h:6379/0?ssl_check_hostname=false"),
        ("rediss://h?ssl_cert_reqs=none", "rediss://h:6379/0?ssl_cert_reqs=none"),
    ],
)
def test_all_urls_that_mean_the_same_have_one_canonical_form(url: str, canonical: str) -> None:
    assert parse_url(url).canonical == canonical
    assert parse_url(canonical).canonical == canonical


# --- what redis-py takes besides


def test_every_option_of_redis_py_is_known_or_is_about_tls() -> None:
    theirs = {name for name in URL_QUERY_ARGUMENT_PARSERS if not name.startswith("ssl_")}

    assert theirs <= {*IGNORED, "db"}
    assert not any(name.startswith("ssl_") for name in IGNORED)


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://ann:p%40%2Fw@h.example:6380/2?socket_timeout=5&decode_responses=True",
        "redis://:pw@[::1]:6380/3",
        "redis://ann@h?db=4&max_connections=10",
        "rediss://h/1?ssl_cert_reqs=optional&ssl_ca_certs=/ca.pem",
        "unix://ann:pw@/run/redis.sock?db=2",
    ],
)
def test_a_url_that_redis_py_takes_means_the_same_here(url: str) -> None:
    theirs, target = parse_url_of_redis_py(url), parse_url(url)
    where = target.addresses[0]

    assert where == (theirs.get("path") or (theirs["host"], theirs.get("port", 6379)))
    assert target.db == theirs.get("db", 0)
    assert (target.username, target.password) == (theirs.get("username"), theirs.get("password"))
    assert (target.tls or {}).get("ssl_ca_certs") == theirs.get("ssl_ca_certs")


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name != "memory"])
def test_what_leanmq_sets_by_itself_is_allowed_and_told(scheme: str) -> None:
    place = {"unix": "/r.sock", "sentinel": "h/main"}.get(scheme.rpartition("+")[2], "h")
    query = "&".join(f"{name}=1" for name in (*IGNORED, *IGNORED))

    target = parse_url(f"{scheme}://{place}?{query}")

    assert target.ignored == IGNORED
    assert attrs.evolve(target, ignored=()) == parse_url(f"{scheme}://{place}")


# --- certificates that nobody checks


def clients(url: str) -> list[Any]:
    return [
        lambda: leanmq.LeanMQ(url),
        lambda: leanmq.AsyncLeanMQ(url),
        lambda: leanmq.LeanMQ.from_config({"url": url}),
        lambda: open_backend(url, None, Options()),
        lambda: open_async_backend(url, None, Options()),
    ]


@pytest.mark.parametrize(
    "url", ["rediss://:hunter2@h", "rediss+sentinel://:hunter2@h/s", "valkeys+cluster://:hunter2@h"]
)
def test_a_client_that_checks_no_certificates_warns_once_at_the_line_of_the_user(url: str) -> None:
    for make in clients(f"{url}?ssl_cert_reqs=none"):
        with pytest.warns(UserWarning, match="ssl_cert_reqs=none leaves certificates") as told:
            make()

        assert [warning.filename for warning in told] == [__file__]
        assert "ssl_ca_certs" in str(told[0].message)
        assert SECRET not in str(told[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse_url(f"{url}?ssl_cert_reqs=none")
        for make in clients(f"{url}?ssl_cert_reqs=optional"):
            make()


# --- the registry


def test_a_scheme_may_be_written_in_capitals() -> None:
    assert repr(leanmq.LeanMQ("MEMORY://")) == "<LeanMQ memory://>"
    assert repr(leanmq.LeanMQ("Redis://h")) == "<LeanMQ redis://h>"
    assert repr(leanmq.AsyncLeanMQ("VALKEY://h")) == "<AsyncLeanMQ redis://h:6379/0>"


@pytest.mark.parametrize("url", ["ann:hunter2://h", "hunter2 hunter2://h", "hunter2@h:6379"])
def test_what_is_no_scheme_is_not_told_for_it_may_be_a_password(url: str) -> None:
    with pytest.raises(ValueError, match="use one of memory") as caught:
        leanmq.LeanMQ(url)

    assert SECRET not in str(caught.value)
