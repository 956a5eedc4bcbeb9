"""A tiny run in this process, many times, one allocation of device memory refused in each; a line of JSON for each
(test_faults.py).

    .venv/bin/python -m tests.card.card python tests/card/refusals.py FOLDER    with PYTORCH_NO_CUDA_MEMORY_CACHING=1

Without torch's cache each tensor is an allocation of its own. Refused are every tenth from the end of the first
step to the end of the run (the second step, its evaluation, its checkpoint), and a few before. Fields: nth;
refused: attempts that failed; error: the sentence of a run that ended, else null; retreats; not_measured: whether
an evaluation was left out; far: the largest difference from the adapter of an undisturbed run; of a run that ended,
after it was begun again.
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import torch

from core.engine import device
from core.messages import Message, msg
from core.runs.ended import Failed
from core.training import checkpoint
from core.training.trainer import Trainer
from tests.kit import trainer as kit

card = ctypes.CDLL(None)
card.nullcard_count.restype = ctypes.c_uint64
card.nullcard_refuse.argtypes = [ctypes.c_int64]


def refused() -> int:
    return card.nullcard_count(b"refused allocation")


def allocations() -> int:
    return card.nullcard_count(b"allocation")


def trainer_in(folder: Path) -> Trainer:
    trainer = kit.trainer_of(
        folder,
        None,
        lambda: kit.tiny_base().to("cuda"),
        max_steps=2,
        save_steps=1,
        eval_steps=2,
        gradient_accumulation_steps=2,
    )
    saved = trainer.reporter.run.checkpoints()
    if saved:
        trainer.restore(checkpoint.read(saved[-1]))
    return trainer


def undisturbed(folder: Path) -> tuple[torch.Tensor, int, int]:
    """The adapter, and the numbers of allocations until the end of the first step and of the run."""
    trainer, at = trainer_in(folder), [0]
    after = trainer._due_after

    def count(number: int) -> None:
        after(number)
        at.append(allocations() - begun)

    trainer._due_after = count  # type: ignore[method-assign]
    begun = allocations()
    trainer.run()
    return kit.adapter_of(trainer).cpu(), at[2], allocations() - begun


def with_refusal(nth: int, folder: Path, expected: torch.Tensor) -> dict[str, Any]:
    trainer, before, messages, error = trainer_in(folder), refused(), list[Message](), None
    trainer.recovery._report = lambda what, step, message: messages.append(message)
    tell = trainer._log_decision

    def hear(what: str, step: int, message: Message) -> None:
        messages.append(message)
        tell(what, step, message)

    trainer._log_decision = hear  # type: ignore[method-assign]
    card.nullcard_refuse(nth)
    try:
        trainer.run()
    except Exception as reason:  # noqa: BLE001 - as the worker
        error = Failed.from_error(reason, folder).message.render("en")
        card.nullcard_refuse(0)
        trainer = trainer_in(folder)
        trainer.run()
    far = float((kit.adapter_of(trainer).cpu() - expected).abs().max())
    card.nullcard_refuse(0)
    return {
        "nth": nth, "refused": refused() - before, "error": error, "far": far,
        "retreats": trainer.step.retreat.reductions,
        "not_measured": any(message.key == "retreat.not_measured" for message in messages),
    }  # fmt: skip


def main(folder: Path) -> None:
    device.read_bitsandbytes()
    kit.FP32 = device.Compute(torch.device("cuda:0"), torch.float32, msg("device.cpu_fp32"))
    expected, first, last = undisturbed(folder / "undisturbed")
    print(json.dumps({"first": first, "last": last}), flush=True)
    for nth in (*range(5, first, 150), *range(first + 1, last + 1, 10)):
        print(json.dumps(with_refusal(nth, folder / f"{nth}", expected)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
