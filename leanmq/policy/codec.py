"""Payloads of a queue with a type: what is sent is of it, what does not fit is not handed out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec
import msgspec.inspect

from leanmq.errors import MessageError
from leanmq.policy import encoding
from leanmq.policy.encoding import UndecodableError

__all__ = ["JSON", "Codec", "codec_for"]


class Codec(Protocol):
    """Payloads to bytes and back."""

    def encode(self, data: Any) -> bytes:
        """The payload as JSON; raises MessageError."""
        ...

    def decode(self, body: bytes) -> Any:
        """The payload of a body; raises UndecodableError, which never quotes the payload."""
        ...

    def decode_all(self, bodies: Iterable[bytes]) -> list[Any]:
        """``decode`` for many."""
        ...


class _Json:
    """Anything that JSON can hold."""

    encode = staticmethod(encoding.encode)
    decode = staticmethod(encoding.decode)
    decode_all = staticmethod(encoding.decode_all)


JSON: Codec = _Json()


class _Typed:
    """What msgspec knows: attrs, dataclasses, TypedDict, msgspec.Struct, list[int] and the like."""

    def __init__(self, wanted: Any) -> None:
        self._name = getattr(wanted, "__name__", None) or str(wanted)
        # TypedDict and list[int] are no classes that an instance could be of.
        self._class = wanted if isinstance(wanted, type) and _has_instances(wanted) else None
        strange = _strange(msgspec.inspect.type_info(wanted))
        if strange is not None:
            raise TypeError(f"instances of {strange.__name__} cannot be made from JSON")
        self._decoder = msgspec.json.Decoder(wanted)

    def encode(self, data: Any) -> bytes:
        if self._class is not None and not isinstance(data, self._class):
            raise _of_another_type(data, self._name)
        body = encoding.encode(data)
        try:
            self._decoder.decode(body)  # instances may hold anything; consumers could not read it
        except msgspec.ValidationError as error:
            raise MessageError(
                f"the payload is no {self._name}: {_told(error)}; it is what the queue was opened "
                "with"
            ) from error
        return body

    def decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise UndecodableError(f"no {self._name}: {_told(error)}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UndecodableError(f"{len(body)} bytes that are not JSON") from error

    def decode_all(self, bodies: Iterable[bytes]) -> list[Any]:
        return [self.decode(body) for body in bodies]


class _Model:
    """Classes that read and write JSON themselves, as those of pydantic do."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = wanted

    def encode(self, data: Any) -> bytes:
        if not isinstance(data, self._wanted):
            raise _of_another_type(data, self._wanted.__name__)
        try:
            text: str | bytes = data.model_dump_json()
        except Exception as error:  # whatever the code of the model raises
            raise MessageError(
                f"the {self._wanted.__name__} does not become JSON ({type(error).__name__})"
            ) from error
        return text.encode() if isinstance(text, str) else text

    def decode(self, body: bytes) -> Any:
        try:
            return self._wanted.model_validate_json(body)
        except Exception as error:  # whatever the code of the model raises
            raise UndecodableError(f"no {self._wanted.__name__}: {_reasons(error)}") from error

    def decode_all(self, bodies: Iterable[bytes]) -> list[Any]:
        return [self.decode(body) for body in bodies]


_MODEL = ("model_validate_json", "model_dump_json")


def codec_for(wanted: Any) -> Codec:
    """How payloads of this type become bytes and back; None is any JSON.

    >>> codec_for(dict[str, int]).decode(b'{"a": "b"}')
    Traceback (most recent call last):
    leanmq.policy.encoding.UndecodableError: no dict: Expected `int`, got `str` - at `$[...]`
    """
    if wanted is None or wanted is Any:
        return JSON
    if isinstance(wanted, type) and all(hasattr(wanted, method) for method in _MODEL):
        return _Model(wanted)
    try:
        return _Typed(wanted)
    except (TypeError, RuntimeError, NameError) as error:
        raise TypeError(
            f"a queue cannot have the type {wanted!r}: {error}; use an attrs class, a dataclass, "
            "a TypedDict, a msgspec.Struct, or a pydantic model"
        ) from error


def _has_instances(wanted: type) -> bool:
    return not hasattr(wanted, "__required_keys__")  # a TypedDict


def _of_another_type(data: Any, wanted: str) -> MessageError:
    return MessageError(
        f"the payload is of type {type(data).__name__}, and the queue was opened with "
        f"type={wanted}; send one, or open the queue without a type"
    )


def _strange(info: Any) -> type | None:
    """A class that msgspec would take without being able to make it, anywhere in a type."""
    seen: set[int] = set()  # types may hold themselves
    waiting = [info]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tuple):
            waiting += one
        elif isinstance(one, msgspec.inspect.CustomType):
            return one.cls
        elif isinstance(one, msgspec.inspect.Type | msgspec.inspect.Field) and id(one) not in seen:
            seen.add(id(one))
            waiting += [getattr(one, name) for name in one.__struct_fields__]
    return None


# What msgspec says of a type. All else that it may say, or have been told by the code of the
# class, can quote the payload.
_OF_TYPES = re.compile(r"Expected `|Object missing required field `")


def _told(error: msgspec.ValidationError) -> str:
    """What is wrong and where, without the values."""
    if error.__cause__ is not None:  # of the class itself
        return type(error.__cause__).__name__ + str(error).removeprefix(str(error.__cause__))
    what, at, where = str(error).rpartition(" - at `")
    if not at:
        what, where = where, ""
    if not _OF_TYPES.match(what):
        what = "Invalid value"
    return what + at + where


def _reasons(error: Exception) -> str:
    """What a model complains about: the field and the kind of error, which quotes no value."""
    try:
        # As pydantic's errors have it; an error of another kind has no such method.
        rows = error.errors(include_input=False, include_url=False, include_context=False)  # type: ignore[attr-defined]
        texts = [f"{_place(row['loc'])}: {row['type']}" for row in rows]
    except (AttributeError, TypeError, KeyError):
        return type(error).__name__
    return "; ".join(texts)[:500]


def _place(path: tuple[Any, ...]) -> str:
    """A field of the model; what is inside of it may be a key of the payload."""
    if not path:
        return "$"
    return f"{path[0]}{'[...]' if len(path) > 1 else ''}"
