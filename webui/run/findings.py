"""What the run doctor says, with its button: of the form's plan in the steps that it is about, of a run beside its card.

Each finding is worked out anew on the server when its button is pressed: nothing of it comes from the browser.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.advice import run_doctor
from core.advice.run_doctor import Finding
from core.data.preview import Preview
from core.errors import GarageError
from core.recipe import Recipe
from core.runs import further
from core.training.rows import choose
from webui.form.fields import Answers, shown_value
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import CONTROL, LivePart, Look, Update, shown
from webui.kit.wording import Wording
from webui.state.moment import RunView
from webui.state.services import Services

if TYPE_CHECKING:
    from webui.form.form import Wizard

QUIET = {"show_progress": "hidden", "api_visibility": "private"}
OTHER_DATA = """() => {
  document.querySelector('#data')?.scrollIntoView({block: 'center'});
  document.querySelector('#data input')?.focus({preventScroll: true});
}"""


def told(finding: Finding, w: Wording) -> Html:
    return tag(
        "div",
        tag("p", tag("strong", w.t(f"findings_view.title_{finding.id}")), " ", w.of(finding.evidence)),
        tag("p", w.of(finding.meaning)),
        class_="lg-notice lg-warn lg-finding",
        role="status",
    )


def counted(findings: Sequence[Finding], ids: Sequence[str], w: Wording) -> str:
    """For a folded step's line; "" where nothing was found there."""
    count = sum(finding.id in ids for finding in findings)
    return w.t("findings_view.count", count=count) if count else ""


def left_out(recipe: Recipe, preview: Preview, w: Wording) -> Html:
    """The rows that a remedy leaves out, as long as it does."""
    repeats, data = preview.repeats, recipe.data
    if repeats is None or not (data.deduplicate or data.drop_leaked):
        return Html("")
    chosen = choose(len(repeats), recipe, repeats)
    said = []
    if chosen.repeated:
        said.append(w.t("run.rows_repeated", rows=chosen.repeated, all=len(repeats)))
    if chosen.leaked:
        said.append(w.t("run.rows_leaked", rows=chosen.leaked, measured=len(chosen.measuring)))
    return join(notice(sentence, "ok") for sentence in said)


class PlanFindings:
    """Of some rules, in one step of the form."""

    def __init__(self, wording: Wording, ids: tuple[str, ...]):
        self.w, self.ids = wording, ids

    def build(self) -> None:
        self.said: dict[str, gr.HTML] = {}
        self.buttons: dict[str, gr.Button] = {}
        for name in self.ids:
            self.said[name] = gr.HTML("", visible=False, elem_id=f"finding-{name}")
            self.buttons[name] = gr.Button("", visible=False, size="sm", elem_id=f"remedy-{name}", elem_classes="lg-remedy")

    @property
    def drawn(self) -> list[Any]:
        return [part for name in self.ids for part in (self.said[name], self.buttons[name])]

    def draw(self, findings: Sequence[Finding]) -> list[Any]:
        """For every redraw of the form, in the order of drawn."""
        by_id = {finding.id: finding for finding in findings}
        updates = []
        for name in self.ids:
            found = by_id.get(name)
            updates.append(shown(told(found, self.w) if found else ""))
            updates.append(gr.update(visible=True, value=self.w.of(found.remedy)) if found else gr.update(visible=False))
        return updates

    def wire(self, wizard: Wizard) -> None:
        for name, button in self.buttons.items():
            if name == "few_rows":
                button.click(None, None, None, js=OTHER_DATA, **QUIET)
            else:
                wizard._then_redraw(button.click(self._take(wizard, name), wizard._form, [wizard.state], **QUIET))

    def _take(self, wizard: Wizard, name: str) -> Callable[..., Any]:
        def take(*answers: Any) -> Any:
            """Inputs: the form. Outputs: state, with what the remedy changes as an answer of the person."""
            form, _ = wizard._read(answers)
            found = next((finding for finding in wizard.planner.look(form, self.w).findings if finding.id == name), None)
            if found is None:
                return gr.skip()
            changes = {key: shown_value(tuple(key.split(".")), value) for key, value in found.fix.items()}
            current = form.answers
            return Answers({**current.explicit, **changes}, current.shown, current.parent).state()

        return take


class RunFinding:
    """Of the run that is shown, beside its card. name: for ids. view(look): which run that is."""

    def __init__(self, services: Services, wording: Wording, name: str, view: Callable[[Look], RunView | None]):
        self.services, self.w, self.name, self.view = services, wording, name, view

    def build(self) -> None:
        self.said = gr.HTML("", visible=False, elem_id=f"{self.name}-finding")
        self.button = gr.Button("", visible=False, size="sm", elem_id=f"{self.name}-remedy", elem_classes="lg-remedy")

    def parts(self) -> list[LivePart]:
        return [LivePart(self.said, self._said), LivePart(self.button, self._button)]

    def _said(self, look: Look) -> Update:
        found = self.services.diagnoses.of(self.view(look))
        return shown(told(found, self.w) if found else "")

    def _button(self, look: Look) -> Update:
        found = self.services.diagnoses.of(self.view(look))
        return gr.update(visible=True, value=self.w.of(found.remedy)) if found else gr.update(visible=False)

    def wire(self, wizard: Wizard, opened: gr.State | None, tabs: gr.Tabs, said: gr.HTML) -> None:
        """opened: the run that is meant; None: the one that the Train page shows. said: where a refusal is told."""
        outputs = [said, tabs, *wizard._filled, wizard.goal_step.notice]

        def take(run_id: str | None = None) -> list[Any]:
            """Inputs: opened. Outputs: notice, tabs (Train), what a recipe fills, fill notice."""
            shown_now = self.services.moments.now(fresh=True).shown
            view = self.services.moments.view(run_id if opened else shown_now.row.id if shown_now else None)
            return self._take(wizard, view)

        wizard._then_redraw(self.button.click(take, [opened] if opened else None, outputs, **CONTROL))

    def _take(self, wizard: Wizard, view: RunView | None) -> list[Any]:
        found = self.services.diagnoses.of(view)
        if found is None or view is None or view.recipe is None:
            return [shown(""), gr.skip(), *wizard._unfilled("")]
        try:
            if found.action == "stop":
                self.services.supervisor.stop(self.services.runs.get(view.row.id))
            if not found.fix:
                return [shown(""), gr.skip(), *wizard._unfilled("")]
            recipe = run_doctor.applied(view.recipe, found).model_copy(update={"name": further.next_name(view.row.name)})
            filled = wizard._fill(recipe, view.row.name, parent=self._parent(view))
        except GarageError as error:
            return [shown(notice(self.w.of(error.text))), gr.skip(), *wizard._unfilled("")]
        return [shown(""), gr.update(selected="train"), *filled]

    def _parent(self, view: RunView) -> str | None:
        """The run that this one had continued, where it can still be continued: the new one begins where this one began."""
        parent = view.facts.get("parent")
        try:
            run = self.services.runs.get(str(parent.get("run")) if isinstance(parent, dict) else "")
            further.check(run)
        except GarageError:
            return None
        return run.id
