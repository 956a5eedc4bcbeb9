"""Checkpoints of a run: everything that its next step depends on. Imports torch: workers only.

checkpoints/checkpoint-<step>/adapter/       PEFT's format; a chat loads it too
                              trainer.pt     optimizer, GradScaler, and the random states at the end of that step
                              position.json  Position
                              COMPLETE       written last: a folder without it does not exist for anyone

A crash while one is written leaves a hidden `.checkpoint-*.part`, which the next write clears away.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from core import atomic
from core.errors import RunError
from core.run_folder import RunFolder

States = dict[str, Any]


@dataclass
class Position:
    """Where a run stands: saved with each checkpoint, so that a later attempt can go on from it.

    measured_step: the last step whose rows kept apart were measured; None before the first measurement.
    """

    step: int = 0
    tokens_seen: int = 0
    measured_step: int | None = None
    best_eval_loss: float | None = None
    best_checkpoint: str | None = None


def name_of(step: int) -> str:
    return f"checkpoint-{step:06d}"


def random_states(on_card: bool) -> States:
    return {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state()} if on_card else {})


def set_random_states(states: States) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


@dataclass(frozen=True)
class Checkpoints:
    """save_adapter(folder) writes it in PEFT's format. keep: how many, the best one besides."""

    run: RunFolder
    save_adapter: Callable[[Path], None]
    keep: int

    def write(self, position: Position, states: States) -> None:
        """The checkpoint of position.step; where there is one already, only what was measured since is added."""
        target = self.run.path / "checkpoints" / name_of(position.step)
        if (target / "COMPLETE").exists():
            atomic.replace_json(target / "position.json", asdict(position))
            return
        aside = target.with_name(f".{target.name}.part")
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            self.save_adapter(aside / "adapter")
            torch.save(states, aside / "trainer.pt")
            (aside / "position.json").write_text(json.dumps(asdict(position)), "utf-8")
            _to_disk(aside)  # else a power cut leaves the marker beside halves
            (aside / "COMPLETE").write_text("1", "ascii")
            _to_disk(aside)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)  # a full disk must not stay full of halves
            raise
        aside.rename(target)
        atomic.sync_folder(target.parent)
        self.run.log_event("checkpoint", step=position.step, checkpoint=target.name)
        self._drop_old(position.best_checkpoint)

    def _drop_old(self, best: str | None) -> None:
        complete = self.run.checkpoints()
        keep = {folder.name for folder in complete[-self.keep :]} | {best}
        for folder in complete:
            if folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)


def _to_disk(folder: Path) -> None:
    atomic.sync_tree(folder)


@dataclass(frozen=True)
class Saved:
    """A checkpoint, read. weights: the adapter's, by PEFT's names."""

    position: Position
    states: States
    weights: dict[str, torch.Tensor]


def read(folder: Path) -> Saved:
    """Raises RunError for a checkpoint that cannot be gone on from."""
    try:
        value = json.loads((folder / "position.json").read_text("utf-8"))
        known = {field.name for field in fields(Position)}
        position = Position(**{name: value[name] for name in known & set(value)})
        states = torch.load(folder / "trainer.pt", weights_only=True, map_location="cpu")
        return Saved(position, states, load_file(folder / "adapter" / "adapter_model.safetensors"))
    except Exception as error:  # noqa: BLE001 - torch.load raises pickle, zip and runtime errors for a damaged file
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RunError("run.bad_checkpoint", checkpoint=folder.name, reason=reason) from error
