"""The types of a recommendation: the case it is made for, a reason, an alternative, the whole advice. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from core.advice.family import Family, family_of
from core.advice.goals import Goal, goal_of
from core.data.facts import DataFacts
from core.data.labels import LongExamples
from core.data.preview import Preview
from core.data.repeats import Repeats, needs_repeats
from core.data.selection import choose
from core.data.sets.paragraphs import Paragraphs
from core.memory import arithmetic
from core.memory.arithmetic import Estimate
from core.memory.budget import Budget
from core.memory.documented import SizeClass, VramTable, vram_table
from core.memory.record import Correction, Corrections
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.recipe import NO_DATA, Recipe, Train
from core.values import Frozen

Method = Literal["lora", "qlora"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]
METHOD_NAMES: dict[str, str] = {"lora": "LoRA", "qlora": "QLoRA"}
RANKS = (4, 8, 16)
SMALL_CLASS_BILLIONS = 6.0  # the 7B class begins here
USUAL_RATE: float = Train.model_fields["learning_rate"].default


def open_recipe(goal: str | None = None) -> Recipe:
    """Return a recipe in which everything is open except the goal."""
    return Recipe.parse({"goal": goal, "data": {"source": NO_DATA}})


class Reason(Frozen):
    """The reason for the value of a setting. field: a name of SETTINGS, "verdict", "goal" or "budget"."""

    field: str
    text: Message


class Alternative(Frozen):
    """Another way to train, with its own verdict, and both numbers in its sentence.

    model: id of a smaller model of presets/models.yaml, if that is the other way; offload_layers: how many of this one
    are offloaded. shards: GPUs that hold the base together.
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
    """The documented table's entry for this case. row: "7B", "13B", "33B", or None for a size that it has no row
    for."""

    row: str | None = None
    minimum_gb: float | None = None
    rule: Message | None = None


class Advice(Frozen):
    """A complete recommendation.

    recipe: the request with its open settings filled; reasons: one for each. planned_steps and warnings need the data;
    estimate needs the model's shape.
    """

    recipe: Recipe
    verdict: Verdict
    reasons: tuple[Reason, ...]
    alternatives: tuple[Alternative, ...] = ()
    documented: Documented = Documented()
    estimate: Estimate | None = None
    correction: Correction | None = None  # of the estimate, by earlier runs on this PC
    planned_steps: int | None = None
    bus_seconds: float | None = None  # for copying offloaded layers in all steps, at the assumed speed
    usual_rate: float = USUAL_RATE  # for a model of this size, whatever was chosen
    warnings: tuple[Message, ...] = ()
    budget: Budget

    @property
    def factor(self) -> float:
        """Memory measured by earlier runs on this PC, relative to the arithmetic; 1.0 if no run was measured."""
        return self.correction.factor if self.correction else 1.0

    @property
    def arithmetic_gib(self) -> float | None:
        """Memory on the GPU by the arithmetic alone, not corrected by earlier runs; None if unknown."""
        return self.estimate.on_card_gib / self.factor if self.estimate else None

    @property
    def setup(self) -> Setup:
        """The input of the memory arithmetic."""
        return Setup.from_recipe(self.recipe, self.budget.kind, self.budget.capability)


@dataclass(frozen=True)
class Grounds:
    """The known facts that advice is based on. shape and data are None if unknown: then there is less advice.

    corrections: memory measured by runs of this model on this PC. examples(max_length, long_examples, overlap): number
    of training examples in the data (counted by core.data.preview). repeats: repeated rows, read only if the recipe
    leaves such rows out. continues: whether the run starts from another run's adapter. own: which
    rows the dataset itself keeps for validation. paragraphs: of texts, if they are joined.
    """

    budget: Budget
    shape: ModelShape | None = None
    data: DataFacts | None = None
    corrections: Corrections | None = None
    examples: Callable[[int, LongExamples, int], int] | None = None
    repeats: Callable[[], Repeats | None] | None = None
    continues: bool = False
    own: np.ndarray | None = None
    paragraphs: Paragraphs | None = None

    @classmethod
    def from_preview(
        cls,
        budget: Budget,
        shape: ModelShape | None,
        preview: Preview | None,
        corrections: Corrections | None,
        continues: bool,
    ) -> Grounds:
        """Return the grounds with all that the data's preview knows; without a preview, those without facts of the
        data."""
        if preview is None:
            return cls(budget, shape, None, corrections, continues=continues)
        facts = preview.facts()
        own = preview.validation
        return cls(
            budget,
            shape,
            facts,
            corrections,
            preview.examples,
            lambda: preview.repeats,
            continues,
            own,
            preview.paragraphs,
        )

    def trained_rows(self, recipe: Recipe) -> int | None:
        """Return the number of rows that are trained, if the recipe leaves out rows for their contents (repeats, leaks)
        or joins texts; None for any other recipe, or if the rows are unknown."""
        repeats = self.repeats() if needs_repeats(recipe.data) and self.repeats else None
        rows = len(repeats) if repeats is not None else len(self.paragraphs.joint) if self.paragraphs is not None else 0
        return len(choose(rows, recipe, repeats, self.own, self.paragraphs).training) if rows else None


