"""The probe before the first step: it changes no number of the run, tells what is needed, and stops what cannot fit.

Real workers on a tiny model; memory limits are a fact of the run or the system's own (RLIMIT_DATA).
"""

from __future__ import annotations

import json
import mmap
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from core.advice import plan
from core.engine.step import LongestBatch
from core.errors import DoesNotFitError, PauseRequested
from core.memory.record import MemoryRecord, Rig
from core.models.shapes.shape import ModelShape
from core.queue.supervisor import spawn_worker
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import State
from core.system import processes
from core.system.gpu import Card
from core.system.machine import this_machine
from core.system.processes import ResidentPeak
from core.training.memory.probe import Probe
from core.training.trainer import Trainer
from core.workspace.folder import Workspace
from tests.kit.trainer import assert_same, losses, run_paused, trainer_of
from tests.kit.waits import wait_until


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Workspace:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(tmp_path / "ws")


def probe_of(trainer: Trainer, workspace: Workspace) -> Probe:
    trainer.reporter.run.path.mkdir(exist_ok=True, parents=True)
    shape = ModelShape.from_config(trainer.step.tuned.get_base_model().config.to_dict())
    return Probe(trainer.reporter.run, workspace, trainer.recipe, shape)


def test_the_estimate_is_of_rows_as_the_card_computes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One kernel for all packed rows needs packed rows, and a card that has it."""
    monkeypatch.setattr("core.memory.setup.sys", SimpleNamespace(platform="linux"))
    trainer = trainer_of(tmp_path / "run", None)
    trainer.step.on_card = True
    probe = probe_of(trainer, Workspace.open(tmp_path / "ws"))
    grouped = []
    for capability, packed in (((8, 6), True), ((7, 5), True), ((8, 6), False)):
        card = Card(index=0, name="RTX", capability=capability)
        monkeypatch.setattr(probe, "_card_and_rig", lambda on_card, card=card: (card, None))
        trainer.step.packed = packed
        setup = probe._setup(trainer.step, LongestBatch(tuple(trainer.data.train[:2]), 64, 32, several=True))
        grouped.append((setup.grouped, setup.per_device_train_batch_size))
    assert grouped == [(True, 1), (False, 1), (False, 2)]


# ---- nothing of the run changes ------------------------------------------------------------------


@pytest.mark.parametrize("how", [{}, {"lora": {"lora_dropout": 0.3}}], ids=["plain", "dropout"])
def test_a_run_has_the_same_numbers_with_and_without_it(how: dict, tmp_path: Path) -> None:
    without, probed = trainer_of(tmp_path / "without", None, **how), trainer_of(tmp_path / "probed", None, **how)
    without.run()
    probed.run(probe_of(probed, Workspace.open(tmp_path / "ws")))
    assert len(without.reporter.numbers) > 8
    assert_same(probed, without)
    facts = probed.reporter.run.facts().memory
    assert facts.measured_gib > 0.05 and facts.arithmetic_gib == facts.predicted_gib


def test_a_run_that_goes_on_is_probed_too_and_stays_the_same(tmp_path: Path) -> None:
    """Paused inside the probe (before any step), in the middle, where the optimizer's state is there already, and after
    the last step, with a measurement still due."""
    uninterrupted = trainer_of(tmp_path / "whole", None)
    uninterrupted.run()
    without_probe = uninterrupted.reporter.checks
    for at in (2, 30, without_probe + 4):
        paused = run_paused(
            lambda pause, at=at: trainer_of(tmp_path / str(at), pause),
            [at],
            lambda trainer: trainer.run(probe_of(trainer, Workspace.open(tmp_path / "ws"))),
        )
        assert_same(paused, uninterrupted, at)


def test_the_longest_batch_is_the_one_with_most_tokens_that_any_step_has(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, None)
    longest = trainer.longest()
    sizes = []
    for step in trainer.schedule.steps():
        for batch in step:
            lengths = [len(trainer.data.train[i].input_ids) for i in batch]
            sizes.append(sum(lengths) if trainer.step.packed else max(lengths) * len(lengths))
    assert longest.tokens == max(sizes) and longest.several
    assert longest.trained_tokens == sum(row.learned_count for row in longest.rows)


def test_stop_and_pause_are_heard_inside_it(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, 2)
    with pytest.raises(PauseRequested):
        trainer.run(probe_of(trainer, Workspace.open(tmp_path / "ws")))
    assert trainer.reporter.numbers == {} and all(p.grad is None for p in trainer.step.parameters)


# ---- what it says --------------------------------------------------------------------------------


def test_it_refuses_before_the_first_step_and_keeps_nothing_of_what_did_not_fit(tmp_path: Path) -> None:
    trainer, space = trainer_of(tmp_path / "run", None), Workspace.open(tmp_path / "ws")
    probe = probe_of(trainer, space)
    trainer.reporter.run.add_facts(RunFacts(memory_limit_gib=0.01, advice={"estimate": {"on_card_gib": 1.5}}))
    with pytest.raises(DoesNotFitError, match=r"Stopped before the first step.*0\.01 GiB"):
        trainer.run(probe)
    facts = trainer.reporter.run.facts().memory
    assert facts.measured_gib is None and facts.planned_gib == 1.5 and facts.limit_gib == pytest.approx(0.01)
    assert trainer.position.step == 0 and not MemoryRecord(space)._lines()
    assert all(p.grad is None for p in trainer.step.parameters)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)
def test_an_allocator_that_gives_up_is_no_crash(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tmp_path / "run", None)
    monkeypatch.setattr(trainer.step, "rehearse", lambda longest: (_ for _ in ()).throw(error))
    with pytest.raises(DoesNotFitError) as refused:
        trainer.run(probe_of(trainer, Workspace.open(tmp_path / "ws")))
    assert refused.value.advice is not None and "{" not in str(refused.value.advice)


def test_another_fault_inside_it_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of(tmp_path / "run", None)
    monkeypatch.setattr(trainer.step, "rehearse", lambda longest: {}["a bug"])
    with pytest.raises(KeyError):
        trainer.run(probe_of(trainer, Workspace.open(tmp_path / "ws")))


def test_the_peak_counts_memory_that_is_given_back_at_once() -> None:
    """Memory of the system's own: torch's and Python's is taken again from what they keep, in a process that has tested
    for minutes."""
    resident = psutil.Process().memory_info
    with ResidentPeak() as peak:
        with mmap.mmap(-1, 300 << 20) as held:
            for _ in range(300):
                held.write(bytes(1 << 20))
            wait_until(lambda: peak.bytes > resident().rss - (50 << 20))
        assert peak.bytes - resident().rss > 200 << 20
    assert not peak.is_over
    with ResidentPeak(limit_bytes=1) as peak:
        wait_until(lambda: peak.is_over)


def test_a_peak_whose_thread_died_before_its_first_word_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    """Where memory was short a worker waited for it for ever."""
    monkeypatch.setattr(threading, "_start_new_thread", lambda *_: 1)
    monkeypatch.setattr(processes._thread, "start_new_thread", lambda *_: 1)
    with ResidentPeak() as peak:
        pass
    assert peak.bytes > 0


# ---- real workers --------------------------------------------------------------------------------


def recipe_of(model: str = "library:tiny", **train: Any) -> Recipe:
    value = {
        "name": "Probed", "model": {"id": model}, "data": {"source": "sample:pirate_answers"}, "adapter": {"r": 8},
        "train": {"max_steps": 2, "learning_rate": 1e-3, "save_steps": 1000, "sample_seconds": 0} | train,
    }  # fmt: skip
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def worked(
    workspace: Workspace, recipe: Recipe, begun: Callable[[int, RunFolder], None] = lambda pid, run: None, **facts: Any
):
    run = Runs(workspace).create(recipe, "command", RunFacts(**facts))
    process = spawn_worker(workspace, run)
    begun(process.pid, run)
    try:
        code = process.wait(150)
    finally:
        process.kill()
    return run, code


def test_a_run_that_cannot_fit_stops_with_the_sentence_and_no_traceback(workspace: Workspace) -> None:
    run, code = worked(workspace, recipe_of(), memory_limit_gib=0.2)
    status, facts = run.status(), run.facts()
    assert (code, status.state, status.step, status.message.key) == (1, State.FAILED, 0, "probe.does_not_fit_more"), (
        run.log_tail()
    )
    assert "0.20 GiB" in str(status.message) and status.advice.key.startswith("probe.advice")
    assert "Traceback" not in run.log_tail(200) and losses(run) == {} and not run.has_adapter()
    assert facts.memory.limit_gib == 0.2 and facts.memory.measured_gib is None
    assert [event["state"] for event in run.events() if event["kind"] == "state"][-1] == "failed"
    run.add_facts(RunFacts(memory_limit_gib=None))  # the person has closed something, and lets it go on
    Runs(workspace).queue_again(run, "command")
    assert spawn_worker(workspace, run).wait(150) == 0, run.log_tail()
    assert run.status().state == State.COMPLETED and run.facts().memory.measured_gib > 0.2


REFUSED = """
import resource, sys
from pathlib import Path
import psutil
from tests.kit import trainer as kit
from core.errors import DoesNotFitError
from core.training.memory.probe import Probe
from core.models.shapes.shape import ModelShape
from core.workspace.folder import Workspace

