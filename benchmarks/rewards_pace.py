"""Seconds of a step of training by rewards, of the app and of TRL's GRPOTrainer in turns, on the sums of
`benchmarks.rewards`: the same model, prompts, answers a prompt and longest answer.

    python -m benchmarks.rewards_pace FOLDER [--pairs 3] [--steps 5]

The first step of each is left out. FOLDER: where the workspaces are made.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import child, rewards


def ours(recipe_file: Path, workspace: Path) -> tuple[list[float], list[float]]:
    """Return the seconds of each step but the first, and the mean tokens of its answers."""
    command = [sys.executable, "launch.py", "train", str(recipe_file), "--workspace", str(workspace)]
    subprocess.run(command, check=True, capture_output=True, env=child.environment())
    metrics = max(workspace.glob("runs/*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)
    lines = [json.loads(line) for line in metrics.read_text("utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    seconds = [after["time"] - before["time"] for before, after in zip(steps, steps[1:], strict=False)]
    return seconds, [step["completions/mean_length"] for step in steps[1:]]


def theirs(recipe_file: Path, model: Path) -> tuple[list[float], list[float]]:
    command = [sys.executable, "-m", "benchmarks.peers.trl_grpo", str(recipe_file), str(model)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=child.environment())
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["tokens"]


def main(folder: Annotated[Path, typer.Argument()], pairs: int = 3, steps: int = 5) -> None:
    """Print the seconds and tokens of each side's steps, and the ratio of their medians, pair by pair."""
    rewards.main(folder)
    recipe_file, workspace = folder / "sums.yaml", folder / "workspace"
    recipe = json.loads(recipe_file.read_text("utf-8"))
    recipe["train"] |= {"max_steps": steps, "learning_rate": 1e-9, "eval_steps": 1000}
    recipe["data"]["eval_fraction"] = 0
    recipe_file.write_text(json.dumps(recipe), "utf-8")
    for _ in range(pairs):
        own, own_tokens = ours(recipe_file, workspace)
        trl, trl_tokens = theirs(recipe_file, next(workspace.glob("models/*/config.json")).parent)
        medians = statistics.median(own), statistics.median(trl)
        print(
            f"ours {medians[0]:.1f} s ({statistics.fmean(own_tokens):.0f} tokens an answer), "
            f"TRL {medians[1]:.1f} s ({statistics.fmean(trl_tokens):.0f}), ratio {medians[1] / medians[0]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
