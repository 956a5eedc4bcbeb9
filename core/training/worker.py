"""One run in its own process: `python -m core.training.worker --workspace DIR RUN_ID`.

Gets the model, reads and tokenizes the data, loads the base, trains, saves. Writes only to the run folder; the output
of libraries goes to train.log, which the starting process opens as this one's output. Exit: 0 completed, 1 failed,
3 stopped, 4 paused.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import platform
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before torch, which making the starter loads: after it, reading the data ended the process on some Windows PCs.
import pyarrow  # noqa: F401

from core import files
from core.data.labels import Encoded
from core.data.reading.choices import Choices
from core.data.sets.stored_rows import Examples
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer, conversation
from core.engine import adapter
from core.errors import GarageError, ModelError, PauseRequested, RunError, StopRequested
from core.messages import msg
from core.models import weights
from core.models.library import Models
from core.models.shapes.shape import ModelShape
from core.presets import PRESETS
from core.recipe import Recipe
from core.runs import best, further, scenes
from core.runs import process as run_process
from core.runs.all import Runs
from core.runs.cards import model_card
from core.runs.ended import Failed, Finished
from core.runs.folder import RunFolder
from core.runs.process import Launcher
from core.runs.reporter import Reporter
from core.runs.run_json import Parent, RunFacts
from core.runs.scenes import Scenes
from core.runs.states import State
from core.system import cores
from core.system.awake import KeepAwake
from core.system.machine import library_versions
from core.system.processes import exit_now, keep_freed_memory
from core.training.ranks import agent, joining
from core.training.ranks.meeting import RankError
from core.training.tokenizing import tokenize
from core.training.trackers.trackers import Trackers
from core.workspace import lease, preferences
from core.workspace.folder import Workspace

if TYPE_CHECKING:  # they import torch
    from peft import PeftModel

    from core.engine.device import Compute
    from core.training.checkpoint import Position
    from core.training.memory.probe import Probe
    from core.training.ranks.group import Ranks
    from core.training.trainer import Trainer

LEASE_WAIT_S = 10.0  # a chat needs a moment to exit


def main() -> int:
    """Run the worker of --workspace's run and return its exit status. It holds the run's lock and, if chosen, keeps the
    PC awake. For a run of several ranks start torchrun's agent instead, which starts the workers."""
    parser = argparse.ArgumentParser(prog="core.training.worker")
    parser.add_argument("--workspace", required=True)
    parser.add_argument("run_id")
    arguments = parser.parse_args()
    cores.lower_priority()
    keep_freed_memory()
    workspace = Workspace.open(arguments.workspace)
    run = Runs(workspace).get(arguments.run_id)
    if agent.is_needed(run):
        return agent.carry_out(run, workspace)

    with (
        run.lock().acquire(timeout=10),
        Reporter(run, Launcher(run, workspace)) as reporter,
        KeepAwake(lambda: preferences.read(workspace).automation.keep_awake, reporter.set_awake),
        Trackers(run, workspace, reporter),
    ):
        return carry_out(run, workspace, reporter)


def carry_out(run: RunFolder, workspace: Workspace, reporter: Reporter) -> int:
    """Train the run, holding the device's lease; write its end (finished, paused, stopped or failed), whatever happens,
    and return the exit status.

    A lease that is not free within LEASE_WAIT_S ends the run as failed.
    """
    try:
        try:
            reporter.set_state(State.PREPARING)
            with lease.hold(workspace, msg("lease.training", name=run.name), wait_s=LEASE_WAIT_S):
                return reporter.end(_train(run, workspace, reporter))
        except PauseRequested:
            return reporter.end("pause")
    except StopRequested:  # also if it came after Pause, at the last moment
        return reporter.end("stop")
    except Exception as error:  # noqa: BLE001 - whatever it was, the person must see it and the log must have it
        if not isinstance(error, GarageError):
            traceback.print_exc()
        return reporter.end(Failed.from_error(error, run.path))


