"""Computes the plan from the whole form: its answers give the plan, the preview, and what is missing.

No gradio. The only download is a model's config.json (from a hub, for its shape); a failed one is not tried again for a
minute, so that typing is not delayed.
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
from core.files import JsonObject
from core.memory import budget
from core.memory.budget import Budget
from core.memory.record import Corrections, MemoryRecord, Rig
from core.messages import Message, msg
from core.models import quantized
from core.models.library import ModelRef
from core.models.shapes.shape import ModelShape
from core.recipe import NO_DATA, Data, Recipe
from core.runs import further
from core.runs.folder import RunFolder
from core.system import cores, devices
from core.trial import computed_pace, pace
from core.trial.dry_runs import DryRunState, Question
from core.trial.pace import Pace
from webui.form.fields import FormAnswers, setting_error
from webui.form.reading.recipe_reading import choices_for
from webui.kit import format, samples
from webui.kit.wording import Wording
from webui.state.services import Services

HERE, PROCESSOR, SIZE = "here", "cpu", "size:"
FAILURE_KEPT_S = 60.0


@dataclass(frozen=True)
class Form:
    """The answers of the form as sent by the browser. They may be any JSON until a Planner has checked them."""

    goal: Any
    model: Any
    data: Any
    memory: object  # HERE, PROCESSOR or "size:<GB>"
    name: Any
    answers: FormAnswers
    cards: tuple[str, ...] = ()  # uuids of the chosen GPUs that can be used (Planner.cards_of)


@dataclass(frozen=True)
class FormResult:
    """The plan and everything known about it.

    missing: an answer that is needed before Start. problem: an answer that cannot be used. Both None: Start may be
    pressed. preview, shape, pace are None if unavailable; shape_problem and preview_problem have the reason.
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
    findings: tuple[Diagnosis, ...] = ()  # from the run doctor
    dry_run: DryRunState | None = None  # None on a processor, or without a shape

    @property
    def unsettled(self) -> bool:
        """True while the dry run is counting, whose number the card will show in some seconds."""
        return bool(self.dry_run and self.dry_run.is_counting)

    @property
    def limits(self) -> tuple[int, LongExamples, int]:
        """The plan's max_length, treatment of longer rows, and overlap of pieces; the defaults of a recipe without a
        plan."""
        data = self.plan.recipe.data if self.plan else Data(source=NO_DATA)
        return data.max_length, data.long_examples, data.overlap

    @property
    def seconds(self) -> float | None:
        """Return the duration of the planned steps in seconds at the known pace, copying of offloaded layers included;
        None if something is unknown."""
        if not (self.plan and self.preview and self.pace and self.plan.advice.planned_steps):
            return None
        recipe, advice = self.plan.recipe, self.plan.advice
        tokens = pace.planned_tokens(recipe, advice.planned_steps or 0, self.preview.counts_of(recipe.data))
        return pace.with_bus(pace.seconds(tokens, self.pace), self.pace, advice.bus_seconds)

    @property
    def is_long(self) -> bool:
        """True if the run would take more than 12 hours at the best known pace; False if the time is unknown."""
        return format.is_long(self.seconds)

    @property
    def is_doubtful(self) -> bool:
        """True if the run takes long or does not fit: Start may be pressed, but should look like a doubtful choice."""
        return self.is_long or bool(self.plan and self.plan.advice.verdict == "does_not_fit")


