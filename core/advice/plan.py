"""Completion of a recipe: fills open settings, and keeps the advice that did it. After `make` no field is empty.

Priority, highest first: the person's settings; those of a sample set (tried with the starter, so only there); the
advice; the recipe's defaults.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from core.advice import recommend
from core.advice.case import Advice, Grounds, Reason
from core.advice.decisions import SETTINGS, as_json, is_set, with_settings
from core.advice.goals import goal_of
from core.data.reading.choices import Choices
from core.data.sample_sets import sample_of
from core.data.sets.inspection import taken_as, undecided_error
from core.data.store import DatasetStore
from core.errors import DataError
from core.judges import weighted
from core.messages import msg
from core.recipe import USUAL_BETA, Data, Recipe
from core.runs import further
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts, TrainedOn
from core.workspace import names

LEARNS_ROWS = {
    "early_stopping_patience": 0,
    "load_best_model_at_end": False,
}  # of a goal that does (Goal)


@dataclass(frozen=True)
class Plan:
    """A complete recipe, ready to start, with its advice: the same decisions with reasons, verdict and memory."""

    recipe: Recipe
    advice: Advice


Begun = TypeVar("Begun")


def submit(
    made: Plan,
    datasets: DatasetStore,
    begin: Callable[[Recipe, RunFacts], Begun],
    device: str | None,
    parent: RunFolder | None = None,
    seconds: float | None = None,
) -> Begun:
    """Create or queue the run of a plan with begin(recipe, facts), the recipe's data fixed at its present version, and
    return what that returns.

    device: where it is to train (core/system/devices). parent: the run whose adapter it continues. seconds: the
    predicted time. Raises DataError if the set cannot be read, or nobody has decided which column is the answer, and
    what begin raises.
    """
    require_decided(datasets, made.recipe.data)
    recipe = made.recipe.model_copy(update={"data": datasets.pinned(made.recipe.data)})
    info, data = datasets.get(recipe.data.source), recipe.data
    report = datasets.report(info.id, data.format, Choices.from_data(data))
    facts = RunFacts(
        data=TrainedOn(
            id=info.id,
            name=info.id if info.origin == "sample" else info.name or info.id,
            sha256=report.sha256,
            rows=report.good_rows,
            version=data.version or 0,
            made_by=info.made_by,
        ),
        advice=as_json(made.advice),
        wanted_device=device,
        wanted_beside=dict(made.advice.budget.beside),
        predicted_seconds=seconds,
        parent=further.facts_of(parent).parent if parent else None,
    )
    return begin(recipe, facts)


def require_decided(datasets: DatasetStore, data: Data, accept_guess: bool = True) -> None:
    """Raise DataError if nothing shows which column of a set is the answer, or who answers in a chat; or, without
    accept_guess, also if only the contents of its rows do."""
    report = datasets.report(data.source, data.format, Choices.from_data(data))
    if not report.undecided and (accept_guess or not report.guessed):
        return
    if report.undecided:
        raise undecided_error(report)
    if report.chat:
        raise DataError("data.is_guessed_voice", voice=report.chat.voice)
    in_turn = [note for note in report.notes if note.key == "data.note_turns"]
    raise DataError("data.is_guess", taken=taken_as(report.roles) or in_turn)


def make(recipe: Recipe, grounds: Grounds, data_name: str = "") -> Plan:
    """Return the plan: recipe with every open setting filled, from its sample dataset or by advice, and the advice.
    Raises RecipeError for settings that exclude each other (a layer that the model lacks)."""
    recipe, from_sample = with_sample(recipe)
    if recipe.rewards:
        weighted.read(recipe.rewards.judges)
    adapter, asks_for_lora = recipe.adapter, None
    if not is_set(recipe, "method") and (adapter.load_in_8bit or adapter.is_pissa):
        # nothing else can be meant (recipe.clashes)
        asks_for_lora = msg("plan.lora_in_8bit" if adapter.load_in_8bit else "plan.lora_for_pissa")
        recipe = with_settings(recipe, method="lora")
    advised = recommend.recommend(recipe, grounds)
    texts = dict.fromkeys(from_sample, msg("plan.from_sample")) | ({"method": asks_for_lora} if asks_for_lora else {})
    reasons = tuple(
        Reason(field=reason.field, text=texts[reason.field]) if reason.field in texts else reason
        for reason in advised.reasons
    )
    advised = advised.model_copy(update={"reasons": reasons})
    return Plan(resolve(advised.recipe, data_name, has_card=grounds.budget.kind == "card"), advised)


def with_sample(recipe: Recipe) -> tuple[Recipe, frozenset[str]]:
    """Return recipe with those settings of its sample dataset that it leaves open, and their names; unchanged for other
    data, or models other than the starter."""
    sample = sample_of(recipe.data.source) if recipe.model.id == "starter" else None
    if sample is None:
        return recipe, frozenset()
    applied = set()
    value = {"goal": recipe.goal or sample.goal}
    for section, given in (("adapter", sample.adapter), ("train", sample.train)):
        current = getattr(recipe, section)
        left_out = {name: setting for name, setting in given.items() if name not in current.model_fields_set}
        if "num_train_epochs" in current.model_fields_set:
            left_out.pop("max_steps", None)  # the person counted in epochs
        if "r" in current.model_fields_set:
            left_out.pop("lora_alpha", None)  # it belongs to the sample's own rank
        applied |= left_out.keys() & SETTINGS.keys()
        value[section] = current.model_copy(update=left_out)
    return recipe.model_copy(update=value), frozenset(applied)


def resolve(recipe: Recipe, data_name: str, has_card: bool) -> Recipe:
    """Return recipe with every default written out, without advice, and a name (data_name if it has none). has_card
    decides on optimizer and checkpointing. eval_steps and save_steps wait for the number of steps."""
    train = recipe.train
    if recipe.goal and goal_of(recipe.goal).learns_rows:
        unset = {name: value for name, value in LEARNS_ROWS.items() if name not in train.model_fields_set}
        train = train.model_copy(update=unset)
    train = train.model_copy(
        update={
            "beta": recipe.train.beta or USUAL_BETA.get(recipe.train.objective),
            "optim": recipe.train.optim or ("adamw_8bit" if has_card else "adamw_torch"),
            "gradient_checkpointing": has_card
            if recipe.train.gradient_checkpointing is None
            else recipe.train.gradient_checkpointing,
        }
    )
    adapter = recipe.adapter.model_copy(update={"lora_alpha": recipe.lora_alpha})
    rewards = recipe.rewards
    if rewards and "beta" not in rewards.model_fields_set and not adapter.is_pissa:  # with which no beta goes
        rewards = rewards.model_copy(update={"beta": weighted.usual_beta(weighted.read(rewards.judges))})
    name = names.display_name(recipe.name) or names.display_name(data_name) or "run"
    return recipe.model_copy(update={"train": train, "adapter": adapter, "rewards": rewards, "name": name})
