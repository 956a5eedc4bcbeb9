"""One run on disk: the interface between the process that trains and everything that reads it.

recipe.yaml             written once at submission
run.json                made with it; then the holder of run.lock (core/runs/run_json)
start/                  the parent's adapter, copied at submission, for a run that continues another one
label.json              what a person added later: name, tags, note, archived (written by the page)
left.json               the page should not ask about this attempt again (written by the page)
state.json              whoever holds run.lock: the worker while it lives, then the supervisor
control.json            the latest command; written by pages and commands, read by the worker
film_scenes.json, film.jsonl, held_out.jsonl            the worker (core/runs/scenes, core/runs/sample_answers,
                                                        core/runs/cards/better)
reference.npy           the worker, for preference training with a reference model (core/training/preference/reference)
answers.jsonl, pairs.jsonl                              the worker, for training by rewards
                                                        (core/training/rewards/drawing)
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
COMMANDS = ("pause", "stop")  # later ones override earlier ones
MAX_NAME = 200  # characters; the app's own are shorter, a file may contain anything


class Status(Frozen):
    """Contents of state.json: what the run is doing, for any reader. Always replaced as a whole."""

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
    """The files of one run."""

    path: Path

    @property
    def id(self) -> str:
        return self.path.name

    # ---- what was asked -------------------------------------------------------------------------------------------
    def recipe(self) -> Recipe:
        """Read and return the run's recipe.yaml. Raises RecipeError if it cannot be read."""
        return Recipe.read(self.path / "recipe.yaml")

    def facts(self) -> RunFacts:
        """Read and return the facts in run.json; a missing file or damaged fields give defaults."""
        return RunFacts.from_json(files.read_object(self.path / "run.json"))

    def add_facts(self, facts: RunFacts) -> None:
        """Write the fields that are set in facts (also those set to None) to run.json. Only for the holder of run.lock.

        Raises OSError.
        """
        files.add_to_object(self.path / "run.json", facts.set_fields())

    @property
    def is_of_app(self) -> bool:
        """True if the app's supervisor starts the run, False if the command that created it does."""
        return self.facts().launcher == "app"

    @property
    def name(self) -> str:
        """The name that a person gave it, else that of run.json, else its id; at most MAX_NAME characters."""
        return str(self.label().get("name") or self.facts().name or self.id)[:MAX_NAME]

    def label(self) -> files.JsonObject:
        """Return what a person noted about the run, the contents of label.json (name, tags, note, archived); {} without
        it."""
        return files.read_object(self.path / "label.json")

    def relabel(self, **changes: object) -> None:
        """Change keys of label.json. Raises RunError if it cannot be written."""
        with writing(self.path):
            files.add_to_object(self.path / "label.json", changes)

    # ---- state ----------------------------------------------------------------------------------------------------
    def status(self) -> Status:
        """Return the contents of state.json, or a failed state with a message if it is missing or unreadable. It may
        name a dead worker as active; `Runs.status` checks."""
        return files.read_model(Status, self.path / "state.json") or Status(
            state=State.FAILED, stage="waiting", message=Message(key="run.state_unreadable")
        )

    def write_status(self, status: Status) -> None:
        """Write state.json, synced to disk if the state or attempt changes. Raises RunError for a transition that is
        not in the table of states.

        After an unreadable state every transition is allowed.
        """
        old = files.read_model(Status, self.path / "state.json")
        if old and not may_move(old.state, status.state):
            raise RunError("run.illegal_move", run=self.id, old=old.state.value, new=status.state.value)
        moved = old is None or (old.state, old.attempt) != (status.state, status.attempt)
        files.replace(self.path / "state.json", status.model_dump_json(indent=1) + "\n", lasting=moved)

    def lock(self) -> FileLock:
        """Return the lock that the run's worker holds while it lives; it is not acquired by this call."""
        return FileLock(self.path / "run.lock")

    def is_locked(self) -> bool:
        """Return whether the run's process lives: by its lock, or by its pid if that cannot be opened."""
        try:
            return files.is_locked(self.path / "run.lock")
        except OSError:  # it cannot be opened
            return is_ours(self.status().pid, self.id)

    def heartbeat(self) -> int:
        """Return a number that changes every two seconds while the worker lives; 0 if there never was one."""
        try:
            return (self.path / "run.lock").stat().st_mtime_ns
        except OSError:
            return 0

    # ---- commands -------------------------------------------------------------------------------------------------
    def request(self, command: str, by: str = "person") -> None:
        """Write a command ("pause" or "stop") to control.json for the worker; a weaker one never replaces a stronger
        one.

        by: "close" if the app is closing, "game" if game mode frees the device (core/queue/turns). Raises RunError if
        it cannot be written.
        """
        assert command in COMMANDS, command
        current = self.requested()
        if current is None or COMMANDS.index(command) >= COMMANDS.index(current):
            record = {"v": 1, "command": command, "time": time.time(), "by": by}
            try:
                files.replace_json(self.path / "control.json", record)
            except OSError as error:
                raise RunError("run.cannot_ask", name=self.name, reason=error.strerror or error) from error

    def requested(self) -> str | None:
        """Return the command in control.json, or None."""
        command = files.read_object(self.path / "control.json").get("command")
        return command if command in COMMANDS else None

    @property
    def requested_by(self) -> str | None:
        """The `by` of the last request, None if there was none. Game mode resumes what it paused."""
        return files.read_object(self.path / "control.json").get("by")

    # ---- lines ----------------------------------------------------------------------------------------------------
    def log_metrics(self, kind: str, attempt: int, step: int, **numbers: float | int | None) -> None:
        """Append a line to metrics.jsonl. A number that is not finite is written as null, with "nonfinite": true."""
        finite = {name: _finite(value) for name, value in numbers.items()}
        line = {"v": 1, "kind": kind, "attempt": attempt, "step": step, "time": round(time.time(), 3), **finite}
        if any(value is not None and finite[name] is None for name, value in numbers.items()):
            line["nonfinite"] = True
        files.append_line(self.path / "metrics.jsonl", line)

    def log_event(self, kind: str, **fields: object) -> None:
        """Append an event of this kind, with the present time and these fields, to events.jsonl."""
        fields = {k: v.model_dump() if isinstance(v, BaseModel) else v for k, v in fields.items()}
        files.append_line(self.path / "events.jsonl", {"v": 1, "kind": kind, "time": round(time.time(), 3), **fields})

    def metrics(self, offset: int = 0, limit_bytes: int = 8 << 20) -> Tail:
        """Return the lines of metrics.jsonl from a byte offset on, at most limit_bytes of them, with the offset at
        which to go on."""
        return read_lines(self.path / "metrics.jsonl", offset, limit_bytes)

    def newest_metrics(self, most_bytes: int = 16 << 10) -> list[files.JsonObject]:
        """Return the last lines of metrics.jsonl, oldest first, of at most most_bytes."""
        return files.read_newest(self.path / "metrics.jsonl", most_bytes)

    def all_metrics(self) -> list[files.JsonObject]:
        """Return all lines of metrics.jsonl, however many; [] without the file."""
        records, offset = [], 0
        while (tail := self.metrics(offset)).offset > offset:
            records += tail.records
            offset = tail.offset
        return records

    def events(self, most_bytes: int = 256 << 10) -> list[files.JsonObject]:
        """Return the newest events of the run, oldest first, at most most_bytes of events.jsonl: two thousand or so, as
        a long run writes a million."""
        return files.read_newest(self.path / "events.jsonl", most_bytes)

    def log_tail(self, lines: int = 40) -> str:
        """Return the last lines of train.log, of at most 64 KiB; "" without it."""
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
        """Return the folder for the adapter that is the run's result; it exists only once one was saved
        (`has_adapter`)."""
        return self.path / "adapter"

    def has_adapter(self) -> bool:
        """Return whether both of the adapter's files exist."""
        return (self.adapter / "adapter_config.json").exists() and (self.adapter / "adapter_model.safetensors").exists()

    def checkpoints(self) -> list[Path]:
        """Return the complete checkpoints, oldest first.

        Folders without the marker COMPLETE are left out, and so are copies such as "checkpoint-000120 - Copy".
        """
        folders = sorted((self.path / "checkpoints").glob("checkpoint-*"))
        return [folder for folder in folders if folder.name[11:].isdecimal() and (folder / "COMPLETE").exists()]

    def saved_step(self) -> int:
        """Return the step of the newest complete checkpoint, 0 without one."""
        saved = self.checkpoints()
        return int(saved[-1].name.removeprefix("checkpoint-")) if saved else 0

    def checkpoint(self, name: str) -> Path:
        """Return the complete checkpoint of that name. Raises RunError if there is none."""
        for folder in self.checkpoints():
            if folder.name == name:
                return folder
        raise RunError("run.no_checkpoint", run=self.name, checkpoint=name[:80])

    def keep_newest_checkpoint(self) -> bool:
        """Copy the adapter of the newest checkpoint as the run's result, if the run has none. Returns whether it has
        one now."""
        if self.has_adapter() or not (saved := self.checkpoints()):
            return self.has_adapter()
        with files.folder_aside(self.adapter) as aside:
            shutil.copytree(saved[-1] / "adapter", aside)
        return True

    def bytes_used(self) -> int:
        """Return the bytes of all files in the run's folder."""
        return files.bytes_in(self.path)


def _finite(value: float | int | None) -> float | int | None:
    """Return value, as a float unless it is an int; None if it is NaN or infinite."""
    if value is None or isinstance(value, int):
        return value
    return float(value) if value == value and abs(value) != float("inf") else None
