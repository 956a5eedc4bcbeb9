"""The left half of the Train page: five numbered steps that fold to a line each, and Start.

Every change asks `refresh` once, which looks at the whole form (planner) and puts the plan's values into the fields that
nobody edited. What was edited travels with the form; the server keeps nothing of a visitor.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import BusyError, GarageError
from core.memory.documented import vram_table
from core.queue.queue import time_of_day
from core.recipe import Recipe
from core.runs.facts import RunFacts, TrainedOn
from core.runs.folder import RunFolder
from core.runs.further import facts_of
from core.workspace.saved_recipes import NO_DATA
from webui.form import data as data_step
from webui.form import findings, memory_view, plan_view
from webui.form import goal as goal_step
from webui.form import model as model_step
from webui.form.data import DataStep
from webui.form.fields import FIELDS, Answers, explicit_of, name_of
from webui.form.further import FurtherForm
from webui.form.goal import GoalStep
from webui.form.model import ModelStep
from webui.form.plan import PlanStep, rank_choices
from webui.form.planner import HERE, Form, FormResult, Planner, parent_of
from webui.kit import samples
from webui.kit.findings import counted
from webui.kit.format import at_time
from webui.kit.html import notice, tag
from webui.kit.live import CONTROL, QUIET, Poller, shown
from webui.kit.wording import Wording
from webui.state.services import Services

STEPS = ("goal", "model", "data", "plan", "train")
FOCUS = "() => setTimeout(() => document.querySelector('#step-{step} button')?.focus(), 120)"
R = ("adapter", "r")
STATE = 6  # place of the state among the form's inputs


class Wizard:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.planner = Planner(services)
        self.table = vram_table()
        self.goal_step = GoalStep(services, wording)
        self.model_step = ModelStep(services, self.planner, wording)
        self.data_step = DataStep(services, wording)
        self.plan_step = PlanStep(services, wording)
        self.further = FurtherForm(services, wording, self)

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build(self) -> None:
        w = self.w
        self.folds: dict[str, gr.Accordion] = {}
        self.further.build()
        with self._step("goal"):
            self.goal_step.build()
        with self._step("model"):
            self.model_step.build(self.planner.budget(HERE))
        with self._step("data", open=True):
            self.data_step.build()
        with self._step("plan"):
            self.plan_step.build()
        with self._step("train"):
            self.name = gr.Textbox(
                label=w.t("wizard.name"), info=w.t("wizard.name_info"), max_lines=1, max_length=60, elem_id="run-name"
            )
            self.start_at = gr.Textbox(
                label=w.t("line_panel.start_at"), info=w.t("line_panel.start_at_info"), placeholder="23:00", max_lines=1,
                max_length=8, elem_id="start-at",
            )  # fmt: skip
            self.where = gr.HTML(tag("p", w.t("wizard.train_info"), class_="lg-quiet"))
        with gr.Column(elem_id="start-bar"):
            self.start_notice = gr.HTML("", elem_id="start-notice", visible=False)
            self.start = gr.Button(w.t("wizard.start_missing_data"), variant="primary", size="lg", elem_id="start")
        # In the browser beside the fields, not in gr.State: what was shown must be as old as the values it is compared with.
        self.state = gr.JSON(Answers.fresh().state(), visible=False)
        self.again = gr.Timer(1.5, active=False)  # while the pace of this PC is being measured, or a dry run made

    def _step(self, step: str, open: bool = False) -> gr.Accordion:
        fold = gr.Accordion(self._title(step), open=open, elem_id=f"step-{step}", elem_classes=["lg-card", "lg-step"])
        self.folds[step] = fold
        return fold

    def _title(self, step: str, summary: str = "") -> str:
        title = f"{STEPS.index(step) + 1} · {self.w.t(f'wizard.step_{step}')}"
        return f"{title} — {summary}" if summary else title

    # ---- wires ----------------------------------------------------------------------------------------------------
    @property
    def _form(self) -> list[Any]:
        return [
            self.goal_step.goal, self.model_step.model, self.data_step.data, self.plan_step.memory, self.name, self.data_step.index,
            self.state, *self.plan_step.fields,
        ]  # fmt: skip

    @property
    def _drawn(self) -> list[Any]:
        """What `refresh` draws anew, in the order of its answer."""
        data, plan = self.data_step, self.plan_step
        return [
            self.state, *(self.folds[step] for step in STEPS), self.goal_step.about, self.model_step.about, data.report, data.learned,
            data.counters, data.row, data.turning, data.next, plan.card, plan.holders, plan.recheck, plan.drawn_from, plan.reset,
            self.start, self.again, *self.further.drawn, *data.findings.drawn, data.left_out, *plan.findings.drawn, *plan.fields,
        ]  # fmt: skip

    def wire(self, page: gr.Blocks, pulse: Poller, run_notice: gr.HTML, planning: gr.State) -> None:
        """run_notice: beside the run, for what must be seen when a run hides the form. planning: beside a run that trains."""
        goal, model, data, plan = self.goal_step, self.model_step, self.data_step, self.plan_step
        self._redraw_on(goal.goal.input, model.model.change, plan.memory.input, self.name.blur, self.name.submit)
        self._redraw_on(*(field.input if _chosen(field) else field.blur for field in plan.fields))
        self.again.tick(self.on_clock, self._form, self._drawn, queue=False, **QUIET)
        plan.clock.tick(self.follow_memory, [plan.drawn_from, *self._form], self._drawn, queue=False, **QUIET)
        plan.recheck.click(self.look_again, self._form, self._drawn, **QUIET)
        self._redraw_on(*(field.submit for field in plan.fields if not _chosen(field)))
        follow = data.data.change(self.follow_sample, [data.data, goal.goal], [goal.goal, data.index], **QUIET)
        self._then_redraw(follow)
        added = data.file.upload(
            self.add_file, [data.file], [data.file, *self._filled, data.notice],
            show_progress="minimal", concurrency_limit=2, api_visibility="private",
        )  # fmt: skip
        self._then_redraw(added)
        model.list.wire(page, plan.memory, model.model)
        data.data.input(lambda: shown(""), None, [data.notice], queue=False, **QUIET)
        opened = goal.recipe.upload(self.open_recipe, [goal.recipe], [goal.recipe, *self._filled, goal.notice], **QUIET)
        self._then_redraw(opened)
        taken = goal.preset.input(self.take_preset, [goal.preset], [*self._filled, goal.notice], **QUIET)
        self._then_redraw(taken)
        data.findings.wire(self)
        plan.findings.wire(self)
        self._then_redraw(plan.reset.click(self.forget_edits, [self.state], [self.state], **QUIET))
        plan.save.click(
            self.save_preset, [plan.preset_name, *self._form], [plan.save_notice, goal.preset, plan.preset_name], **QUIET
        )
        for step, button in zip(STEPS, (goal.next, model.next, data.next, plan.next), strict=False):
            self._wire_next(step, button)
        for button, way in ((data.before, -1), (data.after, 1)):
            button.click(self.turn(way), self._form, [data.index, data.row], **QUIET)
        begun = self.start.click(
            self.begin_at, [self.start_at, *self._form],
            [self.start_at, planning, self.start_notice, run_notice, self.name, *self._folds], **CONTROL,
        )  # fmt: skip
        pulse.after(begun)
        self._then_redraw(begun.then(self.further.after_start, [self.state, self.start_notice], [self.state], **QUIET))
        arrived = page.load(
            self.arrive, None, [model.model, data.data, goal.preset, plan.memory, self.folds["goal"]], queue=False, **QUIET
        )
        self._then_redraw(arrived)

    @property
    def _folds(self) -> list[Any]:
        return [self.folds[step] for step in STEPS]

    @property
    def _filled(self) -> list[Any]:
        """What a recipe or a preset fills."""
        return [self.goal_step.goal, self.model_step.model, self.data_step.data, self.name, self.state]

    def _redraw_on(self, *listeners: Any) -> None:
        for listen in listeners:
            listen(self.refresh, self._form, self._drawn, trigger_mode="always_last", **QUIET)

    def redraw_after(self, event: Any) -> Any:
        """For others on the page: Start says something else while a run trains."""
        return self._then_redraw(event)

    def _then_redraw(self, event: Any) -> Any:
        return event.then(self.refresh, self._form, self._drawn, **QUIET)

    def _wire_next(self, step: str, button: gr.Button) -> None:
        following = STEPS[STEPS.index(step) + 1]
        if step == "data":
            moved = button.click(
                self.data_done, [self.data_step.data, self.goal_step.goal], [self.data_step.data, *self._folds], **QUIET
            )
        else:
            moved = button.click(lambda: self.only_open(step, following), None, self._folds, queue=False, **QUIET)
        self._then_redraw(moved)
        moved.then(None, None, None, js=FOCUS.replace("{step}", following), **QUIET)

    # ---- handlers -------------------------------------------------------------------------------------------------
    def arrive(self) -> list[Any]:
        """Outputs: model, data, preset, plan-for (their choices as they are now), goal fold: open for a first visit."""
        budgeted = self.planner.budget(HERE)
        machine = self.services.monitor.newest()
        return [
            gr.update(choices=self.model_step.choices(budgeted)),
            gr.update(choices=self.data_step.choices()),
            gr.update(choices=self.goal_step.preset_choices()),
            gr.update(choices=self.plan_step.memory_choices(machine)),
            # It is closed at first; closing it again would close what a quick hand has opened meanwhile.
            gr.skip() if self.services.snapshots.now().rows else gr.update(open=True),
        ]

    def refresh(self, *answers: Any) -> list[Any]:
        """Inputs: the form. Outputs: everything that follows from it, and the plan's values in fields nobody edited."""
        form, index = self._read(answers)
        result = self.planner.look(form, self.w)
        answered = form.answers.showing(result.plan.recipe) if result.plan else form.answers
        preview = result.preview
        return [
            answered.state(),
            *(gr.update(label=self._title(step, line)) for step, line in zip(STEPS, self._summaries(form, result), strict=True)),
            goal_step.about(goal_step.chosen(form.goal), self.w),
            model_step.about(form.model, result, self.services, self.w),
            shown(self.data_step.report_of(form.data)),
            gr.update(visible=preview is not None),
            self.data_step.counters_of(preview, *result.limits) if preview else "",
            self.data_step.row_of(preview, index, *result.limits) if preview else "",
            gr.update(visible=bool(preview and preview.tokenizer)),
            gr.update(value=self.data_step.next_label(form.data, form.goal)),
            plan_view.card(result, self.table, self.w),
            shown(memory_view.holders(result, self.services.monitor.newest(), self.w)),
            gr.update(visible=memory_view.is_short(result)),
            memory_view.mark(result) | {"of": _of(form)},
            gr.update(visible=bool(answered.explicit), value=self.w.t("wizard.reset", count=len(answered.explicit))),
            self._start_button(result),
            gr.Timer(active=result.unsettled),
            *self.further.draw(answered),
            *self.data_step.findings.draw(result.findings),
            shown(findings.left_out(result.plan.recipe, preview, self.w) if result.plan and preview else ""),
            *self.plan_step.findings.draw(result.findings),
            *(self._field_updates(answers[-len(FIELDS) :], answered) if result.plan else [gr.skip()] * len(FIELDS)),
        ]

    def follow_memory(self, drawn: Any, *answers: Any) -> list[Any]:
        """Inputs: what the card was drawn from, the form. Outputs: as refresh, nothing where no memory has moved."""
        nothing = [gr.skip()] * len(self._drawn)
        if self.services.snapshots.now().busy is not None:
            return nothing
        try:
            free_gib = self.planner.budget(answers[3]).free_gib
        except GarageError:
            return nothing
        form, _ = self._read(answers)
        # One that came back after another answer of the form was given had drawn what is no longer asked for.
        is_old = isinstance(drawn, dict) and drawn.get("of", _of(form)) != _of(form)
        return self.on_clock(*answers) if is_old or memory_view.has_moved(drawn, free_gib) else nothing

    def on_clock(self, *answers: Any) -> list[Any]:
        """As refresh, when nobody did anything: the fields and what they are held against are sent only where the plan has
        become another, and then all of them. An answer that somebody gives meanwhile would else meet fields of one plan with
        the state of another, and what the plan had chosen would count as edited (seen: "changed by you: 4" on a new page).
        """
        updates = self.refresh(*answers)
        was, state = Answers.of_state(answers[STATE]), updates[0]
        if state["shown"] == was.shown:
            updates[0] = gr.skip()
            updates[-len(FIELDS) :] = [gr.skip()] * len(FIELDS)
        else:
            updates[-len(FIELDS) :] = self._field_updates([object()] * len(FIELDS), Answers.of_state(state))
        return updates

    def look_again(self, *answers: Any) -> list[Any]:
        """Inputs: the form. Outputs: as refresh, of the memory as it is this moment."""
        self.services.monitor.look_again()
        return self.refresh(*answers)

    def _read(self, answers: Sequence[Any]) -> tuple[Form, int]:
        goal, model, data, memory, name, index, state, *values = answers
        current = Answers.of_state(state).with_values(values)
        return Form(goal, model, data, memory, name, current), index if isinstance(index, int) else 0

    def _summaries(self, form: Form, result: FormResult) -> list[str]:
        goal = goal_step.chosen(form.goal)
        name = form.name.strip() if isinstance(form.name, str) else ""
        return [
            goal_step.label(goal, self.w) if goal else self.w.t("wizard.none_yet"),
            model_step.summary(form.model, result, self.w),
            self.data_step.summary(form.data, result),
            " · ".join(
                part
                for part in (plan_view.summary(result, self.w), counted(result.findings, self.plan_step.findings.ids, self.w))
                if part
            ),
            name or self.w.t("wizard.named_after_data"),
        ]

    def _start_button(self, result: FormResult) -> dict[str, Any]:
        """Its label says what is missing; it stays pressable, and then opens the step that is meant."""
        if result.missing is not None:
            key = "start_missing_data" if result.missing.key == "wizard.missing_data" else "start_missing_model"
        elif result.problem is not None:
            key = "start_only_planned" if result.problem.key == "wizard.only_planned" else "start_problem"
        else:
            key = "start"
        snapshot = self.services.snapshots.now()
        label = "line_panel.add" if key == "start" and (snapshot.busy or snapshot.queue.order.game) else f"wizard.{key}"
        return gr.update(value=self.w.t(label), variant="primary" if key == "start" else "secondary")

    def _field_updates(self, values: Sequence[Any], answers: Answers) -> list[Any]:
        """Only fields that show something else than they should are sent, so that nobody's typing is overwritten."""
        updates = []
        for key, value in zip(FIELDS, values, strict=True):
            wanted = answers.shown.get(name_of(key), value)
            if wanted == value:
                updates.append(gr.skip())
            elif key == R:
                updates.append(gr.update(value=wanted, choices=rank_choices(wanted)))
            else:
                updates.append(gr.update(value=wanted))
        return updates

    def follow_sample(self, data: Any, goal: Any) -> tuple[Any, int]:
        """Inputs: data, goal. Outputs: goal (the sample set's own), the row that is looked at (the first)."""
        wanted = data_step.goal_for(data, goal)
        return gr.update(value=wanted) if wanted else gr.skip(), 0

    def turn(self, way: int) -> Any:
        def turned(*answers: Any) -> tuple[int, Any]:
            """Inputs: the form. Outputs: the number of the row, the row."""
            form, index = self._read(answers)
            result = self.planner.look(form, self.w)
            if result.preview is None or result.plan is None:
                return 0, gr.skip()
            index = (index + way) % max(1, len(result.preview.rows))
            return index, self.data_step.row_of(result.preview, index, *result.limits)

        return turned

    def only_open(self, close: str, open: str) -> list[Any]:
        return [gr.update(open=True) if step == open else gr.update(open=False) if step == close else gr.skip() for step in STEPS]

    def data_done(self, data: Any, goal: Any) -> list[Any]:
        """Inputs: data, goal. Outputs: data (the goal's sample set where none was chosen), the folds."""
        chosen = gr.skip() if isinstance(data, str) and data else gr.update(value=data_step.sample_for(goal))
        return [chosen, *self.only_open("data", "plan")]

    def forget_edits(self, state: Any) -> dict[str, Any]:
        answers = Answers.of_state(state)
        return Answers({}, answers.shown, answers.parent).state()

    # ---- filling the form from a file ------------------------------------------------------------------------------
    def add_file(self, path: str | None) -> list[Any]:
        """Inputs: file. Outputs: file (emptied), what a recipe fills (a dropped recipe is one), notice."""
        if not path:
            return [gr.skip()] * (2 + len(self._filled))
        if path.lower().endswith(data_step.RECIPES):
            return self.open_recipe(path)
        added, problem = self.data_step.add(path)
        filled = [gr.skip()] * len(self._filled)
        if added is not None:
            filled[2] = gr.update(choices=self.data_step.choices(), value=added)
        return [gr.update(value=None), *filled, shown(problem)]

    def open_recipe(self, path: str | None) -> list[Any]:
        """Inputs: file. Outputs: file (emptied), what a recipe fills, notice."""
        if not path:
            return [gr.skip()] * (2 + len(self._filled))
        given = Path(path)
        try:
            filled = self._fill(Recipe.read(given), given.name)
        except GarageError as error:
            filled = self._unfilled(notice(self.w.of(error.message)))
        finally:
            given.unlink(missing_ok=True)  # gradio's own copy
        return [gr.update(value=None), *filled]

    def take_preset(self, preset_id: Any) -> list[Any]:
        """Inputs: preset. Outputs: what a recipe fills, notice."""
        if not preset_id:
            return self._unfilled("")
        try:
            preset = self.services.presets.get(preset_id)
        except GarageError as error:
            return self._unfilled(notice(self.w.of(error.message)))
        return (
            self._unfilled(notice(self.w.of(preset.problem))) if preset.recipe is None else self._fill(preset.recipe, preset.title)
        )

    def _unfilled(self, said: str) -> list[Any]:
        return [*[gr.skip()] * len(self._filled), shown(said)]

    def _fill(self, recipe: Recipe, title: str, parent: str | None = None) -> list[Any]:
        """Goal, model, data, name, state and notice as a recipe wants them; what it leaves out stays with the plan."""
        answers = Answers(explicit_of(recipe), {}, parent)
        said, tone, data = self.w.t("wizard.filled", title=title, count=len(answers.explicit)), "ok", gr.skip()
        if recipe.data.source != NO_DATA:
            try:
                data = gr.update(value=self.services.datasets.get(recipe.data.source).id)
            except GarageError:
                said, tone = self.w.t("wizard.filled_without_data", title=title, data=recipe.data.source), "warn"
        return [
            gr.update(value=recipe.goal) if recipe.goal else gr.skip(),
            gr.update(value=recipe.model.id),
            data,
            recipe.name[:60] or gr.skip(),
            answers.state(),
            shown(notice(said, tone)),
        ]

    def save_preset(self, title: Any, *answers: Any) -> list[Any]:
        """Inputs: name, the form. Outputs: notice, the presets to choose from, name (emptied)."""
        from webui.form.planner import recipe_of

        form, _ = self._read(answers)
        try:
            saved = self.services.presets.save(title if isinstance(title, str) else "", recipe_of(form))
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), gr.skip(), gr.skip()]
        said = self.w.t("wizard.saved", title=saved.title, count=len(form.answers.explicit))
        return [shown(notice(said, "ok")), gr.update(choices=self.goal_step.preset_choices()), ""]

    # ---- Start ----------------------------------------------------------------------------------------------------
    def begin_at(self, said: Any, *answers: Any) -> list[Any]:
        """Inputs: start_at, the form. Outputs: start_at, planning (over once a run was made), and what `begin` gives."""
        try:
            not_before = time_of_day(said if isinstance(said, str) else None, time.time())
        except GarageError as error:
            folds = [gr.update(open=True) if step == "train" else gr.skip() for step in STEPS]
            return [gr.skip(), gr.skip(), shown(notice(self.w.of(error.message))), gr.skip(), gr.skip(), *folds]
        done = self.begin(*answers, not_before=not_before)
        was_made = done[2] == ""
        return ["" if was_made else gr.skip(), False if was_made else gr.skip(), *done]

    def begin(self, *answers: Any, not_before: float | None = None) -> list[Any]:
        """Inputs: the form. Outputs: start_notice, run_notice, name (emptied once a run was made), the folds. Two Starts at once
        give one run."""
        form, _ = self._read(answers)
        result = self.planner.look(form, self.w)
        stay = [gr.skip()] * len(STEPS)
        if result.missing is not None:
            step = "data" if result.missing.key == "wizard.missing_data" else "model"
            folds = [gr.update(open=True) if name == step else gr.skip() for name in STEPS]
            return [shown(notice(self.w.of(result.missing))), gr.skip(), gr.skip(), *folds]
        if result.problem is not None or result.plan is None:
            return [shown(notice(self.w.of(result.problem))), gr.skip(), gr.skip(), *stay]
        try:
            run = self._submit(result, form, not_before)
        except BusyError as error:
            said = notice(self.w.of(error.message), "warn")
            return [shown(said), shown(said), gr.skip(), *stay]  # gradio empties an update that it has used
        except GarageError as error:
            return [shown(notice(self.w.of(error.message))), gr.skip(), gr.skip(), *stay]
        return [shown(""), shown(notice(self._waits(run), "ok")), "", *stay]

    def _waits(self, run: RunFolder) -> str:
        """Where the run is now, if it did not just begin: that is seen."""
        entry = next((entry for row, entry in self.services.snapshots.now(fresh=True).queue.waiting if row.id == run.id), None)
        if entry is None:
            return ""
        if entry.not_before:
            return self.w.t("line_panel.added_at", name=run.name, time=at_time(self.w, entry.not_before))
        return self.w.t("line_panel.added", name=run.name)

    def _submit(self, result: FormResult, form: Form, not_before: float | None) -> RunFolder:
        recipe, advice = result.plan.recipe, result.plan.advice
        info = self.services.datasets.get(recipe.data.source)
        report = self.services.datasets.report(info.id)
        name = info.id if info.origin == "sample" else samples.title(info, self.w)
        facts = RunFacts(
            data=TrainedOn(id=info.id, name=name, sha256=report.sha256, rows=report.good_rows),
            advice=advice.as_json(),
            wanted_device=self.planner.device(form.memory),
            predicted_seconds=result.seconds,
        )
        if parent := parent_of(self.services, form.answers):
            facts = facts.model_copy(update={"parent": facts_of(parent).parent})
        return self.services.supervisor.submit(recipe, facts, not_before)


def _of(form: Form) -> list[str]:
    """What a card was drawn for, as the browser keeps it."""
    return [str(part) for part in (form.model, form.data, form.memory)]


def _chosen(field: Any) -> bool:
    """Whether a component is chosen from (and heard at once) rather than typed into (and heard when it is left)."""
    return isinstance(field, gr.Radio | gr.Dropdown | gr.Checkbox)
