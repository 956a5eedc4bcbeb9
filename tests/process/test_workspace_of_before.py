"""A workspace that version 0.1 left (commit 3bbf3dc) opens as it is: runs in every state, a queue, an export, what was
chosen.

tests/data/workspace_of_0.1.zip was made by that version's own code and commands: eight runs of a tiny model, the words
of its commands in expected/. Left out of it is what can be had anew: the tokenizer (the starter's) and the tiny model's
weights (a seed).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from core.messages import Message
from core.presets import PROJECT
from core.queue.queue import Queue
from core.queue.supervisor import spawn_worker
from core.runs import further
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import State
from core.system.processes import worker_environment
from core.workspace import preferences
from core.workspace.folder import Workspace
from tests.kit.waits import wait_until

ARCHIVE = PROJECT / "tests" / "data" / "workspace_of_0.1.zip"
NAMES = {"done", "done-2", "in-four-bit", "paused", "killed", "stopped", "failed", "waiting"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, starter_folder: Path) -> Path:
    """The archive unpacked and whole again: workspace/, library/, expected/."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    root = tmp_path_factory.mktemp("before")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(root)
    for file in [file for file in root.rglob("*") if file.is_file() and file.suffix != ".pt"]:
        raw = file.read_bytes()
        if b"@ROOT@" in raw:
            # inside JSON, where \\ would mean another thing
            file.write_bytes(raw.replace(b"@ROOT@", root.as_posix().encode()))
    for config in [*root.rglob("tokenizer_config.json")]:
        shutil.copyfile(starter_folder / "tokenizer.json", config.with_name("tokenizer.json"))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(root / "library" / "tiny")).save_pretrained(
        root / "library" / "tiny"
    )
    return root


@pytest.fixture
def workspace(place: Path) -> Workspace:
    return Workspace.open(place / "workspace")


def run_named(workspace: Workspace, name: str) -> RunFolder:
    [run] = [run for run in Runs(workspace).list() if run.id.split("_")[1] == name]
    return run


