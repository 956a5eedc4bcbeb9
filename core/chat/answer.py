"""What an answer is asked with, and what comes back while it is written. No torch: page, command and worker share it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Column = Literal["base", "tuned"]
COLUMNS: tuple[Column, ...] = ("base", "tuned")


class Sampling(BaseModel):
    """How the next token is chosen, under the names of transformers' GenerationConfig."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    do_sample: bool = Field(
        False, description="Off: always the likeliest word, the same answer every time. On: words are drawn by their odds."
    )
    temperature: float = Field(
        0.7, ge=0, le=2, description="How daring the draw is: 0 takes the likeliest word, 1 the model's own odds."
    )
    top_p: float = Field(
        0.9, gt=0, le=1, description="Draw only from the likeliest words that together have this share of the odds."
    )
    max_new_tokens: int = Field(256, ge=1, le=4096, description="Longest answer, in tokens (about four letters each).")
    seed: int = Field(42, ge=0, lt=2**32, description="Start of the draw: the same seed gives the same answer again.")

    @property
    def greedy(self) -> bool:
        return not self.do_sample or self.temperature == 0


@dataclass(frozen=True)
class Piece:
    """New text of one column; the pieces of a column, joined, are its answer."""

    column: Column
    text: str


@dataclass(frozen=True)
class Done:
    """A column's answer is over. tokens: chosen, the stop token included; seconds: since its prompt began to be read.

    finish_reason: "stop" the model ended it, "length" max_new_tokens were written, "stopped" the person asked.
    """

    column: Column
    tokens: int
    seconds: float
    finish_reason: Literal["stop", "length", "stopped"]
