"""Pages of questions: each heading that asks, with what follows it, becomes a question and its answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain, islice

from core.data.reading.file_rows import Items, RawRow
from core.data.shapes.left_out import Omission

_HELD = 5_000  # paragraphs; a longer text is no page of questions
_MIN_QUESTIONS = 3
_MIN_SHARE = 0.5  # of the sections with text that ask
_BOLD = 7  # the level of a line in bold, below the six of headings
# No pattern here tries a run of equal characters from each of its places: a line may have 16,000.
_HEADING = re.compile(r"(#{1,6})\s+(.*)|(?:\*\*|__)(?P<bold>[^*_]+)(?:\*\*|__)$")
_ANCHOR = re.compile(r"(?:\{#[^{}]*\}|¶)$")
_ASKS = re.compile(r"^(?>.*[?？])\W*$|^(?:Q|Question|Frage)\s*+\d*\s*[:.]\s*\S")
_HTML_HEADING = re.compile(r"<h([1-6])\b[^<>]{0,200}>((?:[^<]|<(?!/?h\d)){0,300})</h\1>", re.IGNORECASE)
_TAG = re.compile(r"</?\w[^<>]{0,200}>")
_FENCE = re.compile(r"\s*(?:```|~~~)")


@dataclass
class _TitledText:
    """A section of a page. level: of its heading, from 1; 0 for the text before the first one."""

    level: int
    title: str
    line: int | None
    text: list[str] = field(default_factory=list)

    @property
    def answer(self) -> str:
        """The text below the title."""
        return "".join(self.text).strip()

    @property
    def asks(self) -> bool:
        """True if the title is a question."""
        return bool(_ASKS.search(self.title))


def with_questions(items: Items) -> Items:
    """Yield {"question", "answer"} for each question of a page of questions, other sections as omissions; the
    paragraphs of any other text, and of a long one, as they are."""
    held = list(islice(items, _HELD))
    rows = [item for item in held if isinstance(item, RawRow)]
    sections = _sections(rows) if len(held) < _HELD else []
    filled = [section for section in sections if section.answer]
    pairs = [section for section in filled if section.asks]
    if len(pairs) < _MIN_QUESTIONS or len(pairs) < _MIN_SHARE * len(filled):
        yield from chain(held, items)
        return
    yield from (item for item in held if not isinstance(item, RawRow))
    yield from [Omission("around", "sections")] * (len(filled) - len(pairs))
    for row, section in enumerate(pairs, 1):
        yield RawRow(row, {"question": section.title, "answer": section.answer}, section.line)


def _sections(rows: list[RawRow]) -> list[_TitledText]:
    """Return the headings of a text outside code, each with its text, the first without a heading; deeper headings
    belong to a question's text. A line that asks is a heading too."""
    sections = [_TitledText(0, "", None)]
    is_code = False
    for row in rows:
        sections[-1].text.append(row.joint or "")
        text = _HTML_HEADING.sub(_as_markdown, row.value["text"])
        for number, line in enumerate(text.split("\n")):
            is_code ^= bool(_FENCE.match(line))
            match = None if is_code else _HEADING.match(line.strip())
            level = len(match[1]) if match and match[1] else _BOLD
            title = _title(match) if match else ""
            is_part = sections[-1].asks and level > sections[-1].level
            if match is None or is_part or (level == _BOLD and not _ASKS.search(title)):
                sections[-1].text += ["\n" if number else "", line]
            else:
                sections.append(_TitledText(level, title, row.line))
    return sections


def _as_markdown(heading: re.Match[str]) -> str:
    """Return a heading in HTML as one in Markdown, without tags inside."""
    return f"{'#' * int(heading[1])} {' '.join(_TAG.sub('', heading[2]).split())}"


def _title(heading: re.Match[str]) -> str:
    """Return the words of a heading, without the marks and the anchor that may follow them."""
    words = heading["bold"] or _ANCHOR.sub("", heading[2]).rstrip().rstrip("#").rstrip()
    return words.strip(" *_")
