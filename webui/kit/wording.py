"""The words of the page: core's catalogues and the page's own, in one language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from core.messages import CORE_LOCALES, Catalogue, Message, in_language, msg
from core.recipe import Recipe

PAGE_LOCALES = Path(__file__).parent.parent / "locales"


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    return Catalogue(CORE_LOCALES, PAGE_LOCALES)


@dataclass(frozen=True)
class Wording:
    """Every sentence of one page, in its language, one of `core.messages.LANGUAGES`."""

    language: str

    def t(self, key: str, **params: Any) -> str:
        """Return the sentence of a catalogue key. A Message among the params is rendered too."""
        return catalogue().render(msg(key, **params), self.language)

    def render(self, message: Message | dict[str, Any] | None) -> str:
        """Return a message of core, raised or read from a file, as a sentence; "" for None."""
        if message is None:
            return ""
        return catalogue().render(
            message if isinstance(message, Message) else Message.model_validate(message), self.language
        )

    def knows(self, key: str) -> bool:
        return key in catalogue().keys(self.language)  # noqa: SIM118 - a method, not a mapping

    def raw(self, key: str) -> str:
        """A sentence with its placeholders, for code in the browser that fills them in."""
        return catalogue().raw(key, self.language)

    def named(self, key: str, elem_id: str) -> dict[str, str]:
        """Options of a component: its label, what is said below it (where `<key>_info` has words), its id."""
        info = {"info": self.t(f"{key}_info")} if self.knows(f"{key}_info") else {}
        return {"label": self.t(key), **info, "elem_id": elem_id}

    def preset(self, texts: Mapping[str, str], key: str = "") -> str:
        """A text of presets/, which has it by language: that of a further language stands in its catalogue, as
        `presets.<key>`."""
        if self.knows(f"presets.{key}"):
            return self.t(f"presets.{key}")
        return in_language(texts, self.language)

    def setting_help(self, section: str, name: str) -> str:
        """What a recipe's field does: its own description, or what its language has of it."""
        if self.language == "en":
            return field_of(section, name).description or ""
        return self.t(f"recipe.help_{section}_{name}")


def field_of(section: str, name: str) -> Any:
    """The pydantic field of `section.name` of a recipe, the only home of its default, limits and description."""
    model: Any = Recipe.model_fields[section].annotation
    return model.model_fields[name]
