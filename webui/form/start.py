"""The last step, with the run's name and start time, and the Start button of the bar."""

from __future__ import annotations

import time
from collections.abc import Mapping

import gradio as gr
from gradio.components import Component

from core.advice.plan import Plan, submit
from core.errors import BusyError, GarageError
from core.files import JsonObject
from core.messages import Message
from core.queue.queue import time_of_day
from core.runs.folder import RunFolder
from webui.form.handle import FieldValues, Fill, Filled, Filling, FormHandle
from webui.form.planner import Form, FormResult, Planner, parent_of
from webui.kit.format import at_time
from webui.kit.html import Html, notice, success, tag
from webui.kit.live import Update, Updates, shown
from webui.kit.wording import Wording
from webui.state.services import Services
from webui.state.snapshot import Snapshot

# Where a person decides what is missing: the step, and the part of it that is shown.
PLACES = {
    "wizard.missing_data": ("data", None),
    "wizard.missing_answer": ("data", "#readings"),
    "wizard.missing_model": ("model", None),
}
REFUSAL = "lg-refusal"


def will_wait(snapshot: Snapshot) -> bool:
    """Return whether a run that is started now joins the queue."""
    return bool(snapshot.busy or snapshot.making or snapshot.queue.order.game)


class StartStep:
    """The step with the run's name and start time, and the Start button with its notice."""

    def __init__(self, services: Services, planner: Planner, wording: Wording):
        self.services, self.planner, self.w = services, planner, wording

    def build(self) -> None:
        """Build the step: the run's name and the time of its start."""
        w = self.w
        self.name = gr.Textbox(
            label=w.t("wizard.name"), info=w.t("wizard.name_info"), max_lines=1, max_length=60, elem_id="run-name"
        )
        self.start_at = gr.Textbox(
            label=w.t("queue_panel.start_at"), info=w.t("queue_panel.start_at_info"), placeholder="23:00", max_lines=1,
            max_length=8, elem_id="start-at",
        )  # fmt: skip
        gr.HTML(tag("p", w.t("wizard.train_info"), class_="lg-quiet"))

    def build_button(self) -> None:
        self.button = gr.Button(self.w.t("wizard.start"), variant="primary", size="lg", elem_id="start")

    def build_notice(self) -> None:
        self.notice = gr.HTML("", elem_id="start-notice", visible=False)

    def label(self, result: FormResult) -> JsonObject:
        """Return the button's update: a label that names what is missing, or that the run will wait, and its colour. It
        stays enabled, and then opens the step concerned."""
        if result.missing is not None:
            key = f"start_{result.missing.key.removeprefix('wizard.')}"
        elif result.problem is not None:
            key = "start_only_planned" if result.problem.key == "wizard.only_planned" else "start_problem"
        else:
            key = "start"
        label = "queue_panel.add" if key == "start" and will_wait(self.services.snapshots.now()) else f"wizard.{key}"
        return gr.update(value=self.w.t(label), variant="primary" if key == "start" else "secondary")

    def begin(
        self, form: FormHandle, folds: Mapping[str, Component], run_notice: Component, planning: Component
    ) -> Fill:
        """Return the handler of Start, which puts the plan into the queue, or says why not and opens that step. Two
        presses at once give one run. After the start the form has no name and continues no run. folds: the steps by
        name. run_notice: beside a run that hides the form. planning: becomes False."""

        def failure(message: Html, step: str | None = None) -> Filled:
            """Return the updates that show a message, and open this step alone; no filling."""
            opened = {fold: gr.update(open=name == step) for name, fold in folds.items()} if step else {}
            return None, {self.notice: shown(message), **opened}

        def fill(values: FieldValues) -> Filled:
            """Create the run of the form's plan, at once or for a time; show what is missing instead."""
            try:
                typed = values[self.start_at]
                not_before = time_of_day(typed if isinstance(typed, str) else None, time.time())
            except GarageError as error:
                return failure(notice(self.w.render(error.message)), "train")
            state = form.read(values)
            result = form.result_of(state)
            why = result.missing or result.problem
            if why is not None or result.plan is None:
                step, _ = PLACES.get(why.key, (None, None)) if why else (None, None)
                return failure(self._refusal(why), step)
            try:
                run = self._submit(result.plan, result.seconds, state, not_before)
            except BusyError as error:
                busy = shown(notice(self.w.render(error.message), "warn"))
                return None, {self.notice: busy, run_notice: busy}
            except GarageError as error:
                return failure(notice(self.w.render(error.message)))
            waits = shown(success(self._waits(run)))
            updates: Updates = {self.notice: shown(""), run_notice: waits, self.start_at: "", planning: False}
            return Filling({"name": ""}, {"parent": None}), updates

        return fill

    def _refusal(self, why: Message | None) -> Html:
        """Return why the form cannot start, as a notice that `refusal_now` recognizes; "" without a reason. It names
        the part of the page where a person decides, to which assets/focus.js goes."""
        if why is None:
            return Html("")
        _, part = PLACES.get(why.key, (None, None))
        return tag("div", notice(self.w.render(why)), class_=REFUSAL, data_show=part)

    def refusal_now(self, drawn: object, result: FormResult) -> Update:
        """Return the update of Start's notice when the form is planned anew: a refusal that it shows is replaced by the
        present one, hidden if there is none; any other notice stays. drawn: the notice's HTML now."""
        refusal = self._refusal(result.missing or result.problem)
        return gr.skip() if drawn == refusal or REFUSAL not in str(drawn) else shown(refusal)

    def _waits(self, run: RunFolder) -> str:
        """Return a sentence that the run was added to the queue, with its start time if it has one; "" if it is not
        waiting, as it has begun."""
        entry = next(
            (entry for row, entry in self.services.snapshots.now(fresh=True).queue.waiting if row.id == run.id), None
        )
        if entry is None:
            return ""
        if entry.not_before:
            return self.w.t("queue_panel.added_at", name=run.name, time=at_time(self.w, entry.not_before))
        return self.w.t("queue_panel.added", name=run.name)

    def _submit(self, plan: Plan, seconds: float | None, form: Form, not_before: float | None) -> RunFolder:
        """Put the plan into the queue as a run of the chosen device and parent, and return it. seconds: its expected
        duration. not_before: seconds since 1970. Raises GarageError."""
        return submit(
            plan,
            self.services.datasets,
            lambda recipe, facts: self.services.supervisor.submit(recipe, facts, not_before),
            self.planner.device(form.memory, plan.advice.budget),
            parent_of(self.services, form.answers),
            seconds,
        )