kit.rows = lambda count: [kit.Encoded([5 + i % 90 for i in range(8_000)], [True] * 8_000)] * count
trainer = kit.trainer_of(Path(sys.argv[1]) / "run", None)
shape = ModelShape.from_config(trainer.step.tuned.get_base_model().config.to_dict())
probe = Probe(trainer.reporter.run, Workspace.open(Path(sys.argv[1]) / "ws"), trainer.recipe, shape)
held = psutil.Process().memory_info().data
resource.setrlimit(resource.RLIMIT_DATA, (held + (24 << 20), resource.RLIM_INFINITY))
try:
    trainer.run(probe)
except DoesNotFitError as error:
    print("REFUSED", error.message.key, trainer.position.step, error)
sys.exit()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit on data alone: Linux")
def test_where_the_system_itself_refuses_the_memory_the_sentence_is_the_same(tmp_path: Path) -> None:
    """A process of its own, whose allocator really gets no more."""
    command = [sys.executable, "-m", "tests.faults.instead", "core.training.worker", REFUSED, str(tmp_path)]
    child = subprocess.run(command, env=processes.worker_environment(), capture_output=True, text=True)
    assert "REFUSED probe.does_not_fit" in child.stdout and "needs more than the" in child.stdout, child.stderr
    assert " 0 Stopped before the first step" in child.stdout


