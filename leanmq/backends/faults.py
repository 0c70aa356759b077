"""What redis-py raises, in our words: the one table from its errors to ours.

A message names the server, the reason and the cure. It never holds a command's arguments: the
text of a reply is cut where Redis begins to quote them, and of an exception that may quote
anything only the type is told.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterable, Iterator
from typing import Final

from redis import exceptions as redis_errors

from leanmq.backends.streams.calls import Outcome
from leanmq.backends.urls import Address
from leanmq.errors import (
    AccessError,
    BackendError,
    ConnectionError,
    LeanMQError,
    OutcomeUnknownError,
    QueueFullError,
    ServerStateError,
)

__all__ = ["is_reply", "redirect", "translate", "troubles"]

# Error replies mean that the command was not carried out. Code: our type, and the cure.
_REPLIES: Final[dict[str, tuple[type[LeanMQError], str]]] = {
    "LOADING": (ConnectionError, "wait until it has loaded its data"),
    "READONLY": (ConnectionError, "it is a replica: write to its primary, or wait for a failover"),
    "MASTERDOWN": (ConnectionError, "it lost its primary: wait for it, or for a failover"),
    "CLUSTERDOWN": (ConnectionError, "wait for a failover, or mend the cluster"),
    "TRYAGAIN": (ConnectionError, "wait until the slot has moved"),
    "MOVED": (ConnectionError, "open a cluster by a redis+cluster:// URL"),
    "ASK": (ConnectionError, "open a cluster by a redis+cluster:// URL"),
    "UNBLOCKED": (ConnectionError, "ask again: the server or the key has changed its role"),
    "OOM": (QueueFullError, "consume faster, or raise its maxmemory"),
    "MISCONF": (ServerStateError, "see its log, most often the disk is full"),
    "NOREPLICAS": (ServerStateError, "bring its replicas back, or lower min-replicas-to-write"),
    "BUSY": (ServerStateError, "end the script that hangs by SCRIPT KILL"),
    "WRONGPASS": (AccessError, "check user and password in the URL"),
    "NOAUTH": (AccessError, "put user and password into the URL"),
    "NOPERM": (AccessError, "grant the user this right by ACL SETUSER"),
}
_ACCESS: Final = (AccessError, "check user, password and rights (ACL LIST)")
_CROWDED: Final = (ConnectionError, "close clients, or raise its maxclients")
_OTHER: Final = (BackendError, "see whether its version and settings are supported")

# Where redis-py strips the code from the text, its class tells the code. (From 6 on it also has
# ``status_code``; 5 knows but some of these classes and leaves the others' text whole.)
_CODES: Final[dict[type[Exception], str]] = {
    redis_errors.AskError: "ASK",
    redis_errors.BusyLoadingError: "LOADING",
    redis_errors.ClusterCrossSlotError: "CROSSSLOT",
    redis_errors.ClusterDownError: "CLUSTERDOWN",
    redis_errors.ExecAbortError: "EXECABORT",
    redis_errors.MasterDownError: "MASTERDOWN",
    redis_errors.MovedError: "MOVED",
    redis_errors.NoPermissionError: "NOPERM",
    redis_errors.NoScriptError: "NOSCRIPT",
    redis_errors.OutOfMemoryError: "OOM",
    redis_errors.ReadOnlyError: "READONLY",
    redis_errors.TryAgainError: "TRYAGAIN",
}
_ACCESS_ERRORS: Final = (
    redis_errors.AuthenticationError,
    redis_errors.AuthenticationWrongNumberOfArgsError,
    redis_errors.AuthorizationError,
    redis_errors.NoPermissionError,
)
_CROWD: Final = "max number of clients"
# And where neither text nor class has it, or the server gave none but ERR: how the text begins.
_TEXTS: Final[dict[str, str]] = {
    "invalid username-password pair": "WRONGPASS",
    "Authentication required": "NOAUTH",
    "ACL failure in script": "NOPERM",  # Redis from 7.2 on
    "The user executing the script can't": "NOPERM",  # Redis 7.0
}

# Where a reply stops to tell users anything: it quotes the command, or names a script by its sum.
_UNTOLD: Final = re.compile(r", with args beginning with|,? script: [0-9a-f]{40}")


def is_reply(error: BaseException) -> bool:
    """Whether the server answered with this error; else the answer itself is missing.

    Some replies are of redis-py's ``ConnectionError`` although nothing is wrong with the
    connection.
    """
    return isinstance(
        error, (redis_errors.ResponseError, redis_errors.BusyLoadingError, *_ACCESS_ERRORS)
    ) or (isinstance(error, redis_errors.RedisError) and str(error).startswith(_CROWD))


def translate(error: Exception, *, sent: bool, idempotent: bool, where: str) -> LeanMQError:
    """Our error for one of redis-py, with that as its cause.

    Args:
        error: What was raised; one of ours is returned as it is.
        sent: Whether the server may have got the command.
        idempotent: Whether running the command twice does the same as once.
        where: The server, as people write it.
    """
    if isinstance(error, LeanMQError):
        return error
    if is_reply(error):
        ours = _refused(error, where)
    elif sent:
        ours = _lost(error, idempotent, where)
    else:
        ours = _unsent(error, where)
    # Without its traceback: that would tie the error to the frame that holds the commands.
    ours.__cause__ = error.with_traceback(None)
    return ours


def redirect(outcome: Outcome, asked: Address) -> Address | None:
    """Where a MOVED or ASK reply sends us; None for any other outcome."""
    if not isinstance(outcome, ConnectionError) or outcome.code not in ("MOVED", "ASK"):
        return None
    host, _, port = str(outcome.__cause__).split()[-1].rpartition(":")
    # A server that does not know its own name says nothing: it means the host that we asked.
    return host if host not in ("", "?") else str(asked[0]), int(port)


def troubles(outcomes: Iterable[Outcome]) -> list[LeanMQError]:
    """The outcomes after which to connect anew: the server or the way to it may have changed.

    Those without a ``code`` were not answered at all.
    """
    return [o for o in outcomes if isinstance(o, (ConnectionError, OutcomeUnknownError))]


def _refused(error: Exception, where: str) -> LeanMQError:
    text = _UNTOLD.split(str(error), maxsplit=1)[0][:200].strip(". ")
    code = _code(error, text)
    kind, cure = _REPLIES.get(code, _OTHER)
    if text.startswith(_CROWD):
        kind, cure = _CROWDED
    elif kind is BackendError and isinstance(error, _ACCESS_ERRORS):
        kind, cure = _ACCESS
    said = text.removeprefix("ERR ").removeprefix(code).lstrip()
    text = said if code == "ERR" else f"{code} {said}"
    return kind(f"server {where} refused: {text}; {cure}", code=code)


def _code(error: Exception, text: str) -> str:
    said = text.removeprefix("ERR ")
    for beginning, code in _TEXTS.items():
        if said.startswith(beginning):
            return code
    told: str | None = getattr(error, "status_code", None) or _CODES.get(type(error))
    word = text.partition(" ")[0]
    return told or (word if word.isupper() else "ERR")  # of ERR redis-py 5 leaves no trace


def _lost(error: Exception, idempotent: bool, where: str) -> LeanMQError:
    lost = f"the reply of server {where} was lost ({_reason(error)})"
    if idempotent:
        return ConnectionError(f"{lost}; ask again, it does no harm", in_doubt=True)
    return OutcomeUnknownError(
        f"{lost}, and with it whether the commands were carried out; look before you repeat "
        "what must not happen twice"
    )


def _unsent(error: Exception, where: str) -> LeanMQError:
    if any(_is_tls(link, where) for link in _chain(error)):
        return ConnectionError(
            f"TLS with server {where} failed: {_reason(error)}; check the certificates, the "
            "ssl_ options of the URL, and that this port speaks TLS"
        )
    if isinstance(error, (OSError, redis_errors.RedisError)):
        return ConnectionError(
            f"server {where} cannot be reached: {_reason(error)}; check that it runs, the "
            "address, and whether it speaks TLS (rediss) or not (redis)"
        )
    return BackendError(
        f"server {where} was not asked: {_reason(error)}; please report this as a bug of LeanMQ"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, (TimeoutError, redis_errors.TimeoutError)):
        return "no answer in time"
    if isinstance(error, (OSError, redis_errors.ConnectionError)):
        return str(error).strip().rstrip(".") or type(error).__name__
    return type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_tls(error: BaseException, where: str) -> bool:
    """OpenSSL's own errors; and a missing file can only be a certificate, save a Unix socket."""
    missing = isinstance(error, FileNotFoundError) and not where.startswith("/")
    return missing or isinstance(error, ssl.SSLError)
