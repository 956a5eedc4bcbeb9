"""Where the journeys on the null card happen: a workspace with a tiny model, and commands that find the card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file

from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.states import BUSY, State
from core.workspace.folder import Workspace
from tests.card.card import NullCard
from tests.kit import waits
from tests.kit.files import tools_of_cache

LIMIT_S = 600.0  # of one command on a busy PC; most take half a minute
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Place:
    """A workspace, and the commands as `launch.py` would start them on a PC with the card. settings: NULLCARD_* for all of them."""

    root: Path
    card: NullCard

    @classmethod
    def make(cls, root: Path, library: Path) -> Place:
        (root / "workspace").mkdir(parents=True)
        (root / "workspace" / "settings.yaml").write_text(json.dumps({"library_folders": [str(library)]}), "utf-8")
        tools_of_cache(root / "workspace")
        return cls(root, NullCard())

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root / "workspace")

    def started(self, *arguments: str, settings: Mapping[str, str] = NO_SETTINGS) -> subprocess.Popen[str]:
        ours = {"LORA_GARAGE_HOME": str(self.root / "workspace"), "LORA_GARAGE_LANG": "en", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [str(self.card.python), "-m", "core.commands", *arguments], cwd=self.root, env=self.card.environment(settings) | ours,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def command(self, *arguments: str, settings: Mapping[str, str] = NO_SETTINGS) -> subprocess.CompletedProcess[str]:
        process = self.started(*arguments, settings=settings)
        try:
            output, errors = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def recipe(self, name: str, **sections: dict[str, Any]) -> str:
        """A file beside the workspace: six steps of two short rows on the tiny model. sections: what differs, by section."""
        train = {
            "max_steps": 6,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "sample_seconds": 0,
        }
        value: dict[str, Any] = {
            "name": name, "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"}, "adapter": {"r": 4}, "train": train,
        }  # fmt: skip
        for section, entries in sections.items():
            value[section] = value.get(section, {}) | entries
        file = self.root / f"{name}.yaml"
        file.write_text(json.dumps(value), "utf-8")
        return file.name

    def train(self, name: str, settings: Mapping[str, str] = NO_SETTINGS, **sections: dict[str, Any]) -> RunFolder:
        """A run, which must complete."""
        done = self.command("train", self.recipe(name, **sections), "--json", settings=settings)
        run = self.run(name)
        assert done.returncode == 0, f"{done.stderr[-3000:]}\n{run.log_tail()}"
        assert self.state(run) == State.COMPLETED
        return run

    def run(self, name: str) -> RunFolder:
        """The newest run of that name, once it is there."""
        waits.wait_until(lambda: [run for run in Runs(self.workspace).list() if run.name == name], LIMIT_S)
        return next(run for run in Runs(self.workspace).list() if run.name == name)

    def at_step(self, name: str, step: int) -> RunFolder:
        run = self.run(name)
        waits.wait_until(lambda: run.status().step >= step or self.state(run) not in BUSY, LIMIT_S)
        assert run.status().state == State.RUNNING, f"{run.status()}\n{run.log_tail()}"
        return run

    def state(self, run: RunFolder) -> State:
        return Runs(self.workspace).status(run).state


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in run.metrics().records if line["kind"] == "train"]


def largest_difference(one: RunFolder, other: RunFolder) -> float:
    """Between the adapters of two runs, over all parameters."""
    first, second = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, other))
    assert first.keys() == second.keys() and first
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
