"""Checks whether the program has become slower: ratios measured inside one run, against those accepted last.

    python launch.py test --collect-only -q      # once: installs what this needs
    .venv/bin/python -m benchmarks.regress [--accept] [--only step start beside] [--workspace DIR]

Three ratios, each of two things that are measured by turns in this run, so that the machine's own speed cancels; more
is better:

* step: the frozen base's forward and backward over our complete step (benchmarks.step_limit, its short form)
* start: reading torch, transformers and peft in a process of their own over Start to the end of the first step
* beside: tokens per second beside one busy program over those without it (benchmarks.beside_busy, its short form)

`benchmarks/accepted.json` has the last accepted ones with machine, versions and commit. Exit status 1 if one is more
than 5 % below its own; another processor is named, since ratios of other instructions differ. About four minutes on a
PC that is quiet otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import beside_busy, child, machine
from core.advice import plan
from core.presets import PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.system.processes import kill_tree
from core.workspace.folder import Workspace

ACCEPTED = PROJECT / "benchmarks" / "accepted.json"
SLACK = 0.05
SAMPLE = PROJECT / "presets" / "samples" / "pirate_answers.jsonl"
LIBRARIES = "import torch, transformers, peft"
STEP_ROUNDS, START_ROUNDS, BESIDE_S = "5", 3, 40.0


def step(workspace: Path | None) -> list[float]:
    """Measure in a process of its own: torch stays out of this one, whose children are timed."""
    place = ["--workspace", str(workspace)] if workspace else []
    short = ["--data", str(SAMPLE), "--rounds", STEP_ROUNDS, "--steps", "1", "--json"]
    return child.run("benchmarks.step_limit", *short, *place)["the floor, our attention"]


def start(workspace: Path | None) -> list[float]:
    """Measure in every round a new workspace's first run of a warm starter model, as Start begins it, beside the
    libraries alone."""
    ratios = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        space = Workspace.open(workspace or folder)
        for _ in range(START_ROUNDS + 1):  # the first one warms the disk's cache, and obtains the model
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", LIBRARIES], check=True, env=child.environment())
            libraries = time.monotonic() - began
            ratios.append(libraries / _first_step(space))
    return ratios[1:]


def _first_step(space: Workspace) -> float:
    value = {"data": {"source": "sample:pirate_answers"}, "train": {"max_steps": 40}}
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "start", has_card=False), "command")
    began = time.monotonic()
    worker = spawn_worker(space, run)
    try:
        beside_busy.until(lambda: any(line["kind"] == "train" for line in run.metrics().records), worker)
        return time.monotonic() - began
    finally:
        kill_tree(worker.pid)


def beside(workspace: Path | None) -> list[float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rates = beside_busy.measure(Workspace.open(workspace or folder), BESIDE_S, 1)
    return [rates["beside"] / rates["quiet"]]


MEASURED: Mapping[str, Callable[[Path | None], list[float]]] = {"step": step, "start": start, "beside": beside}


def fallen(found: Mapping[str, float], accepted: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the names of those that are more than SLACK below the accepted value; one that was never accepted cannot
    fall."""
    return [name for name, ratio in found.items() if name in accepted and ratio < accepted[name]["ratio"] * (1 - SLACK)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--accept", action="store_true", help="write what was measured as the ratios to be held from now on"
    )
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--workspace", type=Path, help="one that has the starter model, which is made otherwise")
    chosen = parser.parse_args()
    here = machine.line("torch", "transformers", "peft")
    accepted = json.loads(ACCEPTED.read_text("utf-8")) if ACCEPTED.is_file() else {}
    print(here + "\n\n| ratio | measured (range) | accepted | on |\n|---|---|---|---|", flush=True)
    found = {}
    for name in chosen.only:
        values = MEASURED[name](chosen.workspace)
        found[name] = statistics.median(values)
        was = accepted.get(name, {})
        where = ("here" if was["machine"] == here else was["machine"]) if was else ""
        print(f"| {name} | {child.spread(values, '.3f')} | {was.get('ratio', '')} | {where} |", flush=True)
    if chosen.accept:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True
        ).stdout.strip()
        fresh = {name: {"ratio": round(ratio, 3), "machine": here, "commit": commit} for name, ratio in found.items()}
        ACCEPTED.write_text(json.dumps(accepted | fresh, indent=1) + "\n", "utf-8")
    slower = [] if chosen.accept else fallen(found, accepted)
    print(
        "\n"
        + (
            f"slower than accepted by more than {SLACK:.0%}: {', '.join(slower)}"
            if slower
            else "nothing is slower than was accepted"
        )
    )
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
