"""Hub search results, as rows like those of the catalogue. Pure functions of rows and a Wording."""

from __future__ import annotations

from collections.abc import Sequence

from huggingface_hub import constants

from core.advice.shelf import HubRow
from core.hub.hub_errors import host_of, page
from core.hub.search import FoundModel
from webui.kit import format
from webui.kit.format import gib, grouped
from webui.kit.html import Html, join, tag
from webui.kit.wording import Wording
from webui.shelf.rows import Marks, gate, head, language_names, listed, minutes_note, seconds_of, verdict


def results(rows: Sequence[HubRow], words: str, marks: Marks, w: Wording) -> Html:
    """Return the results of a hub search as rows, with a note on their times, or a sentence that there are none."""
    host = host_of(constants.ENDPOINT)
    if not rows:
        return tag("p", w.t("hub_rows_view.none", host=host, words=words), role="status")
    head_line = tag(
        "p", w.t("hub_rows_view.found", host=host, words=words, count=len(rows)), class_="lg-quiet", role="status"
    )
    timed = minutes_note(w) if any(seconds_of(each, each.shape, marks) for each in rows) else None
    return join([head_line, timed, tag("div", listed([row(each, marks, w) for each in rows], w), class_="lg-shelf")])


def row(each: HubRow, marks: Marks, w: Wording) -> Html:
    """Return one result: name, verdict, facts, and a note if the model's licence has to be accepted first. A model that
    cannot be a base has the reason instead, and a button for the model that it was made from."""
    model = each.result
    if model.why_not is not None:
        reason = tag("p", w.render(model.why_not), class_="lg-quiet")
        return tag("li", tag("p", tag("strong", model.id)), reason, base_in_its_place(model.made_from, marks, w))
    seconds = seconds_of(each, each.shape, marks)
    badge = verdict(each, seconds, w) if each.fits is not None else None
    return tag(
        "li",
        head(model.id, model.id, badge, marks, w, 2 * model.params if model.params else None),
        tag("p", " · ".join(fact for fact in facts(each, seconds, w) if fact), class_="lg-quiet"),
        gate(page(model.id) if model.gated else None, w),
    )


def base_in_its_place(base: str | None, marks: Marks, w: Wording) -> Html | None:
    """Return the model that this one was made from, with its button; None without one."""
    if base is None:
        return None
    if marks.button is not None:
        return head(base, base, None, marks, w)
    return tag("button", w.t("hub_rows_view.instead", base=base), type="button", data_model=base, class_="lg-small")


def facts(each: HubRow, seconds: float | None, w: Wording) -> list[str]:
    """Return a model's facts in words: parameters, memory, training time, licence, languages, likes, date; "" for
    unknown ones."""
    model = each.result
    return [
        format.parameters(w, model.params) if model.params and not each.is_packed else "",
        needs(each, w),
        format.about(w, seconds),
        model.license or w.t("hub_rows_view.no_licence"),
        languages(model, w),
        w.t("hub_rows_view.liked", downloads=grouped(w, model.downloads or 0), likes=grouped(w, model.likes or 0)),
        model.modified or "",
    ]


def needs(each: HubRow, w: Wording) -> str:
    """Return the needed memory, "LoRA about 9.1 GiB, QLoRA about 4.3 GiB". If it cannot be estimated: that the files
    are quantized already or that the size is unknown, else ""."""
    if each.fits is None:
        if each.is_packed:
            return w.t("hub_rows_view.packed")
        return "" if each.result.params else w.t("hub_rows_view.no_size")
    key = "hub_rows_view.needs_about" if each.is_about else "shelf_view.needs"
    return w.t(key, **{method: gib(w, fit.needed_gib) for method, fit in each.fits.items()})


def languages(model: FoundModel, w: Wording) -> str:
    return language_names(model.languages, None, w) if model.languages else ""
