"""Hub datasets as HTML: search results, one dataset, its first rows. Pure functions of the hub's answers and a
Wording."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import constants

from core.data.hub_sets.adding import FIRST_ROWS
from core.data.hub_sets.head import cell
from core.data.sets.info import DatasetInfo
from core.hub.downloads import Download
from core.hub.hub_errors import host_of
from core.hub.sets.about import AboutPart, AboutSet, SetHead
from core.hub.sets.search import FoundSet
from webui.kit import format
from webui.kit.format import grouped
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.wording import Wording
from webui.shelf.downloads import how_far, numbers

CELL = 100  # characters of a cell that are shown
MAX_ROWS = 4
OPEN_ROWS = 20


def results(rows: Sequence[FoundSet], words: str, w: Wording) -> Html:
    """Return the search results, those after OPEN_ROWS folded, or a sentence that there are none."""
    host = host_of(constants.ENDPOINT)
    if not rows:
        return tag("p", w.t("hub_set_view.none", host=host, words=words), role="status")
    head_line = tag(
        "p", w.t("hub_set_view.found", host=host, words=words, count=len(rows)), class_="lg-quiet", role="status"
    )
    lines = [row(each, w) for each in rows]
    folded = None
    if len(lines) > OPEN_ROWS:
        more = tag("summary", w.t("shelf_view.more", count=len(lines) - OPEN_ROWS))
        folded = tag("details", more, _listed(lines[OPEN_ROWS:], w), class_="lg-fold")
    return join([head_line, tag("div", _listed(lines[:OPEN_ROWS], w), folded, class_="lg-shelf")])


def _listed(lines: Sequence[Html], w: Wording) -> Html:
    return tag("ul", *lines, aria_label=w.t("hub_set_view.list"))


def row(each: FoundSet, w: Wording) -> Html:
    """Return one result: a button with the dataset's name, a badge if its owner must grant access, then rows, size,
    licence, languages, likes and date. A dataset without text has the reason instead of a button."""
    if each.why_not is not None:
        return tag("li", tag("p", tag("strong", each.id)), tag("p", w.render(each.why_not), class_="lg-quiet"))
    rows = grouped(w, each.rows) if each.rows is not None else each.about_rows
    facts = [
        w.t("hub_set.rows", rows=rows) if rows else "",
        format.bytes_used(w, each.bytes) if each.bytes is not None else "",
        each.licence or w.t("hub_set.no_licence"),
        ", ".join(each.languages[:4]),
        w.t("hub_set.liked", downloads=grouped(w, each.downloads or 0), likes=grouped(w, each.likes or 0)),
        each.modified,
    ]
    gate = tag("span", w.t("hub_set.gated_word"), class_="lg-badge lg-warn") if each.gated else None
    button = tag("button", each.id, type="button", data_set=each.id, class_="lg-pick")
    head = tag("div", button, gate, class_="lg-shelf-head")
    return tag("li", head, tag("p", " · ".join(fact for fact in facts if fact), class_="lg-quiet"))


def about(dataset: AboutSet, w: Wording) -> Html:
    """Return a dataset's name, a link to its page, licence, languages, likes, and a notice if it is gated."""
    facts = [
        w.t("hub_set.licence", licence=dataset.licence) if dataset.licence else w.t("hub_set.no_licence"),
        ", ".join(dataset.languages[:5]),
        w.t("hub_set.liked", downloads=grouped(w, dataset.downloads or 0), likes=grouped(w, dataset.likes or 0)),
    ]
    page = tag("a", w.t("hub_set_view.page"), href=dataset.page, target="_blank", rel="noopener noreferrer")
    gate = notice(w.t("hub_set_view.gated"), "warn") if dataset.gated else None
    return join(
        [
            tag("h2", dataset.repo),
            tag("p", " · ".join(fact for fact in facts if fact) + " · ", page, class_="lg-quiet"),
            gate,
        ]
    )


def part_label(each: AboutPart, w: Wording) -> str:
    """Return a part's line in the list, such as "en · train · 1,500 rows · 2.3 MB"."""
    rows = w.t("hub_set.rows", rows=grouped(w, each.rows)) if each.rows is not None else ""
    return " · ".join(part for part in (each.config, each.split, rows, format.bytes_used(w, each.bytes)) if part)


def head(preview: SetHead, w: Wording) -> Html:
    """Return the first MAX_ROWS rows as a table of shortened cells, which scrolls if it is wider than the page, and the
    columns left out."""
    cells = [[cell(values.get(name), CELL) for name in preview.columns] for values in preview.rows]
    names = tag("tr", *(tag("th", name, scope="col") for name in preview.columns))
    body = [tag("tr", *(tag("td", value) for value in line)) for line in cells[:MAX_ROWS]]
    table = tag("table", tag("thead", names), tag("tbody", *body), class_="lg-table lg-head-rows")
    name = w.t("hub_set_view.first_rows")
    scrolled = tag("div", table, class_="lg-scroll", tabindex=0, role="region", aria_label=name)
    left_out = muted(w.t("hub_set.some_media", columns=list(preview.left_out)[:10])) if preview.left_out else None
    return join([tag("p", tag("strong", name)), scrolled, left_out])


def origin(info: DatasetInfo, w: Wording) -> Html | None:
    """Return the origin of a hub dataset: name, commit and licence; None for any other dataset."""
    if not info.origin_name:
        return None
    licence = w.t("hub_set.licence", licence=info.licence) if info.licence else w.t("hub_set.no_licence")
    text = w.t("hub_set_view.origin", name=info.origin_name, commit=info.revision[:10], licence=licence)
    return tag("p", text, class_="lg-quiet")


def too_large(w: Wording) -> Html:
    return notice(w.t("hub_set_view.too_large", rows=grouped(w, FIRST_ROWS)), "warn")


def progress(row: Download, w: Wording) -> Html:
    """Return a download's bar and line, for beside the button; the list of downloads has its buttons."""
    figures = numbers(row, w)
    state = w.t(f"downloads_view.state_{row.state}")
    line = " · ".join(part for part in (row.name, state, figures) if part)
    return tag("div", how_far(row), tag("p", line, class_="lg-numbers"), muted(w.t("hub_set_view.in_list")))