def command(*arguments: str, workspace: Workspace) -> Any:
    line = [sys.executable, "-m", "core.commands", *arguments, "--workspace", str(workspace.root), "--json"]
    done = subprocess.run(
        line,
        env=os.environ | {"LORA_GARAGE_LANG": "en"},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def without_sizes(value: Any) -> Any:
    """Paths of this machine are of another length than those of the one that made it, and Windows says them with \\."""
    if isinstance(value, str) and os.name == "nt":
        return value.replace("\\", "/")
    if isinstance(value, dict):
        return {key: without_sizes(each) for key, each in value.items() if key != "bytes"}
    return [without_sizes(each) for each in value] if isinstance(value, list) else value


def in_words_of_now(value: Any) -> Any:
    """A message is a key and its values, which are held; its sentence is that of this version's catalogue."""
    if isinstance(value, dict):
        message = {key: in_words_of_now(each) for key, each in value.items()}
        is_message = {"key", "params", "sentence"} <= message.keys()
        return message | (
            {"sentence": str(Message(key=message["key"], params=message["params"]))} if is_message else {}
        )
    return [in_words_of_now(each) for each in value] if isinstance(value, list) else value


def expected(place: Path, name: str) -> Any:
    return in_words_of_now(without_sizes(json.loads((place / "expected" / f"{name}.json").read_text("utf-8"))))


def test_the_commands_say_of_it_what_they_said_then(place: Path, workspace: Workspace) -> None:
    assert {run.id.split("_")[1] for run in Runs(workspace).list()} == NAMES
    unsaid = {"better": []}  # what a run of then says of being better
    then = [run | unsaid for run in expected(place, "runs")["runs"]]
    assert without_sizes(command("runs", workspace=workspace))["runs"] == then
    for name in sorted(NAMES):
        output = without_sizes(command("runs", run_named(workspace, name).id, workspace=workspace))
        assert output == expected(place, f"run-{name}") | unsaid, name
    queue = expected(place, "queue")
    assert queue.pop("sleep_at") is None  # the app no longer lets the PC sleep after the last run
    assert command("queue", "list", workspace=workspace) == queue
    output = without_sizes(command("inspect", "my-rows", "--model", "library:tiny", workspace=workspace))
    then = expected(place, "inspect")
    # What it could not say then, and what it found nothing of.
    nothing: dict[str, Any] = {name: [] for name in ("left_out", "people", "questions", "findings", "readings")}
    nothing |= {
        "roles": {},
        "guessed": False,
        "undecided": False,
        "validation": 0,
        "continued": 0,
        "chat": None,
        "conversations": None,
        "header": None,
        "sheet": "",
        "sheets": [],
    }
    assert [output.pop("kind"), len(output.pop("examples"))] == [
        "chat" if then["format"] == "messages" else "instruction",
        3,
    ]
    assert list(output.pop("columns")) == then.pop("columns") and output.pop("file_kind") == then.pop("kind")
    assert output == then | nothing | {"learned": then["learned"] | {"rows_refused": 0, "refused": []}}


def test_what_was_chosen_and_kept_is_there(workspace: Workspace) -> None:
    chosen = preferences.read(workspace)
    assert chosen.automation.programs == ("game.exe",) and chosen.automation.hours
    assert run_named(workspace, "done").name == "Done, renamed"
    order = Queue(workspace).read()
    assert (
        [entry.run.split("_")[1] for entry in order.runs] == ["waiting"] and order.hold and order.hold.why == "person"
    )
    for run in Runs(workspace).list():
        assert run.recipe().model.id == "library:tiny", run.id


def test_every_run_is_drawn_in_both_languages_and_the_export_is_listed(workspace: Workspace) -> None:
    script = """
import sys
from core.workspace.folder import Workspace
from webui.app import build
from webui.state.services import Services
from webui.kit.wording import Wording
from webui.run import card
services = Services.open(Workspace.open(sys.argv[1]))
rows = services.snapshots.now(fresh=True).rows
drawn = [
    (row.id, len(str(card.card(services.snapshots.view(row.id), Wording(language)))))
    for row in rows
    for language in ("en", "zh")
]
print(len(drawn), min(size for _, size in drawn), len(services.snapshots.exports(rows[-1].id)[0]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(workspace.root)],
        env=worker_environment(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cards, smallest, exports = map(int, done.stdout.split())
    assert cards == 2 * len(NAMES) and smallest > 200 and exports == 1


@pytest.mark.parametrize("name", ["paused", "killed"])
def test_a_run_that_was_cut_off_goes_on_from_its_checkpoint(workspace: Workspace, name: str) -> None:
    run = run_named(workspace, name)
    losses = {line["step"]: line["loss"] for line in run.all_metrics() if line["kind"] == "train"}
    Runs(workspace).queue_again(run, "command")
    worker = spawn_worker(workspace, run)
    wait_until(lambda: run.status().step > 18 or worker.poll() is not None, 120)
    run.request("pause")
    assert worker.wait(600) == 4, run.log_tail()
    assert run.status().state == State.PAUSED
    again = {
        line["step"]: line["loss"] for line in run.all_metrics() if line["kind"] == "train" and line["attempt"] == 2
    }
    assert min(again) == 16, "the step after its checkpoint"
    if os.environ.get("OMP_NUM_THREADS") == "1":  # as when it was made; the weights are the same by their seed
        assert {step: again[step] for step in again if step in losses} == {
            step: losses[step] for step in again if step in losses
        }


def test_a_run_that_is_done_is_trained_further(workspace: Workspace) -> None:
    parent, runs = run_named(workspace, "done"), Runs(workspace)
    recipe = further.recipe_of(parent)
    child = runs.create(recipe.model_copy(update={"name": "Child"}), "command", further.facts_of(parent))
    assert spawn_worker(workspace, child).wait(600) == 0, child.log_tail()
    assert child.status().state == State.COMPLETED
    runs.delete(child)
