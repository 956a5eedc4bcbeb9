"""What a person chose for the whole workspace on the Settings page: <workspace>/preferences.json, written by that page.

Workers read it when they need it, so that a change also counts for what is training already.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core import files
from core.errors import RecipeError
from core.workspace.automation import Automation
from core.workspace.folder import Workspace

WhenAlone = Literal["go_on", "pause"]


class Preferences(BaseModel):
    model_config = ConfigDict(frozen=True)

    v: int = 1
    when_alone: WhenAlone = Field("go_on", description="What a training does whose app has ended without a word.")
    automation: Automation = Field(Automation(), description="What happens by itself between runs, and game mode.")


def read(workspace: Workspace) -> Preferences:
    """The defaults where nothing was chosen yet, or where the file is not readable."""
    try:
        return Preferences.model_validate(files.read_json(workspace.root / "preferences.json"))
    except ValidationError:
        return Preferences()


def choose(workspace: Workspace, **changes: object) -> Preferences:
    """Raises RecipeError for what is no choice, and where it cannot be written."""
    try:
        chosen = Preferences.model_validate(read(workspace).model_dump() | changes)
        files.replace_json(workspace.root / "preferences.json", chosen.model_dump())
    except ValidationError:
        raise RecipeError("preferences.no_choice", found=str(changes)[:100]) from None
    except OSError as error:
        raise RecipeError("preferences.cannot_save", reason=error.strerror or error) from error
    return chosen
