"""LoRA Garage itself, by the same contract as its peers: `python -m benchmarks.peers.garage JOB.json`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import engine
from benchmarks.peers.job import Job
from benchmarks.peers.meter import Meter
from core.engine.batches import Batch
from core.system.machine import library_versions
from core.system.processes import keep_freed_memory
from core.training import trainer as trainers
from core.training.trainer import Trainer


def main() -> None:
    job = Job.read(sys.argv[1])
    keep_freed_memory()  # as core.training.worker
    meter = Meter(job.on_card)
    with engine.opened(job, job.checkpointing) as opened:
        count = engine.supervised if job.objective == "sft" else engine.pairs
        trainer = nearest(opened, job, count)
        steps = list(engine.batches(trainer))
        meter.loaded()

        def hear(kind: str, step: int, numbers: dict[str, Any]) -> None:
            if kind == "train":
                meter.count(count(steps[step - 1]), engine.computed(steps[step - 1]))
                meter.step_ended()

        opened.reporter.hear = hear
        know, reference = vars(trainers)["fill_reference"], 0.0

        def timed(*asked: Any) -> None:
            nonlocal reference
            began = time.perf_counter()
            know(*asked)
            reference += time.perf_counter() - began

        vars(trainers)["fill_reference"] = timed
        trainer.run()
        meter.report(
            reference_s=reference,
            versions=[f"{name} {found}" for name, found in library_versions().items()],
            layout=layout(trainer),
        )
        opened.save(Path(job.output))


def nearest(opened: engine.Engine, job: Job, count: Callable[[list[Batch]], int]) -> Trainer:
    """Choose between the job's batch and four examples at once: the one whose steps hold about as many examples as they
    should. A batch of one row is intended, and with pairs every layout holds the stated number: then the job's."""
    layouts = [(job.batch, job.accumulation)]
    if job.objective == "sft" and job.batch > 1:
        layouts.append((4, job.examples // 4))
    wanted = job.examples * (statistics.mean(row.learned_count for row in opened.rows) if job.objective == "sft" else 1)
    trainers = [
        opened.trainer(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        for batch, accumulation in layouts
    ]
    return min(trainers, key=lambda trainer: abs(count(next(engine.batches(trainer))) - wanted))


def layout(trainer: Trainer) -> str:
    train = trainer.recipe.train
    return f"{train.per_device_train_batch_size} x {train.gradient_accumulation_steps}"


if __name__ == "__main__":
    main()
