"""The settings of training by rewards (objective grpo): the section `rewards` of a recipe. Names, defaults and meaning
are those of TRL 1.16's GRPOConfig."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Rewards(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    judges: tuple[dict[str, Any], ...] = Field(
        min_length=1,
        max_length=16,
        description=(
            "The judges whose weighted scores are the reward, such as {kind: number, weight: 0.5}: rules with their "
            "options as in an evaluation, and a weight, 1 unless given."
        ),
    )
    num_generations: int = Field(
        8, ge=2, le=64, description="Answers drawn to each question in a step; each is compared with the others."
    )
    max_completion_length: int = Field(
        512, ge=1, le=32768, description="Most tokens of a drawn answer, after which it is cut off."
    )
    temperature: float = Field(
        1.0, gt=0, le=2, description="How varied the drawn answers are: 1 draws by the model's own probabilities."
    )
    beta: float = Field(
        0.0,
        ge=0,
        le=100,
        description=(
            "How strongly the model is held near the one that the run began with (KL divergence); 0: not at all, with "
            "less work. If all judges look at form alone, the plan sets 0.1."
        ),
    )
    loss_type: Literal["dapo", "dr_grpo"] = Field(
        "dapo",
        description=(
            "dapo averages over all tokens of a step; dr_grpo divides by the number of answers times "
            "max_completion_length, so that the length of the others does not matter."
        ),
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group",
        description=(
            "What the difference from the mean of a question's answers is divided by: the standard deviation of these "
            "(group), of all answers of the step (batch), or nothing (none)."
        ),
    )
    mask_truncated_completions: bool = Field(
        False, description="Leave answers that were cut off out of the loss, so that long ones are not punished."
    )
