"""Measures the time from Start to the end of the first step, stage by stage: with a newly started worker, and with one
that has read its libraries.

    python launch.py test --collect-only -q      # once: installs what this needs
    .venv/bin/python -m benchmarks.first_step [--rounds 3] [--workspace DIR]

The starter on a sample set, by the app's own worker, by turns after a round that warms the disk's cache. Seconds of the
clock, which count where the PC is quiet otherwise, and seconds of the processor that the worker used from Start on,
which count beside other programs too. Then the standby's memory, and the time it took to read the libraries.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import beside_busy, machine
from core.advice import plan
from core.queue.standby import StandbyProcess
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.system.processes import kill_tree
from core.workspace.folder import Workspace

WAYS = {"started anew": False, "that waited": True}
STAGES = ("reading_data", "tokenizing", "loading_libraries", "loading_model")


def processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def measure(space: Workspace, waits: bool) -> dict[str, float]:
    """Return the seconds since Start by stage, and the processor seconds."""
    value = {"data": {"source": "sample:pirate_answers"}, "train": {"max_steps": 40}}
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "start", has_card=False), "command")
    found, before = dict[str, float](), 0.0
    if waits:
        waiting = StandbyProcess(space, {})
        while waiting.held_bytes is None:
            if waiting.is_over:
                raise SystemExit(f"it ended: {waiting.report}")
            time.sleep(beside_busy.LOOK_S)
        assert waiting.pid
        found["held, MiB"] = waiting.held_bytes / 2**20
        found["before Start, processor"] = before = processor_s(waiting.pid)
    began = time.time()
    worker = waiting.become(run) if waits else spawn_worker(space, run)
    try:
        beside_busy.until(lambda: run.status().state == State.RUNNING, worker)
        found["until running, processor"] = processor_s(run.status().pid or worker.pid) - before
        beside_busy.until(lambda: any(line["kind"] == "train" for line in run.metrics().records), worker)
        used = processor_s(run.status().pid or worker.pid) - before
    finally:
        kill_tree(worker.pid)
    return found | told(run, began) | {"until the first step, processor": used}


def told(run: RunFolder, began: float) -> dict[str, float]:
    events = run.events()
    found = {"preparing": next(event["time"] for event in events if event.get("state") == "preparing") - began}
    for stage in STAGES:
        found[stage] = next((event["time"] for event in events if event.get("stage") == stage), began) - began
    found["running"] = next(event["time"] for event in events if event.get("state") == "running") - began
    found["first step"] = next(line["time"] for line in run.metrics().records if line["kind"] == "train") - began
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workspace", type=Path, help="one that has the starter model, which is made otherwise")
    chosen = parser.parse_args()
    print(machine.line("torch", "transformers", "peft") + "\n", flush=True)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        space = Workspace.open(chosen.workspace or folder)
        for number in range(chosen.rounds + 1):
            for name, waits in WAYS.items():
                found = measure(space, waits)
                print(
                    f"    a worker {name}: " + ", ".join(f"{what} {value:.2f}" for what, value in found.items()),
                    flush=True,
                )
                if number:
                    rounds[name].append(found)
    print(
        f"\n| seconds, median of {chosen.rounds} (range) | "
        + " | ".join(f"a worker {name}" for name in WAYS)
        + " |\n|---|---|---|"
    )
    for what in list(rounds["that waited"][0]):
        print(
            f"| {what} | "
            + " | ".join(spread([each[what] for each in rounds[name] if what in each]) for name in WAYS)
            + " |"
        )


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else ""


if __name__ == "__main__":
    main()
