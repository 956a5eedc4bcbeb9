"""The tools of each check: the folder of results, the options, the program's commands. No torch."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks import child
from core import files
from core.presets import PRESETS, PROJECT
from core.runs.all import Runs
from core.runs.folder import RunFolder
from core.system.processes import worker_environment
from core.workspace.folder import Workspace

MAX_LINES = 60  # of what a failed check said


class NotWell(Exception):
    """A check found something wrong, described in its message."""


class LeftOut(Exception):
    """A check does not apply here, for the reason in its message."""


@dataclass(frozen=True)
class Hour:
    """The tools of a check. folder: results.jsonl, report.md, the workspace. recipe: of the short runs. model: a
    person's own, "" for none. device: "cpu" to try the checks themselves without a card."""

    folder: Path
    recipe: Path = PRESETS / "recipes" / "quickstart.yaml"
    model: str = ""
    device: str = "cuda"

    @classmethod
    def read(cls, folder: Path) -> Hour:
        found = files.read_object(folder / "hour.json")
        return cls(folder, Path(found["recipe"]), found["model"], found["device"])

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        files.replace_json(
            self.folder / "hour.json", {"recipe": str(self.recipe), "model": self.model, "device": self.device}
        )

    @property
    def kept(self) -> dict[str, Any]:
        """Return the values that a check passes to later ones."""
        return files.read_object(self.folder / "kept.json")

    def keep(self, name: str, value: str) -> None:
        files.replace_json(self.folder / "kept.json", self.kept | {name: value})

    @property
    def space(self) -> Workspace:
        return Workspace.open(self.folder / "workspace")

    def line(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "core.commands", *arguments, "--workspace", str(self.folder / "workspace")]

    def command(self, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
        """Return the object that a command with --json prints, also if it fails. Raises NotWell if it prints none."""
        done = subprocess.run(
            self.line(*arguments, "--json"), cwd=PROJECT, env=worker_environment() | dict(environment),
            stdin=subprocess.DEVNULL, capture_output=True,
            encoding="utf-8", errors="replace",
        )  # fmt: skip
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise NotWell(f"{arguments[0]} ended with {done.returncode}: {last_of(done.stderr)}") from None
        return found

    def module(self, *command: str) -> list[str]:
        """Return the output of `python -m command`. Raises NotWell with its end if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            encoding="utf-8", errors="replace", env=child.environment(),
        )  # fmt: skip
        if done.returncode:
            raise NotWell(f"exit status {done.returncode}: {last_of(done.stdout)}")
        return done.stdout.strip().splitlines()

    def train(self, name: str, *settings: str, environment: Mapping[str, str] = MappingProxyType({})) -> RunFolder:
        """Train a run from its start to its end, or its failure."""
        ended = self.command("train", str(self.recipe), *chosen(name, settings), environment=environment)
        if "run" not in ended:
            raise NotWell(f"train made no run: {json.dumps(ended)[:2000]}")
        return Runs(self.space).get(str(ended["run"]))


def chosen(name: str, settings: tuple[str, ...]) -> Iterator[str]:
    for setting in (f"name={name}", *settings):
        yield from ("--set", setting)


def last_of(said: str) -> str:
    return "\n".join(said.strip().splitlines()[-MAX_LINES:])


@dataclass(frozen=True)
class Check:
    """A function of a module, imported only by the process that runs it, with its settings. It takes the Hour, returns
    its line, or lines, for the report, and raises NotWell or LeftOut, or any error that occurs."""

    module: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, hour: Hour) -> str | Sequence[str]:
        found: str | Sequence[str] = getattr(importlib.import_module(self.module), self.function)(hour, **self.settings)
        return found


@dataclass(frozen=True)
class Part:
    """A list of checks. seconds: for all of them together; quick_seconds: the same with --quick, None: left out
    there."""

    title: str
    seconds: int
    checks: Mapping[str, Check]
    quick_seconds: int | None = None
