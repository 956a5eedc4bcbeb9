"""What models lie on this PC, on the Settings page: size, last use, by which runs; those of the hub's cache can be deleted.

The disk is looked at when the page or its tab is opened, and after a deletion: never by the clock.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from core.errors import GarageError
from core.models.on_disk import Kept, delete, on_disk
from webui.kit import format
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.live import CONTROL, QUIET, Update, shown
from webui.kit.wording import Wording
from webui.state.services import Services

PRESS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-kept]");
  if (!button) return;
  window.loraGarageKept = button.dataset.kept;
  trigger("select", { value: button.dataset.kept });
});
"""
PRESSED = """() => [confirm($sure.replace("{model}", window.loraGarageKept)) ? window.loraGarageKept : ""]"""
OPEN_ROWS, RUNS = 8, 3


class DiskCard:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording

    def build(self) -> None:
        with gr.Column(elem_classes="lg-card", elem_id="on-disk"):
            gr.HTML(tag("h2", self.w.t("disk_view.title")))
            self.list = gr.HTML(
                muted(self.w.t("disk_view.looking")), elem_id="disk-list", js_on_load=PRESS, apply_default_css=False
            )
            self.pressed = gr.Textbox(visible=False)  # filled in by the browser
            self.notice = gr.HTML("", visible=False, elem_id="disk-notice")

    def wire(self, tab: gr.Tab) -> None:
        tab.select(self.drawn, None, [self.list], **QUIET)
        sure = json.dumps(self.w.raw("disk_view.sure"), ensure_ascii=False)
        self.list.select(self.forget, [self.pressed], [self.list, self.notice], js=PRESSED.replace("$sure", sure), **CONTROL)

    def drawn(self) -> Html:
        """Outputs: list."""
        return rows(on_disk(self.services.workspace, self.services.runs.uses()), self.w)

    def forget(self, pressed: Any) -> tuple[Html | Update, Update]:
        """Input: the model whose button was pressed, "" where the person thought better of it. Outputs: list, notice."""
        if not isinstance(pressed, str) or not pressed:
            return gr.skip(), shown("")
        try:
            freed = delete(pressed, self.services.runs.uses())
            row = self.services.downloads.row(pressed)
            if row is not None and row.state == "done":
                self.services.downloads.cancel(pressed)  # the list says that it is here
        except GarageError as error:
            return self.drawn(), shown(notice(self.w.of(error.message)))
        said = self.w.t("disk_view.deleted", model=pressed, size=format.bytes_used(freed))
        return self.drawn(), shown(notice(said, "ok"))


def rows(kept: Sequence[Kept], w: Wording) -> Html:
    if not kept:
        return muted(w.t("disk_view.none"))
    key, size = "total_one" if len(kept) == 1 else "total", format.bytes_used(sum(each.size for each in kept))
    total = w.t(f"disk_view.{key}", count=len(kept), size=size)
    lines = [tag("li", row(each, w)) for each in kept]
    first = tag("ul", *lines[:OPEN_ROWS], class_="lg-downloads")
    more = None
    if len(lines) > OPEN_ROWS:
        summary = tag("summary", w.t("shelf_view.more", count=len(lines) - OPEN_ROWS))
        more = tag("details", summary, tag("ul", *lines[OPEN_ROWS:], class_="lg-downloads"), class_="lg-fold")
    return join([muted(total), first, more])


def row(each: Kept, w: Wording) -> Html:
    facts = [
        format.bytes_used(each.size),
        w.t("disk_view.last_used", when=format.moment(each.last_used)),
        w.t(f"disk_view.store_{each.store}"),
        "" if each.is_whole else w.t("disk_view.incomplete"),
        used(each, w),
        w.t("disk_view.trained_as", model=each.made_from) if each.made_from else "",
    ]
    button = None
    if each.can_delete:
        label = w.t("disk_view.delete_one", model=each.id)
        button = tag("button", w.t("disk_view.delete"), type="button", data_kept=each.id, aria_label=label, class_="lg-small")
    name = tag("strong", format.model_name(each.id, w))
    return join([name, tag("p", " · ".join(fact for fact in facts if fact), class_="lg-quiet"), button])


def used(each: Kept, w: Wording) -> str:
    """ "used by pirates, club and 2 more", those that need it first; "" by none."""
    names = [use.run for use in sorted(each.uses, key=lambda use: not use.needs_it)]
    if not names:
        return ""
    said = w.t("shelf_view.comma").join(names[:RUNS])
    if len(names) > RUNS:
        said = w.t("disk_view.and_more", runs=said, count=len(names) - RUNS)
    return w.t("disk_view.needed_by" if any(use.needs_it for use in each.uses) else "disk_view.used_by", runs=said)
