"""Train the three sample sets with LoRA and QLoRA and ask the 20 held-out prompts of each, base and tuned.

    python launch.py test --help            (once: makes the environment)
    .venv/bin/python -m benchmarks.quickstart [--sets NAME ...] [--methods lora qlora]

Prints the machine, versions, and a Markdown table: seconds of the whole run (process start to saved adapter), steps,
first and last loss, and held-out hits. Fresh runs in a temporary workspace; the starter model is fetched if missing.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from core.advice import plan
from core.api.training import follow
from core.chat import questions
from core.data.sample_sets import sample_of
from core.data.sets.heldout import HeldOut, load_heldout
from core.judges.judge import is_right
from core.judges.specs import ExactJudge
from core.presets import PRESETS
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace

SETS = [file.name.removesuffix(".heldout.yaml") for file in sorted((PRESETS / "samples").glob("*.heldout.yaml"))]


def passes(item: HeldOut, answer: str) -> bool:
    return is_right(item.judge or ExactJudge(), item.expected, answer)


def recipe_of(name: str, method: str) -> Recipe:
    """Return the recipe of a sample set with the settings that belong to it, as the page would fill them in."""
    sample = sample_of(f"sample:{name}")
    assert sample is not None, name
    value = {
        "name": f"{name} {method}",
        "goal": sample.goal,
        "data": {"source": f"sample:{name}"},
        "adapter": {**sample.adapter, "method": method},
        "train": sample.train,
    }
    return plan.resolve(Recipe.parse(value), name, has_card=False)


def measure(space: Workspace, name: str, method: str) -> str:
    """Return one row of the table."""
    run = Runs(space).create(recipe_of(name, method), "command")
    started = time.monotonic()
    status = follow(run, space)
    seconds = time.monotonic() - started
    if status.state != State.COMPLETED:
        return f"| {name} | {method} | {status.state.value}: {status.message} | | | | |"
    losses = [line["loss"] for line in run.metrics().records if line["kind"] == "train"]
    held = load_heldout(PRESETS / "samples" / f"{name}.heldout.yaml")
    with questions.opened(space, questions.target_of(run)) as client:
        answers: list[dict[str, Any]] = [questions.answer(client, item.prompt, True, 64) for item in held]
    hits = {
        column: sum(passes(item, answer[column]) for item, answer in zip(held, answers, strict=True))
        for column in ("tuned", "base")
    }
    for item, answer in zip(held, answers, strict=True):
        if not passes(item, answer["tuned"]):
            print(f"    missed by {name} {method}: {item.prompt!r} -> {answer['tuned']!r}")
    return (
        f"| {name} | {method} | {seconds:.0f} | {len(losses)} | {losses[0]:.2f} -> {losses[-1]:.3f} "
        f"| {hits['tuned']} of {len(held)} | {hits['base']} of {len(held)} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=["lora", "qlora"], default=["lora", "qlora"])
    parser.add_argument("--models", type=Path, help="a workspace whose starter model may be used")
    arguments = parser.parse_args()
    print(machine.line("torch", "transformers", "peft", "bitsandbytes"), "\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        space = Workspace.open(folder)
        if arguments.models:
            (space.models).rmdir()
            space.models.symlink_to(arguments.models.absolute() / "models")
        rows = [measure(space, name, method) for name in arguments.sets for method in arguments.methods]
    print("\n| set | method | seconds | steps | loss | tuned | base |\n|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
