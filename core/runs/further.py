"""Continued training: a new run that starts from the adapter of a finished run. Only the weights; the optimizer starts
fresh. And the names that tell runs apart. No torch.

The parent is recorded in the child's run.json, not in its recipe: a recipe is shareable, and on other PCs nobody has
that run.

<child>/start/   adapter_config.json and adapter_model.safetensors of the parent, copied when the child is created

So a parent may be deleted at any time: its children hold what they began with. Settings that an adapter is fitted to
stay (base, method, rank, alpha, layers); data, steps, learning rate and all else may change.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from core.errors import ModelError, RecipeError, RunError, reason_of
from core.messages import as_typed, msg
from core.models import adapters
from core.models.weights import open_tensors
from core.recipe import Recipe
from core.runs.folder import RunFolder
from core.runs.run_json import Parent, RunFacts
from core.runs.states import State
from core.workspace import names

FILES = ("adapter_config.json", "adapter_model.safetensors")
LOCKED = (
    ("model", "id"), ("model", "revision"), ("adapter", "method"), ("adapter", "r"), ("adapter", "lora_alpha"),
    ("adapter", "target_modules"), ("adapter", "use_rslora"), ("adapter", "use_dora"),
    ("adapter", "init_lora_weights"), ("adapter", "load_in_8bit"), ("adapter", "target_parameters"),
)  # fmt: skip
SECTIONS, MAX_DIFFERING = ("adapter", "train", "model", "data"), 3
# Those that people change; the others follow from them or from the data, and are named only if these are alike.
USUAL = (
    ("adapter", "r"), ("train", "learning_rate"), ("train", "max_steps"), ("train", "num_train_epochs"),
    ("adapter", "method"), ("train", "objective"), ("model", "id"), ("data", "source"),
)  # fmt: skip
NAMELESS = {"learning_rate", "method", "objective", "id", "source"}  # their value alone says which setting it is
NUMBERED = re.compile(r"^(.*) · (\d{1,4})$")


def may_be_parent(state: State) -> bool:
    """Return whether a new run may start from the adapter of a run in this state: one that is completed or stopped.

    A paused, interrupted or failed run is resumed instead. Whether the adapter can be used is for `check` to find.
    """
    return state in (State.COMPLETED, State.STOPPED)


def check(parent: RunFolder) -> Recipe:
    """Return the parent's recipe. Raises RunError with the reason if no run can start from its adapter: it is not
    completed or stopped, has no adapter or a damaged one, or was brought in with settings that training by this app
    does not have."""
    state = parent.status().state
    if not may_be_parent(state):
        raise RunError("further.not_ended", name=parent.name, state=msg(f"state.{state.value}"))
    if not parent.has_adapter():
        raise RunError("further.no_adapter", name=parent.name)
    if settings := parent.facts().not_further:
        raise RunError("further.settings", name=parent.name, found=settings)
    recipe = parent.recipe()
    _check_adapter(parent, recipe)
    return recipe


def _check_adapter(parent: RunFolder, recipe: Recipe) -> None:
    """Raise RunError unless the parent's adapter can be read, has the recipe's rank (twice that with PiSSA), and
    belongs to its base."""
    try:
        adapter = adapters.describe(parent.adapter)
        with open_tensors(parent.adapter / "adapter_model.safetensors", "np") as opened:
            # raises if the header does not match the file
            factors = [name for name in opened.keys() if name.endswith(".lora_A.weight")]  # noqa: SIM118 - no mapping
            # The factors of all experts are stacked.
            ranks = {
                opened.get_slice(name).get_shape()[0]
                for name in factors
                if not adapters.layer_of(name).endswith(".experts")
            }
    except ModelError as error:
        raise RunError("further.damaged", name=parent.name, reason=error.message) from error
    except Exception as error:  # noqa: BLE001 - safetensors raises its own kind for whatever is wrong with a file
        raise RunError("further.damaged", name=parent.name, reason=reason_of(error)) from error
    expected = recipe.adapter.r * (2 if recipe.adapter.is_pissa else 1)  # see core/engine/variants/pissa
    if not ranks or adapter.r != expected or ranks != {expected}:
        reason = msg("further.other_rank", found=str(sorted(ranks or {adapter.r})), expected=expected)
        raise RunError("further.damaged", name=parent.name, reason=reason)
    if adapter.base not in (recipe.model.id, parent.facts().model_folder):
        raise RunError("further.other_base", name=parent.name, found=adapter.base[:200], expected=recipe.model.id)


def recipe_of(parent: RunFolder) -> Recipe:
    """Return the parent's settings under the next name, to start from. Raises RunError as `check`."""
    recipe = check(parent)
    return recipe.model_copy(update={"name": next_name(parent.name)})


def recipe_to_continue(recipe: Recipe, parent: RunFolder) -> Recipe:
    """Return recipe with the parent's values for the locked settings, and the parent's next name ("Pirate · 2") if it
    has none; the parent itself is not noted in it.

    Raises RunError if no run can start from parent: not ended, without an adapter, or with a damaged one (see `check`);
    RecipeError if recipe itself sets a locked setting to another value.
    """
    then = check(parent)
    require_alike(recipe, then, parent.name)
    return with_locked_settings(recipe, then).model_copy(update={"name": recipe.name or next_name(parent.name)})


