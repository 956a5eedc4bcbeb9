"""What a recommendation is made from and what it holds: the case, a reason, an alternative, the whole advice. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from core.advice.goals import Goal
from core.data.facts import DataFacts
from core.memory import arithmetic
from core.memory.arithmetic import Estimate, Setup
from core.memory.budget import Budget
from core.memory.documented import SizeClass, VramTable
from core.memory.record import Correction, Corrections
from core.messages import Message
from core.models.shapes import ModelShape
from core.values import Frozen

Method = Literal["lora", "qlora"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]
METHOD_NAMES: dict[str, str] = {"lora": "LoRA", "qlora": "QLoRA"}
RANKS = (4, 8, 16)
SMALL_CLASS_BILLIONS = 6.0  # the 7B class begins here
USUAL_RATE = 2e-4


class Reason(Frozen):
    """Why a setting has its value. field: a field of Advice (method, r, max_length, ...), "goal" or "budget"."""

    field: str
    text: Message


class Alternative(Frozen):
    """Another way that was weighed: with its own verdict and both numbers in its sentence.

    model: id of a smaller model of presets/models.yaml, where that is the other way.
    """

    method: Method
    max_length: int
    verdict: Verdict
    on_card_gib: float | None
    text: Message
    model: str | None = None


class Documented(Frozen):
    """What the documented table says of this case. row: "7B", "13B", "33B" or None where the table has no row for it."""

    row: str | None = None
    minimum_gb: float | None = None
    rule: Message | None = None


class Advice(Frozen):
    """A complete recommendation. planned_steps and warnings need the data; estimate needs the model's shape."""

    method: Method
    r: int
    lora_alpha: int
    target_modules: str
    max_length: int
    micro_batch: int
    gradient_accumulation: int
    learning_rate: float
    num_train_epochs: float
    max_steps: int
    gradient_checkpointing: bool
    optim: str
    use_dora: bool = False
    lora_dropout: float = 0.0
    load_in_8bit: bool = False
    verdict: Verdict
    reasons: tuple[Reason, ...]
    alternatives: tuple[Alternative, ...] = ()
    documented: Documented = Documented()
    estimate: Estimate | None = None
    correction: Correction | None = None  # of the estimate, by earlier runs on this PC
    planned_steps: int | None = None
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
        """What the arithmetic was asked, but for what is never decided here."""
        names = ("method", "r", "target_modules", "micro_batch", "max_length", "optim", "gradient_checkpointing")
        return Setup(**{name: getattr(self, name) for name in names}, device=self.budget.kind)


@dataclass(frozen=True)
class Draft:
    """The settings while they are being decided: what the person chose, else the cheapest value until its turn comes."""

    method: Method
    max_length: int
    optim: str
    target_modules: str = "all-linear"
    micro_batch: int = 1
    gradient_checkpointing: bool = True
    r: int = RANKS[0]
    lora_alpha: int = 2 * RANKS[0]
    num_train_epochs: float = 3.0
    gradient_accumulation: int = 1
    max_steps: int = -1
    learning_rate: float = 2e-4
    # Never decided here, only chosen; but they cost memory.
    use_dora: bool = False
    lora_dropout: float = 0.0
    load_in_8bit: bool = False


@dataclass(frozen=True)
class Case:
    """What decisions are made from. eval_fraction: share of the rows that is not trained. corrections: what runs on this PC
    measured. examples: of the data at a max_length, where a row is not always one (long ones split, or left out). trained_rows:
    where rows are left out for what they say (core/data/repeats)."""

    shape: ModelShape | None
    budget: Budget
    data: DataFacts | None
    goal: Goal | None
    table: VramTable
    eval_fraction: float
    corrections: Corrections = Corrections()
    examples: Callable[[int], int] | None = None
    trained_rows: int | None = None

    @property
    def on_cpu(self) -> bool:
        return self.budget.kind == "cpu"

    @property
    def billions(self) -> float | None:
        return self.shape.params / 1e9 if self.shape else None

    @property
    def row(self) -> SizeClass | None:
        return self.table.row_of(self.shape.params) if self.shape else None

    @property
    def size_name(self) -> str:
        """ "7B" for what reads a row of the table, else the count itself, as in "3.2B"."""
        return self.row.name if self.row else f"{self.billions or 0:.2g}B"

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

    def setup(self, draft: Draft) -> Setup:
        return Setup(
            method=draft.method,
            r=draft.r,
            target_modules=draft.target_modules,
            micro_batch=draft.micro_batch,
            max_length=draft.max_length,
            optim=draft.optim,
            gradient_checkpointing=draft.gradient_checkpointing,
            device=self.budget.kind,
            use_dora=draft.use_dora,
            lora_dropout=draft.lora_dropout,
            load_in_8bit=draft.load_in_8bit,
        )

    def estimate(self, draft: Draft) -> Estimate | None:
        """None without a shape. Raises RecipeError for target_modules that the model has not."""
        if self.shape is None:
            return None
        counted, correction = arithmetic.estimate(self.shape, self.setup(draft)), self.corrections.of(draft.method)
        return correction.apply(counted) if correction else counted

    def holds(self, draft: Draft) -> bool | None:
        """Whether it fits with its margin by arithmetic alone; None where the model or the free memory is not known."""
        estimate = self.estimate(draft)
        if estimate is None or self.budget.free_gib is None:
            return None
        return estimate.needed_gib <= self.budget.free_gib

    def numbers(self, draft: Draft) -> dict[str, Any]:
        """What draft needs with its margin and what is free, in GiB, for a sentence."""
        estimate = self.estimate(draft)
        return {"needed": estimate.needed_gib if estimate else None, "free": self.budget.free_gib}
