"""One message of a chat, whichever app exported it."""

from __future__ import annotations

import re
from typing import NamedTuple

from core.data.shapes.left_out import Loss

MOST_SAID = 1 << 20  # characters of a message; what is longer nobody wrote
MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")  # directions of text, around names and messages
_LINK = re.compile(r"^https?://\S+$")


class Said(NamedTuple):
    """person: who wrote it. when: seconds of the clock on the wall; None where it is unknown. thread: which of the
    chats of an export.
    left: why it is no message that can be learned. is_model: a program or a character wrote it, for whose answers such
    a chat is kept."""

    person: str
    text: str
    when: float | None = None
    thread: str = ""
    left: Loss | None = None
    line: int | None = None
    is_model: bool = False


def left_of(text: str) -> Loss | None:
    """Why a text that somebody wrote cannot be learned; None for one that can."""
    if not text.strip():
        return Loss("chat", "deleted")
    return Loss("chat", "link") if _LINK.match(text.strip()) else None
