"""Computes the plan from the whole form: one look at its answers gives the plan, the preview, and what is missing.

No gradio. Nothing is downloaded here except a model's config.json (hub, for its shape), whose failure is remembered for
a minute so that typing goes on.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from core.advice import plan, run_doctor
from core.advice.case import Grounds
from core.advice.diagnosis import Diagnosis
from core.advice.plan import Plan
from core.advice.run_doctor import Planned
from core.data.labels import Learning, LongExamples
from core.data.preview import Preview
from core.data.reading.choices import Choices
from core.errors import GarageError, RecipeError
from core.memory import budget
from core.memory.budget import Budget
from core.memory.record import Corrections, MemoryRecord, Rig
from core.messages import Message, msg
from core.models import quantised
from core.models.library import ModelRef
from core.models.shapes.shape import ModelShape
from core.recipe import Data, Recipe
from core.runs import further
from core.runs.folder import RunFolder
from core.system import cores, devices
from core.trial import computed_pace, pace
from core.trial.dry_runs import DryRunState, Question
from core.trial.pace import Pace, StandIn
from core.workspace.saved_recipes import NO_DATA
from webui.form.fields import FormAnswers, refused
from webui.form.reading.brought import choices_for
from webui.kit import samples
from webui.kit.wording import Wording
from webui.state.services import Services

HERE, PROCESSOR, SIZE = "here", "cpu", "size:"
FAILURE_KEPT_S = 60.0
LONG_S = 12 * 3600.0


@dataclass(frozen=True)
class Form:
    """The answers of the form as they arrived: any JSON may be in them until a Planner has looked."""

    goal: Any
    model: Any
    data: Any
    memory: Any  # HERE, PROCESSOR or "size:<GB>"
    name: Any
    answers: FormAnswers
    cards: tuple[str, ...] = ()  # uuids of those that were chosen and can be used (Planner.cards_of)


@dataclass(frozen=True)
class FormResult:
    """missing: what has to be given before Start. problem: what cannot be. Both None: Start may be pressed.

    preview, shape, pace are None where they could not be had; shape_problem and preview_problem then say why.
    """

    plan: Plan | None = None
    preview: Preview | None = None
    shape: ModelShape | None = None
    pace: Pace | None = None
    missing: Message | None = None
    problem: Message | None = None
    shape_problem: Message | None = None
    preview_problem: Message | None = None
    note: Message | None = None  # about this PC, beside the plan
    measuring: bool = False  # the pace will be known in some seconds
    findings: tuple[Diagnosis, ...] = ()  # of the run doctor
    dry_run: DryRunState | None = None  # None where a plan has none: on a processor, or without a shape

    @property
    def unsettled(self) -> bool:
        """Whether a number that the card shows will be known in some seconds."""
        return self.measuring or bool(self.dry_run and self.dry_run.is_counting)

    @property
    def limits(self) -> tuple[int, LongExamples, int]:
        """max_length, what is done to longer rows, and the overlap of pieces, as the plan has them."""
        data = self.plan.recipe.data if self.plan else Data(source=NO_DATA)
        return data.max_length, data.long_examples, data.overlap

    @property
    def seconds(self) -> float | None:
        """How long the planned steps take at the pace that is known; None where something is not."""
        if not (self.plan and self.preview and self.pace and self.plan.advice.planned_steps):
            return None
        recipe, advice = self.plan.recipe, self.plan.advice
        tokens = pace.planned_tokens(recipe, advice.planned_steps or 0, self.preview.counts_of(recipe.data))
        return pace.with_bus(pace.seconds(tokens, self.pace), self.pace, advice.bus_seconds)

    @property
    def is_long(self) -> bool:
        """Whether it would take longer than a night, as the best pace that is known tells."""
        return (self.seconds or 0.0) > LONG_S

    @property
    def is_doubtful(self) -> bool:
        """Whether Start may be pressed and should not look as if all were well."""
        return self.is_long or bool(self.plan and self.plan.advice.verdict == "does_not_fit")


@dataclass
class Planner:
    services: Services
    _failures: dict[tuple[str, str | None], tuple[float, Message]] = field(default_factory=dict)
    _refusals: dict[tuple[str, str | None], Message | None] = field(default_factory=dict)
    _configs: dict[tuple[str, str | None], dict[str, Any]] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def look(self, form: Form, w: Wording) -> FormResult:
        """Never raises a GarageError: whatever is wrong is in the answer."""
        missing = None
        if not isinstance(form.data, str) or not form.data:
            missing = msg("wizard.missing_data")
        elif not isinstance(form.model, str) or not form.model.strip():
            missing = msg("wizard.missing_model")
        try:
            recipe = recipe_of(form)
            recipe, other_base = self._continued(recipe, form)
            nvidia = self.services.monitor.newest().nvidia
            budgeted = budget.of_ranks(self.budget(form.memory, form.cards), nvidia, recipe.train.ranks)
        except GarageError as error:
            return FormResult(missing=missing, problem=error.message)
        shape, shape_problem = self._shape(recipe)
        preview, preview_problem = self._preview(recipe)
        missing = missing or self._undecided(recipe)
        if refused := self._refused(recipe, shape, shape_problem):
            return FormResult(None, preview, shape, None, missing, refused, refused, preview_problem)
        try:
            corrections = None if budgeted.planned else self._corrections(budgeted, recipe.model.id)
            grounds = Grounds.from_preview(budgeted, shape, preview, corrections, form.answers.parent is not None)
            made = plan.make(recipe, grounds, self._data_name(recipe, w))
        except GarageError as error:
            return FormResult(None, preview, shape, None, missing, error.message, shape_problem, preview_problem)
        problem = (
            preview.problem(made.recipe.data.max_length, made.recipe.data.long_examples) if preview else preview_problem
        )
        problem = problem or other_base
        if problem is None and missing is None and budgeted.planned:
            problem = msg("wizard.only_planned", gb=budgeted.sold_gb)
        known_pace = self._pace(made, shape, preview) if preview else None
        return FormResult(
            made, preview, shape, known_pace, missing, problem, shape_problem, preview_problem, self._note(budgeted,
                form),
            measuring=self.services.pace_probe.busy,
            findings=tuple(run_doctor.before(Planned.from_advice(made.recipe, made.advice, preview)))
            if preview else (),
            dry_run=self._dry_run(made, shape),
        )  # fmt: skip

    def _note(self, budgeted: Budget, form: Form) -> Message | None:
        """Why a card will not be used that is planned for or was chosen, or that a person expects to be."""
        cards = self.services.monitor.newest().nvidia.cards
        chosen = (card for card in cards if form.memory == HERE and card.uuid in form.answers.cards)
        if gone := next((why for card in chosen if (why := devices.why_left_out(card))), None):
            return gone
        build = devices.torch_build()
        if budgeted.kind == "card" and not budgeted.planned and build and not build.knows_cards:
            return msg("wizard.torch_without_cuda", torch=build.version or "?")
        expected = cards if budgeted.kind == "cpu" and form.memory != PROCESSOR else ()
        return next((why for card in expected if (why := devices.why_left_out(card))), None)

    def _continued(self, recipe: Recipe, form: Form) -> tuple[Recipe, Message | None]:
        """recipe with what belongs to the run that it continues, and what is wrong with the base that was chosen."""
        parent = parent_of(self.services, form.answers)
        if parent is None:
            return recipe, None
        then = parent.recipe()
        other = None
        if recipe.model.id != then.model.id:
            other = msg("further_card.other_base", name=parent.name, then=then.model.id, now=recipe.model.id)
        return further.held_to(recipe, then), other

    def device(self, choice: Any, budgeted: Budget) -> str | None:
        """What a run's process is told that is to have what it was planned for (core/system/devices)."""
        return devices.CPU if choice == PROCESSOR else budget.device_of(budgeted, self.services.monitor.newest().nvidia)

    def cards_of(self, choice: Any, chosen: Sequence[str]) -> tuple[str, ...]:
        """Those of chosen that can be used, where there is a choice."""
        there = {card.uuid for card in devices.may_be_chosen(self.services.monitor.newest().nvidia)}
        return tuple(uuid for uuid in chosen if uuid in there) if choice == HERE and len(there) > 1 else ()

    def budget(self, choice: Any, cards: Any = ()) -> Budget:
        """cards: uuids. Raises RecipeError for a size that cannot be; without a card that is there it is what is
        here."""
        machine = self.services.standby.machine_for_run(self.services.monitor.newest())
        if isinstance(choice, str) and choice.startswith(SIZE):
            try:
                size = float(choice.removeprefix(SIZE))
            except ValueError:
                size = 0.0
            return budget.planned(size, platform.system())
        if choice == PROCESSOR:
            return budget.of_cpu(machine)
        wanted = cards if isinstance(cards, list | tuple) else ()
        chosen = [card for card in devices.may_be_chosen(machine.nvidia) if card.uuid in wanted]
        return (
            budget.of_chosen(chosen, machine.nvidia, machine.ram_free_bytes) if chosen else budget.of_machine(machine)
        )

    def budget_or_here(self, choice: Any, cards: Any = ()) -> Budget:
        """For lists beside the plan, whose card says what is wrong with a size that cannot be."""
        try:
            return self.budget(choice, cards)
        except GarageError:
            return self.budget(HERE)

    def _shape(self, recipe: Recipe) -> tuple[ModelShape | None, Message | None]:
        key = (recipe.model.id, recipe.model.revision)
        with self._guard:
            failed = self._failures.get(key)
        if failed and time.monotonic() - failed[0] < FAILURE_KEPT_S:
            return None, failed[1]
        try:
            return self.services.models.shape(*key), None
        except GarageError as error:
            with self._guard:
                self._failures = {k: v for k, v in self._failures.items() if time.monotonic() - v[0] < FAILURE_KEPT_S}
                self._failures[key] = (time.monotonic(), error.message)
            return None, error.message

    def _refused(self, recipe: Recipe, shape: ModelShape | None, problem: Message | None) -> Message | None:
        """Why the base cannot be trained, as its config.json says; asked once, but for what can be trusted meanwhile.
        problem: why it has no shape."""
        if shape is None and not (problem and problem.key.startswith("shape.")):  # there is no config.json to be had
            return None
        key = (recipe.model.id, recipe.model.revision)
        if key in self._refusals:
            return self._refusals[key]
        try:
            found = self.services.models.refusal(*key)
        except GarageError as error:
            return None if shape is None or quantised.can_train(shape.quantised) else error.message
        if found is None or not found.key.startswith("trust."):
            self._refusals[key] = found
        return found

    def _corrections(self, budgeted: Budget, model_id: str) -> Corrections:
        """What earlier runs measured on the card, or the processor, that the plan is for."""
        machine = self.services.monitor.newest()
        card = next(
            (card for card in machine.nvidia.cards if budgeted.kind == "card" and card.uuid == budgeted.card_uuid), None
        )
        return MemoryRecord(self.services.workspace).corrections(Rig.from_machine(machine, card), model_id)

    def _preview(self, recipe: Recipe) -> tuple[Preview | None, Message | None]:
        if recipe.data.source == NO_DATA:
            return None, None
        try:
            return self.services.previews.get(
                recipe.data.source,
                recipe.model.id,
                Learning.from_recipe(recipe),
                recipe.data.format,
                Choices.from_data(recipe.data),
            ), None
        except GarageError as error:
            return None, error.message

    def _undecided(self, recipe: Recipe) -> Message | None:
        """What is missing if nothing shows which column of the set is the answer."""
        data = recipe.data
        try:
            report = self.services.datasets.report(data.source, data.format, Choices.from_data(data))
        except GarageError:  # said as a problem of the set
            return None
        return msg("wizard.missing_answer") if report.undecided else None

    def _data_name(self, recipe: Recipe, w: Wording) -> str:
        if recipe.data.source == NO_DATA:
            return ""
        try:
            return samples.title(self.services.datasets.get(recipe.data.source), w)
        except GarageError:
            return ""

    def _pace(self, made: Plan, shape: ModelShape | None, preview: Preview) -> Pace | None:
        """From a run of the same kind on this PC, else from a step of this plan that is timed now. Until it was, and
        for a GPU that is only planned for, computed for a large model, else None."""
        recipe = made.recipe
        budgeted = made.advice.budget
        recomputes = bool(recipe.train.gradient_checkpointing)
        computed = computed_pace.compute(budgeted, shape, recomputes, cores.usable()) if shape else None
        if budgeted.planned:
            return computed
        device = budget.device_of(budgeted, self.services.monitor.newest().nvidia)
        found = pace.from_runs(self.services.runs, recipe, budgeted.kind == "card", device)
        if (
            found is not None or shape is None or recipe.adapter.trains_experts or recipe.train.ranks > 1
        ):  # what is timed has neither
            return found
        counts = preview.counts_of(recipe.data)
        speed = self.services.pace_probe.look(
            StandIn.from_plan(
                shape, made.advice.setup, counts.tokens / max(1, counts.pieces), counts.learned_percent / 100, device
            )
        )
        if speed is None:
            return computed
        own, steps = preview.facts().validation, made.advice.planned_steps or 0
        measuring = pace.measuring_share(recipe, steps, counts, len(preview.rows), own)
        return pace.from_step(speed, measuring)

    def _dry_run(self, made: Plan, shape: ModelShape | None) -> DryRunState | None:
        """What the step itself would hold, as far as it is known; it is asked for, never waited for."""
        kind = made.advice.budget.kind
        if shape is None or kind == "cpu":
            return None
        model, config = made.recipe.model, shape.config()
        if shape.source != "catalogue":
            # on this PC, or once more over the network: kept with the answers of the planner
            try:
                config = self._config(model.id, model.revision)
            except GarageError as error:
                return DryRunState(why=error.message)
        return self.services.dry_runs.look(Question(config=config, setup=made.advice.setup))

    def _config(self, model_id: str, revision: str | None) -> dict[str, Any]:
        """Read once: a hub model's comes over the network."""
        key = (model_id, revision)
        if key not in self._configs:
            self._configs[key] = self.services.models.config(model_id, revision)
        return self._configs[key]


