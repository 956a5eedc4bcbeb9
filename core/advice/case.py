"""The values of a recommendation: the case it is made for, a reason, an alternative, the whole advice. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from core.advice.family import Family, family_of
from core.advice.goals import Goal, goal_of
from core.data.facts import DataFacts
from core.data.labels import LongExamples
from core.data.preview import Preview
from core.data.repeats import Repeats, needs_repeats
from core.data.selection import choose
from core.memory import arithmetic
from core.memory.arithmetic import Estimate
from core.memory.budget import Budget
from core.memory.documented import SizeClass, VramTable, vram_table
from core.memory.record import Correction, Corrections
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.recipe import Recipe, Train
from core.values import Frozen
from core.workspace.saved_recipes import NO_DATA

Method = Literal["lora", "qlora"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]
METHOD_NAMES: dict[str, str] = {"lora": "LoRA", "qlora": "QLoRA"}
RANKS = (4, 8, 16)
SMALL_CLASS_BILLIONS = 6.0  # the 7B class begins here
USUAL_RATE: float = Train.model_fields["learning_rate"].default

# What is advised on, or reckoned with: the name of a field of a recipe, and its section. From use_dora on it is the
# person's alone to decide, but costs memory.
SETTINGS: dict[str, str] = {
    "method": "adapter",
    "r": "adapter",
    "lora_alpha": "adapter",
    "target_modules": "adapter",
    "max_length": "data",
    "per_device_train_batch_size": "train",
    "gradient_accumulation_steps": "train",
    "learning_rate": "train",
    "num_train_epochs": "train",
    "max_steps": "train",
    "gradient_checkpointing": "train",
    "optim": "train",
    "offload_layers": "train",
    "use_dora": "adapter",
    "lora_dropout": "adapter",
    "load_in_8bit": "adapter",
    "target_parameters": "adapter",
}


def value_of(recipe: Recipe, name: str) -> Any:
    """By a name of SETTINGS."""
    return getattr(getattr(recipe, SETTINGS[name]), name)


def values_of(recipe: Recipe) -> dict[str, Any]:
    return {name: value_of(recipe, name) for name in SETTINGS}


def is_set(recipe: Recipe, name: str) -> bool:
    """Whether somebody decided it: a field that was left out, or left empty, is a hole."""
    return name in getattr(recipe, SETTINGS[name]).model_fields_set and value_of(recipe, name) is not None


def with_settings(recipe: Recipe, **settings: Any) -> Recipe:
    """recipe with values by the names of SETTINGS. Unchecked: for what this room decides itself."""
    changes: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        changes.setdefault(SETTINGS[name], {})[name] = value
    return recipe.model_copy(
        update={key: getattr(recipe, key).model_copy(update=values) for key, values in changes.items()}
    )


def all_holes(goal: str | None = None) -> Recipe:
    """Nothing is decided but what a model should become better at."""
    return Recipe.parse({"goal": goal, "data": {"source": NO_DATA}})


class Reason(Frozen):
    """Why a setting has its value. field: a name of SETTINGS, "verdict", "goal" or "budget"."""

    field: str
    text: Message


class Alternative(Frozen):
    """Another way that was weighed: with its own verdict and both numbers in its sentence.

    model: id of a smaller model of presets/models.yaml, where that is the other way; offload_layers: how many of this
    one are.
    shards: GPUs that hold the base together.
    """

    method: Method
    max_length: int
    verdict: Verdict
    on_card_gib: float | None
    text: Message
    model: str | None = None
    offload_layers: int = 0
    shards: int = 1


class Documented(Frozen):
    """What the documented table says of this case. row: "7B", "13B", "33B" or None where the table has no row for
    it."""

    row: str | None = None
    minimum_gb: float | None = None
    rule: Message | None = None


class Advice(Frozen):
    """recipe: what was asked for, its holes filled; reasons: why, one for each. planned_steps and warnings need the
    data; estimate needs the model's shape."""

    recipe: Recipe
    verdict: Verdict
    reasons: tuple[Reason, ...]
    alternatives: tuple[Alternative, ...] = ()
    documented: Documented = Documented()
    estimate: Estimate | None = None
    correction: Correction | None = None  # of the estimate, by earlier runs on this PC
    planned_steps: int | None = None
    bus_seconds: float | None = None  # of all steps: what offloaded layers take to the card, as assumed
    usual_rate: float = USUAL_RATE  # for a model of this size, whatever was chosen
    warnings: tuple[Message, ...] = ()
    budget: Budget

    @property
    def factor(self) -> float:
        """What runs on this PC measured, over the arithmetic."""
        return self.correction.factor if self.correction else 1.0

    @property
    def arithmetic_gib(self) -> float | None:
        """On the card, by the arithmetic alone."""
        return self.estimate.on_card_gib / self.factor if self.estimate else None

    @property
    def setup(self) -> Setup:
        """What the arithmetic was asked."""
        return Setup.of(self.recipe, self.budget.kind, self.budget.capability)

    def as_json(self) -> dict[str, Any]:
        """As run.json and `plan --json` have it: the settings by their names, then the rest."""
        return values_of(self.recipe) | self.model_dump(mode="json", exclude={"recipe"})


