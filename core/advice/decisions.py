"""Each setting's recommendation (method, lengths, batches, rank, learning rate) with its reason, in the order in which
memory is spent."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Mapping, Sequence

from core.advice.case import RANKS, USUAL_RATE, Advice, Case, Method, Reason, Verdict
from core.data import row_order, validation_split
from core.data.facts import DataFacts
from core.memory import arithmetic
from core.memory.constants import memory_constants
from core.memory.setup import Setup
from core.messages import Message, msg
from core.models.shapes.shape import ModelShape
from core.recipe import Adapter, Data, Recipe, Train

USUAL_RANK: int = Adapter.model_fields["r"].default
USUAL_EPOCHS: float = Train.model_fields["num_train_epochs"].default
MICRO_BATCHES = (4, 2, 1)
OF_SHORT_ROWS, TOKENS_AT_ONCE = (16, 8), 4096  # twice what 4 rows of 512 are
LENGTH_STEP = 64  # tokens
# SmolLM2 on the three sample sets: real lengths are 1.3 times the guess; on Chinese up to twice and more
GUESS_MARGIN = 2.5
LENGTH_WITHOUT_DATA: int = Data.model_fields["max_length"].default
SHORTEST_WITHOUT_DATA = 256  # tokens
FEW_ROWS = 50
PAIRS_RATE = 0.1  # times the rate of sft, also for rewards
QUESTIONS = 4  # of a step of training by rewards, each with num_generations answers
# 40 facts, one row each, on the starter: 5 times 4 of 40 are known, 15 times 29, 20 times 32, with rank 8 37 (one EPYC,
# 2026-12-02)
TIMES_A_FACT = 20
MIN_STEPS = 20
SHORT_RUN_STEPS = 100
OPTIMIZER_SHARE = 0.03  # of the free memory: below it, 8-bit AdamW saves too little for its cost


# Settings that are recommended or cost memory: the name of a recipe's field, and its section. From use_dora on only the
# person decides.
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


def value_of(recipe: Recipe, name: str) -> object:
    """Return the setting of this name (see SETTINGS)."""
    return getattr(getattr(recipe, SETTINGS[name]), name)


def values_of(recipe: Recipe) -> dict[str, object]:
    """Return the recipe's values of all SETTINGS, by name."""
    return {name: value_of(recipe, name) for name in SETTINGS}


def as_json(advice: Advice) -> dict[str, object]:
    """Return the object in run.json and `plan --json`: the settings by their names, then the rest."""
    return values_of(advice.recipe) | advice.model_dump(mode="json", exclude={"recipe"})


def is_set(recipe: Recipe, name: str) -> bool:
    """Return whether the person decided this setting. An open one was left out or left empty."""
    return name in getattr(recipe, SETTINGS[name]).model_fields_set and value_of(recipe, name) is not None


def with_settings(recipe: Recipe, **settings: object) -> Recipe:
    """Return recipe with these values, by the names of SETTINGS, each put into its section. The values are not
    checked."""
    changes: dict[str, dict[str, object]] = {}
    for name, value in settings.items():
        changes.setdefault(SETTINGS[name], {})[name] = value
    return recipe.model_copy(
        update={key: getattr(recipe, key).model_copy(update=values) for key, values in changes.items()}
    )


# ---- the decisions -------------------------------------------------------------------------------
def desired_length(case: Case) -> int:
    """Return the max_length that covers 99 of 100 examples, rounded up, with a margin for guessed lengths, within the
    model's limit; without data, and at least for joined texts, LENGTH_WITHOUT_DATA.

    A cut example loses its end, and with it the token that teaches a model to stop: rather too long than too short.
    """
    length = LENGTH_WITHOUT_DATA
    if case.data:
        long_example = math.ceil(case.data.p99_length * (GUESS_MARGIN if case.data.estimated else 1))
        length = max(1, math.ceil(long_example / LENGTH_STEP)) * LENGTH_STEP
        if case.data.is_joined:  # there is more text than its paragraphs tell
            length = max(length, LENGTH_WITHOUT_DATA)
    readable = case.shape.max_position_embeddings if case.shape else None
    return min(length, readable) if readable else length


