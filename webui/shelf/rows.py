"""Models as rows of HTML: the facts that a person chooses by. Pure functions of rows and a Wording."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from core.advice.shelf import HubRow, Shelf, ShelfRow
from core.advice.wish import Wish, language_name
from core.export.llamacpp.export_support import support_of_known
from core.memory.budget import Budget
from core.models.known import KnownModel
from core.models.shapes.shape import ModelShape
from core.system import cores
from core.trial import computed_pace, pace
from webui.kit import format
from webui.kit.format import METHODS, decimals, free_memory, gib, grouped, number
from webui.kit.html import Html, join, tag
from webui.kit.wording import Wording

BudgetOf = Callable[..., Budget]

# The press of a row's button. The script of the event gets no data, so the form stores the model's hub id
# (assets/form.js).
CHOOSE = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-model]");
  if (!button) return;
  window.loraGarageForm.choose(button.dataset.model);
  trigger("select", { value: button.dataset.model });
});
"""
CHOSEN = "() => loraGarageForm.chosen()"
OPEN_ROWS = 24  # further rows are folded
EXAMPLES, TOKENS_EACH = 1000, 256  # of a usual small dataset, for the minutes of a row
NAMED = 3  # languages named in a row; of more, only the number
TONES = {"lora": "ok", "qlora": "ok", "tight": "warn", "no": "bad", "unknown": "plain"}


@dataclass(frozen=True)
class Marks:
    """The state of this page that rows show.

    chosen: id of the chosen model. on_this_pc: ids of models that need no download. budget: the memory that the
    verdicts are about. button: draws what can be done with a model of this many bytes (None: unknown), in place of
    choosing it.
    """

    chosen: str | None
    on_this_pc: Collection[str]
    budget: Budget | None = None
    button: Callable[[str, int | None], Html] | None = None


def shelf(matches: Shelf, controls: Wish, marks: Marks, w: Wording) -> Html:
    """Return how the search was understood, then the rows. controls: the wish set by other controls, which is not
    repeated."""
    rows = [row(each, matches.wish.language, marks, w) for each in matches.rows]
    is_timed = any(seconds_of(each, each.model.shape, marks) for each in matches.rows)
    more = len(rows) - OPEN_ROWS
    folded = None
    if more > 0:
        folded = tag(
            "details", tag("summary", w.t("shelf_view.more", count=more)), listed(rows[OPEN_ROWS:], w), class_="lg-fold"
        )
    timed = minutes_note(w) if is_timed else None
    list_ = tag("div", listed(rows[:OPEN_ROWS], w), folded, class_="lg-shelf") if rows else None
    return join([summary(matches, controls, w), timed, list_])


def minutes_note(w: Wording) -> Html:
    """Return the note about what the minutes of the rows refer to."""
    return tag("p", w.t("shelf_view.minutes_of", examples=grouped(w, EXAMPLES), tokens=TOKENS_EACH), class_="lg-quiet")


def seconds_of(each: ShelfRow | HubRow, shape: ModelShape | None, marks: Marks) -> float | None:
    """Return the computed time, in seconds, for training EXAMPLES examples. None if the model does not fit, its shape
    or the memory is unknown, or for a GPU of less than 6 GB."""
    if each.verdict == "no" or marks.budget is None or shape is None:
        return None
    computed = computed_pace.compute(marks.budget, shape, marks.budget.kind == "card", cores.usable())
    return pace.seconds(EXAMPLES * TOKENS_EACH, computed) if computed else None


def listed(rows: Sequence[Html], w: Wording) -> Html:
    return tag("ul", *rows, aria_label=w.t("shelf_view.list"))


def summary(matches: Shelf, controls: Wish, w: Wording) -> Html:
    """Return the search's remarks, then the number of models with the memory that their verdicts are about, and how the
    search was understood; the remarks alone if no model matches."""
    count = len(matches.rows)
    parts = [
        w.render(part)
        for field, part in matches.wish.parts().items()
        if getattr(matches.wish, field) != getattr(controls, field)
    ]
    lines = [tag("p", w.render(remark), class_="lg-remark") for remark in matches.remarks]
    if count:
        key = "count_one" if count == 1 else "count"
        what = w.t("shelf_view.understood", parts=" · ".join(parts)) if parts else ""
        lines.append(
            tag(
                "p",
                w.t(f"shelf_view.{key}", count=count, what=what, place=free_memory(matches.budget, w)),
                class_="lg-quiet",
            )
        )
    return tag("div", *lines, role="status")


