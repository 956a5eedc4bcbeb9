"""`train` as a function, and its parts: a recipe, the run that is made of it, and its worker until the end."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from filelock import Timeout

from core.advice import plan, run_doctor
from core.advice.case import Grounds
from core.advice.diagnosis import Diagnosis
from core.advice.run_doctor import Planned
from core.api.datasets import dataset_store, with_imported_data
from core.api.planning import memory_corrections
from core.data.labels import Learning
from core.data.preview import Preview, Previews
from core.data.reading.choices import Choices
from core.data.store import DatasetStore
from core.errors import BusyError, GarageError, RecipeError, RunError
from core.files import LOOK_S, JsonObject
from core.memory import budget
from core.messages import Message, as_text, msg
from core.models.library import ModelRef, Models
from core.queue import queue
from core.queue.supervisor import spawn_worker
from core.queue.turns import busy
from core.recipe import Recipe
from core.runs import further
from core.runs.all import Runs
from core.runs.folder import RunFolder, Status
from core.runs.run_json import RunFacts
from core.runs.states import TERMINAL, State
from core.system import devices
from core.system.gpu import Card, Nvidia
from core.system.machine import this_machine
from core.system.processes import kill_tree
from core.workspace import foreign_recipes, writable
from core.workspace.folder import Workspace

LOOKS_S = 1.0  # between two looks at a run's status


def train(
    recipe: str | Path | Mapping[str, object],
    *,
    settings: Mapping[str, object] = MappingProxyType({}),
    parent: str | None = None,
    cpu: bool = False,
    cards: str | None = None,
    answer: str = "",
    accept_guess: bool = False,
    on_status: Callable[[Status], None] = lambda status: None,
    workspace: str | Path | None = None,
) -> RunFolder:
    """Train one run in a process of its own, wait for its end and return it: completed, stopped, or paused by Ctrl-C.

    recipe: a file or its contents; what it leaves open is planned, and the plan's warnings are Python warnings.
    settings: changes of it, {"train.max_steps": 40}. parent: a finished run whose adapter it starts from. cards: GPUs,
    "0,1". answer, accept_guess: as of the command. on_status: called each second with step and stage. Raises RunError
    if the run fails or its process was killed, and GarageError for one that cannot begin.
    """
    space = Workspace.open(workspace)
    chosen = cards_of(cards, cpu)
    value, where, relative_to = _read(recipe)
    changes = dict(settings) | ({"train.ranks": len(chosen)} if chosen else {})
    parsed = Recipe.parse(with_changes(value, changes) if isinstance(value, dict) else value, where=where)
    parent_run = Runs(space).find(parent) if parent else None
    prepared = prepare(space, parsed, relative_to, parent_run, cpu, chosen, answer, accept_guess)
    for sentence in prepared.warnings:
        warnings.warn(str(sentence), stacklevel=2)
    for finding in prepared.findings:
        warnings.warn(as_text(map(str, (finding.evidence, finding.meaning, finding.remedy)), "en"), stacklevel=2)
    run = prepared.begin()
    status = follow(run, space, on_status)
    if status.state in (State.FAILED, State.INTERRUPTED):
        raise RunError(status.message or msg("run.never_started", code="-"), status.advice)
    return run


def _read(recipe: str | Path | Mapping[str, object]) -> tuple[object, str, Path]:
    """Return a recipe's values, its name in errors, and the folder that its paths start from. What became of the keys
    of another tool's recipe are Python warnings."""
    if isinstance(recipe, Mapping):
        return deepcopy(dict(recipe)), "-", Path.cwd()
    file = Path(recipe)
    value, foreign = foreign_recipes.read(file)
    for sentence in foreign.texts("changed", "left_out", "open") if foreign else ():
        warnings.warn(str(sentence), stacklevel=3)
    return value, file.name, file.absolute().parent


def with_changes(value: JsonObject, settings: Mapping[str, object]) -> JsonObject:
    """Change value, a parsed recipe, in place by settings {"section.name": value}, and return it; missing sections are
    created, and whether a setting exists is not checked. Raises RecipeError for a name with an empty part, or below a
    value that is no section."""
    for name, setting in settings.items():
        keys = name.strip().split(".")
        section = value
        for key in keys[:-1]:
            section = section.setdefault(key, {}) if isinstance(section, dict) else None
        if not all(keys) or not isinstance(section, dict):
            raise RecipeError("recipe.bad_setting", setting=f"{name}={setting}"[:200])
        section[keys[-1]] = setting
    return value


def cards_of(option: str | None, cpu: bool) -> list[Card]:
    """Return the GPUs that an option such as 0,1 names; [] without one. Raises RecipeError for unknown GPUs, or with
    cpu."""
    if option is None:
        return []
    if cpu:
        raise RecipeError("device.cards_or_cpu")
    return devices.cards_named([word.strip() for word in option.split(",")], devices.read_cards())


