"""Train further: a button fills the form with an ended run's settings; a line above the form says so, and undoes it.

The run that is continued travels with the form's answers, as every other answer does; the server checks it each time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr

from core.errors import GarageError
from core.runs import further
from webui.form.fields import Answers
from webui.kit.html import Html, notice, tag
from webui.kit.live import CONTROL, QUIET, shown
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import RunRow

if TYPE_CHECKING:
    from webui.form.form import Wizard

SHOW = "() => setTimeout(() => document.querySelector('#further')?.scrollIntoView({block: 'center'}), 150)"


def may_continue(row: RunRow | None) -> bool:
    return bool(row and further.may_continue(row.status.state) and row.status.has_adapter)


class FurtherForm:
    def __init__(self, services: Services, wording: Wording, wizard: Wizard):
        self.services, self.w, self.wizard = services, wording, wizard

    def build(self) -> None:
        with gr.Column(visible=False, elem_id="further", elem_classes="lg-card") as self.column:
            self.said = gr.HTML("", elem_id="further-said")
            self.undo = gr.Button(self.w.t("look_on.undo"), size="sm", elem_id="further-undo")

    @property
    def drawn(self) -> list[Any]:
        return [self.column, self.said]

    def draw(self, answers: Answers) -> list[Any]:
        """For every redraw of the form: column, said."""
        if not answers.parent:
            return [gr.update(visible=False), ""]
        return [gr.update(visible=True), self._about(answers.parent)]

    def _about(self, run_id: str) -> Html:
        try:
            run = self.services.runs.get(run_id)
            step = run.status().step
        except GarageError as error:
            return notice(self.w.of(error.message))
        return tag("p", self.w.t("look_on.continues", name=run.name, step=step), role="status")

    def wire(self) -> None:
        self.wizard._then_redraw(self.undo.click(self.forget, [self.wizard.state], [self.wizard.state], **QUIET))

    def wire_button(self, button: gr.Button, opened: gr.State | None, tabs: gr.Tabs, said: gr.HTML) -> None:
        """opened: the run that is meant; None: the one that the Train page shows. said: where a refusal is told."""
        outputs = [said, tabs, *self.wizard._filled, self.wizard.goal_step.notice]
        taken = button.click(self.take if opened else self.take_shown, [opened] if opened else None, outputs, **CONTROL)
        self.wizard._then_redraw(taken).then(None, None, None, js=SHOW, **QUIET)

    def take_shown(self) -> list[Any]:
        """Outputs: as take."""
        view = self.services.snapshots.now(fresh=True).shown
        return self.take(view.row.id if view else None)

    def take(self, run_id: str | None) -> list[Any]:
        """Inputs: opened. Outputs: notice, tabs (Train), what a recipe fills, fill notice."""
        try:
            run = self.services.runs.get(run_id or "")
            filled = self.wizard._fill(further.recipe_of(run), run.name, parent=run.id)
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), gr.skip(), *self.wizard._unfilled("")]
        return [shown(""), gr.update(selected="train"), *filled]

    def after_start(self, state: Any, refused: Any) -> Any:
        """Inputs: state, start_notice. Outputs: state: once its run has begun, the form continues nothing any more."""
        return gr.skip() if refused else self.forget(state)

    def forget(self, state: Any) -> dict[str, Any]:
        """Inputs: state. Outputs: state, without a run to continue."""
        answers = Answers.of_state(state)
        return Answers(answers.explicit, answers.shown).state()
