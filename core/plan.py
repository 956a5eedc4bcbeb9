"""What is left out of a recipe, decided before Start: after `resolve` no field is empty.

The advice (LoRA or QLoRA, which rank, what fits) is built here next; today the person chooses and the rest follows.
"""

from __future__ import annotations

from core import slug
from core.recipe import Recipe


def resolve(recipe: Recipe, data_name: str, has_card: bool) -> Recipe:
    """recipe with every default written out. eval_steps and save_steps stay empty only until the rows are counted."""
    train = recipe.train.model_copy(
        update={
            "optim": recipe.train.optim or ("paged_adamw_8bit" if has_card else "adamw_torch"),
            "gradient_checkpointing": has_card
            if recipe.train.gradient_checkpointing is None
            else recipe.train.gradient_checkpointing,
        }
    )
    adapter = recipe.adapter.model_copy(update={"lora_alpha": recipe.lora_alpha})
    name = slug.display_name(recipe.name) or slug.display_name(data_name) or "run"
    return recipe.model_copy(update={"train": train, "adapter": adapter, "name": name})
