"""What trackers get of a run, and that one which fails or hangs costs the run nothing. The two real ones that need no
server are read back by their own libraries, in --full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import RecipeError
from core.presets import PROJECT
from core.recipe import Recipe
from core.runs import sample_answers
from core.runs.reporter import Reporter
from core.runs.sample_answers import Frame, FrameAnswer
from core.runs.states import State
from core.training.trackers import trackers
from core.training.trackers.trackers import Trackers
from core.workspace.folder import Workspace
from tests.kit import durations
from tests.kit.runs import ScriptedRun


class Recorder:
    """A callback that keeps what it is sent, and raises or waits where a test wants it."""

    def __init__(self, fails_at: int | None = None, waits: threading.Event | None = None):
        self.sent: list[tuple[int, dict[str, Any]]] = []
        self.settings: dict[str, Any] = {}
        self.name, self.has_ended, self._fails_at, self._waits = "", False, fails_at, waits

    def on_train_begin(self, arguments: Any, state: Any, control: Any) -> None:
        self.settings, self.name = arguments.to_dict(), arguments.run_name

    def on_log(self, arguments: Any, state: Any, control: Any, logs: dict[str, Any]) -> None:
        if self._waits:
            self._waits.wait()
        if state.global_step == self._fails_at:
            raise OSError("no space left")
        self.sent.append((state.global_step, logs))

    def on_train_end(self, arguments: Any, state: Any, control: Any) -> None:
        self.has_ended = True


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedRun]:
    monkeypatch.setattr(trackers, "LOOK_S", 0.01)
    for name in [name for name in os.environ if name.startswith(("WANDB", "TRACKIO", "TENSORBOARD", "MLFLOW"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    space = Workspace.open(tmp_path / "ws")
    with ScriptedRun(space, "tracked", train={"report_to": ["tensorboard", "trackio"], "max_steps": 40}) as run:
        yield run.to(State.RUNNING)


def following(scripted: ScriptedRun, monkeypatch: pytest.MonkeyPatch, **callbacks: Recorder | Exception) -> Trackers:
    def callback(name: str) -> Recorder:
        if isinstance(one := callbacks[name], Exception):
            raise one
        return one

    monkeypatch.setattr(trackers, "_callback", callback)
    run = scripted.run
    return Trackers(run, Workspace.open(run.path.parent.parent), Reporter(run))


def warnings_of(scripted: ScriptedRun) -> list[dict[str, Any]]:
    return [event["message"]["params"] for event in scripted.run.events() if event["kind"] == "warning"]


def test_metrics_settings_and_samples_are_sent_and_a_resumed_run_goes_on(
    scripted: ScriptedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Recorder(), Recorder()
    with following(scripted, monkeypatch, tensorboard=one, trackio=other):
        scripted.train(10)
        answers = FrameAnswer(text="Aye.", why="stop"), FrameAnswer(text="", why="time")
        sample_answers.append(scripted.run, Frame(step=10, answers=answers))
    steps = [(step, logs) for step, logs in one.sent if "loss" in logs]
    assert [step for step, _ in steps] == list(range(1, 11)) and one.sent == other.sent and one.has_ended
    assert set(steps[0][1]) == {"loss", "grad_norm", "learning_rate", "tokens_seen", "tokens_per_second", "epoch"}
    rest = {name for _, logs in one.sent for name in logs} - set(steps[0][1])
    assert rest == {"eval_loss", "gpu_memory_bytes", "gpu_memory_total_bytes", "sample_1"}
    assert one.settings["train.learning_rate"] == scripted.run.recipe().train.learning_rate
    assert one.name == scripted.run.id and not warnings_of(scripted)

    again = Recorder()
    with following(scripted, monkeypatch, tensorboard=again, trackio=Recorder()):
        scripted.train(2)
    assert [step for step, _ in again.sent] == [11, 12]


def test_one_that_fails_is_a_warning_and_the_other_goes_on(
    scripted: ScriptedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Recorder()
    with following(scripted, monkeypatch, tensorboard=Recorder(fails_at=3), trackio=good):
        scripted.train(5)
    assert [step for step, _ in good.sent] == [1, 2, 3, 4, 5]
    [warning] = warnings_of(scripted)
    assert (warning["tracker"], warning["reason"]) == ("tensorboard", "no space left")


def test_without_their_packages_a_run_is_warned_and_nothing_is_sent(
    scripted: ScriptedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = RuntimeError("requires tensorboard to be installed")
    with following(scripted, monkeypatch, tensorboard=missing, trackio=missing):
        scripted.train(5)
    assert {warning["tracker"] for warning in warnings_of(scripted)} == {"tensorboard", "trackio"}


def test_a_tracker_that_hangs_is_left_at_the_end(scripted: ScriptedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = threading.Event()
    monkeypatch.setattr(trackers, "CLOSE_S", 0.2)
    with following(scripted, monkeypatch, tensorboard=Recorder(waits=waits), trackio=Recorder()):
        scripted.train(5)
    assert any(thread.name == "trackers" for thread in threading.enumerate()), "the run ended before it"
    waits.set()


def test_a_recipe_names_known_trackers_only() -> None:
    data = {"source": "sample:pirate_answers"}
    assert Recipe.parse({"data": data, "train": {"report_to": ["wandb"]}}).train.report_to == ("wandb",)
    with pytest.raises(RecipeError, match="report_to"):
        Recipe.parse({"data": data, "train": {"report_to": ["comet"]}})


READ = """
import json, sys
import trackio
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trackio.sqlite_storage import SQLiteStorage
events = EventAccumulator(sys.argv[1])
events.Reload()
[run] = trackio.Api().runs("lora-garage")
logs = SQLiteStorage.get_logs("lora-garage", run.name)
print(json.dumps({
    "tensorboard": [one.step for one in events.Scalars("train/loss")],
    "trackio": [one["train/global_step"] for one in logs if "train/loss" in one],
    "run": [run.name, run.config["adapter.r"]],
}))
"""


@pytest.mark.full
def test_tensorboard_and_trackio_read_back_what_a_resumed_run_wrote(
    scripted: ScriptedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Both from the index, in a folder of their own beside this environment's packages."""
    folder = durations.cache() / "trackers"
    if not (folder / "complete").exists():
        packages = "tensorboard tensorboard-data-server absl-py grpcio protobuf werkzeug trackio httptools watchfiles"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, *packages.split(), "websockets", "markdown"], check=True)
        (folder / "complete").touch()
    environment = os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}"}
    environment["TRACKIO_DIR"] = str(scripted.run.path.parent.parent / "trackio")
    scripted.run.log_metrics("train", 1, 0, loss=9.0)  # before: not sent
    for _ in range(2):
        part = (
            "from core.runs.all import Runs; from core.runs.reporter import Reporter;"
            "from core.training.trackers.trackers import Trackers\n"
            "from core.workspace.folder import Workspace; import sys\n"
            "space = Workspace.open(sys.argv[1]); [run] = Runs(space).list()\n"
            "step = len(run.newest_metrics())\n"
            "with Trackers(run, space, Reporter(run)):\n"
            "    for at in range(step, step + 3): run.log_metrics('train', 1, at, loss=1 / at)\n"
        )
        place = str(scripted.run.path.parent.parent)
        subprocess.run([sys.executable, "-c", part, place], env=environment, check=True)
    arguments = [sys.executable, "-c", READ, str(scripted.run.path / "tensorboard")]
    result = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True)
    read = json.loads(result.stdout.splitlines()[-1])
    assert read["tensorboard"] == read["trackio"] == [1, 2, 3, 4, 5, 6]
    assert read["run"] == [scripted.run.id, scripted.run.recipe().adapter.r]
    assert not warnings_of(scripted)
