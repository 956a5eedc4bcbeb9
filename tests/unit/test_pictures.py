"""Pictures of README and guide: each is shown somewhere, and none is older than the words of the page that it shows."""

from __future__ import annotations

import re

import pytest

from core.presets import PROJECT
from tools import pictured


def test_no_picture_shows_words_that_the_page_no_longer_has() -> None:
    """Take them anew: python -m tools.readme_pictures"""
    kept = pictured.kept()
    assert {path.stem for path in pictured.PICTURES.glob("*.png")} == kept.keys() and all(kept.values())
    assert sum(map(len, kept.values())) > 100 and pictured.outgrown() == []


def test_a_word_that_changed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    key = next(iter(pictured.kept()["plan"]))
    monkeypatch.setattr(pictured, "kept", lambda: {"plan": {key: "Other words", "gone.key": "Words"}})
    assert [line.split(":")[0] for line in pictured.outgrown()] == ["plan"]


def test_every_picture_is_shown_on_a_page() -> None:
    pages = [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"pictures/([\w.-]+)\)", page.read_text("utf-8"))}
    assert shown == {path.name for path in pictured.PICTURES.iterdir()}
