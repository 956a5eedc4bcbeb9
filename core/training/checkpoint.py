"""Checkpoints of a run: everything that its next step depends on. Imports torch: workers only.

checkpoints/checkpoint-<step>/adapter/       PEFT's format; a chat loads it too
                              trainer.pt     optimizer, GradScaler, and the random states at the end of that step
                              position.json  Position
                              COMPLETE       each file's bytes; written last: a folder without it is ignored

A crash during a write leaves a hidden `.checkpoint-*.part`, which the next write deletes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from safetensors.torch import load_file

from core import files, values
from core.engine.device import States
from core.errors import RunError, reason_of
from core.messages import msg
from core.models.weights import backend
from core.runs import best, checkpoints
from core.runs.folder import RunFolder
from core.runs.health import Health

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


@dataclass
class Position:
    """The position of a run, saved with each checkpoint, so that a later attempt can resume from it.

    measured_step: the last step with an evaluation; None before the first. retreats: the ways taken to save memory
    (core/engine/out_of_memory). health: core/runs/health's. since_best: evaluations after the best one.
    """

    step: int = 0
    tokens_seen: int = 0
    measured_step: int | None = None
    best_eval_loss: float | None = None
    best_reward: float | None = None
    best_checkpoint: str | None = None
    since_best: int = 0
    retreats: list[str] = field(default_factory=list)
    health: Health = field(default_factory=Health)

    def go_to(self, other: Position) -> None:
        """Copy all values of other into this object, so that references to the run's position stay valid when the run
        returns to a checkpoint."""
        for each in fields(self):
            setattr(self, each.name, getattr(other, each.name))


def name_of(step: int) -> str:
    """Return the name of the checkpoint of a step: checkpoint-000120 for 120."""
    return f"checkpoint-{step:06d}"


@dataclass(frozen=True)
class Checkpoints:
    """Writes, finds and deletes the checkpoints of a run. save_adapter(folder) writes the current adapter in PEFT's
    format. keep: how many, besides the best one; budget_gib: disk space they may take."""

    run: RunFolder
    save_adapter: Callable[[Path], None]
    keep: int
    budget_gib: float = 10.0
    _warned: list[str] = field(default_factory=list)

    def write(self, position: Position, states: States) -> None:
        """Write the checkpoint of position.step (adapter, trainer states, position) all or nothing; if it exists, only
        renew its position. Old checkpoints are deleted before if the disk is short, and after as `keep` says; logs an
        event."""
        target = self.run.path / "checkpoints" / name_of(position.step)
        if (target / "COMPLETE").exists():
            files.replace_json(target / "position.json", asdict(position))
            files.replace(target / "COMPLETE", checkpoints.sizes(target))  # which contains that file's size too
            return
        shutil.rmtree(target, ignore_errors=True)
        with files.folder_aside(target) as aside:
            self._make_room(states, position.best_checkpoint)
            aside.mkdir(parents=True)
            self.save_adapter(aside / "adapter")
            torch.save(states, aside / "trainer.pt")
            (aside / "position.json").write_text(json.dumps(asdict(position)), "utf-8", newline="\n")
            files.sync_tree(aside)  # otherwise a power cut could leave the marker beside partial files
            (aside / "COMPLETE").write_text(checkpoints.sizes(aside), "utf-8", newline="\n")
        self.run.log_event("checkpoint", step=position.step, checkpoint=target.name)
        self._drop_old(position.best_checkpoint)

    def last_good(self, until_step: int) -> Saved | None:
        """Return the newest readable checkpoint up to until_step, included, whose health is good; None if there is
        none."""
        for folder in reversed(self.run.checkpoints()):
            try:
                saved = read(folder)
            except RunError:
                continue
            if saved.position.step <= until_step and saved.position.health.is_good:
                return saved
        return None

    def forget_after(self, position: Position) -> None:
        """Delete the checkpoints of later steps than position's, after the run went back to it. If position's best
        checkpoint is gone then, clear its best values. Write the best values to run.json in any case."""
        checkpoints.drop(folder for folder in self.run.checkpoints() if folder.name > name_of(position.step))
        if position.best_checkpoint not in [folder.name for folder in self.run.checkpoints()]:
            position.best_checkpoint = position.best_eval_loss = position.best_reward = None
        self.run.add_facts(best.facts_of(position))

    def _make_room(self, states: States, best: str | None) -> None:
        """Delete old checkpoints, except the one named best, if the disk has less than the newest one's size and MARGIN
        free, and log it; if that is not enough, log a warning that the save may fail. states: give the size of a first
        one."""
        complete = self.run.checkpoints()
        # Estimated from the last one; the first is an adapter with its optimizer states.
        needed = checkpoints.MARGIN + (files.bytes_in(complete[-1]) if complete else _bytes_in(states) * 3 // 2)
        free, dropped = shutil.disk_usage(self.run.path).free, list[str]()
        if free < needed and complete:
            free, dropped = checkpoints.make_room(complete, needed, best)
        numbers = {"free_mb": free // 1_000_000, "needed_mb": needed // 1_000_000}
        if dropped:
            self.run.log_event(
                "warning", message=msg("checkpoint.dropped_for_room", names=", ".join(dropped), **numbers)
            )
        if free < needed:
            self.run.log_event("warning", message=msg("checkpoint.disk_short", **numbers))

    def _drop_old(self, best: str | None) -> None:
        """Delete checkpoints beyond `keep` or the disk budget, never the newest good one or the best; logs a warning
        once if the budget keeps fewer than `keep`."""
        complete = self.run.checkpoints()
        stay = checkpoints.select_kept(complete, self.keep, self.budget_gib * values.GIB, best)
        checkpoints.drop(folder for folder in complete if folder not in stay)
        if len(stay) < min(self.keep, len(complete)) and not self._warned:
            self._warned.append("over_budget")  # once per run, not at every save
            size_mb = files.bytes_in(complete[-1]) // 1_000_000
            warning = msg(
                "checkpoint.over_budget", kept=len(stay), keep=self.keep, size_mb=size_mb, budget_gib=self.budget_gib
            )
            self.run.log_event("warning", message=warning)


def _from_dict(kind: type[T], value: files.JsonObject) -> T:
    """Create `kind` from a dict that another version may have written: unknown fields are ignored, missing ones
    default."""
    return kind(**{one.name: value[one.name] for one in fields(kind) if one.name in value})


def _bytes_in(value: object) -> int:
    """Return the bytes of all tensors in value, nested dicts and lists included; 0 for anything else."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes_in, value.values()))
    return sum(map(_bytes_in, value)) if isinstance(value, list | tuple) else 0


@dataclass(frozen=True)
class Saved:
    """A checkpoint, read. weights: the adapter's, by PEFT's names."""

    position: Position
    states: States
    weights: dict[str, torch.Tensor]


def read(folder: Path) -> Saved:
    """Read a checkpoint's position, states and adapter weights. Raises RunError for one that cannot be read;
    PermissionError and lack of memory as they are."""
    try:
        value = json.loads((folder / "position.json").read_text("utf-8"))
        value["health"] = _from_dict(Health, value.get("health") or {})
        position = _from_dict(Position, value)
        weights = folder / "adapter" / "adapter_model.safetensors"
        # safetensors reports a file that another program holds open as missing
        files.retry_if_busy(lambda: open(weights, "rb")).close()
        states = torch.load(folder / "trainer.pt", weights_only=True, map_location="cpu")
        return Saved(position, states, load_file(weights, backend=backend()))
    except Exception as error:  # noqa: BLE001 - torch.load raises pickle, zip and runtime errors for a damaged file
        if isinstance(error, PermissionError) or files.is_out_of_memory(error):
            raise  # another attempt may read it
        raise RunError("run.bad_checkpoint", checkpoint=folder.name, reason=reason_of(error)) from error
