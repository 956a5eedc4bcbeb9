"""Recipes of this app as those of axolotl and TRL: what is written is read back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.commands.__main__ import main
from core.errors import RecipeError
from core.messages import Message
from core.recipe import OBJECTIVES_OF, Recipe
from core.workspace import foreign_recipes, written_recipes
from core.workspace.foreign_recipes import keys_of, table

# Every setting of the table with a value that is not its default, besides those that exclude each other.
ADAPTER = {"r": 24, "lora_alpha": 33, "lora_dropout": 0.1, "target_modules": "q_proj,v_proj", "use_rslora": True}
TRAIN = {
    "learning_rate": 3e-4, "num_train_epochs": 2.5, "max_steps": 77, "per_device_train_batch_size": 2,
    "per_device_eval_batch_size": 5, "gradient_accumulation_steps": 6, "gradient_checkpointing": True,
    "warmup_steps": 9, "weight_decay": 0.02, "max_grad_norm": 0.7, "neftune_noise_alpha": 5.0, "eval_steps": 11,
    "save_steps": 22, "save_total_limit": 4, "load_best_model_at_end": False, "early_stopping_patience": 3,
    "seed": 7, "optim": "adamw_8bit", "lr_scheduler_type": "cosine",
}  # fmt: skip
DATA = {"source": "a/b:train", "max_length": 300, "packing": False, "eval_fraction": 0.1, "train_on": "everything"}
PREFERENCES = {
    "beta": 0.3, "loss_type": "robust", "label_smoothing": 0.2, "simpo_gamma": 0.9, "sft_weight": 0.4,
    "desirable_weight": 1.5, "undesirable_weight": 0.6,
}  # fmt: skip
REWARDS = {
    "judges": [{"kind": "number"}], "num_generations": 4, "max_completion_length": 99, "temperature": 0.8,
    "beta": 0.02, "scale_rewards": "none", "loss_type": "dr_grpo", "mask_truncated_completions": True,
}  # fmt: skip
OTHER_VALUES: list[dict[str, Any]] = [
    {"adapter": {"method": "qlora", "use_dora": True, "target_modules": "all-linear"}, "train": {"warmup_ratio": 0.05}},
    {"adapter": {"load_in_8bit": True}, "train": {"activation_offload": True, "lr_scheduler_type": "constant"}},
    {"adapter": {"init_lora_weights": "pissa_niter_16"}, "train": {"loraplus_lr_ratio": 16.0}},
    {"data": {"train_on": "assistant", "packing": True}, "model": {"id": "starter"}},
]
# Read only: another name of a key that is written, or none that the tool's own command has.
ONLY_READ = {
    "axolotl": {
        "dpo_beta",
        "rpo_alpha",
        "num_train_epochs",
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
    },
    "trl": {"trainer", "completion_only_loss", "warmup_ratio", "load_best_model_at_end", "early_stopping_patience"},
}
WRITABLE = [(tool, objective) for tool in ("axolotl", "trl") for objective in table()[tool]["writes"].split()]


def complete(objective: str, other: dict[str, Any] | None = None) -> Recipe:
    of_this = {name: value for name, value in PREFERENCES.items() if objective in OBJECTIVES_OF[name]}
    value: dict[str, Any] = {
        "name": "Mine", "model": {"id": "a/b", "revision": "main"},
        "data": DATA | ({} if objective == "sft" else {"train_on": "assistant"}),
        "adapter": {"method": "lora"} | ADAPTER, "train": TRAIN | of_this | {"objective": objective},
    }  # fmt: skip
    if objective == "grpo":
        value |= {"rewards": REWARDS}
    if other:
        if "init_lora_weights" in other.get("adapter", {}) and objective == "grpo":
            value["rewards"] = REWARDS | {"beta": 0.0}
        value |= {section: value[section] | changes for section, changes in other.items()}
        if "warmup_ratio" in value["train"]:
            value["train"] |= {"warmup_steps": 0}
        if other.get("model"):
            value["model"] = other["model"]
    return Recipe.parse(value)


def flat(value: dict[str, Any]) -> dict[str, Any]:
    return {f"{section}.{name}": each for section, part in value.items() if isinstance(part, dict)
        for name, each in part.items() if each is not None}  # fmt: skip


def text_of(message: Message) -> str:
    return message.render("en")


def left_out(written: written_recipes.WrittenRecipe) -> set[str]:
    return {str(note.params["name"]) for note in written.notes if note.key == "foreign_recipe.left_out"}


@pytest.mark.parametrize(("tool", "objective"), WRITABLE)
def test_what_is_written_is_read_back_as_it_was(tool: Any, objective: str, tmp_path: Path) -> None:
    keys: set[str] = set()
    for other in (None, *OTHER_VALUES):
        recipe = complete(objective, other)
        written = written_recipes.write(recipe, tool)
        file = tmp_path / written.file
        file.write_text(written.text(text_of), "utf-8")
        value, foreign = foreign_recipes.read(file)
        assert foreign and not foreign.texts("left_out", "open")
        ours, theirs = flat(recipe.model_dump(mode="json", exclude_unset=True)), flat(Recipe.parse(value).model_dump(
            mode="json", exclude_unset=True))  # fmt: skip
        lost = {name for name, each in ours.items() if theirs.get(name) != each}
        unwritten = {"train.warmup_ratio" if recipe.train.warmup_steps else "train.warmup_steps"}
        unwritten |= {"train.load_best_model_at_end"} if tool == "trl" else set()  # off, as in TRL without a word
        assert lost <= left_out(written) | unwritten | implied(recipe), (other, lost)
        keys |= {*written.keys, *(f"{name}.{key}" for name, part in written.keys.items() if isinstance(part, dict)
            for key in part)}  # fmt: skip
    wanted = {
        key
        for key, rule in keys_of(tool, objective).items()
        if objective in rule.get("for", objective).split() and applies(rule, objective)
    }
    assert wanted - ONLY_READ[tool] - keys == set(), "a key of the table that is never written"


def implied(recipe: Recipe) -> set[str]:
    """What Recipe.parse sets by itself, and what has no effect here and is not named."""
    idle = {"data.rated", "data.long_examples"} | ({"data.packing"} if recipe.train.objective != "sft" else set())
    return idle | {"data.train_on" if recipe.train.objective != "sft" else "train.objective"}


def applies(rule: dict[str, Any], objective: str) -> bool:
    """A key of one objective's settings, or a value that the objective has not, is not written for another."""
    fields = {*rule.get("to", "").split(), *(field for meant in rule.get("values", {}).values() for field in meant)}
    names = {field.partition(".")[2] for field in fields if field.startswith("train.")}
    of_this = any(objective in OBJECTIVES_OF.get(name, (objective,)) for name in names) or not names
    rewards = objective == "grpo" or not any(field.startswith("rewards.") for field in fields)
    only = {"train.objective": objective != "sft", "data.train_on": objective == "sft"}
    return of_this and rewards and all(only.get(field, True) for field in fields)


