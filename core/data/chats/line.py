"""What LINE exports: a line with the date of each day, then time, person and text; on a phone with tabs between, and
several lines in quotation marks.

A PC writes blanks in place of the tabs, and nothing above the first day (as the README of meyfa/line-chat-parser shows
it): where a name ends is told by the words that all messages of one first word begin with. Two people of one first name
are one there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from core.data.chats import dates
from core.data.chats.said import Said, left_of
from core.data.reading.rows import Limits, Source
from core.data.shapes.left_out import Loss

# of a day
_DATE = re.compile(r"^\ufeff?(?:\w{2,9}, )?(\d{1,4})[./](\d{1,2})[./](\d{1,4})(?: ?[(（]\w{1,9}[)）]| \w{2,9})?$")
_SAID = re.compile(
    rf"^(?P<before>{dates.HALVES})?(\d{{1,2}}):(\d{{2}}) ?(?P<after>{dates.HALVES})?\t([^\t]*)(?:\t(.*))?$",
    re.IGNORECASE,
)
_SAID_ON_PC = re.compile(
    rf"^(?P<before>{dates.HALVES})?(\d{{1,2}}):(\d{{2}}) ?(?P<after>{dates.HALVES})? (\S+ .+)$", re.IGNORECASE
)
FEWEST_ON_PC = 4  # messages, of two people and of each two on average: a diary has times too
_MEDIA = re.compile(r"\[[^\[\]]{2,16}\]")  # [Photo], [スタンプ]
_CALL = "☎"


def is_chat(lines: Sequence[str]) -> bool:
    """By its first line, or a date with two messages of people behind it."""
    first = lines[0].strip("\ufeff\n") if lines else ""
    said = [found for line in lines if (found := _SAID.match(line.rstrip("\n"))) and found[6]]
    if len(said) >= 2 and (first.startswith("[LINE]") or _DATE.match(first) is not None):
        return True
    on_pc = [found[5] for line in lines if (found := _SAID_ON_PC.match(line.rstrip("\n")))]
    return len(on_pc) >= FEWEST_ON_PC and _DATE.match(first) is not None and 1 < len(_people(on_pc)) <= len(on_pc) / 2


def _people(texts: Iterable[str]) -> dict[str, str]:
    """By the first word of what a PC writes of a message: the name."""
    names: dict[str, list[str]] = {}
    count: Counter[str] = Counter()
    for text in texts:
        *words, _ = text.split(" ")  # at least the last is said
        names[words[0]] = [
            word
            for word, _ in takewhile(
                lambda pair: pair[0] == pair[1], zip(names.get(words[0], words), words, strict=False)
            )
        ]
        count[words[0]] += 1
    return {first: " ".join(name) if count[first] > 1 else first for first, name in names.items()}


def messages(source: Source, limits: Limits) -> Iterator[Said]:
    order = dates.order_of(day for _, _, day in _lines(source) if day)
    people = _people(found[5] for _, line, _ in _lines(source) if (found := _SAID_ON_PC.match(line)))
    is_phone = any(_SAID.match(line) for _, line, _ in _lines(source))
    today: tuple[int, int, int] | None = None
    current: Said | None = None
    for number, line, day in _lines(source):
        found = None if day else (_SAID if is_phone else _SAID_ON_PC).match(line)
        if current and (day or found):
            yield _whole(current)
            current = None
        if day:
            today = day
        elif found and today:
            before, hour, minute, after, person = found.groups()[:5]
            text = found[6] if is_phone else person[len(people[person.split(" ")[0]]) + 1 :]
            person = person if is_phone else people[person.split(" ")[0]]
            when = dates.seconds((*today, dates.hour_of(int(hour), before or after), int(minute), 0), order)
            current = Said(person.strip() if text else "", text or person, when, line=number)
        elif current:
            current = current._replace(text=f"{current.text}\n{line}")
    if current:
        yield _whole(current)


def _lines(source: Source) -> Iterator[tuple[int, str, tuple[int, int, int] | None]]:
    with source.path.open(encoding=source.encoding) as file:
        for number, line in enumerate(file, 1):
            line = line.rstrip("\n")
            found = _DATE.match(line)
            yield number, line, (int(found[1]), int(found[2]), int(found[3])) if found else None


def _whole(said: Said) -> Said:
    text = said.text.strip()
    if "\n" in text and text.startswith('"') and text.endswith('"'):
        text = text[1:-1].replace('""', '"')
    if not said.person or text.startswith(_CALL):
        return said._replace(text=text, left=Loss("chat", "app"))
    return said._replace(text=text, left=Loss("chat", "media") if _MEDIA.fullmatch(text) else left_of(text))
