"""Recipes of LLaMA-Factory, axolotl and TRL become recipes of this app, with a note on every key."""

from __future__ import annotations

import pytest

from core.data.reading.file_rows import DEFAULT_LIMITS
from core.data.reading.yaml_rows import is_dataset
from core.errors import RecipeError
from core.recipe import Recipe
from core.workspace import foreign_recipes

LLAMA_FACTORY = """
model_name_or_path: Qwen/Qwen3-4B
stage: dpo
pref_loss: simpo
finetuning_type: lora
quantization_bit: 4
lora_rank: 8
lora_target: all
dataset: identity,alpaca_en_demo
template: qwen3
learning_rate: 5e-6
warmup_steps: 20
val_size: 100
"<img src=x onerror=alert(1)>": 1
"""
AXOLOTL = """
base_model: NousResearch/Llama-3.2-1B
adapter: qlora
load_in_4bit: true
lora_r: 32
lora_alpha: 16
lora_target_modules: [q_proj, v_proj]
datasets: [{path: teknium/GPT4-LLM-Cleaned, type: alpaca, split: train}]
rl: grpo
trl: {num_generations: 4, beta: 0.04, reward_funcs: [trl.rewards.accuracy_reward, mine.reward]}
micro_batch_size: 2
wandb_project:
"""
TRL = "# LoRA\npython trl/scripts/sft.py \\\n  --model_name_or_path Qwen/Qwen2-0.5B \\\n"
TRL += "  --dataset_name trl-lib/Capybara \\\n  --lora_target_modules q_proj v_proj --use_peft --packing \\\n"
TRL += "  --warmup_steps 0.1 --eos_token '<|im_end|>'\n"


def read(tmp_path, text, name="theirs.yaml"):
    file = tmp_path / name
    file.write_text(text, "utf-8")
    value, foreign = foreign_recipes.read(file)
    return Recipe.parse(value), foreign


def kinds(foreign):
    return {note.text.params.get("name"): note.kind for note in foreign.notes}


def test_llama_factory_recipe_is_taken_key_by_key(tmp_path):
    recipe, foreign = read(tmp_path, LLAMA_FACTORY)
    assert (recipe.model.id, recipe.adapter.method, recipe.adapter.r) == ("Qwen/Qwen3-4B", "qlora", 8)
    assert (recipe.train.objective, recipe.train.learning_rate, recipe.train.warmup_steps) == ("simpo", 5e-6, 20)
    found = kinds(foreign)
    assert (found["lora_rank"], found["lora_target"], found["val_size"]) == ("taken", "changed", "left_out")
    assert found["<img src=x onerror=alert(1)>"] == "left_out"
    (asked,) = foreign.texts("open")
    assert "identity,alpaca_en_demo" in str(asked)
    assert len(foreign.notes) == LLAMA_FACTORY.count("\n") - 1, "each key has one note"


def test_axolotl_recipe_names_its_hub_dataset_and_the_rewards_that_are_code(tmp_path):
    recipe, foreign = read(tmp_path, AXOLOTL)
    assert recipe.data.source == "teknium/GPT4-LLM-Cleaned:train"
    assert (recipe.adapter.target_modules, recipe.lora_alpha) == ("q_proj,v_proj", 16)
    assert recipe.rewards and (recipe.rewards.num_generations, recipe.rewards.beta) == (4, 0.04)
    assert recipe.rewards.judges == ({"kind": "number"},)
    assert any("mine.reward" in str(note) for note in foreign.texts("left_out"))
    assert not is_dataset(tmp_path / "theirs.yaml", DEFAULT_LIMITS), "its list of datasets would be read as rows"


def test_arguments_of_trl_are_taken_from_a_command(tmp_path):
    recipe, foreign = read(tmp_path, TRL, "train.sh")
    assert (recipe.data.source, recipe.data.packing) == ("trl-lib/Capybara", True)
    assert (recipe.adapter.target_modules, recipe.train.warmup_ratio) == ("q_proj,v_proj", 0.1)
    assert kinds(foreign)["eos_token"] == "left_out"


def test_a_trainer_that_is_named_decides_what_the_keys_mean(tmp_path):
    """The beta of `trl grpo` was read as that of preferences, and left out; its batch of answers as one of
    questions."""
    command = "trl grpo --model_name_or_path a/b --dataset_name a/b --reward_funcs accuracy_reward --beta 0.04"
    recipe, _ = read(tmp_path, command, "train.sh")
    assert recipe.rewards and (recipe.rewards.beta, recipe.train.beta) == (0.04, None)
    for answers, steps, questions in ((16, 3, (2, 3)), (4, 6, (1, 3)), (2, 2, (1, 1))):
        batch = f" --per_device_train_batch_size {answers} --gradient_accumulation_steps {steps}\n"
        train = read(tmp_path, command + batch, "train.sh")[0].train
        assert (train.per_device_train_batch_size, train.gradient_accumulation_steps) == questions, "of 8 answers each"
    config = (
        "# trl kto --config theirs.yaml\nmodel_name_or_path: a/b\ndatasets: [{path: json, data_files: mine.jsonl}]\n"
    )
    recipe, _ = read(tmp_path, config)
    assert (recipe.train.objective, recipe.data.source) == ("kto", "mine.jsonl")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("base_model: a/b\nstage: sft\n", "foreign_recipe.mixed"),
        ("base_model: a/b\ntrain: {max_steps: 4}\n", "foreign_recipe.mixed"),
        ("dataset_name: a/b\nreward_funcs: mine.reward\n", "foreign_recipe.rewards_are_code"),
        ("base_model: [\n", "recipe.not_yaml"),
        ("base_model: " + "x" * (1 << 20), "recipe.too_large"),
        ("learning_rate: 0.1\n", "recipe.invalid"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_a_sentence(tmp_path, text, key):
    with pytest.raises(RecipeError) as error:
        read(tmp_path, text)
    assert error.value.message.key == key


def test_hostile_values_stay_short(tmp_path):
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]\n" for i in range(1, 12)
    )
    _, foreign = read(tmp_path, "base_model: a/b\nlora_target_modules: *a11\n".join([aliases, ""]))
    assert max(len(str(note.text)) for note in foreign.notes) < 400
