"""The recommendation: LoRA or QLoRA, rank, lengths, batches, learning rate; each with its reason. No torch.

Rules of the documented table first, arithmetic (core/memory/arithmetic) second; docs/design.md, section 5, says how they combine,
docs/memory.md, section 7, where the numbers for rank, learning rate and batches come from. Memory is spent in
the order of DECISIONS: each is made on a draft that holds those before it, and cheap values for those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from core.advice.case import METHOD_NAMES, SMALL_CLASS_BILLIONS, Advice, Alternative, Case, Documented, Draft, Reason, Verdict
from core.advice.decisions import (
    COSTS,
    DECISIONS,
    DRAFT_FIELDS,
    cost,
    judge,
    longest_that_holds,
    method,
    micro_batch,
    optimizer,
    planned_steps,
    shortest_acceptable,
    usual_rate,
    wanted_length,
)
from core.advice.goals import Goal
from core.advice.warnings import warnings
from core.data.facts import DataFacts
from core.memory.budget import Budget
from core.memory.documented import vram_table
from core.memory.record import Corrections
from core.messages import msg
from core.models.known import KnownModel, known_models
from core.models.shapes import ModelShape
from core.recipe import Data


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
    ground = [Reason(field="goal", text=msg("advise.said", **goal.why))] if goal and goal.suitable else []
    if budget.planned:
        ground.append(Reason(field="budget", text=msg("advise.planned_card", gb=budget.sold_gb, reserve=budget.reserve_gib,
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
            reasons.append(Reason(field=name, text=msg("advise.chosen")))
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
        reasons.append(Reason(field="max_steps", text=msg("advise.chosen")))
    return draft, sorted(reasons, key=lambda reason: list(Advice.model_fields).index(reason.field))


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
        sentence = msg("advise.smaller_model", model=known.title, billions=known.shape.params / 1e9, **facts)
    elif case.on_cpu and draft.method == "qlora":
        sentence = msg("advise.qlora_on_cpu", **facts)
    else:
        minimum = case.table.minimum(case.row, draft.method)
        table = msg("advise.table_minimum", minimum=minimum) if minimum and not case.on_cpu else ""
        sentence = msg("advise.alternative", micro=draft.micro_batch, table=table, **facts)
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
        rule = msg("advise.table_of_cards")
    elif case.for_qlora_only:
        rule = case.table.rule("small_card")
    elif case.billions is not None and case.billions >= SMALL_CLASS_BILLIONS:
        rule = case.table.rule("enough_memory")
    else:
        rule = None
    row = case.row
    return Documented(row=row.name if row else None, minimum_gb=case.table.minimum(row, draft.method), rule=rule)
