"""One run on disk: the interface between the process that trains and everything that reads it.

recipe.yaml             written once at submission
run.json                made with it; then the holder of run.lock (core/runs/run_json)
start/                  the parent's adapter, copied at submission, for a run that continues another one
label.json              what a person added later: name, tags, note, archived (written by the page)
left.json               the page should not ask about this attempt again (written by the page)
state.json              whoever holds run.lock: the worker while it lives, then the supervisor
control.json            the latest command; written by pages and commands, read by the worker
film_scenes.json, film.jsonl, held_out.jsonl            the worker (core/runs/scenes, core/runs/frames,
                                                        core/runs/cards/better)
reference.npy           the worker, for preference training with a reference model (core/training/preference/reference)
metrics.jsonl, events.jsonl, train.log, checkpoints/, adapter/     the worker
run.lock                held by the worker while it lives; its mtime is the heartbeat

A crash leaves at most an unfinished last line, a hidden `.name.tmp-pid` file, or a checkpoint without COMPLETE.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, Field

from core import files
from core.errors import RunError
from core.files import Tail, read_lines, writing
from core.messages import Message
from core.progress import Progress, RankUse
from core.recipe import Recipe
from core.runs.run_json import RunFacts
from core.runs.states import State, may_move
from core.system.processes import is_ours
from core.values import Frozen

RUN_ID = re.compile(r"\d{4}-\d{2}-\d{2}_[a-z0-9][a-z0-9-]{0,39}_[a-z0-9]{6}")
COMMANDS = ("pause", "stop")  # later ones win over earlier ones
MOST_NAME = 200  # characters; the app's own are shorter, a file may contain anything


class Status(Frozen):
    """state.json: what the run is doing, for any reader, replaced whole."""

    v: int = 1
    state: State = State.QUEUED
    since: float = 0.0
    stage: str = "waiting"  # catalogue key `stage.<stage>`
    progress: Progress | None = None
    message: Message | None = None  # what happened
    advice: Message | None = None  # what to try
    attempt: int = 1
    step: int = 0
    total_steps: int = 0
    seconds_left: float | None = None
    seconds_total: float | None = None  # of the whole training: elapsed and left
    has_adapter: bool = False
    ranks: tuple[RankUse, ...] = ()  # of a run with several ranks, rank 0 first
    awake: Message | None = None  # whether this PC may go to sleep during it
    pid: int | None = Field(None, ge=1, lt=2**31)


@dataclass(frozen=True)
class RunFolder:
    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    # ---- what was asked -------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        return Recipe.read(self.path / "recipe.yaml")

    def facts(self) -> RunFacts:
        return RunFacts.of(files.read_object(self.path / "run.json"))

    def add_facts(self, facts: RunFacts) -> None:
        """Add the fields that are set in facts (also to None) to run.json; by the holder of run.lock. Raises
        OSError."""
        files.add_to_object(self.path / "run.json", facts.given())

    @property
    def is_of_app(self) -> bool:
        """Whether the app's supervisor starts it; otherwise the command that created it does."""
        return self.facts().launcher == "app"

    @property
    def name(self) -> str:
        return str(self.label().get("name") or self.facts().name or self.id)[:MOST_NAME]

    def label(self) -> dict[str, Any]:
        return files.read_object(self.path / "label.json")

    def relabel(self, **changes: Any) -> None:
        """Raises RunError where it cannot be written."""
        with writing(self.path):
            files.add_to_object(self.path / "label.json", changes)

    # ---- state ----------------------------------------------------------------------------------------------------
    def status(self) -> Status:
        """state.json as written; it does not know whether the worker still lives: `Runs.status` does."""
        return files.read_model(Status, self.path / "state.json") or Status(
            state=State.FAILED, stage="waiting", message=Message(key="run.state_unreadable")
        )

    def write_status(self, status: Status) -> None:
        """Raises RunError for a transition that is not in the table of states. An unreadable state forbids nothing."""
        old = files.read_model(Status, self.path / "state.json")
        if old and not may_move(old.state, status.state):
            raise RunError("run.illegal_move", run=self.id, old=old.state.value, new=status.state.value)
        moved = old is None or (old.state, old.attempt) != (status.state, status.attempt)
        files.replace(self.path / "state.json", status.model_dump_json(indent=1) + "\n", lasting=moved)

    def lock(self) -> FileLock:
        return FileLock(self.path / "run.lock")

    def is_locked(self) -> bool:
        try:
            return files.is_locked(self.path / "run.lock")
        except OSError:  # it cannot be opened
            return is_ours(self.status().pid, self.id, self.facts().worker_mark)

    def heartbeat(self) -> int:
        """A number that changes every two seconds while the worker lives; 0 if there never was one."""
        try:
            return (self.path / "run.lock").stat().st_mtime_ns
        except OSError:
            return 0

    # ---- commands -------------------------------------------------------------------------------------------------
    def ask(self, command: str, by: str = "person") -> None:
        """Write a command for the worker; a weaker one never replaces a stronger one.

        Raises RunError where it cannot be written. by: "close" if the app is closing, "alone" if a worker without its
        app asks itself, "game" if game mode makes room (core/queue/turns).
        """
        assert command in COMMANDS, command
        current = self.asked()
        if current is None or COMMANDS.index(command) >= COMMANDS.index(current):
            record = {"v": 1, "command": command, "time": time.time(), "by": by}
            try:
                files.replace_json(self.path / "control.json", record)
            except OSError as error:
                raise RunError("run.cannot_ask", name=self.name, reason=error.strerror or error) from error

    def asked(self) -> str | None:
        command = files.read_object(self.path / "control.json").get("command")
        return command if command in COMMANDS else None

    @property
    def asked_by(self) -> str | None:
        """As in `ask`. What game mode paused, it also resumes."""
        return files.read_object(self.path / "control.json").get("by")

    # ---- lines ----------------------------------------------------------------------------------------------------
    def log_metrics(self, kind: str, attempt: int, step: int, **numbers: float | int | None) -> None:
        """One line of metrics.jsonl. A number that is not finite is written as null, with "nonfinite": true."""
        finite = {name: _finite(value) for name, value in numbers.items()}
        line = {"v": 1, "kind": kind, "attempt": attempt, "step": step, "time": round(time.time(), 3), **finite}
        if any(value is not None and finite[name] is None for name, value in numbers.items()):
            line["nonfinite"] = True
        files.append_line(self.path / "metrics.jsonl", line)

    def log_event(self, kind: str, **fields: Any) -> None:
        fields = {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in fields.items()}
        files.append_line(self.path / "events.jsonl", {"v": 1, "kind": kind, "time": round(time.time(), 3), **fields})

    def metrics(self, offset: int = 0, limit_bytes: int = 8 << 20) -> Tail:
        return read_lines(self.path / "metrics.jsonl", offset, limit_bytes)

    def newest_metrics(self, most_bytes: int = 16 << 10) -> list[dict[str, Any]]:
        return files.read_newest(self.path / "metrics.jsonl", most_bytes)

    def all_metrics(self) -> list[dict[str, Any]]:
        """All lines so far, however long the run."""
        records, offset = [], 0
        while (tail := self.metrics(offset)).offset > offset:
            records += tail.records
            offset = tail.offset
        return records

    def events(self, most_bytes: int = 256 << 10) -> list[dict[str, Any]]:
        """The newest two thousand or so: a long run writes a million."""
        return files.read_newest(self.path / "events.jsonl", most_bytes)

    def log_tail(self, lines: int = 40) -> str:
        """The end of the worker's output, at most 64 KiB."""
        try:
            with open(self.path / "train.log", "rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - (64 << 10)))
                return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""

    # ---- what came out --------------------------------------------------------------------------------------------
    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    def has_adapter(self) -> bool:
        return (self.adapter / "adapter_config.json").exists() and (self.adapter / "adapter_model.safetensors").exists()

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, oldest first. One without its COMPLETE marker does not exist, nor a person's
        "checkpoint-000120 - Copy"."""
        folders = sorted((self.path / "checkpoints").glob("checkpoint-*"))
        return [folder for folder in folders if folder.name[11:].isdecimal() and (folder / "COMPLETE").exists()]

    def saved_step(self) -> int:
        """The step of the newest complete checkpoint, 0 where there is none."""
        saved = self.checkpoints()
        return int(saved[-1].name.removeprefix("checkpoint-")) if saved else 0

    def checkpoint(self, name: str) -> Path:
        """Raises RunError for a name that is not one of this run's complete checkpoints."""
        for folder in self.checkpoints():
            if folder.name == name:
                return folder
        raise RunError("run.no_checkpoint", run=self.name, checkpoint=name[:80])

    def keep_newest_checkpoint(self) -> bool:
        """Make the newest checkpoint's adapter, from an earlier attempt, the run's result if it has none."""
        if self.has_adapter() or not (saved := self.checkpoints()):
            return self.has_adapter()
        with files.folder_aside(self.adapter) as aside:
            shutil.copytree(saved[-1] / "adapter", aside)
        return True

    def bytes_used(self) -> int:
        return files.bytes_in(self.path)


def _finite(value: float | int | None) -> float | int | None:
    if value is None or isinstance(value, int):
        return value
    return float(value) if value == value and abs(value) != float("inf") else None