def test_the_head_says_how_it_is_run_and_names_what_is_changed_or_left_out() -> None:
    recipe = Recipe.parse(
        {"name": "Mine\nrm -rf", "data": {"source": "mine", "long_examples": "split"}, "train": {"objective": "dpo"}}
    )
    text = written_recipes.write(recipe, "trl").text(text_of)
    head, body = text[: text.index("\nmodel_name")], yaml.safe_load(text)
    assert all(line.startswith("# ") for line in head.splitlines()) and "trl dpo --config mine-rm-rf.trl.yaml" in head
    assert (
        "data.long_examples: split is left out" in head
        and "train_on" not in head
        and "data export mine mine-rm-rf.jsonl" in head
    )
    assert "chosen and rejected" in head and "starter → model_name_or_path" in head
    assert body["lora_target_modules"] == ["all-linear"], "not the tool's own default where the recipe has none"
    assert body["datasets"] == [{"path": "json", "data_files": "mine-rm-rf.jsonl", "split": "train"}]


def test_what_trl_has_no_command_for_is_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(RecipeError, match="TRL has no command that trains with orpo"):
        written_recipes.write(complete("orpo"), "trl")
    file = tmp_path / "mine.yaml"
    file.write_text("data: {source: a/b}\ntrain: {objective: simpo}\n", "utf-8")
    assert main(["recipe", str(file), "--as", "trl"]) == 2 and "simpo" in capsys.readouterr().err
    assert main(["recipe", str(file), "--as", "axolotl"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["rl"] == "simpo"
