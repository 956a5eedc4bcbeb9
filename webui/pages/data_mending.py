"""Problems in the rows of a dataset, each with the button that repairs every row; undo and redo of versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from core.data.findings.finding import Finding, Repair
from core.data.sets import working
from core.data.sets.edits import Change
from core.errors import GarageError
from webui.kit.format import grouped
from webui.kit.html import Html, join, muted, notice, tag
from webui.kit.live import SET_WORK, Update, shown
from webui.kit.panel import Panel

BUTTONS = 6  # what else can be mended is offered when these were
QUOTED = 3
ALL, PROBLEMS = "all", "problems"  # rows to show; else those with a kind of finding


class Mending(Panel):
    def build(self) -> None:
        w = self.w
        self.offered = gr.JSON([], visible=False)  # [kind, action, argument, set] of each button, as it was on screen
        with gr.Column(visible=False, elem_id="data-mending", elem_classes="lg-card") as self.column:
            gr.HTML(tag("h2", w.t("data_page.found")))
            self.said = gr.HTML("", elem_id="data-found")
            self.value = gr.Textbox(visible=False, max_lines=1, **w.named("data_page.fill", "data-fill"))
            self.buttons = [
                gr.Button("", visible=False, size="sm", elem_id=f"data-mend-{i}", elem_classes="lg-remedy")
                for i in range(BUTTONS)
            ]

    def build_filter(self) -> None:
        """Beside the rows: all of them, those that cannot be learned from, or those that have what was found."""
        self.show = gr.Radio(self._filters((), 0), value=ALL, **self.w.named("data_page.show", "data-show"))

    def _filters(self, found: Sequence[Finding], unusable: int) -> list[tuple[str, str]]:
        """unusable: rows that cannot be learned from."""
        w = self.w
        problems = [(f"{w.t('data_page.problems')} ({grouped(w, unusable)})", PROBLEMS)] if unusable else []
        kinds = [
            (f"{w.t(f'data_page.kind_{finding.id}')} ({grouped(w, finding.count)})", finding.id)
            for finding in found
            if finding.rows
        ]
        return [(w.t("data_page.show_all"), ALL), *problems, *kinds]

    def rows_with(self, id: str, kind: Any) -> set[int] | None:
        """Numbers of the rows that have what was found; None where nothing of that kind is in the set (any more).
        Raises DataError."""
        if kind in (ALL, PROBLEMS):
            return None
        return next(
            (finding.rows for finding in self.services.datasets.report(id).findings if finding.id == kind), None
        )

    @property
    def outputs(self) -> list[Any]:
        return [self.offered, self.column, self.said, self.value, self.show, *self.buttons]

    def wire(self, chosen: gr.Radio, notice_: gr.HTML, redraw: Callable[[Any], Any]) -> None:
        for number, button in enumerate(self.buttons):
            redraw(button.click(self._mend(number), [chosen, self.offered, self.value], [notice_], **SET_WORK))

    def look(self, id: Any) -> list[Any]:
        """Inputs: sets. Outputs: outputs. The report of a version is made once, when it is first asked for."""
        hidden = [gr.update(visible=False)] * BUTTONS
        try:
            report = self.services.datasets.report(id)
            may = self.services.datasets.get(id).origin == "imported"
        except GarageError:  # said above already, by the head of the set
            return [
                [],
                gr.update(visible=False),
                "",
                gr.update(visible=False),
                gr.update(choices=self._filters((), 0)),
                *hidden,
            ]
        found, rows, unusable = report.findings, report.good_rows, report.rows - report.good_rows
        looked_at = found[0].of if found else rows
        repairs = [repair for finding in found for repair in finding.repairs][:BUTTONS] if may else []
        buttons = [gr.update(visible=True, value=self._label(repair)) for repair in repairs]
        sampled = [muted(self.w.t("wizard.rows_sampled", looked_at=looked_at, rows=rows))] if looked_at < rows else []
        left_out = [tag("p", self.w.t("data_page.unusable", rows=unusable))] if unusable else []
        told = [*left_out, *sampled, *map(self._told, found)]
        return [
            [[repair.kind, repair.action, repair.argument, id] for repair in repairs],
            gr.update(visible=True),
            join(told) if told else muted(self.w.t("data_page.nothing_found")),
            gr.update(visible=any(repair.action == "fill" for repair in repairs)),
            gr.update(choices=self._filters(found, unusable)),
            *buttons,
            *hidden[len(buttons) :],
        ]

    def _label(self, repair: Repair) -> str:
        return self.w.t("data_page.mend", what=self.w.t(f"data_page.kind_{repair.kind}"), how=self.w.of(repair.label))

    def _told(self, finding: Finding) -> Html:
        w = self.w
        return tag(
            "details",
            tag("summary", w.of(finding.said)),
            tag("p", w.of(finding.meaning)),
            tag("ul", *(tag("li", w.of(seen.said)) for seen in finding.examples[:QUOTED])),
            class_="lg-fold lg-found",
        )

    def _mend(self, number: int) -> Callable[..., Update]:
        def mend(id: Any, offered: Any, value: Any) -> Update:
            """Inputs: sets, offered, value. Outputs: notice."""
            chosen = offered[number] if isinstance(offered, list) and number < len(offered) else None
            if not isinstance(chosen, list) or len(chosen) != 4 or chosen[3] != id:  # of the set before
                return shown(notice(self.w.t("data_page.stale"), "warn"))
            kind, action, argument, _ = chosen
            filled = str(value or "") if action == "fill" else ""
            return self.told(lambda: working.mended(self.services.datasets, id, kind, filled, argument, action))

        return mend

    # ---- back and forth -------------------------------------------------------------------------------------------
    def undo(self, id: Any) -> Update:
        """Inputs: sets. Outputs: notice."""
        return self.told(
            lambda: self._go(id, back=True), lambda change: self.w.t("data_page.undone", what=self.w.of(change.what))
        )

    def redo(self, id: Any) -> Update:
        """Inputs: sets. Outputs: notice."""
        return self.told(lambda: self._go(id, back=False))

    def _go(self, id: Any, back: bool) -> Change:
        with self.services.datasets.editing(id) as (edits, _):
            return edits.undo() if back else edits.redo()

    def told(self, act: Callable[[], Change], words: Callable[[Change], str] | None = None) -> Update:
        try:
            change = act()
        except GarageError as error:
            return shown(notice(self.w.of(error.message)))
        said = (
            words(change) if words else self.w.t("data_page.done", version=change.version, what=self.w.of(change.what))
        )
        return shown(notice(said, "ok"))
