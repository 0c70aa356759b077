"""The built pages load nothing from elsewhere, and every page can be reached."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.offline import loaded_from_elsewhere, main
from tests.docs.pages import ROOT

LOADED = [
    '<script src="https://cdn.invalid/x.js"></script>',
    '<script src="//cdn.invalid/x.js"></script>',
    '<link rel="stylesheet" href="http://cdn.invalid/x.css">',
    '<link rel="preconnect" href="https://fonts.invalid">',
    '<img src="https://cdn.invalid/x.png">',
    '<img srcset="x.png, https://cdn.invalid/x.png 2x">',
    '<iframe src="https://cdn.invalid/"></iframe>',
    "<style>@font-face { src: url(https://cdn.invalid/x.woff2) }</style>",
    '<p style="background: url(//cdn.invalid/x.png)">',
]
HARMLESS = [
    '<a href="https://elsewhere.invalid/">a link</a>',
    '<link rel="canonical" href="https://elsewhere.invalid/">',
    '<script src="assets/x.js"></script>',
    '<script>let link = "https://elsewhere.invalid/"</script>',
    "<p>url(https://elsewhere.invalid/)</p>",
    '<link rel="stylesheet" href="../x.css">',
]


@pytest.mark.parametrize("text", LOADED)
def test_what_a_page_loads_from_elsewhere_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "page.html").write_text(f"<html><body>{text}</body></html>")

    assert len(list(loaded_from_elsewhere(tmp_path))) == 1
    assert main([str(tmp_path)]) == 1


@pytest.mark.parametrize("text", HARMLESS)
def test_what_a_reader_follows_or_the_site_has_itself_is_allowed(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(f"<html><body>{text}</body></html>")

    assert list(loaded_from_elsewhere(tmp_path)) == []
    assert main([str(tmp_path)]) == 0


def test_a_style_that_imports_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "x.css").write_text('@import "https://fonts.invalid/x.css"; a { color: red }')

    assert list(loaded_from_elsewhere(tmp_path)) == ["x.css: https://fonts.invalid/x.css"]


def test_a_site_that_was_not_built_is_no_clean_site(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    assert main([]) == 2


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(
        r"^ +- (?:\w+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M
    )

    pages = [str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")]

    assert sorted(listed) == sorted(pages)
