"""Values of a row that no format uses: each is named, counted over the file, and reported with what would use it.

A converter takes the columns that it needs from `Columns`; columns that were not taken are left out. A reader itself
reports what it drops deeper in a row (a field of a message, of a part, of a call). Empty values (null, "", an empty
list) are not counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from core.messages import Message, msg
from core.values import Frozen

MAX_NAMED = 100  # different omissions of one file; it may have a million different columns
LONGEST_NAME = 60
Place = Literal[
    "column", "field", "part", "call", "tool", "answer", "turn", "row", "branch", "message", "chat", "above", "header",
    "beside", "page", "place", "around", "more", "worse", "between",
]  # fmt: skip

# Names of columns of media, and of worse answers.
NEARLY_ALL = 0.9  # share of values that tells what a column, or lines, are
MEDIA = ("image", "images", "img", "picture", "pictures", "audio", "audios", "video", "videos", "files", "attachments",
    "image_url", "pixel_values")  # fmt: skip
WORSE = ("rejected", "rejected_response", "reject", "rejected_messages", "non_preferred_output")
# <image>, <|image_pad|>, <img_1>
_PICTURE = re.compile(r"<\|?(?:image|img|video|audio)(?:_pad|_?\d+)?\|?>", re.IGNORECASE)


class LeftOut(Frozen):
    """A kind of value that was left out. count: of rows (in a chat, of messages); why: the reason, with what would be
    needed to use it."""

    what: Message
    count: int
    why: Message


class Omission(NamedTuple):
    """One thing that was left out of one row: its place, and its name there."""

    place: Place
    name: str = ""

    def describe(self, count: int) -> LeftOut:
        """Return the omission in words, with the number of rows that have it and the reason."""
        place = "column" if self.place == "worse" else self.place
        what = f"left_out.{place}_{self.name}" if place in ("chat", "around") else f"left_out.{place}"
        return LeftOut(what=msg(what, name=self.name), count=count, why=msg(self._why(), name=self.name))

    def _why(self) -> str:
        """Return the catalogue's key of the reason, by place and name."""
        name = self.name.lower()
        if self.place in ("chat", "around"):
            return f"left_out.why_{self.place}_{name}"
        if self.place not in ("column", "field", "part"):
            return f"left_out.why_{self.place}"
        if name in MEDIA:
            return "left_out.why_media"
        if name in WORSE:
            return "left_out.why_worse"
        if name in ("system", "tools", "functions", "weight", "label", "history"):
            return f"left_out.why_{'tools' if name == 'functions' else name}"
        return f"left_out.why_{self.place}"


class Columns(Mapping[str, Any]):
    """A row's values by their names without case and surrounding blanks, with the names that a converter has taken: []
    and get take a column."""

    def __init__(self, values: Mapping[Any, Any]):
        """Keep a row's values under lower-case names; of two that differ only in case the filled one, the other is
        noted."""
        self._values: dict[str, Any] = {}
        self._taken: set[str] = set()
        self._twice: list[str] = []  # names that differ in case alone: the first with a value is used
        for key, value in values.items():
            name = str(key).strip().lower()
            if name in self._values and has_value(self._values[name]):
                self._twice += [str(key)] if has_value(value) else []
                continue
            self._values[name] = value

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._taken.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        """Return True if the row has a column of this name, filled or not, and do not take it; name must be in lower
        case without surrounding blanks, as the names are kept."""
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def peek(self, name: str) -> Any:
        """Return a value without taking it; None if there is none."""
        return self._values.get(name)

    def take(self, *names: str) -> None:
        """Mark columns as read, so that `unused` does not report them."""
        self._taken.update(names)

    def changed(self, new: Mapping[str, Any]) -> Columns:
        """Return the columns that are not taken, with new ones, which replace those of the same name."""
        rest = Columns(
            {name: value for name, value in self._values.items() if name not in self._taken and name not in new}
            | dict(new)
        )
        rest._twice = self._twice
        return rest

    def unused(self) -> list[Omission]:
        """Return an omission for each filled column that nothing has taken, and for each whose name stands twice."""
        unread = [name for name, value in self._values.items() if name not in self._taken and has_value(value)]
        return [Omission("column", name) for name in [*unread, *self._twice]]


class Notes:
    """Notes on one row: warnings, what was left out or assumed, and the turns of the conversation with a worse
    answer."""

    def __init__(self) -> None:
        self.worse: list[Any] = []
        self.assumed: set[str] = set()  # properties that neither a choice nor the file states
        self.warnings: list[Message] = []
        self.omissions: list[Omission] = []

    def warn(self, key: str, **params: object) -> None:
        """Note a warning about the row, by its key in the catalogue of sentences and the values of its placeholders."""
        self.warnings.append(msg(key, **params))

    def add_omission(self, place: Place, name: str = "") -> None:
        """Note that something of the row was left out, to be counted and shown to the person. place: what kind of thing
        or where, such as a column; name: its name there."""
        self.omissions.append(Omission(place, name))

    def add_unread(self, place: Place, values: Mapping[Any, Any], read: Iterable[str]) -> None:
        """Record each non-empty value of an object whose key is not among those that were read."""
        known = set(read)
        self.omissions += [
            Omission(place, str(name)) for name, value in values.items() if name not in known and has_value(value)
        ]


class Tally:
    """Omissions of many rows, each counted once a row."""

    def __init__(self) -> None:
        self._rows: Counter[Omission] = Counter()
        self.assumed: set[str] = set()  # of any row

    def add(self, omissions: Iterable[Omission]) -> None:
        """Count the omissions of one row, equal ones once; of further kinds than MAX_NAMED only that there are more."""
        for omission in {omission._replace(name=omission.name[:LONGEST_NAME]) for omission in omissions}:
            known = omission in self._rows or len(self._rows) < MAX_NAMED
            self._rows[omission if known else Omission("more")] += 1

    def add_each(self, omissions: Iterable[Omission]) -> None:
        """Count every omission, even equal ones, and any number of kinds: messages of a chat."""
        self._rows.update(omissions)

    def summary(self) -> tuple[LeftOut, ...]:
        """Return what was left out, the most frequent first."""
        return tuple(
            omission.describe(count)
            for omission, count in sorted(self._rows.items(), key=lambda item: (-item[1], item[0]))
        )


def has_value(value: object) -> bool:
    """Return False for None, blank text, and a container of nothing but such values; True for 0 and False."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, dict):
        return any(map(has_value, value.values()))
    if isinstance(value, list):
        return any(map(has_value, value))
    return value is not None


def media_names(omissions: Iterable[Omission]) -> list[str]:
    """Return the names of columns and fields with pictures, films or sounds."""
    return list(dict.fromkeys(omission.name for omission in omissions if omission.name.lower() in MEDIA))


def needs_picture(omissions: Iterable[Omission], texts: Iterable[str]) -> bool:
    """Return True if one of the texts has a mark in place of a picture, film or sound (such as <image>), and a column
    or field with such media was left out of the row."""
    return bool(media_names(omissions)) and any(_PICTURE.search(text) for text in texts)