@dataclass(frozen=True)
class PreparedRun:
    """A complete recipe with its advice, from which a run can begin here or wait in the app's queue."""

    space: Workspace
    made: plan.Plan
    device: str | None
    parent: RunFolder | None
    preview: Preview | None

    @property
    def warnings(self) -> list[Message]:
        """The advice's warnings that no finding covers."""
        return [warning for warning in self.made.advice.warnings if warning.key not in run_doctor.COVERED_WARNINGS]

    @property
    def findings(self) -> Sequence[Diagnosis]:
        """The run doctor's findings in the plan."""
        planned = Planned.from_advice(self.made.recipe, self.made.advice, self.preview) if self.preview else None
        return run_doctor.before(planned) if planned else ()

    def begin(self) -> RunFolder:
        """Create the run, which a worker then has to carry out. Raises BusyError while another is at work."""

        def create_unless_busy(recipe: Recipe, facts: RunFacts) -> RunFolder:
            """Create the run as one of a command. Raises BusyError while another is at work."""
            runs = Runs(self.space)
            refuse_while_busy(runs)
            return runs.create(recipe, "command", facts)

        return plan.submit(self.made, dataset_store(self.space), create_unless_busy, self.device, self.parent)

    def enqueue(self, at: str | None) -> tuple[RunFolder, Message]:
        """Create the run at the end of the app's queue, and return it with a sentence on its place. at: time of day
        before which it does not start, None for none. Raises RecipeError for an invalid time, DataError for data that
        cannot be read or needs a decision, BusyError, RunError."""
        return plan.submit(
            self.made,
            dataset_store(self.space),
            lambda recipe, facts: queue.create(self.space, recipe, facts, at),
            self.device,
            self.parent,
        )


def prepare(
    space: Workspace,
    recipe: Recipe,
    relative_to: Path,
    parent: RunFolder | None = None,
    cpu: bool = False,
    cards: Sequence[Card] = (),
    answer: str = "",
    accept_guess: bool = False,
) -> PreparedRun:
    """Import a recipe's data and plan its open settings; no run is created yet. Raises GarageError."""
    writable.require(space)
    if parent:
        recipe = further.recipe_to_continue(recipe, parent)
    if ModelRef.parse(recipe.model.id).kind == "library":
        Models(space).library_folder(recipe.model.id)
    recipe, datasets = with_imported_data(space, recipe, relative_to, answer), dataset_store(space)
    plan.require_decided(datasets, recipe.data, accept_guess)
    preview = _preview_of(space, datasets, recipe)
    grounds = _grounds_of(space, recipe, preview, cpu, cards, continues=parent is not None)
    made = plan.make(recipe, grounds, datasets.get(recipe.data.source).name)
    device = devices.CPU if cpu else budget.device_of(made.advice.budget, devices.read_cards())
    return PreparedRun(space, made, device, parent, preview)


def refuse_while_busy(runs: Runs) -> None:
    """Raise BusyError, with its name, if a run is at work, was started by a command, or is next in the queue of an open
    app."""
    if at_work := busy(runs):
        raise BusyError("run.already_training", name=at_work.name)


def _preview_of(space: Workspace, datasets: DatasetStore, recipe: Recipe) -> Preview | None:
    """Return a preview of the data with its token counts, or None if data or model are missing: the run reports why."""
    data = recipe.data
    with contextlib.suppress(GarageError):
        return Previews(datasets, Models(space)).get(
            data.source, recipe.model.id, Learning.from_recipe(recipe), data.format, Choices.from_data(data)
        )
    return None


def _grounds_of(
    space: Workspace,
    recipe: Recipe,
    preview: Preview | None,
    cpu: bool = False,
    cards: Sequence[Card] = (),
    continues: bool = False,
) -> Grounds:
    """Return the grounds of a plan: this PC, the model and the data.

    Missing parts are left out: the plan mentions it, and the run reports why.
    """
    machine, shape = this_machine(Nvidia() if cpu else None), None
    with contextlib.suppress(GarageError):
        shape = Models(space).shape(recipe.model.id, recipe.model.revision)
    available = budget.of_chosen(cards, machine.nvidia, machine.ram_free_bytes) if cards else budget.of_machine(machine)
    available = budget.of_ranks(available, machine.nvidia, recipe.train.ranks)
    return Grounds.from_preview(
        available, shape, preview, memory_corrections(space, machine, recipe.model.id), continues
    )


def follow(
    run: RunFolder,
    space: Workspace,
    on_status: Callable[[Status], None] = lambda status: None,
    on_pause: Callable[[], None] = lambda: None,
    environment: Mapping[str, str] = MappingProxyType({}),
    looks_s: float = LOOKS_S,
) -> Status:
    """Start the worker of run, call on_status every looks_s seconds until it ends, and return the run's status; Ctrl-C
    requests a pause and calls on_pause, a second one kills it. A run that its worker left without an end is marked as
    interrupted, or as failed if it never began.

    environment: variables for the worker, beside the usual ones.
    """
    process = spawn_worker(space, run, environment)
    while process.poll() is None:
        try:
            on_status(run.status())
            time.sleep(looks_s)
        except KeyboardInterrupt:
            if run.requested():
                kill_tree(process.pid)
            else:
                on_pause()
                run.request("pause")
    status = Runs(space).status(run)
    if status.state not in TERMINAL | {State.PAUSED}:
        changes = {"state": State.FAILED, "message": msg("run.never_started", code=str(process.returncode))}
        status = status if status.state == State.INTERRUPTED else status.model_copy(update=changes)
        with (
            contextlib.suppress(Timeout),
            run.lock().acquire(timeout=LOOK_S),
        ):  # on Timeout another process is changing it
            run.write_status(status)
    return status