@dataclass
class Planner:
    """Computes the plan for the form; keeps configs and failures."""

    services: Services
    _failures: dict[tuple[str, str | None], tuple[float, Message]] = field(default_factory=dict)
    _refusals: dict[tuple[str, str | None], Message | None] = field(default_factory=dict)
    _configs: dict[tuple[str, str | None], JsonObject] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def plan_form(self, form: Form, w: Wording) -> FormResult:
        """Return the result for a form: its recipe planned with the model's shape and the data's preview, pace,
        findings and dry run, or what is missing or wrong. Never raises a GarageError: errors are part of the result."""
        missing = None
        if not isinstance(form.data, str) or not form.data:
            missing = msg("wizard.missing_data")
        elif not isinstance(form.model, str) or not form.model.strip():
            missing = msg("wizard.missing_model")
        try:
            parent = parent_of(self.services, form.answers)
            recipe, other_base = recipe_of(form), None
            if parent:
                then, given = parent.recipe(), recipe.model.id
                recipe = further.with_locked_settings(recipe, then)
                if given != then.model.id:
                    other_base = msg("further_card.other_base", name=parent.name, then=then.model.id, now=given)
            nvidia = self.services.monitor.newest().nvidia
            budgeted = budget.of_ranks(self.budget(form.memory, form.cards), nvidia, recipe.train.ranks)
        except GarageError as error:
            return FormResult(missing=missing, problem=error.message)
        shape, shape_problem = self._shape(recipe)
        preview, preview_problem = self._preview(recipe)
        missing = missing or self._undecided(recipe)
        if refusal := self._untrainable(recipe, shape, shape_problem):
            return FormResult(None, preview, shape, None, missing, refusal, refusal, preview_problem)
        try:
            corrections = None if budgeted.planned else self._corrections(budgeted, recipe.model.id)
            grounds = Grounds.from_preview(budgeted, shape, preview, corrections, form.answers.parent is not None)
            planned = plan.make(recipe, grounds, self._data_name(recipe, w))
        except GarageError as error:
            return FormResult(None, preview, shape, None, missing, error.message, shape_problem, preview_problem)
        problem = (
            preview.problem(planned.recipe.data.max_length, planned.recipe.data.long_examples)
            if preview
            else preview_problem
        )
        problem = problem or other_base
        if problem is None and missing is None and budgeted.planned:
            problem = msg("wizard.only_planned", gb=budgeted.sold_gb)
        known_pace = self._pace(planned, shape, preview) if preview else None
        return FormResult(
            planned, preview, shape, known_pace, missing, problem, shape_problem, preview_problem, self._note(budgeted,
                form),
            findings=tuple(run_doctor.before(Planned.from_advice(planned.recipe, planned.advice, preview)))
            if preview else (),
            dry_run=self._dry_run(planned, shape),
        )  # fmt: skip

    def _note(self, budgeted: Budget, form: Form) -> Message | None:
        """Return why a GPU that was planned for, chosen or expected will not be used: left out, or torch without CUDA;
        else None."""
        cards = self.services.monitor.newest().nvidia.cards
        chosen = (card for card in cards if form.memory == HERE and card.uuid in form.answers.cards)
        if reason := next((why for card in chosen if (why := devices.why_left_out(card))), None):
            return reason
        build = devices.torch_build()
        if budgeted.kind == "card" and not budgeted.planned and build and not build.knows_cards:
            return msg("wizard.torch_without_cuda", torch=build.version or "?")
        expected = cards if budgeted.kind == "cpu" and form.memory != PROCESSOR else ()
        return next((why for card in expected if (why := devices.why_left_out(card))), None)

    def device(self, choice: object, budgeted: Budget) -> str | None:
        """Return the devices that the run's process may use (core/system/devices), None for a plan for another PC.
        choice: the memory to plan for."""
        return devices.CPU if choice == PROCESSOR else budget.device_of(budgeted, self.services.monitor.newest().nvidia)

    def cards_of(self, choice: object, chosen: Sequence[str]) -> tuple[str, ...]:
        """Return the chosen GPUs (uuids) that can be used; () unless this PC has several and the plan is for it.
        choice: the memory to plan for."""
        usable = {card.uuid for card in devices.may_be_chosen(self.services.monitor.newest().nvidia)}
        return tuple(uuid for uuid in chosen if uuid in usable) if choice == HERE and len(usable) > 1 else ()

    def budget(self, choice: object, cards: object = ()) -> Budget:
        """Return the budget for a choice of plan-for: this PC, its processor, or a GPU size. cards: uuids; without a
        usable one, this PC decides. Raises RecipeError for an invalid size."""
        machine = self.services.monitor.newest()
        if isinstance(choice, str) and choice.startswith(SIZE):
            try:
                size = float(choice.removeprefix(SIZE))
            except ValueError:
                size = 0.0
            return budget.planned(size, platform.system())
        if choice == PROCESSOR:
            return budget.of_cpu(machine)
        uuids = cards if isinstance(cards, list | tuple) else ()
        chosen = [card for card in devices.may_be_chosen(machine.nvidia) if card.uuid in uuids]
        return (
            budget.of_chosen(chosen, machine.nvidia, machine.ram_free_bytes) if chosen else budget.of_machine(machine)
        )

    def budget_or_here(self, choice: object, cards: object = ()) -> Budget:
        """Return `budget`, but with this PC in place of an invalid size, whose error the plan's card shows."""
        try:
            return self.budget(choice, cards)
        except GarageError:
            return self.budget(HERE)

    def _shape(self, recipe: Recipe) -> tuple[ModelShape | None, Message | None]:
        """Return (shape, None) of the model, or (None, why it is unknown). A failure is not tried again for
        FAILURE_KEPT_S."""
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

    def _untrainable(self, recipe: Recipe, shape: ModelShape | None, problem: Message | None) -> Message | None:
        """Return why the base cannot be trained, by its config.json, or None if it can or that is unknown; kept after
        the first answer. problem: why it has no shape."""
        if shape is None and not (problem and problem.key.startswith("shape.")):  # config.json is not available
            return None
        key = (recipe.model.id, recipe.model.revision)
        if key in self._refusals:
            return self._refusals[key]
        may_train = shape is None or quantized.can_train(shape.quantized)
        try:
            refusal = self.services.models.refusal(*key)
        except GarageError as error:
            return None if may_train else error.message
        self._refusals[key] = refusal
        return refusal

    def _corrections(self, budgeted: Budget, model_id: str) -> Corrections:
        """Return the corrections from measurements of earlier runs with this model on the plan's GPU or processor."""
        machine = self.services.monitor.newest()
        card = next(
            (card for card in machine.nvidia.cards if budgeted.kind == "card" and card.uuid == budgeted.card_uuid), None
        )
        return MemoryRecord(self.services.workspace).corrections(Rig.from_machine(machine, card), model_id)

    def _preview(self, recipe: Recipe) -> tuple[Preview | None, Message | None]:
        """Return (the data's preview, None), or (None, why there is none); (None, None) without data."""
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
        """Return a message if nothing shows which column of the dataset is the answer, else None, also if it cannot be
        read."""
        data = recipe.data
        try:
            report = self.services.datasets.report(data.source, data.format, Choices.from_data(data))
        except GarageError:  # reported as a problem of the dataset
            return None
        return msg("wizard.missing_answer") if report.undecided else None

    def _data_name(self, recipe: Recipe, w: Wording) -> str:
        """Return the dataset's title; "" without data or if it is gone."""
        if recipe.data.source == NO_DATA:
            return ""
        try:
            return samples.title(self.services.datasets.get(recipe.data.source), w)
        except GarageError:
            return ""

    def _pace(self, planned: Plan, shape: ModelShape | None, preview: Preview) -> Pace | None:
        """Return the pace of the planned training: that of an earlier run of the same kind on this PC, else one
        computed from the size of the model; for another PC's hardware always the computed one.

        None for several processes without such a run, and where it cannot be computed. Training by rewards mostly
        writes answers: its pace is that of the last try, None without one and for another PC's hardware.
        """
        recipe = planned.recipe
        budgeted = planned.advice.budget
        if recipe.rewards:
            return None if budgeted.planned else self._tried_pace(recipe, preview)
        recomputes = bool(recipe.train.gradient_checkpointing)
        computed = computed_pace.compute(budgeted, shape, recomputes, cores.usable()) if shape else None
        if budgeted.planned:
            return computed
        device = budget.device_of(budgeted, self.services.monitor.newest().nvidia)
        measured = pace.from_runs(self.services.runs, recipe, budgeted.kind == "card", device)
        return measured or (computed if recipe.train.ranks == 1 else None)

    def _tried_pace(self, recipe: Recipe, preview: Preview) -> Pace | None:
        """Return the pace at which the app's last try wrote its answers; None if that one was of another model, data or
        rewards, or has not ended."""
        progress = self.services.trying.progress()
        tried, trial = progress.recipe, progress.trial
        if not (tried and trial and trial.seconds) or _what_is_drawn(tried) != _what_is_drawn(recipe):
            return None
        counts = preview.counts_of(recipe.data)
        tokens = counts.tokens / max(1, counts.pieces)
        return Pace(tokens_per_second=tokens / trial.seconds, source=msg("pace.from_try"))

    def _dry_run(self, planned: Plan, shape: ModelShape | None) -> DryRunState | None:
        """Return the state of the dry run of the plan's step: its result, why there is none, or still counting.
        Requested here, never waited for.

        None on a CPU, and for a model of the catalogue until its config.json is here: its widths alone may be those of
        another model (experts, hybrid layers).
        """
        model = planned.recipe.model
        if shape is None or planned.advice.budget.kind == "cpu" or shape.source == "catalogue":
            return None
        try:
            config = self._config(model.id, model.revision)  # read from this PC or downloaded, and cached
        except GarageError as error:
            return DryRunState(why=error.message)
        return self.services.dry_runs.look(Question(config=config, setup=planned.advice.setup))

    def _config(self, model_id: str, revision: str | None) -> JsonObject:
        """Return a model's config.json, read once; that of a hub model is downloaded. Raises ModelError."""
        key = (model_id, revision)
        if key not in self._configs:
            self._configs[key] = self.services.models.config(model_id, revision)
        return self._configs[key]


