"""The texts of the page: core's catalogues and the page's own, in one language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from core.files import JsonObject
from core.messages import CORE_LOCALES, Catalogue, Message, as_text, in_language, msg
from core.recipe import Recipe

PAGE_LOCALES = Path(__file__).parent.parent / "locales"


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    return Catalogue(CORE_LOCALES, PAGE_LOCALES)


@dataclass(frozen=True)
class Wording:
    """All sentences of one page in one of `core.messages.LANGUAGES`."""

    language: str

    def t(self, key: str, **params: object) -> str:
        """Return the sentence of a catalogue key. A Message among the params is rendered too."""
        return catalogue().render(msg(key, **params), self.language)

    def render(self, message: Message | JsonObject | None) -> str:
        """Return a message of core, raised or read from a file, as a sentence in the page's language; "" for None."""
        if message is None:
            return ""
        return catalogue().render(
            message if isinstance(message, Message) else Message.model_validate(message), self.language
        )

    def text(self, *sentences: str) -> str:
        """Join sentences to one text as the language does (with or without a blank); empty ones are left out."""
        return as_text(sentences, self.language)

    def knows(self, key: str) -> bool:
        return key in catalogue().keys(self.language)  # noqa: SIM118 - a method, not a mapping

    def raw(self, key: str) -> str:
        """Return a sentence with its placeholders, which code in the browser fills in."""
        return catalogue().raw(key, self.language)

    def named(self, key: str, elem_id: str) -> dict[str, str]:
        """Return options of a component: its label, the text below it (if `<key>_info` has one), its id."""
        info = {"info": self.t(f"{key}_info")} if self.knows(f"{key}_info") else {}
        return {"label": self.t(key), **info, "elem_id": elem_id}

    def preset(self, texts: Mapping[str, str], key: str = "") -> str:
        """Return the text of presets/ in the page's language. texts: the English and Chinese one, from the file in
        presets/. key: of the other languages, which have `presets.<key>` in their catalogue."""
        if self.knows(f"presets.{key}"):
            return self.t(f"presets.{key}")
        return in_language(texts, self.language)

    def setting_help(self, section: str, name: str) -> str:
        """Return the help of a recipe's field: its own description in English, else the catalogue's text."""
        if self.language == "en":
            return field_of(section, name).description or ""
        return self.t(f"recipe.help_{section}_{name}")


def field_of(section: str, name: str) -> FieldInfo:
    """Return the pydantic field of `section.name` of a recipe, the only place of its default, limits and
    description."""
    model: Any = Recipe.model_fields[section].annotation
    return model.model_fields[name]