def test_the_first_runs_ratio_corrects_the_second_to_within_15_percent(
    workspace: Workspace, make_workspace: Callable[[], Workspace], full: bool
) -> None:
    """On a processor: four times the rows at once, so that the second is not just the first again. With --full on the
    starter."""
    space, model = (make_workspace(), "starter") if full else (workspace, "library:tiny")
    short = {"max_steps": 1, "sample_seconds": 0.5}  # a film, which needs memory too
    first, code = worked(space, recipe_of(model, per_device_train_batch_size=1, **short))
    assert code == 0, first.log_tail()
    was = first.facts().memory
    assert was.runs == 0 and was.predicted_gib == was.arithmetic_gib
    second, code = worked(space, recipe_of(model, per_device_train_batch_size=4, **short))
    assert code == 0, second.log_tail()
    now = second.facts().memory
    needed = was.peak_gib or was.measured_gib  # where a later step needed more than the longest batch, that corrects
    assert now.runs == 1 and now.factor == pytest.approx(needed / was.arithmetic_gib, rel=0.01)
    assert now.tokens > 2 * was.tokens
    assert now.predicted_gib == pytest.approx(now.measured_gib, rel=0.15), (was, now)
    params = [event["message"]["params"] for event in second.events() if event["kind"] == "memory"]
    assert [params[0]["predicted"], params[0]["measured"]] == [
        pytest.approx(getattr(now, f"{name}_gib"), abs=1e-3) for name in ("predicted", "measured")
    ]
    corrections = MemoryRecord(space).corrections(Rig.from_machine(this_machine(), None), model)
    assert corrections.for_method("lora").runs == 2
