"""What is left out of a row: each value that no format uses is named, counted over the file, and reported with what
would use it.

A converter asks `Columns` for what it wants; what nobody asked for is left out. What is dropped deeper in a row (a
field of a message, of a part, of a call) its reader names itself. Values that say nothing (null, "", an empty list) are
no loss.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from core.messages import Message, msg
from core.values import Frozen

MOST_NAMED = 100  # different things of one file; a file may have a million different columns
LONGEST_NAME = 60
Place = Literal[
    "column", "field", "part", "call", "tool", "answer", "turn", "row", "branch", "message", "chat", "above", "beside",
    "page", "more", "worse",
]  # fmt: skip

# Names under which files keep what no text holds, and worse answers.
MEDIA = ("image", "images", "img", "picture", "pictures", "audio", "audios", "video", "videos", "files", "attachments",
    "image_url", "pixel_values")  # fmt: skip
WORSE = ("rejected", "rejected_response", "reject", "rejected_messages", "non_preferred_output")
_PICTURE = re.compile(r"<\|?(?:image|img|video|audio)(?:_pad|_?\d+)?\|?>", re.IGNORECASE)


class LeftOut(Frozen):
    """what was left out of `count` rows (of a chat: messages), and why, with what would be needed to use it."""

    what: Message
    count: int
    why: Message


class Loss(NamedTuple):
    """One thing that was left out of one row: where it stood, and its name there."""

    place: Place
    name: str = ""

    def said(self, count: int) -> LeftOut:
        place = "column" if self.place == "worse" else self.place
        what = f"left_out.chat_{self.name}" if place == "chat" else f"left_out.{place}"
        return LeftOut(what=msg(what, name=self.name), count=count, why=msg(self._why(), name=self.name))

    def _why(self) -> str:
        name = self.name.lower()
        if self.place == "chat":
            return f"left_out.why_chat_{name}"
        if self.place in (
            "turn",
            "row",
            "more",
            "tool",
            "call",
            "answer",
            "branch",
            "message",
            "above",
            "beside",
            "page",
            "worse",
        ):
            return f"left_out.why_{self.place}"
        if name in MEDIA:
            return "left_out.why_media"
        if name in WORSE:
            return "left_out.why_worse"
        if name in ("system", "tools", "functions", "weight", "label", "history"):
            return f"left_out.why_{'tools' if name == 'functions' else name}"
        return f"left_out.why_{self.place}"


class Columns(Mapping[str, Any]):
    """A row's values by their names without case and surrounding blanks, and which of them somebody asked for."""

    def __init__(self, values: Mapping[Any, Any]):
        self._values: dict[str, Any] = {}
        self._asked: set[str] = set()
        self._twice: list[str] = []  # names that differ in case alone: the first that says something is taken
        for given, value in values.items():
            name = str(given).strip().lower()
            if name in self._values and says(self._values[name]):
                self._twice += [str(given)] if says(value) else []
                continue
            self._values[name] = value

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._asked.add(name)
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def peek(self, name: str) -> Any:
        """A value, without taking it; None where there is none."""
        return self._values.get(name)

    def take(self, *names: str) -> None:
        self._asked.update(names)

    def changed(self, new: Mapping[str, Any]) -> Columns:
        """These without what somebody asked for, and the new ones."""
        rest = Columns(
            {name: value for name, value in self._values.items() if name not in self._asked and name not in new}
            | dict(new)
        )
        rest._twice = self._twice
        return rest

    def left(self) -> list[Loss]:
        unread = [name for name, value in self._values.items() if name not in self._asked and says(value)]
        return [Loss("column", name) for name in [*unread, *self._twice]]


class Notes:
    """What the readers of one row have to say of it: warnings, what they left out or assumed, and the turns of the
    conversation with a worse answer."""

    def __init__(self) -> None:
        self.worse: list[Any] = []
        self.assumed: set[str] = set()  # what nobody said and the file does not
        self.warnings: list[Message] = []
        self.losses: list[Loss] = []

    def warn(self, key: str, **params: Any) -> None:
        self.warnings.append(msg(key, **params))

    def leave(self, place: Place, name: str = "") -> None:
        self.losses.append(Loss(place, name))

    def leave_unread(self, place: Place, values: Mapping[Any, Any], read: Iterable[str]) -> None:
        """Each value of an object that says something and is none of those that were read."""
        known = set(read)
        self.losses += [Loss(place, str(name)) for name, value in values.items() if name not in known and says(value)]


class Tally:
    """Losses of many rows, each counted once a row."""

    def __init__(self) -> None:
        self._rows: Counter[Loss] = Counter()
        self.assumed: set[str] = set()  # of any row

    def add(self, losses: Iterable[Loss]) -> None:
        for loss in {loss._replace(name=loss.name[:LONGEST_NAME]) for loss in losses}:
            known = loss in self._rows or len(self._rows) < MOST_NAMED
            self._rows[loss if known else Loss("more")] += 1

    def add_each(self, losses: Iterable[Loss]) -> None:
        """Losses that are counted one by one: messages of a chat."""
        self._rows.update(losses)

    def said(self) -> tuple[LeftOut, ...]:
        """The most frequent first."""
        return tuple(
            loss.said(count) for loss, count in sorted(self._rows.items(), key=lambda item: (-item[1], item[0]))
        )


def says(value: Any) -> bool:
    """Whether there is anything in a value."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, dict):
        return any(map(says, value.values()))
    if isinstance(value, list):
        return any(map(says, value))
    return value is not None


def needs_picture(losses: Iterable[Loss], texts: Iterable[str]) -> bool:
    """Whether a text points at a picture, film or sound that was left out."""
    return any(loss.name.lower() in MEDIA for loss in losses) and any(_PICTURE.search(text) for text in texts)
