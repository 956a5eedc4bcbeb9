"""Measures every runner: time and tokens by optimizer step, and memory. Loaded in the peers' environments too.

The last line that a runner prints is RESULT and one JSON object; `Meter.report` writes it, benchmarks.child reads it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

RESULT = "RESULT "
MIB = 2**20


class Meter:
    """Call `loaded` when the model is there, `count` for each micro-batch, `step_ended` after each optimizer step."""

    def __init__(self, on_card: bool):
        self._on_card = on_card
        self._ends: list[float] = []
        self._busy: list[float] = []
        self._supervised: list[int] = []
        self._computed: list[int] = []
        self._counted = (0, 0)
        self._loaded = 0.0

    def loaded(self) -> None:
        self._loaded = used_mib(self._on_card)
        forget_peak(self._on_card)

    def count(self, supervised: int, computed: int) -> None:
        """Count a micro-batch. supervised: tokens in the loss. computed: tokens that went through the model, padding
        included."""
        self._counted = (self._counted[0] + supervised, self._counted[1] + computed)

    def step_ended(self) -> None:
        wait_for_card(self._on_card)
        self._ends.append(time.perf_counter())
        self._busy.append(time.process_time())
        self._supervised.append(self._counted[0])
        self._computed.append(self._counted[1])
        self._counted = (0, 0)

    def report(self, **facts: Any) -> None:
        """Print the result. ends: seconds, of each step's end, and busy, of the processor until then; supervised,
        computed: tokens of each step; MiB while training."""
        numbers = {"ends": self._ends, "busy": self._busy, "supervised": self._supervised, "computed": self._computed}
        memory = {"loaded_mib": self._loaded, "peak_mib": peak_mib(self._on_card)}
        say(numbers | memory | facts)


def say(result: dict[str, Any]) -> None:
    sys.stdout.flush()
    print("\n" + RESULT + json.dumps(result), flush=True)


def _tokens(inputs: Any) -> tuple[int, int]:
    return int((inputs["labels"][:, 1:] != -100).sum()), inputs["input_ids"].numel()


def watch_transformers(meter: Meter, counted: Callable[[Any], tuple[int, int]] = _tokens) -> Any:
    """Return a callback for trainers that are built on transformers' Trainer, whose micro-batches are counted as well:
    supervised and computed tokens."""
    from transformers import Trainer, TrainerCallback

    own = Trainer.training_step

    def counting(self: Any, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
        meter.count(*counted(inputs))
        return own(self, model, inputs, *args, **more)

    Trainer.training_step = counting

    class Watch(TrainerCallback):
        def on_train_begin(self, *args: Any, **more: Any) -> None:
            meter.loaded()

        def on_step_end(self, *args: Any, **more: Any) -> None:
            meter.step_ended()

    return Watch()


# ---- memory: of torch's allocator on a card, else resident memory of this process ----------------


def used_mib(on_card: bool) -> float:
    if on_card:
        import torch

        return torch.cuda.memory_allocated() / MIB
    return psutil.Process().memory_info().rss / MIB


def peak_mib(on_card: bool) -> float:
    """Return the peak since forget_peak; on Windows and macOS, where the system cannot reset it, since the process
    began."""
    if on_card:
        import torch

        return torch.cuda.max_memory_allocated() / MIB
    if sys.platform == "linux":  # getrusage would also count the parent, from before exec
        with open("/proc/self/status", encoding="ascii") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset / MIB
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def forget_peak(on_card: bool) -> None:
    if on_card:
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # proc(5): reset the peak resident set size


def wait_for_card(on_card: bool) -> None:
    if on_card:
        import torch

        torch.cuda.synchronize()
