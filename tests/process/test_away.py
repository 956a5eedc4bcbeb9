"""A run that is trained on somebody else's PC: packed at home, trained by bootstrap.sh from what the archive holds, and
opened at home again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from core.commands import away
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import tiny
from tests.kit.waits import PATIENCE
from tests.process.test_commands import command

RECIPE = """name: Away
data: {source: mine.jsonl, eval_fraction: 0}
adapter: {r: 4}
train: {max_steps: 2, sample_seconds: 0, learning_rate: 1e-3, per_device_train_batch_size: 2,
  gradient_accumulation_steps: 1}
"""
# In the place of the other PC's Python: launch.py would first fetch an environment. All else is the archive's own.
PYTHON = """#!/bin/sh
if [ "$1" = app/launch.py ]; then
    shift
    PYTHONPATH="$PWD/app" exec "{python}" -m core.commands "$@"
fi
exec "{python}" "$@"
"""


def bootstrap(folder: Path, shims: Path, *arguments: str) -> subprocess.CompletedProcess:
    if os.name == "nt":
        return by_its_commands(folder)
    shims.mkdir(exist_ok=True)
    (shims / "python3.12").write_text(PYTHON.format(python=sys.executable), "utf-8")
    (shims / "python3.12").chmod(0o755)
    environment = os.environ | {"PATH": f"{shims}{os.pathsep}{os.environ['PATH']}", "LORA_GARAGE_LANG": "en"}
    environment.pop("LORA_GARAGE_HOME", None)
    return subprocess.run(
        ["sh", str(folder / "bootstrap.sh"), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=600 * PATIENCE,
    )


def by_its_commands(folder: Path) -> subprocess.CompletedProcess:
    """What bootstrap.sh does, where no shell is: somebody types its commands, which the archive's own program runs."""
    space = Workspace.open(folder / "workspace")
    environment = os.environ | {"PYTHONPATH": str(folder / "app"), "LORA_GARAGE_LANG": "en"}
    environment.pop("LORA_GARAGE_HOME", None)

    def garage(*arguments: str) -> subprocess.CompletedProcess:
        arguments_of_all = [sys.executable, "-m", "core.commands", *arguments, "--workspace", str(space.root)]
        return subprocess.run(
            arguments_of_all,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            env=environment,
            timeout=600 * PATIENCE,
        )

    begun = sorted(run.id for run in Runs(space).folders())
    parent = (folder / "parent.txt").read_text("utf-8").split() if (folder / "parent.txt").exists() else []
    begun = [run for run in begun if run not in parent]
    start = ("--from", *parent) if parent else ()
    done = garage("resume", begun[-1]) if begun else garage("train", str(folder / "recipe.yaml"), *start)
    (folder / "trained.zip").unlink(missing_ok=True)
    for run in (run for run in Runs(space).folders() if run.id not in parent):
        packed = garage("pack", run.id, "--without-data", "--out", str(folder / "trained.zip"))
        assert packed.returncode == 0, packed.stderr
    return done


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def brought(folder: Path, home: Workspace) -> RunFolder:
    """The run that the job left, copied home."""
    [run] = (folder / "trained").iterdir()
    shutil.copytree(run, home.runs / run.name)
    return Runs(home).get(run.name)


def test_a_run_is_trained_elsewhere_and_comes_home(
    tiny_model: Path, tmp_path: Path, full: bool, capsys: pytest.CaptureFixture
) -> None:
    home = tiny.in_place_of_the_starter(Workspace.open(tmp_path / "workspace"), tiny_model)
    (tmp_path / "mine.jsonl").write_text(
        "".join(
            json.dumps({"instruction": f"What is {n}?", "output": f"Arr, {n} be a number."}) + "\n" for n in range(8)
        ),
        "utf-8",
    )
    (tmp_path / "away.yaml").write_text(RECIPE, "utf-8")
    away.pack(tmp_path / "away.yaml", tmp_path / "job.zip", workspace=home.root, as_json=True)
    folder = tmp_path / "pc" / json.loads(capsys.readouterr().out)["folder"]
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        archive.extractall(tmp_path / "pc")
    there = tiny.in_place_of_the_starter(Workspace.open(folder / "workspace"), tiny_model)

    trained = bootstrap(folder, tmp_path / "shims")
    assert trained.returncode == 0, trained.stderr
    there_run = next(Runs(there).folders())
    assert Runs(there).status(there_run).state == State.COMPLETED and len(losses(there_run.path)) == 2

    run = brought(folder, home)
    assert run.id == there_run.id and run.has_adapter() and Runs(home).status(run).state == State.COMPLETED
    assert losses(run.path) == losses(there_run.path)
    assert run.recipe().data.source in {path.name for path in home.datasets.iterdir()}, (
        "the set it learned from is the one that is here"
    )

    if full:  # as it would have been at home, and resumed there
        at_home = command("train", str(tmp_path / "away.yaml"), "--json", workspace=home.root)
        run_at_home = Runs(home).get(json.loads(at_home.stdout)["run"])
        assert losses(run_at_home.path) == losses(run.path)
        weights = [(each.adapter / "adapter_model.safetensors").read_bytes() for each in (run_at_home, run)]
        assert weights[0] == weights[1]
        answer = command("chat", run.id, "--prompt", "What is 3?", "--json", workspace=home.root)
        assert answer.returncode == 0, answer.stderr
        shutil.rmtree(there_run.path / "adapter")
        killed = json.loads((there_run.path / "state.json").read_text("utf-8")) | {"state": "interrupted"}
        (there_run.path / "state.json").write_text(json.dumps(killed), "utf-8")
        resumed = bootstrap(folder, tmp_path / "shims")
        assert resumed.returncode == 0 and ("going on with" in resumed.stdout or os.name == "nt"), resumed.stderr
        assert (there_run.adapter / "adapter_model.safetensors").read_bytes() == weights[1]


@pytest.mark.full
def test_a_run_is_continued_elsewhere_and_comes_home(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    home = tiny.in_place_of_the_starter(Workspace.open(tmp_path / "workspace"), tiny_model)
    rows = [json.dumps({"instruction": f"What is {n}?", "output": f"Arr, {n} be a number."}) for n in range(8)]
    (tmp_path / "mine.jsonl").write_text("\n".join(rows), "utf-8")
    (tmp_path / "away.yaml").write_text(RECIPE, "utf-8")
    parent = json.loads(command("train", str(tmp_path / "away.yaml"), "--json", workspace=home.root).stdout)["run"]
    (tmp_path / "away.yaml").write_text(RECIPE.replace("name: Away\n", ""), "utf-8")
    away.pack(tmp_path / "away.yaml", tmp_path / "job.zip", parent=parent, workspace=home.root, as_json=True)
    folder = tmp_path / "pc" / json.loads(capsys.readouterr().out)["folder"]
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        archive.extractall(tmp_path / "pc")
    there = tiny.in_place_of_the_starter(Workspace.open(folder / "workspace"), tiny_model)
    done = bootstrap(folder, tmp_path / "shims")
    assert done.returncode == 0, done.stderr
    again = bootstrap(folder, tmp_path / "shims")  # an ended run is not begun anew, and neither is its parent
    assert again.returncode != 0 and len([*Runs(there).folders()]) == 2

    run = brought(folder, home)
    at_home = json.loads(
        command("train", str(tmp_path / "away.yaml"), "--from", parent, "--json", workspace=home.root).stdout
    )["run"]
    assert run.facts().parent == Runs(home).get(at_home).facts().parent and run.facts().parent.run == parent
    assert run.name == "Away · 2" and losses(run.path) == losses(Runs(home).get(at_home).path)
