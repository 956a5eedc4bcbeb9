"""Models on this PC, on the Models page: size, last use, and the runs that use them. Models of the hub's cache can be
deleted, and a GGUF file of LM Studio or Ollama can become a base model.

The disk is read when the tab is opened, and after this app changed it: a download ended, a GGUF file became a base, a
model was deleted on any page. The clock only checks whether one of these happened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import gradio as gr

from core.errors import GarageError
from core.hub.entry import ENDED
from core.models.on_disk import StoredModel, delete, on_disk
from webui.kit import format
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.live import CONTROL, EACH, QUIET, LivePart, Update, ViewContext, shown
from webui.kit.wording import Wording
from webui.state.gguf_bases import GgufConversion
from webui.state.services import Services

PRESS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-act]");
  if (!button) return;
  window.loraGarageKept = { ...button.dataset };
  trigger("select", { value: button.dataset.act });
});
"""
PRESSED = """() => {
  const { act, kept } = window.loraGarageKept;
  return act !== "delete" || confirm($sure.replace("{model}", kept)) ? [act, kept] : ["", ""];
}"""
OPEN_ROWS, RUNS = 8, 3


class DiskCard:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        # the changes so far, and the list drawn after them
        self._last: tuple[list[str], Html] = [], muted(wording.t("disk_view.looking"))

    def build(self) -> None:
        with gr.Column(elem_classes="lg-card", elem_id="on-disk"):
            gr.HTML(tag("h2", self.w.t("disk_view.title")))
            self.list = gr.HTML(self._last[1], elem_id="disk-list", js_on_load=PRESS, apply_default_css=False)
            self.pressed = gr.Textbox(visible=False), gr.Textbox(visible=False)  # filled in by the browser
            self.making = gr.HTML("", visible=False, elem_id="gguf-base", js_on_load=PRESS, apply_default_css=False)
            self.notice = gr.HTML("", visible=False, elem_id="disk-notice")

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.drawn, None, [self.list], **QUIET)
        sure = json.dumps(self.w.raw("disk_view.sure"), ensure_ascii=False)
        for pressed in (self.list, self.making):
            pressed.select(
                self.act,
                [*self.pressed],
                [self.list, self.notice],
                js=PRESSED.replace("$sure", sure),
                **EACH,
                **CONTROL,
            )

    def parts(self) -> list[LivePart]:
        return [
            LivePart(self.making, lambda context: shown(conversion_card(self.services.gguf_bases.current(), self.w))),
            LivePart(self.list, self._newest),
        ]

    def _newest(self, context: ViewContext) -> Update:
        """Draw the list again on open pages after a change; the tab draws its own first list."""
        ended = [
            f"{each.name} {each.revision} {each.state}"
            for each in context.snapshot.downloads
            if each.state in ENDED and not each.part
        ]
        base = self.services.gguf_bases.current()
        happened = [*ended, *([base.file] if base and base.state == "done" else []), *self.services.deleted]
        if happened != self._last[0]:
            self._last = happened, self.drawn()
        return gr.update(value=self._last[1])

    def drawn(self) -> Html:
        """Outputs: list."""
        return rows(on_disk(self.services.workspace, self.services.runs.uses()), self.w)

    def act(self, act: object, pressed: object) -> tuple[Html | Update, Update]:
        """Inputs: the pressed button ("" if the person did not confirm), and the model of its row. Outputs: list,
        notice."""
        if not isinstance(act, str) or not isinstance(pressed, str) or not act:
            return gr.skip(), shown("")
        try:
            if act == "delete":
                return self._delete(pressed)
            if act == "base":
                gguf_files = {each.id: each.gguf for each in on_disk(self.services.workspace)}
                if gguf := gguf_files.get(pressed):
                    self.services.gguf_bases.begin(pressed, gguf)
            elif act == "cancel":
                self.services.gguf_bases.cancel()
        except GarageError as error:
            return self.drawn(), shown(notice(self.w.render(error.message)))
        return self.drawn(), shown("")

    def _delete(self, pressed: str) -> tuple[Html, Update]:
        """Delete a model from this PC; return the new list and the notice. Raises GarageError."""
        freed = delete(self.services.workspace, pressed, self.services.runs.uses())
        row = self.services.downloads.row(pressed)
        if row is not None and row.state == "done":
            self.services.downloads.cancel(pressed)  # else the list of downloads would still show it
        message = self.w.t("disk_view.deleted", model=pressed, size=format.bytes_used(self.w, freed))
        self.services.deleted.append(pressed)
        return self.drawn(), shown(notice(message, "ok"))


