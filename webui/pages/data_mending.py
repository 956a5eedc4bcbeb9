"""Problems in the rows of a dataset: one line each, with the buttons that repair every row that has it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import gradio as gr
from gradio.events import Dependency

from core.data.findings.finding import Finding, Repair
from core.data.sets import working
from core.errors import GarageError
from webui.kit.format import grouped
from webui.kit.html import Html, join, muted, notice, success, tag
from webui.kit.live import LAST, QUIET, SET_WORK, Update, Updates, shown
from webui.kit.panel import Panel
from webui.pages.data_view import ALL, UNUSABLE

BUTTONS = 4  # of one problem; further repairs are offered afterwards
QUOTED = 3
# A button contains its repair and dataset; the text field beside it replaces a placeholder.
PRESS = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-mend]");
  if (!button) return;
  const field = button.parentElement.querySelector("input");
  window.loraGarageMend = [...JSON.parse(button.dataset.mend), field?.value ?? ""];
  button.ariaBusy = "true";
  trigger("select", { value: button.dataset.mend });
});
"""
PRESSED = "() => [window.loraGarageMend]"
DONE = "() => document.querySelectorAll('#data-found [aria-busy]').forEach((each) => each.removeAttribute('aria-busy'))"
# The filters of the table (assets/data_table.js).
FOUND = "(found) => { window.loraGarageFound = found; dispatchEvent(new Event('lg-found')); }"


class Mending(Panel):
    """The problems in the rows of the chosen dataset: a line for each kind, with buttons that repair all rows that have
    it; and the filters of the table."""

    def build(self) -> None:
        with gr.Column(visible=False, elem_id="data-mending") as self.column:
            self.problems = gr.HTML("", elem_id="data-found", js_on_load=PRESS, apply_default_css=False)
            self.pressed = gr.JSON(None, visible=False)  # filled in by the browser
        self.filters = gr.JSON(None, visible=False)

    @property
    def outputs(self) -> list[object]:
        return [self.column, self.problems, self.filters]

    def wire(self, notice_: gr.HTML, redraw: Callable[[Dependency], None]) -> None:
        """Connect the buttons of repairs. notice_: shows the result. redraw: draws the dataset anew after an event."""
        mended = self.problems.select(self.mend, [self.pressed], [notice_], js=PRESSED, **SET_WORK)
        mended.then(None, None, None, js=DONE, **QUIET)
        redraw(mended)

    def follow(self, event: Dependency, sets: gr.Radio) -> None:
        """Let an event be followed by showing the problems of the chosen dataset, and the table's filters. event: has
        drawn the dataset. sets: the list of datasets."""
        findings = event.then(self.problems_and_filters, [sets], self.outputs, **LAST, **QUIET)
        findings.then(None, [self.filters], None, js=FOUND, **QUIET)

    def problems_and_filters(self, id: str) -> Updates:
        """Return the updates with a dataset's problems and the table's filters; nothing of either if it cannot be read.
        A version's report is computed once, at its first request."""
        try:
            report = self.services.datasets.report(id)
            may = self.services.datasets.get(id).origin == "imported"
        except GarageError:  # the head of the dataset shows the error
            return {self.column: gr.update(visible=False), self.problems: "", self.filters: None}
        findings, rows, unusable = report.findings, report.good_rows, report.rows - report.good_rows
        looked_at = findings[0].of if findings else rows
        lines = [*([self._unusable(unusable)] if unusable else []), *(self._line(each, id, may) for each in findings)]
        sampled = muted(self.w.t("wizard.rows_sampled", looked_at=looked_at, rows=rows)) if looked_at < rows else None
        none = muted(self.w.t("data_page.nothing_found"))
        undecided = notice(self.w.t("data_page.undecided"), "warn") if report.undecided else None
        title = tag("h2", self.w.t("data_page.found"))
        return {
            self.column: gr.update(visible=True),
            self.problems: join(
                [undecided, title, sampled, tag("ul", *lines, class_="lg-problems")]
                if lines
                else [undecided or none, sampled]
            ),
            self.filters: {"set": id, "filters": self._filters(findings, unusable, report.rows)},
        }

    def _filters(self, findings: Sequence[Finding], unusable: int, rows: int) -> list[tuple[str, str, str]]:
        """Return (kind, label, count) of the table's filters: all rows, the unusable ones, and those of each finding.
        unusable, rows: their numbers."""
        w = self.w
        kinds = [(each.id, w.t(f"data_page.kind_{each.id}"), grouped(w, each.count)) for each in findings if each.rows]
        problems = [(UNUSABLE, w.t("data_page.problems"), grouped(w, unusable))] if unusable else []
        return [(ALL, w.t("data_page.show_all"), grouped(w, rows)), *problems, *kinds]

    def _unusable(self, rows: int) -> Html:
        """Return the line about this number of rows that cannot be used, with a button that shows them."""
        show = tag("button", self.w.t("data_page.show_these"), type="button", data_show=UNUSABLE)
        text = tag("p", self.w.t("data_page.unusable", rows=rows))
        return tag("li", text, tag("span", show, class_="lg-problem-buttons"))

    def _line(self, finding: Finding, id: str, may: bool) -> Html:
        """Return a finding with its examples and at most BUTTONS repairs. id: of the dataset. may: it can be changed,
        else there are no repairs."""
        w = self.w
        fold = tag(
            "details",
            tag("summary", w.render(finding.message)),
            tag("p", w.render(finding.meaning)),
            tag("ul", *(tag("li", w.render(example.sentence)) for example in finding.examples[:QUOTED])),
            class_="lg-fold lg-found",
        )
        repairs = finding.repairs if may else ()
        if len(repairs) > BUTTONS:
            repairs = (*repairs[: BUTTONS - 1], repairs[-1])  # the last one removes the rows
        fills = any(repair.action == "fill" for repair in repairs)
        label = w.t("data_page.fill")
        field = tag("input", type="text", placeholder=label, aria_label=label) if fills else None
        buttons = (self._button(repair, id) for repair in repairs)
        return tag("li", fold, tag("span", field, *buttons, class_="lg-problem-buttons"))

    def _button(self, repair: Repair, id: str) -> Html:
        """Return the button that repairs the rows of the dataset `id`."""
        label = self.w.render(repair.label)
        mend = json.dumps([repair.kind, repair.action, repair.argument, id])
        return tag("button", label[:1].upper() + label[1:], type="button", class_="lg-repair", data_mend=mend)

    def mend(self, pressed: object) -> Update:
        """Carry out the repair of one button, in all rows that have that one kind of problem, as a new version of the
        dataset, and return the notice, of success or the error.

        pressed: five texts from the browser, namely the kind of problem, the repair's action and argument (Repair), the
        dataset's id, and the text that a fill puts in place of a placeholder. Anything else returns the warning that
        the button belongs to an earlier version of the dataset.
        """
        if not isinstance(pressed, list) or len(pressed) != 5 or not all(isinstance(each, str) for each in pressed):
            return shown(notice(self.w.t("data_page.stale"), "warn"))
        kind, action, argument, id, value = pressed
        filled = value if action == "fill" else ""
        try:
            change = working.repair_rows(self.services.datasets, id, kind, filled, argument, action)
        except GarageError as error:
            return shown(notice(self.w.render(error.message)))
        message = self.w.t("data_page.done", version=change.version, what=self.w.render(change.what))
        return shown(success(message))