def _train(run: RunFolder, workspace: Workspace, reporter: Reporter) -> Finished:
    """Prepare, load and train the run, alone or with its other ranks; keep its adapter and return how it finished."""
    run_process.require_device(run)
    prepared = _prepare(run, workspace, reporter)
    reporter.set_stage("loading_libraries")
    read_libraries()
    with joining.joined(run, reporter) as ranks:
        trainer, probe, adapters = _load(prepared, run, workspace, reporter, ranks)
        _run_training(trainer, probe, adapters, reporter)
    position = trainer.position
    kept = adapters.keep(position, trainer.best_to_keep())
    return Finished(
        position.step, trainer.schedule.total_steps, kept, position.best_eval_loss, position.since_best,
        position.best_reward,
    )  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """The parts of a run that are read before it needs torch: train and evaluation are tokenized. prompting: the
    tokenizer that prompts as in training. turns_of: the conversation before the last answer of a training row. scenes:
    the prompts of sample answers; None without."""

    recipe: Recipe
    model_folder: Path
    tokenizer: Tokenizer
    prompting: Tokenizer
    train: Sequence[Encoded]
    evaluation: Sequence[Encoded]
    turns_of: Callable[[int], list[Any]]
    scenes: Scenes | None


def _prepare(run: RunFolder, workspace: Workspace, reporter: Reporter) -> Prepared:
    """Return all that a run needs without torch: recipe, base (downloaded), tokenizer, tokenized rows and the prompts
    of sample answers. Raises RunError if a resumed run's data has changed."""
    recipe = run_process.recipe_of(run)
    begins = not run.saved_step()  # a run that has trained already may continue, whatever holds for a new one
    model_folder = Models(workspace).obtain(
        recipe.model.id, recipe.model.revision, reporter.set_stage, reporter.check, to_train=begins
    )
    tokenizer = Tokenizer(model_folder)
    if reporter.status.attempt > 1:
        run_process.require_data(run, workspace)
    examples = read_examples(recipe, workspace, reporter)
    train, evaluation = tokenize(examples, recipe, tokenizer, reporter)
    prompting = tokenizer.with_thinking(bool(run.facts().enable_thinking))
    shown = scenes.ensure(run, recipe, examples, bool(evaluation), prompting) if recipe.train.sample_seconds else None
    reporter.check()
    return Prepared(
        recipe, model_folder, tokenizer, prompting, train, evaluation,
        lambda index: conversation(examples[train.position(index)])[:-1], shown,
    )  # fmt: skip


