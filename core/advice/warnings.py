"""Warnings before a start: about the goal, the memory, the data."""

from __future__ import annotations

import math
from collections.abc import Iterator

from core.advice.case import Alternative, Case, Verdict
from core.advice.decisions import (
    LENGTH_STEP,
    MIN_STEPS,
    capacity_warning,
    judge,
    longest_that_fits,
    planned_steps,
    schedule_of,
    with_settings,
)
from core.data.facts import DataFacts
from core.data.validation_split import FEW_PAIRS
from core.memory import arithmetic
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.matrices import names_in
from core.models.shapes.shape import HEAD
from core.recipe import Recipe
from core.system import processor

LONG = 4096  # tokens; the document's "long-sequence task" begins here
SLOW_ON_CPU_BILLIONS = 1.0


def warnings(case: Case, draft: Recipe, verdict: Verdict, others: tuple[Alternative, ...]) -> list[Message]:
    """Return the warnings before a start, gravest first."""
    groups = (
        goal_warnings(case),
        memory_warnings(case, draft, verdict, others),
        family_warnings(case, draft),
        data_warnings(case, draft),
        pair_warnings(case, draft),
    )
    return [warning for group in groups for warning in group]


def goal_warnings(case: Case) -> Iterator[Message]:
    """Yield the warning of a goal that LoRA does not suit, with a better way."""
    if case.goal is not None and not case.goal.suitable:
        parts = {"title": case.goal.title, "why": case.goal.why, "instead": case.goal.instead or {}}
        yield msg("advise.unsuitable_goal", **{name: msg("advise.said", **texts) for name, texts in parts.items()})


def memory_warnings(case: Case, draft: Recipe, verdict: Verdict, others: tuple[Alternative, ...]) -> Iterator[Message]:
    """Yield warnings of a too large model, cut texts, an unpacked base, a tied head, an uncertain estimate, a slow or
    short CPU; of an unknown model that alone. others: the alternatives."""
    estimate = case.estimate(draft)
    if case.shape is None or estimate is None:
        yield msg("advise.warn_unknown_model")
        return
    billions, free, fits = case.shape.params / 1e9, case.budget.free_gib, ("fits", "tight")
    if verdict == "does_not_fit" and not any(other.verdict in fits for other in others):
        yield msg("advise.warn_nothing_fits", verdict=judge(case, draft)[1])
    if verdict == "does_not_fit" and case.data is not None:
        # A max_length that fits but is too short for the data is never recommended, only mentioned.
        length = longest_that_fits(case, with_settings(draft, per_device_train_batch_size=1), LENGTH_STEP)
        if length and length < case.data.p99_length:
            yield msg("advise.warn_would_cut", value=length)
    largest = case.table.rows[-1].billions[1]
    if round(billions, 1) > largest:
        yield msg("advise.warn_above_table", billions=billions, largest=largest)
    if case.shape.is_unpacked:
        yield msg("advise.warn_unpacked", method=case.shape.quantized, gib=estimate.terms["weights"])
    if case.shape.tie_word_embeddings and HEAD in names_in(draft.adapter.target_modules):
        yield msg("advise.warn_tied_head", module=HEAD)
    if estimate.low_confidence:
        yield msg("advise.warn_low_confidence", margin=estimate.margin, why=list(estimate.low_confidence))
    if case.on_cpu and billions > SLOW_ON_CPU_BILLIONS:
        yield msg("advise.warn_slow_on_cpu", billions=billions)
    if case.on_cpu and verdict in fits and free is not None:
        # The plan reckons with a 16-bit base; processors without bfloat16 instructions train an fp32 one
        # (docs/memory.md, measured here).
        needed = arithmetic.estimate(case.shape, Setup.from_recipe(draft, "cpu", base_bytes=4)).needed_gib
        if needed > free and not processor.has_bfloat16():
            yield msg("advise.warn_cpu_in_32_bit", needed=needed, free=free)


def family_warnings(case: Case, draft: Recipe) -> Iterator[Message]:
    """Yield warnings of QLoRA with a family that needs 16 bits, and of missing packages with a family's fast kernels on
    a GPU."""
    family = case.family
    if family is None:
        return
    if family.in_16_bit and draft.adapter.method == "qlora":
        why = {"why": family.in_16_bit.message, "source": family.in_16_bit.source}
        yield msg("advise.warn_family_in_16_bit", family=family.title, **why)
    if family.kernels and not case.on_cpu and (missing := family.kernels.missing):
        why = {"why": family.kernels.message, "source": family.kernels.source}
        yield msg("advise.warn_family_kernels", family=family.title, packages=missing, command=" ".join(missing), **why)


def data_warnings(case: Case, draft: Recipe) -> Iterator[Message]:
    """Yield warnings of a length limit beyond the model's context and, if the data is known, of estimated lengths, cut
    rows (not of pairs), few steps, an adapter too small for the data, and a high length limit with QLoRA."""
    length, readable = draft.data.max_length, case.shape.max_position_embeddings if case.shape else None
    if readable and length > readable:
        yield msg("advise.warn_beyond_model", value=length, readable=readable)
    if case.data is None:
        return
    if case.data.estimated:
        yield msg("advise.warn_estimated_lengths")
    # long pairs are left out, which the data's counts show
    cut = None if draft.train.compares else cut_rows(case.data, length)
    possible = (cut, few_steps(case, case.data, draft), capacity_warning(case, case.data, draft))
    yield from (warning for warning in possible if warning)
    if draft.adapter.method == "qlora" and length >= LONG:
        yield msg("advise.warn_long_texts", value=length)


def pair_warnings(case: Case, draft: Recipe) -> Iterator[Message]:
    """Yield warnings of few pairs, and of preference training on a model that was not trained with the answers before;
    none for other training."""
    train = draft.train
    if not train.compares:
        return
    if case.data is not None and case.data.rows < FEW_PAIRS:
        yield msg(
            "advise.warn_few_rated" if train.objective == "kto" else "advise.warn_few_pairs",
            pairs=case.data.rows,
            few=FEW_PAIRS,
        )
    if train.objective != "orpo" and not train.sft_weight and not case.continues:
        yield msg("advise.warn_sft_first")


def cut_rows(data: DataFacts, length: int) -> Message | None:
    """Return a message on how many rows are longer than length (most, many or a few), as far as the median, the 99th
    percentile and the longest tell; None if none is."""
    if data.longest <= length:
        return None
    facts = {"rows": data.rows, "longest": data.longest, "value": length}
    if length < data.median_length:
        return msg("advise.warn_most_cut", median=data.median_length, **facts)
    if length < data.p99_length:
        return msg("advise.warn_many_cut", p99=data.p99_length, **facts)
    return msg("advise.warn_few_cut", count=max(1, data.rows - 1 - int(0.99 * data.rows)), **facts)


def few_steps(case: Case, data: DataFacts, draft: Recipe) -> Message | None:
    """Return a warning that the plan has fewer than MIN_STEPS steps, with the epochs that would give as many (without
    these if max_steps sets the number); None for enough steps or an unknown number."""
    steps = planned_steps(case, draft)
    if steps is None or steps >= MIN_STEPS:
        return None
    if draft.train.max_steps > 0:
        return msg("advise.warn_few_max_steps", steps=steps, least=MIN_STEPS)
    epochs_needed = math.ceil(MIN_STEPS / max(1, schedule_of(case, data, draft).steps_per_epoch))
    return msg("advise.warn_few_steps", steps=steps, least=MIN_STEPS, epochs=epochs_needed)