@dataclass(frozen=True)
class Grounds:
    """What advice stands on. shape and data are None where they could not be had: the advice then says less.

    corrections: what runs on this PC measured of this model. examples(max_length, long_examples, overlap): how many
    training makes of the data (core.data.preview counts them). repeats: of its rows, asked for only where a recipe
    leaves such rows out. continues:
    that it starts from another run's adapter.
    """

    budget: Budget
    shape: ModelShape | None = None
    data: DataFacts | None = None
    corrections: Corrections | None = None
    examples: Callable[[int, LongExamples, int], int] | None = None
    repeats: Callable[[], Repeats | None] | None = None
    continues: bool = False

    @classmethod
    def of(
        cls,
        budget: Budget,
        shape: ModelShape | None,
        preview: Preview | None,
        corrections: Corrections | None,
        continues: bool,
    ) -> Grounds:
        """The grounds with what a preview of the data tells."""
        if preview is None:
            return cls(budget, shape, None, corrections, continues=continues)
        facts = preview.facts()
        return cls(budget, shape, facts, corrections, preview.examples, lambda: preview.repeats, continues)

    def trained_rows(self, recipe: Recipe) -> int | None:
        """None where no row is left out for what it says, or that is not known."""
        repeats = self.repeats() if needs_repeats(recipe.data) and self.repeats else None
        return None if repeats is None else len(choose(len(repeats), recipe, repeats).training)


@dataclass(frozen=True)
class Case:
    """What decisions are made from. eval_fraction: share of the rows that is not trained. corrections: what runs on
    this PC measured. examples: of the data at a max_length, where a row is not always one (long ones split, or left
    out). trained_rows: where rows are left out for what they say (core/data/repeats)."""

    shape: ModelShape | None
    budget: Budget
    data: DataFacts | None
    goal: Goal | None
    table: VramTable
    eval_fraction: float
    corrections: Corrections = Corrections()
    examples: Callable[[int], int] | None = None
    trained_rows: int | None = None
    continues: bool = False

    @classmethod
    def of(cls, recipe: Recipe, grounds: Grounds) -> Case:
        """Raises RecipeError for a goal that there is not."""
        count, how = grounds.examples, recipe.data.long_examples
        # Also where rows are cut: plain text is split all the same, and a row may be an example for each of its
        # answers.
        examples = partial(_examples, count, how, recipe.data.overlap) if count is not None else None
        return cls(
            grounds.shape,
            grounds.budget,
            grounds.data,
            goal_of(recipe.goal) if recipe.goal else None,
            vram_table(),
            recipe.data.eval_fraction,  # what is kept apart makes no steps
            grounds.corrections or Corrections(),
            examples,
            grounds.trained_rows(recipe),
            grounds.continues,
        )

    @property
    def on_cpu(self) -> bool:
        return self.budget.kind == "cpu"

    @property
    def billions(self) -> float | None:
        return self.shape.params / 1e9 if self.shape else None

    @property
    def family(self) -> Family | None:
        return family_of(self.shape.model_type) if self.shape else None

    @property
    def row(self) -> SizeClass | None:
        return self.table.row_of(self.shape.params) if self.shape else None

    @property
    def size_name(self) -> str | Message:
        """ "7B" for what reads a row of the table, else the count itself, as in "3.2B"."""
        return self.row.name if self.row else msg("advise.size", billions=self.billions or 0)

    @property
    def for_qlora_only(self) -> bool:
        """Whether the document knows QLoRA only: its classes and above, on a card of up to 24 GB as sold."""
        sold = self.budget.sold_gb
        large = self.billions is not None and self.billions >= SMALL_CLASS_BILLIONS
        return large and not self.on_cpu and sold is not None and sold <= self.table.qlora_up_to_gb

    def too_small_for(self, method: Method) -> float | None:
        """The table's minimum in GB, where the card is sold with less; None where the table does not object."""
        minimum, sold = self.table.minimum(self.row, method), self.budget.sold_gb
        return minimum if not self.on_cpu and minimum is not None and sold is not None and sold < minimum else None

    def estimate(self, draft: Recipe) -> Estimate | None:
        """None without a shape. Raises RecipeError for target_modules that the model has not."""
        if self.shape is None:
            return None
        counted = arithmetic.estimate(self.shape, Setup.of(draft, self.budget.kind, self.budget.capability))
        correction = self.corrections.of(draft.adapter.method)
        return correction.apply(counted) if correction else counted

    def holds(self, draft: Recipe) -> bool | None:
        """Whether it fits with its margin by arithmetic alone; None where the model or the free memory is not known."""
        estimate = self.estimate(draft)
        if estimate is None or self.budget.free_gib is None:
            return None
        return estimate.needed_gib <= self.budget.free_gib

    def numbers(self, draft: Recipe) -> dict[str, Any]:
        """What draft needs with its margin and what is free, in GiB, for a sentence."""
        estimate = self.estimate(draft)
        return {"needed": estimate.needed_gib if estimate else None, "free": self.budget.free_gib}


def _examples(count: Callable[[int, LongExamples, int], int], how: LongExamples, overlap: int, max_length: int) -> int:
    return count(max_length, how, overlap)
