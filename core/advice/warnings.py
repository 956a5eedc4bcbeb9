"""What a person should know before they start: the goal, the memory, the data."""

from __future__ import annotations

import math

from core.advice.case import Alternative, Case, Verdict, with_settings
from core.advice.decisions import FEWEST_STEPS, LENGTH_STEP, capacity, judge, longest_that_holds, planned_steps, schedule_of
from core.data.facts import DataFacts
from core.memory import arithmetic
from core.memory.arithmetic import Setup
from core.messages import Message, msg
from core.models.shapes import ModelShape
from core.recipe import Recipe

LONG = 4096  # tokens; from here on the document's "long-sequence task" is worth a word
SLOW_ON_CPU_BILLIONS = 1.0


# ---- warnings ---------------------------------------------------------------------------------------------------------
def warnings(case: Case, draft: Recipe, verdict: Verdict, others: tuple[Alternative, ...]) -> list[Message]:
    """What a person should know before Start, gravest first."""
    found = [*goal_warnings(case), *memory_warnings(case, draft, verdict, others), *data_warnings(case, draft)]
    return [warning for warning in found if warning is not None]


def goal_warnings(case: Case) -> list[Message | None]:
    if case.goal is None or case.goal.suitable:
        return []
    parts = {"title": case.goal.title, "why": case.goal.why, "instead": case.goal.instead or {}}
    return [msg("advise.unsuitable_goal", **{name: msg("advise.said", **said) for name, said in parts.items()})]


def memory_warnings(case: Case, draft: Recipe, verdict: Verdict, others: tuple[Alternative, ...]) -> list[Message | None]:
    if case.shape is None:
        return [msg("advise.warn_unknown_model")]
    billions = case.shape.params / 1e9
    return [
        nothing_fits(case, draft, verdict, others),
        would_cut(case, draft, verdict),
        above_table(case, case.shape),
        low_confidence(case, draft),
        msg("advise.warn_slow_on_cpu", billions=billions) if case.on_cpu and billions > SLOW_ON_CPU_BILLIONS else None,
        cpu_in_32_bit(case, case.shape, draft, verdict),
    ]


def nothing_fits(case: Case, draft: Recipe, verdict: Verdict, others: tuple[Alternative, ...]) -> Message | None:
    if verdict != "does_not_fit" or any(other.verdict in ("fits", "tight") for other in others):
        return None
    return msg("advise.warn_nothing_fits", verdict=judge(case, draft)[1])


def would_cut(case: Case, draft: Recipe, verdict: Verdict) -> Message | None:
    """A max_length that fits but is shorter than the data needs is never advised; the person is told of it."""
    if verdict != "does_not_fit" or case.data is None:
        return None
    length = longest_that_holds(case, with_settings(draft, micro_batch=1), LENGTH_STEP)
    return msg("advise.warn_would_cut", value=length) if length and length < case.data.p99_length else None


def above_table(case: Case, shape: ModelShape) -> Message | None:
    largest = case.table.rows[-1].billions[1]
    billions = shape.params / 1e9
    return msg("advise.warn_above_table", billions=billions, largest=largest) if round(billions, 1) > largest else None


def low_confidence(case: Case, draft: Recipe) -> Message | None:
    estimate = case.estimate(draft)
    if estimate is None or not estimate.low_confidence:
        return None
    return msg("advise.warn_low_confidence", margin=estimate.margin, why=list(estimate.low_confidence))


def cpu_in_32_bit(case: Case, shape: ModelShape, draft: Recipe, verdict: Verdict) -> Message | None:
    """The plan reckons with a 16-bit base; processors without bfloat16 instructions train an fp32 one (docs/memory.md, measured here)."""
    if not case.on_cpu or verdict not in ("fits", "tight") or case.budget.free_gib is None:
        return None
    needed = arithmetic.estimate(shape, Setup.of(draft, "cpu", base_bytes=4)).needed_gib
    return msg("advise.warn_cpu_in_32_bit", needed=needed, free=case.budget.free_gib) if needed > case.budget.free_gib else None


def data_warnings(case: Case, draft: Recipe) -> list[Message | None]:
    readable = case.shape.max_position_embeddings if case.shape else None
    beyond = msg("advise.warn_beyond_model", value=draft.data.max_length, readable=readable)
    found = [beyond if readable and draft.data.max_length > readable else None]
    if case.data is None:
        return found
    return [
        *found,
        msg("advise.warn_estimated_lengths") if case.data.estimated else None,
        cut_rows(case.data, draft.data.max_length),
        few_steps(case, case.data, draft),
        capacity(case, case.data, draft),
        msg("advise.warn_long_texts", value=draft.data.max_length)
        if draft.adapter.method == "qlora" and draft.data.max_length >= LONG
        else None,
    ]


def cut_rows(data: DataFacts, length: int) -> Message | None:
    """How many rows are longer than length, as far as median, 99 of 100 and longest tell."""
    if data.longest <= length:
        return None
    facts = {"rows": data.rows, "longest": data.longest, "value": length}
    if length < data.median_length:
        return msg("advise.warn_most_cut", median=data.median_length, **facts)
    if length < data.p99_length:
        return msg("advise.warn_many_cut", p99=data.p99_length, **facts)
    return msg("advise.warn_few_cut", count=max(1, data.rows - 1 - int(0.99 * data.rows)), **facts)


def few_steps(case: Case, data: DataFacts, draft: Recipe) -> Message | None:
    steps = planned_steps(case, draft)
    if steps is None or steps >= FEWEST_STEPS:
        return None
    if draft.train.max_steps > 0:
        return msg("advise.warn_few_max_steps", steps=steps, least=FEWEST_STEPS)
    epochs_needed = math.ceil(FEWEST_STEPS / max(1, schedule_of(case, data, draft).steps_per_epoch))
    return msg("advise.warn_few_steps", steps=steps, least=FEWEST_STEPS, epochs=epochs_needed)
