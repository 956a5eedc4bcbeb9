"""Pages of questions: each heading that asks, with what follows it, becomes a question and its answer.

A heading is a line with #, a line in bold, the title of a block (??? question "...", with its text indented) or of a
<details>.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, islice

from core.data.reading.file_rows import Items, RawRow
from core.data.shapes.left_out import Omission

_HELD = 5_000  # paragraphs; a longer text is no page of questions
_MIN_QUESTIONS = 3
_MIN_SHARE = 0.5  # of the sections with text that ask
_BOLD, _BLOCK = 7, 8  # the levels of a line in bold, below the six of headings, and of a block with its text indented
_SUMMARY = "######"  # how the title of a block in HTML is written, whose text ends with its tag
# No pattern here tries a run of equal characters from each of its places: a line may have 16,000.
# "## When?", "**When?**", and MkDocs' ??? question "When?"
_HEADING = re.compile(
    r"(#{1,6})\s+(.*)|(?:\*\*|__)(?P<bold>[^*_]+)(?:\*\*|__)$|(?:\?\?\?\+?|!!!)\s+\w+\s+\"(?P<block>[^\"]+|.+)\"$"
)
_ANCHOR = re.compile(r"(?:\{#[^{}]*\}|¶)$")  # {#top}
# "Is it open?", "Is it open? (2024)", "Q3: Opening hours"
_ASKS = re.compile(r"^(?>.*[?？])\W*(?:\([^()]*\)\W*)?$|^(?:Q|Question|Frage|问|問|Вопрос)\s*+\d*\s*[:.：]\s*\S")
_HTML_HEADING = re.compile(r"<h([1-6])\b[^<>]{0,200}>((?:[^<]|<(?!/?h\d)){0,300})</h\1>", re.IGNORECASE)
_DETAILS = re.compile(
    r"(?:<details\b[^<>]{0,200}>\s*)?<(summary)\b[^<>]{0,200}>((?:[^<]|<(?!/?summary)){0,300})</summary>\n?"
)
_EMPTY = re.compile(r"<(span|a)\b[^<>]{0,200}></\1>\n?")  # a place that a link leads to
_NUMBER = re.compile(r"Q\s?\d+\s*[—–:.)-]\s*(?=\S)")  # Q3: When?
_MARK = re.compile(r"[问問答]\s*[:：]\s*")
_LINE_ACROSS = re.compile(r"\n\s*(?:-{3,}|\*{3,}|_{3,})$")
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
        """The text below the title, without a line across the page at its end and a mark such as 答: at its
        beginning."""
        return _MARK.sub("", _LINE_ACROSS.sub("", "".join(self.text).strip()), count=1)

    @property
    def asks(self) -> bool:
        """True if the title is a question."""
        return bool(_ASKS.search(self.title))


def with_questions(items: Items) -> Items:
    """Turn a text that is mostly questions with answers into rows {"question", "answer"}, numbered anew; its other
    sections that have text become omissions. Any other text passes unchanged.

    A text counts as such a page if at least _MIN_QUESTIONS of its headings are questions with an answer below, these
    are at least the share _MIN_SHARE of its sections with text, and it has fewer than _HELD paragraphs. A question that
    occurs several times gets the heading directly before it as its first line, if that heading has no text of its own.
    """
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
    titles = Counter(section.title for section in pairs)
    above = dict(zip(map(id, sections[1:]), sections, strict=False))
    for row, section in enumerate(pairs, 1):
        head = above[id(section)]  # of a card: whom or what the same question asks about
        question = section.title if titles[section.title] == 1 or head.answer else f"{head.title}\n{section.title}"
        yield RawRow(
            row, {"question": _MARK.sub("", question.strip(), count=1), "answer": section.answer}, section.line
        )


def _sections(rows: list[RawRow]) -> list[_TitledText]:
    """Divide a text at its headings outside code into sections; the first one has no title. Headings deeper than a
    question's belong to its text. A line in bold is a heading only if it is a question."""
    sections = [_TitledText(0, "", None)]
    is_code = False
    for row in rows:
        sections[-1].text.append(row.joint or "")
        text = _DETAILS.sub(_as_markdown, _HTML_HEADING.sub(_as_markdown, _EMPTY.sub("", row.value["text"])))
        for number, line in enumerate(text.replace("</details>", "\n</details>").split("\n")):
            # In code, # begins a comment.
            is_code ^= bool(_FENCE.match(line))
            last, is_indented = sections[-1], line[:1].isspace() or not line
            match = None if is_code or last.level == _BLOCK and is_indented else _HEADING.match(line.strip())
            level = (len(match[1]) if match[1] else _BLOCK if match["block"] else _BOLD) if match else 0
            title = _title(match) if match else ""
            # A block ends with its tag, or at a line that is not indented.
            if line == "</details>" or match is None and last.level == _BLOCK and not is_indented and not is_code:
                sections += [_TitledText(0, "", row.line)] if last.level in (len(_SUMMARY), _BLOCK) else []
                sections[-1].text += [line] if any(map(str.isalnum, line)) and line != "</details>" else []
            # Bold that asks nothing is emphasis.
            elif match is None or last.asks and level > last.level or level == _BOLD and not _ASKS.search(title):
                last.text += ["\n" if number else "", line.removeprefix("    " if last.level == _BLOCK else "")]
            else:
                sections.append(_TitledText(level, title, row.line))
    return sections


def _as_markdown(heading: re.Match[str]) -> str:
    """Return a heading in HTML, or the title of a block, as a heading in Markdown, without tags inside."""
    title = " ".join(_TAG.sub("", heading[2]).split())
    return f"\n{_SUMMARY} {title}\n" if heading[1] == "summary" else f"{'#' * int(heading[1])} {title}"


def _title(heading: re.Match[str]) -> str:
    """Return the words of a heading without its marks, an anchor at its end, and a number such as "Q3:" at its
    beginning."""
    words = heading["bold"] or heading["block"] or _ANCHOR.sub("", heading[2]).rstrip().rstrip("#").rstrip()
    return _NUMBER.sub("", words.strip(" *_"), count=1)
