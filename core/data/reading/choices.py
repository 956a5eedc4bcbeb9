"""Choices of how a file is read: from a command, the page or a recipe; kept with the dataset.

Other choices are another reading of the same bytes, so the cache of a reading also depends on `key`. To add a choice: a
field here, and one of the same name in recipe.Data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from core.recipe import ColumnRole, Data
from core.values import Frozen


class Choices(Frozen):
    """The options of reading a file. None: not chosen."""

    columns: dict[str, ColumnRole] | None = Field(None, description="What columns with other names are for.")
    encoding: str | None = Field(None, description="How the bytes of a text become characters.")
    sheet: str | None = Field(None, description="Which sheet of a spreadsheet is read.")
    header: bool | None = Field(None, description="Of a table: whether its first row holds the names of its columns.")
    voice: str | None = Field(None, description="Of a chat: whose messages are the answers.")
    gap_hours: float | None = Field(
        None, description="Of a chat: hours of silence after which another conversation begins."
    )
    pseudonyms: bool | None = Field(
        None, description="Of a chat: whether stand-ins replace the others' names, numbers, addresses and links."
    )
    rated: bool | None = Field(None, description="Whether rows whose answer is marked as a bad one are kept, as such.")
    version: int | None = Field(
        None, description="Which version of a set that was changed; None: the newest. Every one is the same reading."
    )

    @classmethod
    def from_data(cls, data: Data) -> Choices:
        return cls(**{name: getattr(data, name) for name in cls.model_fields})

    @property
    def chosen(self) -> Mapping[str, Any]:
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) not in (None, {})}

    def over(self, others: Choices) -> Choices:
        """Return these choices, completed by others."""
        return Choices(**{**others.chosen, **self.chosen})

    @property
    def key(self) -> str:
        """Hash that is equal for the same reading of the bytes; "" if nothing was chosen."""
        relevant = {name: value for name, value in self.chosen.items() if name != "version"}
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest() if relevant else ""


NO_CHOICES = Choices()
