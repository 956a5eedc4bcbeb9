"""Keyboard shortcuts: a button in the header and the help sheet it opens. The keys: assets/shortcuts.js."""

from __future__ import annotations

from webui.kit.html import Html, join, tag
from webui.kit.icons import icon
from webui.kit.wording import Wording
from webui.pages.rail import PAGES


def shortcuts(w: Wording) -> Html:
    """Return the button with the sheet of keys that it opens."""
    keys = [
        ("?", w.t("shortcuts.sheet")),
        *((str(number), w.t(f"page.{page}")) for number, page in enumerate(PAGES, 1)),
        ("/", w.t("shortcuts.search")),
        ("S", w.t("shortcuts.start")),
        ("M", w.t("shortcuts.message")),
        ("Enter", w.t("shortcuts.send")),
        ("1 – 4", w.t("shortcuts.vote")),
        ("Esc", w.t("shortcuts.escape")),
    ]
    rows = join(join([tag("dt", tag("kbd", key)), tag("dd", text)]) for key, text in keys)
    # WCAG 2.1.4: keys without Ctrl can be switched off, for speech input and accidental key presses.
    switch = tag("label", tag("input", type="checkbox", id="shortcuts-on"), w.t("shortcuts.enabled"))
    close = tag("button", w.t("shortcuts.close"), type="button", class_="lg-small", id="shortcuts-close")
    title = tag("h2", w.t("shortcuts.open"), id="shortcuts-title")
    sheet = tag(
        "dialog", close, title, tag("dl", rows), switch, id="shortcuts-sheet", aria_labelledby="shortcuts-title"
    )
    attributes = {"aria_label": w.t("shortcuts.open"), "title": w.t("shortcuts.open"), "aria_haspopup": "dialog"}
    opens = tag("button", icon("keyboard"), type="button", class_="lg-small", id="shortcuts-open", **attributes)
    return join([opens, sheet])
