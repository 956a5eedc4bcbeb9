"""The form of the Train page: five steps that each fold to one line, the plan beside them, and Start.

Each action of a person triggers one `look` at the whole form (planner), which draws everything that depends on it and
puts the plan's values into the fields that nobody edited. The fields' own events record edits in the browser
(assets/form.js); they are sent with each call, so the server stores nothing of a visitor. Handlers receive values by
component and return updates by component.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from string import Template
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from core.advice.goals import goals
from core.errors import GarageError
from core.memory.documented import vram_table
from core.recipe import Recipe
from webui.form import data as data_step
from webui.form import findings, memory_view, plan_view
from webui.form import goal as goal_step
from webui.form import model as model_step
from webui.form.data import DataStep
from webui.form.fields import CARDS, FormAnswers, edit_event, shown_values
from webui.form.filling import Fillings
from webui.form.further import FurtherForm
from webui.form.goal import GoalStep
from webui.form.handle import READING, Components, FieldValues, Fill, Filling, Listen
from webui.form.model import ModelStep
from webui.form.plan import PlanStep, rank_choices
from webui.form.planner import HERE, Form, FormResult, Planner
from webui.form.reading.recipe_reading import choices_for
from webui.form.start import StartStep
from webui.form.start_view import MARK, StartView, Summary
from webui.kit.findings import count_line
from webui.kit.live import AT_ONCE, CONTROL, EACH, LAST, QUIET, Poller, Updates, shown
from webui.kit.visitor import IS_LOCAL, is_local
from webui.kit.wording import Wording
from webui.shelf.shelf import ANY
from webui.state.services import Services

STEPS = ("goal", "model", "data", "plan", "train")
FOCUS = "() => loraGarageFocusHead('#step-$step')"

# Functions of assets/form.js, which explains them.
LOOK = "() => loraGarageForm.look()"
SENT = "(...values) => loraGarageForm.sent(...values)"
PRESS = "(...values) => loraGarageForm.press(...values)"
DROP = "(...values) => loraGarageForm.drop(...values)"
ARRIVED = "() => loraGarageForm.arrived()"
LOOK_IF = "(memory) => { if (memory?.has_moved) loraGarageForm.look(); }"
FORGET = "() => { if (confirm($sure)) { loraGarageForm.forget(); loraGarageForm.look(); } }"
ACT = "(value) => loraGarageForm.act('$name', value, $is_setting, $is_typed)"
LEFT = "(name) => loraGarageForm.left(name)"
TAKE = "(answer, ...now) => loraGarageForm.take($fields, answer, now)"
# Choosing a sample dataset also chooses its goal.
FOLLOW = (
    "(data, goal) => { loraGarageForm.touch('data'); loraGarageStart.mark(data); "
    "return [$goals[data]?.[goal], $empty]; }"
)
# Show the dropped file's rows if it was accepted.
LOOK_AT_ROWS = "() => { if (!document.querySelector('#file-notice .lg-bad')) loraGarageStart.unfold('data'); }"
TAKE_CARD = "(_, goal) => { const data = loraGarageStart.chosen(); return [data, ...($follow)(data, goal)]; }"
CLOSE_AND_OPEN = "{__type__: 'update', open: false}, {__type__: 'update', open: true}"
OPEN_NEXT = f"() => [{CLOSE_AND_OPEN}]"


class Wizard:
    """The form of the Train page: its widgets, events and handlers (handle.FormHandle). A look plans the whole form
    anew, draws all that depends on it, and puts the plan's values into the fields that nobody has edited."""

    def __init__(self, services: Services, wording: Wording):
        """Create the planner and the five steps."""
        self.services, self.w = services, wording
        self.planner = Planner(services)
        self.table = vram_table()
        self.goal_step = GoalStep(services, wording)
        self.model_step = ModelStep(services, self.planner, wording)
        self.data_step = DataStep(services, wording)
        self.plan_step = PlanStep(services, wording)
        self.start_step = StartStep(services, self.planner, wording)
        self.start_view = StartView(services, wording)
        self.fillings = Fillings(services, self.goal_step, self.data_step, wording)
        self.further = FurtherForm(services, wording)

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build_start(self) -> None:
        """Build the top of the page: notices, the samples, the drop zone for files, the plan in a bar, and Start."""
        self.further.build()
        self.goal_step.build_notice()
        self.start_view.build()
        self.data_step.build_drop()
        self.start_view.build_links()
        with gr.Row(elem_id="start-bar"):
            self.start_view.build_bar()
            self.start_step.build_button()
        self.start_step.build_notice()

    def build(self) -> None:
        """Build the five steps as folds, and the hidden components of the form's state."""
        self.folds: dict[str, gr.Accordion] = {}
        with self._step("goal"):
            self.goal_step.build()
        with self._step("model"):
            self.model_step.build(self.planner.budget(HERE))
        with self._step("data"):
            self.data_step.build()
        with self._step("plan"):
            self.plan_step.build()
        with self._step("train"):
            self.start_step.build()
        self.state = gr.JSON(FormAnswers().state(), visible=False)  # the answers, kept in the browser
        self.moved = gr.JSON(None, visible=False)  # whether the free memory has changed enough for another look
        self.again = gr.Timer(1.5, active=False)  # active during a dry run or a try

    def build_plan(self) -> None:
        """Build the plan beside the steps."""
        self.plan_step.build_beside()

    def _step(self, step: str) -> gr.Accordion:
        """Create the accordion of a step (of STEPS), closed, keep it in `folds`, and return it to be filled in a
        `with`."""
        title = self.w.t(f"wizard.step_{step}")
        fold = gr.Accordion(title, open=False, elem_id=f"step-{step}", elem_classes=["lg-card", "lg-step"])
        self.folds[step] = fold
        return fold

    # ---- wires ----------------------------------------------------------------------------------------------------
    @property
    def inputs(self) -> Components:
        """The components of the form's answers, which `read` reads."""
        data = self.data_step
        return {*self._questions.values(), data.row_at, data.shown_mark, self.plan_step.memory, self.state}

    @property
    def _questions(self) -> dict[str, Component]:
        """The components that a recipe, a preset or a run may fill besides the settings, by their names in form.js."""
        goal, name = self.goal_step.goal, self.start_step.name
        return {"goal": goal, "model": self.model_step.model, "data": self.data_step.data, "name": name}

    @property
    def _settings(self) -> dict[str, Component]:
        """The settings that are components of gradio, and the choice of GPUs, which is not part of a recipe."""
        plan = self.plan_step
        return {CARDS: plan.cards, "adapter.method": plan.method, "adapter.r": plan.r}

    @property
    def _drawn_components(self) -> Components:
        """Return the components that are drawn again whenever the form is planned anew."""
        data, plan = self.data_step, self.plan_step
        return {
            self.goal_step.about, self.model_step.about, data.shown_mark, data.data, data.report, data.learned,
            data.counters, data.row, data.turning, data.left_out,
            *data.reading.parts, *data.comparing.parts, *data.recipe_reading.draw(None, None),
            plan.card, plan.more, plan.holders, plan.recheck, plan.drawn_from, plan.reset, plan.choice_of_cards,
            plan.cards_now,
            self.start_step.button, self.start_step.notice, self.start_view.cards, self.start_view.links,
            self.start_view.bar, self.again,
            *self.model_step.download.draw(None, None), *self.further.draw(FormAnswers()),
            *data.findings.draw(()), *plan.findings.draw(()),
        }  # fmt: skip

    def wire(self, page: gr.Blocks, poller: Poller, run_notice: gr.HTML, planning: gr.State) -> None:
        """Connect all events of the form, which loading the page fills. run_notice: a notice beside the run, for
        messages while a run hides the form. planning: true if the visitor plans the next run while another one
        trains."""
        goal, model, data, plan, start = (
            self.goal_step,
            self.model_step,
            self.data_step,
            self.plan_step,
            self.start_step,
        )
        fillings = self.fillings
        self._wire_look()
        self._wire_acts()
        for pressed in model.shelf.wire(page, plan.memory, plan.cards, model.model):
            self.redraw_after(pressed)
        pressed, fetched = model.download, {model.download.notice, model.download.button}
        poller.after(pressed.button.click(self.download, {model.model, self.state}, fetched, js=SENT, **CONTROL))
        data.wire(self, poller)
        data.findings.buttons["other_language"].click(
            self.filter_by_language, self.inputs, {model.shelf.language}, js=SENT, **QUIET
        )
        plan.findings.wire(self)
        self.further.wire()
        # preprocess=False: outside of the queue, gradio's error about a lone surrogate would end in a traceback.
        inputs, outputs = [plan.drawn_from, plan.memory, plan.cards], [self.moved, plan.cards_now]
        ticked = plan.clock.tick(self.memory_has_moved, inputs, outputs, preprocess=False, **AT_ONCE)
        ticked.then(None, [self.moved], None, js=LOOK_IF, **QUIET)
        self.redraw_after(plan.recheck.click(self.services.monitor.look_again, None, None, **QUIET))
        dropped = self.fill_on(
            data.importing.announced(data.file.upload, data.file),
            data.importing.cancellable(fillings.add_file, data.notice, data.file),
            set(), {data.notice}, js=DROP, concurrency_limit=2, **QUIET,
        )  # fmt: skip
        dropped.then(None, None, None, js=LOOK_AT_ROWS, **QUIET)
        self.fill_on(goal.recipe.upload, fillings.open_recipe, {goal.recipe}, {goal.recipe}, **EACH, **QUIET)
        forget = Template(FORGET).substitute(sure=json.dumps(self.w.t("wizard.reset_sure")))
        plan.reset.click(None, None, None, js=forget, **QUIET)
        for step, button in zip(STEPS, (goal.next, model.next, data.next, plan.next), strict=False):
            self._wire_next(step, button)
        for button, way in ((data.before, -1), (data.after, 1)):
            self.redraw_after(
                button.click(partial(data.turn_row, way), [data.row_at, data.data], [data.row_at], **QUIET)
            )
        started = self.fill_on(
            start.button.click, start.begin(self, self.folds, run_notice, planning), self.inputs | {start.start_at},
            {start.start_at, planning, start.notice, run_notice, *self.folds.values()}, js=SENT, **CONTROL,
        )  # fmt: skip
        poller.after(started)
        arrived = page.load(
            self.arrive,
            None,
            {model.model, data.data, data.shown_mark, plan.memory, plan.cards},
            **AT_ONCE,
        )
        arrived.then(None, None, None, js=ARRIVED, **QUIET)

    def _wire_look(self) -> None:
        """Connect one listener for all looks, which redraw what depends on the form, so that they never overlap and the
        last one comes last."""
        trigger = gr.Button("", visible="hidden", elem_id="look")  # pressed only by form.js
        answer = gr.JSON(None, visible=False)
        event = gr.on(
            [trigger.click, self.again.tick], self.look(answer), self.inputs | {self.start_step.notice},
            self._drawn_components | {answer}, js=SENT, **LAST, **QUIET,
        )  # fmt: skip
        filled = self._take(event, answer, self._settings)
        # A look that began before the newest choice has drawn the cards with the previous one.
        filled.then(None, [self.data_step.data], None, js=MARK, **QUIET)

    def _wire_acts(self) -> None:
        """Connect the fields' events, which record a person's edits in the browser; choosing data also moves the goal,
        as a card does."""
        for name, field in {**self._questions, "memory": self.plan_step.memory, **self._settings}.items():
            if field is not self.data_step.data:
                kind = [json.dumps(claim) for claim in (name in self._settings, hasattr(field, "submit"))]
                js = Template(ACT).substitute(name=name, is_setting=kind[0], is_typed=kind[1])
                edit_event(field)(None, [field], None, js=js, **QUIET)
        run_name = self.start_step.name
        gr.on([run_name.blur, run_name.submit], None, [run_name], None, js=LEFT, **QUIET)
        data, goal = self.data_step.data, self.goal_step.goal
        follow = Template(FOLLOW).substitute(goals=json.dumps(self._goals()), empty=json.dumps(shown("")))
        self.redraw_after(data.input(None, [data, goal], [goal, self.data_step.notice], js=follow, **QUIET))
        cards, outputs = self.start_view.cards, [data, goal, self.data_step.notice]
        script = Template(TAKE_CARD).substitute(follow=follow)
        self.redraw_after(cards.select(None, [data, goal], outputs, js=script, **QUIET))

    def _wire_next(self, step: str, button: gr.Button) -> None:
        """Let a step's button close it and open the following one, with the focus."""
        following = STEPS[STEPS.index(step) + 1]
        outputs = [self.folds[step], self.folds[following]]
        moved = button.click(None, None, outputs, js=OPEN_NEXT, **QUIET)
        self.redraw_after(moved)
        moved.then(None, None, None, js=Template(FOCUS).substitute(step=following), **QUIET)

    def _goals(self) -> dict[str, dict[str, str]]:
        """Return a dict: sample dataset -> chosen goal -> the goal that replaces it, if any."""
        data_sets = [info.id for info in self.services.datasets.list() if info.origin == "sample"]
        goals_by_set = {data: {goal.id: data_step.goal_for(data, goal.id) for goal in goals()} for data in data_sets}
        return {data: {goal: new for goal, new in new_goals.items() if new} for data, new_goals in goals_by_set.items()}

    def fill_on(
        self, listen: Listen, fill: Fill, inputs: Components, outputs: Components, js: str = PRESS, **options: Any
    ) -> Dependency:
        """Connect an event to fill: the browser puts the values that it returns into the form, except where the person
        has edited since, and the form is then planned and drawn anew. Returns the event of calling fill
        (handle.FormHandle.fill_on).

        Each event has its own answer component, so that no answer is overwritten before it was used.
        """
        answer = gr.JSON(None, visible=False)

        def filled(values: FieldValues, request: gr.Request) -> Updates:
            """Call fill with the fields' values, and put what it returns into the form as a new answer; None leaves the
            form as it is."""
            answers = FormAnswers.from_state(values[self.state])
            filling, updates = fill({**values, IS_LOCAL: is_local(request), READING: answers.reading})
            if filling is None:
                return {answer: gr.skip(), **updates}
            return {answer: {"revision": answers.revision, **vars(filling)}, **updates}

        outputs = outputs | {answer, self.data_step.data}
        event = listen(filled, inputs | {self.state}, outputs, js=js, **options)
        # a notice is only shown for values that were filled in
        notices = {"notice": self.goal_step.notice, "file_notice": self.data_step.notice}
        self.redraw_after(self._take(event, answer, self._questions | notices | {"memory": self.plan_step.memory}))
        return event

    def _take(self, event: Dependency, answer: gr.JSON, fields: dict[str, Component]) -> Dependency:
        """Let the browser put the values of answer into fields after an event, except those edited since. fields: by
        their names in form.js."""
        names = json.dumps([(name, field.elem_id) for name, field in fields.items()])
        return event.then(
            None, [answer, *fields.values()], [*fields.values()], js=Template(TAKE).substitute(fields=names), **QUIET
        )

    def redraw_after(self, event: Dependency) -> Dependency:
        """Plan the form anew and draw all that depends on it once an event of another part of the page has ended, such
        as the start of a run; return the event of that."""
        return event.then(None, None, None, js=LOOK, **QUIET)

    # ---- handlers -------------------------------------------------------------------------------------------------
    def arrive(self) -> Updates:
        """Return updates of the choices (models, datasets, memory, GPUs) that have changed since the page was
        built; called when it is loaded."""
        model, data, plan = self.model_step, self.data_step, self.plan_step
        mark = data.mark()
        now = {
            model.model: model.choices(self.planner.budget(HERE)),
            data.data: data.choices(),
            plan.memory: plan.memory_choices(self.services.monitor.newest()),
            plan.cards: plan.card_choices(self.services.monitor.newest()),
        }
        # Unchanged choices are left alone: redrawing a group would lose a click in progress.
        changed = {field: [*map(tuple, field.choices)] != new for field, new in now.items()}
        return {data.shown_mark: mark} | {
            field: gr.update(choices=new) if changed[field] else gr.skip() for field, new in now.items()
        }

    def look(self, answer: Component) -> Callable[[FieldValues], Updates]:
        """Return the handler that computes the plan for the form and redraws all that depends on it. answer: gets the
        values to fill in."""

        def looked(field_values: FieldValues) -> Updates:
            """Return the values of the plan for the fields, and the parts that show it."""
            form = self.read(field_values)
            result = self.result_of(form)
            values = shown_values(result.plan.recipe) if result.plan else {}
            if (rank := values.get("adapter.r")) is not None:
                values["adapter.r"] = {"value": rank, "choices": rank_choices(rank)}
            values |= self.plan_step.card_values(result, self.services.monitor.newest())
            answers = {"explicit": dict(form.answers.explicit)}
            hidden = self.plan_step.hidden(result, form.answers.explicit, form.data, form.memory)
            filled = {"is_look": True, "revision": form.answers.revision, "values": values, "answers": answers}
            data = self.data_step
            return {
                answer: filled | {"hidden": hidden},
                # the list shows a new dataset of a command or another page together with its card
                **data.listed(field_values[data.shown_mark], form.data),
                self.start_step.notice: self.start_step.refusal_now(field_values[self.start_step.notice], result),
                **self._draw(form, result, field_values[data.row_at]),
            }

        return looked

    def _draw(self, form: Form, result: FormResult, row_at: object) -> Updates:
        """Return the updates of everything that shows the form's result, in all five steps and the bar. row_at: of the
        dataset's row that is shown."""
        data, plan, w = self.data_step, self.plan_step, self.w
        preview, explicit = result.preview, form.answers.explicit
        read_as = choices_for(form.data, form.answers.reading)
        return {
            self.goal_step.about: goal_step.about(goal_step.chosen(form.goal), w),
            self.model_step.about: model_step.about(form.model, result, self.services, w),
            data.report: shown(data.report_of(form.data, read_as, result)),
            data.learned: gr.update(visible=preview is not None),
            data.counters: data.counters_of(preview, *result.limits) if preview else "",
            data.row: data.row_of(preview, data.row_shown(row_at, form.data), *result.limits) if preview else "",
            data.turning: gr.update(visible=bool(preview and preview.tokenizer)),
            data.left_out: shown(findings.left_out(result.plan.recipe, preview, w) if result.plan and preview else ""),
            plan.card: plan_view.card(result, w),
            plan.more: plan_view.more(result, self.table, w),
            plan.holders: shown(memory_view.holders(result, self.services.monitor.newest(), w)),
            plan.recheck: gr.update(visible=memory_view.is_short(result)),
            plan.drawn_from: memory_view.mark(result),
            **plan.draw_cards(form.memory, self.services.monitor.newest()),
            plan.reset: gr.update(visible=bool(explicit), value=w.t("wizard.reset", count=len(explicit))),
            self.start_step.button: self.start_step.label(result)
            | ({"variant": "secondary"} if result.is_doubtful else {}),
            self.start_view.cards: self.start_view.draw_cards(result, form.data),
            self.start_view.links: self.start_view.draw_links(form.model, form.data),
            self.start_view.bar: self.start_view.draw_bar(self._summary(form, result), result),
            self.again: gr.Timer(active=result.unsettled or self.services.trying.progress().at_work),
            **self.model_step.download.draw(
                form.model, model_step.download_bytes(form.model, result.shape) if result.shape else None
            ),
            **self.further.draw(form.answers, result.problem),
            **data.reading.draw(form.data, read_as),
            **data.comparing.draw(form),
            **data.recipe_reading.draw(form.data, form.answers.reading),
            **data.findings.draw(result.findings),
            **plan.findings.draw(result.findings),
        }

    def follow(self, tab: gr.Tab) -> None:
        """Draw the links of the start view anew whenever this tab is opened: the result without fine-tuning may be
        new."""
        chosen, links = [self.model_step.model, self.data_step.data], [self.start_view.links]
        tab.select(self.start_view.draw_links, chosen, links, **LAST, **AT_ONCE)

    def memory_has_moved(self, drawn: object, memory: object, cards: object = ()) -> Updates:
        """Return two updates at a tick of the clock: whether the free memory has changed enough to plan the form anew
        (never while a run is at work), and the present state of the GPUs where a person can choose among them.

        drawn: the memory figures that the plan's card shows. memory, cards: the hardware that is planned for.
        """
        has_moved = False
        if self.services.snapshots.now().busy is None:
            with suppress(GarageError):
                has_moved = memory_view.has_moved(drawn, self.planner.budget(memory, cards).free_gib)
        machine = self.services.monitor.newest()
        cards_now = self.plan_step.cards_now
        return {self.moved: {"has_moved": has_moved}, cards_now: self.plan_step.draw_cards(memory, machine)[cards_now]}

    def read(self, values: FieldValues) -> Form:
        """Return the fields' values as a Form."""
        questions = {name: values[field] for name, field in self._questions.items()}
        memory, answers = values[self.plan_step.memory], FormAnswers.from_state(values[self.state])
        return Form(**questions, memory=memory, answers=answers, cards=self.planner.cards_of(memory, answers.cards))

    def result_of(self, form: Form) -> FormResult:
        return self.planner.plan_form(form, self.w)

    def filling(self, recipe: Recipe, title: str, parent: str | None = None) -> tuple[Filling, Updates]:
        """Return the filling of the form with a recipe, planned for this PC, and the updates beside it."""
        filling, updates = self.fillings.from_recipe(recipe, title, parent)
        filling.values["memory"] = HERE  # where a run is repeated, whatever was planned for before
        return filling, updates

    def _summary(self, form: Form, result: FormResult) -> Summary:
        """Return the choices of each step in a few words, for the bar."""
        goal = goal_step.chosen(form.goal)
        return Summary(
            goal_step.label(goal, self.w) if goal else self.w.t("wizard.none_yet"),
            model_step.summary(form.model, result, self.w),
            self.data_step.summary(form, result),
            count_line(result.findings, self.plan_step.findings.ids, self.w),
            form.name or "",
        )

    def filter_by_language(self, values: FieldValues) -> Updates:
        """Set the filter of the model search to the language of the dataset's answers, to any if that is unknown."""
        preview = self.result_of(self.read(values)).preview
        return {self.model_step.shelf.language: (preview and preview.language) or ANY}

    def download(self, values: FieldValues) -> Updates:
        """Start to download the chosen model, in the chosen revision, and show the notice and the button's new
        state."""
        part, model = self.model_step.download, values[self.model_step.model]
        revision = FormAnswers.from_state(values[self.state]).explicit.get("model.revision")
        message = part.begin(model, revision if isinstance(revision, str) and revision else None)
        return {part.notice: message, part.button: part.draw(model, None)[part.button]}
