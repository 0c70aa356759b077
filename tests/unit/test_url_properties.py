"""What holds for any URL: nothing is lost in one that is built, nothing secret is ever shown."""

from __future__ import annotations

import string
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmq.backends.explain import explain
from leanmq.backends.schemes import DIALECTS, IGNORED, SCHEMES
from leanmq.backends.urls import Target, build_url, parse_url

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
SECRETS = WORDS.map(lambda text: f"5ecr3t{text}")
LABELS = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=10)
HOSTS = (
    st.lists(LABELS, min_size=1, max_size=3).map(".".join)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
)
ADDRESSES = st.tuples(HOSTS, st.integers(1, 65535))
FILES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).map(lambda text: "/" + text)


@st.composite
def targets(draw: st.DrawFn) -> Target:
    """Whatever a URL can say."""

    def maybe(strategy: st.SearchStrategy[str]) -> str | None:
        return draw(st.none() | strategy)

    name, scheme = draw(st.sampled_from(list(SCHEMES.items())))
    if scheme.topology == "memory":
        store = draw(st.just("") | LABELS)
        return Target(name, "memory", service=store, strict_slots=draw(st.booleans()))
    several = scheme.topology in ("sentinel", "cluster")
    addresses = st.lists(ADDRESSES, min_size=1, max_size=3 if several else 1)
    tls: dict[str, Any] | None = None
    if scheme.tls:
        needs = draw(st.sampled_from(["none", "optional", "required"]))
        check = needs != "none" and draw(st.booleans())
        tls = {"ssl_cert_reqs": needs, "ssl_check_hostname": check}
        for option in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
            if file := maybe(FILES):
                tls[option] = file
    return Target(
        name,
        scheme.topology,
        tuple(draw(addresses)) if scheme.port else (draw(FILES),),
        service=draw(WORDS) if scheme.topology == "sentinel" else "",
        db=0 if scheme.topology == "cluster" else draw(st.integers(0, 999_999_999)),
        username=maybe(WORDS),
        password=maybe(SECRETS),
        sentinel_username=maybe(WORDS) if scheme.topology == "sentinel" else None,
        sentinel_password=maybe(SECRETS) if scheme.topology == "sentinel" else None,
        tls=tls,
    )


@settings(deadline=None)
@given(targets())
def test_a_url_that_was_built_of_any_parts_is_parsed_into_these(target: Target) -> None:
    parsed = parse_url(build_url(target))

    assert attrs.evolve(parsed, display=parsed.canonical) == target


@settings(deadline=None)
@given(targets(), st.lists(st.sampled_from(IGNORED), unique=True))
def test_what_is_shown_of_any_url_has_no_password_in_it_and_means_the_same(
    target: Target, ignored: list[str]
) -> None:
    url = build_url(target)
    if target.topology != "memory":
        url += ("&" if "?" in url else "?") * bool(ignored)
        url += "&".join(f"{name}=5ecr3t" for name in ignored)

    parsed = parse_url(url)

    for text in (parsed.display, parsed.canonical, repr(parsed), explain(url)):
        assert "5ecr3t" not in text
    for text in (parsed.display, parsed.canonical):
        shown = parse_url(text)
        assert shown.canonical == parsed.canonical
        assert attrs.evolve(shown, display="") == attrs.evolve(
            target,
            display="",
            password=target.password and "***",
            sentinel_password=target.sentinel_password and "***",
        )


PIECES = st.sampled_from(
    ["@", ":", "/", "?", "=", "&", ";", ",", "%", "%2F", "%ff", "[::1]", "h", "é", "1", "-1",
     "db=", "cluster=", "true", "slots=", "strict", "timeout=", "master_name=", "none",
     "sentinelMasterId=", "sentinel_password=", "ssl_cert_reqs=", "sentinel://"]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join), st.sampled_from([*SCHEMES, *DIALECTS]))
def test_any_text_is_understood_or_refused_with_a_reason(text: str, scheme: str) -> None:
    try:
        target = parse_url(f"{scheme}://{text}")
    except ValueError as error:
        reason = str(error)
    else:
        reason = ""
        again = parse_url(build_url(target))
        assert attrs.evolve(target, display="", ignored=()) == attrs.evolve(again, display="")
        assert explain(f"{scheme}://{text}")

    assert not reason or reason.startswith(f"{scheme}:// URL: ")
