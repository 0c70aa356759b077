"""Payloads to bytes and back. JSON by msgspec; what it refuses, by the standard library."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from leanmq.errors import MessageError

__all__ = ["UndecodableError", "decode", "decode_all", "encode", "readable"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


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
        return _encode(data)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MessageError(
            f"cannot send a payload of type {type(data).__name__}: it is not JSON ({reason}); "
            "send dicts, lists, strings, numbers, booleans or None"
        ) from error


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
        return _decode(body)
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
