"""Runs that leave this PC in one file and come back: whole or not at all, and nothing outside their folder."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from core import files
from core.data.store import DatasetStore
from core.errors import GarageError, RunError
from core.presets import PRESETS, PROJECT
from core.recipe import Recipe
from core.runs import further
from core.runs.all import Runs
from core.runs.away import job, packed
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts, TrainedOn
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import durations
from tests.kit.runs import ScriptedRun, ended, trained

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


@pytest.fixture
def elsewhere(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "elsewhere")


@pytest.fixture
def archive(home: Workspace, tmp_path: Path) -> tuple[RunFolder, Path]:
    """Of a run that learned from a set of the person's own."""
    run, id = trained(home, "Mine"), own_set(home)
    run.add_facts(RunFacts(data=TrainedOn(id=id, name="mine", rows=12)))
    packed.pack(home, store_of(home), run, tmp_path / "run.zip")
    return run, tmp_path / "run.zip"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_comes_back_as_it_left_with_its_data(
    archive: tuple[RunFolder, Path], home: Workspace, elsewhere: Workspace
) -> None:
    run, file = archive
    opened = packed.unpack(elsewhere, file)
    assert contents(opened.path) == {name: raw for name, raw in contents(run.path).items() if name != "run.lock"}
    assert Runs(elsewhere).get(run.id).name == "Mine" and Runs(elsewhere).status(opened).state == State.COMPLETED
    data = opened.facts().data
    assert data is not None and store_of(elsewhere).get(data.id).sha256 == store_of(home).get(data.id).sha256
    assert (opened.path / "checkpoints").is_dir()


def test_without_its_data_it_is_the_run_alone(
    archive: tuple[RunFolder, Path], home: Workspace, elsewhere: Workspace, tmp_path: Path
) -> None:
    manifest = packed.pack(home, store_of(home), archive[0], tmp_path / "alone.zip", with_data=False)
    assert manifest.data is None
    packed.unpack(elsewhere, tmp_path / "alone.zip")
    assert not list(elsewhere.datasets.iterdir())


def test_what_is_here_stays(archive: tuple[RunFolder, Path], home: Workspace, elsewhere: Workspace) -> None:
    run, file = archive
    with pytest.raises(RunError) as failure:
        packed.unpack(home, file)
    assert failure.value.message.key == "away.here_already"
    with pytest.raises(RunError) as failure:
        packed.pack(home, store_of(home), run, file)
    assert failure.value.message.key == "away.exists"
    other = own_set(elsewhere, ROWS + ROWS)
    assert other == run.facts().data.id  # type: ignore[union-attr]
    with pytest.raises(RunError) as failure:
        packed.unpack(elsewhere, file)
    assert failure.value.message.key == "away.other_data" and not list(elsewhere.runs.iterdir())
    (elsewhere.datasets / other / "dataset.json").write_text("{", "utf-8")
    with pytest.raises(RunError) as failure:
        packed.unpack(elsewhere, file)
    assert failure.value.message.key == "away.data_unreadable" and list((elsewhere.datasets / other).glob("source.*"))
    assert {path.name for path in elsewhere.datasets.iterdir() if not path.name.startswith(".r")} == {other}


def test_a_set_that_is_here_already_is_not_written_over(archive: tuple[RunFolder, Path], home: Workspace) -> None:
    run, file = archive
    before = contents(home.datasets / run.facts().data.id)  # type: ignore[union-attr]
    Runs(home).delete(run)
    packed.unpack(home, file)
    assert contents(home.datasets / run.facts().data.id) == before  # type: ignore[union-attr]


