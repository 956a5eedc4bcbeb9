"""settings.yaml of the workspace: written by the user, never by the page. A broken file is reported with the reason."""

from __future__ import annotations

from pathlib import Path

import yaml

from core.errors import RecipeError, reason_of
from core.files import JsonObject

NAME = "settings.yaml"


def read(root: Path) -> JsonObject:
    """Return the file's values; {} if there is none. Raises RecipeError for a file that is no mapping, or no YAML."""
    file = root / NAME
    if not file.exists():
        return {}
    try:
        values = yaml.safe_load(file.read_text("utf-8")) or {}
        return dict(values.items())
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise RecipeError("workspace.bad_settings", file=file, reason=reason_of(error)) from error


def llama_cpp(root: Path) -> str | None:
    """Return the value of `llama_cpp` in settings.yaml, None if it is not set. The app knows "never", which forbids the
    download and use of llama.cpp's tools. Raises RecipeError as `read`."""
    value = read(root).get("llama_cpp")
    return str(value) if value else None
