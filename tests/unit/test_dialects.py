"""URLs of other tools mean what they mean there, and become URLs of ours."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import leanmq
from leanmq.backends.explain import explain
from leanmq.backends.schemes import DIALECTS, IGNORED, SCHEMES
from leanmq.backends.urls import build_url, parse_url

SECRET = "hunter2"
PAGE = (Path(__file__).parents[2] / "docs" / "urls.md").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading of the page."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line[1:-1].split("|") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row] for row in rows]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


OURS = [url for row in table("Our own schemes") for url in code(row[0])]
THEIRS = [(code(row[0])[0], code(row[2])[0]) for row in table("URLs of other tools")]


# --- the page


@pytest.mark.parametrize("url", OURS)
def test_an_example_of_a_scheme_of_ours_is_understood(url: str) -> None:
    target = parse_url(url)

    assert url.startswith(f"{target.scheme}://")
    assert build_url(target).partition("://")[0] == target.scheme
    assert parse_url(target.canonical).canonical == target.canonical


@pytest.mark.parametrize(("url", "ours"), THEIRS)
def test_an_example_of_a_dialect_means_the_same_as_the_url_of_ours(url: str, ours: str) -> None:
    target = parse_url(url)

    assert build_url(target) == ours
    assert target == parse_url(ours)


def test_the_page_has_an_example_of_every_scheme_and_every_option() -> None:
    shown = {url.partition("://")[0] for url in [*OURS, *(theirs for theirs, _ in THEIRS)]}
    options = {option for row in table("Options") for option in code(row[0])}
    ignored = set(code(PAGE.partition("## Options")[2].partition("\n## ")[0])) & set(IGNORED)

    assert shown == {*SCHEMES, *DIALECTS}
    assert options == {option for scheme in SCHEMES.values() for option in scheme.options}
    assert ignored == set(IGNORED)


# --- each dialect


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("redis+unix://ann:pw@/r.sock?db=2", "unix://ann:pw@/r.sock?db=2"),
        ("redis+socket:///r.sock", "unix:///r.sock"),
        ("redis-socket:///a@b.sock", "unix:///a%40b.sock"),
        ("redis-socket://ann:pw@/r.sock", "unix://ann:pw@/r.sock"),
        ("valkey://ann:p%40w@h:1/2", "redis://ann:p%40w@h:1/2"),
        ("VALKEY://ann@h", "redis://ann@h:6379/0"),
        ("valkeys://h?ssl_cert_reqs=none", "rediss://h:6379/0?ssl_cert_reqs=none"),
        (
            "valkey+sentinel://[::1],h:1/s?sentinel_username=bob",
            "redis+sentinel://[::1]:26379,h:1/s/0?sentinel_username=bob",
        ),
        ("valkey+cluster://:p@w@a,b", "redis+cluster://:p%40w@a:6379,b:6379"),
        ("valkey://h?cluster=yes", "redis+cluster://h:6379"),
        ("redis://a:1,b/0?cluster=1", "redis+cluster://a:1,b:6379"),
        (
            "rediss://u:pw@h?cluster=true&ssl_ca_certs=/c",
            "rediss+cluster://u:pw@h:6379?ssl_ca_certs=/c",
        ),
        # kombu
        ("sentinel://h?master_name=s", "redis+sentinel://h:26379/s/0"),
        ("sentinel://h/3?master_name=a%2Fb", "redis+sentinel://h:26379/a%2Fb/3"),
        (
            "sentinel://u:pw@a:1/2;sentinel://u:pw@b:1/2?master_name=s",
            "redis+sentinel://u:pw@a:1,b:1/s/2",
        ),
        ("sentinel://a/2?master_name=s;sentinel://b", "redis+sentinel://a:26379,b:26379/s/2"),
        (
            "sentinel://a?master_name=s; SENTINEL://[::1]:2?master_name=s",
            "redis+sentinel://a:26379,[::1]:2/s/0",
        ),
        (
            "sentinel://a,sentinel://b,c?master_name=s",
            "redis+sentinel://a:26379,b:26379,c:26379/s/0",
        ),
        ("sentinel://:p;w,@a;b:5?master_name=s", "redis+sentinel://:p%3Bw%2C@a:26379,b:5/s/0"),
        (
            "sentinel://a?master_name=s&db=2&sentinel_username=bob&sentinel_password=pw",
            "redis+sentinel://a:26379/s/2?sentinel_username=bob&sentinel_password=pw",
        ),
        # lettuce
        ("redis-sentinel://ann:pw@h?sentinelMasterId=s", "redis+sentinel://ann:pw@h:26379/s/0"),
        ("redis-sentinel://h?sentinelMasterId=s&database=2", "redis+sentinel://h:26379/s/2"),
        ("redis-sentinel://p%3Aw@h/2?sentinelMasterId=s", "redis+sentinel://:p%3Aw@h:26379/s/2"),
        (
            "rediss-sentinel://h/1?sentinelMasterId=s&ssl_ca_certs=/c",
            "rediss+sentinel://h:26379/s/1?ssl_ca_certs=/c",
        ),
    ],
)
def test_a_dialect_is_read_as_the_url_of_ours_that_means_the_same(url: str, ours: str) -> None:
    target = parse_url(url)

    assert build_url(target) == ours
    assert target == parse_url(ours)


@pytest.mark.parametrize(
    ("url", "ignored"),
    [
        ("valkey://h?socket_timeout=5&protocol=3", ("socket_timeout", "protocol")),
        ("redis-socket:///r?timeout=10s&clientName=x", ("timeout", "clientName")),
        ("redis-sentinel://h?libraryName=x&sentinelMasterId=s", ("libraryName",)),
        (
            "sentinel://a?protocol=2;sentinel://b?timeout=1&protocol=2&master_name=s",
            ("protocol", "timeout"),
        ),
    ],
)
def test_options_without_effect_are_those_of_redis_py_and_of_the_dialect(
    url: str, ignored: tuple[str, ...]
) -> None:
    target = parse_url(url)

    assert target.ignored == ignored
    assert "?" not in target.display


@pytest.mark.parametrize(
    ("url", "names"),
    [
        ("sentinel://h/0", "write ?master_name=NAME"),
        ("sentinel://h/0?master_name=", "write ?master_name=NAME"),
        ("redis-sentinel://h/0", "write ?sentinelMasterId=NAME"),
        ("sentinel://h/main", "write ?master_name=NAME"),
        ("sentinel://h/main?master_name=main", "must be one number"),
        ("sentinel://a/1;sentinel://b/2?master_name=s", "differ in their database"),
        ("sentinel://:x@a;sentinel://:y@b?master_name=s", "differ in their user and password"),
        ("sentinel://a?master_name=s;sentinel://b?master_name=t", "differ in their master_name"),
        ("sentinel://a?mastername=s", "nearest is 'master_name'"),
        ("redis-sentinel://a?sentinelMasterID=s", "nearest is 'sentinelMasterId'"),
        ("redis-sentinel://a?master_name=s", "allowed: db, sentinel_password, sentinel_username, "),
        ("redis+sentinel://a/s?clientName=x", "nearest is 'client_name'"),
        ("redis+socket:///r?virtual_host=1&db=2", "'db' is given twice"),
        ("redis+unix://h/r", "unix:///path"),
        ("valkey://a,b", "takes one host"),
        ("valkey+cluster://h/1", "only database 0"),
        ("redis://h/1?cluster=true", "only database 0"),
        ("unix:///r?cluster=true", "'cluster' is not known"),
        ("sentinels://h", "'sentinels' is not supported"),
    ],
)
def test_a_dialect_that_is_wrong_says_what_and_how_to_mend_it(url: str, names: str) -> None:
    with pytest.raises(ValueError, match=r"URL|scheme") as caught:
        parse_url(url)

    assert names in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(f"{scheme}://ann:hunter2" for scheme in DIALECTS),
        *(f"{scheme}://:hunter2@h:port?master_name=s&sentinelMasterId=s" for scheme in DIALECTS),
        *(f"{scheme}://:hunter2@h/1?password=hunter2" for scheme in DIALECTS),
        "sentinel://:hunter2@a;sentinel://:hunter3@b?master_name=s",
        "sentinel://a;sentinel://:hunter2?master_name=s",
        "sentinel://:hunter2;sentinel://b?master_name=s",
        "sentinel://:x/hunter2@a;sentinel://b?master_name=s",
        "sentinel://:a;sentinel://hunter2@b?master_name=s",
        "sentinel://a?sentinel_password=hunter2;sentinel://b?sentinel_password=x&master_name=s",
        "sentinel://a?sentinel_password=hunter2&sentinel_password=x",
        "sentinel://a?master_name=s;hunter2@b",
        "redis-sentinel://hunter2@a/x?sentinelMasterId=s",
        "redis-sentinel://hunter2/a@h?sentinelMasterId=s",
        "redis://:hunter2@h?cluster=maybe",
    ],
)
def test_no_error_about_a_dialect_ever_holds_a_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|scheme") as caught:
        parse_url(url)

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__context__)
    assert caught.value.__cause__ is None


PASSWORDS = st.text(st.characters(codec="utf-8"), max_size=20).map(lambda text: f"5ecr3t{text}")
PLACES = {
    "unix": "/r.sock",
    "redis+sentinel": "h1,h2/main",
    "rediss+sentinel": "h1,h2/main",
}


@settings(deadline=None)
@given(PASSWORDS, st.sampled_from(list(DIALECTS)), st.booleans())
def test_what_is_shown_of_a_dialect_has_no_password_in_it(
    password: str, scheme: str, alone: bool
) -> None:
    dialect = DIALECTS[scheme]
    place, query = PLACES.get(dialect.scheme, "h"), ""
    if "service" in dialect.names.values():
        place, query = "h1,h2", "?master_name=main" if dialect.lists else "?sentinelMasterId=main"
    colon = "" if alone and dialect.lone_password else ":"
    url = f"{scheme}://{colon}{quote(password, safe='')}@{place}{query}"

    target = parse_url(url)

    assert target.password == password
    for text in (target.display, target.canonical, repr(target), explain(url)):
        assert "5ecr3t" not in text


def test_a_client_opens_with_a_url_of_another_tool() -> None:
    url = "sentinel://:hunter2@127.0.0.1:1;sentinel://127.0.0.1:2?master_name=main"

    for client in (leanmq.LeanMQ(url), leanmq.AsyncLeanMQ(url)):
        assert "redis+sentinel://:***@127.0.0.1:1,127.0.0.1:2/main/0" in repr(client)
    with (
        leanmq.LeanMQ(url, deadline=0, connection_timeout=0.2) as mq,
        pytest.raises(leanmq.ConnectionError, match="names a primary of 'main'"),
    ):
        mq.ping()


# --- explained


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("memory://", "In the memory of this process: a store of the client's own."),
        ("memory://orders", "store 'orders', which all its clients share while one is open"),
        ("memory://a?slots=strict", "slots kept apart"),
        ("redis://h", "One Redis or Valkey server at h:6379; database 0; no login; no TLS."),
        ("redis://ann@h/2", "database 2; user 'ann' without a password; no TLS."),
        ("redis://:hunter2@[::1]", "at [::1]:6379; database 0; the default user with a password"),
        ("unix:///r.sock", "by the Unix socket /r.sock; database 0; no login."),
        (
            "redis+sentinel://ann:hunter2@s1,s2/main",
            "Redis Sentinel: sentinels s1:26379, s2:26379 name the primary of service 'main'; "
            "database 0; user 'ann' with a password on the data nodes; no login on the sentinels; "
            "no TLS.",
        ),
        (
            "redis+sentinel://s/main?sentinel_username=bob&sentinel_password=hunter2",
            "sentinel s:26379 names the primary of service 'main'; database 0; no login on the "
            "data nodes; user 'bob' with a password on the sentinels",
        ),
        ("redis+cluster://a,b", "Redis Cluster: nodes a:6379, b:6379 tell where the others are;"),
        ("redis+cluster://a", "Redis Cluster: node a:6379 tells where the others are;"),
        ("rediss://h", "no login; TLS, certificates checked."),
        ("rediss://h?ssl_ca_certs=/c", "TLS, certificates checked by /c."),
        ("rediss://h?ssl_check_hostname=no", "certificates checked, host names not."),
        ("rediss://h?ssl_certfile=/me", "TLS, certificates checked, our own certificate /me."),
        ("rediss://h?ssl_cert_reqs=none", "TLS without any check of certificates"),
        ("redis://h?timeout=1", "Without effect, as LeanMQ sets it by itself: timeout."),
        ("redis://h?protocol=3&timeout=1", "LeanMQ sets them by itself: protocol, timeout."),
        ("VALKEY://:hunter2@h", " The same in LeanMQ's own form: redis://:***@h:6379/0"),
        ("redis://h?cluster=true", " The same in LeanMQ's own form: redis+cluster://h:6379"),
    ],
)
def test_a_url_is_explained_in_words(url: str, words: str) -> None:
    told = explain(url)

    assert words in told
    assert SECRET not in told


@pytest.mark.parametrize("url", ["redis://h", "REDIS://h", "redis://h?cluster=false", "memory://"])
def test_what_is_in_our_own_form_is_not_said_again(url: str) -> None:
    assert "own form" not in explain(url)
