"""LoRA Garage itself, by the same contract as its peers: `python -m benchmarks.peers.garage JOB.json`."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import engine
from benchmarks.peers.job import Job
from benchmarks.peers.meter import Meter
from core.system.machine import library_versions
from core.training.trainer import Trainer


def main() -> None:
    job = Job.read(sys.argv[1])
    meter = Meter(job.on_card)
    with engine.opened(job) as opened:
        trainer = nearest(opened, job)
        steps = list(engine.batches(trainer))
        meter.loaded()

        def hear(kind: str, step: int, numbers: dict[str, Any]) -> None:
            if kind == "train":
                meter.count(engine.supervised(steps[step - 1]), engine.computed(steps[step - 1]))
                meter.step_ended()

        opened.reporter.hear = hear
        trainer.run()
        meter.report(versions=[f"{name} {found}" for name, found in library_versions().items()], layout=layout(trainer))
        opened.save(Path(job.output))


def nearest(opened: engine.Engine, job: Job) -> Trainer:
    """With the job's batch, or with four examples at once: whichever steps hold about as many examples as they should."""
    wanted = job.examples * statistics.mean(row.learned_count for row in opened.rows)
    trainers = [
        opened.trainer(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation)
        for batch, accumulation in ((job.batch, job.accumulation), (4, job.examples // 4))
    ]
    return min(trainers, key=lambda trainer: abs(engine.supervised(next(engine.batches(trainer))) - wanted))


def layout(trainer: Trainer) -> str:
    train = trainer.recipe.train
    return f"{train.per_device_train_batch_size} x {train.gradient_accumulation_steps}"


if __name__ == "__main__":
    main()
