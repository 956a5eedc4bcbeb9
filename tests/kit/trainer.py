"""Trainers of tiny models, put together as the worker does it, and a reporter that asks for a pause at any sub-step."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from core.advice import plan
from core.data.labels import Encoded
from core.engine import adapter, device
from core.errors import PauseRequested
from core.messages import Message, msg
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.training import checkpoint
from core.training.trainer import Trainer, TrainingData

FP32 = device.Compute(torch.device("cpu"), torch.float32, msg("device.cpu_fp32"))
BF16 = device.Compute(torch.device("cpu"), torch.bfloat16, msg("device.cpu_fp32"))
Numbers = dict[tuple[str, int], float]  # (kind, step) -> loss


class Pausing:
    """Replaces the reporter, records the numbers, and asks for a pause at the n-th check."""

    def __init__(self, run: RunFolder, at: int | None = None) -> None:
        self.run, self.at, self.checks = run, at, 0
        self.numbers: Numbers = {}
        self.told: dict[tuple[str, int], dict[str, float]] = {}  # all that was said, but for how fast it was
        self.warnings: list[Message] = []

    def check(self) -> None:
        self.checks += 1
        if self.checks == self.at:
            raise PauseRequested

    def warn(self, message: Message) -> None:
        self.warnings.append(message)

    def metrics(self, kind: str, step: int, **numbers: float) -> None:
        if kind in ("train", "eval"):
            self.told[kind, step] = {name: value for name, value in numbers.items() if name != "tokens_per_second"}
            name = "loss" if kind == "train" else "eval_loss"
            self.numbers[kind, step] = numbers.get(name, math.nan)  # training by rewards has none

    def __getattr__(self, name: str) -> Callable:
        return lambda *args, **kwargs: None


def rows(count: int) -> list[Encoded]:
    chance = torch.Generator().manual_seed(count)
    ids = [torch.randint(3, 97, (5 + i % 7,), generator=chance).tolist() for i in range(count)]
    return [Encoded(row, [False] * 2 + [True] * (len(row) - 2)) for row in ids]


def pairs(count: int) -> list[Encoded]:
    """Return pairs of answers of other lengths to prompts of two tokens; for kto each third first one is a bad answer,
    and the second another row's."""
    chance = torch.Generator().manual_seed(count)

    def side(start: list[int], length: int) -> list[int]:
        return start + torch.randint(3, 97, (length,), generator=chance).tolist()

    found = []
    for i in range(count):
        asked = side([], 2)
        better, worse = side(asked, 3 + i % 5), side(asked, 3 + i % 3)
        learned = [False] * 2 + [True] * (len(better) - 2) + [False] * 2 + [True] * (len(worse) - 2)
        found.append(Encoded(better + worse, learned, second=len(better), is_bad=i % 3 == 1))
    return found


def tiny_base() -> Any:
    """Return a copy of one tiny model, and set torch's random state to that after its making."""
    made, random = _tiny_base()
    torch.set_rng_state(random)
    return copy.deepcopy(made)


@lru_cache(maxsize=1)
def _tiny_base() -> tuple[Any, torch.Tensor]:
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config).requires_grad_(False).eval(), torch.get_rng_state()


RECIPE = {
    "data": {"source": "x", "max_length": 16},
    "train": {
        "max_steps": 5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 3, "learning_rate": 1e-2,
        "eval_steps": 2, "save_steps": 3, "warmup_steps": 2, "lr_scheduler_type": "cosine",
    },
}  # fmt: skip


def trainer_of(
    folder: Path,
    pause_at: int | None = None,
    make: Callable[[], Any] = tiny_base,
    lora: dict | None = None,
    data: dict | None = None,
    rewards: dict | None = None,
    **train: Any,
) -> Trainer:
    """Return a trainer in folder, for RECIPE with these settings on top."""
    sections = {
        "data": RECIPE["data"] | (data or {}),
        "adapter": {"r": 4} | (lora or {}),
        "train": RECIPE["train"] | train,
        "rewards": rewards,
    }
    recipe = plan.resolve(Recipe.parse(sections), "x", has_card=False)
    run = RunFolder(folder)
    return assembled(added(make(), recipe, run), recipe, Pausing(run, pause_at))


def added(base: Any, recipe: Recipe, run: RunFolder) -> Any:
    """Return base with the recipe's adapter, the same each time."""
    torch.manual_seed(1)
    will_restore = (run.path / "checkpoints").exists() and bool(run.checkpoints())
    return adapter.add(base, recipe.adapter, "tiny", None, will_restore)


def assembled(tuned: Any, recipe: Recipe, reporter: Pausing, data: TrainingData | None = None, **more: Any) -> Trainer:
    """Return a trainer put together as the worker does it, restored from the newest checkpoint in the reporter's run,
    if any."""
    (reporter.run.path / "checkpoints").mkdir(parents=True, exist_ok=True)

    def save(target: Path) -> None:
        adapter.save(tuned, target, reporter.run.path, "", "")

    data = data or TrainingData(rows(20), rows(5), 0)
    if recipe.rewards:
        from tests.kit.rewards import drawing_with

        more = {"rewards": drawing_with(recipe.rewards.judges)} | more
    trainer = Trainer(tuned, recipe, data, FP32, reporter, **({"save_adapter": save} | more))
    if saved := reporter.run.checkpoints():
        trainer.restore(checkpoint.read(saved[-1]))
    return trainer


def run_paused(
    make: Callable[[int | None], Trainer], pauses: Iterable[int], run: Callable[[Trainer], object] = Trainer.run
) -> Trainer:
    """Make and run a trainer for each of pauses, paused there, and a last one to the end, which is returned. Its
    reporter has the numbers of all, each from the last attempt that reached it."""
    told: dict[tuple[str, int], dict[str, float]] = {}
    numbers: Numbers = {}
    for at in [*pauses, None]:
        trainer = make(at)
        try:
            run(trainer)
        except PauseRequested:
            if trainer.position.step:
                trainer.checkpoint()
        told |= trainer.reporter.told
        numbers |= trainer.reporter.numbers
    trainer.reporter.told, trainer.reporter.numbers = told, numbers
    return trainer


def assert_same(trainer: Trainer, whole: Trainer, when: object = None) -> None:
    """Assert equal numbers (all but the speed) and an equal adapter, bit for bit."""
    assert trainer.reporter.told == whole.reporter.told, when
    assert torch.equal(adapter_of(trainer), adapter_of(whole)), when


def adapter_of(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.step.parameters])


def stirred(tuned: Any) -> Any:
    """Add random numbers to B, so that the adapter changes the outputs as after some steps, and return tuned."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if parameter.requires_grad and "lora_B" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return tuned


def gradients(tuned: Any) -> torch.Tensor:
    """Return all gradients of the adapter in one vector, and clear them."""
    collected = torch.cat([p.grad.flatten() for p in tuned.parameters() if p.requires_grad])
    tuned.zero_grad()
    return collected


def losses(run: RunFolder) -> dict[int, float]:
    """Return the loss by step, each from the last attempt that reached it."""
    return {line["step"]: line["loss"] for line in run.all_metrics() if line["kind"] == "train"}
