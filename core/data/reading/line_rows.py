"""Texts that are no prose: a table, labels before a text, flash cards, quiz questions, highlights of a Kindle,
words with tags, spoken lines below times.

`shape_of` looks at the first lines; `line_rows` reads the shapes that are neither a table nor refused.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby, islice, takewhile
from typing import Literal, TypeVar

from core.data.reading.file_rows import Limits, Problem, RawRow, Readable, Source, lines_of, too_big
from core.data.reading.table_rows import txt_rows
from core.data.shapes.left_out import NEARLY_ALL, Omission
from core.messages import msg

_T = TypeVar("_T")
LineShape = Literal["", "table", "fasttext", "cards", "quiz", "clippings", "conll", "times"]
LOOKED_AT = 300  # lines
_BEGINNING, _MAX_PARTS = 1 << 16, 1_000  # characters of a line; such parts of lines that are read
_MIN_CARDS = 3
_LONGEST_TERM = 80  # characters
_LABEL = "__label__"
_LABELS = re.compile(r"((?:__label__\S+\s+)+)(\S.*)", re.DOTALL)  # __label__spam Buy now
_SEPARATORS = (" :: ", "::", " — ", " – ", " - ", " => ", "=>", " → ", " = ")
_DIVIDERS = ("|", "::", "=>", " - ")  # of two sides of any length if they stand once in each line
_SIGNS = ("|", ";")  # between columns, besides a tab
_TAG = re.compile(r"(?:[BIO]|[BIESLUM]-[\w-]+)$")  # O, B-PER
_PLACES = re.compile(r"\d+-\d+\t\d+-\d+\t")  # of WebAnno: that of a word in its text, and its characters
_END = "=========="  # of a highlight
_OPTION = re.compile(r"\s*[(（]?([A-Ja-j])\s?[).:、．）]\s*(\S.*)")  # A) Paris
# Answer: B
_RIGHT = re.compile(
    r"\s*(?:(?:correct |right )?answer|key|antwort|lösung|答案|正确答案)?\s*[:：]?\s*([A-Ja-j])\s*", re.I
)
_MIN_OPTIONS = 2
_BARE_TIME = re.compile(r"[\[(]?(?:\d{1,2}:)?\d{1,2}:\d\d(?:[.,]\d+)?[\])]?")  # 0:12, [00:12.5]
_MIN_TIMES, _MIN_SHARE, _SPOKEN = 5, 0.3, 500  # lines, a share of them, characters of a row


def first_lines(path: Readable, encoding: str) -> list[str]:
    """Return the first LOOKED_AT lines of a text without their ends, of a very long line its beginning."""
    lines: list[str] = []
    is_new = True
    with path.open(encoding=encoding, errors="replace") as file:
        # A line of megabytes comes in parts; the first is kept.
        for part in islice(iter(lambda: file.readline(_BEGINNING), ""), _MAX_PARTS):
            if is_new and len(lines) == LOOKED_AT:
                break
            if is_new:
                lines.append(part.rstrip("\r\n").lstrip("\ufeff"))
            is_new = part.endswith("\n")
    return lines


def shape_of(lines: Sequence[str]) -> LineShape:
    """Return the shape of a text's first lines, the first that fits; "" for prose."""
    filled = [line for line in lines if line.strip()]
    # From the strictest shape to the loosest: the last ones fit many texts by chance.
    if _is_conll(lines):
        return "conll"
    if sum(line.strip() == _END for line in lines) >= 2:
        return "clippings"
    if _mostly(filled, lambda line: _labels_and_text(line) is not None):
        return "fasttext"
    times = sum(bool(_BARE_TIME.fullmatch(line.strip())) for line in filled)
    if times >= max(_MIN_TIMES, _MIN_SHARE * len(filled)) and times < NEARLY_ALL * len(filled):
        return "times"
    if delimiter_of(filled):
        return "table"
    blocks = [[*block] for is_filled, block in groupby(lines, lambda line: bool(line.strip())) if is_filled]
    blocks = blocks[:-1] if len(lines) == LOOKED_AT else blocks  # the last goes on
    if len(blocks) >= 2 and _mostly(blocks, lambda block: _quiz_question(block) is not None):
        return "quiz"
    return "cards" if separator_of(lines) else ""


def _mostly(lines: Sequence[_T], has_shape: Callable[[_T], object]) -> bool:
    """Return True if nearly all lines (of one at least) have the shape."""
    return bool(lines) and sum(map(bool, map(has_shape, lines))) >= NEARLY_ALL * len(lines)


