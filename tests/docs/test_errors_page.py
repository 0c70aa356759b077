"""The page of errors has every error, and says of each what the class says."""

from __future__ import annotations

import re

import leanmq
from leanmq import errors
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")
PUBLIC = {name for name in leanmq.__all__ if name.endswith("Error")} | {"StaleSettingsError"}


def sections() -> dict[str, str]:
    """The text of each section that is about an error, by its name."""
    _, *parts = re.split(r"^## `(\w+)`\n", PAGE, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_error_has_a_section_with_its_cause_and_its_cure() -> None:
    found = sections()

    assert set(found) == PUBLIC
    assert len(found) > 15
    for name, text in found.items():
        assert len(text.partition("**Cause.**")[0].split()) > 4, f"{name}: what does it mean?"
        assert re.search(r"^\*\*Cause\.\*\* \S", text, re.MULTILINE), f"{name}: no cause"
        assert re.search(r"^\*\*Cure\.\*\* \S", text, re.MULTILINE), f"{name}: no cure"


def test_no_error_of_the_library_is_left_out() -> None:
    # What UnreachableError says, ConnectionError says, which is what is raised.
    assert set(errors.__all__) - {"UnreachableError"} == PUBLIC


def test_the_table_says_of_each_what_the_class_says() -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| (.+?) \| (.+?) \|", PAGE, re.MULTILINE)

    assert {name for name, *_ in rows} == PUBLIC
    words = {True: "yes", False: "no"}
    for name, anchor, retryable, in_doubt in rows:
        kind = getattr(errors, name)
        assert anchor == name.lower()
        assert retryable == words[kind.retryable], name
        if name != "BulkSendError":  # of one, it depends
            assert in_doubt == words[kind.in_doubt], name
