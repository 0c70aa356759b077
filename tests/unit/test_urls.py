"""URLs say where the data lives; their errors help and never leak a password."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from leanmq.backends.urls import parse_url, show

SECRET = "hunter2"


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
