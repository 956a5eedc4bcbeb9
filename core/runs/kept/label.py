"""A person's label for a run: tags, a note, and whether it is archived.

label.json   a Label, as far as it was given; another version's keys stay as they are
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from core.runs.folder import RunFolder
from core.values import Frozen
from core.workspace import names

MOST_TAGS, LONGEST_TAG, LONGEST_NOTE = 8, 24, 500


class Label(Frozen):
    """What a person said of a run, beside its name."""

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """Never raises: what is none of these, or too long, is as if it was not there."""
        held = run.label()
        tags, note = held.get("tags"), held.get("note")
        return cls(
            tags=_tags(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
            note=_note(note) if isinstance(note, str) else "",
            archived=held.get("archived") is True,
        )


def _tags(given: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for each in given if (tag := names.display_name(each, LONGEST_TAG))))[:MOST_TAGS]


def _note(given: str) -> str:
    return names.display_name(" ".join(given.split()), LONGEST_NOTE)


def describe(run: RunFolder, tags: str, note: str) -> None:
    """tags: with commas between them, those of Chinese too."""
    apart = tags.replace("，", ",").replace("、", ",").split(",")
    run.relabel(tags=list(_tags(apart)), note=_note(note))


def archive(run: RunFolder, archived: bool) -> None:
    run.relabel(archived=archived)
