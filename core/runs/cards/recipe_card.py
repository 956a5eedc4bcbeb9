"""A recipe card: one YAML file of a run for another PC, with its settings and results, read as carefully as a recipe.

lora_garage_card: 1, and the fields of RecipeCard. It holds no row of the data: only sample answers to questions that
are not rows, and the data's name, fingerprint and counts. Its recipe names the revision of the base that was trained,
if that is known.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from core.errors import RecipeError
from core.hub.cached import COMMIT
from core.recipe import Recipe, read_yaml, to_yaml
from core.runs import sample_answers, scenes, time_left
from core.runs.folder import RunFolder
from core.runs.run_json import RunFacts
from core.values import GIB, Frozen

MARK, VERSION = "lora_garage_card", 1
Line = Annotated[str, StringConstraints(max_length=300)]
Words = Annotated[str, StringConstraints(max_length=4000)]


class _CardPart(Frozen):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CardData(_CardPart):
    """The data set of a card. sha256: of the file, "" if unknown; learned, measured: rows."""

    name: Line = ""
    sha256: Line = ""
    rows: int | None = None
    learned: int | None = None
    measured: int | None = None


class CardOutcome(_CardPart):
    """The results of a card.

    device: the GPU's name, or cpu; memory_gib: the peak on it; continues: name of the run whose adapter it started
    from.
    """

    state: Line = ""
    step: int = 0
    device: Line = ""
    dtype: Line = ""
    memory_gib: float | None = None
    seconds: float | None = None
    tokens: int | None = None
    first_loss: float | None = None
    last_loss: float | None = None
    eval_loss: float | None = None
    forgetting: float | None = None
    continues: Line | None = None


class CardAnswer(_CardPart):
    asked: Words
    before: Words
    after: Words


class RecipeCard(_CardPart):
    lora_garage_card: Literal[1] = 1
    name: Line = ""
    made: Line = ""
    recipe: Recipe
    base_weights: Line | None = None
    data: CardData = CardData()
    outcome: CardOutcome = CardOutcome()
    versions: Annotated[dict[Line, Line], Field(max_length=40)] = {}
    film: Annotated[tuple[CardAnswer, ...], Field(max_length=24)] = ()

    def dump(self) -> str:
        return to_yaml(self.model_dump(mode="json", exclude_none=True))


def of_run(run: RunFolder) -> RecipeCard:
    """Return the card of a run, its base with the commit it was trained on. Raises RecipeError if its recipe cannot be
    read."""
    recipe, facts = run.recipe(), run.facts()
    commit = Path(facts.model_folder).name if facts.model_folder else ""
    if recipe.model.id != "starter" and not recipe.model.revision and COMMIT.fullmatch(commit):
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"revision": commit})})
    trained, data = facts.versions or {}, facts.data
    return RecipeCard(
        name=run.name,
        made=time.strftime("%Y-%m-%d", time.localtime(facts.created)),
        recipe=recipe.model_copy(update={"name": run.name[:60]}),
        base_weights=facts.base_weights,
        data=CardData(
            name=data.name[:300] if data else "", sha256=data.sha256[:300] if data else "",
            rows=data.rows if data else None,
            learned=facts.rows_trained, measured=facts.rows_measured,
        ),
        outcome=_outcome(run, facts),
        versions={name[:300]: version[:300] for name, version in [*trained.items()][:40]},
        film=_answers(run, facts.adapter_step),
    )  # fmt: skip


def _outcome(run: RunFolder, facts: RunFacts) -> CardOutcome:
    """Return the run's results from its status, facts and metrics; unknown ones are None."""
    status, metrics, memory = run.status(), run.all_metrics(), facts.memory
    losses = [line["loss"] for line in metrics if line.get("kind") == "train" and line.get("loss") is not None]
    tokens = [line.get("tokens_seen") or 0 for line in metrics if line.get("kind") == "train"]
    forgot = sample_answers.forgetting(sample_answers.read(run), facts.adapter_step)
    gib = memory and (memory.peak_gib or memory.measured_gib)
    if not gib and facts.peak_memory_bytes:
        gib = facts.peak_memory_bytes / GIB
    return CardOutcome(
        state=status.state.value, step=facts.adapter_step or status.step,
        device=(facts.device_name or facts.device or "")[:300],
        dtype=(facts.dtype or "")[:300], memory_gib=round(gib, 2) if gib else None,
        seconds=time_left.training_seconds(facts, status), tokens=max(tokens, default=None),
        first_loss=losses[0] if losses else None, last_loss=losses[-1] if losses else None,
        eval_loss=facts.best_eval_loss,
        forgetting=round(forgot.change, 4) if forgot else None,
        continues=facts.parent.name[:300] if facts.parent else None,
    )  # fmt: skip


def _answers(run: RunFolder, step: int | None) -> tuple[CardAnswer, ...]:
    """Return up to 24 sample answers before and after training, without those to rows of the data and those cut for
    lack of time."""
    film, shown = scenes.read(run), [frame for frame in sample_answers.read(run) if step is None or frame.step <= step]
    if film is None or len(shown) < 2:
        return ()
    rows = zip(film.scenes, shown[0].answers, shown[-1].answers, strict=False)
    return tuple(
        CardAnswer(asked=scene.question[:4000], before=before.text[:4000], after=after.text[:4000])
        for scene, before, after in rows
        if scene.source in ("own", "neutral") and "time" not in (before.why, after.why)
    )[:24]


def is_card(value: object) -> bool:
    return isinstance(value, dict) and MARK in value


def recipe_in(value: Any) -> Any:
    """Return the recipe of a parsed card; any other value unchanged."""
    return value.get("recipe") if is_card(value) else value


def read(path: Path) -> tuple[Recipe, RecipeCard | None]:
    """Return the recipe in a YAML file, and its card if the file is one, else None. Raises RecipeError, also for a card
    of a newer version."""
    value = read_yaml(path)
    if is_card(value) and isinstance(value[MARK], int) and value[MARK] > VERSION:
        raise RecipeError("recipe.newer_card", file=path.name, found=value[MARK], known=VERSION)
    recipe = Recipe.parse(recipe_in(value), where=path.name)
    if not is_card(value):
        return recipe, None
    try:
        return recipe, RecipeCard.model_validate(value | {"recipe": recipe})
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))[:80]
        raise RecipeError("recipe.damaged_card", file=path.name, where=where) from error
