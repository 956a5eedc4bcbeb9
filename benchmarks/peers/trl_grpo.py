"""TRL's GRPOTrainer on the steps of a recipe that trains by rewards, in an environment with trl:
`PYTHON -m benchmarks.peers.trl_grpo RECIPE.yaml MODEL_FOLDER`. Prints the seconds and tokens of each step as JSON.

No reward changes a time, so 0 and 1 in turn stand for the judges; the learning rate is 0, so that answers keep their
length.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer


class Steps(TrainerCallback):
    """Keeps the time at which each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.time())


def main(recipe_file: Path, model: Path) -> None:
    recipe = json.loads(recipe_file.read_text("utf-8"))
    train, rewards = recipe["train"], recipe["rewards"]
    rows = [json.loads(line) for line in (recipe_file.parent / recipe["data"]["source"]).read_text().splitlines()]
    lengths: list[float] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.append(sum(map(len, completion_ids)) / len(completion_ids))
        return [float(number % 2) for number in range(len(completion_ids))]

    settings = GRPOConfig(
        output_dir=str(recipe_file.parent / "trl"), use_cpu=True, bf16=True, learning_rate=0.0, beta=0.0,
        max_steps=train["max_steps"], loss_type="dapo", temperature=1.0, num_generations=rewards["num_generations"],
        per_device_train_batch_size=train["per_device_train_batch_size"] * rewards["num_generations"],
        max_completion_length=rewards["max_completion_length"], gradient_checkpointing=False,
        save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    steps = Steps()
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16, attn_implementation="sdpa"),
        reward_funcs=[reward],
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": row["question"]}]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"),
        callbacks=[steps],
    )
    trainer.train()
    seconds = [after - before for before, after in zip(steps.ends, steps.ends[1:], strict=False)]
    print(json.dumps({"seconds": seconds, "tokens": lengths[1:]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
