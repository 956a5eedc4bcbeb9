"""Detects if the first row of a table holds the column names or is a row like the others.

A doubtful case is reported, never decided silently: the reader notes its assumption, and `header` of Choices overrides
it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from statistics import median

from core.data.shapes.known import COLUMNS
from core.data.shapes.roles import means_something, words_of

LOOKED_AT = 100  # rows
_TEXT = 3  # fewest words of a usual cell in a column of text
_KNOWN = {alias for columns in COLUMNS.values() for aliases in columns.values() for alias in aliases}
_IDENTIFIER = re.compile(r"[a-zA-Z]\w*_\w+|[a-z]+[A-Z]\w+")
_MEASURE = re.compile(r"[\s.,:/+%$€£-]*\d[\d\s.,:/+%$€£TZ-]*|https?://\S+|true|false", re.IGNORECASE)
_SENTENCE_ENDS = (".", "?", "!", "…", "。", "？", "！")


def holds_names(first: Sequence[str], others: Sequence[Sequence[str]]) -> bool | None:
    """Return True if the first row holds names: known ones, or cells unlike all below them; False if it is a row, None
    if undecided. others: the rows after it; True without any."""
    cells = [cell.strip() for cell in first]
    # From the surest sign to the weakest; a person decides where none speaks.
    if any(map(_is_a_name, cells)) or all(cell.lower() in _KNOWN for cell in cells) or not others:
        return True
    columns = [[row[at].strip() for row in others if at < len(row) and row[at].strip()] for at in range(len(cells))]
    pairs = [(cell, values) for cell, values in zip(cells, columns, strict=True) if values]
    if any(_stands_again(cell, values) for cell in cells for _, values in pairs):
        return False
    if any(_stands_above(cell, values) for cell, values in pairs):
        return True
    if len(cells) > 1 and all(cell.endswith(("?", "？")) for cell in cells):  # of a survey
        return None
    return False if any(_is_alike(cell, values) for cell, values in pairs) else None


def may_be_row(names: Iterable[str]) -> bool:
    """Return True if one of the names is a number, a link or a sentence, as a row has them."""
    return any(_MEASURE.fullmatch(n) or len(words_of(n)) > _TEXT or n.endswith(_SENTENCE_ENDS) for n in names)


def _is_a_name(cell: str) -> bool:
    """Return True for a cell of few words that is a name by itself: a known one, one that means a role, or an
    identifier."""
    few_words = len(words_of(cell)) <= _TEXT and not cell.endswith(_SENTENCE_ENDS)
    return few_words and (
        len(cell) > 1 and cell.lower() in _KNOWN or means_something(cell) or _IDENTIFIER.fullmatch(cell) is not None
    )


def _stands_above(cell: str, values: Sequence[str]) -> bool:
    """Return True for an empty cell, or one of another kind than all values below it: a word over numbers, or a short
    one over texts."""
    if not cell:
        return True
    if not _MEASURE.fullmatch(cell) and all(map(_MEASURE.fullmatch, values)):
        return True
    is_short = len(words_of(cell)) < _TEXT and not cell.endswith(_SENTENCE_ENDS)
    return is_short and not _MEASURE.fullmatch(cell) and min(len(words_of(value)) for value in values) >= _TEXT


def _stands_again(cell: str, values: Sequence[str]) -> bool:
    """Return True if a cell of the first row occurs among the values of a column below: once for more than three words,
    twice for up to three. Then the first row holds no names but a topic or a sentence. False for numbers, links and
    very short cells."""
    is_words = len(cell) > _TEXT and not _MEASURE.fullmatch(cell)
    return is_words and values.count(cell) >= (1 if len(words_of(cell)) > _TEXT else 2)


def _is_alike(cell: str, values: Sequence[str]) -> bool:
    """Return True for a number among numbers, a value that another row has, or a sentence among texts."""
    if all(map(_MEASURE.fullmatch, values)):
        return _MEASURE.fullmatch(cell) is not None
    is_sentence = len(words_of(cell)) > _TEXT or cell.endswith(_SENTENCE_ENDS)
    return cell in values or (is_sentence and median(len(words_of(value)) for value in values) >= _TEXT)
