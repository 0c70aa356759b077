"""Whether a built site loads anything from elsewhere: scripts, styles, fonts, images, frames.

    python -m scripts.offline site

Prints what it finds, and exits 1 if that is anything. Links that a reader follows are allowed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

__all__ = ["loaded_from_elsewhere", "main"]

_LOADING: Final = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "track": ("src",),
    "video": ("src", "poster"),
}
"""Attributes by which an element loads something."""

_HARMLESS_LINKS: Final = {"alternate", "author", "canonical", "license", "next", "prev"}
_ELSEWHERE: Final = re.compile(r"(?:https?:)?//[\w.-]", re.IGNORECASE)
_IN_STYLES: Final = re.compile(r"(?:@import\s+|url\()\s*[\"']?((?:https?:)?//[^\"')\s;]+)", re.I)


class _Page(HTMLParser):
    """Collects what a page loads from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._styles = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._styles = tag == "style"
        self.found += _IN_STYLES.findall(given.get("style", ""))
        if tag == "link" and set(given.get("rel", "").split()) <= _HARMLESS_LINKS:
            return
        for name in _LOADING.get(tag, ()):
            candidates = given.get(name, "").split(",") if name == "srcset" else [given.get(name)]
            self.found += [c.strip() for c in candidates if c and _ELSEWHERE.match(c.strip())]

    def handle_data(self, data: str) -> None:
        if self._styles:
            self.found += _IN_STYLES.findall(data)

    def handle_endtag(self, tag: str) -> None:
        self._styles = False


def loaded_from_elsewhere(site: Path) -> Iterator[str]:
    """What the pages and styles of a built site load from other hosts: file, then address."""
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            page = _Page()
            page.feed(path.read_text("utf-8"))
            found = page.found
        elif path.suffix == ".css":
            found = _IN_STYLES.findall(path.read_text("utf-8"))
        else:
            continue
        for address in found:
            yield f"{path.relative_to(site)}: {address}"


def main(arguments: list[str]) -> int:
    """Check the site that is named; returns the exit status."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m scripts.offline DIRECTORY", file=sys.stderr)
        return 2
    site = Path(arguments[0])
    if not any(site.rglob("*.html")):
        print(f"{site} holds no pages; build them first", file=sys.stderr)
        return 2
    found = list(loaded_from_elsewhere(site))
    for line in found:
        print(f"loaded from elsewhere: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
