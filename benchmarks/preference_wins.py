"""Does a dpo run beat the sft run that it trains further? 200 pairs, 40 questions about other things, judged by a
machine that sees no names.

    .venv/bin/python -m benchmarks.preference_wins --workspace FOLDER [--sft-rate 5e-4] [--dpo-rate 1e-4] [--sft-weight
    0] [--epochs 3]   # half an hour on two quiet cores; again: goes on

benchmarks/pairs/repair_cafe.jsonl: what a volunteer of a repair café answers, the verdict first and right, what to do,
what to bring. Worse answers have the wrong verdict, bury it, or give none. The parent learns the better answers
(objective sft), the child compares both (dpo). Then both are asked what is kept beside the pairs
(repair_cafe.heldout.yaml) by `compare`, and each answer is checked: win, loss, or alike. Prints the table of both, the
interval of the child's share of what was decided, and where they differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import machine
from core.chat.comparison import Score
from core.data.sets.heldout import HeldOut, load_heldout
from core.errors import RunError
from core.judges.judge import is_right
from core.judges.specs import ExactJudge
from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.states import State
from core.workspace.folder import Workspace

PAIRS = PROJECT / "benchmarks" / "pairs"


def passes(item: HeldOut, answer: str) -> bool:
    return is_right(item.judge or ExactJudge(), item.expected, answer)


def command(*words: str | Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "core.commands", *map(str, words), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def trained(name: str, chosen: argparse.Namespace, rate: float, *more: str) -> str:
    """Train a run on all pairs; return its id. A run that an earlier call began is continued."""
    with suppress(RunError):
        there = Runs(Workspace.open(chosen.workspace)).find(name)
        if there.status().state != State.COMPLETED:
            command("resume", there.id, "--workspace", chosen.workspace)
        return there.id
    recipe = chosen.workspace / f"{name}.yaml"
    train = {"num_train_epochs": chosen.epochs, "learning_rate": rate, "sample_seconds": 0}
    value = {
        "name": name,
        "model": {"id": chosen.model},
        "data": {"source": str(PAIRS / "repair_cafe.jsonl")},
        "train": train,
    }
    recipe.write_text(json.dumps(value), "utf-8")
    return str(command("train", recipe, "--workspace", chosen.workspace, *more)["run"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", type=Path, required=True, help="where the runs stay; a folder of your own")
    parser.add_argument("--model", default="starter", help="as in a recipe")
    parser.add_argument("--sft-rate", type=float, default=5e-4)
    parser.add_argument("--dpo-rate", type=float, default=1e-4)
    parser.add_argument(
        "--sft-weight",
        type=float,
        default=0,
        help="of the better answers' own loss beside dpo's, as the run doctor advises",
    )
    parser.add_argument("--epochs", type=float, default=3)
    chosen = parser.parse_args()
    chosen.workspace.mkdir(parents=True, exist_ok=True)
    print(machine.line("torch", "transformers", "peft"), flush=True)
    parent = trained("cafe-sft", chosen, chosen.sft_rate)
    weight = ("--set", f"train.sft_weight={chosen.sft_weight:g}") if chosen.sft_weight else ()
    name = f"cafe-dpo at {chosen.dpo_rate:g}, weight {chosen.sft_weight:g}"
    child = trained(name, chosen, chosen.dpo_rate, "--from", parent, "--set", "train.objective=dpo", *weight)
    heldout = load_heldout(PAIRS / "repair_cafe.heldout.yaml")
    prompts = chosen.workspace / "questions.jsonl"
    prompts.write_text("\n".join(json.dumps({"prompt": item.prompt}) for item in heldout), "utf-8")
    rows = command(
        "compare", parent, child, "--prompts", prompts, "--max-new-tokens", "80", "--workspace", chosen.workspace
    )["prompts"]
    checked = [tuple(passes(item, text) for text in row["answers"]) for item, row in zip(heldout, rows, strict=True)]
    score = Score(
        wins=(sum(a > b for a, b in checked), sum(b > a for a, b in checked)), equal=sum(a == b for a, b in checked)
    )
    for row, (a, b) in zip(rows, checked, strict=True):
        if a != b:
            print(
                f"{'child' if b else 'parent'} wins: {row['prompt']}\n  parent: {row['answers'][0]}\n  child: "
                f"{row['answers'][1]}"
            )
    good = [sum(side) for side in zip(*checked, strict=True)]
    print(
        f"\nright of {len(checked)}: parent {good[0]}, child {good[1]}; child wins {score.wins[1]}, loses "
        f"{score.wins[0]}, alike {score.equal}"
    )
    print(f"95 % of the child's share of what was decided (Wilson): {score.interval}; clear: {score.is_clear}")


if __name__ == "__main__":
    main()
