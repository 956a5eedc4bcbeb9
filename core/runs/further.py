"""Train further: a new run that starts from a finished run's adapter. Only the weights; the optimizer starts fresh. No
torch.

The parent stands in the child's run.json, not in its recipe: a recipe is shareable, and elsewhere nobody has that run.

<child>/start/   adapter_config.json and adapter_model.safetensors of the parent, copied when the child is made

So a parent may be deleted at any time: its children hold what they began with. What an adapter is fitted to stays as it
was (base, method, rank, alpha, layers); data, steps, learning rate and all else may change.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from core.errors import ModelError, RecipeError, RunError, reason_of
from core.messages import msg
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
NUMBERED = re.compile(r"^(.*) · (\d{1,4})$")


def may_continue(state: State) -> bool:
    """By its state; whether its adapter is whole is looked at when it is asked for."""
    return state in (State.COMPLETED, State.STOPPED)


def check(parent: RunFolder) -> Recipe:
    """The parent's recipe. Raises RunError where a child cannot start from it, with the reason."""
    state = parent.status().state
    if not may_continue(state):
        raise RunError("further.not_ended", name=parent.name, state=msg(f"state.{state.value}"))
    if not parent.has_adapter():
        raise RunError("further.no_adapter", name=parent.name)
    recipe = parent.recipe()
    _check_adapter(parent, recipe)
    return recipe


def _check_adapter(parent: RunFolder, recipe: Recipe) -> None:
    try:
        found = adapters.describe(parent.adapter)
        with open_tensors(parent.adapter / "adapter_model.safetensors", "np") as opened:
            # refuses a header that is not its file's
            factors = [name for name in opened.keys() if name.endswith(".lora_A.weight")]  # noqa: SIM118 - no mapping
            # Those of experts lie one below the other.
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
    if not ranks or found.r != expected or ranks != {expected}:
        reason = msg("further.other_rank", found=str(sorted(ranks or {found.r})), expected=expected)
        raise RunError("further.damaged", name=parent.name, reason=reason)
    if found.base not in (recipe.model.id, parent.facts().model_folder):
        raise RunError("further.other_base", name=parent.name, found=found.base[:200], expected=recipe.model.id)


def recipe_of(parent: RunFolder) -> Recipe:
    """The parent's settings under the next name, as a place to start from. Raises RunError as `check`."""
    recipe = check(parent)
    return recipe.model_copy(update={"name": next_name(parent.name)})


def child_of(recipe: Recipe, parent: RunFolder) -> Recipe:
    """recipe for a run that continues parent: under the next name where it has none, and with what is fitted to the
    parent's adapter. Raises RunError as `check`, RecipeError as `require_alike`."""
    then = check(parent)
    require_alike(recipe, then, parent.name)
    return held_to(recipe, then).model_copy(update={"name": recipe.name or next_name(parent.name)})


def next_name(name: str) -> str:
    """ "Pirate" -> "Pirate · 2" -> "Pirate · 3" """
    numbered = NUMBERED.match(name)
    base, number = (numbered[1], int(numbered[2]) + 1) if numbered else (name, 2)
    ending = f" · {number}"
    return names.display_name(base, 60 - len(ending)) + ending


def held_to(recipe: Recipe, parent: Recipe) -> Recipe:
    """recipe with what is fitted to the parent's adapter as the parent has it."""
    sections: dict[str, dict[str, Any]] = {}
    for section, name in LOCKED:
        sections.setdefault(section, {})[name] = _value(parent, section, name)
    return recipe.model_copy(
        update={key: getattr(recipe, key).model_copy(update=values) for key, values in sections.items()}
    )


def require_alike(recipe: Recipe, parent: Recipe, name: str) -> None:
    """Raises RecipeError naming every setting that is another than the parent's and may not be."""
    found = []
    for section, key in LOCKED:
        given, then = _value(recipe, section, key), _value(parent, section, key)
        # Left out is the parent's; in a recipe of its own a default counts as left out too.
        if given != then and key in getattr(recipe, section).model_fields_set and given is not None:
            found.append(f"{section}.{key} {given} (“{name}”: {then})")
    if found:
        raise RecipeError("further.locked", name=name, found="; ".join(found))


def _value(recipe: Recipe, section: str, key: str) -> Any:
    return recipe.lora_alpha if key == "lora_alpha" else getattr(getattr(recipe, section), key)


def facts_of(parent: RunFolder) -> RunFacts:
    """For the child's run.json. step: of the adapter that the parent kept. eval_loss: the parent's last until there,
    None where it was never measured."""
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
    return run.path / "start"


def bring_start(parent: RunFolder, child: Path) -> None:
    """Copy into child (a folder that nobody sees yet) what it starts from. Raises RunError as `check`, OSError."""
    check(parent)
    (child / "start").mkdir()
    for name in FILES:
        shutil.copyfile(parent.adapter / name, child / "start" / name)
