"""The recommendation: LoRA or QLoRA, rank, lengths, batches, learning rate; each with its reason. No torch.

Rules of the documented table first, arithmetic (core/memory/arithmetic) second; `../shared/design.md` section 5 says how they combine,
`../shared/memory/README.md` section 7 where the numbers for rank, learning rate and batches come from. Memory is spent in
the order of DECISIONS: each is made on a draft that holds those before it, and cheap values for those after it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from core.data import schedule
from core.data.facts import DataFacts
from core.memory import arithmetic
from core.memory.arithmetic import Estimate, Setup
from core.memory.budget import Budget
from core.memory.documented import Row, VramTable
from core.memory.record import Correction, Corrections
from core.messages import Text, text
from core.models.shapes import ModelShape
from core.presets import Goal, KnownModel, known_models, vram_table
from core.recipe import Data

Method = Literal["lora", "qlora"]
Verdict = Literal["fits", "tight", "does_not_fit", "unknown"]

METHOD_NAMES: dict[str, str] = {"lora": "LoRA", "qlora": "QLoRA"}
RANKS = (4, 8, 16)
USUAL_RANK = 8
MICRO_BATCHES = (4, 2, 1)
LENGTH_STEP = 64  # tokens
GUESS_MARGIN = 2.5  # SmolLM2 on the three sample sets: real lengths are 1.3 times the guess; on Chinese up to twice and more
LENGTH_WITHOUT_DATA, SHORTEST_WITHOUT_DATA = 512, 256  # tokens
LONG = 4096  # tokens; from here on the document's "long-sequence task" is worth a word
FEW_ROWS = 50
FEWEST_STEPS = 20
SHORT_RUN_STEPS = 100
SMALL_CLASS_BILLIONS = 6.0  # the 7B class begins here
SLOW_ON_CPU_BILLIONS = 1.0
USUAL_RATE = 2e-4


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Reason(_Value):
    """Why a setting has its value. field: a field of Advice (method, r, max_length, ...), "goal" or "budget"."""

    field: str
    text: Text


class Alternative(_Value):
    """Another way that was weighed: with its own verdict and both numbers in its sentence.

    model: id of a smaller model of presets/models.yaml, where that is the other way.
    """

    method: Method
    max_length: int
    verdict: Verdict
    on_card_gib: float | None
    text: Text
    model: str | None = None


class Documented(_Value):
    """What the documented table says of this case. row: "7B", "13B", "33B" or None where the table has no row for it."""

    row: str | None = None
    minimum_gb: float | None = None
    rule: Text | None = None


class Advice(_Value):
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
    warnings: tuple[Text, ...] = ()
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
    def row(self) -> Row | None:
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


def recommend(
    shape: ModelShape | None,
    budget: Budget,
    data: DataFacts | None = None,
    goal: Goal | None = None,
    chosen: Mapping[str, Any] | None = None,
    corrections: Corrections | None = None,
    examples: Callable[[int], int] | None = None,
    trained_rows: int | None = None,
) -> Advice:
    """The recommendation for a model on a budget; what is not known (None) is said and not guessed.

    chosen: what the person decided, by the names of Advice's fields (and eval_fraction, which steps depend on); it is
    kept, with its verdict, and its reason says that it was chosen. corrections, examples, trained_rows: see Case. Raises RecipeError for
    target_modules that the model has not.
    """
    chosen = dict(chosen or {})
    eval_fraction = chosen.get("eval_fraction", Data.model_fields["eval_fraction"].default)
    table = vram_table()
    case = Case(shape, budget, data, goal, table, eval_fraction, corrections or Corrections(), examples, trained_rows)
    draft, reasons = decide(case, {name: value for name, value in chosen.items() if name in DRAFT_FIELDS})
    verdict, why = judge(case, draft)
    others = alternatives(case, draft, verdict)
    ground = [Reason(field="goal", text=text("advise.said", **goal.why))] if goal and goal.suitable else []
    if budget.planned:
        ground.append(Reason(field="budget", text=text("advise.planned_card", gb=budget.sold_gb, reserve=budget.reserve_gib,
                                                       free=budget.free_gib)))  # fmt: skip
    return Advice(
        **{name: getattr(draft, name) for name in DRAFT_FIELDS},
        verdict=verdict,
        reasons=(*ground, Reason(field="verdict", text=why), *reasons),
        alternatives=others,
        documented=documented(case, draft),
        estimate=case.estimate(draft),
        correction=case.corrections.of(draft.method) if shape else None,
        planned_steps=planned_steps(case, draft),
        usual_rate=usual_rate(case.billions),
        warnings=tuple(warnings(case, draft, verdict, others)),
        budget=budget,
    )


def decide(case: Case, chosen: Mapping[str, Any]) -> tuple[Draft, list[Reason]]:
    """All settings, one after the other, and why each has its value."""
    cheapest = "lora" if case.on_cpu else "qlora"
    draft = replace(Draft(cheapest, wanted_length(case), optimizer(case)[0]), **chosen)
    reasons = []
    for name, decision in DECISIONS.items():
        if name in chosen:
            reasons.append(Reason(field=name, text=text("advise.chosen")))
            continue
        value, why = decision(case, draft)
        draft = replace(draft, **{name: value})
        reasons.append(Reason(field=name, text=why))
    if "micro_batch" not in chosen:  # its numbers once more: the rank came after it, and costs memory
        value, why = micro_batch(case, draft)
        if value == draft.micro_batch:
            reasons = [Reason(field="micro_batch", text=why) if reason.field == "micro_batch" else reason for reason in reasons]
    reasons += [Reason(field=name, text=cost(case, draft, name)) for name in COSTS if getattr(draft, name)]
    if "max_steps" in chosen:
        reasons.append(Reason(field="max_steps", text=text("advise.chosen")))
    return draft, sorted(reasons, key=lambda reason: list(Advice.model_fields).index(reason.field))


# ---- the decisions ----------------------------------------------------------------------------------------------------


def optimizer(case: Case, draft: Draft | None = None) -> tuple[str, Text]:
    return ("adamw_torch", text("advise.optim_cpu")) if case.on_cpu else ("paged_adamw_8bit", text("advise.optim_card"))


def wanted_length(case: Case) -> int:
    """Tokens that cover 99 of 100 examples, rounded up; never beyond what the model can read."""
    wanted = max(LENGTH_STEP, _rounded_up(long_example(case.data))) if case.data else LENGTH_WITHOUT_DATA
    readable = case.shape.max_position_embeddings if case.shape else None
    return min(wanted, readable) if readable else wanted


def long_example(data: DataFacts) -> int:
    """Tokens that 99 of 100 examples have at most; with room to spare where they were only guessed.

    A cut example loses its end, and with it the token that teaches a model to stop: rather too long than too short.
    """
    return math.ceil(data.p99_length * (GUESS_MARGIN if data.estimated else 1))


def max_length(case: Case, draft: Draft) -> tuple[int, Text]:
    """The wanted length; less where only less fits, but never so short that more than 1 of 100 examples is cut."""
    wanted, numbers = draft.max_length, case.numbers(draft)
    value = wanted
    if case.holds(draft) is False:
        value = longest_that_holds(case, draft, shortest_acceptable(case)) or wanted
    if value < wanted:
        why = text("advise.length_that_fits", value=value, wanted=wanted, **numbers)
    elif case.data is None:
        why = text("advise.length_without_data", value=value)
    elif value < case.data.p99_length:
        why = text("advise.length_of_model", value=value, p99=case.data.p99_length)
    else:
        key = "advise.length_of_guess" if case.data.estimated else "advise.length_of_data"
        why = text(key, p99=case.data.p99_length, value=value)
    return value, why


def shortest_acceptable(case: Case) -> int:
    return min(case.data.p99_length if case.data else SHORTEST_WITHOUT_DATA, wanted_length(case))


def longest_that_holds(case: Case, draft: Draft, shortest: int) -> int | None:
    """The largest multiple of 64 in [shortest, draft.max_length) that fits with its margin, else shortest, else None."""
    low, high = shortest // LENGTH_STEP, (draft.max_length - 1) // LENGTH_STEP  # low holds or is below shortest
    while low < high:
        middle = (low + high + 1) // 2
        if case.holds(replace(draft, max_length=middle * LENGTH_STEP)):
            low = middle
        else:
            high = middle - 1
    found = max(low * LENGTH_STEP, shortest)
    return found if found < draft.max_length and case.holds(replace(draft, max_length=found)) else None


def few_targets(shape: ModelShape | None) -> str:
    """Query and value alone, as the LoRA paper had it; where a family has them in one matrix, that one."""
    names = [matrix.name for matrix in shape.attention_matrices] if shape else []
    return "q_proj,v_proj" if not names or {"q_proj", "v_proj"} <= set(names) else names[0]


def target_modules(case: Case, draft: Draft) -> tuple[str, Text]:
    """Every linear layer, as the QLoRA paper found to matter most; q and v alone where only that fits."""
    fewer = replace(draft, target_modules=few_targets(case.shape))
    if case.holds(draft) is False and case.holds(fewer):
        return fewer.target_modules, text("advise.targets_that_fit", **case.numbers(draft))
    return "all-linear", text("advise.targets_all")


def method(case: Case, draft: Draft) -> tuple[Method, Text]:
    """Design section 5, rules 1, 2 and 8."""
    lora = replace(draft, method="lora")
    facts = {"size": case.size_name, "gb": case.budget.sold_gb, **case.numbers(lora)}
    if case.on_cpu:
        return "lora", text("advise.lora_on_cpu")
    if case.shape is None:
        return "qlora", text("advise.qlora_unknown_model")
    if case.for_qlora_only:
        return "qlora", text("advise.qlora_documented", limit=case.table.qlora_up_to_gb, **facts)
    if minimum := case.too_small_for("lora"):
        return "qlora", text("advise.qlora_below_minimum", minimum=minimum, **facts)
    holds = case.holds(lora)
    if holds is None:
        return "qlora", text("advise.qlora_unknown_memory")
    if not holds:
        return "qlora", text("advise.qlora_lora_too_large", **facts)
    if case.row and case.budget.sold_gb is not None:
        return "lora", text("advise.lora_documented", minimum=case.row.lora.minimum_gb, **facts)
    return "lora", text("advise.lora_fits", **facts)


def effective_batch(case: Case) -> int:
    """Examples in one correction. Few rows need many small steps; README section 7 takes 16 (8 to 32) otherwise."""
    rows = case.data.rows if case.data else None
    return 16 if rows is None or rows >= 1000 else 8 if rows >= 200 else 4


def micro_batch(case: Case, draft: Draft) -> tuple[int, Text]:
    """4, 2 or 1, whichever fits; 8 only pads more."""
    useful = [size for size in MICRO_BATCHES if size <= effective_batch(case)]
    value = next((size for size in useful if case.holds(replace(draft, micro_batch=size))), 1)
    if case.holds(draft) is None:
        return 1, text("advise.batch_unknown")
    if value == useful[0]:
        return value, text("advise.batch_fits", value=value, **case.numbers(replace(draft, micro_batch=value)))
    too_many = useful[useful.index(value) - 1]
    return value, text("advise.batch_that_fits", more=too_many, **case.numbers(replace(draft, micro_batch=too_many)))


def checkpointing(case: Case, draft: Draft) -> tuple[bool, Text]:
    """Off where the memory suffices without it, for it costs a third of the time; whatever else needs memory comes first."""
    without = replace(draft, gradient_checkpointing=False)
    if case.holds(without):
        return False, text("advise.checkpointing_off", **case.numbers(without))
    known = case.holds(without) is not None
    return True, text("advise.checkpointing_needed", **case.numbers(without)) if known else text("advise.checkpointing_unknown")


def rank(case: Case, draft: Draft) -> tuple[int, Text]:
    """Design section 5, rule 4: at least as many parameters as answer tokens (the capacity rule of Tinker's documentation)."""
    wanted, why = wanted_rank(case, draft)
    value = wanted
    while value > RANKS[0] and case.holds(replace(draft, r=value)) is False:
        value = max(r for r in RANKS if r < value)
    if case.holds(replace(draft, r=value)) is False:
        return value, text("advise.rank_least", **case.numbers(replace(draft, r=value)))
    if value < wanted:
        why = text("advise.rank_that_fits", wanted=wanted, **case.numbers(replace(draft, r=wanted)))
    return value, why


def wanted_rank(case: Case, draft: Draft) -> tuple[int, Text]:
    floor = case.goal.r_floor if case.goal else USUAL_RANK
    least = text("advise.least_of_goal" if case.goal else "advise.least_usual", floor=floor)
    if case.data is None:
        return floor, text("advise.rank_without_data", least=least)
    if case.data.rows < FEW_ROWS:
        return RANKS[0], text("advise.rank_few_rows", rows=case.data.rows, few=FEW_ROWS)
    if case.shape is None:
        return floor, text("advise.rank_unknown_model", least=least)
    enough = next((r for r in RANKS if _capacity(case.shape, draft, r) >= case.data.learned_tokens), None)
    value = max(floor, enough or RANKS[-1])
    facts = {"tokens": case.data.learned_tokens, "params": _capacity(case.shape, draft, value)}
    if enough is None:
        return value, text("advise.rank_too_small", **facts)
    if enough < floor:
        return value, text("advise.rank_of_floor", least=least, **facts)
    return value, text("advise.rank_of_tokens", **facts)


def alpha(case: Case, draft: Draft) -> tuple[int, Text]:
    return 2 * draft.r, text("advise.alpha", r=draft.r)


def epochs(case: Case, draft: Draft) -> tuple[float, Text]:
    """Few rows are read more often, many tokens less often (README section 7)."""
    data = case.data
    if data is None:
        return 3.0, text("advise.epochs_without_data")
    if data.tokens > 5_000_000:
        return 1.0, text("advise.epochs_many_tokens", tokens=data.tokens, limit=5_000_000)
    if data.tokens > 1_000_000:
        return 2.0, text("advise.epochs_many_tokens", tokens=data.tokens, limit=1_000_000)
    if data.rows < 200:
        return 5.0, text("advise.epochs_few_rows", rows=data.rows, limit=200)
    return 3.0, text("advise.epochs_usual", rows=data.rows, tokens=data.tokens)


def accumulation(case: Case, draft: Draft) -> tuple[int, Text]:
    wanted = effective_batch(case)
    value = max(1, round(wanted / draft.micro_batch))
    facts = {"micro": draft.micro_batch, "effective": draft.micro_batch * value, "value": value}
    if case.data is None:
        return value, text("advise.accumulation_without_data", **facts)
    return value, text("advise.accumulation", rows=case.data.rows, **facts)


def learning_rate(case: Case, draft: Draft) -> tuple[float, Text]:
    """1e-3 below 1B: measured with the starter (README, three sets, 20 of 20). The others: README section 7."""
    usual = usual_rate(case.billions)
    if usual != USUAL_RATE:
        return usual, text(f"advise.rate_{'small' if usual > USUAL_RATE else 'large'}_model", size=case.size_name)
    steps = planned_steps(case, draft)
    if steps is not None and steps <= SHORT_RUN_STEPS:
        return 3e-4, text("advise.rate_short_run", steps=steps, limit=SHORT_RUN_STEPS)
    return usual, text("advise.rate_usual")


def usual_rate(billions: float | None) -> float:
    """By the size of the model alone."""
    if billions is not None and billions < 1:
        return 1e-3
    return 1e-4 if billions is not None and billions >= 20 else USUAL_RATE


DECISIONS: dict[str, Callable[[Case, Draft], tuple[Any, Text]]] = {
    "optim": optimizer,
    "max_length": max_length,
    "target_modules": target_modules,
    "method": method,
    "micro_batch": micro_batch,
    "r": rank,
    "gradient_checkpointing": checkpointing,
    "lora_alpha": alpha,
    "num_train_epochs": epochs,
    "gradient_accumulation": accumulation,
    "learning_rate": learning_rate,
}
DRAFT_FIELDS = tuple(field.name for field in fields(Draft))


# Chosen by nobody but the person, for they cost memory or time; what they cost here is said. name: key with a number, without.
COSTS = {
    "use_dora": ("advise.dora_costs", "advise.dora_costs_unknown"),
    "load_in_8bit": ("advise.int8_saves", "advise.int8_unknown"),
}


def cost(case: Case, draft: Draft, name: str) -> Text:
    """What the plan needs with a variant, and without it."""
    known, unknown = COSTS[name]
    estimate, without = case.estimate(draft), case.estimate(replace(draft, **{name: False}))
    if estimate is None or without is None:
        return text(unknown)
    return text(known, needed=estimate.on_card_gib, without=without.on_card_gib)


# ---- what follows from them -------------------------------------------------------------------------------------------


def judge(case: Case, draft: Draft) -> tuple[Verdict, Text]:
    """Design section 5, rule 3: the arithmetic, and the table's minimum for the card."""
    estimate, free = case.estimate(draft), case.budget.free_gib
    if estimate is None:
        return "unknown", text("advise.unknown_model")
    facts = {"needed": estimate.needed_gib, "bare": estimate.on_card_gib, "margin": estimate.margin, "free": free}
    if free is None:
        return "unknown", text("advise.unknown_memory", **facts)
    if estimate.on_card_gib > free:
        return "does_not_fit", text("advise.does_not_fit", **facts)
    if estimate.needed_gib > free:
        return "tight", text("advise.tight", **facts)
    # The table's LoRA has a base in 16 bit.
    if not draft.load_in_8bit and (minimum := case.too_small_for(draft.method)):
        return "tight", text("advise.tight_by_table", minimum=minimum, gb=case.budget.sold_gb, **facts)
    return "fits", text("advise.fits", **facts)


def alternatives(case: Case, draft: Draft, verdict: Verdict) -> tuple[Alternative, ...]:
    """The other method always; where draft does not fit, what would: QLoRA, a shorter max_length, a smaller model."""
    if case.shape is None:
        return ()
    swapped = replace(draft, method="qlora") if draft.method == "lora" else replace(draft, method="lora", micro_batch=1)
    other = _alternative(case, swapped)
    if verdict != "does_not_fit":
        return (other,)
    ways = [shorter(case, draft), smaller(case, draft)]
    helping = [way for way in ways if way is not None]
    return (other, *helping) if other.verdict in ("fits", "tight") else (*helping, other)


def shorter(case: Case, draft: Draft) -> Alternative | None:
    """A chosen max_length made shorter, with the cheapest method; never below what the data needs."""
    cheapest = replace(draft, method="lora" if case.on_cpu else "qlora", micro_batch=1)
    length = longest_that_holds(case, cheapest, shortest_acceptable(case))
    return _alternative(case, replace(cheapest, max_length=length)) if length else None


def smaller(case: Case, draft: Draft) -> Alternative | None:
    """The largest model that is known and fits, with the method that it would be given here."""
    assert case.shape is not None
    below = [
        known
        for known in known_models()
        if known.shape.params < case.shape.params and (known.shape.max_position_embeddings or 0) >= draft.max_length
    ]
    for known in sorted(below, key=lambda known: known.shape.params, reverse=True):
        other = replace(case, shape=known.shape, corrections=case.corrections.for_another_model)
        plain = replace(draft, method="lora" if case.on_cpu else "qlora", target_modules="all-linear", micro_batch=1)
        way = replace(plain, method=method(other, plain)[0])
        if judge(other, way)[0] == "fits":
            return _alternative(other, way, known)
    return None


def _alternative(case: Case, draft: Draft, known: KnownModel | None = None) -> Alternative:
    verdict, why = judge(case, draft)
    estimate = case.estimate(draft)
    facts = {"method": METHOD_NAMES[draft.method], "max_length": draft.max_length, "verdict": why}
    if known:
        sentence = text("advise.smaller_model", model=known.title, billions=known.shape.params / 1e9, **facts)
    elif case.on_cpu and draft.method == "qlora":
        sentence = text("advise.qlora_on_cpu", **facts)
    else:
        minimum = case.table.minimum(case.row, draft.method)
        table = text("advise.table_minimum", minimum=minimum) if minimum and not case.on_cpu else ""
        sentence = text("advise.alternative", micro=draft.micro_batch, table=table, **facts)
    return Alternative(
        method=draft.method,
        max_length=draft.max_length,
        verdict=verdict,
        on_card_gib=estimate.on_card_gib if estimate else None,
        text=sentence,
        model=known.id if known else None,
    )


def documented(case: Case, draft: Draft) -> Documented:
    if case.on_cpu:
        rule = text("advise.table_of_cards")
    elif case.for_qlora_only:
        rule = case.table.rule("small_card")
    elif case.billions is not None and case.billions >= SMALL_CLASS_BILLIONS:
        rule = case.table.rule("enough_memory")
    else:
        rule = None
    row = case.row
    return Documented(row=row.name if row else None, minimum_gb=case.table.minimum(row, draft.method), rule=rule)


def planned_steps(case: Case, draft: Draft) -> int | None:
    """Optimizer steps as core/data/schedule counts them; None without data where max_steps does not say."""
    if draft.max_steps > 0:
        return draft.max_steps
    if case.data is None:
        return None
    return _schedule(case, case.data, draft).total_steps


def _schedule(case: Case, data: DataFacts, draft: Draft) -> schedule.Schedule:
    rows = _trained_rows(data.rows, case.eval_fraction) if case.trained_rows is None else max(1, case.trained_rows)
    if case.examples is not None:
        rows = max(1, round(rows * case.examples(draft.max_length) / max(1, data.rows)))
    lengths = (0,) * rows  # the count of steps does not ask how long rows are
    return schedule.Schedule(lengths, draft.micro_batch, draft.gradient_accumulation, draft.num_train_epochs, draft.max_steps, 0)


@lru_cache(maxsize=16)
def _trained_rows(rows: int, eval_fraction: float) -> int:
    return len(schedule.split(rows, eval_fraction, seed=0)[0])


# ---- warnings ---------------------------------------------------------------------------------------------------------


def warnings(case: Case, draft: Draft, verdict: Verdict, others: tuple[Alternative, ...]) -> list[Text]:
    """What a person should know before Start, gravest first."""
    found = [*goal_warnings(case), *memory_warnings(case, draft, verdict, others), *data_warnings(case, draft)]
    return [warning for warning in found if warning is not None]


def goal_warnings(case: Case) -> list[Text | None]:
    if case.goal is None or case.goal.suitable:
        return []
    parts = {"title": case.goal.title, "why": case.goal.why, "instead": case.goal.instead or {}}
    return [text("advise.unsuitable_goal", **{name: text("advise.said", **said) for name, said in parts.items()})]


def memory_warnings(case: Case, draft: Draft, verdict: Verdict, others: tuple[Alternative, ...]) -> list[Text | None]:
    if case.shape is None:
        return [text("advise.warn_unknown_model")]
    return [
        nothing_fits(case, draft, verdict, others),
        would_cut(case, draft, verdict),
        above_table(case, case.shape),
        low_confidence(case, draft),
        text("advise.warn_slow_on_cpu", billions=case.billions) if case.on_cpu and case.billions > SLOW_ON_CPU_BILLIONS else None,
        cpu_in_32_bit(case, case.shape, draft, verdict),
    ]


def nothing_fits(case: Case, draft: Draft, verdict: Verdict, others: tuple[Alternative, ...]) -> Text | None:
    if verdict != "does_not_fit" or any(other.verdict in ("fits", "tight") for other in others):
        return None
    return text("advise.warn_nothing_fits", verdict=judge(case, draft)[1])


def would_cut(case: Case, draft: Draft, verdict: Verdict) -> Text | None:
    """A max_length that fits but is shorter than the data needs is never advised; the person is told of it."""
    if verdict != "does_not_fit" or case.data is None:
        return None
    length = longest_that_holds(case, replace(draft, micro_batch=1), LENGTH_STEP)
    return text("advise.warn_would_cut", value=length) if length and length < case.data.p99_length else None


def above_table(case: Case, shape: ModelShape) -> Text | None:
    largest = case.table.rows[-1].billions[1]
    billions = shape.params / 1e9
    return text("advise.warn_above_table", billions=billions, largest=largest) if round(billions, 1) > largest else None


def low_confidence(case: Case, draft: Draft) -> Text | None:
    estimate = case.estimate(draft)
    if estimate is None or not estimate.low_confidence:
        return None
    return text("advise.warn_low_confidence", margin=estimate.margin, why=list(estimate.low_confidence))


def cpu_in_32_bit(case: Case, shape: ModelShape, draft: Draft, verdict: Verdict) -> Text | None:
    """The plan reckons with a 16-bit base; processors without bfloat16 instructions train an fp32 one (facts, section 15)."""
    if not case.on_cpu or verdict not in ("fits", "tight") or case.budget.free_gib is None:
        return None
    needed = arithmetic.estimate(shape, case.setup(draft).model_copy(update={"base_bytes": 4})).needed_gib
    return text("advise.warn_cpu_in_32_bit", needed=needed, free=case.budget.free_gib) if needed > case.budget.free_gib else None


def data_warnings(case: Case, draft: Draft) -> list[Text | None]:
    readable = case.shape.max_position_embeddings if case.shape else None
    beyond = text("advise.warn_beyond_model", value=draft.max_length, readable=readable)
    found = [beyond if readable and draft.max_length > readable else None]
    if case.data is None:
        return found
    return [
        *found,
        text("advise.warn_estimated_lengths") if case.data.estimated else None,
        cut_rows(case.data, draft.max_length),
        few_steps(case, case.data, draft),
        capacity(case, case.data, draft),
        text("advise.warn_long_texts", value=draft.max_length) if draft.method == "qlora" and draft.max_length >= LONG else None,
    ]


def cut_rows(data: DataFacts, length: int) -> Text | None:
    """How many rows are longer than length, as far as median, 99 of 100 and longest tell."""
    if data.longest <= length:
        return None
    facts = {"rows": data.rows, "longest": data.longest, "value": length}
    if length < data.median_length:
        return text("advise.warn_most_cut", median=data.median_length, **facts)
    if length < data.p99_length:
        return text("advise.warn_many_cut", p99=data.p99_length, **facts)
    return text("advise.warn_few_cut", count=max(1, data.rows - 1 - int(0.99 * data.rows)), **facts)


def few_steps(case: Case, data: DataFacts, draft: Draft) -> Text | None:
    steps = planned_steps(case, draft)
    if steps is None or steps >= FEWEST_STEPS:
        return None
    if draft.max_steps > 0:
        return text("advise.warn_few_max_steps", steps=steps, least=FEWEST_STEPS)
    epochs_needed = math.ceil(FEWEST_STEPS / max(1, _schedule(case, data, draft).steps_per_epoch))
    return text("advise.warn_few_steps", steps=steps, least=FEWEST_STEPS, epochs=epochs_needed)


def capacity(case: Case, data: DataFacts, draft: Draft) -> Text | None:
    """Where the adapter has fewer parameters than there are answer tokens."""
    if case.shape is None or (params := _capacity(case.shape, draft, draft.r)) >= data.learned_tokens:
        return None
    return text("advise.warn_capacity", r=draft.r, params=params, tokens=data.learned_tokens)


def _capacity(shape: ModelShape, draft: Draft, r: int) -> int:
    return shape.lora_params(r, draft.target_modules)


def _rounded_up(tokens: int) -> int:
    return -(-tokens // LENGTH_STEP) * LENGTH_STEP
