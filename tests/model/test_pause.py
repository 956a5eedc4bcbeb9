"""A run that was paused, anywhere and as often as you like, is the run that never was: every later loss and the
adapter, bit for bit."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from core.advice import plan
from core.engine import base_model
from core.engine.device import Compute
from core.errors import BusyError, RunError
from core.messages import msg
from core.queue.supervisor import Supervisor, spawn_worker
from core.recipe import Recipe
from core.runs import ended as pausing
from core.runs import time_left
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts, TimeFacts
from core.runs.states import State
from core.runs.time_left import TimeLeft
from core.training import checkpoint, worker
from core.training.checkpoint import read
from core.training.trainer import Trainer
from core.workspace import lease
from core.workspace.folder import Workspace
from tests.kit import families
from tests.kit.runs import ScriptedRun
from tests.kit.trainer import BF16, FP32, assert_same, losses, run_paused, trainer_of
from tests.kit.waits import wait_until
from webui.kit.wording import Wording
from webui.run import card as run_panel
from webui.state.services import Services


def paused(folder: Path, pauses: list[int], **how: Any) -> Trainer:
    trainer = run_paused(lambda at: trainer_of(folder, at, **how), pauses)
    last = trainer.schedule.total_steps
    assert trainer.position.step == last and ("eval", last) in trainer.reporter.told
    return trainer


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = trainer_of(tmp_path_factory.mktemp("whole"), None)
    trainer.run()
    return trainer


def test_wherever_it_was_paused_the_run_is_the_same(uninterrupted: Trainer, tmp_path: Path, full: bool) -> None:
    """At every sub-step there is: between layers forwards and backwards, inside an accumulation, inside an evaluation.
    In the gate at each third, which passes each of these in one step or another."""
    checks = uninterrupted.reporter.checks
    assert checks > 60
    for at in range(1, checks + 1, 1 if full else 3):
        assert_same(paused(tmp_path / str(at), [at]), uninterrupted, at)


@pytest.mark.parametrize("pauses", [[7, 9], [30, 4, 11], [1, 1, 1], [60, 2]])
def test_paused_more_than_once_it_is_still_the_same(pauses: list[int], uninterrupted: Trainer, tmp_path: Path) -> None:
    assert_same(paused(tmp_path, pauses), uninterrupted)


def test_every_attempt_counts_in_the_time_that_a_run_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends; an attempt that is killed leaves what it wrote with its last checkpoint. The clock goes on a
    second each time it is asked."""
    run, ticks = RunFolder(tmp_path), itertools.count()
    monkeypatch.setattr(time_left, "TimeLeft", partial(TimeLeft, clock=lambda: float(next(ticks))))

    def took() -> float:
        pace = run.facts().time
        assert pace and pace.took_seconds is not None
        return pace.took_seconds

    paused(tmp_path, [30])
    ended = took()
    assert 0 < ended < next(ticks)
    run.add_facts(RunFacts(time=TimeFacts(after_steps=20, said_seconds=7.0, took_seconds=1000.0)))
    again = trainer_of(tmp_path, None, max_steps=30, early_stopping_patience=3, learning_rate=1.0)
    times = []
    again.checkpoints = dataclasses.replace(
        again.checkpoints, save_adapter=lambda folder: (folder.mkdir(), times.append(took()))
    )
    again.run()
    assert again.has_stopped_improving and again.position.step < 30
    assert 1000 < times[0] <= times[-1] < took() < 1000 + next(ticks), "each checkpoint's card can say it"
    assert run.facts().time.said_seconds == 7.0


def test_dropout_goes_on_with_the_same_random_numbers(tmp_path: Path) -> None:
    how = {"lora": {"lora_dropout": 0.3}}
    uninterrupted = trainer_of(tmp_path / "whole", None, **how)
    uninterrupted.run()
    for at in (9, 25, 40):
        assert_same(paused(tmp_path / str(at), [at], **how), uninterrupted, at)


