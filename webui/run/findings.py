"""The run doctor's findings about a run, with their buttons, beside its card.

Each finding is computed again on the server when its button is pressed: nothing of it comes from the browser.
"""

from __future__ import annotations

from collections.abc import Callable

import gradio as gr
from gradio.components import Component

from core.advice.diagnosis import applied
from core.errors import GarageError
from core.runs import further
from webui.form.handle import FieldValues, Filled, FormHandle
from webui.kit.findings import finding_card
from webui.kit.html import notice
from webui.kit.live import CONTROL, QUIET, SHOW_FORM, LivePart, Update, ViewContext, shown
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import RunView


class RunFinding:
    """The finding about the run that is shown, beside its card. name: for element ids. view: returns that run for a
    ViewContext."""

    def __init__(self, services: Services, wording: Wording, name: str, view: Callable[[ViewContext], RunView | None]):
        self.services, self.w, self.name, self.view = services, wording, name, view

    def build(self) -> None:
        self.text = gr.HTML("", visible=False, elem_id=f"{self.name}-finding")
        self.button = gr.Button("", visible=False, size="sm", elem_id=f"{self.name}-remedy", elem_classes="lg-remedy")

    def parts(self) -> list[LivePart]:
        return [LivePart(self.text, self._text_update), LivePart(self.button, self._button)]

    def _text_update(self, context: ViewContext) -> Update:
        """Return the update that shows the doctor's first finding about the run; hidden without one."""
        finding = self.services.diagnoses.diagnose(self.view(context))
        return shown(finding_card(finding, self.w) if finding else "")

    def _button(self, context: ViewContext) -> Update:
        """Return the update of the button that names the finding's remedy; hidden without a finding."""
        finding = self.services.diagnoses.diagnose(self.view(context))
        return gr.update(visible=True, value=self.w.render(finding.remedy)) if finding else gr.update(visible=False)

    def wire(self, form: FormHandle, opened: Component | None, tabs: gr.Tabs, message: gr.HTML) -> None:
        """Let the button carry out the finding's remedy: stop the run, or fill the form and show it. opened: the id of
        the run; None for the one that the Train page shows. message: the place of an error."""

        def fill_from_finding(values: FieldValues) -> Filled:
            """Stop the opened run, or the one that Train shows, if the finding requires that, and fill the form with
            its settings and the finding's changes, if it has any."""
            shown_now = self.services.snapshots.now(fresh=True).shown
            run_id = values[opened] if opened is not None else shown_now.row.id if shown_now else None
            return self._fill(form, self.services.snapshots.view(run_id), tabs, message)

        filled = form.fill_on(
            self.button.click, fill_from_finding, {opened} if opened is not None else set(), {message, tabs}, **CONTROL
        )
        filled.then(None, None, None, js=SHOW_FORM, **QUIET)

    def _fill(self, form: FormHandle, view: RunView | None, tabs: gr.Tabs, message: gr.HTML) -> Filled:
        """Stop the run if the finding says so, and return the form filled with its recipe and the finding's changes;
        unfilled without a finding or changes, with a notice if that fails."""
        finding = self.services.diagnoses.diagnose(view)
        if finding is None or view is None or view.recipe is None:
            return None, {message: shown("")}
        try:
            if finding.action == "stop":
                self.services.supervisor.stop(self.services.runs.get(view.row.id))
            if not finding.fix:
                return None, {message: shown("")}
            recipe = applied(view.recipe, finding).model_copy(update={"name": view.row.name})
            filling, updates = form.filling(recipe, view.row.name, parent=self._parent(view))
        except GarageError as error:
            return None, {message: shown(notice(self.w.render(error.message)))}
        return filling, {message: shown(""), tabs: gr.update(selected="train"), **updates}

    def _parent(self, view: RunView) -> str | None:
        """Return the id of the run that this one continued, if it can still be continued, else None: the new run begins
        where this one began."""
        try:
            run = self.services.runs.get(view.facts.parent.run if view.facts.parent else "")
            further.check(run)
        except GarageError:
            return None
        return run.id
