"""How a recipe that fills the form reads its data set: voice, columns, sheet, encoding, version.

It travels with the form's answers and goes before what is kept with the set, until somebody says otherwise in step 3. The set itself is
left as it is, so that whoever opens an old run changes nothing for others.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import ValidationError

from core.data.reading.choices import NOTHING_SAID, Choices
from core.recipe import Data
from core.values import Frozen

LONGEST_TITLE = 120


class Brought(Frozen):
    """title: of the recipe or run. data: the id of the set that is meant; of others nothing is said."""

    title: str
    data: str
    choices: Choices

    @classmethod
    def of_state(cls, state: Any) -> Self | None:
        """From the page: None for whatever is none of ours."""
        try:
            data = Data.model_validate(state["choices"] | {"source": state["data"]})
            return cls(title=state["title"][:LONGEST_TITLE], data=data.source, choices=Choices.of(data))
        except (TypeError, KeyError, ValidationError):
            return None

    @classmethod
    def of(cls, data: Data, id: str, title: str) -> Self | None:
        choices = Choices.of(data)
        return cls(title=title[:LONGEST_TITLE], data=id, choices=choices) if choices.said else None

    def state(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


def choices_for(data: Any, brought: Brought | None) -> Choices:
    return brought.choices if brought and brought.data == data else NOTHING_SAID
