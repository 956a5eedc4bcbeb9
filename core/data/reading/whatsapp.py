"""A chat that WhatsApp exported (Android or iOS, any date order and clock), as conversations in which one person's messages are the answers.

A silence of GAP begins a new conversation. Messages of one person in a row are one turn. The voice is the person who wrote the most. What is
no message is left out and counted: pictures and files, deleted messages, links alone, lines of the app, turns with nothing before or after them.
A conversation goes out in rows of about ROW_CHARACTERS, each beginning with a question.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Literal

from core.data.reading.rows import Limits, Problem, Raw, Source
from core.data.shapes.left_out import Loss
from core.errors import DataError
from core.messages import Message, msg

GAP = timedelta(hours=6)
ROW_CHARACTERS = 1_600  # some 400 tokens, so that a row fits the default max_length
LOOKED_AT = 200  # lines, to tell a chat from another text
MOST_SHOWN = 8  # people

# What both systems write around a message; the marks are U+200E and U+200F (direction), U+202F and U+00A0 (blanks of other clocks).
_HEAD = re.compile(
    r"^[\u200e\u200f\ufeff]*\[?(\d{1,4})[./-](\d{1,2})[./-](\d{1,4})\.?,?[\s\u202f\u00a0]+(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?"
    r"(?:[\s\u202f\u00a0]*([ap])\.?[\s\u202f\u00a0]*m\.?)?(?:\][\s\u202f]|[\s\u202f]+-[\s\u202f])(.*)$",
    re.IGNORECASE | re.DOTALL,
)
_MEDIA = re.compile(
    r"^\u200e|^<[^<>]{3,40}>$|^\S+\.(?:jpe?g|png|webp|gif|opus|mp3|m4a|mp4|3gp|pdf|vcf|docx?)\s\([^()]{3,30}\)", re.IGNORECASE
)
_DELETED = re.compile(r"^(?:this message was deleted|you deleted this message|diese nachricht wurde gelöscht|se eliminó este mensaje|eliminaste este mensaje|null|此消息已删除|您撤回了一条消息)\.?$", re.IGNORECASE)  # fmt: skip
_EDITED = re.compile(r"\s*\u200e?<[^<>]*(?:edited|bearbeitet|editado|编辑)[^<>]*>\s*$", re.IGNORECASE)
_LINK = re.compile(r"^https?://\S+$")
_MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
DateOrder = Literal["dmy", "mdy", "ymd"]


@dataclass(frozen=True)
class Said:
    """One message, or a line of the app (person: ""). numbers: the three of the date as they stand, hour, minute, second."""

    line: int
    numbers: tuple[int, int, int, int, int, int]
    person: str
    text: str


def is_chat(lines: Iterable[str]) -> bool:
    """By content: the first line, and most of the lines that could, begin as messages, and two at least name a person."""
    heads = [_HEAD.match(line) for line in lines]
    named = [found for found in heads if found and ": " in found[8]]
    return bool(heads and heads[0]) and len(named) >= 2 and 3 * sum(map(bool, heads)) >= len(heads)


def first_lines(path: Path, encoding: str) -> list[str]:
    with open(path, encoding=encoding, errors="replace") as file:
        lines = [file.readline(4096) for _ in range(LOOKED_AT)]
    return [line for line in lines if line.strip()]


def messages(path: Path, encoding: str) -> Iterator[Said]:
    current: Said | None = None
    more: list[str] = []
    with open(path, encoding=encoding) as file:
        for number, line in enumerate(file, 1):
            found = _HEAD.match(line.rstrip("\n"))
            if found is None:
                more.append(line.rstrip("\n"))
                continue
            if current:
                yield _with(current, more)
            more = []
            person, colon, text = found[8].partition(": ")
            hour = int(found[4]) % 12 + 12 * (found[7].lower() == "p") if found[7] else int(found[4])
            numbers = (int(found[1]), int(found[2]), int(found[3]), hour, int(found[5]), int(found[6] or 0))
            current = Said(number, numbers, _MARKS.sub("", person).strip() if colon else "", text if colon else found[8])
    if current:
        yield _with(current, more)


def _with(said: Said, more: list[str]) -> Said:
    return Said(said.line, said.numbers, said.person, "\n".join([said.text, *more]).strip("\n "))


def people(path: Path, encoding: str) -> Counter[str]:
    """Who wrote how many messages that can be learned."""
    return Counter(said.person for said in messages(path, encoding) if _loss(said) is None)


def note(found: Counter[str]) -> Message:
    listed = [f"{person} ({count:,})" for person, count in found.most_common(MOST_SHOWN)]
    return msg("data.note_chat", people=listed, count=len(found), voice=voice(found), hours=GAP // timedelta(hours=1))


def voice(found: Counter[str]) -> str:
    """Who wrote the most; of two who wrote as much the one who began later, who has been asked."""
    order = list(found)
    return max(order, key=lambda person: (found[person], order.index(person)), default="")


def _loss(said: Said) -> Loss | None:
    """Why a message is left out; None for one that stays."""
    text = said.text
    if not said.person:
        return Loss("chat", "app")
    if _MEDIA.search(text):
        return Loss("chat", "media")
    if not text or _DELETED.match(_MARKS.sub("", text)):
        return Loss("chat", "deleted")
    return Loss("chat", "link") if _LINK.match(text) else None


def date_order(found: Iterable[Said]) -> DateOrder:
    """Day, month and year by what they can be; where both could be, the order in which time runs forward."""
    dates = [said.numbers[:3] for said in found]
    if any(first > 31 for first, _, _ in dates):
        return "ymd"
    if any(first > 12 for first, _, _ in dates):
        return "dmy"
    if any(second > 12 for _, second, _ in dates):
        return "mdy"

    def backward(key: tuple[int, int, int]) -> int:
        sorted_by = [tuple(date[i] for i in key) for date in dates]
        return sum(a > b for a, b in zip(sorted_by, sorted_by[1:], strict=False))

    return "mdy" if backward((2, 0, 1)) < backward((2, 1, 0)) else "dmy"


def _when(numbers: tuple[int, int, int, int, int, int], order: DateOrder) -> datetime | None:
    parts = dict(zip(order, numbers[:3], strict=True))
    year = parts["y"] + 2000 if parts["y"] < 100 else parts["y"]
    try:
        return datetime(year, parts["m"], parts["d"], *numbers[3:])
    except ValueError:
        return None


def chat_rows(source: Source, limits: Limits) -> Iterator[Raw | Problem]:
    """Rows of {"messages": [...]}; what was left out goes with the row that follows it, or the last one."""
    order = date_order(messages(source.path, source.encoding))
    named = len(people(source.path, source.encoding)) > 2
    losses: list[Loss] = []
    waiting: Raw | None = None
    found = _conversations(messages(source.path, source.encoding), order, source.voice, losses, named)
    for row, turns in enumerate(found, 1):
        if waiting:
            yield waiting
        waiting = Raw(row, {"messages": [{"role": role, "content": text} for role, text, _ in turns]}, turns[0][2], tuple(losses))
        losses.clear()
    if waiting is None:
        raise DataError("data.chat_without_answers", file=source.path.name, voice=source.voice)
    yield Raw(waiting.row, waiting.value, waiting.line, (*waiting.left, *losses))


Turn = tuple[str, str, int]  # role, text, line


def _conversations(found: Iterable[Said], order: DateOrder, voice: str, losses: list[Loss], named: bool) -> Iterator[list[Turn]]:
    conversation: list[Said] = []
    before: datetime | None = None
    for said in found:
        loss = _loss(said)
        if loss:
            losses.append(loss)
            continue
        now = _when(said.numbers, order)
        if before and now and now - before > GAP:
            yield from _rows(_turns(conversation, voice, named), losses)
            conversation = []
        conversation.append(said)
        before = now or before
    yield from _rows(_turns(conversation, voice, named), losses)


def _turns(conversation: list[Said], voice: str, named: bool) -> list[Turn]:
    turns = []
    for mine, group in groupby(conversation, lambda said: said.person == voice):
        run = list(group)
        lines = [said.text if mine or not named else f"{said.person}: {said.text}" for said in run]
        text = _EDITED.sub("", "\n".join(_MARKS.sub("", _EDITED.sub("", line)) for line in lines))
        turns.append(("assistant" if mine else "user", text, run[0].line))
    return turns


def _rows(turns: list[Turn], losses: list[Loss]) -> Iterator[list[Turn]]:
    """A conversation in rows that begin with a question and end with an answer."""
    if turns and turns[0][0] == "assistant":
        losses.append(Loss("chat", "unasked"))
        turns = turns[1:]
    if turns and turns[-1][0] == "user":
        losses.append(Loss("chat", "unanswered"))
        turns = turns[:-1]
    row: list[Turn] = []
    size = 0
    for asked, answered in zip(turns[::2], turns[1::2], strict=True):
        length = len(asked[1]) + len(answered[1])
        if row and size + length > ROW_CHARACTERS:
            yield row
            row, size = [], 0
        row, size = [*row, asked, answered], size + length
    if row:
        yield row
