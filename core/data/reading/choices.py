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

    columns: dict[str, ColumnRole] | None = Field(None, description="Roles of columns with other names.")
    encoding: str | None = Field(None, description="Encoding of a text.")
    sheet: str | None = Field(None, description="The sheet of a spreadsheet that is read.")
    header: bool | None = Field(None, description="True if the first row of a table holds the names of its columns.")
    voice: str | None = Field(None, description="The person of a chat whose messages are the answers.")
    gap_hours: float | None = Field(
        None, description="Hours of silence in a chat after which another conversation begins."
    )
    pseudonyms: bool | None = Field(
        None, description="True if stand-ins replace the names, numbers, addresses and links of a chat's others."
    )
    rated: bool | None = Field(None, description="True if rows whose answer is marked as bad are kept, with that mark.")
    join_paragraphs: bool | None = Field(
        None,
        description="False if the paragraphs of a text are examples of their own, with all that stands around it, as "
        "in older runs.",
    )
    version: int | None = Field(
        None, description="Version of a changed dataset; None: the newest. All versions share one reading."
    )

    @classmethod
    def from_data(cls, data: Data) -> Choices:
        """Return the choices among a recipe's data settings, which have the same names."""
        return cls(**{name: getattr(data, name) for name in cls.model_fields})

    @property
    def chosen(self) -> Mapping[str, Any]:
        """The choices that were made, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) not in (None, {})}

    def with_defaults(self, defaults: Choices) -> Choices:
        """Return these choices, completed by defaults."""
        return Choices(**{**defaults.chosen, **self.chosen})

    @property
    def key(self) -> str:
        """Hash of the choices that change how a file's bytes are read, equal for equal readings; "" if there are none.
        The version and join_paragraphs=True, which is the default, do not count."""
        relevant = {name: value for name, value in self.chosen.items() if name != "version"}
        if self.join_paragraphs:  # as without a choice
            del relevant["join_paragraphs"]
        return hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest() if relevant else ""


NO_CHOICES = Choices()