def delimiter_of(lines: Sequence[str]) -> str:
    """Return the sign between the columns of lines that are a table: a tab; a bar or semicolon that stands equally
    often, at least twice, in nearly all of at least _MIN_CARDS lines. "" for other lines."""
    filled = [line for line in lines if line.strip()]
    if len(filled) >= 2 and _is_table(filled):
        return "\t"
    for sign in _SIGNS if len(filled) >= _MIN_CARDS else ():
        count, lines_with_it = Counter(line.strip().count(sign) for line in filled).most_common(1)[0]
        is_framed = filled[0].lstrip().startswith(sign)  # a table of Markdown
        if count > 1 and not is_framed and lines_with_it >= NEARLY_ALL * len(filled):
            return sign
    return ""


def _is_table(lines: Sequence[str]) -> bool:
    """Return whether lines are columns separated by tabs, quoted cells of several lines included."""
    tabs = lines[0].rstrip("\t").count("\t") or lines[-1].rstrip("\t").count("\t")
    if tabs and _mostly(lines, lambda line: line.count("\t") >= tabs and not line.startswith("\t")):
        return True
    try:  # a quoted cell may have several lines
        widths = [len(record) for record in csv.reader((f"{line}\n" for line in lines), delimiter="\t", strict=True)]
    except csv.Error:
        return False
    return widths[0] > 1 and _mostly(widths, lambda width: width == widths[0])


def _is_conll(lines: Sequence[str]) -> bool:
    """Return True if nearly every line is a word with its tags, as in CoNLL's files. Empty lines and comments are
    skipped; fewer than three other lines are never enough. Tags in the last column alone count only if there are empty
    lines or comments between the words, or more than one tag."""
    words = [line for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))]
    cells = [line.split("\t") if "\t" in line else line.split(" ") for line in words]
    if len(words) < 3 or not _mostly(cells, lambda each: len(each) > 1 and " " not in each[0].strip()):
        return False
    by_tag = _mostly(cells, lambda each: bool(_TAG.match(each[-1].strip())))
    # CoNLL-U: ten columns; 1-2 is a contraction, 8.1 an empty word.
    by_number = _mostly(
        cells,
        lambda each: (
            len(each) == 10 and " " not in each[1].strip() and each[0].partition("-")[0].partition(".")[0].isdigit()
        ),
    )
    by_tag = by_tag and (len(words) < len(lines) or len({each[-1] for each in cells}) > 1)
    return by_number or by_tag or _mostly(words, _PLACES.match)


def separator_of(lines: Sequence[str]) -> str:
    """Return the text between term and definition in lines of flash cards; "" if the lines are no cards.

    The first choice is a separator of _SEPARATORS that nearly every line has with a term of at most _LONGEST_TERM
    characters before it and a definition after it; of several, the one furthest left. Otherwise the first of _DIVIDERS
    that stands exactly once in every line, with sides of any length. Blank lines are ignored; fewer than _MIN_CARDS
    others are no cards.
    """
    filled = [line for line in lines if line.strip()]
    if len(filled) < _MIN_CARDS:
        return ""

    def is_card(line: str, separator: str) -> bool:
        """Return True if a line has a term of at most _LONGEST_TERM characters before the separator's first place and a
        definition after it."""
        term, _, definition = line.partition(separator)
        return 0 < len(term.strip()) <= _LONGEST_TERM and bool(definition.strip())

    # "set - a => b" is divided at " - ".
    fitting = [each for each in _SEPARATORS if _mostly(filled, partial(is_card, separator=each))]
    once = (each for each in _DIVIDERS if all(line.strip().count(each) == 1 for line in filled))
    return min(fitting, key=lambda each: sum(len(line.partition(each)[0]) for line in filled), default=next(once, ""))


