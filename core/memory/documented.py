"""The documented table of VRAM by model size and method, and the rules written with it. Data, no arithmetic.

`presets/vram_table.yaml` holds it; `vram_table()` reads it. GB are sizes as sold; `core/memory/arithmetic` counts in
GiB.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from core.messages import Message, in_language, msg
from core.presets import load
from core.values import Strict

TableMethod = Literal["full", "lora", "qlora"]


class Cell(Strict):
    """One cell. minimum_gb: of a GPU as sold; None if no single GPU is enough. shown: by language, as in the
    document."""

    minimum_gb: float | None
    shown: dict[str, str]


class SizeClass(Strict):
    """One size class. billions: parameters to one decimal, both ends included."""

    name: str
    billions: tuple[float, float]
    full: Cell
    lora: Cell
    qlora: Cell


class Rule(Strict):
    """A sentence of the document, by language, and the section that it is from."""

    id: str
    section: str
    text: dict[str, str]


class DocumentSource(Strict):
    document: dict[str, str]
    file: str
    section: dict[str, str]


class VramTable(Strict):
    """The table. rows: smallest class first. qlora_up_to_gb: up to this GPU size the document knows only QLoRA."""

    source: DocumentSource
    rows: tuple[SizeClass, ...]
    qlora_up_to_gb: float
    rules: tuple[Rule, ...]

    def row_of(self, params: int) -> SizeClass | None:
        """Return the size class of a model with so many parameters, rounded to tenths of a billion; None if they lie
        below or above the table."""
        billions = round(params / 1e9, 1)
        return next((row for row in self.rows if row.billions[0] <= billions <= row.billions[1]), None)

    def minimum(self, row: SizeClass | None, method: TableMethod) -> float | None:
        """Return the GB as sold that the table requires; None without a row, or if no single GPU is enough."""
        return getattr(row, method).minimum_gb if row else None

    def shown(self, row_name: str, method: TableMethod, language: str) -> str:
        """Return a cell as the document writes it. Raises StopIteration for an unknown row."""
        return in_language(getattr(next(row for row in self.rows if row.name == row_name), method).shown, language)

    def document(self, language: str) -> str:
        """Return the title of the document that the table is from, in a language, else in English."""
        return in_language(self.source.document, language)

    def section(self, language: str) -> str:
        """Return the heading of the section that the table is from, in a language, else in English."""
        return in_language(self.source.section, language)

    def rule(self, rule_id: str) -> Message:
        """Return the rule as a sentence. Raises StopIteration for an unknown id."""
        return msg("advise.said", **next(rule.text for rule in self.rules if rule.id == rule_id))


@lru_cache(maxsize=1)
def vram_table() -> VramTable:
    """Return the table, read once from presets/vram_table.yaml."""
    return VramTable.model_validate(load("vram_table"))
