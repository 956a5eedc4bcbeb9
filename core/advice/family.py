"""What is special about a family of models, each fact with its source: presets/families.yaml. No torch."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from core.messages import Message, msg
from core.presets import load
from core.values import Strict


class Note(Strict):
    """A sentence in both languages, and where it was read."""

    en: str
    zh: str
    source: str

    @property
    def said(self) -> Message:
        return msg("advise.said", en=self.en, zh=self.zh)


class Kernels(Note):
    """packages: the module that is imported, and what pip calls it."""

    packages: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """What pip would have to install."""
        return [package for module, package in self.packages.items() if find_spec(module) is None]


class Family(Strict):
    """One entry of presets/families.yaml. r, learning_rate: what settings_source takes; None: nothing but the usual."""

    title: str
    model_types: tuple[str, ...]
    r: int | None = None
    learning_rate: float | None = None
    settings_source: str = ""
    in_16_bit: Note | None = None
    kernels: Kernels | None = None
    notes: tuple[Note, ...] = ()

    def told(self) -> list[Message]:
        """What is worth knowing when the model is chosen."""
        return [msg("advise.family_note", note=note.said, source=note.source) for note in self.notes]


@lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    return tuple(Family.model_validate(entry) for entry in load("families")["families"])


def family_of(model_type: str) -> Family | None:
    """By the model_type of the text part (core.models.shapes.shape.ModelShape)."""
    return next((family for family in families() if model_type in family.model_types), None)
