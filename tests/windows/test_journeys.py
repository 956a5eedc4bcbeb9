"""What Windows alone breaks, walked through on a Windows Python: standard input, consoles, kills, files under readers,
line ends.

Each with hard time limits.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from core.runs.folder import RunFolder
from core.runs.states import State
from tests.kit.ports import free_port
from tests.windows import console
from tests.windows.place import LIMIT_S, Place, adapter_of, wait_for

pytestmark = pytest.mark.skipif(os.name != "nt", reason="on a Windows Python: python launch.py test --windows")
STEPS = 120


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Place:
    return Place.make(tmp_path_factory.mktemp("journeys"), tiny_model.parent)


@pytest.fixture(scope="module")
def undisturbed(place: Place) -> RunFolder:
    done = place.command("train", place.recipe("Undisturbed", STEPS), "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["state"], result["step"]) == ("completed", STEPS)
    return place.run("Undisturbed")


@pytest.fixture
def ends() -> Iterator[list[subprocess.Popen]]:
    """What a test has started and may leave behind."""
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_chat_answers_from_both_models(place: Place, undisturbed: RunFolder) -> None:
    """The import of torch hung for ever while a thread waited for the next line of the pipe."""
    done = place.command(
        "chat", undisturbed.id, "--prompt", "What is a horse?", "--base", "--max-new-tokens", "8", "--json"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["base"] and result["tuned"] and result["base"] != result["tuned"]


@pytest.mark.parametrize(
    ("bf16", "reasons"), [(True, {"device.cpu_bf16", "device.cpu_fp32_timed"}), (False, {"device.cpu_fp32"})]
)
def test_a_processor_with_and_without_bf16_instructions_trains(place: Place, bf16: bool, reasons: set[str]) -> None:
    """With them the types are timed, and each run ended with ZeroDivisionError."""
    name = f"Instructions {bf16}"
    done = replace(place, bf16=bf16).command("train", place.recipe(name, 3), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["state"] == "completed", done
    assert place.run(name).facts().dtype_reason.key in reasons


def test_a_dry_run_counts_a_step(place: Place) -> None:
    """The same in the other worker that is spoken to in lines."""
    done = place.command("estimate", "--model", "library:tiny", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["dry_run"]
    assert result.get("on_card_gib", 0) > 0, result


def test_ctrl_c_pauses_and_the_run_goes_on_to_the_same_adapter(
    place: Place, undisturbed: RunFolder, ends: list
) -> None:
    command = place.in_a_console("core.commands", "train", place.recipe("Paused", STEPS))
    ends.append(command)
    run = place.at_step("Paused", 3)
    assert run.status().pid not in console.sharing(command.pid), "Ctrl-C would reach the worker too"
    console.press_ctrl_c(command.pid)
    assert command.wait(LIMIT_S) == 4, run.log_tail()
    assert place.state(run) == State.PAUSED and 3 <= run.status().step < STEPS
    done = place.command("resume", run.id)
    assert done.returncode == 0, done.stderr
    assert adapter_of(run) == adapter_of(undisturbed)


@pytest.mark.full
def test_a_killed_worker_goes_on_to_the_same_adapter(place: Place, undisturbed: RunFolder, ends: list) -> None:
    ends.append(place.begin("train", place.recipe("Killed", STEPS)))
    run = place.at_step("Killed", 25)
    psutil.Process(run.status().pid).kill()
    assert ends[0].wait(LIMIT_S) not in (0, 4)
    assert place.state(run) == State.INTERRUPTED and run.saved_step() >= 20
    done = place.command("resume", run.id)
    assert done.returncode == 0, done.stderr
    assert adapter_of(run) == adapter_of(undisturbed)


@pytest.mark.full
def test_a_run_outlives_the_command_that_started_it(place: Place, ends: list) -> None:
    ends.append(place.begin("train", place.recipe("Alone", 4 * STEPS)))
    run = place.at_step("Alone", 3)
    command = psutil.Process(ends[0].pid).children()[0].pid if sys.prefix != sys.base_prefix else ends[0].pid
    # an environment's python.exe, whose job ends the command that it started, and nothing that this one has started
    ends[0].kill()
    wait_for(lambda: not psutil.pid_exists(command))
    assert place.state(run) == State.RUNNING, run.log_tail()
    wait_for(lambda: place.state(run) == State.COMPLETED)
    assert run.status().step == 4 * STEPS and run.has_adapter()


def test_closing_the_console_of_the_app_leaves_its_training_alive(place: Place, ends: list) -> None:
    """App and worker ended at once, the run without a checkpoint. Before that a second app finds the first, and
    afterwards the worker can still be asked from elsewhere."""
    ends.append(place.in_a_console("webui", "--no-browser", "--port", str(free_port())))
    app = ends[0]
    wait_for(lambda: app.poll() is not None or "http://" in (place.root / "webui.log").read_text("utf-8"))
    assert app.poll() is None, (place.root / "webui.log").read_text("utf-8")
    second = subprocess.run(
        [*place.line()[:-1], "webui", "--no-browser"],
        cwd=place.root,
        env=place.environment,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
    )
    assert second.returncode == 0 and "http://" in second.stdout, second
    assert place.command("train", place.recipe("Closed", 5000), "--queue").returncode == 0
    run = place.at_step("Closed", 3)
    worker = run.status().pid
    inside = console.sharing(app.pid)
    assert inside and worker not in inside
    console.close(app.pid)
    app.wait(LIMIT_S)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in inside))
    step = run.status().step
    wait_for(lambda: run.status().step > step + 3)
    assert place.state(run) == State.RUNNING and psutil.pid_exists(worker)
    assert place.command("pause", run.id).returncode == 0
    wait_for(lambda: place.state(run) == State.PAUSED)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["ollama", "adapter", "merged", "gguf"])
def test_an_export_has_no_carriage_return_in_what_others_read(kind: str, place: Place, undisturbed: RunFolder) -> None:
    """W6: Ollama sends what stands inside TEMPLATE to the model as it is."""
    done = place.command("export", undisturbed.id, "--to", kind, "--json")
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["folder"])
    ours = [
        file
        for file in folder.rglob("*")
        if file.name in ("Modelfile", "README.md", "export.json", "chat_template.jinja")
    ]
    assert ours and [file.name for file in ours if b"\r" in file.read_bytes()] == []
