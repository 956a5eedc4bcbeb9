"""The results of a run for others: its numbers and sample answers, without a row of its data; and its recipe, which
names the revision of the base that was trained, if that is known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.hub.cached import COMMIT
from core.recipe import Recipe
from core.runs import sample_answers, scenes, time_left
from core.runs.folder import RunFolder
from core.runs.measure import is_of_rewards, measures
from core.values import GIB


@dataclass(frozen=True)
class CardOutcome:
    """The results of a run. device: the GPU's name, or cpu; memory_gib: the peak on it."""

    step: int
    device: str
    memory_gib: float | None
    seconds: float | None
    first: float | None
    last: float | None
    evaluated: float | None
    is_reward: bool


@dataclass(frozen=True)
class CardAnswer:
    """The answers to a question before and after training."""

    question: str
    before: str
    after: str


def shared_recipe(run: RunFolder) -> Recipe:
    """Return a run's recipe for another PC, with the commit of the base that was trained, if known, and the run's name.
    Raises RecipeError if it cannot be read."""
    recipe, facts = run.recipe(), run.facts()
    commit = Path(facts.model_folder).name if facts.model_folder else ""
    if recipe.model.id != "starter" and not recipe.model.revision and COMMIT.fullmatch(commit):
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": commit})})
    return recipe.model_copy(update={"name": run.name[:60]})


def outcome(run: RunFolder) -> CardOutcome:
    """Return the run's results from its status, facts and metrics; unknown ones are None."""
    status, facts = run.status(), run.facts()
    memory = facts.memory
    metrics = run.all_metrics()
    trained = measures(metrics, "train")
    evaluated = measures(metrics, "eval", facts.adapter_step) if facts.best_reward is not None else []
    gib = memory and (memory.peak_gib or memory.measured_gib)
    if not gib and facts.peak_memory_bytes:
        gib = facts.peak_memory_bytes / GIB
    return CardOutcome(
        step=facts.adapter_step or status.step,
        device=facts.device_name or facts.device or "",
        memory_gib=round(gib, 2) if gib else None,
        seconds=time_left.training_seconds(facts, status),
        first=trained[0] if trained else None,
        last=trained[-1] if trained else None,
        evaluated=evaluated[-1] if evaluated else facts.best_eval_loss,
        is_reward=any(map(is_of_rewards, metrics)),
    )


def answers(run: RunFolder, step: int | None) -> tuple[CardAnswer, ...]:
    """Return sample answers before and after training up to a step (None: all), without those to rows of the data and
    those cut for lack of time; () unless there are two frames."""
    film, shown = scenes.read(run), [frame for frame in sample_answers.read(run) if step is None or frame.step <= step]
    if film is None or len(shown) < 2:
        return ()
    rows = zip(film.scenes, shown[0].answers, shown[-1].answers, strict=False)
    return tuple(
        CardAnswer(scene.question, before.text, after.text)
        for scene, before, after in rows
        if scene.source in ("own", "neutral") and "time" not in (before.why, after.why)
    )