def max_length(case: Case, draft: Recipe) -> tuple[int, Message]:
    """Return draft's max_length, the desired one; a shorter one if only that fits, but never so short that more than 1
    of 100 examples is cut; with the reason."""
    desired, numbers = draft.data.max_length, case.numbers(draft)
    value = desired
    if case.fits(draft) is False:
        value = longest_that_fits(case, draft, shortest_acceptable_length(case)) or desired
    if value < desired:
        why = msg("advise.length_that_fits", value=value, wanted=desired, **numbers)
    elif case.data is None:
        why = msg("advise.length_without_data", value=value)
    elif value < case.data.p99_length:
        why = msg("advise.length_of_model", value=value, p99=case.data.p99_length)
    else:
        key = "advise.length_of_guess" if case.data.estimated else "advise.length_of_data"
        why = msg(key, p99=case.data.p99_length, value=value)
    return value, why


def shortest_acceptable_length(case: Case) -> int:
    """Return the least max_length, in tokens, that cuts no more than 1 of 100 examples; 256 without data.

    Not rounded, and without a margin for guessed lengths. Never above the model's limit, even if that cuts more.
    """
    return min(case.data.p99_length if case.data else SHORTEST_WITHOUT_DATA, desired_length(case))


def longest_that_fits(case: Case, draft: Recipe, shortest: int) -> int | None:
    """Return the largest multiple of 64 in [shortest, draft's max_length) that fits with its margin, else shortest,
    else None."""

    def fits_at(length: int) -> bool:
        """Return whether draft fits with this max_length; False also if that is unknown."""
        return bool(case.fits(with_settings(draft, max_length=length)))

    longer = range((shortest // LENGTH_STEP + 1) * LENGTH_STEP, draft.data.max_length, LENGTH_STEP)
    # number that fit: a shorter length always fits too
    fitting = bisect(longer, False, key=lambda length: not fits_at(length))
    longest = longer[fitting - 1] if fitting else shortest
    return longest if longest < draft.data.max_length and fits_at(longest) else None


def target_modules(case: Case, draft: Recipe) -> tuple[str, Message]:
    """Return all linear layers, which the QLoRA paper found to matter most; or, if only that fits, query and value
    alone, as in the LoRA paper, or the one matrix in which a family has them. With the reason."""
    names = [matrix.name for matrix in case.shape.attention_matrices] if case.shape else []
    fewer = with_settings(
        draft, target_modules=names[0] if names and not {"q_proj", "v_proj"} <= set(names) else "q_proj,v_proj"
    )
    if case.fits(draft) is False and case.fits(fewer):
        return fewer.adapter.target_modules, msg("advise.targets_that_fit", **case.numbers(draft))
    return "all-linear", msg("advise.targets_all")


def method(case: Case, draft: Recipe) -> tuple[Method, Message]:
    """Return "lora" or "qlora", with the reason (docs/design.md, section 5, rules 1, 2 and 8).

    On a GPU it is LoRA only if that is known to fit and the documented table allows it; QLoRA also if the model or the
    memory is unknown. On a CPU it is LoRA unless only QLoRA fits.
    """
    lora = with_settings(draft, method="lora", offload_layers=0)  # 4-bit layers are copied four times as fast
    facts = {"size": case.size_name, "gb": case.budget.sold_gb, **case.numbers(lora)}
    if case.on_cpu:
        if case.fits(lora) is False and case.fits(with_settings(draft, method="qlora")):
            return "qlora", msg("advise.qlora_lora_too_large", **facts)
        return "lora", msg("advise.lora_on_cpu")
    if case.shape is None:
        return "qlora", msg("advise.qlora_unknown_model")
    if case.for_qlora_only:
        return "qlora", msg("advise.qlora_documented", limit=case.table.qlora_up_to_gb, **facts)
    if minimum := case.too_small_for("lora"):
        return "qlora", msg("advise.qlora_below_minimum", minimum=minimum, **facts)
    is_enough = case.fits(lora)
    if is_enough is None:
        return "qlora", msg("advise.qlora_unknown_memory")
    if not is_enough:
        return "qlora", msg("advise.qlora_lora_too_large", **facts)
    if case.row and case.budget.sold_gb is not None:
        return "lora", msg("advise.lora_documented", minimum=case.row.lora.minimum_gb, **facts)
    return "lora", msg("advise.lora_fits", **facts)


def effective_batch(case: Case, draft: Recipe) -> int:
    """Return the examples of one optimizer step; for rewards the questions, QUESTIONS.

    4 below 200 rows and 8 below 1,000, because few rows need many small steps; otherwise 16, as in docs/memory.md,
    section 7 (8 to 32).
    """
    rows = case.data.rows if case.data else None
    if draft.rewards:
        return QUESTIONS
    return 16 if rows is None or rows >= 1000 else 8 if rows >= 200 else 4


def batch_size(case: Case, draft: Recipe) -> tuple[int, Message]:
    """Return the micro-batch with the reason: the largest of 4, 2, 1 that fits and is not above `effective_batch`; 1 if
    none fits or that is unknown.

    For preference pairs at most 2, as a pair is two examples; kto takes up to 4 rows, because its KL term is a mean
    over them. Short packed rows on a GPU take 16 or 8 if those fit without gradient checkpointing. If all layers are
    offloaded, it is the size that copies the fewest bytes for each example.
    """

    def draft_of_size(size: int) -> Recipe:
        """Return draft with this micro-batch."""
        return with_settings(draft, per_device_train_batch_size=size)

    def size_and_reason(size: int) -> tuple[int, Message]:
        """Return this micro-batch and the sentence that it fits, with the memory needed and free."""
        return size, msg("advise.batch_fits", value=size, **case.numbers(draft_of_size(size)))

    more = OF_SHORT_ROWS if draft.data.packing and not draft.train.compares and not case.on_cpu else ()
    for many in more:
        short = many <= effective_batch(case, draft) and many * draft.data.max_length <= TOKENS_AT_ONCE
        if short and case.fits(with_settings(draft_of_size(many), gradient_checkpointing=False, r=RANKS[-1])):
            return size_and_reason(many)
    of_pairs = draft.train.compares and draft.train.objective != "kto"
    most = min(effective_batch(case, draft), 2 if of_pairs else MICRO_BATCHES[0])
    useful = [size for size in MICRO_BATCHES if size <= most]
    value = next((size for size in useful if case.fits(draft_of_size(size))), 1)
    if case.fits(draft) is None:
        return 1, msg("advise.batch_unknown")
    if (
        case.shape
        and draft.train.offload_layers == case.shape.num_hidden_layers
        and (size := least_copied(case, draft, useful))
    ):
        return size, msg("advise.batch_offload", value=size)
    if value == useful[0]:
        return size_and_reason(value)
    too_many = useful[useful.index(value) - 1]
    return value, msg(
        "advise.batch_that_fits",
        more=too_many,
        **case.numbers(draft_of_size(too_many)),
    )


def checkpointing(case: Case, draft: Recipe) -> tuple[bool, Message]:
    """Return False, with the reason, if the memory suffices without gradient checkpointing, which costs a third of the
    time; True if it does not, is unknown, or layers are offloaded."""
    if draft.train.offload_layers:
        return True, msg("advise.checkpointing_offload")
    without = with_settings(draft, gradient_checkpointing=False)
    if case.fits(without):
        return False, msg("advise.checkpointing_off", **case.numbers(without))
    known = case.fits(without) is not None
    return True, msg("advise.checkpointing_needed", **case.numbers(without)) if known else msg(
        "advise.checkpointing_unknown"
    )


def rank(case: Case, draft: Recipe) -> tuple[int, Message]:
    """Return the rank with the reason: the smallest with as many parameters as answer tokens, at least the goal's, but
    lower where memory does not suffice (docs/design.md, section 5, rule 4).

    That is the capacity rule of Tinker's documentation.
    """
    desired, why = desired_rank(case, draft)
    value = desired
    while value > RANKS[0] and case.fits(with_settings(draft, r=value)) is False:
        value = max(r for r in RANKS if r < value)
    if case.fits(with_settings(draft, r=value)) is False:
        return value, msg("advise.rank_least", **case.numbers(with_settings(draft, r=value)))
    if value < desired:
        why = msg("advise.rank_that_fits", wanted=desired, **case.numbers(with_settings(draft, r=desired)))
    return value, why


def desired_rank(case: Case, draft: Recipe) -> tuple[int, Message]:
    """Return the smallest rank with as many parameters as tokens to learn, at least the goal's, with the reason,
    whatever memory it needs; few rows that are not to be remembered get the lowest."""
    floor, least = least_rank(case)
    if case.data is None:
        return floor, msg("advise.rank_without_data", least=least)
    if case.data.rows < FEW_ROWS and not (case.goal and case.goal.learns_rows):
        return RANKS[0], msg("advise.rank_few_rows", rows=case.data.rows, few=FEW_ROWS)
    if case.shape is None:
        return floor, msg("advise.rank_unknown_model", least=least)
    enough = next((r for r in RANKS if _capacity(case.shape, draft, r) >= case.data.learned_tokens), None)
    value = max(floor, enough or RANKS[-1])
    facts = {"tokens": case.data.learned_tokens, "params": _capacity(case.shape, draft, value)}
    if enough is None:
        return value, msg("advise.rank_too_small", **facts)
    if enough < floor:
        return value, msg("advise.rank_of_floor", least=least, **facts)
    return value, msg("advise.rank_of_tokens", **facts)


def least_rank(case: Case) -> tuple[int, Message]:
    """Return the smallest rank to recommend, with the reason: the goal's own (the usual one without a goal), or the
    family's if the source of its settings takes a higher one, but at most the largest of RANKS."""
    floor = case.goal.r_floor if case.goal else USUAL_RANK
    family = case.family
    if family and family.r and (of_family := min(family.r, RANKS[-1])) > floor:
        facts = {"floor": of_family, "family": family.title, "r": family.r, "source": family.settings_source}
        return of_family, msg("advise.least_of_family", **facts)
    return floor, msg("advise.least_of_goal" if case.goal else "advise.least_usual", floor=floor)


def optimizer(case: Case, draft: Recipe) -> tuple[str, Message]:
    """Return the optimizer's name with the reason: plain AdamW, exact and one kernel a step, while its states are
    small, else the 8-bit one.

    bitsandbytes' waits for the GPU after each tensor (its `Optimizer8bit.step`, 0.50.2). Never the paged one: it pages
    only tensors of 100,000 numbers and more, few of an adapter's, and Windows' driver has no memory that GPU and PC may
    share at once (docs/memory.md, 1.3).
    """
    if case.on_cpu:
        return "adamw_torch", msg("advise.optim_cpu")
    plain, free = with_settings(draft, optim="adamw_torch"), case.budget.free_gib
    if case.shape is None or free is None:
        return "adamw_8bit", msg("advise.optim_unknown")
    states = arithmetic.estimate(case.shape, Setup.from_recipe(plain, "card")).terms["optimizer"]
    facts = {"states": states, "share": OPTIMIZER_SHARE, "free": free}
    # Even if neither fits: the person may close programs that hold the rest.
    if states < OPTIMIZER_SHARE * free and (case.fits(plain) or not case.fits(draft)):
        return "adamw_torch", msg("advise.optim_small", **facts)
    return "adamw_8bit", msg("advise.optim_8bit", **facts)


def alpha(case: Case, draft: Recipe) -> tuple[int, Message]:
    """Return lora_alpha, twice draft's rank, with the reason."""
    return 2 * draft.adapter.r, msg("advise.alpha", r=draft.adapter.r)


def epochs(case: Case, draft: Recipe) -> tuple[float, Message]:
    """Return the epochs with the reason: more for few rows, fewer for many tokens (docs/memory.md, section 7), fewest
    for pairs; for a goal that learns rows at least TIMES_A_FACT trainings of each answer."""
    data = case.data
    if draft.train.compares and data is not None:
        value = 3.0 if data.rows < 200 else 1.0
        return value, msg(
            "advise.epochs_rated" if draft.train.objective == "kto" else "advise.epochs_pairs", pairs=data.rows
        )
    if data is None:
        return USUAL_EPOCHS, msg("advise.epochs_without_data")
    if data.tokens > 5_000_000:
        return 1.0, msg("advise.epochs_many_tokens", tokens=data.tokens, limit=5_000_000)
    if data.tokens > 1_000_000:
        return 2.0, msg("advise.epochs_many_tokens", tokens=data.tokens, limit=1_000_000)
    value = 5.0 if data.rows < 200 else USUAL_EPOCHS
    if case.goal and case.goal.learns_rows and data.answers:
        for_facts = math.ceil(TIMES_A_FACT * data.answers / data.rows)
        if for_facts > value:
            return float(for_facts), msg("advise.epochs_facts", answers=data.answers, times=TIMES_A_FACT)
    if data.rows < 200:
        return value, msg("advise.epochs_few_rows", rows=data.rows, limit=200)
    return value, msg("advise.epochs_usual", rows=data.rows, tokens=data.tokens)


def accumulation(case: Case, draft: Recipe) -> tuple[int, Message]:
    """Return how many micro-batches make a step nearest to `effective_batch`, with the reason."""
    examples = effective_batch(case, draft)
    micro = draft.train.per_device_train_batch_size
    value = max(1, round(examples / micro))
    facts = {"micro": micro, "effective": micro * value, "value": value}
    if case.data is None:
        return value, msg("advise.accumulation_without_data", **facts)
    return value, msg("advise.accumulation", rows=case.data.rows, **facts)


def learning_rate(case: Case, draft: Recipe) -> tuple[float, Message]:
    """Return the learning rate for the model's size or family, for pairs, a continued or a short run, with the reason.

    1e-3 below 1B was measured with the starter (docs/benchmarks.md: three sets, 20 of 20), so it does not apply to
    families with another known value. The others: docs/memory.md, section 7.
    """
    family, usual = case.family, usual_rate(case)
    if draft.train.compares or draft.rewards:
        return usual * PAIRS_RATE, msg("advise.rate_rewards" if draft.rewards else "advise.rate_pairs", usual=usual)
    if case.continues:
        # 20 steps with 3 corrections of a run that knows 32 facts (starter, 2026-12-02): they are learned; of the 32
        # it then knows 7 at 1e-3, 27 at 2e-4
        return min(usual, USUAL_RATE), msg("advise.rate_continues", limit=USUAL_RATE)
    if family and usual != usual_rate_of_size(case.billions):
        return usual, msg("advise.rate_of_family", family=family.title, source=family.settings_source)
    if usual != USUAL_RATE:
        return usual, msg(f"advise.rate_{'small' if usual > USUAL_RATE else 'large'}_model", size=case.size_name)
    steps = planned_steps(case, draft)
    if steps is not None and steps <= SHORT_RUN_STEPS:
        return 3e-4, msg("advise.rate_short_run", steps=steps, limit=SHORT_RUN_STEPS)
    return usual, msg("advise.rate_usual")


def usual_rate(case: Case) -> float:
    """Return the learning rate for the model's size; for a small model that of its family, if known."""
    of_size, of_family = usual_rate_of_size(case.billions), case.family and case.family.learning_rate
    return of_family if of_family and of_size > USUAL_RATE else of_size


def usual_rate_of_size(billions: float | None) -> float:
    """Return the learning rate that is usual for a model of so many billions of parameters; USUAL_RATE if unknown."""
    if billions is not None and billions < 1:
        return 1e-3
    return 1e-4 if billions is not None and billions >= 20 else USUAL_RATE


def offloaded_at_first(case: Case, draft: Recipe) -> int:
    """Return the number of offloaded layers for the first draft: the one that is set; for -1 (as few as needed) all if
    draft does not fit without, else 0; 0 on a CPU."""
    count = draft.train.offload_layers
    if case.on_cpu or count >= 0:
        return 0 if case.on_cpu else count
    fits = case.shape is None or case.fits(with_settings(draft, offload_layers=0)) is not False
    return 0 if fits or case.shape is None else case.shape.num_hidden_layers


def offload_reason(case: Case, requested: int, draft: Recipe) -> Message | None:
    """Return the reason for the offloaded layers of the finished draft, with their price in all steps; None if none
    were requested. requested: -1, as few as needed."""
    if not requested:
        return None
    if case.on_cpu:
        return msg("advise.offload_on_cpu")
    if case.shape is None:
        return msg("advise.offload_unknown" if requested > 0 else "advise.offload_unknown_fit")
    if not draft.train.offload_layers:
        return msg("advise.offload_fits", **case.numbers(draft))
    return msg("advise.offload_fewest" if requested < 0 else "advise.offload_chosen", **offload_facts(case, draft))


def least_copied(case: Case, draft: Recipe, sizes: Sequence[int]) -> int | None:
    """Return the batch size of sizes with which offloaded layers copy the fewest bytes for each example; None if none
    fits.

    A larger one needs more offloaded layers, and copies them less often.
    """

    def copied_bytes_a_row(size: int) -> float:
        """Return the bytes copied for each example in a batch of this size; inf if it does not fit."""
        each = with_settings(draft, per_device_train_batch_size=size)
        fewest = fewest_offloaded(case, each)
        if case.shape is None or fewest is None:
            return math.inf
        setup = Setup.from_recipe(with_settings(each, offload_layers=fewest), "card")
        return arithmetic.copied_bytes(case.shape, setup) / size

    best = min(sizes, key=copied_bytes_a_row)
    return best if copied_bytes_a_row(best) < math.inf else None


def fewest_offloaded(case: Case, draft: Recipe) -> int | None:
    """Return the fewest layers that must be kept in RAM for draft to fit on the GPU, 0 if none; None if it does not fit
    with all of them, on a CPU, or if the model or the free memory is unknown."""
    if case.shape is None or case.on_cpu or case.budget.free_gib is None:
        return None
    correction = case.corrections.for_method(draft.adapter.method)
    return arithmetic.fewest_offloaded(
        case.shape, Setup.from_recipe(draft, "card"), case.budget.free_gib, correction.factor if correction else 1.0
    )


def offload_facts(case: Case, draft: Recipe) -> dict[str, object]:
    """Return the values for a sentence on the layers that a draft keeps in RAM: how many, and at what price.

    `layers` of `of` (all of the model) are offloaded. `ram` is a message on the GiB of RAM needed, and free if that is
    known. `price` is a message on the GB that each batch copies to the GPU and the minutes that takes in all steps, or
    the seconds a batch if the number of steps is unknown. Requires a case with a shape.
    """
    assert case.shape
    setup, most = Setup.from_recipe(draft, "card"), case.shape.num_hidden_layers
    a_batch, speed = arithmetic.copied_bytes(case.shape, setup), memory_constants().bus.gb_per_s
    price = {"gb": a_batch / 1e9, "speed": speed, "seconds": arithmetic.copying_seconds(a_batch)}
    needed, free = arithmetic.ram_to_offload_gib(case.shape, setup), case.budget.ram_gib
    if (seconds := bus_seconds(case, draft)) is None:
        price_text = msg("advise.offload_price_a_batch", **price)
    else:
        price_text = msg("advise.offload_price", minutes=seconds / 60, **price)
    ram = msg("advise.offload_ram_unknown" if free is None else "advise.offload_ram", needed=needed, free=free)
    return {"layers": min(draft.train.offload_layers, most), "of": most, "ram": ram, "price": price_text}


def bus_seconds(case: Case, draft: Recipe) -> float | None:
    """Return the seconds for copying offloaded layers in all steps; None without offloading or with an unknown number
    of steps."""
    steps = planned_steps(case, draft)
    if case.shape is None or case.on_cpu or not draft.train.offload_layers or steps is None:
        return None
    batches = steps * draft.train.gradient_accumulation_steps
    return arithmetic.copying_seconds(batches * arithmetic.copied_bytes(case.shape, Setup.from_recipe(draft, "card")))


Decisions = Mapping[str, Callable[[Case, Recipe], tuple[object, Message]]]
DECISIONS: Decisions = {
    "max_length": max_length,
    "target_modules": target_modules,
    "method": method,
    "per_device_train_batch_size": batch_size,
    "r": rank,
    "optim": optimizer,
    "gradient_checkpointing": checkpointing,
    "lora_alpha": alpha,
    "num_train_epochs": epochs,
    "gradient_accumulation_steps": accumulation,
    "learning_rate": learning_rate,
}
_WITHOUT_MEMORY = ("lora_alpha", "num_train_epochs", "gradient_accumulation_steps", "learning_rate")
OF_MEMORY = {name: decision for name, decision in DECISIONS.items() if name not in _WITHOUT_MEMORY}
# Settings that only the person chooses, because they cost memory or time; their cost is shown. Values: the default,
# the key of a sentence with the cost, and one for an unknown cost.
COSTS: dict[str, tuple[object, str, str]] = {
    "use_dora": (False, "advise.dora_costs", "advise.dora_costs_unknown"),
    "load_in_8bit": (False, "advise.int8_saves", "advise.int8_unknown"),
    "target_parameters": ("none", "advise.experts_cost", "advise.experts_cost_unknown"),
}


def decide(case: Case, recipe: Recipe, decisions: Decisions = DECISIONS) -> tuple[Recipe, list[Reason]]:
    """Return recipe with all settings decided, and a reason for each decided or chosen one. decisions: the function for
    each setting that is to be decided, by name, in their order.

    Each function gets a draft that holds the decisions before it and the cheapest values for those after it. Settings
    that a person chose stay.
    """
    requested = recipe.train.offload_layers
    chosen = {name for name in SETTINGS if is_set(recipe, name)} - {"offload_layers"}
    cheapest = {
        "method": "lora" if case.on_cpu else "qlora",
        "max_length": desired_length(case),
        "optim": "adamw_torch" if case.on_cpu else "adamw_8bit",  # of the smallest states
        "per_device_train_batch_size": 1,
        "gradient_checkpointing": True,
        "r": RANKS[0],
        "lora_alpha": 2 * RANKS[0],
    }
    draft = with_settings(recipe, **{name: value for name, value in cheapest.items() if name not in chosen})
    draft = with_settings(draft, offload_layers=offloaded_at_first(case, draft))
    reasons: dict[str, Message] = {}
    for name, decision in decisions.items():
        if name == "gradient_checkpointing" and requested < 0 and draft.train.offload_layers:
            # all settings that need memory are decided
            draft = with_settings(draft, offload_layers=fewest_offloaded(case, draft) or draft.train.offload_layers)
        if name in chosen:
            reasons[name] = msg("advise.chosen")
            continue
        value, reasons[name] = decision(case, draft)
        draft = with_settings(draft, **{name: value})
    if "per_device_train_batch_size" not in chosen:  # recomputed: the rank was decided after it, and costs memory
        value, why = batch_size(case, draft)
        if value == draft.train.per_device_train_batch_size:
            reasons["per_device_train_batch_size"] = why
    if offloading := offload_reason(case, requested, draft):
        reasons["offload_layers"] = offloading
    reasons |= costs(case, draft)
    if "max_steps" in chosen:
        reasons["max_steps"] = msg("advise.chosen")
    # Undecided settings (max_steps) are written out too: a filled recipe has none open.
    filled = with_settings(draft, **values_of(draft))
    return filled, [Reason(field=name, text=reasons[name]) for name in SETTINGS if name in reasons]


def costs(case: Case, draft: Recipe) -> dict[str, Message]:
    """Return, by setting, a sentence on what it costs or saves: for each of use_dora, load_in_8bit and
    target_parameters that differs from its default, the plan's memory and trained parameters with it and without."""
    chosen = {name: how for name, how in COSTS.items() if value_of(draft, name) != how[0]}
    return {
        name: _cost_message(case, draft, with_settings(draft, **{name: usual}), keys)
        for name, (usual, *keys) in chosen.items()
    }


def _cost_message(case: Case, draft: Recipe, plain: Recipe, keys: list[str]) -> Message:
    """Return the message keys[0] with memory and trained parameters of draft and of plain; keys[1] if they are
    unknown."""
    known, unknown = keys
    estimate, without = case.estimate(draft), case.estimate(plain)
    if estimate is None or without is None:
        return msg(unknown)
    of_adapter = {"params": estimate.trainable_params, "plain_params": without.trainable_params}
    return msg(known, needed=estimate.on_card_gib, without=without.on_card_gib, **of_adapter)


# ---- what follows from them ----------------------------------------------------------------------
def judge(case: Case, draft: Recipe) -> tuple[Verdict, Message]:
    """Return (verdict, reason) on a plan's memory, by docs/design.md, section 5, rule 3.

    unknown: the model or the free memory is. does_not_fit: it needs more than is free. tight: it fits only without its
    margin, or the GPU is sold with less than the documented table's minimum for a plain plan (no 8-bit base, offloading
    or fsdp). Else fits.
    """
    estimate, free = case.estimate(draft), case.budget.free_gib
    if estimate is None:
        return "unknown", msg("advise.unknown_model")
    facts = {"needed": estimate.needed_gib, "bare": estimate.on_card_gib, "margin": estimate.margin, "free": free}
    if free is None:
        return "unknown", msg("advise.unknown_memory", **facts)
    if estimate.on_card_gib > free:
        return "does_not_fit", msg("advise.does_not_fit", **facts)
    if estimate.needed_gib > free:
        return "tight", msg("advise.tight", **facts)
    # The table's LoRA has a base in 16 bit, and all of it on the card.
    is_elsewhere = draft.train.offload_layers or draft.train.fsdp
    if not (draft.adapter.load_in_8bit or is_elsewhere) and (minimum := case.too_small_for(draft.adapter.method)):
        return "tight", msg("advise.tight_by_table", minimum=minimum, gb=case.budget.sold_gb, **facts)
    return "fits", msg("advise.fits", **facts)


def planned_steps(case: Case, draft: Recipe) -> int | None:
    """Return max_steps if it is set, else the number of optimizer steps as core/data/row_order counts them; None
    without data and max_steps."""
    if draft.train.max_steps > 0:
        return draft.train.max_steps
    if case.data is None:
        return None
    return schedule_of(case, case.data, draft).total_steps


def schedule_of(case: Case, data: DataFacts, draft: Recipe) -> row_order.Schedule:
    """Return the schedule of the rows that would be trained, for its number of steps. Its lengths are all 0."""
    rows = _trained_rows(data, case.eval_fraction) if case.trained_rows is None else max(1, case.trained_rows)
    if case.examples is not None:
        rows = max(1, round(rows * case.examples(draft.data.max_length) / max(1, data.rows)))
    lengths = (0,) * rows  # the number of steps does not depend on lengths
    train = draft.train
    batch = (train.per_device_train_batch_size, train.gradient_accumulation_steps)
    return row_order.Schedule(lengths, *batch, train.num_train_epochs, train.max_steps, 0)


def _trained_rows(data: DataFacts, eval_fraction: float) -> int:
    """Return the number of rows left for training: without the data's own validation rows, or else the share
    eval_fraction."""
    if data.validation is not None:
        return max(1, data.rows - data.validation)
    return data.rows - validation_split.validation_count(data.rows, eval_fraction)


def capacity_warning(case: Case, data: DataFacts, draft: Recipe) -> Message | None:
    """Return a warning if the adapter has fewer parameters than there are answer tokens, else None; None also for an
    unknown model."""
    if case.shape is None or (params := _capacity(case.shape, draft, draft.adapter.r)) >= data.learned_tokens:
        return None
    return msg("advise.warn_capacity", r=draft.adapter.r, params=params, tokens=data.learned_tokens)


def _capacity(shape: ModelShape, draft: Recipe, r: int) -> int:
    """Return the parameters of an adapter of rank r on draft's target modules."""
    return shape.lora_params(r, draft.adapter.target_modules, draft.adapter.trains_experts)
