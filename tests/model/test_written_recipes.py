"""Recipes written for TRL, read by TRL's own parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.recipe import Recipe
from core.workspace import written_recipes

BETA = {"dpo": {"beta": 0.3, "loss_type": "sigmoid_norm"}, "kto": {"beta": 0.3, "desirable_weight": 1.5}}
REWARDS = {"judges": [{"kind": "number"}], "num_generations": 4, "beta": 0.02}


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto", "grpo"])
def test_trl_reads_each_key_that_is_written(objective: str, tmp_path: Path) -> None:
    import trl
    from trl.scripts.grpo import GRPOScriptArguments

    train = {"objective": objective, "learning_rate": 3e-4, "warmup_ratio": 0.05, "per_device_train_batch_size": 2}
    value: dict[str, Any] = {
        "name": "Mine", "model": {"id": "a/b"}, "data": {"source": "mine", "max_length": 300},
        "adapter": {"method": "qlora", "r": 24}, "train": train | BETA.get(objective, {}),
    }  # fmt: skip
    recipe = Recipe.parse(value | ({"rewards": REWARDS} if objective == "grpo" else {}))
    written = written_recipes.write(recipe, "trl")
    file = tmp_path / written.file
    file.write_text(written.text(str) + f"output_dir: {tmp_path / 'out'}\nuse_cpu: true\nbf16: false\n", "utf-8")
    script = GRPOScriptArguments if objective == "grpo" else trl.ScriptArguments
    kinds = (script, getattr(trl, f"{objective.upper()}Config"), trl.ModelConfig, trl.DatasetMixtureConfig)
    asked, training, model, data = trl.TrlParser(kinds).parse_args_and_config(["--config", str(file)])
    assert (model.model_name_or_path, model.lora_r, model.lora_alpha, model.load_in_4bit) == ("a/b", 24, 48, True)
    assert (training.learning_rate, training.warmup_steps) == (3e-4, 0.05) and model.use_peft
    assert data.datasets[0].data_files == "mine.jsonl"
    assert training.per_device_train_batch_size == (8 if objective == "grpo" else 2), "answers, not questions"
    if objective == "grpo":
        assert (asked.reward_funcs, training.beta) == (["trl.rewards.accuracy_reward"], 0.02)
    else:
        assert training.max_length == 300
    of_this = {name: getattr(training, name) for name in BETA.get(objective, {})}
    assert of_this == BETA.get(objective, {}) | ({"loss_type": ["sigmoid_norm"]} if objective == "dpo" else {})