@pytest.mark.parametrize("compute", [pytest.param(FP32, marks=pytest.mark.full), BF16], ids=["", "16 bit"])
def test_on_a_four_bit_base_it_goes_on_bit_for_bit(
    compute: Compute, in_4_bit: Callable[[Any], Any], tmp_path: Path
) -> None:
    how = {"make": partial(in_4_bit, compute), "max_steps": 2, "gradient_accumulation_steps": 2}
    uninterrupted = trainer_of(tmp_path / "whole", **how)
    uninterrupted.run()
    assert_same(paused(tmp_path / "paused", [uninterrupted.reporter.checks // 2], **how), uninterrupted)


@pytest.mark.full
@pytest.mark.parametrize("four_bit", [False, True], ids=["lora", "qlora"])
def test_the_starter_goes_on_bit_for_bit(
    four_bit: bool, starter_in_4_bit: Callable[[Any], Any], starter_folder: Path, tmp_path: Path
) -> None:
    """On the real depth, in 16 bit where the processor has instructions for it: elsewhere a run takes float32
    (core.engine.device)."""
    compute = BF16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else FP32
    make = partial(starter_in_4_bit, compute) if four_bit else partial(base_model.load, starter_folder, compute, False)
    how = {"make": make, "max_steps": 2, "gradient_accumulation_steps": 2}
    uninterrupted = trainer_of(tmp_path / "whole", None, **how)
    uninterrupted.run()
    assert_same(paused(tmp_path / "paused", [uninterrupted.reporter.checks // 2], **how), uninterrupted)


FAMILIES = [name if name == "qwen3_5" else pytest.param(name, marks=pytest.mark.full) for name in families.FAMILIES]


@pytest.mark.parametrize(
    "checkpointing", [False, pytest.param(True, marks=pytest.mark.full)], ids=["", "checkpointing"]
)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_goes_on_bit_for_bit(name: str, checkpointing: bool, starter_folder: Path, tmp_path: Path) -> None:
    """Linear attention, convolutions, experts, towers set aside: early, in the middle and late."""
    folder = families.make(name, tmp_path / "base", starter_folder)
    make = partial(base_model.load, folder, FP32, False)
    how = {"make": make, "max_steps": 2, "gradient_accumulation_steps": 2, "gradient_checkpointing": checkpointing}
    uninterrupted = trainer_of(tmp_path / "whole", None, **how)
    uninterrupted.run()
    for at in (3, uninterrupted.reporter.checks // 2, uninterrupted.reporter.checks - 2):
        assert_same(paused(tmp_path / str(at), [at], **how), uninterrupted, at)


def test_a_checkpoint_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, None)
    trainer.run()
    [*_, last] = RunFolder(tmp_path).checkpoints()
    (last / "trainer.pt").write_bytes(b"half of it")
    with pytest.raises(RunError, match=last.name):
        read(last)


# ---- real processes ------------------------------------------------------------------------------
def with_library(folder: Path, tiny_model: Path) -> Workspace:
    folder.mkdir()
    (folder / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(folder)


@pytest.fixture
def space(tmp_path: Path, tiny_model: Path) -> Workspace:
    return with_library(tmp_path / "ws", tiny_model)


def recipe(steps: int, **train: Any) -> Recipe:
    value = {
        "name": "Tiny", "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
        "adapter": {"r": 4},
        "train": {
            "max_steps": steps, "learning_rate": 1e-2, "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "save_steps": 1000, "sample_seconds": 0,
        } | train,
    }  # fmt: skip
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def ended(process: subprocess.Popen, run: RunFolder) -> int:
    try:
        return process.wait(600)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the worker did not end: {run.status()}\n{run.log_tail()}") from None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunFolder:
    """recipe(30), which nothing disturbed."""
    space = with_library(tmp_path_factory.mktemp("whole") / "ws", tiny_model)
    run = Runs(space).create(recipe(30), "command")
    assert ended(spawn_worker(space, run), run) == 0, run.log_tail()
    return run


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Workspace:
    """With one run, killed after its second checkpoint; saving and measuring more or less often changes no loss."""
    space = with_library(tmp_path_factory.mktemp("killed") / "ws", tiny_model)
    run = Runs(space).create(recipe(30, save_steps=2, eval_steps=1000), "command")
    worker = spawn_worker(space, run)
    wait_until(lambda: len(run.checkpoints()) >= 2, 60)
    worker.kill()
    worker.wait()
    return space


@pytest.fixture
def killed_run(killed: Workspace, tmp_path: Path) -> tuple[Workspace, RunFolder]:
    """The test's own copy."""
    space = Workspace.open(shutil.copytree(killed.root, tmp_path / "killed"))
    [run] = Runs(space).list()
    return space, run


def test_a_worker_pauses_frees_the_device_and_goes_on(space: Workspace, undisturbed: RunFolder) -> None:
    runs = Runs(space)
    run = runs.create(recipe(30), "command")
    worker = spawn_worker(space, run)
    wait_until(lambda: run.status().step >= 3, 60)
    run.request("pause")
    assert ended(worker, run) == 4, run.log_tail()
    status = run.status()
    assert status.state == State.PAUSED and 3 <= status.step < 30 and not run.is_locked()
    assert [folder.name for folder in run.checkpoints()][-1] == f"checkpoint-{status.step:06d}"
    assert status.message.key == "pausing.paused" and 0 <= float(status.message.params["seconds"]) < 60
    with lease.hold(space, msg("lease.training", name="a game"), wait_s=0):
        pass  # the device is free at once
    runs.queue_again(run, "command")
    assert run.status().attempt == 2 and run.requested() is None
    assert ended(spawn_worker(space, run), run) == 0, run.log_tail()
    assert run.status().state == State.COMPLETED and losses(run) == losses(undisturbed)
    name = "adapter_model.safetensors"
    assert (run.adapter / name).read_bytes() == (undisturbed.adapter / name).read_bytes()
    attempts = {line["step"]: line["attempt"] for line in run.all_metrics() if line["kind"] == "train"}
    assert attempts[status.step] == 1 and attempts[status.step + 1] == 2


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(
    killed_run: tuple[Workspace, RunFolder], undisturbed: RunFolder
) -> None:
    space, run = killed_run
    runs, last = Runs(space), run.checkpoints()[-1]
    assert runs.status(run).state == State.INTERRUPTED
    runs.queue_again(run, "command")
    assert ended(spawn_worker(space, run), run) == 0, run.log_tail()
    second = [line["step"] for line in run.all_metrics() if line["attempt"] == 2 and line["kind"] == "train"]
    assert second[0] == int(last.name[-6:]) + 1 and losses(run) == losses(undisturbed)


def test_a_pause_while_nothing_is_learned_yet_ends_at_once_and_starts_anew(space: Workspace) -> None:
    runs = Runs(space)
    run = runs.create(recipe(4), "command")
    run.request("pause")
    assert ended(spawn_worker(space, run), run) == 4, run.log_tail()
    assert run.status().state == State.PAUSED and run.checkpoints() == []
    runs.queue_again(run, "command")
    assert ended(spawn_worker(space, run), run) == 0 and sorted(losses(run)) == [1, 2, 3, 4]


def test_a_later_attempt_that_is_stopped_before_it_begins_keeps_what_was_learned(space: Workspace) -> None:
    runs = Runs(space)
    run = runs.create(recipe(200), "command")
    worker = spawn_worker(space, run)
    wait_until(lambda: run.status().step >= 2, 60)
    run.request("pause")
    assert ended(worker, run) == 4
    runs.queue_again(run, "command")
    run.request("stop")
    assert ended(spawn_worker(space, run), run) == 3, run.log_tail()
    status = run.status()
    assert status.state == State.STOPPED and run.has_adapter() and status.message.key == "run.stopped_kept"


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(killed_run: tuple[Workspace, RunFolder]) -> None:
    space, run = killed_run
    runs = Runs(space)
    before, newest = run.checkpoints()[-2:]
    (newest / "adapter" / "adapter_model.safetensors").write_bytes(b"half")
    runs.queue_again(run, "command")
    assert ended(spawn_worker(space, run), run) == 0, run.log_tail()
    keys = [event["message"]["key"] for event in run.events() if isinstance(event.get("message"), dict)]
    assert "run.bad_checkpoint" in keys and "run.resumed" in keys
    second = [line["step"] for line in run.all_metrics() if line["attempt"] == 2 and line["kind"] == "train"]
    assert second[0] == int(before.name[-6:]) + 1 and run.status().state == State.COMPLETED


@pytest.mark.parametrize(
    ("fault", "is_damaged"),
    [
        (PermissionError(13, "held by a scanner"), False),
        (RuntimeError("not enough memory: you tried to allocate 16 bytes."), False),
        (OSError("The paging file is too small for this operation to complete. (os error 1455)"), False),
        (RuntimeError("PytorchStreamReader failed reading zip archive"), True),
    ],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_given_up(
    space: Workspace, fault: Exception, is_damaged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a run's were, one after the other, where the memory was short, and its next attempt began at step 0."""
    with ScriptedRun(space, "hours") as scripted:
        folder = scripted.run.path / "checkpoints" / "checkpoint-000005"
        folder.mkdir(parents=True)
        (folder / "position.json").write_text("{}", "utf-8")
        (folder / "COMPLETE").write_text("{}", "utf-8")
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"")
        monkeypatch.setattr(torch, "load", Mock(side_effect=fault))
        reporter = SimpleNamespace(warn=lambda message: None)
        with pytest.raises(RunError if is_damaged else type(fault)):
            worker._restore(Mock(), scripted.run, reporter)  # type: ignore[arg-type]
        assert bool(scripted.run.checkpoints()) != is_damaged


def test_weights_that_another_program_has_open_are_not_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors does of each file that cannot be opened."""
    (tmp_path / "position.json").write_text("{}", "utf-8")
    monkeypatch.setattr(torch, "load", Mock())
    monkeypatch.setattr(checkpoint, "open", Mock(side_effect=PermissionError(13, "held by a scanner")), raising=False)
    with pytest.raises(PermissionError):
        read(tmp_path)


def test_data_that_changed_in_between_is_refused(space: Workspace, tmp_path: Path) -> None:
    runs = Runs(space)
    run = runs.create(recipe(400), "command", RunFacts.from_json({"data": {"sha256": "of another file"}}))
    worker = spawn_worker(space, run)
    wait_until(lambda: run.status().step >= 2, 60)
    run.request("pause")
    assert ended(worker, run) == 4
    runs.queue_again(run, "command")
    assert ended(spawn_worker(space, run), run) == 1
    assert run.status().message.key == "run.data_changed" and run.checkpoints(), (
        "and it can go on once the file is back"
    )


def test_a_second_attempt_waits_for_nobody_and_two_cannot_be_queued(space: Workspace) -> None:
    runs = Runs(space)
    run = runs.create(recipe(4), "command")
    run.request("pause")
    assert ended(spawn_worker(space, run), run) == 4
    with run.lock().acquire(timeout=0), pytest.raises(BusyError):
        runs.queue_again(run, "command")
    runs.queue_again(run, "command")
    with pytest.raises(RunError):
        runs.queue_again(run, "command")


def test_a_resumed_run_that_nobody_starts_is_paused_not_lost(space: Workspace) -> None:
    """Its command died before the worker began: it became "stopped", which is final."""
    runs = Runs(space)
    run = runs.create(recipe(4), "command")
    run.request("pause")
    assert ended(spawn_worker(space, run), run) == 4
    runs.queue_again(run, "command")
    run.add_facts(RunFacts(launcher_started=1.0))  # another program has the number of the command that died
    assert runs.status(run).state == State.PAUSED
    runs.queue_again(run, "command")
    assert run.status().attempt == 3


def test_a_clock_that_jumped_while_a_run_paused_is_not_told_as_a_time(space: Workspace) -> None:
    run = Runs(space).create(recipe(4), "command")
    run.request("pause")
    status = run.status().model_copy(update={"state": State.PAUSING, "step": 7})
    assert pausing.ending(status, "pause", pausing.EndFacts.from_run(run), 0).message.key == "pausing.paused"
    for jump in (-1e6, 1e6):
        (run.path / "control.json").write_text(
            json.dumps({"v": 1, "command": "pause", "time": time.time() + jump}), "utf-8"
        )
        assert pausing.ending(status, "pause", pausing.EndFacts.from_run(run), 0).message == msg("run.paused", step=7)


def test_while_a_run_pauses_its_card_counts_the_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    services = Services.open(Workspace.open(tmp_path))
    with ScriptedRun(services.workspace, "slow disk") as scripted:
        scripted.to(State.PAUSING)
        since = time.time() - 7.2
        scripted.run.write_status(scripted.run.status().model_copy(update={"since": since, "seconds_left": 900.0}))
        shown = services.snapshots.now(fresh=True).shown
        monkeypatch.setattr(time, "time", lambda: since + 7.2)  # however long a busy PC takes until here
        card = run_panel.card(shown, Wording("en"))
        assert "7 s" in card and "min left" not in card


def test_only_what_stands_still_can_go_on(space: Workspace) -> None:
    runs = Runs(space)
    run = runs.create(recipe(4), "command")
    assert ended(spawn_worker(space, run), run) == 0
    with pytest.raises(RunError, match="Tiny"):
        runs.queue_again(run, "command")
    supervisor = Supervisor(space)
    with pytest.raises(RunError, match="Tiny"):
        supervisor.pause(run)


def test_the_supervisor_pauses_and_lets_go_on_and_a_queued_attempt_that_is_taken_back_stays_paused(
    space: Workspace,
) -> None:
    supervisor = Supervisor(space)
    supervisor.start()
    try:
        run = supervisor.submit(recipe(400))
        wait_until(lambda: run.status().step >= 2, 60)
        supervisor.pause(run)
        wait_until(lambda: run.status().state == State.PAUSED, 60)
        step, message = run.status().step, run.status().message
        assert message.key == "pausing.paused" and f"at step {step}" in str(message)
        supervisor.resume(run)
        wait_until(lambda: run.status().state == State.RUNNING and run.status().step > step, 60)
    finally:
        supervisor.close()  # Ctrl-C in the terminal
    assert run.status().state == State.PAUSED and run.status().step > step
    supervisor.runs.queue_again(run, "app")
    run.request("stop")
    supervisor._begin(run)
    assert run.status().state == State.PAUSED, "what was learned is not thrown away"