def line_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of a text whose lines have a shape (Source.lines): flash cards, texts with labels, quiz questions,
    highlights of a Kindle, or speech below times. A part that does not fit is a Problem or an omission."""
    readers = {"clippings": _highlights, "quiz": _quiz_rows, "times": _spoken}
    yield from readers.get(source.lines, _pairs)(source, limits)


def _pairs(source: Source, limits: Limits) -> Iterator[RawRow | Problem]:
    """Yield a row for each line: a card of term and definition, or a text with labels; a Problem for one without both,
    or too long."""
    row = 0
    with source.path.open(encoding=source.encoding) as file:
        for number, line, size in lines_of(file, limits.row_bytes):
            if line is not None and not line.strip():
                continue
            row += 1
            if line is None:
                yield too_big(row, number, size, limits)
            elif source.lines == "fasttext":
                yield _labelled(row, number, line.strip().lstrip("\ufeff"))
            else:
                term, _, definition = line.partition(source.separator)
                if term.strip() and definition.strip():
                    yield RawRow(row, {"question": term.strip(), "answer": definition.strip()}, number)
                else:
                    why = msg("data.card_without_sides", separator=source.separator.strip())
                    yield Problem(row=row, line=number, text=why)


def _labelled(row: int, number: int, line: str) -> RawRow | Problem:
    """Return a line of fastText as a row of its text and its labels, joined; a Problem for one without a label."""
    if (parts := _labels_and_text(line)) is None:
        return Problem(row=row, line=number, text=msg("data.line_without_label"))
    labels, text = parts
    names = ", ".join(label.removeprefix(_LABEL) for label in labels)
    return RawRow(row, {"text": text.strip(), "label": names}, number)


def _labels_and_text(line: str) -> tuple[list[str], str] | None:
    """Return the labels before or after a text, and the text; None for a line without labels or text."""
    if match := _LABELS.match(line):
        return match[1].split(), match[2]
    words = line.split()
    labels = [*takewhile(lambda word: word.startswith(_LABEL) and word != _LABEL, reversed(words))]
    return (labels[::-1], line.rsplit(None, len(labels))[0]) if 0 < len(labels) < len(words) else None


def _quiz_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield a row for each block of lines that is a question with its options; a Problem for any other block."""
    for item in txt_rows(source, limits):
        if isinstance(item, RawRow) and (question := _quiz_question(item.value["text"].split("\n"))):
            yield RawRow(item.row, question, item.line)
        else:
            yield Problem(row=item.row, line=item.line, text=msg("data.no_quiz")) if isinstance(item, RawRow) else item


def _quiz_question(block: Sequence[str]) -> dict[str, object] | None:
    """Return the question of a block of lines, with its options and the letter of the right one, which stands on a line
    of its own; None for another block."""
    right: str | None = None
    question: list[str] = []
    options: list[str] = []
    for line in block:
        # "A. Smith wrote it" below option B is no option.
        if (match := _OPTION.fullmatch(line)) and ord(match[1].upper()) - ord("A") == len(options):
            options.append(match[2].strip())
        elif right is None and (match := _RIGHT.fullmatch(line)):
            right = match[1].upper()
        elif not options:
            question.append(line.strip())
        else:
            return None
    if right is None or not question or len(options) < _MIN_OPTIONS or ord(right) - ord("A") >= len(options):
        return None
    return {"question": "\n".join(question), "options": options, "answer": right}


def _spoken(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the lines between the times, joined until a row has _SPOKEN characters, with its first line; a line above
    the limit is a Problem."""
    row, begins = 0, 1
    spoken: list[str] = []
    with source.path.open(encoding=source.encoding) as file:
        for number, line, size in lines_of(file, limits.row_bytes):
            text = (line or "").strip().lstrip("\ufeff")
            if line is None:
                row += 1
                yield too_big(row, number, size, limits)
            elif text and not _BARE_TIME.fullmatch(text):
                begins = begins if spoken else number
                spoken.append(text)
            if sum(map(len, spoken)) >= _SPOKEN:
                row += 1
                yield RawRow(row, {"text": "\n".join(spoken)}, begins)
                spoken = []
    if spoken:
        yield RawRow(row + 1, {"text": "\n".join(spoken)}, begins)


def _highlights(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield a row for each highlight in a Kindle's file of clippings: its text alone. The two lines above it, with the
    book's title and the place, are left out as one omission.

    An entry without text gives no row, one larger than limits.row_bytes a Problem.
    """
    row, begins, size = 0, 1, 0
    texts: list[str] = []
    with source.path.open(encoding=source.encoding) as file:
        for number, line, length in lines_of(file, limits.row_bytes):
            size += length
            if (line or "").strip() != _END:
                if size <= limits.row_bytes:
                    texts.append(line or "")
                continue
            text = "".join(texts[2:]).strip()  # title and place stand above
            if size > limits.row_bytes:
                row += 1
                yield too_big(row, begins, size, limits)
            elif text:
                row += 1
                yield RawRow(row, {"text": text}, begins, (Omission("place"),))
            texts, begins, size = [], number + 1, 0
