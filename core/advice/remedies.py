"""What would fit in place of a plan that does not, computed from what that plan needs. No torch.

Each way changes as little as it can: fewer examples at once (and as many in a step, so that the same is learned),
checkpointing, QLoRA, shorter rows, a smaller model. The arithmetic's answer for each is scaled by measured / arithmetic
of this very run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.advice.case import METHOD_NAMES, Case, with_settings
from core.advice.decisions import LENGTH_STEP, longest_that_holds, offload_facts
from core.advice.recommend import offloaded, smaller, with_equal_cards
from core.memory.record import Correction, Corrections
from core.messages import Message, msg
from core.models.known import known_models
from core.recipe import Recipe

MOST_WAYS = 3


@dataclass(frozen=True)
class Way:
    """draft: the settings with which it fits. text: what to change, in a few words; model: id where another base is
    meant."""

    draft: Recipe
    text: Message
    model: str | None = None


def ways(case: Case, draft: Recipe, lengths: Sequence[int]) -> list[Way]:
    """Those that fit with their margin, the least loss first, at most three. lengths: tokens of the rows, for what
    would be cut.

    case.corrections holds measured / arithmetic for draft's method.
    """
    found = [
        fewer_at_once(case, draft),
        checkpointing(case, draft),
        in_four_bit(case, draft),
        shorter(case, draft, lengths),
    ]
    kept = [way for way in found if way is not None]
    if not kept:
        least = everything(case, draft, lengths)
        kept = [way for way in ([least] if least else [in_parts(case, draft), in_ram(case, draft)]) if way is not None]
    if (other := smaller_model(case, draft)) is not None:
        kept.append(other)
    return kept[:MOST_WAYS]


def fewer_at_once(case: Case, draft: Recipe) -> Way | None:
    """The largest smaller micro-batch that divides this one, with as many examples in a step as before."""
    now = draft.train.per_device_train_batch_size
    for size in range(now - 1, 0, -1):
        if now % size == 0:
            accumulation = draft.train.gradient_accumulation_steps * now // size
            less = with_settings(draft, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
            if case.holds(less):
                return Way(less, _said(case, less, "would_fit.batch", size=size, accumulation=accumulation))
    return None


def checkpointing(case: Case, draft: Recipe) -> Way | None:
    saving = with_settings(draft, gradient_checkpointing=True)
    if draft.train.gradient_checkpointing or not case.holds(saving):
        return None
    return Way(saving, _said(case, saving, "would_fit.checkpointing"))


def in_four_bit(case: Case, draft: Recipe) -> Way | None:
    """On a card alone: on a processor QLoRA saves no memory (docs/memory.md, measured here)."""
    small = with_settings(draft, method="qlora")
    if case.on_cpu or draft.adapter.method == "qlora" or not case.holds(small):
        return None
    return Way(small, _said(case, small, "would_fit.qlora"))


def shorter(case: Case, draft: Recipe, lengths: Sequence[int]) -> Way | None:
    """The largest max_length that fits: a multiple of 64, also where it cuts rows, which is said."""
    length = longest_that_holds(case, draft, LENGTH_STEP)
    if length is None:
        return None
    less, cut = with_settings(draft, max_length=length), sum(tokens > length for tokens in lengths)
    return Way(less, _said(case, less, "would_fit.length", length=length, cut=cut, rows=len(lengths)))


def everything(case: Case, draft: Recipe, lengths: Sequence[int]) -> Way | None:
    """All savings together, where none of them is enough alone."""
    least = with_settings(
        draft,
        method=draft.adapter.method if case.on_cpu else "qlora",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=draft.train.gradient_accumulation_steps * draft.train.per_device_train_batch_size,
        gradient_checkpointing=True,
    )
    if not case.holds(least):
        cut = shorter(case, least, lengths)
        if cut is None:
            return None
        least = cut.draft
    facts = {"method": METHOD_NAMES.get(least.adapter.method, least.adapter.method), "length": least.data.max_length}
    return Way(least, _said(case, least, "would_fit.everything", **facts))


def in_ram(case: Case, draft: Recipe) -> Way | None:
    """Layers of the base offloaded, where nothing else fits: it costs time, which is said."""
    less = offloaded(case, draft)
    if less is None:
        return None
    facts = {"method": METHOD_NAMES[less.adapter.method], "micro": less.train.per_device_train_batch_size}
    return Way(less, _said(case, less, "would_fit.offload", **facts, **offload_facts(case, less)))


def in_parts(case: Case, draft: Recipe) -> Way | None:
    """The base held by several GPUs together, where one has no room for it."""
    if (found := with_equal_cards(case, draft)) is None:
        return None
    of_each, way = found
    return Way(way, _said(of_each, way, "would_fit.fsdp", method=METHOD_NAMES["qlora"], ranks=way.train.ranks))


def smaller_model(case: Case, draft: Recipe) -> Way | None:
    """The largest known one that fits, priced with no smaller a factor than this run's."""
    other = smaller(case, draft)
    if other is None or other.model is None:
        return None
    known = next(known for known in known_models() if known.id == other.model)
    needed = {"needed": other.on_card_gib, "free": case.budget.free_gib}
    return Way(
        with_settings(draft, method=other.method, per_device_train_batch_size=1),
        msg("would_fit.model", model=known.title, **needed),
        known.id,
    )


def measured_corrections(factor: float) -> Corrections:
    """For a case whose run was just measured: its factor for every method, and for other models where it is above 1."""
    mine = Correction(factor=factor, runs=1)
    return Corrections({method: mine for method in ("lora", "qlora", "full")}, mine if factor > 1 else None)


def _said(case: Case, draft: Recipe, key: str, **facts: object) -> Message:
    return msg(key, **facts, **case.numbers(draft))
