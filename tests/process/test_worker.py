"""The real worker in a real process: what it leaves in the run folder, whatever happens to it.

Faults run on a tiny random model that borrows the starter's tokenizer; the main path runs on the starter itself.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core import __version__
from core.advice import plan
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.models import adapters, weights
from core.presets import PRESETS, PROJECT
from core.queue.supervisor import Supervisor, spawn_worker
from core.queue.turns import busy
from core.recipe import Recipe
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.system.processes import worker_environment
from core.workspace.folder import Workspace
from tests.kit.awake import HOLDS, Program
from tests.kit.waits import PATIENCE, wait_until


@pytest.fixture
def workspace(tmp_path: Path, tiny_model: Path) -> Workspace:
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "settings.yaml").write_text(json.dumps({"library_folders": [str(tiny_model.parent)]}), "utf-8")
    return Workspace.open(tmp_path / "ws")


def tiny_recipe(**changes: dict) -> Recipe:
    value = {
        "name": "Tiny",
        "model": {"id": "library:tiny"},
        "data": {"source": "sample:pirate_answers", **changes.pop("data", {})},
        "adapter": {"r": 4, **changes.pop("adapter", {})},
        "train": {"max_steps": 8, "learning_rate": 1e-2, "sample_seconds": 0, **changes.pop("train", {})},
        **changes,
    }
    return plan.resolve(Recipe.parse(value), "data", has_card=False)


def finish(process: subprocess.Popen, run: RunFolder, timeout_s: float = 600) -> int:
    try:
        return process.wait(timeout_s * PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the worker did not end: {run.status()}\n{run.log_tail()}") from None


def carried_out(workspace: Workspace, recipe: Recipe) -> tuple[RunFolder, int]:
    run = Runs(workspace).create(recipe, "command")
    return run, finish(spawn_worker(workspace, run), run)


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in run.metrics().records if line["kind"] == "train"]


def test_a_run_leaves_everything_that_the_interface_promises(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inhibitor = Program("systemd-inhibit", HOLDS, tmp_path / "bin", monkeypatch)
    run, code = carried_out(workspace, tiny_recipe())
    status = run.status()
    assert (code, status.state, status.step, status.total_steps) == (0, State.COMPLETED, 8, 8), run.log_tail()
    lines = run.metrics().records
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, 9))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 2, 4, 6, 8]
    for line in lines:
        names = {"loss", "learning_rate", "grad_norm", "tokens_seen", "tokens_per_second"}
        assert line["v"] == 1 and line["attempt"] == 1 and (line["kind"] != "train" or names <= set(line))
    assert losses(run)[-1] < losses(run)[0]
    assert [folder.name for folder in run.checkpoints()][-1] == "checkpoint-000008"
    assert len(run.checkpoints()) <= 3, "two newest and the best"
    facts = run.facts()
    assert facts.best_checkpoint in [folder.name for folder in run.checkpoints()]
    assert facts.dtype in ("bfloat16", "float32") and facts.dtype_reason.key.startswith("device.")
    assert (facts.rows_trained, facts.rows_measured) == (8 * 4, 3) and facts.versions["torch"]
    assert facts.versions["lora_garage"] == __version__
    assert facts.base_weights == weights.sampled_fingerprint(workspace.library_folders[0] / "tiny") != ""
    assert not run.is_locked()
    assert status.awake.key == "awake.held" and "--what=idle:sleep" in inhibitor.asked and not inhibitor.runs
    recipe = run.recipe()
    assert recipe.adapter.lora_alpha == 8 and recipe.train.optim == "adamw_torch"
    card = (run.adapter / "README.md").read_text("utf-8")
    assert "library_name: peft" in card and "learning_rate | 0.01" in card
    model = workspace.library_folders[0] / "tiny"
    assert adapters.describe(run.adapter).base == str(model)
    turns = [{"role": "user", "content": "Hello?"}]
    assert Tokenizer(run.adapter).prompt(turns) == Tokenizer(model).prompt(turns), "a chat is framed as training did"


def test_the_same_recipe_twice_gives_the_same_losses(workspace: Workspace) -> None:
    steps = {"max_steps": 3, "eval_steps": 3}
    first, _ = carried_out(workspace, tiny_recipe(train=steps))
    second, _ = carried_out(workspace, tiny_recipe(train=steps))
    other, _ = carried_out(workspace, tiny_recipe(train=steps | {"seed": 7}))
    assert losses(first) == losses(second) != losses(other)
    name = "adapter_model.safetensors"
    assert (first.adapter / name).read_bytes() == (second.adapter / name).read_bytes()


def test_a_run_with_offloaded_layers_is_the_run_without_bit_for_bit(workspace: Workspace) -> None:
    """The worker's own way, from the base that is read into RAM to the adapter; here the card is RAM too
    (tests/model/test_streaming)."""
    results = []
    for count in (0, 2):
        steps = {"max_steps": 2, "eval_steps": 2, "gradient_checkpointing": True, "offload_layers": count}
        run, code = carried_out(workspace, tiny_recipe(train=steps, adapter={"method": "qlora"}))
        assert code == 0, run.log_tail()
        results.append(((run.adapter / "adapter_model.safetensors").read_bytes(), losses(run)))
    assert results[0] == results[1]
    keys = [event["message"]["key"] for event in run.events() if event["kind"] == "decision"]
    assert "offload.begun" in keys


def test_accumulation_and_checkpointing_and_everything_else_run(workspace: Workspace) -> None:
    recipe = tiny_recipe(
        adapter={"use_dora": True, "target_modules": "q_proj,v_proj"},
        data={"train_on": "everything"},
        train={"gradient_accumulation_steps": 3, "gradient_checkpointing": True, "optim": "adamw_8bit", "max_steps": 2},
    )
    run, code = carried_out(workspace, recipe)
    assert code == 0, run.log_tail()


@pytest.fixture
def poisoned_model(tiny_model: Path) -> Iterator[tuple[str, str]]:
    """The tiny model with an infinite embedding for one word; yields its id and the word."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tiny_model.parent / "poisoned"
    shutil.copytree(tiny_model, folder)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, tie_word_embeddings=False)
    with torch.no_grad():
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        model.get_input_embeddings().weight[Tokenizer(tiny_model).encode(" poison")[0]] = float("inf")
    model.save_pretrained(folder)
    yield "library:poisoned", " poison"
    shutil.rmtree(folder)


