"""The offer of preference training in the data step, for rows that also have a worse answer or are marked good and
bad."""

from __future__ import annotations

from typing import Literal

import gradio as gr

from core.data.sets.inspection import DataReport
from core.errors import GarageError
from core.files import JsonObject
from core.recipe import OF_ONE_OBJECTIVE, OF_PREFERENCES, Train
from webui.form.handle import Components, FieldValues, Filled, Filling, FormHandle
from webui.form.planner import Form
from webui.form.reading.recipe_reading import choices_for
from webui.kit import format
from webui.kit.html import Html, join, tag
from webui.kit.live import QUIET, Updates
from webui.kit.panel import Panel

SETTING = "train.objective"
SETTINGS = [f"train.{name}" for name in OF_PREFERENCES]  # with those that depend on it
PLANNED_ANEW = [f"train.{name}" for name in OF_ONE_OBJECTIVE]
Kind = Literal["dpo", "kto"]
# Parts that a report lists as left out, and the objective that reads them.
READ_BY: dict[str, Kind] = {"left_out.why_worse": "dpo", "left_out.why_row": "kto"}


def kind_of(report: DataReport) -> Kind | None:
    """Return the objective that uses all answers of a dataset; None if each row has a single good one."""
    kinds = {READ_BY[left.why.key] for left in report.left_out if left.why.key in READ_BY}
    return "dpo" if "dpo" in kinds else "kto" if kinds else None


class Comparing(Panel):
    def build(self) -> None:
        with gr.Column(visible=False, elem_id="comparing") as self.column:
            self.text = gr.HTML("", elem_id="comparing-said")
            self.button = gr.Button("", size="sm", elem_id="comparing-choose", elem_classes="lg-remedy")

    @property
    def parts(self) -> Components:
        return {self.column, self.text, self.button}

    def draw(self, form: Form) -> Updates:
        """Return the updates of the offer's text and button (learn from the comparison, or from the better answers
        only); hidden unless the dataset has pairs or an objective for them is chosen."""
        kind, objective = self._kind(form), self._objective(form)
        if kind is None and not (objective and form.data):
            return {self.column: gr.update(visible=False), self.text: gr.skip(), self.button: gr.skip()}
        button = "comparing.better_only" if objective else f"comparing.choose_{kind}"
        return {
            self.column: gr.update(visible=True),
            self.text: self._sentences(kind, objective, form),
            self.button: gr.update(value=self.w.t(button)),
        }

    def _kind(self, form: Form) -> Kind | None:
        """Return how the dataset compares answers; None if it does not, none is chosen, or it cannot be read."""
        try:
            return kind_of(
                self.services.datasets.report(form.data, choices=choices_for(form.data, form.answers.reading))
            )
        except (GarageError, TypeError):  # no dataset is chosen, or invalid JSON from a browser
            return None

    @staticmethod
    def _objective(form: Form) -> str:
        """Return the chosen objective if it compares answers, else ""."""
        chosen = form.answers.explicit.get(SETTING)
        return chosen if isinstance(chosen, str) and chosen != Train().objective else ""

    def _sentences(self, kind: Kind | None, objective: str, form: Form) -> Html:
        """Return sentences on what is learned from the better and worse answers (or that the objective does not suit
        them), and from which model the training starts."""
        w = self.w
        if objective and kind != ("kto" if objective == "kto" else "dpo"):  # another dataset was chosen since
            return tag("p", w.t("comparing.unsuitable", objective=w.t(f"wizard.choice_{objective}")))
        used = [tag("strong", w.t(f"wizard.choice_{objective}")), ": ", w.t(f"comparing.used_{kind}")]
        parts = used if objective else [w.t(f"comparing.left_out_{kind}")]
        starts_from = self._starts_from(form, bool(objective))
        return join([tag("p", *parts), tag("p", starts_from) if starts_from else None])

    def _starts_from(self, form: Form, compares: bool) -> str:
        """Return a sentence about the weights that training starts from; "" if no other weights could be expected.

        After correcting the answers of a run, a person may expect that run's weights.
        """
        w = self.w
        if form.answers.parent:
            return w.t("comparing.from_run", name=self._name(form.answers.parent))
        base = format.model_name(form.model if isinstance(form.model, str) and form.model else "starter", w)
        corrected = self.services.datasets.get(form.data).corrects or ""
        if corrected.startswith("run:") and (name := self._name(corrected.removeprefix("run:"))):
            return w.t("comparing.from_base_not_run", model=base, name=name)
        return w.t("comparing.from_base", model=base) if compares else ""

    def _name(self, run: str) -> str:
        """Return the name of a run; "" if it is gone."""
        try:
            return self.services.runs.get(run).name
        except GarageError:
            return ""

    def switched(self, form: Form) -> JsonObject:
        """Return the person's settings for the other objective, without those that suit only the present one."""
        kind, compares = self._kind(form), bool(self._objective(form))
        dropped = {*PLANNED_ANEW, *(SETTINGS if compares else ())}
        settings = {name: value for name, value in form.answers.explicit.items() if name not in dropped}
        return settings | ({SETTING: kind} if kind and not compares else {})

    def wire(self, form: FormHandle) -> None:
        """Let the button switch the form's objective between comparing and the better answers only."""

        def fill(values: FieldValues) -> Filled:
            """Choose the objective that compares, or return to supervised training without its settings."""
            state = form.read(values)
            return Filling(answers={"explicit": self.switched(state)}), {}

        form.fill_on(self.button.click, fill, form.inputs, set(), **QUIET)
