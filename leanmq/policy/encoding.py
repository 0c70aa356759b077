"""Payloads to bytes and back. JSON by msgspec; what it refuses, by the standard library."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from leanmq.errors import MessageError

__all__ = ["UndecodableError", "decode", "decode_all", "encode", "readable"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_pack = msgspec.msgpack.Encoder().encode
_LIKE_NAN = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]").search  # an exponent of ones alone


class UndecodableError(Exception):
    """Bytes that are no JSON; says where, never quotes them."""


def encode(data: Any) -> bytes:
    """The payload as JSON.

    >>> encode({"total": 3.5})
    b'{"total":3.5}'
    >>> encode(object())
    Traceback (most recent call last):
    leanmq.errors.MessageError: cannot send a payload of type object: it is not JSON ...
    """
    try:
        body = _encode(data)
        # msgspec writes null for NaN and Infinity. Looked for from the end, which is the
        # quickest search there is: 0.1 microseconds for 200 bytes.
        if body.rfind(b"null") < 0 or not _may_hold_nan(data) or not _holds_nan(data):
            return body
        refused = _refused(data, "it holds NaN or Infinity, which JSON does not have", "send None")
    except RecursionError as error:
        refused = _refused(data, "it is nested too deeply, or holds itself", "send less", error)
    except UnicodeEncodeError:  # not as the cause: it holds the whole string, and shows it
        reason = "a string holds half of a surrogate pair, which is no text"
        refused = _refused(data, reason, "mend the string")
    except (TypeError, ValueError, OverflowError) as error:
        cure = "send dicts, lists, strings, numbers, booleans or None"
        refused = _refused(data, str(error), cure, error)
    raise refused


def _refused(data: Any, reason: str, cure: str, cause: BaseException | None = None) -> MessageError:
    kind = type(data).__name__
    refused = MessageError(
        f"cannot send a payload of type {kind}: it is not JSON ({reason}); {cure}"
    )
    refused.__cause__ = cause
    return refused


def _may_hold_nan(data: Any) -> bool:
    """Whether there is something like the bits of NaN or Infinity in data.

    They are there if data holds one, and if chance will have it; but never in text, where these
    bytes cannot stand together. Costs half of what it costs to decode and compare.
    """
    try:
        return _LIKE_NAN(_pack(data)) is not None
    except (TypeError, ValueError, OverflowError):  # an int of more than 64 bits
        return True


def _holds_nan(data: Any) -> bool:
    try:
        json.dumps(msgspec.to_builtins(data, str_keys=True), allow_nan=False)
    except ValueError:
        return True
    return False


def decode_all(bodies: Iterable[bytes]) -> list[Any]:
    """The payloads of JSON bodies.

    Raises:
        UndecodableError: if one of them is none.
    """
    bodies = list(bodies)
    try:
        return [_decode(body) for body in bodies]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [decode(body) for body in bodies]


def decode(body: bytes) -> Any:
    """The payload of a JSON body.

    Raises:
        UndecodableError: if it is none.
    """
    try:
        try:
            return _decode(body)
        except RecursionError:
            return _with_an_empty_stack(_decode, body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as first:
        # What others wrote with the standard library: NaN, Infinity, lone surrogates.
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise UndecodableError(f"{len(body)} bytes that are not JSON") from first


def readable(body: bytes) -> Any:
    """What can be shown of a body: its JSON, or its bytes if it is none."""
    try:
        return decode(body)
    except UndecodableError:
        return body


def _with_an_empty_stack(call: Callable[[bytes], Any], body: bytes) -> Any:
    """The result of a call in a thread of its own.

    How deep a payload may be nested depends on how deep in its stack a process is when it
    encodes or decodes it. What any could write, all can read from here.
    """
    with ThreadPoolExecutor(1, "leanmq-decode") as pool:
        return pool.submit(call, body).result()
