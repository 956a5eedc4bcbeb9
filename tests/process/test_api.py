"""`import lora_garage`: the notebook of the docs, and what the functions share with the commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lora_garage
from core.api import training
from core.commands.__main__ import main
from core.errors import RunError
from core.messages import msg
from core.presets import PROJECT
from core.runs.folder import Status
from core.runs.states import State
from core.workspace.folder import Workspace
from tests.kit import tiny

DATA = "sample:pirate_answers"


def python(script: str, **environment: str) -> subprocess.CompletedProcess:
    """Run a script as a person's own program, beside the checkout."""
    return subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.gate
def test_the_notebook_of_the_docs_runs_cell_by_cell(tmp_path: Path, tiny_model: Path) -> None:
    space = tiny.in_place_of_the_starter(Workspace.open(tmp_path / "ws"), tiny_model)
    cells = json.loads((PROJECT / "docs" / "first-run.ipynb").read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) == 6 and {"outputs": [], "execution_count": None}.items() <= cells[1].items()
    run = f"import sys\nnames = {{}}\nfor cell in {code!r}:\n    exec(cell, names)\n    print('----')\n"
    done = python(run + "print('torch' in sys.modules)", LORA_GARAGE_HOME=str(space.root))
    assert done.returncode == 0, done.stderr[-2000:]
    inspected, planned, trained, asked, evaluated, refused, heavy = done.stdout.split("----\n")
    assert inspected.startswith("68 rows, ") and planned.startswith("fits: True") and heavy == "False\n"
    assert trained.startswith("waiting") and "completed" in trained and len(re.findall(r"\d\.\d+", trained)) == 4
    assert "'base': " in asked and "label='tuned'" in evaluated and "no file “nothing.jsonl”" in refused
    assert "Fewer than 20" in done.stderr, "a warning of the plan"


def test_importing_it_loads_nothing_of_ours_and_another_core_is_named() -> None:
    loaded = (
        "print([name for name in sys.modules if name.split('.')[0] in ('core', 'torch', 'typer')], dir(lora_garage))"
    )
    done = python(f"import sys, lora_garage\n{loaded}")
    assert done.stdout == f"[] {sorted(lora_garage.__all__)}\n"
    other = "import sys, types\nsys.modules['core'] = core = types.ModuleType('core')\ncore.__file__ = '/a/core.py'\n"
    assert "/a/core.py is loaded as core" in python(other + "import lora_garage\nlora_garage.plan").stderr


def test_the_functions_return_what_the_commands_print(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    def without_sentences(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: without_sentences(v) for k, v in value.items() if k != "sentence"}
        return list(map(without_sentences, value)) if isinstance(value, list | tuple) else value

    place = ["--json", "--workspace", str(workspace.root)]
    for arguments, found in (
        (["inspect", DATA, "--rows", "2"], lora_garage.inspect(DATA, rows=2, workspace=workspace.root)),
        (["plan", "--model", "7B", "--vram", "12"], lora_garage.plan("7B", vram=12, workspace=workspace.root)),
    ):
        assert main([*arguments, *place]) == 0
        assert without_sentences(json.loads(capsys.readouterr().out)) == without_sentences(found.as_json())


@pytest.mark.parametrize("state", [State.FAILED, State.INTERRUPTED])
def test_a_run_that_fails_is_an_error_and_its_settings_are_checked(
    state: State, make_workspace: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, failed = make_workspace().root, Status(state=state, message=msg("run.never_started", code="9"))
    monkeypatch.setattr(training, "follow", lambda run, space, on_status: failed)
    recipe = {"data": {"source": DATA}, "train": {"max_steps": 60}}
    with pytest.raises(RunError, match="9"):
        lora_garage.train(recipe, settings={"train.learning_rate": 0.01}, workspace=root)
    with pytest.raises(lora_garage.GarageError, match="learning_rate"):
        lora_garage.train(recipe, settings={"train.learning_rate": "hot"}, workspace=root)
    assert recipe["train"] == {"max_steps": 60}, "the caller's own stays as it was"
