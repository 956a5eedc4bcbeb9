"""Where the journeys happen: a folder such as people in Europe and China have, a tiny model, commands with a time
limit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import BUSY, State
from core.workspace.folder import Workspace
from tests.kit import waits
from tests.windows import console

PROGRAM = "Zürich – LoRA Übung"  # an en dash
NAME = f"{PROGRAM} 中"
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", ".cache", ".ruff_cache", "__pycache__", "*.pyc")
LIMIT_S = 600.0  # of one command: reading torch takes 10 s under Wine, and 100 s where the PC is busy with other tests


def wait_for(condition: Callable[[], object]) -> None:
    """Asked four times a second: each look at a file is a request to Wine's server, which all processes share."""
    waits.wait_until(condition, LIMIT_S, every_s=0.25)


def unpack(folder: Path) -> Path:
    """The program as a person has it who has just unpacked it. Returns folder, which must not exist."""
    shutil.copytree(
        PROJECT,
        folder,
        ignore=lambda inside, names: LEFT_OUT(inside, names) | ({"workspace"} if Path(inside) == PROJECT else set()),
    )
    return folder


@dataclass(frozen=True)
class Place:
    """A folder with everything of one person, and the commands as `launch.py` would start them. bf16: whether torch
    says that the processor has the instructions AVX512_BF16; None: as it is."""

    root: Path
    bf16: bool | None = None

    @classmethod
    def make(cls, folder: Path, library: Path) -> Place:
        root = folder / NAME
        (root / "workspace").mkdir(parents=True)
        (root / "workspace" / "settings.yaml").write_text(json.dumps({"library_folders": [str(library)]}), "utf-8")
        return cls(root)

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root / "workspace")

    @property
    def environment(self) -> dict[str, str]:
        ours = {
            "LORA_GARAGE_HOME": str(self.root / "workspace"),
            "LORA_GARAGE_LANG": "en",
            "PYTHONPATH": str(PROJECT),
            "PYTHONUTF8": "1",
        }
        if self.bf16 is not None:
            path = os.pathsep.join((str(Path(__file__).with_name("processor")), str(PROJECT)))
            ours |= {"PYTHONPATH": path, "LORA_GARAGE_TEST_BF16": str(int(self.bf16))}
        return os.environ | ours

    def command(self, *arguments: str, limit_s: float = LIMIT_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(*arguments),
            cwd=self.root,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=limit_s,
        )

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Not waited for; what it says lies in a file."""
        with open(self.root / f"{arguments[0]}.log", "ab") as log:
            return subprocess.Popen(
                self.line(*arguments),
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def in_a_console(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return console.in_a_console(
            [sys.executable, "-m", module, *arguments], self.root / f"{module}.log", self.environment, self.root
        )

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "core.commands", *arguments]

    def recipe(self, name: str, steps: int, **train: Any) -> str:
        """A file beside the workspace. Each step is one of two short rows; saved each 20."""
        value = {
            "name": name, "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
            "adapter": {"r": 4},
            "train": {"max_steps": steps, "learning_rate": 1e-2, "per_device_train_batch_size": 1,
                "gradient_accumulation_steps": 2, "save_steps": 20, "sample_seconds": 0} | train,
        }  # fmt: skip
        file = self.root / f"{name}.yaml"
        file.write_text(json.dumps(value), "utf-8")
        return file.name

    def run(self, name: str) -> RunFolder:
        """The newest of that name, once it is there."""
        wait_for(lambda: [each for each in Runs(self.workspace).list() if each.name == name])
        return next(each for each in Runs(self.workspace).list() if each.name == name)

    def at_step(self, name: str, step: int) -> RunFolder:
        run = self.run(name)
        wait_for(lambda: run.status().step >= step or self.state(run) not in BUSY)
        assert run.status().state == State.RUNNING, f"{run.status()}\n{run.log_tail()}"
        return run

    def state(self, run: RunFolder) -> State:
        """As a page or a command sees it: the run of a worker that is gone is interrupted."""
        return Runs(self.workspace).status(run).state


def adapter_of(run: RunFolder) -> bytes:
    return (run.adapter / "adapter_model.safetensors").read_bytes()
