"""A job for a borrowed PC: what it holds, and what it does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from core.data.store import DatasetStore
from core.errors import RunError
from core.presets import PRESETS, PROJECT
from core.recipe import Recipe
from core.runs import further
from core.runs.all import Runs
from core.runs.away import job
from core.runs.run_json import RunFacts
from core.workspace.folder import Workspace
from tests.kit import durations
from tests.kit.runs import ended, trained

ROWS = "".join(json.dumps({"instruction": f"Question {n}?", "output": f"Answer {n}."}) + "\n" for n in range(12))


def store_of(space: Workspace) -> DatasetStore:
    return DatasetStore(space.datasets, PRESETS, space.library_folders)


def own_set(space: Workspace, text: str = ROWS) -> str:
    file = space.root / "mine.jsonl"
    file.write_text(text, "utf-8")
    return store_of(space).import_file(file).id


@pytest.fixture
def home(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_job_that_continues_a_run_brings_its_adapter_and_nothing_of_its_rows(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train --from` had nothing to start from on the other PC, and said that there is no such run."""
    monkeypatch.setattr(job, "APP", ())
    parent, id = trained(home, "Mine"), own_set(home)
    rows = [{"messages": [{"role": "user", "content": "A row of the parent's"}]}]
    parent.add_facts(RunFacts(template="t1", adapter_step=40, probe_rows=rows))
    recipe = further.with_locked_settings(
        Recipe.parse({"name": "On", "data": {"source": id, "version": 0}}), parent.recipe()
    )
    top = job.pack(recipe, store_of(home), tmp_path / "job.zip", parent=parent)
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        archive.extractall(tmp_path / "pc")
    there = Workspace.open(tmp_path / "pc" / top / "workspace")
    brought = Runs(there).find((tmp_path / "pc" / top / "parent.txt").read_text("utf-8").strip())
    assert brought.id == parent.id and "A row of" not in (brought.path / "run.json").read_text("utf-8")
    assert further.facts_of(brought) == further.facts_of(parent)
    child = Runs(there).create(Recipe.parse(yaml.safe_load(recipe.dump())), "command", further.facts_of(brought))
    for file in further.FILES:
        assert (child.path / "start" / file).read_bytes() == (parent.adapter / file).read_bytes()
    assert not (brought.path / "checkpoints").exists(), "they are large, and nobody asks for them"


def test_a_job_cannot_continue_what_has_no_adapter(home: Workspace, tmp_path: Path) -> None:
    recipe = Recipe.parse({"name": "On", "data": {"source": own_set(home), "version": 0}})
    with pytest.raises(RunError, match="adapter"):
        job.pack(recipe, store_of(home), tmp_path / "job.zip", parent=ended(home, "Bare", 3))
    assert not (tmp_path / "job.zip").exists()


def test_a_job_holds_recipe_data_app_and_the_way_back(home: Workspace, tmp_path: Path) -> None:
    id = own_set(home)
    recipe = Recipe.parse({"name": "Meine Lampen 灯", "data": {"source": id}, "train": {"max_steps": 2}})
    top = job.pack(recipe, store_of(home), tmp_path / "job.zip")
    with zipfile.ZipFile(tmp_path / "job.zip") as archive:
        inside = archive.namelist()
        assert all(name.startswith(f"{top}/") for name in inside) and not any("__pycache__" in name for name in inside)
        for part in (
            "bootstrap.sh",
            "sky.yaml",
            "docker.sh",
            "app/launch.py",
            "app/constraints.txt",
            "app/core/recipe.py",
            "app/presets/models.yaml",
        ):
            assert f"{top}/{part}" in inside
        assert archive.getinfo(f"{top}/bootstrap.sh").external_attr >> 16 & 0o111
        assert Recipe.parse(yaml.safe_load(archive.read(f"{top}/recipe.yaml"))) == recipe
        task = yaml.safe_load(archive.read(f"{top}/sky.yaml"))
        archive.extractall(tmp_path)
    assert task["run"].strip() == "sh bootstrap.sh" and task["workdir"] == "."
    there = Workspace.open(tmp_path / top / "workspace")
    assert store_of(there).get(id).sha256 == store_of(home).get(id).sha256
    size = sum(path.stat().st_size for path in (tmp_path / top / "app").rglob("*"))
    assert size < 20_000_000, "the app alone, and nothing that lies in it"
    assert contents(tmp_path / top / "app")["launch.py"] == (PROJECT / "launch.py").read_bytes()


def test_a_model_that_only_this_pc_has_is_refused(home: Workspace, tmp_path: Path) -> None:
    recipe = Recipe.parse({"data": {"source": "sample:pirate_answers"}, "model": {"id": "library:mine"}})
    with pytest.raises(RunError) as failure:
        job.pack(recipe, store_of(home), tmp_path / "job.zip")
    assert failure.value.message.key == "away.model_here_only" and not (tmp_path / "job.zip").exists()


SKYPILOT = "skypilot==0.14.1"
CHECK = """
import sys, sky, yaml
from sky.utils import common_utils, schemas
for text in sys.stdin.read().split("---"):
    task = yaml.safe_load(text)
    common_utils.validate_schema(task, schemas.get_task_schema(), "refused: ")
    made = sky.Task.from_yaml_config(task)
    print(made.run.strip(), sorted(str(each.accelerators) for each in made.resources))
"""


@pytest.mark.full
def test_the_task_for_a_rented_card_is_one_by_skypilots_own_schema_and_parser(tmp_path: Path) -> None:
    """SkyPilot from the index, in an environment of its own that the test cache keeps."""
    folder = durations.cache() / "skypilot"
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    if not (folder / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", SKYPILOT], check=True)
        (folder / "complete").touch()

    def checked(text: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"HOME": str(tmp_path)}  # it writes there
        return subprocess.run([str(python), "-c", CHECK], input=text, capture_output=True, text=True, env=environment)

    result = checked("---".join(map(job.sky_task, (1, 2))))
    cards = ["{'A10G': 1}", "{'L4': 1}", "{'RTX4090': 1}"]
    two = [card.replace("1}", "2}") for card in cards]
    assert result.stdout.splitlines() == [f"sh bootstrap.sh {cards}", f"sh bootstrap.sh {two}"], result.stderr
    wrong = checked(job.sky_task(1).replace("workdir:", "workfolder:"))
    assert wrong.returncode == 1 and "refused" in wrong.stderr and "workfolder" in wrong.stderr