def test_a_row_that_gives_no_number_is_left_out_said_and_the_run_goes_on(
    workspace: Workspace, poisoned_model: tuple[str, str], tmp_path: Path
) -> None:
    model, word = poisoned_model
    rows = [{"question": f"Number {i}?", "answer": f"It is {i}."} for i in range(12)]
    rows[5]["question"] = f"Is it{word}?"
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    info = DatasetStore(workspace.datasets, PRESETS).import_file(file, "rows")
    chosen = {"seed": 6, "per_device_train_batch_size": 1, "max_steps": 12}
    run, code = carried_out(workspace, tiny_recipe(model={"id": model}, data={"source": info.id}, train=chosen))
    status = run.status()
    assert (code, status.state, status.step) == (0, State.COMPLETED, 12), run.log_tail()
    [bad] = [line for line in run.metrics().records if line.get("nonfinite")]
    [guard] = [event for event in run.events() if event["kind"] == "guard"]
    assert bad["loss"] is None and bad["step"] == guard["step"] > 1 and guard["message"]["key"] == "sanity.left_out"
    from safetensors.torch import load_file

    assert run.has_adapter() and all(
        t.isfinite().all() for t in load_file(run.adapter / "adapter_model.safetensors").values()
    )


def test_data_with_nothing_to_learn_fails_in_words(workspace: Workspace) -> None:
    run, code = carried_out(workspace, tiny_recipe(data={"max_length": 8}))
    status = run.status()
    assert (code, status.state, status.message.key) == (1, State.FAILED, "run.nothing_to_learn")
    assert "8" in status.message.render("zh") and status.advice.key == "advice.data"
    assert "Traceback" not in run.log_tail()


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("library:nothing", "model.not_in_library"),
        ("library:../tiny", "model.not_in_library"),
        ("../../etc", "model.bad_id"),
    ],
)
def test_a_model_that_is_not_there_fails_in_words(workspace: Workspace, model: str, key: str) -> None:
    run, code = carried_out(workspace, tiny_recipe(model={"id": model}))
    assert (code, run.status().state, run.status().message.key) == (1, State.FAILED, key)


