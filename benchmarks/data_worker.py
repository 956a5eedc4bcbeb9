"""Measures the memory of a run's real worker until its first step, at few rows and at many; Linux, without a card.

    .venv/bin/python -m benchmarks.data_worker [--rows 10000 1000000] [--starter DIR] [--folder DIR]

A dataset of short questions and answers is imported, a model of two layers (tests/kit/tiny, so that it hides nothing)
is to be trained on all of it in an epoch, and `core.training.worker` is started as the app starts it. It counts the
tokens of every row, and is ended at its first step. Memory is what the kernel counts as the process's own (Anonymous of
/proc/PID/smaps_rollup, each 0.2 s), apart from memory mapped from files. Its processor seconds are printed too; other
programs affect neither.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import machine, rows
from core.advice import plan
from core.data.large import dataset_process
from core.data.store import DatasetStore
from core.presets import PRESETS
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.run_json import RunFacts, TrainedOn
from core.system.processes import kill_tree
from core.workspace.folder import Workspace
from tests.kit import tiny

LOOK_S = 0.2


class Taken(NamedTuple):
    rows: int
    own_mib: float  # at its peak
    mapped_mib: float  # then, from files
    seconds: float  # of its processor


def write(path: Path, count: int) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f'{{"question": "What is {i}?", "answer": "Number {i}."}}\n' for i in range(count))
    return path


def run(count: int, folder: Path, model: Path) -> Taken:
    (folder / "settings.yaml").write_text(f'library_folders: ["{model.parent}"]\n', "utf-8")
    workspace = Workspace.open(folder)
    store = DatasetStore(workspace.datasets, PRESETS)
    info = store.import_file(write(folder / "many.jsonl", count), f"{count} rows")
    wanted = Recipe.parse(
        {"model": {"id": f"library:{model.name}"}, "data": {"source": info.id}, "train": {"num_train_epochs": 1}}
    )
    data = TrainedOn(id=info.id, name=info.name, sha256=info.sha256 or "", rows=info.rows)
    made = Runs(workspace).create(
        plan.resolve(wanted, info.name, False), "command", RunFacts(data=data, wanted_device="cpu")
    )
    process = spawn_worker(workspace, made)
    peak, seconds = (0.0, 0.0), 0.0
    try:
        while not any(line.get("kind") == "train" or "loss" in line for line in made.newest_metrics()):
            if process.poll() is not None:
                raise RuntimeError(
                    f"the worker ended with {process.returncode}:\n"
                    f"{(made.path / 'train.log').read_text('utf-8')[-3000:]}"
                )
            peak = max(peak, own_and_mapped(process.pid))
            spent = psutil.Process(process.pid).cpu_times()
            seconds = spent.user + spent.system
            time.sleep(LOOK_S)
    finally:
        kill_tree(process.pid)
        process.wait()
    return Taken(count, *peak, seconds)


def own_and_mapped(pid: int) -> tuple[float, float]:
    """Return MiB of the process's own memory, and of its files in memory."""
    try:
        said = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    except OSError:  # it has just ended
        return 0.0, 0.0
    own, mapped = (int(found[1]) / 1024 if (found := re.search(rf"^{name}:\s+(\d+)", said,
        re.MULTILINE)) else 0.0 for name in ("Anonymous", "Pss_File"))  # fmt: skip
    return own, mapped


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rows", type=int, nargs="*", default=[10_000, 1_000_000])
    options.add_argument(
        "--starter",
        type=Path,
        default=None,
        help="the starter model, whose tokenizer is taken, where it is not in the workspace",
    )
    options.add_argument("--folder", type=Path, default=None, help="where the files go; some 400 bytes a row")
    chosen = options.parse_args()
    dataset_process.work_in_this_process()  # an import is not what is measured here
    print(machine.line("torch", "transformers"))
    with tempfile.TemporaryDirectory(dir=chosen.folder) as place:
        model = tiny.make(Path(place) / "library" / "tiny", chosen.starter or rows.starter(None))
        found = []
        for count in chosen.rows:
            workspace = Path(place) / f"of-{count}"
            workspace.mkdir()
            found.append(run(count, workspace, model))
            taken = found[-1]
            print(
                f"{taken.rows:>10,} rows: {taken.own_mib:.1f} MiB of its own at most until its first step, "
                f"{taken.mapped_mib:.0f} mapped then, "
                f"{taken.seconds:.1f} s of its processor",
                flush=True,
            )
    few, many = found[0], found[-1]
    if many.rows > few.rows:
        print(f"a row more: {(many.own_mib - few.own_mib) * 2**20 / (many.rows - few.rows):.1f} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
