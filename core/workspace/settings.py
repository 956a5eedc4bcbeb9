"""settings.yaml of the workspace: written by the person, never by the page. A broken file is reported with the
reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from core.errors import RecipeError, reason_of

NAME = "settings.yaml"


def read(root: Path) -> dict[str, Any]:
    """Empty where there is none. Raises RecipeError for one that is no mapping, or no YAML."""
    file = root / NAME
    if not file.exists():
        return {}
    try:
        found = yaml.safe_load(file.read_text("utf-8")) or {}
        return dict(found.items())
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise RecipeError("workspace.bad_settings", file=file, reason=reason_of(error)) from error


def llama_cpp(root: Path) -> str | None:
    """`llama_cpp: FOLDER` or `llama_cpp: never`; None where nothing is said."""
    said = read(root).get("llama_cpp")
    return str(said) if said else None
