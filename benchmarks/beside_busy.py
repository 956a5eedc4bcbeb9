"""Measures how much slower training on the processor is beside a busy program, which it starts itself, than on a quiet
PC.

    python launch.py test --collect-only -q      # once: installs what this needs
    .venv/bin/python -m benchmarks.beside_busy [--busy 1] [--seconds 50] [--workspace DIR]

The starter on a sample set, by the app's own worker: quiet, then beside `--busy` programs that each want one core for
`--seconds`, then quiet again. Twice: as shipped, where the threads follow (core/runs/threads), and with their count
fixed. Tokens per second of each phase come from the run's own metrics; the phase beside the busy programs includes the
seconds until they are noticed. On a PC that is quiet otherwise; under four minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from core.advice import plan
from core.messages import Message
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.system.cores import usable
from core.system.processes import kill_tree
from core.workspace.folder import Workspace

LOOK_S, PATIENCE_S = 0.2, 900.0  # the latter on a PC that is not quiet, where only ratios mean something
WARM_STEPS = 3
QUIET_S = 15.0
BUSY = "while True: pass"


def measure(space: Workspace, seconds: float, busy: int) -> dict[str, float]:
    """Return tokens per second: quiet, beside, after."""
    value = {
        "data": {"source": "sample:pirate_answers"},
        "train": {
            "max_steps": 100_000,
            "eval_steps": 100_000,
            "save_steps": 100_000,
            "sample_seconds": 0,
            "learning_rate": 1e-4,
        },
    }
    run = Runs(space).create(plan.resolve(Recipe.parse(value), "beside", has_card=False), "command")
    worker, programs, found = spawn_worker(space, run), [], {}
    try:
        until(lambda: _upto(run)[0] >= WARM_STEPS, worker)
        found["quiet"] = _rate(run, QUIET_S, worker)
        programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(busy)]
        found["beside"] = _rate(run, seconds, worker)
        while programs:
            programs.pop().kill()
        found["after"] = _rate(run, QUIET_S, worker)
    finally:
        for program in programs:
            program.kill()
        kill_tree(worker.pid)
    for event in run.events():
        if event["kind"] == "guard":
            print(f"    step {event['step']}: {Message.model_validate(event['message'])}")
    return found


def _upto(run: RunFolder) -> tuple[int, int, float]:
    """Return step, tokens read and time of the newest line."""
    lines = [line for line in run.metrics().records if line["kind"] == "train"]
    return (lines[-1]["step"], lines[-1]["tokens_seen"], lines[-1]["time"]) if lines else (0, 0, 0.0)


def _rate(run: RunFolder, seconds: float, worker: subprocess.Popen[bytes]) -> float:
    """Return the speed from the end of a step to that of the first one that ends after so many seconds."""
    step, tokens, began = _upto(run)
    until(lambda: (now := _upto(run))[0] > step and now[2] >= began + seconds, worker)
    _, newer, ended = _upto(run)
    return (newer - tokens) / (ended - began)


def until(is_so: Callable[[], bool], worker: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if worker.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"the training ended, or took no step for {PATIENCE_S:.0f} s; its train.log says why")
        time.sleep(LOOK_S)


def ratios(seconds: float, busy: int, workspace: Path | None) -> dict[str, float]:
    """Return quiet over beside, as shipped and with the count of threads fixed; print a table."""
    print("| threads | quiet, tokens/s | beside | after | quiet / beside |\n|---|---|---|---|---|", flush=True)
    found = {}
    for name, fixed in (("as shipped", None), ("fixed", str(usable()))):
        os.environ.pop("OMP_NUM_THREADS", None)
        if fixed:
            os.environ["OMP_NUM_THREADS"] = fixed
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            rates = measure(Workspace.open(workspace or folder), seconds, busy)
        found[name] = rates["quiet"] / rates["beside"]
        print(
            f"| {name} | " + " | ".join(f"{rate:.0f}" for rate in rates.values()) + f" | {found[name]:.2f} |",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=1, help="programs")
    parser.add_argument("--seconds", type=float, default=50.0, help="beside them")
    parser.add_argument("--workspace", type=Path, help="one that has the starter model, which is made otherwise")
    chosen = parser.parse_args()
    print(machine.line("torch", "transformers", "peft") + f", {usable()} usable, {chosen.busy} busy\n")
    ratios(chosen.seconds, chosen.busy, chosen.workspace)


if __name__ == "__main__":
    main()
