"""`plan` as a function: the recommended settings for a model, and whether they fit."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from core.advice import run_doctor
from core.advice.case import Advice, Grounds, open_recipe
from core.advice.decisions import as_json
from core.advice.diagnosis import Diagnosis
from core.advice.goals import goal_of
from core.advice.plan import require_decided
from core.advice.recommend import recommend
from core.advice.run_doctor import Planned
from core.api.datasets import dataset_id, dataset_store
from core.data.facts import DataFacts
from core.data.preview import Preview, Previews
from core.errors import DataError, ModelError
from core.files import JsonObject
from core.memory import budget
from core.memory.record import Corrections, MemoryRecord, Rig
from core.memory.setup import Setup
from core.models.library import ModelRef, Models, config_of, shape_of
from core.models.shapes.shape import ModelShape
from core.queue.turns import busy
from core.recipe import Data
from core.runs.all import Runs
from core.system import devices
from core.system.machine import Machine, this_machine
from core.trial.dry_runs import DryRuns, DryRunState, Question
from core.workspace.folder import Workspace

# fields of an estimate that `--json` promises
NUMBERS = {"trainable_params", "idle_gib", "allocated_gib", "on_card_gib", "terms"}
PROMISED = {
    "method", "r", "lora_alpha", "target_modules", "max_length", "per_device_train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "num_train_epochs", "planned_steps", "verdict", "reasons",
    "alternatives", "warnings", "documented", "budget",
}  # fmt: skip


@dataclass(frozen=True)
class SettingsPlan:
    """A recommendation. refusal: the error with which a run on this data would end until a person names the answer;
    None if there is none. dry_run: the counted step, None if none was asked for."""

    advice: Advice
    shape: ModelShape
    findings: tuple[Diagnosis, ...] = ()
    refusal: DataError | None = None
    dry_run: DryRunState | None = None

    @property
    def fits(self) -> bool | None:
        """True if training fits into the free memory, also if only just (without the margin, or below the documented
        minimum); False if it does not; None if the needed or the free memory is unknown."""
        return None if self.advice.verdict == "unknown" else self.advice.verdict != "does_not_fit"

    def as_json(self) -> JsonObject:
        """Return what `plan --json` prints (docs/design.md, section 7)."""
        estimate = self.advice.estimate
        return {
            **{name: value for name, value in as_json(self.advice).items() if name in PROMISED},
            "estimate": estimate.model_dump(mode="json", include=NUMBERS) if estimate else None,
            "findings": [finding.model_dump(mode="json") for finding in self.findings],
            **({"dry_run": dry_run_json(self.dry_run)} if self.dry_run else {}),
        }


def plan(
    model: str,
    data: str | Path | None = None,
    *,
    goal: str | None = None,
    vram: float | None = None,
    dry_run: bool = False,
    workspace: str | Path | None = None,
) -> SettingsPlan:
    """Recommend settings for a model on this PC, or on a GPU of vram GB, with reasons, and whether they fit. Downloads
    no weights.

    model: a known one, owner/name, a folder, a config.json or a size such as 7B. data: a dataset, or a file, which is
    added to the workspace; its lengths decide more. dry_run: also count a training step, without weights or GPU. Raises
    GarageError.
    """
    space, machine = Workspace.open(workspace), this_machine()
    models, goal_id = Models(space), goal_of(goal).id if goal else None
    memory = budget.of_machine(machine) if vram is None else budget.planned(vram, platform.system())
    shape = shape_of(models, model)
    preview, counts, refusal = _read_data(models, model, str(data)) if data else (None, None, None)
    corrections = memory_corrections(space, machine, model) if vram is None else None
    advice = recommend(open_recipe(goal_id), Grounds(memory, shape, counts, corrections))
    findings = run_doctor.before(Planned.from_advice(advice.recipe, advice, preview)) if preview else []
    counted = counted_dry_run(models, model, advice.setup) if dry_run else None
    return SettingsPlan(advice, shape, tuple(findings), refusal, counted)


def memory_corrections(space: Workspace, machine: Machine, model: str) -> Corrections:
    """Return the factors by which the memory arithmetic for `model` is corrected: measured over calculated memory of
    earlier runs on this PC, of this model for each method, and of other models."""
    return MemoryRecord(space).corrections(
        Rig.from_machine(machine, devices.best_card(machine.nvidia)), Models(space).hub_id(model)
    )


def _read_data(models: Models, model: str, data: str) -> tuple[Preview, DataFacts, DataError | None]:
    """Return a preview of data (imported if it is a file) under model's tokenizer, its token counts, and the error of a
    run if nothing, or only a guess, shows which column is the answer.

    A model without a tokenizer (a bare size, a config.json) borrows the starter's; then the counts are estimates.
    """
    try:
        own = ModelRef.parse(models.hub_id(model)).id
    except ModelError:
        own = None
    source, store = dataset_id(models.workspace, data, Path.cwd()), dataset_store(models.workspace)
    refusal = None
    try:
        require_decided(store, Data(source=source), accept_guess=False)
    except DataError as error:
        refusal = error
    preview = Previews(store, models).get(source, own or "starter")
    facts = preview.facts()
    return preview, facts if own else facts.model_copy(update={"exact": False, "estimated": True}), refusal


def counted_dry_run(models: Models, model: str, setup: Setup) -> DryRunState:
    """Run the dry run of a setup for a model and wait for it; its process is ended afterwards. Returns its result, or
    the reason why there is none."""
    runs = DryRuns(lambda: busy(Runs(models.workspace)))
    try:
        return runs.wait(Question(config=config_of(models, model), setup=setup))
    except ModelError as error:
        return DryRunState(why=error.message)
    finally:
        runs.end_process()


def dry_run_json(result: DryRunState) -> dict[str, object]:
    """Return the object `dry_run`: the fields of `estimate`, the place of the peak, and how it was counted; or why
    there is none."""
    if result.answer is None:
        return {"why": result.why.model_dump() if result.why else None}
    answer, numbers = result.answer, result.answer.estimate.model_dump(mode="json", include=NUMBERS)
    at_peak = {"place": answer.place, "layer": answer.layer, "operation": answer.operation}
    return numbers | {"at_peak": at_peak, "layers_run": list(answer.layers_run), "seconds": answer.seconds}
