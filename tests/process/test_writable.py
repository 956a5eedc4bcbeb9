"""A workspace that cannot be written, that stops being writable, and one on another drive with a difficult name.

Tests run as root too, where a mode takes nothing away: a read-only tmpfs where it may be mounted, a folder below a file
everywhere, and a faulty system call for what happens in the middle.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.advice import plan
from core.chat.client import ChatTarget
from core.data.store import DatasetStore
from core.errors import GarageError, RecipeError
from core.export.exports import Exports
from core.messages import msg
from core.presets import PRESETS, PROJECT
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs import ended, further
from core.runs.all import Runs
from core.runs.states import State
from core.workspace import lease, preferences, writable
from core.workspace.folder import Workspace
from tests.kit.runs import ScriptedRun
from tests.kit.waits import wait_until
from webui.state.services import Services


def run_module(module: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"LORA_GARAGE_LANG": "en"}
    line = [sys.executable, "-m", module, *arguments]
    return subprocess.run(line, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=120)


def refused_in_a_sentence(done: subprocess.CompletedProcess, folder: Path) -> None:
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert str(folder) in done.stderr and "--workspace" in done.stderr


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """mounted("rw") and mounted("ro"): a small drive of the test's own, made so."""
    if sys.platform != "linux" or not shutil.which("mount"):
        pytest.skip("only Linux mounts a drive for a test")
    drive = tmp_path / "drive"
    drive.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(drive)], capture_output=True).returncode:
        pytest.skip("no right to mount a drive here")

    def make(how: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{how}", str(drive)], check=True, capture_output=True)
        return drive

    yield make
    subprocess.run(["umount", "-l", str(drive)], check=True)


SMALL = "data: {source: 'sample:pirate_answers'}\ntrain: {max_steps: 1, sample_seconds: 0}\n"


def test_the_app_and_a_training_refuse_a_read_only_drive_in_a_sentence(
    mounted: Callable[[str], Path], tmp_path: Path
) -> None:
    root = mounted("rw") / "ws"
    Workspace.open(root)
    mounted("ro")
    (tmp_path / "small.yaml").write_text(SMALL, "utf-8")
    refused_in_a_sentence(run_module("webui", "--no-browser", "--workspace", str(root)), root)
    refused_in_a_sentence(
        run_module("core.commands", "train", str(tmp_path / "small.yaml"), "--workspace", str(root)), root
    )
    looked = run_module("core.commands", "runs", "--json", "--workspace", str(root))
    assert looked.returncode == 0 and json.loads(looked.stdout) == {"runs": []}, "what is there can still be looked at"


def test_a_folder_that_cannot_be_made_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("x", "utf-8")
    root = tmp_path / "a file" / "ws"
    refused_in_a_sentence(run_module("webui", "--no-browser", "--workspace", str(root)), root)
    refused_in_a_sentence(run_module("core.commands", "runs", "--workspace", str(root)), root)


def test_each_folder_is_tried_not_only_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Workspace.open(tmp_path)
    writable.require(space)
    assert not [file for file in space.root.rglob("*") if file.is_file()], "nothing is left behind"
    real = tempfile.TemporaryFile

    def faulty(*args: object, dir: Path, **options: object) -> object:
        if Path(dir) == space.exports:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))
        return real(*args, dir=dir, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", faulty)
    with pytest.raises(RecipeError, match="exports.*Read-only file system"):
        writable.require(space)


def test_a_drive_that_becomes_read_only_is_said_and_nothing_more_is_begun(mounted: Callable[[str], Path]) -> None:
    space = Workspace.open(mounted("rw") / "ws")
    services = Services.open(space)
    run = ScriptedRun(space, "there").to(State.RUNNING).train(3).to(State.COMPLETED).run
    active = ScriptedRun(space, "at work").to(State.RUNNING).run
    active.lock().acquire(timeout=1).lock.release()  # its lock file is there
    assert services.write_watch.problem is None
    mounted("ro")
    wait_until(lambda: services.write_watch.problem, writable.CHECK_S + 5)
    assert "Read-only file system" in str(services.write_watch.problem)
    recipe = run.recipe()
    for refused in (
        lambda: services.runs.rename(run, "other"),
        lambda: services.supervisor.submit(recipe),
        lambda: services.queue.put(ignore_game=True),
        lambda: preferences.choose(space, model_folders=("/models",)),
        lambda: ended.dismiss(active),
    ):
        with pytest.raises(GarageError, match="Read-only file system"):
            refused()
    services.chat.load(ChatTarget("starter"))
    assert "Read-only file system" in str(services.chat.state().message)
    rows = services.snapshots.now(fresh=True).rows
    assert {row.status.state for row in rows} == {State.COMPLETED, State.INTERRUPTED}, "and everything can be looked at"
    mounted("rw")
    wait_until(lambda: services.write_watch.problem is None, writable.CHECK_S + 5)
    services.runs.rename(run, "other")


def test_the_same_by_a_fault_without_any_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = writable.WriteWatch(Workspace.open(tmp_path))
    assert watch.problem is None

    def faulty(*args: object, **options: object) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "access", lambda *args, **options: False)
    monkeypatch.setattr(tempfile, "TemporaryFile", faulty)
    monkeypatch.setattr(writable, "CHECK_S", -1.0)
    assert "Input/output error" in str(watch.problem) and str(tmp_path) in watch.problem.render("zh")


@pytest.fixture
def other_drive(tmp_path: Path) -> Iterator[Path]:
    """A folder on another device than the temporary files, under a name with everything in it."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second drive that may be written")
    folder = Path(tempfile.mkdtemp(prefix="Läufe 海盗 (neu) ", dir=shared))
    yield folder

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    wait_until(is_gone, 60)  # a process that said it is done has its log open until it has left, which Windows minds


def test_a_workspace_on_another_drive_with_spaces_and_chinese_in_its_path_does_the_whole_journey(
    other_drive: Path, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename from one drive to another fails; so each file must be made where it is to lie."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    space = Workspace.open(other_drive / "My Läufe 一")
    (space.root / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    space = Workspace.open(space.root)
    writable.require(space)
    (tmp_path / "my rows 行.jsonl").write_text(
        "\n".join(json.dumps({"question": f"Number {i}?", "answer": f"It is {i}."}) for i in range(12)), "utf-8"
    )
    store = DatasetStore(space.datasets, PRESETS)
    info = store.import_file(tmp_path / "my rows 行.jsonl", "my rows 行")
    value = {
        "name": "海盗 x",
        "model": {"id": "library:tiny"},
        "data": {"source": info.id},
        "train": {"max_steps": 2, "sample_seconds": 0},
    }
    runs, recipe = Runs(space), plan.resolve(Recipe.parse(value), "data", has_card=False)
    parent = runs.create(recipe, "command")
    assert spawn_worker(space, parent).wait(600) == 0, parent.log_tail()
    child = runs.create(further.recipe_of(parent), "command", further.facts_of(parent))
    assert spawn_worker(space, child).wait(600) == 0, child.log_tail()
    job = Exports(space).start(child, "adapter")
    assert job.wait(180).state == "done", job.status()
    with lease.hold(space, msg("lease.somebody")):
        pass
    runs.delete(parent)
    store.delete(info.id)
    assert [run.id for run in runs.list()] == [child.id]
