"""Train further: a button fills the form with a finished run's settings; a line above the form shows the run and undoes
it.

The id of the continued run is part of the form's answers; the server checks it each time.
"""

from __future__ import annotations

import gradio as gr
from gradio.components import Component

from core.errors import GarageError
from core.messages import Message
from core.runs import further
from webui.form.fields import FormAnswers
from webui.form.handle import FieldValues, Filled, FormHandle
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import CONTROL, QUIET, SHOW_FORM, SHOW_FURTHER, Updates, shown
from webui.kit.panel import Panel
from webui.state.snapshot import RunRow

UNDO = "() => { loraGarageForm.undo(); loraGarageForm.look(); }"


def may_continue(row: RunRow | None) -> bool:
    """True for a completed or stopped run with an adapter."""
    return bool(row and further.may_be_parent(row.status.state) and row.status.has_adapter)


class FurtherForm(Panel):
    """The line above the form about the run to train further."""

    def build(self) -> None:
        with gr.Column(visible=False, elem_id="further", elem_classes="lg-card") as self.column:
            self.text = gr.HTML("", elem_id="further-message")
            self.undo = gr.Button(self.w.t("further_card.undo"), size="sm", elem_id="further-undo")

    def draw(self, answers: FormAnswers, problem: Message | None = None) -> Updates:
        """Return the updates of the line above the form; hidden if no run is continued. problem: why the form cannot
        start; shown here if the base differs from the run's."""
        if not answers.parent:
            return {self.column: gr.update(visible=False), self.text: ""}
        about = self._about(answers.parent)
        if problem is not None and problem.key == "further_card.other_base":
            about = join([about, notice(self.w.render(problem))])
        return {self.column: gr.update(visible=True), self.text: about}

    def _about(self, run_id: str) -> Html:
        """Return a sentence on which run is continued, and from which step; the error if it is gone."""
        try:
            run = self.services.runs.get(run_id)
            step = run.status().step
        except GarageError as error:
            return notice(self.w.render(error.message))
        return tag("p", self.w.t("further_card.continues", name=run.name, step=step), role="status")

    def wire(self) -> None:
        """Connect the line's button, after which the form continues no run; its settings stay."""
        self.undo.click(None, None, None, js=UNDO, **QUIET)

    def wire_button(
        self,
        form: FormHandle,
        button: gr.Button,
        opened: Component | None,
        tabs: gr.Tabs,
        message: gr.HTML,
        anew: bool = False,
    ) -> None:
        """Let button fill the form from a run and open it. opened: the run to continue; None for the one that the Train
        page shows. message: the place of an error. anew: use the same settings from the base model instead."""

        def fill(values: FieldValues) -> Filled:
            """Fill the form with the settings of the opened run, or of the one that Train shows: to continue it, or
            (anew) to train again from its base."""
            if opened is not None:
                return self.fill(form, values[opened], tabs, message, anew)
            view = self.services.snapshots.now(fresh=True).shown
            return self.fill(form, view.row.id if view else None, tabs, message, anew)

        filled = form.fill_on(button.click, fill, {opened} if opened is not None else set(), {message, tabs}, **CONTROL)
        filled.then(None, None, None, js=SHOW_FORM if anew else SHOW_FURTHER, **QUIET)

    def fill(self, form: FormHandle, run_id: str | None, tabs: gr.Tabs, message: gr.HTML, anew: bool = False) -> Filled:
        """Return the form with the settings of a run, and Train opened: to continue the run under its next name, or
        (anew) to train from its base under the same name. If that is not possible, no filling, and the reason in
        `message`."""
        try:
            run = self.services.runs.get(run_id or "")
            recipe = run.recipe().model_copy(update={"name": run.name}) if anew else further.recipe_of(run)
            filling, updates = form.filling(recipe, run.name, parent=None if anew else run.id)
        except GarageError as error:
            return None, {message: shown(notice(self.w.render(error.message)))}
        return filling, {message: shown(""), tabs: gr.update(selected="train"), **updates}