def rows(models: Sequence[StoredModel], w: Wording) -> Html:
    """Return the models with their total size; those after OPEN_ROWS are folded."""
    if not models:
        return muted(w.t("disk_view.none"))
    key, size = "total_one" if len(models) == 1 else "total", format.bytes_used(w, sum(each.size for each in models))
    total = w.t(f"disk_view.{key}", count=len(models), size=size)
    lines = [tag("li", row(each, w)) for each in models]
    first = tag("ul", *lines[:OPEN_ROWS], class_="lg-downloads")
    more = None
    if len(lines) > OPEN_ROWS:
        summary = tag("summary", w.t("shelf_view.more", count=len(lines) - OPEN_ROWS))
        more = tag("details", summary, tag("ul", *lines[OPEN_ROWS:], class_="lg-downloads"), class_="lg-fold")
    return join([muted(total), first, more])


def row(each: StoredModel, w: Wording) -> Html:
    """Return a model with its facts, and the buttons that delete it or make it a base."""
    facts = [
        format.bytes_used(w, each.size),
        w.t("disk_view.last_used", when=format.moment(each.last_used)),
        w.t(f"disk_view.store_{each.store}"),
        "" if each.is_complete else w.t("disk_view.incomplete"),
        used_by(each, w),
        w.t("disk_view.trained_as", model=each.made_from) if each.made_from else "",
    ]
    name = tag("strong", format.model_name(each.id, w))
    acts = [
        tag("button", w.t(f"disk_view.{key}"), type="button", data_act=act, data_kept=each.id,
            aria_label=w.t(f"disk_view.{label}", model=each.id), class_="lg-small")
        for act, key, label, can in (("delete", "delete", "delete_one", each.can_delete), ("base", "use_as_base",
            "use_one_as_base", each.gguf))
        if can
    ]  # fmt: skip
    return join([name, tag("p", " · ".join(fact for fact in facts if fact), class_="lg-quiet"), *acts])


def conversion_card(each: GgufConversion | None, w: Wording) -> Html | str:
    """Return the conversion of a GGUF file to a base, or its result; "" for none."""
    if each is None:
        return ""
    is_over = each.state != "working"
    tone = {"failed": "bad", "done": "ok"}.get(each.state, "plain")
    head = tag(
        "div", tag("strong", w.t("disk_view.making", file=each.file)), tag("span", w.t(f"disk_view.state_{each.state}"),
            class_=f"lg-badge lg-{tone}"),
        class_="lg-shelf-head",
    )  # fmt: skip
    label = w.t("disk_view.remove" if is_over else "disk_view.cancel")
    button = tag("button", label, type="button", data_act="cancel", data_kept="-", class_="lg-small")
    return tag(
        "ul", tag("li", join([head, notice(w.render(each.message), tone), tag("p", button)])), class_="lg-downloads"
    )


def used_by(each: StoredModel, w: Wording) -> str:
    """ "used by pirates, club and 2 more", runs that need the model first; "" for none."""
    names = [use.run for use in sorted(each.uses, key=lambda use: not use.needs_it)]
    if not names:
        return ""
    listed = w.t("shelf_view.comma").join(names[:RUNS])
    if len(names) > RUNS:
        listed = w.t("disk_view.and_more", runs=listed, count=len(names) - RUNS)
    return w.t("disk_view.needed_by" if any(use.needs_it for use in each.uses) else "disk_view.used_by", runs=listed)
