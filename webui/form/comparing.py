"""The offer of another objective in the data step: preference training for rows that also have a worse answer or are
marked good and bad, training by rewards for rows whose answers a rule can judge."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import gradio as gr
from pydantic import ValidationError

from core.data.sample_sets import sample_of
from core.data.sets.inspection import DataReport
from core.data.tokenizer import conversation
from core.errors import GarageError, JudgeError, RecipeError
from core.files import JsonObject
from core.judges import weighted
from core.judges.propose import propose
from core.judges.specs import LabelJudge
from core.messages import msg
from core.recipe import OF_ONE_OBJECTIVE, OF_PREFERENCES, Train
from core.reward_settings import Rewards
from webui.form import judges_view
from webui.form.fields import REWARDS
from webui.form.handle import Components, FieldValues, Filled, Filling, FormHandle
from webui.form.planner import Form, FormResult
from webui.form.reading.recipe_reading import choices_for
from webui.kit import format
from webui.kit.html import Html, bar, join, muted, notice, tag
from webui.kit.live import CONTROL, QUIET, Updates
from webui.kit.panel import Panel
from webui.kit.wording import Wording
from webui.state.trying import TryingProgress

SETTING = "train.objective"
SETTINGS = [f"train.{name}" for name in OF_PREFERENCES]  # with those that depend on it
PLANNED_ANEW = [f"train.{name}" for name in OF_ONE_OBJECTIVE]
Kind = Literal["dpo", "kto", "grpo"]
JUDGED = ("choice", "json", "label", "number")  # rules that read the answer, rather than some of its words
MAX_JUDGED = 200  # answers that the proposal of a rule reads
MAX_SHOWN = 600  # characters of a question or an answer
TOKEN_BYTES = 3  # of UTF-8, at least, that a token of an answer stands for
# Parts that a report lists as left out, and the objective that reads them.
READ_BY: dict[str, Kind] = {"left_out.why_worse": "dpo", "left_out.why_row": "kto"}


def kind_of(report: DataReport) -> Kind | None:
    """Return the preference objective that can use a dataset's other answers: "dpo" if rows have a worse answer beside
    the good one, "kto" if answers are marked good or bad; None if each row has a single good answer."""
    kinds = {READ_BY[left.why.key] for left in report.left_out if left.why.key in READ_BY}
    return "dpo" if "dpo" in kinds else "kto" if kinds else None


class Comparing(Panel):
    """The offer of another objective in the data step: a text, the button that chooses the objective or returns to
    supervised training, and the button of a try, in which the model answers some questions before a training by
    rewards."""

    def build(self) -> None:
        """Build the offer, hidden: its text, the button that switches the objective, and the one that tries the
        model."""
        with gr.Column(visible=False, elem_id="comparing") as self.column:
            self.text = judges_view.component()
            self.button = gr.Button("", size="sm", elem_id="comparing-choose", elem_classes="lg-remedy")
            self.attempt = gr.Button("", size="sm", elem_id="comparing-try", elem_classes="lg-remedy")

    @property
    def parts(self) -> Components:
        """Return the components of the offer that `draw` updates."""
        return {self.column, self.text, self.button, self.attempt}

    def draw(self, form: Form) -> Updates:
        """Return the updates of the offer's text and buttons (another objective, or only the better answers; a try of
        the model before training by rewards); hidden unless the dataset suits one or one is chosen."""
        kind, objective = self._kind(form), self._objective(form)
        if kind is None and not (objective and form.data):
            return dict.fromkeys(self.parts, gr.update()) | {self.column: gr.update(visible=False)}
        back = "comparing.imitate" if objective == "grpo" else "comparing.better_only"
        button = back if objective else f"comparing.choose_{kind}"
        return {
            self.column: gr.update(visible=True),
            self.text: self._sentences(kind, objective, form),
            self.button: gr.update(value=self.w.t(button)),
            self.attempt: gr.update(visible=_is_by_rewards(kind, objective), value=self._attempt_label(form)),
        }

    def _attempt_label(self, form: Form) -> str:
        """Return the label of the button that tries the model, or ends the try of this form that is at work."""
        progress = self.services.trying.progress()
        is_at_work = progress.at_work and progress.key == self._key(form)
        return self.w.t("chat_page.stop" if is_at_work else "comparing.try")

    def _draw_judges(self, form: Form) -> Html:
        """Return the table of the chosen judges; "" if the dataset cannot be read."""
        try:
            return judges_view.drawn(form.answers.rewards, self._rewards(form), self._answers(form), self.w)
        except (GarageError, TypeError):
            return Html("")

    def _key(self, form: Form) -> str:
        """Return a text that changes with what a try depends on; "-" without a dataset."""
        reading = form.answers.reading
        with suppress(GarageError, TypeError):  # the dataset is gone, or invalid JSON from a browser
            own = [form.model, form.answers.parent, form.data, self.services.datasets.version(form.data)]
            own += [reading and reading.state(), form.answers.rewards or self._rewards(form)]
            return json.dumps(own, default=str)
        return "-"

    def _try(self, form: Form, result_of: Callable[[Form], FormResult]) -> None:
        """Start a try of the form's model, or stop the try that is at work if it belongs to this form. What prevents a
        start is shown as the try's error, unless another try is at work."""
        trying, key = self.services.trying, self._key(form)
        if trying.progress().at_work and trying.progress().key == key:
            return trying.stop()
        try:
            if not self._objective(form):
                form = replace(form, answers=replace(form.answers, explicit=self.switched(form)))
            result = result_of(form)
            if (why := result.problem or result.missing) or result.plan is None:
                return trying.refuse(key, why or msg("comparing.try_no_plan"))
            self.services.snapshots.refuse_while_in_use()
            trying.start(key, result.plan.recipe, form.answers.parent)
        except GarageError as error:
            trying.refuse(key, error.message)

    def _kind(self, form: Form) -> Kind | None:
        """Return the objective that the chosen dataset suits beside supervised training: "dpo", "kto" or "grpo"
        (rewards). None if there is no such objective, no dataset is chosen, or it cannot be read."""
        try:
            choices = choices_for(form.data, form.answers.reading)
            kind = kind_of(self.services.datasets.report(form.data, choices=choices))
            return kind or ("grpo" if self._rewards(form) else None)
        except (GarageError, TypeError):  # no dataset is chosen, or invalid JSON from a browser
            return None

    def _rewards(self, form: Form) -> JsonObject | None:
        """Return the proposed section of a recipe for training by rewards: that of a sample dataset, else the rule that
        can check the dataset's answers, with room for answers twice as long (at most 1,024 tokens). None if no rule
        can, as where only the answers' words could be compared. Raises DataError."""
        if (sample := sample_of(form.data)) and sample.rewards:
            return sample.rewards
        answers = self._answers(form)
        try:
            spec = propose(answers)
        except JudgeError:
            return None
        if spec.kind not in JUDGED or (isinstance(spec, LabelJudge) and len(spec.labels) < 2):
            return None
        longest = max(len(answer.encode("utf-8", "replace")) for answer in answers)
        return {
            "judges": [spec.model_dump(mode="json", exclude_defaults=True) | {"kind": spec.kind}],
            "max_completion_length": min(1024, 32 << (longest // TOKEN_BYTES // 16).bit_length()),
        }

    def _answers(self, form: Form) -> list[str]:
        """Return the last answer of each of the first MAX_JUDGED rows; rows of plain text among them are left out.
        Raises DataError."""
        rows = self.services.datasets.rows(form.data, choices=choices_for(form.data, form.answers.reading))
        examples = (rows[place][1] for place in range(min(MAX_JUDGED, len(rows))))
        return [str(conversation(one)[-1]["content"]) for one in examples if one.text is None]

    @staticmethod
    def _objective(form: Form) -> str:
        """Return the chosen objective if it is another than sft, else ""."""
        chosen = form.answers.explicit.get(SETTING)
        return chosen if isinstance(chosen, str) and chosen != Train().objective else ""

    def _sentences(self, kind: Kind | None, objective: str, form: Form) -> Html:
        """Return the text of the offer as HTML: what is learned from the better and worse answers, or that the chosen
        objective does not suit the dataset, and from which model the training starts.

        With training by rewards, chosen or offered: a sentence with its judges, their table once it is chosen, and the
        state of a try of this form.
        """
        w = self.w
        if _is_by_rewards(kind, objective):
            progress = self.services.trying.progress()
            return join([
                self._rewards_sentence(form, bool(objective)),
                self._draw_judges(form) if objective else None,
                trial_view(progress, w) if progress.key and progress.key == self._key(form) else None,
            ])  # fmt: skip
        if objective and kind != ("kto" if objective == "kto" else "dpo"):  # another dataset was chosen since
            return tag("p", w.t("comparing.unsuitable", objective=w.t(f"wizard.choice_{objective}")))
        used = [tag("strong", w.t(f"wizard.choice_{objective}")), ": ", w.t(f"comparing.used_{kind}")]
        parts = used if objective else [w.t(f"comparing.left_out_{kind}")]
        starts_from = self._starts_from(form, bool(objective))
        return join([tag("p", *parts), tag("p", starts_from) if starts_from else None])

    def _rewards_sentence(self, form: Form, is_chosen: bool) -> Html:
        """Return a sentence on training by rewards with the names of its judges; "" if its settings are invalid.
        is_chosen: the objective is chosen, not only offered."""
        w = self.w
        given = form.answers.rewards if is_chosen else self._rewards(form)
        try:
            rewards = Rewards.model_validate(given)
            names = ", ".join(w.t(f"judges.name_{each.judge.kind}") for each in weighted.read(rewards.judges))
        except (ValidationError, RecipeError):  # the plan says what is wrong
            return Html("")
        key = "comparing.used_grpo" if is_chosen else "comparing.offered_grpo"
        return tag("p", w.t(key, judges=names, count=rewards.num_generations))

    def _starts_from(self, form: Form, compares: bool) -> str:
        """Return a sentence about the weights that training starts from; "" if no other weights could be expected.
        compares: another objective is chosen.

        After correcting the answers of a run, a person may expect that run's weights.
        """
        w = self.w
        if form.answers.parent:
            return w.t("comparing.from_run", name=self._run_name(form.answers.parent))
        base = format.model_name(form.model if isinstance(form.model, str) and form.model else "starter")
        corrected = self.services.datasets.get(form.data).corrects or ""
        if corrected.startswith("run:") and (name := self._run_name(corrected.removeprefix("run:"))):
            return w.t("comparing.from_base_not_run", model=base, name=name)
        return w.t("comparing.from_base", model=base) if compares else ""

    def _run_name(self, run: str) -> str:
        """Return the name of a run; "" if it is gone."""
        try:
            return self.services.runs.get(run).name
        except GarageError:
            return ""

    def switched(self, form: Form) -> JsonObject:
        """Return the edited settings after a press of the button: with the offered objective, or without the chosen
        one. Those that suit only the objective before are left out."""
        kind, is_other = self._kind(form), bool(self._objective(form))
        dropped = {*PLANNED_ANEW, REWARDS, *(SETTINGS if is_other else ())}
        settings = {name: value for name, value in form.answers.explicit.items() if name not in dropped}
        if kind is None or is_other:
            return settings
        return settings | {SETTING: kind} | ({REWARDS: self._rewards(form)} if kind == "grpo" else {})

    def wire(self, form: FormHandle) -> None:
        """Let the buttons switch the form's objective, and start or stop a try."""

        def fill(values: FieldValues) -> Filled:
            """Fill in the other objective, as `switched` has it."""
            state = form.read(values)
            return Filling(answers={"explicit": self.switched(state)}), {}

        def attempt(values: FieldValues) -> Filled:
            """Start or stop a try; nothing of the form changes."""
            self._try(form.read(values), form.result_of)
            return None, {}

        form.fill_on(self.button.click, fill, form.inputs, set(), **QUIET)
        form.fill_on(self.attempt.click, attempt, form.inputs, set(), **CONTROL)


def _is_by_rewards(kind: Kind | None, objective: str) -> bool:
    """Return whether training by rewards is chosen, or offered while no objective is."""
    return "grpo" in (objective, kind) and objective in ("", "grpo")


def trial_view(progress: TryingProgress, w: Wording) -> Html:
    """Return the progress of a try, its error, or its result: the verdict, the shares of questions, and the best
    answer; "" before any."""
    if progress.at_work:
        sentence = w.t("stage.loading_model")
        if progress.total:
            sentence = w.t("evaluation_view.answers", done=progress.done, total=progress.total)
        percent = round(100 * progress.done / progress.total) if progress.total else None
        return join([muted(sentence), bar(sentence, percent)])
    if progress.error:
        return notice(w.render(progress.error), "warn")
    if (trial := progress.trial) is None:
        return Html("")
    tone = "ok" if trial.can_learn else "warn"
    facts = trial.model_dump(include={"questions", "answers", "wrong", "right", "mixed"})
    return tag(
        "div",
        notice(w.render(trial.verdict()), tone),
        muted(w.t("comparing.tried", percent=100 * trial.reward, **facts)),
        tag("p", trial.question[:MAX_SHOWN], class_="jd-question", dir="auto"),
        tag("p", trial.best[:MAX_SHOWN], class_="jd-answer", dir="auto"),
        id="comparing-tried",
    )
