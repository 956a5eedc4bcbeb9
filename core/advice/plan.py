"""A recipe with what was left out filled in, and the advice that filled it. After `make` no field is empty.

Whose word counts, first to last: what the person set; what comes along with a sample set (tried with the starter, so
only there); the advice; the recipe's own defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from core.advice import recommend
from core.advice.case import Advice, Reason
from core.advice.goals import goal_of
from core.data.facts import DataFacts
from core.data.repeats import Repeats
from core.data.samples import sample_of
from core.data.selection import choose
from core.data.tokenizer import LongExamples
from core.memory.budget import Budget
from core.memory.record import Corrections
from core.messages import Message, msg
from core.models.shapes import ModelShape
from core.recipe import Recipe
from core.workspace import names

# The fields of a recipe that advice is given on, and their names there.
ADVISED: dict[tuple[str, str], str] = {
    ("adapter", "method"): "method",
    ("adapter", "r"): "r",
    ("adapter", "lora_alpha"): "lora_alpha",
    ("adapter", "target_modules"): "target_modules",
    ("data", "max_length"): "max_length",
    ("train", "per_device_train_batch_size"): "micro_batch",
    ("train", "gradient_accumulation_steps"): "gradient_accumulation",
    ("train", "learning_rate"): "learning_rate",
    ("train", "num_train_epochs"): "num_train_epochs",
    ("train", "max_steps"): "max_steps",
    ("train", "gradient_checkpointing"): "gradient_checkpointing",
    ("train", "optim"): "optim",
}
# Decided by the person alone; the advice reckons with them.
PRICED = (("adapter", "use_dora"), ("adapter", "lora_dropout"), ("adapter", "load_in_8bit"))


@dataclass(frozen=True)
class Grounds:
    """What advice stands on. shape and data are None where they could not be had: the advice then says less.

    corrections: what runs on this PC measured of this model. examples(max_length, long_examples): how many training makes
    of the data (core.data.preview counts them). repeats: of its rows, asked for only where a recipe leaves such rows out.
    """

    budget: Budget
    shape: ModelShape | None = None
    data: DataFacts | None = None
    corrections: Corrections | None = None
    examples: Callable[[int, LongExamples], int] | None = None
    repeats: Callable[[], Repeats | None] | None = None

    def trained_rows(self, recipe: Recipe) -> int | None:
        """None where no row is left out for what it says, or that is not known."""
        wanted = recipe.data.deduplicate or recipe.data.drop_leaked
        repeats = self.repeats() if wanted and self.repeats else None
        return None if repeats is None else len(choose(len(repeats), recipe, repeats).training)


@dataclass(frozen=True)
class Plan:
    """recipe: complete, ready for Start. advice: the same decisions with their reasons, verdict and memory."""

    recipe: Recipe
    advice: Advice


def make(recipe: Recipe, grounds: Grounds, data_name: str = "") -> Plan:
    """recipe completed. Raises RecipeError where what was set cannot be together (a layer that the model has not)."""
    recipe, from_sample = with_sample(recipe)
    chosen = {name: value for key, name in ADVISED.items() if (value := _set_value(recipe, key)) is not None}
    chosen |= {name: getattr(getattr(recipe, section), name) for section, name in PRICED}
    asks_for_lora = None if "method" in chosen else _asks_for_lora(recipe)
    if asks_for_lora:
        chosen["method"] = "lora"
    chosen["eval_fraction"] = recipe.data.eval_fraction  # what is kept apart makes no steps
    goal = goal_of(recipe.goal) if recipe.goal else None
    examples = None
    if grounds.examples is not None and recipe.data.long_examples != "cut":  # cut, a row stays one example
        examples = partial(grounds.examples, long_examples=recipe.data.long_examples)
    trained = grounds.trained_rows(recipe)
    advised = recommend.recommend(grounds.shape, grounds.budget, grounds.data, goal, chosen, grounds.corrections, examples, trained)
    said = dict.fromkeys(from_sample, msg("plan.from_sample")) | ({"method": asks_for_lora} if asks_for_lora else {})
    reasons = tuple(
        Reason(field=reason.field, text=said[reason.field]) if reason.field in said else reason for reason in advised.reasons
    )
    advised = advised.model_copy(update={"reasons": reasons})
    changes: dict[str, dict[str, Any]] = {}
    for (section, name), advice_name in ADVISED.items():
        changes.setdefault(section, {})[name] = getattr(advised, advice_name)
    complete = recipe.model_copy(
        update={section: getattr(recipe, section).model_copy(update=values) for section, values in changes.items()}
    )
    return Plan(resolve(complete, data_name, has_card=grounds.budget.kind == "card"), advised)


def with_sample(recipe: Recipe) -> tuple[Recipe, frozenset[str]]:
    """recipe with the settings that come along with its sample set, and their names in the advice; unchanged elsewhere."""
    sample = sample_of(recipe.data.source) if recipe.model.id == "starter" else None
    if sample is None:
        return recipe, frozenset()
    taken = set()
    value = {"goal": recipe.goal or sample.goal}
    for section, given in (("adapter", sample.adapter), ("train", sample.train)):
        current = getattr(recipe, section)
        left_out = {name: setting for name, setting in given.items() if name not in current.model_fields_set}
        if "num_train_epochs" in current.model_fields_set:
            left_out.pop("max_steps", None)  # the person counted in epochs
        if "r" in current.model_fields_set:
            left_out.pop("lora_alpha", None)  # it belonged to the sample's own rank
        taken |= {ADVISED[section, name] for name in left_out if (section, name) in ADVISED}
        value[section] = current.model_copy(update=left_out)
    return recipe.model_copy(update=value), frozenset(taken)


def _asks_for_lora(recipe: Recipe) -> Message | None:
    """Why nothing but LoRA can be meant, where a setting says so (recipe.clashes)."""
    adapter = recipe.adapter
    return msg("plan.lora_in_8bit") if adapter.load_in_8bit else msg("plan.lora_for_pissa") if adapter.is_pissa else None


def _set_value(recipe: Recipe, key: tuple[str, str]) -> Any:
    """The value that was set for a field, None where it was left out or left empty."""
    section = getattr(recipe, key[0])
    return getattr(section, key[1]) if key[1] in section.model_fields_set else None


def resolve(recipe: Recipe, data_name: str, has_card: bool) -> Recipe:
    """recipe with every default written out, without advice. eval_steps and save_steps wait for the number of steps."""
    train = recipe.train.model_copy(
        update={
            "optim": recipe.train.optim or ("paged_adamw_8bit" if has_card else "adamw_torch"),
            "gradient_checkpointing": has_card
            if recipe.train.gradient_checkpointing is None
            else recipe.train.gradient_checkpointing,
        }
    )
    adapter = recipe.adapter.model_copy(update={"lora_alpha": recipe.lora_alpha})
    name = names.display_name(recipe.name) or names.display_name(data_name) or "run"
    return recipe.model_copy(update={"train": train, "adapter": adapter, "name": name})
