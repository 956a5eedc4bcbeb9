"""Where the journeys on the null card happen: a workspace with a tiny model, and commands that find the card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors.torch import load_file

from core.models import starter
from core.presets import PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.runs.states import BUSY, State
from core.system import devices
from core.workspace.folder import Workspace
from tests.card.card import NullCard
from tests.kit import waits
from tests.kit.files import link_or_copy, tools_of_cache

LIMIT_S = 600.0  # of one command on a busy PC; most take half a minute
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Place:
    """A workspace with the tiny model and the starter, and commands as `launch.py` would start them on a PC with the
    card."""

    root: Path
    card: NullCard

    @classmethod
    def make(cls, root: Path, library: Path, starter_folder: Path) -> Place:
        (root / "workspace").mkdir(parents=True)
        own = starter.folder(Workspace.open(root / "workspace").models)
        own.mkdir()
        for file in starter_folder.iterdir():
            link_or_copy(file, own / file.name)
        (root / "workspace" / "settings.yaml").write_text(json.dumps({"library_folders": [str(library)]}), "utf-8")
        tools_of_cache(root / "workspace")
        return cls(root, NullCard())

    @property
    def workspace(self) -> Workspace:
        return Workspace.open(self.root / "workspace")

    def environment(self, settings: Mapping[str, str] = NO_SETTINGS) -> dict[str, str]:
        """settings: NULLCARD_* of null/runtime.c."""
        ours = {"LORA_GARAGE_HOME": str(self.root / "workspace"), "LORA_GARAGE_LANG": "en", "OMP_NUM_THREADS": "1"}
        return self.card.environment(settings) | ours

    def started(self, *arguments: str, settings: Mapping[str, str] = NO_SETTINGS) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.card.python), "-m", "core.commands", *arguments], cwd=self.root, env=self.environment(settings),
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
        """A file beside the workspace: six steps of two short rows on the tiny model. sections: what differs, by
        section."""
        train = {
            "max_steps": 6,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "sample_seconds": 0,
        }
        value: dict[str, Any] = {
            "name": name, "model": {"id": "library:tiny"}, "data": {"source": "sample:pirate_answers"},
            "adapter": {"r": 4}, "train": train,
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

    def trained_in_float32(self, name: str, **sections: dict[str, Any]) -> tuple[RunFolder, RunFolder]:
        """The same recipe on the card and on the processor, each by a worker of its own (in_float32.py)."""
        runs = Runs(self.workspace)
        done = self.command("train", self.recipe(f"{name}-float32", **sections), "--queue", "--json")
        assert done.returncode == 0, done.stderr[-3000:]
        on_card = self.run(f"{name}-float32")
        facts = RunFacts(data=on_card.facts().data, wanted_device=devices.CPU)
        on_processor = runs.create(on_card.recipe(), "command", facts)
        variables = {name: value for name, value in os.environ.items() if name != "NULLCARD_REPORT"}
        for run, python, environment in (
            (on_card, str(self.card.python), self.environment()),
            (on_processor, sys.executable, variables | {"CUDA_VISIBLE_DEVICES": ""}),
        ):
            worker = [python, "-m", "tests.card.in_float32", "--workspace", str(self.root / "workspace"), run.id]
            done = subprocess.run(worker, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=LIMIT_S)
            assert self.state(run) == State.COMPLETED, done.stdout[-3000:] + done.stderr[-3000:]
        return on_card, on_processor

    def answers(
        self, run: RunFolder, prompt: str, tokens: int, settings: Mapping[str, str] = NO_SETTINGS
    ) -> tuple[str, str]:
        """Of the base and of the tuned model."""
        arguments = ("chat", run.id, "--prompt", prompt, "--base", "--max-new-tokens", str(tokens), "--json")
        done = self.command(*arguments, settings=settings)
        assert done.returncode == 0, done.stderr[-3000:]
        losses = json.loads(done.stdout)
        return losses["base"], losses["tuned"]

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


def card_of(name: str, capability: str, gib: int) -> dict[str, str]:
    """Settings of another card than the usual one, which is an RTX 3060 of 12 GB."""
    return {"NULLCARD_NAME": f"Null {name}", "NULLCARD_CAPABILITY": capability, "NULLCARD_MIB": str(gib * 1024)}


def losses(run: RunFolder) -> list[float]:
    return [line["loss"] for line in run.metrics().records if line["kind"] == "train"]


def largest_difference(one: RunFolder, other: RunFolder) -> float:
    """Between the adapters of two runs, over all parameters."""
    first, second = (load_file(run.adapter / "adapter_model.safetensors") for run in (one, other))
    assert first.keys() == second.keys() and first
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)
