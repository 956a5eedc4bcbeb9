"""The memory of other trainers: the arithmetic of core/memory/arithmetic with their numbers (memory_stacks.yaml beside
this file).

The app's plans are for its own training alone. These numbers are for published measurements of others: the more of them
the same terms explain, the more they can be trusted.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import model_validator

from core.memory.constants import Stack
from core.memory.setup import Setup


class OthersSetup(Setup):
    """One way to train with any of the known trainers. ours: this project's."""

    stack: Literal["ours", "hf", "fms", "litgpt", "torchtune"] = "ours"  # type: ignore[assignment] # wider than the product's
    loss: Literal["supervised", "chunked", "full", "fused", "fast", "fast_first"] | None = None  # type: ignore[assignment]

    @property
    def trainer(self) -> Stack:
        return super().trainer if self.stack == "ours" else stacks()[self.stack]

    @model_validator(mode="after")
    def _has_the_loss(self) -> Self:
        if self.loss is not None and self.loss not in self.trainer.loss:
            raise ValueError(
                f"the loss {self.loss} is not known of {self.stack}; expected one of: {', '.join(self.trainer.loss)}"
            )
        return self


@lru_cache(maxsize=1)
def stacks() -> dict[str, Stack]:
    value = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    return {name: Stack.model_validate(found) for name, found in value.items()}
