"""Remembers the texts on each picture of docs/, so that a test names the pictures that are older than the page.

`tools/pictured.json`: {picture: {catalogue key: sentence}}, the sentences without placeholders that were visible when
it was taken. If one of them has another wording today, the picture is outdated. A change of layout is not noticed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from core.messages import CORE_LOCALES, Catalogue
from core.presets import PROJECT

if TYPE_CHECKING:
    from playwright.sync_api import Page

PICTURES = PROJECT / "docs" / "pictures"
KEPT = PROJECT / "tools" / "pictured.json"
CATALOGUE = Catalogue(CORE_LOCALES, PROJECT / "webui" / "locales")
# Every line of the picture's part of the page that can be seen.
SEEN = "part => document.querySelector(part || 'body').innerText.split('\\n').map(line => line.trim())"


def kept() -> dict[str, dict[str, str]]:
    """Return the sentences by key, by picture; empty before the first picture was taken."""
    return json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else {}


def keep(page: Page, name: str, part: str = "") -> None:
    """Store the texts visible on the picture of part (a selector; the complete page by default)."""
    language = "zh" if name.endswith(".zh") else "en"
    lines = set(page.evaluate(SEEN, part))
    texts = {key: CATALOGUE.raw(key, language) for key in sorted(CATALOGUE.keys(language))}
    words = {key: sentence for key, sentence in texts.items() if "{" not in sentence and sentence in lines}
    KEPT.write_text(json.dumps({**kept(), name: words}, ensure_ascii=False, indent=1, sort_keys=True) + "\n", "utf-8")


def outgrown() -> list[str]:
    """Return the name of each outdated picture, with the first wording that has changed."""
    changed = []
    for name, words in kept().items():
        language = "zh" if name.endswith(".zh") else "en"
        today = {key: CATALOGUE.raw(key, language) if key in CATALOGUE.keys(language) else "gone" for key in words}
        changed += [f"{name}: {words[key]!r} is {today[key]!r} today" for key in words if today[key] != words[key]][:1]
    return changed
