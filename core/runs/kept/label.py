"""A person's label for a run: tags, a note, and whether it is archived.

label.json   a Label, as far as it is set; keys of other versions are preserved
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from core.runs.folder import RunFolder
from core.values import Frozen
from core.workspace import names

MAX_TAGS, LONGEST_TAG, LONGEST_NOTE = 8, 24, 500


class Label(Frozen):
    """Tags and note that a person gave a run, beside its name."""

    tags: tuple[str, ...] = ()
    note: str = ""
    archived: bool = False

    @classmethod
    def from_run(cls, run: RunFolder) -> Self:
        """Return what label.json holds: tags, note, and whether the run is archived. Values of a wrong type read as
        absent, too long ones are cut, tags beyond MAX_TAGS are left out; never raises."""
        label = run.label()
        tags, note = label.get("tags"), label.get("note")
        return cls(
            tags=_tags(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
            note=_note(note) if isinstance(note, str) else "",
            archived=label.get("archived") is True,
        )


def _tags(given: Iterable[str]) -> tuple[str, ...]:
    """Return the different tags, made fit for display, at most MAX_TAGS."""
    return tuple(dict.fromkeys(tag for each in given if (tag := names.display_name(each, LONGEST_TAG))))[:MAX_TAGS]


def _note(given: str) -> str:
    """Return a note fit for display: one line of at most LONGEST_NOTE characters."""
    return names.display_name(" ".join(given.split()), LONGEST_NOTE)


def annotate(run: RunFolder, tags: str, note: str) -> None:
    """Set tags and note of a run. Raises RunError if they cannot be written. tags: separated by commas, also Chinese
    ones."""
    apart = tags.replace("，", ",").replace("、", ",").split(",")
    run.relabel(tags=list(_tags(apart)), note=_note(note))


def archive(run: RunFolder, archived: bool) -> None:
    """Note in the run's label whether it is archived."""
    run.relabel(archived=archived)
