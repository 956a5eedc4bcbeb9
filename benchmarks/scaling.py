"""Compares a step on several ranks of this PC, one thread each, with one rank: efficiency, bytes sent, time that rank 0
waits for others.

    .venv/bin/python -m benchmarks.scaling [--model DIR] [--ranks 2] [--steps 6] [--tokens 256] [--examples 16] [--r 16]

Rows are made up, all of one length, so that the ranks' parts are equal. Steps of one rank and of several alternate, and
the median of each counts: efficiency is time of one / (ranks x time of several), 1.0 where nothing is lost.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch reads it; the ranks take after it

import torch

from benchmarks import machine
from core.advice import plan
from core.data.labels import Encoded
from core.engine import adapter, base_model, device
from core.engine.step import Step
from core.messages import msg
from core.models import starter, weights
from core.recipe import Recipe
from core.training.ranks.step import SharedStep
from core.workspace.folder import Workspace
from tests.kit.ranks import in_processes

FP32 = device.Compute(torch.device("cpu"), torch.float32, msg("device.cpu_fp32"))
AT_ONCE = 4


def recipe_of(r: int, tokens: int, examples: int, ranks: int) -> Recipe:
    train = {"per_device_train_batch_size": AT_ONCE, "gradient_accumulation_steps": examples // AT_ONCE, "ranks": ranks}
    value = {"data": {"source": "x", "max_length": tokens}, "adapter": {"r": r}, "train": train}
    return plan.resolve(Recipe.parse(value), "x", has_card=False)


def seconds_of(step: Step, parts: Sequence[Sequence[Encoded]]) -> float:
    started = time.perf_counter()
    step.compute(parts, 1e-4)
    step.apply(is_good=True)
    step.note_finished()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.scaling")
    parser.add_argument("--model", type=Path)
    for name, value in (("ranks", 2), ("steps", 6), ("tokens", 256), ("examples", 16), ("r", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(machine.line("torch"))
    with tempfile.TemporaryDirectory() as folder:
        model = asked.model or starter.ensure(Workspace.open(folder).models, lambda stage, progress: None, lambda: None)
        recipe = recipe_of(asked.r, asked.tokens, asked.examples, asked.ranks)
        base = base_model.load(model, FP32, four_bit=False)
        vocabulary = base.config.get_text_config().vocab_size
        ids = torch.randint(
            5, vocabulary, (asked.examples, asked.tokens), generator=torch.Generator().manual_seed(0)
        ).tolist()
        rows = [Encoded(row, [True] * asked.tokens) for row in ids]
        parts = [rows[start : start + AT_ONCE] for start in range(0, asked.examples, AT_ONCE)]
        tuned = adapter.add(base, recipe.adapter, "x", None)
        with in_processes(Path(folder), model, recipe, asked.ranks) as (ranks, _):
            step = SharedStep.on(ranks, weights.sampled_fingerprint(model), tuned, recipe, FP32, 0)
            one = Step.from_recipe(tuned, recipe, FP32, 0)
            step.begin(0)
            waited, wait = [0.0], ranks.wait

            def timed(*arguments: object, **options: object) -> None:
                started = time.perf_counter()
                wait(*arguments, **options)  # type: ignore[arg-type]
                waited[0] += time.perf_counter() - started

            ranks.wait = timed  # type: ignore[method-assign]
            alone, together, waits = list[float](), list[float](), list[float]()
            for number in range(asked.steps + 1):
                first, before = seconds_of(one, parts), waited[0]
                second = seconds_of(step, parts)
                if number:  # the first makes what later ones have
                    alone.append(first)
                    together.append(second)
                    waits.append(waited[0] - before)
    report(asked.ranks, alone, together, waits, 4 * sum(parameter.numel() for parameter in step.parameters))


def report(ranks: int, alone: Sequence[float], together: Sequence[float], waits: Sequence[float], size: int) -> None:
    one, several, waited = map(statistics.median, (alone, together, waits))
    print(
        f"one rank {one:.2f} s a step ({min(alone):.2f} to {max(alone):.2f}), {ranks} ranks {several:.2f} "
        f"({min(together):.2f} to {max(together):.2f})"
    )
    print(
        f"efficiency {one / (ranks * several):.2f}; rank 0 waited {waited:.2f} s a step, for numbers and for slower "
        f"ranks; {size / 1e6:.1f} MB of gradients are summed"
    )


if __name__ == "__main__":
    main()
