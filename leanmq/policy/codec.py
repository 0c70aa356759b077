"""Payloads of a queue with a type: what is sent is of it, what does not fit is not handed out."""

from __future__ import annotations

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
        if isinstance(msgspec.inspect.type_info(wanted), msgspec.inspect.CustomType):
            raise TypeError("its instances cannot be made from JSON")
        self._decoder = msgspec.json.Decoder(wanted)

    def encode(self, data: Any) -> bytes:
        if self._class is None:
            body = encoding.encode(data)
            try:
                self._decoder.decode(body)
            except msgspec.ValidationError as error:
                raise MessageError(
                    f"the payload is no {self._name}: {error}; it is what the queue was opened with"
                ) from error
            return body
        if not isinstance(data, self._class):
            raise MessageError(
                f"the payload is of type {type(data).__name__}, and the queue was opened with "
                f"type={self._name}; send one, or open the queue without a type"
            )
        return encoding.encode(data)

    def decode(self, body: bytes) -> Any:
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise UndecodableError(f"no {self._name}: {error}") from error
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
            raise MessageError(
                f"the payload is of type {type(data).__name__}, and the queue was opened with "
                f"type={self._wanted.__name__}; send one, or open the queue without a type"
            )
        try:
            text: str | bytes = data.model_dump_json()
        except Exception as error:
            raise MessageError(
                f"the {self._wanted.__name__} does not become JSON ({type(error).__name__})"
            ) from error
        return text.encode() if isinstance(text, str) else text

    def decode(self, body: bytes) -> Any:
        try:
            return self._wanted.model_validate_json(body)
        except Exception as error:
            raise UndecodableError(f"no {self._wanted.__name__}: {_reasons(error)}") from error

    def decode_all(self, bodies: Iterable[bytes]) -> list[Any]:
        return [self.decode(body) for body in bodies]


def codec_for(wanted: Any) -> Codec:
    """How payloads of this type become bytes and back; None is any JSON.

    >>> codec_for(dict[str, int]).decode(b'{"a": "b"}')
    Traceback (most recent call last):
    leanmq.policy.encoding.UndecodableError: no dict: Expected `int`, got `str` - at `$[...]`
    """
    if wanted is None or wanted is Any:
        return JSON
    if hasattr(wanted, "model_validate_json") and hasattr(wanted, "model_dump_json"):
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


def _reasons(error: Exception) -> str:
    """What a model complains about, without the values that it quotes."""
    try:
        rows = error.errors(include_input=False, include_url=False, include_context=False)  # type: ignore[attr-defined]
        texts = [f"{'.'.join(map(str, row['loc']))}: {row['msg']}" for row in rows]
    except (AttributeError, TypeError, KeyError):
        return type(error).__name__
    return "; ".join(texts)[:500]
