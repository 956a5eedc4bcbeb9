"""The form of the Train page: five steps that each fold to one line, the plan beside them, and Start.

Every act of a person asks for one `look` at the whole form (planner), which draws what follows from it and puts the
plan's values into the fields that nobody edited. What was edited, the fields' own events record in the browser
(assets/form.js), and it travels with each call; the server keeps nothing of a visitor. Handlers take what arrived by
component and give updates by component.
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
from webui.form.fields import CARDS, FIELDS, FormAnswers, edited, name_of, shown_in
from webui.form.filling import Fillings
from webui.form.further import FurtherForm
from webui.form.goal import GoalStep
from webui.form.handle import IS_HERE, READING, Filling, Given, Listen, Parts, Take, Updates
from webui.form.model import ModelStep
from webui.form.plan import PlanStep, rank_choices
from webui.form.planner import HERE, Form, FormResult, Planner
from webui.form.reading.brought import choices_for
from webui.form.start import StartStep
from webui.form.start_view import MARK, StartView, Summary
from webui.kit.findings import count_line
from webui.kit.live import AT_ONCE, CONTROL, EACH, LAST, QUIET, Poller, shown
from webui.kit.visitor import is_local
from webui.kit.wording import Wording
from webui.state.services import Services

STEPS = ("goal", "model", "data", "plan", "train")
FOCUS = "() => setTimeout(() => document.querySelector('#step-$step button')?.focus(), 120)"

# Of assets/form.js, where each is explained.
LOOK = "() => loraGarageForm.look()"
SENT = "(...values) => loraGarageForm.sent(...values)"
PRESS = "(...values) => loraGarageForm.press(...values)"
DROP = "(...values) => loraGarageForm.drop(...values)"
ARRIVED = "() => loraGarageForm.arrived()"
LOOK_IF = "(memory) => { if (memory?.has_moved) loraGarageForm.look(); }"
FORGET = "() => { if (confirm($sure)) { loraGarageForm.forget(); loraGarageForm.look(); } }"
ACT = "(value) => loraGarageForm.act('$name', value, $is_setting, $is_typed)"
LEFT = "(value) => loraGarageForm.left('$name', '$id', value, $is_setting)"
TAKE = "(answer, ...now) => loraGarageForm.take($fields, answer, now)"
# A sample set that a person chooses brings its goal.
FOLLOW = (
    "(data, goal) => { loraGarageForm.touch('data'); loraGarageStart.mark(data); "
    "return [$goals[data]?.[goal], $empty]; }"
)
# What was dropped is shown, where it was taken.
LOOK_AT_ROWS = "() => { if (!document.querySelector('#file-notice .lg-bad')) loraGarageStart.unfold('data'); }"
TAKE_CARD = "(_, goal) => { const data = loraGarageStart.chosen(); return [data, ...($follow)(data, goal)]; }"
CLOSE_AND_OPEN = "{__type__: 'update', open: false}, {__type__: 'update', open: true}"
OPEN_NEXT = f"() => [{CLOSE_AND_OPEN}]"


class Wizard:
    def __init__(self, services: Services, wording: Wording):
        self.services, self.w = services, wording
        self.planner = Planner(services)
        self.table = vram_table()
        self.goal_step = GoalStep(services, wording)
        self.model_step = ModelStep(services, self.planner, wording)
        self.data_step = DataStep(services, wording)
        self.plan_step = PlanStep(services, wording)
        self.start_step = StartStep(services, self.planner, wording)
        self.start_view = StartView(services, wording)
        self.fillings = Fillings(services, self.goal_step, self.data_step, self.plan_step, wording)
        self.further = FurtherForm(services, wording)

    # ---- widgets --------------------------------------------------------------------------------------------------
    def build_start(self) -> None:
        """Build the top of the page: the samples, the place for a file, the plan in a bar, and Start."""
        self.further.build()
        self.goal_step.build_notice()
        self.start_view.build()
        self.data_step.build_drop()
        self.start_view.build_link()
        with gr.Row(elem_id="start-bar"):
            self.start_view.build_bar()
            self.start_step.build_button()
        self.start_step.build_notice()

    def build(self) -> None:
        """The five steps, of which those that are open are shown."""
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
        self.state = gr.JSON(FormAnswers().state(), visible=False)  # stands for what the browser keeps
        self.again = gr.Timer(1.5, active=False)  # while the pace of this PC is being measured, or a dry run made

    def build_plan(self) -> None:
        """Beside the steps."""
        self.plan_step.build_beside()

    def _step(self, step: str) -> gr.Accordion:
        title = self.w.t(f"wizard.step_{step}")
        fold = gr.Accordion(title, open=False, elem_id=f"step-{step}", elem_classes=["lg-card", "lg-step"])
        self.folds[step] = fold
        return fold

    # ---- wires ----------------------------------------------------------------------------------------------------
    @property
    def inputs(self) -> Parts:
        data = self.data_step
        return {*self._asked.values(), data.row_at, data.seen, self.plan_step.memory, self.state}

    @property
    def _asked(self) -> dict[str, Component]:
        """What is asked in the steps and may be filled by a recipe, a preset or a run, by the name that form.js knows
        it by."""
        goal, name = self.goal_step.goal, self.start_step.name
        return {"goal": goal, "model": self.model_step.model, "data": self.data_step.data, "name": name}

    @property
    def _settings(self) -> dict[str, Component]:
        """Also the cards, which a recipe does not name."""
        return {CARDS: self.plan_step.cards} | {
            name_of(key): field for key, field in zip(FIELDS, self.plan_step.fields, strict=True)
        }

    @property
    def _drawn(self) -> Parts:
        """What a look may draw anew."""
        data, plan = self.data_step, self.plan_step
        return {
            self.goal_step.about, self.model_step.about, data.seen, data.data, data.report, data.learned, data.counters,
            data.row,
            data.turning, data.left_out, *data.reading.parts, *data.comparing.parts, *data.brought.draw(None,
                None), plan.card, plan.more, plan.holders, plan.recheck, plan.drawn_from, plan.reset,
                self.start_step.button, self.start_view.cards, self.start_view.bar,
            self.again, plan.choice_of_cards, plan.cards_now, plan.ranks, plan.experts, *plan.of_pairs.values(),
            *self.model_step.download.draw(None, None), *self.further.draw(FormAnswers()), *data.findings.draw(()),
            *plan.findings.draw(()),
        }  # fmt: skip

    def wire(self, page: gr.Blocks, poller: Poller, run_notice: gr.HTML, planning: gr.State) -> None:
        """run_notice: beside the run, for what must be seen when a run hides the form. planning: beside a run that
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
        plan.findings.wire(self)
        self.further.wire()
        moved = gr.JSON(None, visible=False)
        # Unchecked by gradio, whose refusal of half a character ends in a traceback where nothing waits in a queue.
        asked, told = [plan.drawn_from, plan.memory, plan.cards], [moved, plan.cards_now]
        ticked = plan.clock.tick(self.memory_has_moved, asked, told, preprocess=False, **AT_ONCE)
        ticked.then(None, [moved], None, js=LOOK_IF, **QUIET)
        self.redraw_after(plan.recheck.click(self.services.monitor.look_again, None, None, **QUIET))
        dropped = self.fills(
            data.importing.before(data.file.upload, data.file), data.importing.taking(fillings.add_file, data.notice,
                data.file), set(), {data.notice},
            js=DROP, concurrency_limit=2, **QUIET,
        )  # fmt: skip
        dropped.then(None, None, None, js=LOOK_AT_ROWS, **QUIET)
        self.fills(goal.recipe.upload, fillings.open_recipe, {goal.recipe}, {goal.recipe}, **EACH, **QUIET)
        self.fills(goal.preset.select, fillings.take_preset, {goal.preset}, set(), **LAST, **QUIET)
        forget = Template(FORGET).substitute(sure=json.dumps(self.w.t("wizard.reset_sure")))
        plan.reset.click(None, None, None, js=forget, **QUIET)
        plan.save.click(
            fillings.saving(self), self.inputs | {plan.preset_name}, {plan.save_notice, goal.preset, plan.preset_name},
            js=SENT, **QUIET
        )  # fmt: skip
        for step, button in zip(STEPS, (goal.next, model.next, data.next, plan.next), strict=False):
            self._wire_next(step, button)
        for button, way in ((data.before, -1), (data.after, 1)):
            self.redraw_after(button.click(partial(data.turned, way), [data.row_at, data.data], [data.row_at], **QUIET))
        begun = self.fills(
            start.button.click, start.begin(self, self.folds, run_notice, planning), self.inputs | {start.start_at},
            {start.start_at, planning, start.notice, run_notice, *self.folds.values()}, js=SENT, **CONTROL,
        )  # fmt: skip
        poller.after(begun)
        arrived = page.load(
            self.arrive, None, {model.model, data.data, data.seen, goal.preset, plan.memory, plan.cards}, **AT_ONCE
        )
        arrived.then(None, None, None, js=ARRIVED, **QUIET)

    def _wire_look(self) -> None:
        """One listener for all looks, so that no two are on their way at once, and the last one that is asked for comes
        last."""
        asked = gr.Button("", visible="hidden", elem_id="look")  # pressed by form.js alone
        answer = gr.JSON(None, visible=False)
        looked = gr.on(
            [asked.click, self.again.tick], self.look(answer), self.inputs, self._drawn | {answer},
            js=SENT, **LAST, **QUIET,
        )  # fmt: skip
        taken = self._take(looked, answer, self._settings)
        # A look that began before the newest choice has drawn the cards with the one before.
        taken.then(None, [self.data_step.data], None, js=MARK, **QUIET)

    def _wire_acts(self) -> None:
        """What a person does to a field, as the field itself tells it."""
        for name, field in {**self._asked, "memory": self.plan_step.memory, **self._settings}.items():
            if field is not self.data_step.data:
                kind = [json.dumps(claim) for claim in (name in self._settings, hasattr(field, "submit"))]
                js = Template(ACT).substitute(name=name, is_setting=kind[0], is_typed=kind[1])
                edited(field)(None, [field], None, js=js, **QUIET)
                if isinstance(field, gr.Textbox):
                    js = Template(LEFT).substitute(name=name, id=field.elem_id, is_setting=kind[0])
                    gr.on([field.blur, field.submit], None, [field], None, js=js, **QUIET)
        typed = [self.start_step.name, *self._settings.values()]
        left = [getattr(field, event) for field in typed for event in ("blur", "submit") if hasattr(field, event)]
        gr.on(left, None, None, None, js=LOOK, **QUIET)
        data, goal = self.data_step.data, self.goal_step.goal
        follow = Template(FOLLOW).substitute(goals=json.dumps(self._goals()), empty=json.dumps(shown("")))
        self.redraw_after(data.input(None, [data, goal], [goal, self.data_step.notice], js=follow, **QUIET))
        cards, brought = self.start_view.cards, [data, goal, self.data_step.notice]
        taken = Template(TAKE_CARD).substitute(follow=follow)
        self.redraw_after(cards.select(None, [data, goal], brought, js=taken, **QUIET))

    def _wire_next(self, step: str, button: gr.Button) -> None:
        following = STEPS[STEPS.index(step) + 1]
        outputs = [self.folds[step], self.folds[following]]
        moved = button.click(None, None, outputs, js=OPEN_NEXT, **QUIET)
        self.redraw_after(moved)
        moved.then(None, None, None, js=Template(FOCUS).substitute(step=following), **QUIET)

    def _goals(self) -> dict[str, dict[str, str]]:
        """Sample set -> goal that is chosen -> goal that the set brings, where it brings one."""
        data_sets = [info.id for info in self.services.datasets.list() if info.origin == "sample"]
        found = {data: {goal.id: data_step.goal_for(data, goal.id) for goal in goals()} for data in data_sets}
        return {data: {goal: new for goal, new in brought.items() if new} for data, brought in found.items()}

    def fills(
        self, listen: Listen, take: Take, inputs: Parts, outputs: Parts, js: str = PRESS, **options: Any
    ) -> Dependency:
        """As handle.FormHandle says. Each has an answer of its own, so that none is written over before it was
        taken."""
        answer = gr.JSON(None, visible=False)

        def taken(given: Given, request: gr.Request) -> Updates:
            answers = FormAnswers.of_state(given[self.state])
            filling, updates = take({**given, IS_HERE: is_local(request), READING: answers.reading})
            if filling is None:
                return {answer: gr.skip(), **updates}
            return {answer: {"revision": answers.revision, **vars(filling)}, **updates}

        outputs = outputs | {answer, self.data_step.data}
        event = listen(taken, inputs | {self.state}, outputs, js=js, **options)
        # what is not filled in is not said to be
        notices = {"notice": self.goal_step.notice, "file_notice": self.data_step.notice}
        self.redraw_after(self._take(event, answer, self._asked | notices))
        return event

    def _take(self, event: Dependency, answer: gr.JSON, fields: dict[str, Component]) -> Dependency:
        """After event, put what answer holds into fields."""
        known = json.dumps([(name, field.elem_id) for name, field in fields.items()])
        return event.then(
            None, [answer, *fields.values()], [*fields.values()], js=Template(TAKE).substitute(fields=known), **QUIET
        )

    def redraw_after(self, event: Dependency) -> Dependency:
        """For others on the page: Start says something else while a run trains."""
        return event.then(None, None, None, js=LOOK, **QUIET)

    # ---- handlers -------------------------------------------------------------------------------------------------
    def arrive(self) -> Updates:
        """The choices as they are now."""
        model, data, goal, plan = self.model_step, self.data_step, self.goal_step, self.plan_step
        seen = data.mark()
        now = {
            model.model: model.choices(self.planner.budget(HERE)),
            data.data: data.choices(),
            goal.preset: goal.preset_choices(),
            plan.memory: plan.memory_choices(self.services.monitor.newest()),
            plan.cards: plan.card_choices(self.services.monitor.newest()),
        }
        # What the page was served with is left alone: drawn anew, a group would lose the click that is just being made.
        changed = {field: [*map(tuple, field.choices)] != new for field, new in now.items()}
        return {data.seen: seen} | {
            field: gr.update(choices=new) if changed[field] else gr.skip() for field, new in now.items()
        }

    def look(self, answer: Component) -> Callable[[Given], Updates]:
        def looked(given: Given) -> Updates:
            """Everything that follows from the form, and, for answer, the plan's values (assets/form.js puts them
            in)."""
            self.services.standby.note_page(touched=True)
            form = self.read(given)
            result = self.result_of(form)
            values = shown_in(result.plan.recipe) if result.plan else {}
            if (rank := values.get("adapter.r")) is not None:
                values["adapter.r"] = {"value": rank, "choices": rank_choices(rank)}
            values |= self.plan_step.cards_filled(result, self.services.monitor.newest())
            answers = {"explicit": dict(form.answers.explicit)}
            filled = {"is_look": True, "revision": form.answers.revision, "values": values, "answers": answers}
            data = self.data_step
            # a set that came by a command, or on another page, has its card now: the list takes it too
            seen, choices, _ = data.now(given[data.seen], form.data)
            return {
                answer: filled,
                data.seen: seen,
                data.data: choices,
                **self._draw(form, result, given[data.row_at]),
            }

        return looked

    def _draw(self, form: Form, result: FormResult, row_at: Any) -> Updates:
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
            plan.experts: gr.update(visible=plan.asks_for_experts(result, explicit)),
            **plan.draw_of_pairs(result, explicit, form.data),
            plan.reset: gr.update(visible=bool(explicit), value=w.t("wizard.reset", count=len(explicit))),
            self.start_step.button: self.start_step.label(result)
            | ({"variant": "secondary"} if result.is_doubtful else {}),
            self.start_view.cards: self.start_view.draw_cards(result, form.data),
            self.start_view.bar: self.start_view.draw_bar(self._summary(form, result), result),
            self.again: gr.Timer(active=result.unsettled),
            **self.model_step.download.draw(
                form.model, model_step.download_bytes(form.model, result.shape) if result.shape else None
            ),
            **self.further.draw(form.answers, result.problem),
            **data.reading.draw(form.data, read_as),
            **data.comparing.draw(form),
            **data.brought.draw(form.data, form.answers.reading),
            **data.findings.draw(result.findings),
            **plan.findings.draw(result.findings),
        }

    def memory_has_moved(self, drawn: Any, memory: Any, cards: Any = ()) -> tuple[dict[str, bool], Any]:
        """Inputs: what the card was drawn from, plan-for, cards. Outputs: whether the free memory is so much another
        that a look is due; the cards as they are, where one may be chosen."""
        has_moved = False
        if self.services.snapshots.now().busy is None:
            with suppress(GarageError):
                has_moved = memory_view.has_moved(drawn, self.planner.budget(memory, cards).free_gib)
        machine = self.services.monitor.newest()
        return {"has_moved": has_moved}, self.plan_step.draw_cards(memory, machine)[self.plan_step.cards_now]

    def read(self, given: Given) -> Form:
        asked = {name: given[field] for name, field in self._asked.items()}
        memory, answers = given[self.plan_step.memory], FormAnswers.of_state(given[self.state])
        return Form(**asked, memory=memory, answers=answers, cards=self.planner.cards_of(memory, answers.cards))

    def result_of(self, form: Form) -> FormResult:
        return self.planner.look(form, self.w)

    def filling(self, recipe: Recipe, title: str, parent: str | None = None) -> tuple[Filling, Updates]:
        return self.fillings.of(recipe, title, parent)

    def _summary(self, form: Form, result: FormResult) -> Summary:
        goal = goal_step.chosen(form.goal)
        return Summary(
            goal_step.label(goal, self.w) if goal else self.w.t("wizard.none_yet"),
            model_step.summary(form.model, result, self.w),
            self.data_step.summary(form, result),
            count_line(result.findings, self.plan_step.findings.ids, self.w),
            form.name or "",
        )

    def download(self, given: Given) -> Updates:
        """Begin to download the chosen model, in the revision that is set."""
        part, model = self.model_step.download, given[self.model_step.model]
        revision = FormAnswers.of_state(given[self.state]).explicit.get("model.revision")
        said = part.begin(model, revision if isinstance(revision, str) and revision else None)
        return {part.notice: said, part.button: part.draw(model, None)[part.button]}