def _load(
    prepared: Prepared, run: RunFolder, workspace: Workspace, reporter: Reporter, ranks: Ranks | None
) -> tuple[Trainer, Probe, Adapters]:
    """Set torch's threads and seed, load base and adapter to the device, from the newest checkpoint or the parent's
    adapter if there is one; write the facts of the run, and return trainer, memory probe and the writer of adapters."""
    import torch

    from core.chat.film import SampleSettings
    from core.engine.variants import streaming
    from core.training.memory.probe import Probe
    from core.training.rewards.drawing import Drawing
    from core.training.trainer import Trainer, TrainingData

    recipe, tokenizer, model_folder = prepared.recipe, prepared.tokenizer, prepared.model_folder
    spare = cores.usable() - recipe.train.spare_cores
    torch.set_num_threads(max(1, min(torch.get_num_threads(), spare) // recipe.train.ranks))
    shape = _shape(recipe, workspace)
    probe = Probe(run, workspace, recipe, shape)  # before torch uses a GPU: it reads what others hold there
    torch.manual_seed(recipe.train.seed)
    before = run.facts() if reporter.status.attempt > 1 and run.checkpoints() else None
    compute = _compute(run, before)
    if compute.on_card:
        probe.measure_context()
    probe.require_ram()
    reporter.check()
    reporter.set_stage("loading_model")
    rewards = partial(Drawing, tokenizer=prepared.prompting, turns_of=prepared.turns_of) if recipe.rewards else None
    shared: dict[str, Any] = {"rewards": rewards}
    if ranks:
        shared |= joining.shared_step(ranks, recipe, model_folder, compute.dtype_name, tokenizer.pad_token_id)
    base, compute = _load_base(recipe, model_folder, compute, shape, run)
    reporter.check()
    base_name = recipe.model.id if recipe.model.id.count("/") == 1 and ":" not in recipe.model.id else str(model_folder)
    parent = run.facts().parent
    tuned = adapter.add(base, recipe.adapter, base_name, recipe.model.revision, will_restore=bool(before or parent))
    if recipe.train.offload_layers:
        run.log_event("decision", message=streaming.begin(tuned, compute.device, recipe.train.offload_layers).message)
    if parent:
        _start_from_parent(run, parent, tuned, tokenizer.template.fingerprint)
    run.add_facts(RunFacts(
        trainable_params=sum(p.numel() for p in tuned.parameters() if p.requires_grad), model_folder=str(model_folder),
        base_weights=run.facts().base_weights or weights.sampled_fingerprint(model_folder),
        template=tokenizer.template.fingerprint,
        rows_trained=len(prepared.train), rows_measured=len(prepared.evaluation), versions=library_versions(),
        python=platform.python_version(),
    ))  # fmt: skip
    adapters = Adapters(run, reporter, recipe, tuned, model_folder, prepared.prompting.template.source)
    data = TrainingData(prepared.train, prepared.evaluation, tokenizer.pad_token_id)
    shown = (
        SampleSettings(prepared.prompting, prepared.scenes, recipe.train.sample_seconds, workspace)
        if prepared.scenes
        else None
    )
    spill, save, advice = probe.watch(reporter, compute.on_card), adapters.save, probe.advice_when_full
    trainer = Trainer(
        tuned, recipe, data, compute, reporter, save, shown=shown, spill=spill, advice_when_full=advice, **shared
    )
    run.add_facts(
        RunFacts(total_steps=trainer.schedule.total_steps, eval_steps=trainer.eval_every, save_steps=trainer.save_every)
    )
    if reporter.status.attempt > 1:
        _restore(trainer, run, reporter)
    return trainer, probe, adapters


def _compute(run: RunFolder, before: RunFacts | None) -> Compute:
    """Choose the device, and the precision unless an earlier attempt has; record and log both. before: the facts of
    that attempt. Raises RunError if the device differs from then."""
    from core.engine import device

    compute = device.choose(before.dtype if before else None)
    run_process.keep_device(run, device.card_in_use(compute), compute.on_card)
    if before and str(compute.device) != before.device:
        raise RunError("run.other_device", then=before.device, now=str(compute.device))
    run.add_facts(RunFacts(dtype=compute.dtype_name, device=str(compute.device), dtype_reason=compute.reason))
    run.log_event("decision", message=compute.reason)
    return compute


def read_libraries() -> None:
    """Import torch and the libraries that need it, with garbage collection off, which takes seconds."""
    gc.disable()  # imported objects stay: collecting garbage among them takes a sixth of the import time
    try:
        from core.engine import device

        device.read_bitsandbytes()
        import core.chat.film
        import core.training.memory.probe
        import core.training.trainer  # noqa: F401
    finally:
        gc.enable()


def _load_base(
    recipe: Recipe, model_folder: Path, compute: Compute, shape: ModelShape | None, run: RunFolder
) -> tuple[Any, Compute]:
    """Return the base, loaded in a dtype without overflow (to RAM if its layers are offloaded or sharded), and the
    compute used; a dtype or number of bits other than the recipe's is logged."""
    from core.engine import base_model
    from core.engine.variants import streaming

    chosen = recipe.adapter
    load = streaming.load if recipe.train.offload_layers or recipe.train.fsdp else base_model.load_finite
    base, loaded_as = load(model_folder, compute, chosen.method == "qlora", chosen.load_in_8bit)
    if loaded_as != compute:
        compute = loaded_as
        run.add_facts(RunFacts(dtype=compute.dtype_name, dtype_reason=compute.reason))
        run.log_event("decision", message=compute.reason)
    if shape and shape.is_unpacked:
        run.log_event("decision", message=msg("model.unpacked", model=recipe.model.id, method=shape.quantized))
    elif (bits := base_model.bits(base)) != (
        requested := 4 if chosen.method == "qlora" else 8 if chosen.load_in_8bit else 16
    ):
        run.log_event("decision", message=msg("model.own_bits", model=recipe.model.id, bits=bits, asked=requested))
    return base, compute


def _shape(recipe: Recipe, workspace: Workspace) -> ModelShape | None:
    """Return the model's shape, or None for a family whose shape cannot be read, which is trained anyway."""
    with contextlib.suppress(GarageError):
        return Models(workspace).shape(recipe.model.id, recipe.model.revision)
    return None


def _run_training(trainer: Trainer, probe: Probe, adapters: Adapters, reporter: Reporter) -> None:
    """Train until the end or an interruption; after Stop or a failure of the numbers or the memory, save the adapter as
    the result.

    A run that reaches its end is saved by the caller. A pause and a lost rank write a checkpoint only. Raises what
    ended the training; a pause that was followed by Stop as StopRequested.
    """
    from core.engine.out_of_memory import NothingLeftError
    from core.training.recovery import NotFiniteError

    position, total = trainer.position, trainer.schedule.total_steps
    reporter.set_state(State.RUNNING, step=position.step, total_steps=total, progress=None)
    try:
        trainer.run(probe)
    except PauseRequested:
        if position.step:
            trainer.checkpoint()
        reporter.set_progress(position.step, total, None)
        if not reporter.stop_requested:
            raise
        adapters.keep(position, trainer.best_to_keep())
        raise StopRequested from None
    except StopRequested:
        adapters.keep(position, trainer.best_to_keep())
        raise
    except (NotFiniteError, NothingLeftError):
        adapters.keep(position)
        raise
    except RankError:  # rank 0 has everything that was learned
        if position.step:
            trainer.checkpoint()
        reporter.check()  # Stop or Pause may be why they were ended
        raise
    finally:
        probe.finish()


@dataclass(frozen=True)
class Adapters:
    """Writes the current adapter of a run with its model card, for a checkpoint or as the result. template: source of
    the chat template."""

    run: RunFolder
    reporter: Reporter
    recipe: Recipe
    tuned: PeftModel
    model_folder: Path
    template: str

    def save(self, folder: Path) -> None:
        """Write the current adapter with its model card and chat template to folder."""
        adapter.save(self.tuned, folder, self.model_folder, self._card(), self.template)

    def keep(self, position: Position, chosen: str | None = None) -> int:
        """Save the adapter as the run's result, record its step in run.json and return it; 0, without saving, before
        the first step. chosen: the name of a checkpoint; None: the current adapter."""
        if not position.step:
            return 0
        self.reporter.set_stage("saving")
        step, lowest = best.step_of(chosen) if chosen else position.step, position.best_checkpoint
        self.run.add_facts(
            RunFacts(adapter_step=step, adapter_is_best=lowest is not None and step == best.step_of(lowest))
        )
        if chosen:
            adapter.copy(self.run.checkpoint(chosen) / "adapter", self.run.adapter, self._card())
        else:
            self.save(self.run.adapter)
        return step

    def _card(self) -> str:
        """Return the text of the run's model card."""
        return model_card.of_run(self.run, base_folder=self.model_folder)


def _start_from_parent(run: RunFolder, parent: Parent, tuned: PeftModel, template: str) -> None:
    """Load the parent's adapter into the new one and log it; warn if its chat template differs. template: this run's
    fingerprint. Raises RunError if the adapter cannot be loaded."""
    try:
        adapter.start_from(tuned, further.start_of(run))
    except ModelError as error:
        raise RunError("further.start_missing", name=parent.name, reason=error.message) from error
    run.log_event("decision", message=msg("further.started", name=parent.name, step=parent.step))
    if parent.template not in (None, template):
        run.log_event("warning", message=msg("further.other_template", name=parent.name))


def _restore(trainer: Trainer, run: RunFolder, reporter: Reporter) -> None:
    """Restore the trainer from the newest readable checkpoint; damaged ones are no longer listed. An adapter that the
    earlier attempt saved is renamed. Raises RunError if there are checkpoints but none is readable."""
    from core.training import checkpoint

    failure = None
    for folder in reversed(run.checkpoints()):
        try:
            trainer.restore(checkpoint.read(folder))
        except RunError as error:
            failure = failure or error
            reporter.warn(error.message)
            (folder / "COMPLETE").unlink(missing_ok=True)  # it is unusable, and must not be tried again
            continue
        run.log_event("decision", message=msg("run.resumed", step=trainer.position.step))
        break
    else:
        if failure:
            raise failure
    if run.has_adapter():  # of an attempt that failed later than this one resumes
        files.rename(run.adapter, run.adapter.with_name(f"adapter-attempt-{reporter.status.attempt - 1}"))
        run.add_facts(RunFacts(adapter_step=None, adapter_is_best=None))


def read_examples(recipe: Recipe, workspace: Workspace, reporter: Reporter) -> Examples:
    """Return the dataset's rows as examples, not yet tokenized, in the recipe's version, else the one that reporter's
    run began with, else the newest."""
    reporter.set_stage("reading_data")
    store = DatasetStore(workspace.datasets, PRESETS, workspace.library_folders)
    choices, trained_on = Choices.from_data(recipe.data), reporter.run.facts().data
    if choices.join_paragraphs is None:  # a run that began before paragraphs were joined
        choices = choices.model_copy(update={"join_paragraphs": False})
    if choices.version is None and trained_on is not None:  # the dataset may have changed since the run began
        choices = choices.model_copy(update={"version": trained_on.version})
    return store.rows(recipe.data.source, recipe.data.format, choices, reporter.check).examples


if __name__ == "__main__":
    exit_now(main())
