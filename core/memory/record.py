"""Memory as measured by runs and as estimated for them; it corrects the next estimate. No torch.

<workspace>/memory.jsonl, a line for each probe before a first step (core/training/memory/probe): v, time, run, rig,
model, method, arithmetic_gib (uncorrected, of the batch that was measured) and measured_gib. The worker appends while
it holds the device. A crash leaves at most an unfinished last line, which is ignored.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core import files
from core.files import JsonObject, read_lines
from core.memory.arithmetic import Estimate
from core.memory.constants import memory_constants
from core.system.gpu import Card
from core.system.machine import Machine, driver_system
from core.values import Frozen
from core.workspace.folder import Workspace

NEWEST = 20  # the newest runs that count; older ones may be out of date
# runs from this size on also correct other models: in smaller ones the libraries' memory dominates, which does not grow
# with the model
LARGE_GIB = 2.0
PLAUSIBLE = (0.2, 5.0)  # measured / arithmetic; beyond these limits one of them is wrong, and it corrects nothing


class Rig(Frozen):
    """The conditions that a measurement is valid for: device (GPU or CPU name), operating system, GPU driver, library
    versions."""

    device: str
    system: str
    driver: str | None = None
    stack: str

    @classmethod
    def from_machine(cls, machine: Machine, card: Card | None) -> Rig:
        """Return the conditions of this PC. card: None for the CPU."""
        if card is None:
            return cls(device=machine.cpu or "processor", system=driver_system(), stack=_stack())
        return cls(device=card.name or "card", system=driver_system(), driver=machine.nvidia.driver, stack=_stack())


def _stack() -> str:
    """Return the versions of torch, transformers, peft and bitsandbytes, as far as they are installed, as one text,
    from package metadata because importing torch takes seconds.

    It includes the version of the arithmetic: a change invalidates old ratios.
    """
    versions = []
    for name in ("torch", "transformers", "peft", "bitsandbytes"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*versions, f"arithmetic {memory_constants().version}"])


class Correction(Frozen):
    """A correction of the estimate. factor: median of measured / arithmetic over `runs` runs."""

    factor: float
    runs: int

    def apply(self, estimate: Estimate) -> Estimate:
        """Return the estimate with its sizes in GiB and its terms times the factor, so that the terms still add up; the
        margin and the other fields stay."""
        return estimate.model_copy(
            update={
                "idle_gib": estimate.idle_gib * self.factor,
                "allocated_gib": estimate.allocated_gib * self.factor,
                "on_card_gib": estimate.on_card_gib * self.factor,
                "terms": {name: size * self.factor for name, size in estimate.terms.items()},
            }
        )


@dataclass(frozen=True)
class Corrections:
    """The corrections on one rig for one base model.

    elsewhere: from its runs by other methods and large runs of other models, never below 1: these may make an estimate
    more careful, and only a model's own runs may make it smaller. of_large: from large runs alone.
    """

    own: Mapping[str, Correction] = field(default_factory=dict)  # by method
    elsewhere: Correction | None = None
    of_large: Correction | None = None

    def for_method(self, method: str) -> Correction | None:
        """Return the correction for lora, qlora or full: that of the model's own runs by it, else `elsewhere`, which
        may be None."""
        return self.own.get(method) or self.elsewhere

    @property
    def for_another_model(self) -> Corrections:
        """The corrections as they hold for another base model: from large runs alone."""
        return Corrections({}, self.of_large, self.of_large)


@dataclass(frozen=True)
class MemoryRecord:
    """The measurements in a workspace."""

    workspace: Workspace

    @property
    def file(self) -> Path:
        """The file of all measurements, memory.jsonl in the workspace's folder."""
        return self.workspace.root / "memory.jsonl"

    def add(self, run_id: str, rig: Rig, model: str, method: str, arithmetic_gib: float, measured_gib: float) -> None:
        """Append a measurement, with the time, to the workspace's file."""
        files.append_line(
            self.file,
            {
                "v": 1,
                "time": round(time.time(), 3),
                "run": run_id,
                "rig": rig.model_dump(),
                "model": model,
                "method": method,
                "arithmetic_gib": round(arithmetic_gib, 4),
                "measured_gib": round(measured_gib, 4),
            },
        )

    def corrections(self, rig: Rig, model: str) -> Corrections:
        """Return the corrections for a base model on this rig, as medians of measured over estimated: its own runs by
        each method; all its runs together with the large ones of other models (`elsewhere`); and the large ones alone
        (`of_large`). The last two are None unless they make an estimate larger. Measurements on another rig do not
        count."""
        mine = [line for line in self._lines() if line.get("rig") == rig.model_dump()]
        own = {}
        for method in ("lora", "qlora", "full"):
            correction = _correction(
                [line for line in mine if (line.get("model"), line.get("method")) == (model, method)]
            )
            if correction is not None:
                own[method] = correction
        large = [line for line in mine if _number(line.get("arithmetic_gib")) >= LARGE_GIB]
        known = [
            line for line in mine if line.get("model") == model or _number(line.get("arithmetic_gib")) >= LARGE_GIB
        ]
        return Corrections(own, _more_careful(known), _more_careful(large))

    def _lines(self) -> list[JsonObject]:
        """Return the measurements in the file, one JSON object each; damaged lines are skipped."""
        return read_lines(self.file, 0).records


def _number(value: object) -> float:
    """Return value if it is a number, else 0."""
    return value if isinstance(value, int | float) else 0.0


def _more_careful(lines: list[JsonObject]) -> Correction | None:
    """Return the correction that these lines give, unless it makes estimates smaller: then None."""
    correction = _correction(lines)
    return correction if correction and correction.factor >= 1 else None


def _correction(lines: list[JsonObject]) -> Correction | None:
    """Return the median ratio of the NEWEST newest runs, each by its last plausible line; None without any."""
    ratios: dict[object, float] = {}
    for line in lines:
        try:
            ratio = line["measured_gib"] / line["arithmetic_gib"]
        except (KeyError, TypeError, ZeroDivisionError):
            continue
        if PLAUSIBLE[0] <= ratio <= PLAUSIBLE[1]:
            ratios.pop(line.get("run"), None)
            ratios[line.get("run")] = ratio
    newest = list(ratios.values())[-NEWEST:]
    return Correction(factor=statistics.median(newest), runs=len(newest)) if newest else None
