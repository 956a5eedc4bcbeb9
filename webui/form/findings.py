"""The run doctor's findings about a plan, each in its step of the form with its button."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from core.advice.diagnosis import Diagnosis
from core.data.preview import Preview
from core.data.repeats import needs_repeats
from core.data.selection import choose
from core.data.sets.inspection import DataReport
from core.recipe import Recipe
from webui.form.fields import key_of, shown_value
from webui.form.handle import FieldValues, Fill, Filled, Filling, FormHandle
from webui.kit.findings import finding_card
from webui.kit.html import Html, join, notice, tag
from webui.kit.live import QUIET, Updates, shown
from webui.kit.wording import Wording

# Scripts of the buttons of findings that no setting can fix.
WITHOUT_FIX = {
    "few_rows": """() => {
  document.querySelector('#data')?.scrollIntoView({block: 'center'});
  document.querySelector('#data input')?.focus({preventScroll: true});
}""",
    "other_language": "() => loraGarageStart.open('model', '#shelf-words')",
}


def left_out(recipe: Recipe, preview: Preview, w: Wording) -> Html:
    """Return notices on how many repeated and leaked rows the recipe leaves out; "" if none or it has no such
    setting."""
    repeats, data = preview.repeats, recipe.data
    if repeats is None or not needs_repeats(data):
        return Html("")
    chosen = choose(len(repeats), recipe, repeats, preview.validation, preview.paragraphs)
    sentences = []
    if chosen.repeated:
        sentences.append(w.t("run.rows_repeated", rows=chosen.repeated, all=len(repeats)))
    if chosen.leaked:
        sentences.append(w.t("run.rows_leaked", rows=chosen.leaked, measured=len(chosen.measuring)))
    return join(notice(sentence, "ok") for sentence in sentences)


def in_rows(report: DataReport, w: Wording) -> list[Html]:
    """Return the findings about the dataset as a whole, each folded with examples of its rows; [] without any."""
    if not report.findings:
        return []
    looked_at = report.findings[0].of
    sampled = [tag("p", w.t("wizard.rows_sampled", looked_at=looked_at, rows=report.good_rows), class_="lg-quiet")]
    return [
        tag("p", tag("strong", w.t("wizard.found_in_rows", count=len(report.findings)))),
        *(sampled if looked_at < report.good_rows else []),
        *(
            tag(
                "details",
                tag("summary", w.render(finding.message)),
                tag("p", w.render(finding.meaning)),
                tag("ul", *(tag("li", w.render(example.sentence)) for example in finding.examples)),
                class_="lg-fold lg-found",
                id=f"found-{finding.id}",
            )
            for finding in report.findings
        ),
    ]


class PlanFindings:
    """The findings of the rules with these ids, in one step of the form."""

    def __init__(self, wording: Wording, ids: tuple[str, ...]):
        """Keep the wording and the ids of the rules; nothing is drawn yet."""
        self.w, self.ids = wording, ids

    def build(self) -> None:
        """Build a hidden text and button for each finding."""
        self.texts: dict[str, gr.HTML] = {}
        self.buttons: dict[str, gr.Button] = {}
        for name in self.ids:
            self.texts[name] = gr.HTML("", visible=False, elem_id=f"finding-{name}")
            self.buttons[name] = gr.Button(
                "", visible=False, size="sm", elem_id=f"remedy-{name}", elem_classes="lg-remedy"
            )

    def draw(self, findings: Sequence[Diagnosis]) -> Updates:
        """Return the updates that show the present findings with their buttons, and hide the others."""
        by_id: dict[str, Diagnosis] = {finding.id: finding for finding in findings}
        updates: Updates = {}
        for name in self.ids:
            finding = by_id.get(name)
            updates[self.texts[name]] = shown(finding_card(finding, self.w) if finding else "")
            updates[self.buttons[name]] = (
                gr.update(visible=True, value=self.w.render(finding.remedy)) if finding else gr.update(visible=False)
            )
        return updates

    def wire(self, form: FormHandle) -> None:
        """Let each button fill in its finding's changes, or run its script of WITHOUT_FIX."""
        for name, button in self.buttons.items():
            if name in WITHOUT_FIX:
                button.click(None, None, None, js=WITHOUT_FIX[name], **QUIET)
            else:
                form.fill_on(button.click, self._fill(form, name), form.inputs, set(), **QUIET)

    def _fill(self, form: FormHandle, name: str) -> Fill:
        """Return a function that fills the form with the finding's changes, as edited settings, if the finding still
        stands."""

        def fill(values: FieldValues) -> Filled:
            """Fill in the settings that the finding's fix names; nothing if it is gone."""
            state = form.read(values)
            finding = next((finding for finding in form.result_of(state).findings if finding.id == name), None)
            if finding is None:
                return None, {}
            changes = {key: shown_value(key_of(key), value) for key, value in finding.fix.items()}
            return Filling(answers={"explicit": {**state.answers.explicit, **changes}}), {}

        return fill
