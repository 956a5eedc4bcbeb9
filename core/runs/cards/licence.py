"""The licence of a base model for a card's header, and whether models made from it may be sold, as far as the catalogue
knows. Nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.files import JsonObject
from core.hub.card import front_matter
from core.messages import Message, msg
from core.models.known import LICENCES, Commercial, with_hub_id

# The licences that the hub accepts as `license:`; all others are written as `other` with their name.
_OF_THE_HUB = {
    *(
        "apache-2.0",
        "mit",
        "bsd-3-clause",
        "cc-by-4.0",
        "cc-by-sa-4.0",
        "cc-by-nc-4.0",
        "cc-by-nc-sa-4.0",
        "cc0-1.0",
        "openrail",
    ),
    *("bigscience-bloom-rail-1.0", "gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "gpl-3.0", "other"),
}
LONGEST = 32_000  # bytes of a card that are read; its header stands at its beginning


@dataclass(frozen=True)
class Licence:
    """The licence of a base model.

    name: "Apache-2.0" or a hub's word for it; None: neither the base's folder nor the catalogue names one. gated: the
    hub gives the base only to those who accepted it. pipeline: pipeline_tag of the base's own card.
    """

    name: str | None = None
    link: str | None = None
    commercial: Commercial | None = None
    gated: bool = False
    pipeline: str | None = None

    @property
    def header(self) -> dict[str, str]:
        """The licence's keys of a model card's header; empty if it is unknown."""
        if self.name is None:
            return {}
        tag = next((tag for tag, name in LICENCES.items() if name == self.name), self.name.lower())
        link = {"license_link": self.link} if self.link else {}
        return {"license": tag} if tag in _OF_THE_HUB - {"other"} else {"license": "other", "license_name": tag, **link}

    @property
    def permission(self) -> Message:
        """A sentence about what may be done with models made from the base, as far as it is known."""
        if self.name is None:
            return msg("publish.licence_unknown")
        return msg(f"publish.licence_{self.commercial or 'not_read'}", name=self.name)


def for_model(model_id: str, folder: Path | None) -> Licence:
    """Return the licence of a base from the catalogue and its own model card.

    The catalogue's name of the licence comes first, the card's is used for a base that it lacks. Link and pipeline come
    from the card; commercial and gated from the catalogue, None and False without it. model_id: as in a recipe. folder:
    of the base; None: no card.
    """
    known = with_hub_id(model_id)
    card = header_of(folder / "README.md") if folder else {}
    named = _word(card.get("license_name")) if card.get("license") == "other" else _word(card.get("license"))
    pipeline = card.get("pipeline_tag")
    return Licence(
        name=known.licence if known else LICENCES.get(named or "", named),
        link=_word(card.get("license_link")),
        commercial=known.commercial if known else None,
        gated=known.gated if known else False,
        pipeline=pipeline if pipeline in ("text-generation", "image-text-to-text", "any-to-any") else None,
    )


def header_of(card: Path) -> JsonObject:
    """Return the YAML header of a model card; empty if the header or the file is absent or unreadable."""
    try:
        with open(card, "rb") as file:
            return front_matter(file.read(LONGEST).decode("utf-8", "replace"))
    except OSError:
        return {}


def _word(value: object) -> str | None:
    """Return a text as one line of at most 200 characters; None for anything else, or a blank one."""
    return " ".join(value.split())[:200] if isinstance(value, str) and value.strip() else None