def row(each: ShelfRow, language: str | None, marks: Marks, w: Wording) -> Html:
    """Return one model. language: the one in the search, which is then named. The whole row can be pressed
    (shelf.css)."""
    model, way, seconds = each.model, support_of_known(each.model), seconds_of(each, each.model.shape, marks)
    facts = [
        w.t("shelf_view.billions", billions=billions(model, w)),
        needs(each, w),
        format.about(w, seconds),
        licence(model, w),
        language_names(model.languages, language, w),
        w.t(f"shelf_view.thinking_{model.thinking}") if model.thinking in ("optional", "always") else "",
        w.t("shelf_view.tools") if model.tools else "",
        w.t(f"shelf_view.leaves_{way.best}"),
        model.released.replace("-", "\N{NON-BREAKING HYPHEN}"),  # no line break within "2026-07"
    ]
    return tag(
        "li",
        head(model.hub, model.title, verdict(each, seconds, w), marks, w, each.download_bytes),
        tag("p", w.preset(model.note, f"model_{model.id}_note")),
        tag("p", " · ".join(fact for fact in facts if fact), class_="lg-quiet"),
        tag("p", w.render(way.why), class_="lg-quiet") if way.why else None,
        gate(each.gate, w),
    )


def head(hub: str, title: str, badge: Html | None, marks: Marks, w: Wording, size: int | None = None) -> Html:
    """Return a row's head: title, verdict and button. The title is the button that chooses the model; if marks.button
    is set, the button that this makes stands beside the title instead.

    hub: the model's id. size: bytes of its download, only for marks.button.
    """
    if marks.button is not None:
        return tag("div", tag("strong", title), badge, marks.button(hub, size), class_="lg-shelf-head")
    chosen = "true" if hub == marks.chosen else "false"
    button = tag("button", title, type="button", data_model=hub, aria_pressed=chosen, class_="lg-pick")
    local_note = tag("span", w.t("shelf_view.here"), class_="lg-quiet") if hub in marks.on_this_pc else None
    return tag("div", button, badge, local_note, class_="lg-shelf-head")


def verdict(each: ShelfRow | HubRow, seconds: float | None, w: Wording) -> Html:
    """Return a badge that says whether a model fits into memory, and by which method; instead of it a warning if its
    training would take more than 12 hours."""
    if slow := format.takes_long(seconds, w):
        return slow
    word = w.t(f"shelf_view.verdict_{each.verdict}", method=METHODS[each.method])
    return tag("span", word, class_=f"lg-badge lg-{TONES[each.verdict]}")


def needs(each: ShelfRow, w: Wording) -> str:
    """ "LoRA 9.1 GiB, QLoRA 4.3 GiB" """
    return w.t("shelf_view.needs", lora=gib(w, each.lora.needed_gib), qlora=gib(w, each.qlora.needed_gib))


def billions(model: KnownModel, w: Wording) -> str:
    """Return a model's parameters in billions as a number, such as "0.6" or "14": with at most two digits below 10,
    else a whole number."""
    return number(w, float(f"{model.billions:.2g}")) if model.billions < 10 else decimals(w, model.billions, 0)


def licence(model: KnownModel, w: Wording) -> str:
    """Return the model's licence in words, with whether commercial use is allowed, limited or forbidden."""
    return w.t(f"shelf_view.licence_{model.commercial}", licence=model.licence)


def language_names(languages: Sequence[str], requested: str | None, w: Wording) -> str:
    """Return languages in words: "English, Japanese"; "38 languages" for many, with the requested one."""
    if len(languages) <= NAMED:
        return w.t("shelf_view.comma").join(w.render(language_name(code)) for code in languages)
    if requested is not None and requested in languages:
        return w.t("shelf_view.languages_with", count=len(languages), language=w.render(language_name(requested)))
    return w.t("shelf_view.languages", count=len(languages))


def gate(address: str | None, w: Wording) -> Html | None:
    """Return a note that the licence has to be accepted first, with a link to address; None without one."""
    if address is None:
        return None
    link = tag("a", w.t("shelf_view.gate_page"), href=address, target="_blank", rel="noopener noreferrer")
    return tag("p", w.t("shelf_view.gate"), " ", link, class_="lg-gate")
