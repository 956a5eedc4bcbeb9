"""The recommendation: LoRA or QLoRA, rank, lengths, batches, learning rate; each with its reason. No torch.

Rules of the documented table first, arithmetic (core/memory/arithmetic) second; docs/design.md, section 5, describes
how they combine, docs/memory.md, section 7, the sources of rank, learning rate and batches. Memory is spent in the
order of DECISIONS: each is made on a draft that holds those before it, and cheap values for those after it.
"""

from __future__ import annotations

from dataclasses import replace

from core.advice.case import (
    METHOD_NAMES,
    SMALL_CLASS_BILLIONS,
    Advice,
    Alternative,
    Case,
    Documented,
    Grounds,
    Reason,
    Verdict,
)
from core.advice.decisions import (
    MICRO_BATCHES,
    OF_MEMORY,
    PAIRS_RATE,
    bus_seconds,
    decide,
    fewest_offloaded,
    judge,
    least_copied,
    longest_that_fits,
    method,
    offload_facts,
    planned_steps,
    shortest_acceptable_length,
    usual_rate,
    with_settings,
)
from core.advice.goals import goal_of
from core.advice.warnings import warnings
from core.memory.arithmetic import Estimate, ram_to_offload_gib, sharded_weights
from core.memory.setup import Setup
from core.messages import msg
from core.models.known import KnownModel, known_models
from core.recipe import USUAL_BETA, Recipe


def recommend(recipe: Recipe, grounds: Grounds) -> Advice:
    """Return the advice for a recipe: its open settings filled for the grounds' model and budget, verdict, reasons,
    alternatives, estimate and warnings. Unknown grounds (None) are named, not guessed.

    Settings that are set stay, with their verdict, and their reason is that they were chosen. Raises RecipeError for
    target_modules that the model lacks.
    """
    once = _learned_from_one_row(recipe, grounds)
    if once:
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"eval_fraction": 0.0})})
    case = Case.from_recipe(recipe, grounds)
    budget, goal = grounds.budget, case.goal
    filled, reasons = decide(case, recipe)
    verdict, why = judge(case, filled)
    others = alternatives(case, filled, verdict)
    ground = [Reason(field="goal", text=msg("advise.said", **goal.why))] if goal and goal.suitable else []
    if budget.planned:
        ground.append(Reason(field="budget", text=msg("advise.planned_card", gb=budget.sold_gb,
            reserve=budget.reserve_gib,
                                                       free=budget.free_gib)))  # fmt: skip
    if budget.ranks > 1:
        train, facts = filled.train, {"ranks": budget.ranks, "free": budget.free_gib, "card": budget.smallest or "?"}
        facts["effective"] = train.per_device_train_batch_size * train.gradient_accumulation_steps
        of_cards = "advise.cards_fsdp" if train.fsdp else "advise.cards"
        of_processes = "advise.processes_fsdp" if train.fsdp else "advise.processes"
        key = of_cards if budget.kind == "card" else of_processes
        ground.append(Reason(field="budget", text=msg(key, **facts)))
        ground += _unequal_gpu_reasons(recipe, filled, verdict, grounds)
    return Advice(
        recipe=filled,
        verdict=verdict,
        reasons=(*ground, Reason(field="verdict", text=why), *reasons, *_beta_reasons(filled), *once),
        alternatives=others,
        documented=documented(case, filled),
        estimate=case.estimate(filled),
        correction=case.corrections.for_method(filled.adapter.method) if grounds.shape else None,
        planned_steps=planned_steps(case, filled),
        bus_seconds=bus_seconds(case, filled),
        usual_rate=usual_rate(case) * (PAIRS_RATE if filled.train.compares or filled.rewards else 1),
        warnings=tuple(warnings(case, filled, verdict, others)),
        budget=budget,
    )


def fill_memory_settings(recipe: Recipe, grounds: Grounds) -> tuple[Recipe, Verdict, Estimate | None]:
    """Fill only the settings that cost memory; return recipe, verdict and estimate, without alternatives.

    For lists of models, where the alternatives of each would be searched among all the others.
    """
    case = Case.from_recipe(recipe, grounds)
    filled, _ = decide(case, recipe, OF_MEMORY)
    return filled, judge(case, filled)[0], case.estimate(filled)


def _unequal_gpu_reasons(recipe: Recipe, filled: Recipe, verdict: Verdict, grounds: Grounds) -> list[Reason]:
    """Return [a reason that compares with the largest of several GPUs alone], if the smallest prevents the fit or
    reduces the batch size; else []."""
    budget, largest = grounds.budget, grounds.budget.largest
    if largest is None or None in (largest.free_gib, budget.free_gib) or largest.free_gib == budget.free_gib:
        return []
    one = recipe.model_copy(update={"train": recipe.train.model_copy(update={"ranks": 1})})
    alone, fits, _ = fill_memory_settings(one, replace(grounds, budget=largest))
    size, own = alone.train.per_device_train_batch_size, filled.train.per_device_train_batch_size
    facts = {"largest": largest.name or "?", "free": largest.free_gib, "smallest": budget.smallest or "?"}
    if fits == "fits" and verdict != "fits":
        return [Reason(field="budget", text=msg("advise.largest_alone", **facts))]
    if fits == verdict == "fits" and alone.adapter.method == filled.adapter.method and size > own:
        return [Reason(field="budget", text=msg("advise.unequal_cards", **facts, size=size, own=own))]
    return []


