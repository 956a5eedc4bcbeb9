"""The navigation between the pages: a rail at the left, a bar at the bottom of a phone.

It replaces gradio's row of tabs, which is hidden; assets/rail.js presses the tab of a link, keeps `aria-current` on the
link of the open page, and gives each page an address (`#chat`).
"""

from __future__ import annotations

from webui.kit.html import Html, tag
from webui.kit.icons import icon
from webui.kit.wording import Wording

PAGES = ("train", "chat", "data", "runs", "evaluate", "models", "settings", "help")


def rail(w: Wording) -> Html:
    """Return the links to all pages, with their icons."""
    links = (
        tag(
            "a",
            icon(page),
            tag("span", w.t(f"page.{page}")),
            href=f"#{page}",
            data_page=page,
            aria_current="page" if page == "train" else None,
        )
        for page in PAGES
    )
    return tag("nav", *links, class_="lg-rail", aria_label=w.t("page.pages"))
