"""A disk that is full at any write: what was there before stays, the reason is said, and with space again it goes
on."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import files
from core.errors import GarageError
from core.export.exports import Exports
from core.queue.supervisor import Supervisor
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.faults import fake_worker, layer
from tests.faults.forking import Forker
from tests.faults.runs import SAVE, SEED, Undisturbed, assert_whole, numbers, places, read_real, real_recipe, telling
from tests.faults.table import FaultTable
from tests.kit.waits import wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks workers: POSIX only")


def disk_full(whole: Undisturbed, place: dict, lasts: bool) -> str | None:
    """A run whose disk fills up at that operation, then has space again; returns what was said, if it had to stop."""
    run = whole.new_run()
    trial = whole.forker.run(whole.workspace.root, run.id, act="full", lasts=lasts, **place)
    assert_whole(run, whole.reads, 1)
    key = None
    if run.status().state != State.COMPLETED:
        assert trial.code == 1, (place, run.log_tail())
        status = Runs(whole.workspace).status(run)
        key = status.message.key if status.message else status.state.value
        before = dict(numbers(run))
        whole.go_on(run)
        assert whole.forker.run(whole.workspace.root, run.id).code == 0, run.log_tail()
        assert before.items() <= numbers(run).items(), "an earlier number was lost"
    whole.assert_same(run)
    return key


# What a person is told: by the worker; by the supervisor or any page where the disk took not even that; still in the
# queue.
SAID = {"run.disk_full", "run.interrupted", "queued"}


@pytest.mark.parametrize("lasts", [False, True], ids=["once", "from-there-on"])
def test_the_scripted_worker_survives_a_full_disk_at_any_operation(
    lasts: bool, full: bool, faults: FaultTable, tmp_path: Path
) -> None:
    with Forker("fake") as forker:
        undisturbed = Undisturbed(
            forker, Workspace.open(tmp_path), fake_worker.recipe(5, SAVE), fake_worker.read_checkpoint
        )
        chosen = places(undisturbed, None if full else 16)
        said = {disk_full(undisturbed, place, lasts) for place in chosen}
    assert said - {None} <= SAID
    assert lasts or "run.disk_full" in said
    faults.add(
        f"disk full at a disk operation, {'and from then on' if lasts else 'once'}", "scripted worker", len(chosen)
    )


@pytest.mark.slow
def test_the_real_worker_survives_a_full_disk_at_any_operation(
    tmp_path: Path, tiny_model: Path, full: bool, faults: FaultTable
) -> None:
    (tmp_path / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    with Forker("real") as forker:
        undisturbed = Undisturbed(forker, Workspace.open(tmp_path), real_recipe(), read_real)
        chosen = (
            places(undisturbed, None)
            if full
            else telling(undisturbed, "write .run.json", "write film.jsonl", "open position.json")
        )
        said = {disk_full(undisturbed, place, lasts=number % 2 == 1) for number, place in enumerate(chosen)}
    assert said - {None} <= SAID and "run.disk_full" in said
    faults.add("disk full at a disk operation, once or from then on", "worker, LoRA", len(chosen))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk can be made as root on Linux only; the fault layer above does not need one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount here")
def test_a_really_full_disk_is_said_and_with_space_again_the_run_is_the_same(
    small_disk: Path, tiny_model: Path, full: bool, faults: FaultTable
) -> None:
    """Fuller and fuller, so that another file each time is the one that no longer fits."""
    (small_disk / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    with Forker("real") as forker:
        undisturbed = Undisturbed(forker, Workspace.open(small_disk), real_recipe(), read_real)
        for folder in Runs(undisturbed.workspace).list():
            shutil.rmtree(folder.path)
        ballast, chance, said = small_disk / "ballast", random.Random(SEED), set()
        sizes = [chance.randint(0, 9 << 20) for _ in range(20 if full else 1)] + [4096 * 2]
        for leaves in sizes:
            run = undisturbed.new_run()
            fill(ballast, leaves)
            trial = undisturbed.forker.run(small_disk, run.id)
            status = Runs(undisturbed.workspace).status(run)
            ballast.unlink()
            assert_whole(run, undisturbed.reads, 1)
            if trial.code:
                said.add(status.message.key if status.message else status.state.value)
                if status.state == State.INTERRUPTED:
                    assert status.advice.key == "faults.interrupted_disk_full", (
                        "nobody could write the reason, so every reader finds it"
                    )
                undisturbed.go_on(run)
                assert undisturbed.forker.run(small_disk, run.id).code == 0, run.log_tail()
            undisturbed.assert_same(run)
            shutil.rmtree(run.path)
    assert said and said <= SAID, said
    faults.add("a tmpfs of 24 MB, filled up", "worker, LoRA", len(sizes))


def fill(ballast: Path, leaves: int) -> None:
    """Until so many bytes are free."""
    with open(ballast, "wb", buffering=0) as file:
        while (free := shutil.disk_usage(ballast.parent).free) > leaves:
            file.write(b"\0" * min(1 << 20, max(4096, free - leaves)))
            if free - leaves < 4096:
                break


# ---- what the app writes -------------------------------------------------------------------------


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    }


def paused_run(workspace: Workspace) -> RunFolder:
    run = Runs(workspace).create(fake_worker.recipe(5, SAVE), "app")
    for state in (State.PREPARING, State.RUNNING, State.PAUSING, State.PAUSED):
        run.write_status(run.status().model_copy(update={"state": state}))
    fake_worker.save_adapter(run.adapter, b"learned")
    return run


def a_running_one(workspace: Workspace) -> RunFolder:
    run = Runs(workspace).create(fake_worker.recipe(5, SAVE), "app")
    run.write_status(run.status().model_copy(update={"state": State.PREPARING}))
    return run


def started(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


BUTTONS: dict[str, tuple[Callable[[Workspace], RunFolder], Callable[[Workspace, RunFolder], object]]] = {
    "start": (paused_run, lambda space, run: Supervisor(space).submit(fake_worker.recipe(5, SAVE))),
    "resume": (paused_run, lambda space, run: Supervisor(space).resume(run)),
    "rename": (paused_run, lambda space, run: Runs(space).rename(run, "another name")),
    "export": (paused_run, lambda space, run: started(Exports(space).start(run, "adapter").process)),
    "stop": (a_running_one, lambda space, run: Supervisor(space).stop(run)),
    "pause": (a_running_one, lambda space, run: Supervisor(space).pause(run)),
}


@pytest.mark.parametrize("button", BUTTONS)
def test_a_button_on_a_full_disk_says_so_and_works_once_there_is_space(
    button: str, tmp_path: Path, faults: FaultTable
) -> None:
    """At each operation of its own: one sentence, nothing that was there is changed or half, and then it works."""
    make, press = BUTTONS[button]
    nth = 0
    while True:
        nth += 1
        space = Workspace.open(tmp_path / str(nth))
        run = make(space)
        with run.lock().acquire(timeout=1) if make is a_running_one else open(os.devnull):
            before = everything(space.root)
            fault = layer.Fault(tmp_path, nth, layer.full_disk)
            with layer.injected(fault):
                try:
                    press(space, run)
                except GarageError as error:
                    assert "disk is full" in str(error) or "No space left" in str(error), str(error)
                    said = True
                else:
                    said = False
            assert not [path for path in space.root.rglob("*.part")], fault.done[-3:]
            if len(fault.done) < nth:
                break
            if said:
                after = everything(space.root)
                lost = [name for name in before if name not in after and "control.json" not in name]
                assert not lost, (fault.done[nth - 1], lost)
                assert run.status().state == make_state(make), fault.done[nth - 1]
                press(space, run)
    faults.add(f"disk full at each write of a button: {button}", "app", nth - 1)


def make_state(make: Callable) -> State:
    return State.PREPARING if make is a_running_one else State.PAUSED


def test_the_supervisor_says_what_it_could_not_write_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faults: FaultTable
) -> None:
    """A worker is killed while the disk is full; the run was marked "running" for ever, or its worker started again and
    again."""
    spawned = []

    def spawn(workspace: Workspace, run: RunFolder) -> subprocess.Popen:
        spawned.append(fake_worker.spawn(workspace, run))
        return spawned[-1]

    supervisor = Supervisor(Workspace.open(tmp_path), spawn=spawn)
    supervisor.start()
    real, refused = files.replace, []

    def full_disk(path: Path, data: object, lasting: bool = True) -> None:
        refused.append(path)
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    try:
        run = supervisor.submit(fake_worker.recipe(10_000, 10), RunFacts.from_json({"script": {"step_s": 0.005}}))
        wait_until(lambda: run.saved_step() >= 10, 60)
        monkeypatch.setattr(files, "replace", full_disk)
        spawned[0].kill()
        wait_until(lambda: len(refused) >= 3, 30)
        # Every page knows it, but for the moments in which the supervisor tries again and holds the run's lock for it.
        wait_until(lambda: supervisor.runs.status(run).state == State.INTERRUPTED, 30)
        monkeypatch.setattr(files, "replace", real)
        wait_until(lambda: run.status().state == State.INTERRUPTED, 30)
        assert len(spawned) == 1
    finally:
        supervisor.close()
    faults.add("disk full while a killed worker's end is written down", "supervisor")