def _learned_from_one_row(recipe: Recipe, grounds: Grounds) -> list[Reason]:
    """Return [the reason to validate on no row], if the rows are to be remembered and most answers stand in one row
    each: a fact that is held out is not learned, so its loss says nothing. [] for others, and if the share is set."""
    data, learns = grounds.data, recipe.goal is not None and goal_of(recipe.goal).learns_rows
    is_open = "eval_fraction" not in recipe.data.model_fields_set and not recipe.train.compares
    if learns and is_open and data and data.answers and data.validation is None and 2 * data.answers > data.rows:
        return [Reason(field="eval_fraction", text=msg("advise.validation_facts"))]
    return []


def _beta_reasons(filled: Recipe) -> list[Reason]:
    """Return [the reason for beta: chosen, or the usual one of the loss] in preference training, else []."""
    train = filled.train
    if not train.compares:
        return []
    usual = msg(f"advise.beta_{train.objective}", beta=USUAL_BETA[train.objective])
    return [Reason(field="beta", text=msg("advise.chosen") if train.beta else usual)]


def alternatives(case: Case, draft: Recipe, verdict: Verdict) -> tuple[Alternative, ...]:
    """Return the other method; if draft does not fit, also ways that would: a shorter max_length, a smaller model,
    others. () for an unknown model."""
    if case.shape is None:
        return ()
    is_lora = draft.adapter.method == "lora"
    swapped = (
        with_settings(draft, method="qlora")
        if is_lora
        else with_settings(draft, method="lora", per_device_train_batch_size=1, offload_layers=0)
    )
    other = _alternative(case, swapped)
    if verdict != "does_not_fit":
        return (other,)
    less, fits = shorter(case, draft), other.verdict in ("fits", "tight")
    in_ram = None if fits or less else offloaded(case, draft)  # only if nothing else fits: it costs time
    larger = _alternative(case, in_ram) if in_ram else None
    together = None if fits or less else in_parts(case, draft)
    helping = [way for way in (less, smaller(case, draft), together, larger) if way is not None]
    return (other, *helping) if fits else (*helping, other)


def shorter(case: Case, draft: Recipe) -> Alternative | None:
    """Return an alternative with the largest max_length that fits, a micro-batch of 1, and QLoRA on a GPU (LoRA on a
    CPU); None if that length would cut more than 1 of 100 examples, or nothing fits."""
    cheapest = with_settings(draft, method="lora" if case.on_cpu else "qlora", per_device_train_batch_size=1)
    length = longest_that_fits(case, cheapest, shortest_acceptable_length(case))
    return _alternative(case, with_settings(cheapest, max_length=length)) if length else None


