"""Ways to make a plan fit that does not, computed from what that plan needs. No torch.

Each way changes as little as it can: fewer examples at once (and as many in a step, so that the same is learned),
checkpointing, QLoRA, shorter rows, a smaller model. The arithmetic for each is scaled by measured / arithmetic of this
very run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.advice.case import METHOD_NAMES, Case
from core.advice.decisions import LENGTH_STEP, longest_that_fits, offload_facts, with_settings
from core.advice.recommend import offloaded, sharded_over_cards, smaller
from core.memory.record import Correction, Corrections
from core.messages import Message, msg
from core.models.known import known_models
from core.recipe import Recipe

MAX_WAYS = 3


@dataclass(frozen=True)
class Way:
    """A change with which a plan fits. draft: its settings. text: the change, in a few words; model: id of another
    base."""

    draft: Recipe
    text: Message
    model: str | None = None


def ways(case: Case, draft: Recipe, lengths: Sequence[int]) -> list[Way]:
    """Return at most three ways to make the plan fit with its margin, those of the least loss first; [] if there are
    none.

    First each single change that is enough by itself; without any, all of them together; if even that does not fit,
    several GPUs and offloading to RAM, each if it fits. Last a smaller model, which is left out if three single changes
    come before it.

    lengths: tokens of the rows, to count those that would be cut. case.corrections holds measured / arithmetic for
    draft's method.
    """
    single = [
        fewer_at_once(case, draft),
        checkpointing(case, draft),
        in_four_bit(case, draft),
        shorter(case, draft, lengths),
    ]
    kept = [way for way in single if way is not None]
    if not kept:
        least = everything(case, draft, lengths)
        kept = [way for way in ([least] if least else [in_parts(case, draft), in_ram(case, draft)]) if way is not None]
    if (other := smaller_model(case, draft)) is not None:
        kept.append(other)
    return kept[:MAX_WAYS]


def fewer_at_once(case: Case, draft: Recipe) -> Way | None:
    """Return the largest smaller micro-batch that divides this one, with as many examples in a step as before; None if
    none fits."""
    now = draft.train.per_device_train_batch_size
    for size in range(now - 1, 0, -1):
        if now % size == 0:
            accumulation = draft.train.gradient_accumulation_steps * now // size
            less = with_settings(draft, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
            if case.fits(less):
                return Way(less, _sentence(case, less, "would_fit.batch", size=size, accumulation=accumulation))
    return None


def checkpointing(case: Case, draft: Recipe) -> Way | None:
    """Return gradient checkpointing as a way, if it is off and makes the plan fit, else None."""
    saving = with_settings(draft, gradient_checkpointing=True)
    if draft.train.gradient_checkpointing or not case.fits(saving):
        return None
    return Way(saving, _sentence(case, saving, "would_fit.checkpointing"))


def in_four_bit(case: Case, draft: Recipe) -> Way | None:
    """Return QLoRA as a way if it makes the plan fit, on a GPU alone, else None: on a CPU it saves no memory
    (docs/memory.md, measured here)."""
    small = with_settings(draft, method="qlora")
    if case.on_cpu or draft.adapter.method == "qlora" or not case.fits(small):
        return None
    return Way(small, _sentence(case, small, "would_fit.qlora"))


def shorter(case: Case, draft: Recipe, lengths: Sequence[int]) -> Way | None:
    """Return the largest shorter max_length that fits, or None: a multiple of 64, even one that cuts rows, which the
    text mentions."""
    length = longest_that_fits(case, draft, LENGTH_STEP)
    if length is None:
        return None
    less, cut = with_settings(draft, max_length=length), sum(tokens > length for tokens in lengths)
    return Way(less, _sentence(case, less, "would_fit.length", length=length, cut=cut, rows=len(lengths)))


def everything(case: Case, draft: Recipe, lengths: Sequence[int]) -> Way | None:
    """Return all savings together as a way: QLoRA (on a GPU alone), a micro-batch of 1 with more accumulation, and
    checkpointing, with texts cut too if it must be. None if even that does not fit."""
    least = with_settings(
        draft,
        method=draft.adapter.method if case.on_cpu else "qlora",
        per_device_train_batch_size=1,
        gradient_accumulation_steps=draft.train.gradient_accumulation_steps * draft.train.per_device_train_batch_size,
        gradient_checkpointing=True,
    )
    if not case.fits(least):
        cut = shorter(case, least, lengths)
        if cut is None:
            return None
        least = cut.draft
    facts = {"method": METHOD_NAMES.get(least.adapter.method, least.adapter.method), "length": least.data.max_length}
    return Way(least, _sentence(case, least, "would_fit.everything", **facts))


def in_ram(case: Case, draft: Recipe) -> Way | None:
    """Return the way of offloaded base layers, or None if that does not fit; the text mentions the time that it
    costs."""
    less = offloaded(case, draft)
    if less is None:
        return None
    facts = {"method": METHOD_NAMES[less.adapter.method], "micro": less.train.per_device_train_batch_size}
    return Way(less, _sentence(case, less, "would_fit.offload", **facts, **offload_facts(case, less)))


def in_parts(case: Case, draft: Recipe) -> Way | None:
    """Return the way of sharding the base over several GPUs, or None if that is impossible or does not fit."""
    if (sharing := sharded_over_cards(case, draft)) is None:
        return None
    of_each, way = sharing
    return Way(way, _sentence(of_each, way, "would_fit.fsdp", method=METHOD_NAMES["qlora"], ranks=way.train.ranks))


def smaller_model(case: Case, draft: Recipe) -> Way | None:
    """Return the way of training the largest known smaller model that fits, in micro-batches of 1, or None; its memory
    is estimated with the corrections for other models."""
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
    """Return the corrections of a run that was just measured by factor, measured over predicted memory: for its base
    model by every method, and for other models if above 1."""
    mine = Correction(factor=factor, runs=1)
    for_others = mine if factor > 1 else None
    return Corrections({method: mine for method in ("lora", "qlora", "full")}, for_others, for_others)


def _sentence(case: Case, draft: Recipe, key: str, **facts: object) -> Message:
    """Return the message `key` with facts and with the memory that draft needs and that is free."""
    return msg(key, **facts, **case.numbers(draft))