def next_name(name: str) -> str:
    """Return a name's successor: "Pirate" -> "Pirate · 2" -> "Pirate · 3"."""
    numbered = NUMBERED.match(name)
    base, number = (numbered[1], int(numbered[2]) + 1) if numbered else (name, 2)
    ending = f" · {number}"
    return names.display_name(base, 60 - len(ending)) + ending


def free_name(recipe: Recipe, taken: Mapping[str, RunFolder]) -> str:
    """Return a name that no run has (taken: each run by its name): the recipe's, or with the settings that differ from
    the run of that name, such as "Pirate · r 16 · 5e-4", or numbered if nothing does."""
    name = recipe.name
    if name in taken:
        other = taken.get(name.partition(" · ")[0], taken[name])  # by the beginning of a name that was made so
        with suppress(RecipeError):
            if settings := names.display_name(" · ".join(_differing(recipe, other.recipe())), 40):
                name = f"{names.display_name(other.name, 57 - len(settings))} · {settings}"
    while name in taken:
        name = next_name(name)
    return name


def _differing(recipe: Recipe, other: Recipe) -> list[str]:
    """Return up to MAX_DIFFERING settings in which recipe differs from other, with recipe's values, as "r 16", "5e-4",
    "epochs 2" or "Qwen3-8B". If any of the USUAL settings differs, only these are named.

    Settings that are empty in recipe, and lists, are left out.
    """
    every = ((section, key) for section in SECTIONS for key in type(getattr(recipe, section)).model_fields)
    keys = [key for key in dict.fromkeys([*USUAL, *every]) if _value(recipe, *key) != _value(other, *key)]
    values = ((key[1], _value(recipe, *key)) for key in [key for key in keys if key in USUAL] or keys)
    usable = ((key, value) for key, value in values if isinstance(value, str | float | int) and value not in ("", -1))
    return [_as_in_a_name(key, value) for key, value in usable][:MAX_DIFFERING]


def _as_in_a_name(key: str, value: str | float) -> str:
    """Return a setting's value as a run's name shows it: "r 16", "epochs 2", 0.0005 as "5e-4"; of a path or a model's
    id only the last part; some settings without their name."""
    if key == "learning_rate" and isinstance(value, float):
        return re.sub(r"\.?0*e-0?", "e-", f"{value:.3e}")
    text = re.split(r"[:/\\]", value)[-1] if isinstance(value, str) else as_typed(value)
    return text if key in NAMELESS else f"{key.removeprefix('num_train_').removeprefix('max_')} {text}"


def with_locked_settings(recipe: Recipe, parent: Recipe) -> Recipe:
    """Return recipe with the settings that a continued run must keep (LOCKED) replaced by the parent's."""
    sections: dict[str, dict[str, object]] = {}
    for section, name in LOCKED:
        sections.setdefault(section, {})[name] = _value(parent, section, name)
    return recipe.model_copy(
        update={key: getattr(recipe, key).model_copy(update=values) for key, values in sections.items()}
    )


def require_alike(recipe: Recipe, parent: Recipe, name: str) -> None:
    """Raise RecipeError naming every locked setting that recipe sets to another value than the parent's, called `name`.
    A setting that recipe leaves out or gives as None is taken as the parent's."""
    differences = []
    for section, key in LOCKED:
        value, expected = _value(recipe, section, key), _value(parent, section, key)
        # A setting that is left out, or at its default, is the parent's.
        if value != expected and key in getattr(recipe, section).model_fields_set and value is not None:
            differences.append(f"{section}.{key} {value} (“{name}”: {expected})")
    if differences:
        raise RecipeError("further.locked", name=name, found="; ".join(differences))


def _value(recipe: Recipe, section: str, key: str) -> object:
    """Return a setting of a section, lora_alpha resolved."""
    return recipe.lora_alpha if key == "lora_alpha" else getattr(getattr(recipe, section), key)


def facts_of(parent: RunFolder) -> RunFacts:
    """Return the facts with what the child's run.json records of its parent.

    step: of the adapter that the parent kept. eval_loss: the parent's last one up to that step, None if never measured.
    """
    facts = parent.facts()
    step = parent.status().step if facts.adapter_step is None else facts.adapter_step
    measured = [
        line.get("eval_loss") for line in parent.all_metrics() if line.get("kind") == "eval" and line["step"] <= step
    ]
    eval_loss = measured[-1] if measured else None
    return RunFacts(
        parent=Parent(run=parent.id, name=parent.name, step=step, eval_loss=eval_loss, template=facts.template)
    )


def start_of(run: RunFolder) -> Path:
    """Return the folder of the adapter that the run starts from."""
    return run.path / "start"


def bring_start(parent: RunFolder, child: Path) -> None:
    """Copy the parent's adapter into child, a folder that is not yet visible. Raises RunError as `check`, OSError."""
    check(parent)
    (child / "start").mkdir()
    for name in FILES:
        shutil.copyfile(parent.adapter / name, child / "start" / name)