def offloaded(case: Case, draft: Recipe) -> Recipe | None:
    """Return draft with the fewest layers in RAM, QLoRA with checkpointing, and the batch size that copies least.

    None if the RAM does not suffice, on a CPU, or with settings that exclude it.
    """
    train = draft.train
    if case.shape is None or case.on_cpu or train.offload_layers or train.ranks > 1 or draft.adapter.is_pissa:
        return None
    an_update, every = (
        train.per_device_train_batch_size * train.gradient_accumulation_steps,
        case.shape.num_hidden_layers,
    )
    cheapest = with_settings(
        draft, method="qlora", load_in_8bit=False, gradient_checkpointing=True, offload_layers=every
    )
    sizes = [size for size in MICRO_BATCHES if an_update % size == 0]
    if (size := least_copied(case, cheapest, sizes)) is None:
        return None
    way = with_settings(cheapest, per_device_train_batch_size=size, gradient_accumulation_steps=an_update // size)
    way = with_settings(way, offload_layers=fewest_offloaded(case, way))
    if (
        case.budget.ram_gib is not None
        and ram_to_offload_gib(case.shape, Setup.from_recipe(way, "card")) > case.budget.ram_gib
    ):
        return None
    return way


def sharded_over_cards(case: Case, draft: Recipe) -> tuple[Case, Recipe] | None:
    """Return the case of each GPU, and draft on all equal or chosen GPUs that share the base, with QLoRA, checkpointing
    and a micro-batch of 1.

    None on a CPU, for a single GPU, with settings that exclude it, if it does not fit either, or if the RAM does not
    suffice.
    """
    train, budget, shape = draft.train, case.budget, case.shape
    ranks = train.ranks if train.ranks > 1 else 1 + budget.equal_cards
    is_excluded = (
        train.fsdp
        or train.offload_layers
        or train.activation_offload
        or draft.adapter.is_pissa
        or draft.adapter.trains_experts
    )
    if shape is None or case.on_cpu or ranks == 1 or is_excluded:
        return None
    an_update = train.per_device_train_batch_size * train.gradient_accumulation_steps
    cheapest = with_settings(
        draft,
        method="qlora",
        load_in_8bit=False,
        gradient_checkpointing=True,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=an_update,
    )
    way = cheapest.model_copy(update={"train": cheapest.train.model_copy(update={"ranks": ranks, "fsdp": True})})
    free = budget.free_gib if train.ranks > 1 else budget.equal_free_gib
    of_each = replace(case, budget=budget.model_copy(update={"ranks": ranks, "free_gib": free}))
    has_ram = budget.ram_gib is None or ram_to_offload_gib(shape, Setup.from_recipe(way, "card")) <= budget.ram_gib
    return (of_each, way) if has_ram and judge(of_each, way)[0] != "does_not_fit" else None


def in_parts(case: Case, draft: Recipe) -> Alternative | None:
    """Return an alternative: training with the base sharded over equal GPUs (train.fsdp); None if that does not fit
    either."""
    if (sharing := sharded_over_cards(case, draft)) is None:
        return None
    of_each, way = sharing
    verdict, why = judge(of_each, way)
    setup, estimate, shape, free = (
        Setup.from_recipe(way, "card"),
        of_each.estimate(way),
        of_each.shape,
        case.budget.ram_gib,
    )
    assert shape is not None
    needed = ram_to_offload_gib(shape, setup)
    ram = msg("advise.offload_ram_unknown" if free is None else "advise.offload_ram", needed=needed, free=free)
    ranks = way.train.ranks
    facts = {
        "method": METHOD_NAMES["qlora"],
        "max_length": way.data.max_length,
        "verdict": why,
        "ram": ram,
        "ranks": ranks,
    }
    a_batch = 2 * sharded_weights(shape, setup) * (1 - 1 / ranks) / 1e9
    return Alternative(
        method="qlora", max_length=way.data.max_length, verdict=verdict,
        on_card_gib=estimate.on_card_gib if estimate else None,
        text=msg("advise.fsdp_way", gb=a_batch, **facts), shards=ranks,
    )  # fmt: skip


def smaller(case: Case, draft: Recipe) -> Alternative | None:
    """Return an alternative: the largest smaller known model that fits with draft's max_length, with the method
    recommended for it here; None without one. The case has a shape."""
    assert case.shape is not None
    below = [
        known
        for known in known_models()
        if known.shape.params < case.shape.params
        and (known.shape.max_position_embeddings or 0) >= draft.data.max_length
    ]
    for known in sorted(below, key=lambda known: known.shape.params, reverse=True):
        other = replace(case, shape=known.shape, corrections=case.corrections.for_another_model)
        plain = with_settings(
            draft,
            method="lora" if case.on_cpu else "qlora",
            target_modules="all-linear",
            per_device_train_batch_size=1,
            target_parameters="none",
            offload_layers=0,
        )
        way = with_settings(plain, method=method(other, plain)[0])
        if judge(other, way)[0] == "fits":
            return _alternative(other, way, known)
    return None


def _alternative(case: Case, draft: Recipe, known: KnownModel | None = None) -> Alternative:
    """Return draft as an alternative: its settings, whether it fits into memory, and a sentence that says both. known:
    the smaller model that draft is for; case must have that model's shape already."""
    verdict, why = judge(case, draft)
    estimate = case.estimate(draft)
    facts = {"method": METHOD_NAMES[draft.adapter.method], "max_length": draft.data.max_length, "verdict": why}
    if draft.train.offload_layers and not known:
        facts |= offload_facts(case, draft)
        sentence = msg("advise.offload_way", micro=draft.train.per_device_train_batch_size, **facts)
    elif known:
        sentence = msg("advise.smaller_model", model=known.title, billions=known.shape.params / 1e9, **facts)
    elif case.on_cpu and draft.adapter.method == "qlora":
        sentence = msg("advise.qlora_on_cpu", **facts)
    else:
        minimum = case.table.minimum(case.row, draft.adapter.method)
        table = msg("advise.table_minimum", minimum=minimum) if minimum and not case.on_cpu else ""
        sentence = msg("advise.alternative", micro=draft.train.per_device_train_batch_size, table=table, **facts)
    return Alternative(
        method=draft.adapter.method,
        max_length=draft.data.max_length,
        verdict=verdict,
        on_card_gib=estimate.on_card_gib if estimate else None,
        text=sentence,
        model=known.id if known else None,
        offload_layers=0 if known else draft.train.offload_layers,
    )


def documented(case: Case, draft: Recipe) -> Documented:
    """Return the row and the rule of the VRAM table (core/memory/documented) that apply to draft, None where none does,
    and the row's least memory for its method."""
    if case.on_cpu:
        rule = msg("advise.table_of_cards")
    elif case.for_qlora_only:
        rule = case.table.rule("small_card")
    elif case.billions is not None and case.billions >= SMALL_CLASS_BILLIONS:
        rule = case.table.rule("enough_memory")
    else:
        rule = None
    row = case.row
    return Documented(
        row=row.name if row else None, minimum_gb=case.table.minimum(row, draft.adapter.method), rule=rule
    )
