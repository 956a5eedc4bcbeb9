"""Facts about families of models, each with its source: presets/families.yaml. No torch."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec

from core.messages import Message, msg
from core.presets import load
from core.values import Strict


class Note(Strict):
    """A sentence in both languages, and its source."""

    en: str
    zh: str
    source: str

    @property
    def message(self) -> Message:
        """The sentence, to be shown in either language."""
        return msg("advise.said", en=self.en, zh=self.zh)


class Kernels(Note):
    """Packages with faster kernels for a family. packages: name of the imported module to its name in pip."""

    packages: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed, by their names in pip."""
        return [package for module, package in self.packages.items() if find_spec(module) is None]


class Family(Strict):
    """One entry of presets/families.yaml. r, learning_rate: those of settings_source; None: the usual ones."""

    title: str
    model_types: tuple[str, ...]
    r: int | None = None
    learning_rate: float | None = None
    settings_source: str = ""
    in_16_bit: Note | None = None
    kernels: Kernels | None = None
    notes: tuple[Note, ...] = ()

    def note_messages(self) -> list[Message]:
        """Return sentences to read when choosing a model of this family."""
        return [msg("advise.family_note", note=note.message, source=note.source) for note in self.notes]


@lru_cache(maxsize=1)
def families() -> tuple[Family, ...]:
    """Return all families of presets/families.yaml. Cached."""
    return tuple(Family.model_validate(entry) for entry in load("families")["families"])


def family_of(model_type: str) -> Family | None:
    """Return the family with this model_type, which is that of the text part (core.models.shapes.shape.ModelShape);
    None if none has it."""
    return next((family for family in families() if model_type in family.model_types), None)
