"""The reading choices of a recipe that fills the form: voice, columns, sheet, encoding, version.

It travels with the form's answers and goes before what is kept with the set, until somebody says otherwise in the data
step. The set itself is left as it is, so that whoever opens an old run changes nothing for others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from core.data.reading.choices import NO_CHOICES, Choices
from core.recipe import Data
from core.values import Frozen
from core.workspace.folder import expand

LONGEST_TITLE = 120


class BroughtReading(Frozen):
    """title: of the recipe or run. data: the id of the set that is meant; of others nothing is said. Where there is
    none, what the recipe names instead, and found: whether that is a file on this PC that the visitor may add by its
    path."""

    title: str
    data: str
    choices: Choices
    found: bool = False

    @classmethod
    def of_state(cls, state: Any) -> Self | None:
        """From the page: None for whatever is none of ours."""
        try:
            data = Data.model_validate(state["choices"] | {"source": state["data"]})
            return cls(
                title=state["title"][:LONGEST_TITLE],
                data=data.source,
                choices=Choices.from_data(data),
                found=state.get("found") is True,
            )
        except (TypeError, KeyError, ValidationError):
            return None

    @classmethod
    def of(cls, data: Data, id: str, title: str) -> Self | None:
        choices = Choices.from_data(data)
        return cls(title=title[:LONGEST_TITLE], data=id, choices=choices) if choices.chosen else None

    @classmethod
    def missing(cls, data: Data, title: str, is_here: bool) -> Self:
        """Whether there is a file of some name is said to nobody elsewhere."""
        choices = Choices.from_data(data).model_copy(update={"version": None})
        return cls(
            title=title[:LONGEST_TITLE], data=data.source, choices=choices, found=is_here and is_file(data.source)
        )

    @property
    def file(self) -> str:
        return re.split(r"[\\/]", self.data)[-1]

    def means(self, path: str) -> bool:
        """Whether an upload is the file that the recipe names; gradio changes some characters of a name."""
        return _letters(self.file) == _letters(Path(path).name)

    def state(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def is_file(source: str) -> bool:
    try:
        return expand(source).is_absolute() and expand(source).is_file()
    except (OSError, ValueError):
        return False


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def choices_for(data: Any, brought: BroughtReading | None) -> Choices:
    return brought.choices if brought and brought.data == data else NO_CHOICES
