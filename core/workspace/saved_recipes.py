"""The user's own presets: <workspace>/recipes/<id>.yaml, a recipe without data or name.

Files are replaced as a whole; one that was put there by hand counts too, and an invalid one is listed with its problem
instead of being hidden.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import files
from core.errors import RecipeError
from core.messages import Message
from core.recipe import Recipe, read_yaml, to_yaml
from core.workspace.names import display_name, short_id, slug

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
DATA_FIELDS = {
    "source",
    "format",
    "columns",
    "encoding",
    "sheet",
    "header",
    "voice",
    "gap_hours",
    "pseudonyms",
    "version",
}
NO_DATA = "-"  # data.source of a preset: a recipe must name one, a preset leaves it to the form


@dataclass(frozen=True)
class UserPreset:
    """A saved preset. recipe is None if the file is invalid; problem then has the reason."""

    id: str
    title: str
    recipe: Recipe | None
    problem: Message | None = None


@dataclass(frozen=True)
class UserPresets:
    """The presets in a folder."""

    folder: Path

    def list(self) -> Sequence[UserPreset]:
        """Return all presets, also unreadable ones, sorted by title; () if the folder cannot be read."""
        try:
            ids = [path.stem for path in self.folder.glob("*.yaml") if _ID.fullmatch(path.stem)]
        except OSError:
            return ()
        return sorted(
            (self._read(preset_id) for preset_id in ids), key=lambda preset: (preset.title.lower(), preset.id)
        )

    def get(self, preset_id: str) -> UserPreset:
        """Return the preset with this id, which has no recipe if its file is invalid. Raises RecipeError for an id that
        is not in the list; no id can leave the folder."""
        if not isinstance(preset_id, str) or not _ID.fullmatch(preset_id) or not self._path(preset_id).is_file():
            raise RecipeError("preset.unknown", id=display_name(preset_id))
        return self._read(preset_id)

    def save(self, title: str, recipe: Recipe) -> UserPreset:
        """Save the fields that recipe sets, without data and name, and return the preset. Replaces a preset of the same
        title. Raises RecipeError for an empty title, and if it cannot be written."""
        shown = display_name(title)
        if not shown:
            raise RecipeError("preset.no_title")
        same = next((preset.id for preset in self.list() if preset.title == shown), None)
        slugged = slug(shown, fallback="preset")
        preset_id = same or (f"{slugged}-{short_id()}" if self._path(slugged).exists() else slugged)
        value = recipe.model_dump(mode="json", exclude_unset=True, exclude={"name": True, "data": DATA_FIELDS})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            files.replace(self._path(preset_id), to_yaml({"title": shown} | value))
        except OSError as error:
            raise RecipeError("preset.cannot_save", title=shown, reason=error.strerror or error) from error
        return self._read(preset_id)

    def delete(self, preset_id: str) -> None:
        """Delete a preset. Raises RecipeError for an unknown id, and if the file cannot be removed."""
        preset = self.get(preset_id)
        try:
            self._path(preset_id).unlink()
        except OSError as error:
            raise RecipeError("preset.cannot_delete", title=preset.title, reason=error.strerror or error) from error

    def _path(self, preset_id: str) -> Path:
        return self.folder / f"{preset_id}.yaml"

    def _read(self, preset_id: str) -> UserPreset:
        """Return a preset; one that cannot be read has a problem and no recipe. A missing title is the id, a missing
        data.source NO_DATA."""
        path = self._path(preset_id)
        title: Any = None
        try:
            value = read_yaml(path)
            if isinstance(value, dict):
                title = value.pop("title", None)
                value.setdefault("data", {})
                if isinstance(value["data"], dict):
                    value["data"].setdefault("source", NO_DATA)
            return UserPreset(preset_id, display_name(title or preset_id), Recipe.parse(value, where=path.name))
        except RecipeError as error:
            return UserPreset(preset_id, display_name(title or preset_id), None, error.message)
