"""What LINE exports on a phone: a line with the date of each day, then time, person and text with tabs between; several lines in quotation marks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from core.data.chats import dates
from core.data.chats.said import Said, left_of
from core.data.reading.rows import Limits, Source
from core.data.shapes.left_out import Loss

_DATE = re.compile(r"^\ufeff?(?:\w{2,9}, )?(\d{1,4})[./](\d{1,2})[./](\d{1,4})(?: ?[(（]\w{1,9}[)）]| \w{2,9})?$")  # of a day
_SAID = re.compile(
    rf"^(?P<before>{dates.HALVES})?(\d{{1,2}}):(\d{{2}}) ?(?P<after>{dates.HALVES})?\t([^\t]*)(?:\t(.*))?$", re.IGNORECASE
)
_MEDIA = re.compile(r"\[[^\[\]]{2,16}\]")  # [Photo], [スタンプ]
_CALL = "☎"


def is_chat(lines: Sequence[str]) -> bool:
    """By its first line, or a date with two messages of people behind it."""
    first = lines[0].strip("\ufeff\n") if lines else ""
    said = [found for line in lines if (found := _SAID.match(line.rstrip("\n"))) and found[6]]
    return len(said) >= 2 and (first.startswith("[LINE]") or _DATE.match(first) is not None)


def messages(source: Source, limits: Limits) -> Iterator[Said]:
    order = dates.order_of(day for _, _, day in _lines(source) if day)
    today: tuple[int, int, int] | None = None
    current: Said | None = None
    for number, line, day in _lines(source):
        found = None if day else _SAID.match(line)
        if current and (day or found):
            yield _whole(current)
            current = None
        if day:
            today = day
        elif found and today:
            before, hour, minute, after, person, text = found.groups()
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
