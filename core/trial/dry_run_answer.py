"""What a dry run is asked and what it answers, as they pass between the app and its worker. No torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from core.memory.arithmetic import Estimate, Setup
from core.messages import Text, text
from core.recipe import Recipe


class Question(BaseModel):
    """config: a model's config.json, or as much of it as is known. packing: whether rows lie end to end where the family can."""

    model_config = ConfigDict(frozen=True)

    config: dict[str, Any]
    setup: Setup
    packing: bool = True

    @classmethod
    def of(cls, config: dict[str, Any], recipe: Recipe, device: Literal["card", "cpu"]) -> Question:
        """Of a recipe that a plan has completed."""
        setup = Setup(
            method=recipe.adapter.method,
            r=recipe.adapter.r,
            target_modules=recipe.adapter.target_modules,
            micro_batch=recipe.train.per_device_train_batch_size,
            max_length=recipe.data.max_length,
            optim=recipe.train.optim or "adamw_torch",
            gradient_checkpointing=bool(recipe.train.gradient_checkpointing),
            device=device,
            use_dora=recipe.adapter.use_dora,
            lora_dropout=recipe.adapter.lora_dropout,
            load_in_8bit=recipe.adapter.load_in_8bit,
            offloads=recipe.train.activation_offload,
        )
        return cls(config=config, setup=setup, packing=recipe.data.packing)

    @property
    def key(self) -> str:
        return self.model_dump_json()


class DryRun(BaseModel):
    """estimate: in the terms of core/memory/arithmetic. place, layer (from 1), operation: where the peak was. layers_run: how many layers
    were run, each time; one number: all of them."""

    model_config = ConfigDict(frozen=True)

    estimate: Estimate
    place: Literal["forward", "head", "backward", "optimizer"]
    layer: int | None = None
    operation: str
    layers_run: tuple[int, ...]
    seconds: float

    @property
    def where(self) -> Text:
        """The place of the peak, as words."""
        return text(f"dry_run.at_{self.place}", layer=self.layer) if self.layer else text(f"dry_run.at_{self.place}")


class Refusal(BaseModel):
    """Why there is no number."""

    model_config = ConfigDict(frozen=True)

    why: Text


def obstacle(setup: Setup) -> Text | None:
    """Why a setup has no dry run: it is not how this project trains, on a card."""
    if setup.device == "cpu":
        return text("dry_run.on_processor")
    ours = setup.method != "full" and setup.base_bits != 8 and setup.stack == "ours" and setup.loss in (None, "supervised")
    ours = ours and setup.attention == "sdpa" and setup.adapter_dtype == "fp32" and not setup.fp32_stream
    return None if ours else text("dry_run.not_ours")
