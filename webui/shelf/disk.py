"""Models on this PC, on the Models page: size, last use, and the runs that use them. Models of the hub's cache can be
deleted.

The disk is read when the tab is opened, and after this app changed it: a download ended, a model was deleted on any
page. The clock only checks whether one of these happened.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import gradio as gr

from core.errors import GarageError
from core.hub.downloads import ENDED
from core.models.on_disk import StoredModel, delete, on_disk
from webui.kit import format
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.live import CONTROL, EACH, QUIET, LivePart, Update, ViewContext, shown
from webui.kit.wording import Wording
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
            self.notice = gr.HTML("", visible=False, elem_id="disk-notice")

    def wire(self, page: gr.Blocks, tab: gr.Tab) -> None:
        for arrived in (page.load, tab.select):
            arrived(self.drawn, None, [self.list], **QUIET)
        sure = json.dumps(self.w.raw("disk_view.sure"), ensure_ascii=False)
        pressed = PRESSED.replace("$sure", sure)
        self.list.select(self.act, [*self.pressed], [self.list, self.notice], js=pressed, **EACH, **CONTROL)

    def parts(self) -> list[LivePart]:
        return [LivePart(self.list, self._newest)]

    def _newest(self, context: ViewContext) -> Update:
        """Return the list's update, drawn again after a download has ended or a model was deleted; the tab draws its
        own first list."""
        ended = [
            f"{each.name} {each.revision} {each.state}"
            for each in context.snapshot.downloads
            if each.state in ENDED and not each.part
        ]
        happened = [*ended, *self.services.deleted]
        if happened != self._last[0]:
            self._last = happened, self.drawn()
        return gr.update(value=self._last[1])

    def drawn(self) -> Html:
        """Return the list as the disk is now, and keep it for the clock, whose first update may arrive later."""
        listed = rows(on_disk(self.services.workspace, self.services.runs.uses()), self.w)
        self._last = self._last[0], listed
        return listed

    def act(self, act: object, pressed: object) -> tuple[Html | Update, Update]:
        """Inputs: the pressed button ("" if the person did not confirm), and the model of its row. Outputs: list,
        notice."""
        if act != "delete" or not isinstance(pressed, str):
            return gr.skip(), shown("")
        try:
            return self._delete(pressed)
        except GarageError as error:
            return self.drawn(), shown(notice(self.w.render(error.message)))

    def _delete(self, pressed: str) -> tuple[Html, Update]:
        """Delete a model from this PC, and its finished download from the list; return the new list and the notice.
        Raises GarageError."""
        freed = delete(pressed, self.services.runs.uses())
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
    """Return a model with its facts, and the button that deletes it."""
    facts = [
        format.bytes_used(w, each.size),
        w.t("disk_view.last_used", when=format.moment(each.last_used)),
        w.t(f"disk_view.store_{each.store}"),
        "" if each.is_complete else w.t("disk_view.incomplete"),
        used_by(each, w),
    ]
    name = tag("strong", format.model_name(each.id, w))
    delete_it = w.t("disk_view.delete_one", model=each.id)
    button = tag("button", w.t("disk_view.delete"), type="button", data_act="delete", data_kept=each.id,
        aria_label=delete_it, class_="lg-small") if each.can_delete else None  # fmt: skip
    return join([name, tag("p", " · ".join(fact for fact in facts if fact), class_="lg-quiet"), button])


def used_by(each: StoredModel, w: Wording) -> str:
    """Return the runs that use a model in words, "used by pirates, club and 2 more", runs that need it first; "" for
    none."""
    names = [use.run for use in sorted(each.uses, key=lambda use: not use.needs_it)]
    if not names:
        return ""
    listed = w.t("shelf_view.comma").join(names[:RUNS])
    if len(names) > RUNS:
        listed = w.t("disk_view.and_more", runs=listed, count=len(names) - RUNS)
    return w.t("disk_view.needed_by" if any(use.needs_it for use in each.uses) else "disk_view.used_by", runs=listed)
