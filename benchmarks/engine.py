"""The app's own engine, assembled as core.training.worker does it, in a temporary workspace, for other benchmarks.

Imports torch. `batches` and `Engine.trainer` are the only places that know how the engine is assembled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.job import Job
from core.advice import plan
from core.data.labels import Encoded
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.engine import adapter, base_model, device
from core.engine.batches import Batch
from core.presets import PRESETS
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.reporter import Reporter
from core.runs.states import State
from core.training import worker
from core.training.tokenizing import tokenize
from core.training.trainer import Trainer, TrainingData
from core.workspace.folder import Workspace

NEVER = 10**9  # steps between two measurements or checkpoints: only the last step makes one
Hear = Callable[[str, int, dict[str, Any]], None]  # kind, step, numbers


class Recorder(Reporter):
    """Writes a run folder as in the app, and passes on each line of metrics as it comes."""

    def __init__(self, run: RunFolder):
        super().__init__(run)
        self.hear: Hear = lambda kind, step, numbers: None

    def metrics(self, kind: str, step: int, **numbers: float | int | None) -> None:
        super().metrics(kind, step, **numbers)
        self.hear(kind, step, numbers)


@dataclass(frozen=True)
class Engine:
    """A loaded base with an adapter, and tokenized rows. tuned: the peft model."""

    recipe: Recipe
    rows: list[Encoded]
    tokenizer: Tokenizer
    compute: device.Compute
    tuned: Any
    reporter: Recorder
    model_folder: Path

    def trainer(self, evaluation: list[Encoded] | None = None, **train: Any) -> Trainer:
        """Create a trainer. train: settings that differ, of the recipe's section of that name."""
        recipe = self.recipe.model_copy(update={"train": self.recipe.train.model_copy(update=train)})
        data = TrainingData(self.rows, evaluation or [], self.tokenizer.pad_token_id)
        return Trainer(self.tuned, recipe, data, self.compute, self.reporter, self.save)

    def save(self, folder: Path) -> None:
        adapter.save(self.tuned, folder, self.model_folder, "", self.tokenizer.template.source)


@contextmanager
def opened(job: Job, checkpointing: bool = False, adapter_folder: Path | None = None) -> Iterator[Engine]:
    """Return the engine with the job's rows and settings, and a fresh adapter or a saved one."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(folder)
        store = DatasetStore(workspace.datasets, PRESETS)
        source = store.import_file(Path(job.rows)).id
        recipe = plan.resolve(_recipe(job, source, checkpointing), "benchmark", has_card=job.on_card)
        run = Runs(workspace).create(recipe, "command")
        with run.lock().acquire(timeout=10), Recorder(run) as reporter:
            reporter.set_state(State.PREPARING)
            model_folder = Path(job.model)
            tokenizer = Tokenizer(model_folder)
            rows, _ = tokenize(worker.read_examples(recipe, workspace, reporter), recipe, tokenizer, reporter)
            torch.manual_seed(recipe.train.seed)
            compute = device.choose()
            base = base_model.load(model_folder, compute, four_bit=job.four_bit)
            tuned = adapter.add(base, recipe.adapter, job.model, None)
            if adapter_folder:
                tuned.load_adapter(str(adapter_folder), adapter.ADAPTER, is_trainable=True)
            reporter.set_state(State.RUNNING)
            yield Engine(recipe, list(rows), tokenizer, compute, tuned, reporter, model_folder)


def _recipe(job: Job, source: str, checkpointing: bool) -> Recipe:
    value = {
        "data": {
            "source": source,
            "format": None if job.objective != "sft" else "messages",
            "max_length": job.max_length,
            "eval_fraction": 0.0,
        },
        "adapter": {"r": job.r, "lora_alpha": job.lora_alpha, "lora_dropout": 0.0, "target_modules": "all-linear"},
        "train": {
            "objective": job.objective,
            "learning_rate": job.learning_rate,
            "num_train_epochs": 1.0,
            "per_device_train_batch_size": job.batch,
            "gradient_accumulation_steps": job.accumulation,
            "lr_scheduler_type": "constant",
            "max_grad_norm": job.max_grad_norm,
            "gradient_checkpointing": checkpointing,
            "optim": "adamw_torch",
            "seed": job.seed,
            "eval_steps": NEVER,
            "save_steps": NEVER,
        },
    }
    return Recipe.parse(value)


def batches(trainer: Trainer) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each optimizer step, as the trainer computes them."""
    for micro_batches in trainer.schedule.steps():
        yield [trainer.step.batch([trainer.data.train[i] for i in rows]) for rows in micro_batches]


def supervised(step: list[Batch]) -> int:
    return sum(batch.targets.numel() for batch in step)


def pairs(step: list[Batch]) -> int:
    return sum(len(batch.examples) // 2 for batch in step)


def computed(step: list[Batch]) -> int:
    """Return the tokens that go through the model, padding included."""
    return sum(batch.input_ids.numel() for batch in step)
