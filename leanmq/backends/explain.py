"""What a URL means, in plain sentences for people; secrets masked.

Nothing is connected to: this tells what was written, not what is there.
"""

from __future__ import annotations

from leanmq.backends.urls import Target, parse_url, show

__all__ = ["explain"]


def explain(url: str) -> str:
    """One to three sentences: which servers, how found, database, accounts, TLS, what is ignored.

    Args:
        url: One that LeanMQ has a backend for, in any dialect.

    Raises:
        ValueError: If the URL cannot be understood. The message never holds a password.

    Examples:
        >>> print(explain("redis+sentinel://ann:pw@s1,s2/main"))  # doctest: +NORMALIZE_WHITESPACE
        Redis Sentinel: sentinels s1:26379, s2:26379 name the primary of service 'main';
        database 0; user 'ann' with a password on the data nodes; no login on the sentinels;
        no TLS.
        >>> print(explain("valkey://h?socket_timeout=5"))  # doctest: +NORMALIZE_WHITESPACE
        One Redis or Valkey server at h:6379; database 0; no login; no TLS.
        Without effect, as LeanMQ sets it by itself: socket_timeout.
        The same in LeanMQ's own form: redis://h:6379/0
    """
    target = parse_url(url)
    sentences = ["; ".join(_facts(target)) + "."]
    if target.ignored:
        it = "it" if len(target.ignored) == 1 else "them"
        names = ", ".join(target.ignored)
        sentences.append(f"Without effect, as LeanMQ sets {it} by itself: {names}.")
    if url.partition("://")[0].lower() != target.scheme:
        sentences.append(f"The same in LeanMQ's own form: {target.canonical}")
    return " ".join(sentences)


def _facts(target: Target) -> list[str]:
    hosts = ", ".join(map(show, target.addresses))
    if target.topology == "memory":
        kept = (
            f"store {target.service!r}, which all its clients share while one is open"
            if target.service
            else "a store of the client's own"
        )
        strict = ["slots kept apart, as on a cluster"] if target.strict_slots else []
        return [f"In the memory of this process: {kept}", *strict]
    account = _login(target.username, target.password)
    if target.topology == "sentinel":
        sentinels = _login(target.sentinel_username, target.sentinel_password)
        return [
            f"Redis Sentinel: {_some('sentinel', target)} {hosts} {_verb('name', target)} the "
            f"primary of service {target.service!r}",
            f"database {target.db}",
            f"{account} on the data nodes",
            f"{sentinels} on the sentinels",
            _tls(target),
        ]
    if target.topology == "cluster":
        found = f"{_some('node', target)} {hosts} {_verb('tell', target)} where the others are"
        return [f"Redis Cluster: {found}", account, _tls(target)]
    database = f"database {target.db}"
    if isinstance(target.addresses[0], str):
        return [f"One Redis or Valkey server, by the Unix socket {hosts}", database, account]
    return [f"One Redis or Valkey server at {hosts}", database, account, _tls(target)]


def _some(noun: str, target: Target) -> str:
    return noun if len(target.addresses) == 1 else f"{noun}s"


def _verb(verb: str, target: Target) -> str:
    return f"{verb}s" if len(target.addresses) == 1 else verb


def _login(username: str | None, password: str | None) -> str:
    if not (username or password):
        return "no login"
    who = f"user {username!r}" if username else "the default user"
    return f"{who} with{'' if password else 'out'} a password"


def _tls(target: Target) -> str:
    if target.tls is None:
        return "no TLS"
    authority = target.tls.get("ssl_ca_certs")
    certificate = target.tls.get("ssl_certfile")
    if target.tls["ssl_cert_reqs"] == "none":
        checked = "TLS without any check of certificates, which a machine in between can abuse"
    else:
        names = "" if target.tls["ssl_check_hostname"] else ", host names not"
        checked = f"TLS, certificates checked{f' by {authority}' if authority else ''}{names}"
    return checked + (f", our own certificate {certificate}" if certificate else "")
