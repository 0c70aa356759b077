"""The Lua scripts: read from their files once, known to servers by their SHA-1.

A script that says ``-- include: _shared`` gets that file put before it, with what that includes.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources

import attrs

__all__ = ["Script", "script"]


@attrs.frozen
class Script:
    """One script: its file's name, its text with includes, and the SHA-1 of that text."""

    name: str
    text: str = attrs.field(repr=False)
    sha: str


@cache
def script(name: str) -> Script:
    """The script of ``scripts/<name>.lua``."""
    text = _text(name)
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    folder = resources.files(__package__) / "scripts"
    text = (folder / f"{name}.lua").read_text("utf-8")
    for included in re.findall(r"^-- include: (\w+)$", text, re.MULTILINE):
        text = _text(included) + text
    return text
