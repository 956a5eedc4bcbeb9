"""The reading choices of a recipe that fills the form: voice, columns, sheet, encoding, version.

They are part of the form's answers and take precedence over the dataset's stored choices until a person changes them in
the data step. The dataset itself is not changed, so that opening an old run has no effect on others.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from core.data.reading.choices import NO_CHOICES, Choices
from core.files import JsonObject
from core.recipe import Data
from core.values import Frozen
from core.workspace.folder import expand

LONGEST_TITLE = 120


class RecipeReading(Frozen):
    """The choices of a recipe for one dataset.

    title: of the recipe or run. data: the id of the dataset; if it does not exist, the recipe's name for it. found:
    true if that is a file on this PC that the visitor may add by its path.
    """

    title: str
    data: str
    choices: Choices
    is_known: bool = False

    @classmethod
    def from_state(cls, state: Any) -> Self | None:
        """Return the choices from the page's JSON; None for anything invalid."""
        try:
            data = Data.model_validate(state["choices"] | {"source": state["data"]})
            return cls(
                title=state["title"][:LONGEST_TITLE],
                data=data.source,
                choices=Choices.from_data(data),
                is_known=state.get("is_known") is True,
            )
        except (TypeError, KeyError, ValidationError):
            return None

    @classmethod
    def from_data(cls, data: Data, id: str, title: str) -> Self | None:
        """Return all choices in `data`, labelled with their dataset's id and title (cut to LONGEST_TITLE); None if
        nothing is chosen."""
        choices = Choices.from_data(data)
        return cls(title=title[:LONGEST_TITLE], data=id, choices=choices) if choices.chosen else None

    @classmethod
    def missing(cls, data: Data, title: str, is_local: bool) -> Self:
        """Return the choices, without a version, for a dataset that does not exist. Only a visitor on this PC learns
        whether a file of that name exists."""
        choices = Choices.from_data(data).model_copy(update={"version": None})
        return cls(
            title=title[:LONGEST_TITLE], data=data.source, choices=choices, is_known=is_local and is_file(data.source)
        )

    @property
    def file(self) -> str:
        """The name of the file, without folders."""
        return re.split(r"[\\/]", self.data)[-1]

    def means(self, path: str) -> bool:
        """Return whether an upload is the file that the recipe names; gradio changes some characters of a name."""
        return _letters(self.file) == _letters(Path(path).name)

    def state(self) -> JsonObject:
        """Return the choices as JSON to be kept in the page; the inverse of `from_state`."""
        return self.model_dump(mode="json")


def is_file(source: str) -> bool:
    """True if source is the absolute path of a file, ~ resolved."""
    try:
        return expand(source).is_absolute() and expand(source).is_file()
    except (OSError, ValueError):
        return False


def _letters(name: str) -> str:
    """Return the letters and digits of a name, in lower case."""
    return "".join(filter(str.isalnum, name)).lower()


def choices_for(data: object, reading: RecipeReading | None) -> Choices:
    """Return the recipe's choices if they are for this dataset, else none."""
    return reading.choices if reading and reading.data == data else NO_CHOICES
