"""What the run doctor finds in a plan, beside the step of the form that it is about, each with its button."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from core.advice.finding import Finding
from core.data.preview import Preview
from core.data.selection import choose
from core.recipe import Recipe
from webui.form.fields import Answers, shown_value
from webui.kit.findings import told
from webui.kit.html import Html, join, notice
from webui.kit.live import QUIET, shown
from webui.kit.wording import Wording

if TYPE_CHECKING:
    from webui.form.form import Wizard

OTHER_DATA = """() => {
  document.querySelector('#data')?.scrollIntoView({block: 'center'});
  document.querySelector('#data input')?.focus({preventScroll: true});
}"""


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
