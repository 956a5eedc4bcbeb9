"""One message of a chat, as exported by any app."""

from __future__ import annotations

import re
from typing import NamedTuple

from core.data.shapes.left_out import Omission

LONGEST_MESSAGE = 1 << 20  # characters; a longer message was not written by a person
MARKS = re.compile(
    "[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)  # marks of text direction around names and messages
_LINK = re.compile(r"^https?://\S+$")


class ExportedMessage(NamedTuple):
    """One message of an exported chat.

    person: its author. when: seconds of local time; None if unknown. thread: the chat within the export. omission: why
    it cannot be trained. is_model: a program or a character wrote it; its messages are the default answers. is_system:
    the instructions that a conversation begins with.
    """

    person: str
    text: str
    when: float | None = None
    thread: str = ""
    omission: Omission | None = None
    line: int | None = None
    is_model: bool = False
    is_system: bool = False


def omission_of_text(text: str) -> Omission | None:
    """Return the omission of a message that cannot be trained: "deleted" for a blank text, "link" for a link alone;
    None for any other text."""
    if not text.strip():
        return Omission("chat", "deleted")
    return Omission("chat", "link") if _LINK.match(text.strip()) else None
