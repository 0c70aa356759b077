"""What values of a configuration may be: each kind is a function that checks one, or says why not.

Texts are taken for numbers, as variables have nothing else. Which setting is of which kind:
``config.py``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from leanmq.errors import ConfigurationError
from leanmq.policy.names import check_prefix, seconds_of

__all__ = [
    "Kind",
    "check_keys",
    "flag",
    "hosts",
    "made",
    "prefix",
    "seconds",
    "shown",
    "table",
    "text",
    "weight",
    "whole",
]

Kind: TypeAlias = Callable[[Any, str], Any]
"""Takes a value and what the setting is called; raises ConfigurationError."""


def made(kind: Kind, value: Any, what: str) -> Any:
    """The value, as its kind has it."""
    try:
        return kind(value, what)
    except ConfigurationError:
        raise
    except (TypeError, ValueError) as error:  # from the checks that keywords go through, too
        raise ConfigurationError(str(error)) from None


def text(value: Any, what: str) -> str:
    """A text with something in it."""
    if not isinstance(value, str) or not value:
        raise ConfigurationError(
            f"{what} must be a string with something in it, not {shown(value)}"
        )
    return value


def prefix(value: Any, what: str) -> str:
    """What keys begin with."""
    return check_prefix(value)


def whole(value: Any, what: str) -> int:
    """A whole number."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value.strip()):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{what} must be a whole number, not {shown(value)}")
    return value


def seconds(value: Any, what: str) -> float:
    """A duration in seconds."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ConfigurationError(f"{what} must be a number of seconds, not a str") from None
    return seconds_of(value, what)


def weight(value: Any, what: str) -> float:
    """How much of all there is, in relation to others: a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ConfigurationError(f"{what} must be a number above 0, not {shown(value)}")
    try:
        number = float(value)
    except ValueError:
        raise ConfigurationError(f"{what} must be a number above 0, not a str") from None
    except OverflowError:  # an int beyond all floats
        number = math.inf
    if not 0 < number < math.inf:
        raise ConfigurationError(f"{what} is {number:g}; it must be a finite number above 0")
    return number


def flag(value: Any, what: str) -> bool:
    """True or false."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    found = words.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise ConfigurationError(f"{what} must be true or false, not {shown(value)}")
    return found


def hosts(value: Any, what: str) -> tuple[str, ...]:
    """Hosts, in a list or with commas between them."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not items:
        raise ConfigurationError(f"{what} must be a list of 'host' or 'host:port'")
    return tuple(text(item, f"an item of {what}").strip() for item in items)


def table(value: Any, what: str) -> Mapping[Any, Any]:
    """Settings by their names."""
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{what} must be a table of settings, not {shown(value)}")
    return value


def shown(value: Any) -> str:
    """What a value is, for errors; a string is not shown, it may be a secret."""
    if value == "":
        return "an empty string"
    return repr(value) if isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def check_keys(given: Iterable[Any], known: Iterable[str], where: str) -> None:
    """Raises ConfigurationError for a key that is not known, naming the nearest that is.

    >>> check_keys(["max_delivery"], ["lease", "max_deliveries"], "queues.orders")
    Traceback (most recent call last):
    leanmq.errors.ConfigurationError: queues.orders.max_delivery is not known, did you mean ...
    """
    for key in given:
        if key in known:
            continue
        near = difflib.get_close_matches(str(key), list(known), n=1)
        hint = f", did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        raise ConfigurationError(f"{where + '.' if where else ''}{key} is not known{hint}")