def parent_of(services: Services, answers: FormAnswers) -> RunFolder | None:
    """The run that a form continues. Raises RunError where it cannot be continued (any more)."""
    if not answers.parent:
        return None
    run = services.runs.get(answers.parent)
    further.check(run)
    return run


def recipe_of(form: Form) -> Recipe:
    """The recipe that a form asks for, only what the person decided in it. Raises GarageError for what cannot be."""
    model = form.model.strip() if isinstance(form.model, str) and form.model.strip() else "starter"
    ModelRef.parse(model)
    sections = form.answers.sections()
    brought = {
        name: said for name, said in choices_for(form.data, form.answers.reading).chosen.items() if name != "rated"
    }  # by the objective
    value = {
        "name": form.name if isinstance(form.name, str) else "",
        "goal": form.goal if isinstance(form.goal, str) and form.goal else None,
        "model": sections.get("model", {}) | {"id": model},
        "data": sections.get("data", {})
        | {**brought, "source": form.data if isinstance(form.data, str) and form.data else NO_DATA},
        "adapter": sections.get("adapter", {}),
        "train": sections.get("train", {}) | ({"ranks": len(form.cards)} if form.cards else {}),
    }
    try:
        return Recipe.parse(value, where="form")
    except RecipeError as error:
        raise refused(error) from error