def test_a_run_at_work_is_not_packed_and_one_that_was_killed_leaves_as_interrupted(
    home: Workspace, elsewhere: Workspace, tmp_path: Path
) -> None:
    with ScriptedRun(home, "one") as run:
        run.to(State.RUNNING).train(5).save(5)
        with pytest.raises(GarageError) as failure:
            packed.pack(home, store_of(home), run.run, tmp_path / "one.zip")
    assert failure.value.message.key == "away.busy" and not (tmp_path / "one.zip").exists()
    packed.pack(home, store_of(home), run.run, tmp_path / "one.zip")
    opened = packed.unpack(elsewhere, tmp_path / "one.zip")
    assert opened.status().state == State.INTERRUPTED and opened.saved_step() == 5


def rewritten(file: Path, change: Callable[[dict[str, bytes], dict], None], mode: int = stat.S_IFREG | 0o644) -> Path:
    """The archive with its files and its manifest changed."""
    with zipfile.ZipFile(file) as old:
        inside = {name: old.read(name) for name in old.namelist()}
    manifest = json.loads(inside.pop(packed.MANIFEST))
    change(inside, manifest)
    target = file.with_name("changed.zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name, raw in [*inside.items(), (packed.MANIFEST, json.dumps(manifest).encode())]:
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            new.writestr(info, raw)
    return target


def named(name: str, inside_as: str = "") -> Callable[[dict[str, bytes], dict], None]:
    """With one more file, which its manifest names as it should."""

    def change(inside: dict[str, bytes], manifest: dict) -> None:
        inside[inside_as or name] = b"x"
        manifest["files"][name] = {
            "bytes": 1,
            "sha256": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
        }

    return change


def bomb(inside: dict[str, bytes], manifest: dict) -> None:
    inside["run/train.log"] = b"0" * 50_000_000
    manifest["files"]["run/train.log"] = {"bytes": 10, "sha256": "0" * 64}


HOSTILE = {
    "one level up": (named("run/../../evil"), "unsafe"),
    "from the root": (named("/etc/evil"), "unsafe"),
    "a drive": (named("run/C:evil"), "unsafe"),
    "backslashes": (named("run\\..\\evil"), "unsafe"),
    "backslashes as zipfile reads them on Windows": (named("run\\..\\evil", inside_as="run/../evil"), "unsafe"),
    "a device of Windows": (named("run/NUL.txt"), "unsafe"),
    "hidden": (named("run/.evil"), "unsafe"),
    "a dot at the end": (named("run/evil."), "unsafe"),
    "elsewhere in the workspace": (named("settings.yaml"), "unsafe"),
    "deep": (named("run/" + "d/" * 9 + "x"), "unsafe"),
    "twice but for letters": (named("run/RECIPE.yaml"), "damaged"),
    "unnamed": (lambda inside, manifest: inside.update({"run/extra": b"x"}), "damaged"),
    "missing": (lambda inside, manifest: inside.pop("run/recipe.yaml"), "damaged"),
    "changed": (lambda inside, manifest: inside.update({"run/recipe.yaml": b"data: {source: x}"}), "damaged"),
    "a bomb": (bomb, "damaged"),
    "of another run": (lambda inside, manifest: manifest.update(run="../../evil"), "not_one"),
    "of a newer app": (lambda inside, manifest: manifest.update(lora_garage_run=2), "not_one"),
    "another set": (lambda inside, manifest: manifest.update(data="other"), "damaged"),
    "a set in the place of all runs": (lambda inside, manifest: manifest.update(data="../runs"), "not_one"),
    "a run beside its id": (lambda inside, manifest: manifest.update(run=manifest["run"] + "/../../evil"), "not_one"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_is_a_sentence_and_leaves_nothing(
    case: str, archive: tuple[RunFolder, Path], elsewhere: Workspace, tmp_path: Path
) -> None:
    change, key = HOSTILE[case]
    before = sorted(path.as_posix() for path in tmp_path.rglob("*"))
    file = rewritten(archive[1], change)
    with pytest.raises(RunError) as failure:
        packed.unpack(elsewhere, file)
    assert failure.value.message.key == f"away.{key}"
    assert sorted(path.as_posix() for path in tmp_path.rglob("*") if path != file) == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_archive_cut_short_or_no_zip_is_a_sentence(
    share: float, archive: tuple[RunFolder, Path], elsewhere: Workspace
) -> None:
    raw = archive[1].read_bytes()
    archive[1].write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(RunError) as failure:
        packed.unpack(elsewhere, archive[1])
    assert failure.value.message.key == "away.not_one"
    with pytest.raises(RunError) as failure:
        packed.unpack(elsewhere, archive[1].with_name("none.zip"))
    assert failure.value.message.key == "away.cannot_open"


def test_a_flipped_byte_is_found_wherever_it_is(archive: tuple[RunFolder, Path], elsewhere: Workspace) -> None:
    raw = bytearray(archive[1].read_bytes())
    with zipfile.ZipFile(io.BytesIO(raw)) as opened:
        info = opened.getinfo("run/adapter/adapter_model.safetensors")
    raw[info.header_offset + 200] ^= 1
    archive[1].write_bytes(raw)
    with pytest.raises(RunError) as failure:
        packed.unpack(elsewhere, archive[1])
    assert failure.value.message.key == "away.damaged" and not list(elsewhere.runs.iterdir())


class Cancelled(Exception): ...


class At:
    """A check that raises at its nth look."""

    def __init__(self, number: int):
        self.left = number

    def __call__(self, rows: int = 0) -> None:
        self.left -= 1
        if self.left == 0:
            raise Cancelled


def nothing_of_it(space: Workspace) -> bool:
    return not list(space.runs.iterdir()) and not list(space.datasets.iterdir())


@pytest.mark.parametrize("look", range(1, 8))
def test_a_cancel_leaves_both_sides_as_they_were(
    look: int, archive: tuple[RunFolder, Path], home: Workspace, elsewhere: Workspace
) -> None:
    run, file = archive
    with pytest.raises(Cancelled):
        packed.unpack(elsewhere, file, At(look))
    assert nothing_of_it(elsewhere)
    with pytest.raises(Cancelled):
        packed.pack(home, store_of(home), run, file.with_name("second.zip"), check=At(look))
    assert [path.name for path in file.parent.glob("*.zip")] == [file.name]


def test_a_disk_that_fills_up_leaves_nothing(
    archive: tuple[RunFolder, Path], elsewhere: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(RunError) as failure:
        patch.setattr(files, "rename", full)
        packed.unpack(elsewhere, archive[1])
    assert failure.value.message.key == "faults.disk_full" and nothing_of_it(elsewhere)
    with monkeypatch.context() as patch, pytest.raises(RunError) as failure:
        patch.setattr(packed.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
        packed.unpack(elsewhere, archive[1])
    assert failure.value.message.key == "away.no_room" and nothing_of_it(elsewhere)


def test_a_job_that_continues_a_run_brings_its_adapter_and_nothing_of_its_rows(
    home: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`train --from` had nothing to start from on the other PC, and said that there is no such run."""
    monkeypatch.setattr(job, "APP", ())
    parent, id = trained(home, "Mine"), own_set(home)
    rows = [{"messages": [{"role": "user", "content": "A row of the parent's"}]}]
    parent.add_facts(RunFacts(template="t1", adapter_step=40, probe_rows=rows))
    recipe = further.held_to(Recipe.parse({"name": "On", "data": {"source": id, "version": 0}}), parent.recipe())
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

    found = checked("---".join(map(job.sky_task, (1, 2))))
    cards = ["{'A10G': 1}", "{'L4': 1}", "{'RTX4090': 1}"]
    two = [card.replace("1}", "2}") for card in cards]
    assert found.stdout.splitlines() == [f"sh bootstrap.sh {cards}", f"sh bootstrap.sh {two}"], found.stderr
    wrong = checked(job.sky_task(1).replace("workdir:", "workfolder:"))
    assert wrong.returncode == 1 and "refused" in wrong.stderr and "workfolder" in wrong.stderr
