"""The run doctor's findings with their buttons: for a plan in its steps of the form, for a run beside its card.

Each finding is worked out anew on the server when its button is pressed: nothing of it comes from the browser.
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
    """Of the run that is shown, beside its card. name: for ids. view(look): which run that is."""

    def __init__(self, services: Services, wording: Wording, name: str, view: Callable[[ViewContext], RunView | None]):
        self.services, self.w, self.name, self.view = services, wording, name, view

    def build(self) -> None:
        self.said = gr.HTML("", visible=False, elem_id=f"{self.name}-finding")
        self.button = gr.Button("", visible=False, size="sm", elem_id=f"{self.name}-remedy", elem_classes="lg-remedy")

    def parts(self) -> list[LivePart]:
        return [LivePart(self.said, self._said), LivePart(self.button, self._button)]

    def _said(self, context: ViewContext) -> Update:
        found = self.services.diagnoses.diagnose(self.view(context))
        return shown(finding_card(found, self.w) if found else "")

    def _button(self, context: ViewContext) -> Update:
        found = self.services.diagnoses.diagnose(self.view(context))
        return gr.update(visible=True, value=self.w.render(found.remedy)) if found else gr.update(visible=False)

    def wire(self, form: FormHandle, opened: Component | None, tabs: gr.Tabs, said: gr.HTML) -> None:
        """opened: the run that is meant; None: the one that the Train page shows. said: where a refusal is told."""

        def take(given: FieldValues) -> Filled:
            shown_now = self.services.snapshots.now(fresh=True).shown
            run_id = given[opened] if opened is not None else shown_now.row.id if shown_now else None
            return self._take(form, self.services.snapshots.view(run_id), tabs, said)

        taken = form.fill_on(
            self.button.click, take, {opened} if opened is not None else set(), {said, tabs}, **CONTROL
        )
        taken.then(None, None, None, js=SHOW_FORM, **QUIET)

    def _take(self, form: FormHandle, view: RunView | None, tabs: gr.Tabs, said: gr.HTML) -> Filled:
        found = self.services.diagnoses.diagnose(view)
        if found is None or view is None or view.recipe is None:
            return None, {said: shown("")}
        try:
            if found.action == "stop":
                self.services.supervisor.stop(self.services.runs.get(view.row.id))
            if not found.fix:
                return None, {said: shown("")}
            recipe = applied(view.recipe, found).model_copy(update={"name": further.next_name(view.row.name)})
            filling, updates = form.filling(recipe, view.row.name, parent=self._parent(view))
        except GarageError as error:
            return None, {said: shown(notice(self.w.render(error.message)))}
        return filling, {said: shown(""), tabs: gr.update(selected="train"), **updates}

    def _parent(self, view: RunView) -> str | None:
        """The run that this one had continued, where it can still be continued: the new one begins where this one
        began."""
        try:
            run = self.services.runs.get(view.facts.parent.run if view.facts.parent else "")
            further.check(run)
        except GarageError:
            return None
        return run.id