def _what_is_drawn(recipe: Recipe) -> tuple[object, ...]:
    """Return the parts of a recipe that decide how long its model takes to write answers: model, method, dataset and
    rewards. A try of a recipe tells the pace of another one with the same parts."""
    return recipe.model.id, recipe.adapter.method, recipe.data.source, recipe.rewards


def parent_of(services: Services, answers: FormAnswers) -> RunFolder | None:
    """Return the run that a form continues, or None. Its adapter was checked when it was chosen, and is again when the
    run is created. Raises RunError for a run that is gone."""
    return services.runs.get(answers.parent) if answers.parent else None


def recipe_of(form: Form) -> Recipe:
    """Return a form as a recipe that contains only the person's decisions. Raises GarageError for invalid ones."""
    model = form.model.strip() if isinstance(form.model, str) and form.model.strip() else "starter"
    ModelRef.parse(model)
    sections = form.answers.sections()
    chosen = {
        name: value for name, value in choices_for(form.data, form.answers.reading).chosen.items() if name != "rated"
    }  # rated: set by the objective
    value = {
        "name": form.name if isinstance(form.name, str) else "",
        "goal": form.goal if isinstance(form.goal, str) and form.goal else None,
        "model": sections.get("model", {}) | {"id": model},
        "data": sections.get("data", {})
        | {**chosen, "source": form.data if isinstance(form.data, str) and form.data else NO_DATA},
        "adapter": sections.get("adapter", {}),
        "train": sections.get("train", {}) | ({"ranks": len(form.cards)} if form.cards else {}),
        "rewards": form.answers.rewards,
    }
    try:
        return Recipe.parse(value, where="form")
    except RecipeError as error:
        raise setting_error(error) from error