@dataclass(frozen=True)
class Case:
    """The facts that decisions are made from.

    eval_fraction: share of the rows for validation. corrections: memory measured on this PC. examples: number of
    examples at a max_length, if a row is not always one (long rows split, or left out). trained_rows: if rows are left
    out for their contents (core/data/repeats).
    """

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
    def from_recipe(cls, recipe: Recipe, grounds: Grounds) -> Case:
        """Return the case of a recipe: grounds with its goal and the numbers of its rows. Raises RecipeError for an
        unknown goal."""
        trained_rows = grounds.trained_rows(recipe)
        count, how = grounds.examples, recipe.data.long_examples
        # Even if rows are cut: plain text is still split, and a row may be an example for each of its answers.
        examples = partial(_examples, count, how, recipe.data.overlap) if count is not None else None
        return cls(
            grounds.shape,
            grounds.budget,
            grounds.data,
            goal_of(recipe.goal) if recipe.goal else None,
            vram_table(),
            recipe.data.eval_fraction,  # validation rows make no steps
            grounds.corrections or Corrections(),
            examples,
            trained_rows,
            grounds.continues,
        )

    @property
    def on_cpu(self) -> bool:
        return self.budget.kind == "cpu"

    @property
    def billions(self) -> float | None:
        """The model's parameters in billions; None if unknown."""
        return self.shape.params / 1e9 if self.shape else None

    @property
    def family(self) -> Family | None:
        """The model's family in presets/families.yaml, or None."""
        return family_of(self.shape.model_type) if self.shape else None

    @property
    def row(self) -> SizeClass | None:
        """The model's size class in the documented VRAM table, or None."""
        return self.table.row_of(self.shape.params) if self.shape else None

    @property
    def size_name(self) -> str | Message:
        """ "7B" for a size in the table, else the count itself, as in "3.2B"."""
        return self.row.name if self.row else msg("advise.size", billions=self.billions or 0)

    @property
    def for_qlora_only(self) -> bool:
        """True if the documented VRAM table recommends QLoRA alone: for a model of at least SMALL_CLASS_BILLIONS
        parameters on a GPU sold with at most the table's limit (24 GB). False on a CPU, or if the model or the GPU's
        size is unknown."""
        sold = self.budget.sold_gb
        large = self.billions is not None and self.billions >= SMALL_CLASS_BILLIONS
        return large and not self.on_cpu and sold is not None and sold <= self.table.qlora_up_to_gb

    def too_small_for(self, method: Method) -> float | None:
        """Return the least memory in GB that the documented table gives for this model's size class and method, if the
        GPU is sold with less. None if the GPU has enough, on a CPU, or if either number is unknown."""
        minimum, sold = self.table.minimum(self.row, method), self.budget.sold_gb
        return minimum if not self.on_cpu and minimum is not None and sold is not None and sold < minimum else None

    def estimate(self, draft: Recipe) -> Estimate | None:
        """Return the corrected estimate; None without a shape. Raises RecipeError for target_modules that the model
        lacks."""
        if self.shape is None:
            return None
        counted = arithmetic.estimate(self.shape, Setup.from_recipe(draft, self.budget.kind, self.budget.capability))
        correction = self.corrections.for_method(draft.adapter.method)
        return correction.apply(counted) if correction else counted

    def fits(self, draft: Recipe) -> bool | None:
        """Return whether draft with its margin fits into the budget's free memory, by the corrected estimate and not by
        the table; None if the model or the free memory is unknown."""
        estimate = self.estimate(draft)
        if estimate is None or self.budget.free_gib is None:
            return None
        return estimate.needed_gib <= self.budget.free_gib

    def numbers(self, draft: Recipe) -> dict[str, object]:
        """Return the memory that a draft needs and the memory that is free, as values for a sentence.

        Both are in GiB of the memory of the device that trains: `needed` with the draft's margin, None if the model's
        shape is unknown; `free`, None if unknown. Raises RecipeError as `estimate`.
        """
        estimate = self.estimate(draft)
        return {"needed": estimate.needed_gib if estimate else None, "free": self.budget.free_gib}


def _examples(count: Callable[[int, LongExamples, int], int], how: LongExamples, overlap: int, max_length: int) -> int:
    """Return count's number of training examples with its arguments in another order, so that max_length can stay
    open."""
    return count(max_length, how, overlap)
