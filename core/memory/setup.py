"""The settings that the memory estimate depends on. No torch."""

from __future__ import annotations

import sys
from typing import Literal

from pydantic import Field

from core.memory.constants import Stack, memory_constants
from core.recipe import Adapter, Data, Recipe
from core.system.checkup import MIN_FOR_FLASH
from core.values import Strict

LossName = Literal["supervised", "chunked", "full", "fused"]


class Setup(Strict):
    """One way to train.

    per_device_train_batch_size: of rows; a pair is two. max_length and supervised_tokens: tokens of the longest row,
    and the most trained tokens of a row (None: all). base_bytes: width of a 16-bit or fp32 base, and of its
    activations. stack: the trainer (benchmarks/memory_stacks.py knows others); loss None: that trainer's. load_in_8bit:
    LLM.int8 instead of a 16-bit base, for lora only. fp32_stream: hidden states in fp32 on a 16-bit base, as
    `prepare_model_for_kbit_training` makes them. kept_layers: with checkpointing, the last ones that are not
    checkpointed.
    accumulates: gradients outlive a micro-batch. offloads: activations for the backward are in RAM. offload_layers:
    layers in RAM themselves (core/engine/variants/streaming). shards: ranks that hold the base together
    (core/engine/variants/fsdp). packed: rows are packed if the family allows it. grouped: one kernel then attends to
    each, with keys and values not repeated for each query head (core/engine/variants/varlen). drawn:
    answers drawn together in training by rewards, each with its prompt at most max_length long.
    """

    method: Literal["lora", "qlora", "full"] = "lora"
    r: int = Field(Adapter.model_fields["r"].default, ge=1)
    target_modules: str = Adapter.model_fields["target_modules"].default
    per_device_train_batch_size: int = Field(1, ge=1)
    max_length: int = Field(Data.model_fields["max_length"].default, ge=1)
    supervised_tokens: int | None = Field(None, ge=0)
    optim: Literal["adamw_torch", "adamw_8bit", "paged_adamw_8bit"] = "adamw_8bit"
    gradient_checkpointing: bool = True
    loss: LossName | None = None
    base_bytes: Literal[2, 4] = 2
    device: Literal["card", "cpu"] = "card"
    stack: Literal["ours"] = "ours"
    double_quant: bool = True
    adapter_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: Literal["sdpa", "eager"] = "sdpa"
    use_dora: bool = False
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    load_in_8bit: bool = False
    target_parameters: Literal["none", "experts"] = "none"
    fp32_stream: bool = False
    accumulates: bool = True
    offloads: bool = False
    kept_layers: int = Field(0, ge=0)
    offload_layers: int = Field(0, ge=0)
    shards: int = Field(1, ge=1)
    packed: bool = True
    grouped: bool = False
    drawn: int = Field(0, ge=0)

    @classmethod
    def from_recipe(
        cls,
        recipe: Recipe,
        device: Literal["card", "cpu"],
        capability: tuple[int, int] | None = None,
        **overrides: object,
    ) -> Setup:
        """Return the setup of a recipe on a device: the only way from settings to the estimate, the dry run and the
        timed step.

        capability: of the GPU, None: unknown. overrides: fields that are better known than from the recipe, such as a
        batch of its data.
        """
        adapter, train = recipe.adapter, recipe.train
        settings = {
            "method": adapter.method,
            "r": adapter.r,
            "target_modules": adapter.target_modules,
            "per_device_train_batch_size": train.per_device_train_batch_size
            * (2 if train.compares else 1),  # the two of a pair
            "max_length": recipe.row_length // (2 if train.compares else 1),
            "optim": train.optim or "adamw_torch",
            "gradient_checkpointing": bool(train.gradient_checkpointing),
            "use_dora": adapter.use_dora,
            "lora_dropout": adapter.lora_dropout,
            "load_in_8bit": adapter.load_in_8bit,
            "offloads": train.activation_offload and device == "card",
            "target_parameters": adapter.target_parameters,
            "offload_layers": max(0, train.offload_layers) if device == "card" else 0,
            "shards": train.ranks if train.fsdp else 1,
            "packed": recipe.data.packing,
            # torch's wheels for Windows may lack the kernel.
            "grouped": recipe.data.packing and (capability or (0, 0)) >= MIN_FOR_FLASH and sys.platform == "linux",
        }
        if recipe.rewards:
            settings["supervised_tokens"] = recipe.rewards.max_completion_length
            settings["drawn"] = train.per_device_train_batch_size * recipe.rewards.num_generations
        return cls(device=device, **(settings | overrides))

    @property
    def tokens(self) -> int:
        """T: tokens of the largest micro-batch, packed, or padded to the longest."""
        return self.per_device_train_batch_size * self.max_length

    @property
    def learned(self) -> int:
        """K: the trained tokens of the largest micro-batch: of each row supervised_tokens, or all if that is None or
        more than the row has."""
        a_row = self.max_length if self.supervised_tokens is None else min(self.supervised_tokens, self.max_length)
        return self.per_device_train_batch_size * a_row

    @property
    def trains_experts(self) -> bool:
        """True if the adapter is put on the experts' weights too."""
        return self.target_parameters == "experts" and self.method != "full"

    @property
    def base_bits(self) -> int:
        """Bits of each weight in the layers' matrices: 4 with qlora, 8 with lora and load_in_8bit, else 16, which
        stands for the width in base_bytes, also fp32. Full fine-tuning ignores load_in_8bit."""
        return {"qlora": 4, "lora": 8 if self.load_in_8bit else 16, "full": 16}[self.method]

    @property
    def trainer(self) -> Stack:
        """The memory constants of the trainer in use (presets/memory.yaml): what a layer keeps, losses, slack,
        context."""
        return memory_constants().trainer

    @property
    def loss_name(self) -> str:
        """The chosen loss, or else the first of the stack."""
        return self.loss or next(iter(self.trainer.loss))

    @property
    def adapter_bytes(self) -> int:
        """Bytes of a trained parameter; in full fine-tuning those of the base's."""
        return self.base_bytes if self.method == "full" else 4 if self.adapter_dtype == "fp32" else 2