def test_an_unforeseen_error_shows_its_kind_and_keeps_its_traceback_in_the_log(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = "import core.engine.base_model as base\ndef load(*a, **k): raise ZeroDivisionError\nbase.load_finite = load"
    real = subprocess.Popen

    def popen(command: list[str], **settings: object) -> subprocess.Popen:
        return real([*command[:2], "tests.faults.instead", command[2], fails, *command[3:]], **settings)

    monkeypatch.setattr(subprocess, "Popen", popen)
    run, code = carried_out(workspace, tiny_recipe())
    status = run.status()
    assert (code, status.state) == (1, State.FAILED)
    assert "ZeroDivisionError" in status.message.render("en") and status.advice.render("zh")
    assert "Traceback" in run.log_tail() and "ZeroDivisionError" in run.log_tail()


PHASES = ["tokenizing", pytest.param("loading_libraries", marks=pytest.mark.spawn), "loading_model", "training"]


@pytest.mark.parametrize("phase", PHASES)
def test_stop_works_within_two_seconds_in_every_phase(workspace: Workspace, phase: str) -> None:
    run = Runs(workspace).create(tiny_recipe(train={"max_steps": 100_000}), "command")
    process = spawn_worker(workspace, run)
    wait_until(lambda: phase in [e.get("stage") for e in run.events()] or run.status().state in (State.FAILED,), 60)
    if phase == "training":
        wait_until(lambda: run.status().step >= 3, 60)
    asked_at = time.monotonic()
    run.request("stop")
    code = finish(process, run, 20)
    seconds = time.monotonic() - asked_at
    status = run.status()
    assert (code, status.state) == (3, State.STOPPED), run.log_tail()
    assert run.has_adapter() == (phase == "training") == status.has_adapter
    # Two seconds is the promise; a loaded CI machine gets the benefit of the doubt, a hang does not.
    assert seconds < 10, f"stopping while {phase} took {seconds:.1f} s"
    print(f"stopped while {phase} in {seconds:.2f} s")


def test_stop_during_the_download_ends_pip_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip is pointed at an address that accepts and never answers."""
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    workspace = Workspace.open(tmp_path / "empty")
    run = Runs(workspace).create(tiny_recipe(model={"id": "starter"}), "command")
    process = spawn_worker(workspace, run)
    wait_until(lambda: run.status().stage == "downloading_model", 60)
    asked_at = time.monotonic()
    run.request("stop")
    assert finish(process, run, 20) == 3
    assert time.monotonic() - asked_at < 10
    assert run.status().state == State.STOPPED
    assert not [p for p in _processes() if str(workspace.root) in p], "pip went on"
    server.close()


def _processes() -> list[str]:

    lines = []
    for process in psutil.process_iter(["cmdline"]):
        lines.append(" ".join(process.info["cmdline"] or []))
    return lines


def supervisor_of(workspace: Workspace) -> Supervisor:
    supervisor = Supervisor(workspace)
    supervisor.start()
    return supervisor


def test_an_active_run_without_a_process_is_interrupted_for_every_reader_at_once(workspace: Workspace) -> None:
    runs = Runs(workspace)
    run = runs.create(tiny_recipe(), "app")
    run.write_status(run.status().model_copy(update={"state": State.PREPARING}))
    run.write_status(run.status().model_copy(update={"state": State.RUNNING, "step": 3, "total_steps": 8}))
    assert runs.status(run).state == State.INTERRUPTED
    assert busy(runs) is None


def test_two_starts_at_once_give_one_run(workspace: Workspace) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from core.errors import BusyError

    supervisor = Supervisor(workspace)  # not started: nothing leaves the queue meanwhile

    def submit(_: int) -> object:
        try:
            return supervisor.submit(tiny_recipe())
        except BusyError as error:
            return error

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(submit, range(8)))
    assert sum(isinstance(result, RunFolder) for result in results) == 1
    assert len(Runs(workspace).list()) == 1
    assert {r.message.key for r in results if isinstance(r, BusyError)} == {"queue.same"}


def test_a_queued_run_that_is_stopped_never_starts(workspace: Workspace) -> None:
    supervisor = Supervisor(workspace)
    run = supervisor.submit(tiny_recipe())
    supervisor.stop(run)
    supervisor.start()
    try:
        wait_until(lambda: run.status().state == State.STOPPED, 10)
        assert not (run.path / "train.log").exists()
    finally:
        supervisor.close()


def test_closing_the_app_pauses_and_saves(workspace: Workspace) -> None:
    supervisor = supervisor_of(workspace)
    run = supervisor.submit(tiny_recipe(train={"max_steps": 100_000}))
    wait_until(lambda: run.status().step >= 2, 60)
    supervisor.close()
    assert run.status().state == State.PAUSED and run.saved_step() == run.status().step >= 2


def test_a_run_waits_its_turn_while_another_process_holds_the_device(workspace: Workspace) -> None:
    """A run that cannot have the device says who has it."""
    from core.messages import msg
    from core.workspace import lease

    with lease.hold(workspace, msg("lease.training", name="somebody else")):
        run = Runs(workspace).create(tiny_recipe(), "command")
        soon = "import core.training.worker as worker\nworker.LEASE_WAIT_S = 0.2"
        command = [sys.executable, "-m", "tests.faults.instead", "core.training.worker", soon]
        command += ["--workspace", str(workspace.root), run.id]
        assert finish(subprocess.Popen(command, cwd=PROJECT, env=worker_environment()), run, 60) == 1
    assert run.status().message.key == "lease.held" and "somebody else" in run.status().message.render("en")


@pytest.mark.gate
def test_the_starter_model_learns_in_4_bit_in_a_few_steps(make_workspace: Callable[[], Workspace]) -> None:
    """Real QLoRA on the real model; LoRA: the journeys in the browser and without one."""
    value = {
        "data": {"source": "sample:pirate_answers"},
        "adapter": {"method": "qlora"},
        "train": {
            "learning_rate": 3e-3, "max_steps": 6, "per_device_train_batch_size": 2, "eval_steps": 6, "save_steps": 6,
            "sample_seconds": 0,
        },
    }  # fmt: skip
    run, code = carried_out(make_workspace(), plan.resolve(Recipe.parse(value), "qlora", has_card=False))
    assert code == 0, run.log_tail()
    measured = [line["eval_loss"] for line in run.metrics().records if line["kind"] == "eval"]
    assert measured[-1] < 0.7 * measured[0]
    assert losses(run)[0] > 2, "the first answers are the base's"


@pytest.mark.gate
def test_the_starter_model_comes_to_prefer_the_better_answers_in_a_few_steps(
    make_workspace: Callable[[], Workspace], tmp_path: Path
) -> None:
    """Real DPO on the real model, measured on pairs that it does not train on."""
    workspace, file = make_workspace(), tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"What is {i}?", "chosen": f"Arr, it be {i}!", "rejected": f"It is {i}."} for i in range(24)]
    file.write_text("\n".join(map(json.dumps, pairs)), "utf-8")
    value = {
        "data": {"source": DatasetStore(workspace.datasets, PRESETS).import_file(file, "pairs").id},
        "train": {
            "objective": "dpo", "learning_rate": 1e-3, "max_steps": 4, "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1, "eval_steps": 4, "sample_seconds": 0,
        },
    }  # fmt: skip
    run, code = carried_out(workspace, plan.resolve(Recipe.parse(value), "dpo", has_card=False))
    assert code == 0, run.log_tail()
    first, last = [line for line in run.metrics().records if line["kind"] == "eval"]
    assert first["eval_loss"] == pytest.approx(0.6931472, abs=1e-5), "a coin, before the first step"
    assert last["eval_loss"] < 0.35 and last["eval_rewards/accuracies"] == 1.0 and last["eval_rewards/margins"] > 1


def test_a_run_that_said_completed_leaves_at_once_whatever_a_library_still_waits_for(workspace: Workspace) -> None:
    """Once a worker was seen that had said so and then did not end. Here what a library left for the end of Python
    never returns."""
    run = Runs(workspace).create(tiny_recipe(train={"max_steps": 1}), "command")
    waits = "import atexit, runpy, threading; atexit.register(threading.Event().wait)"
    waits += "; runpy.run_module('core.training.worker', run_name='__main__', alter_sys=True)"
    with open(run.path / "train.log", "ab") as log:
        command = [
            sys.executable,
            "-m",
            "tests.faults.instead",
            "core.training.worker",
            waits,
            "--workspace",
            str(workspace.root),
        ]
        command += [run.id]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=workspace.root, env=worker_environment())
    assert finish(process, run, 60) == 0, run.log_tail()
    assert run.status().state == State.COMPLETED and not run.is_locked()
    assert run.log_tail(), "what it printed is there"
