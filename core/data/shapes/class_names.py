"""Names of classes in place of their numbers: decides which column a list of names is about, and renames its values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.data.reading.file_rows import Problem, Row
from core.data.reading.label_names import LabelNames
from core.data.shapes.known import COLUMNS
from core.data.shapes.left_out import has_value
from core.data.shapes.numbering import Numbering, number_of
from core.data.shapes.roles import words_of
from core.files import JsonObject
from core.messages import Message, msg

Names = Mapping[str, Mapping[int, str]]  # of the numbers in each column
# Full names of columns with numbers of classes; sides.py has the last words of names of columns with any label.
_LABELS = ("label", "labels", "class", "category", "target", "class index", "class_index", "label_id", "labels_id",
    "class_id", "y", "标签", "类别", "klasse", "kategorie", "categoria", "classe", "clase", "категория")  # fmt: skip
_NAME = "(?:desc|des|description|name|text|str|string|title|word)"  # after the name of the column of labels
_MAX_SHOWN = 5
_MAX_LABELS = 100  # of one row; more are a label for each of its words


def names_by_column(
    names: LabelNames, sample: Sequence[Row], rows: Callable[[], Iterable[Row | Problem]]
) -> dict[str, dict[int, str]]:
    """Return {column: {number: name}}, by which the class numbers in a file are replaced by names; {} if it is not
    clear which column the names are for. Names that are given for a column are used for it if it exists.

    A list of names without a column belongs to the only column whose values are all among its numbers in all rows, one
    named like a label first. Numbers that are not written in the list count from 0 or from 1, as the rows show; {} if
    they show neither.
    """
    columns = dict.fromkeys(str(name) for row in sample for name in row.values)
    if names.columns or not names.listed:
        by_name = {column.lower(): column for column in columns}
        present = {by_name[name.lower()]: one for name, one in names.columns.items() if name.lower() in by_name}
        return {column: one for column, one in present.items() if not _are_of_words(sample, column)}
    numbers = {column: Numbering() for column in columns if _are_numbers([row.values.get(column) for row in sample])}
    # Of an unnumbered list the last number is possible too: the file may count from 1.
    known = set(names.listed) | (set() if names.numbered else {len(names.listed)})
    if not numbers:
        return {}
    for row in (item for item in rows() if isinstance(item, Row)):
        for column in [*numbers]:
            for number in _numbers(row.values.get(column)):
                # A number below 0 is no class: -1 marks a row without one.
                if number is None or number >= 0 and number not in known:
                    del numbers[column]
                    break
                if number >= 0:
                    numbers[column].add(number, len(names.listed))
    named = [column for column in numbers if column.strip().lower() in _LABELS] or [*numbers]
    if len(named) != 1:
        return {}
    if names.numbered:
        return {named[0]: names.listed}
    base = numbers[named[0]].base
    return {} if base is None else {named[0]: {at + base: name for at, name in names.listed.items()}}


def _are_of_words(sample: Sequence[Row], column: str) -> bool:
    """Return True if a column's lists of labels stand beside another list of that length: a label for each word."""
    return any(
        # ["The", "cat"] beside [4, 7]
        isinstance(labels := row.values.get(column), list)
        and len(labels) > 1
        and any(
            name != column and isinstance(other, list) and len(other) == len(labels)
            for name, other in row.values.items()
        )
        for row in sample
    )


def _are_numbers(values: Sequence[object]) -> bool:
    """Return True for values that are numbers of classes, or lists of such; empty ones do not count."""
    numbers = [number for value in values for number in _numbers(value)]
    return bool(numbers) and None not in numbers


def _numbers(value: object) -> list[int | None]:
    """Return the whole numbers in a cell, of a list all: None for each other value, [None] for a long list, [] for an
    empty cell."""
    if isinstance(value, list):
        return [number_of(one) for one in value] if len(value) <= _MAX_LABELS else [None]
    return [number_of(value)] if has_value(value) else []


def with_names(values: Mapping[str, object], names: Names) -> JsonObject:
    """Return a row with the names of its classes; a hidden one (-1) is empty."""
    return {key: _name(value, names[key]) if key in names else value for key, value in values.items()}


def _name(value: object, names: Mapping[int, str]) -> object:
    """Return the class of a number (in a list, of each): None for a hidden one, below 0; any other value as it is."""
    if isinstance(value, list):
        return [_name(one, names) for one in value]
    number = number_of(value)
    return value if number is None else names.get(number, None if number < 0 else value)


def note(file: str, names: Names) -> Message:
    """Return a note on which numbers stand for which labels, with the first ones of each column. file: "" if they are
    in the data file itself."""
    shown = [
        msg("data.label_named", number=number, name=name)
        for numbered in names.values()
        for number, name in [*numbered.items()][:_MAX_SHOWN]
    ]
    where = file or msg("data.label_names_inside")
    return msg("data.note_label_names", columns=[*names], names=shown[: 2 * _MAX_SHOWN], file=where)


def unnamed(sample: Sequence[Row], names: Names) -> Message | None:
    """Return a note if the labels of texts are numbers without names; else None."""
    labels = [str(name) for name in sample[0].values if str(name).strip().lower() in COLUMNS["text_label"]["label"]]
    return note_numbers(sample, {*labels[:1]} - names.keys())


def note_numbers(sample: Sequence[Row], columns: Iterable[str]) -> Message | None:
    """Return a note on the first of the columns that holds numbers of classes; None if none does."""
    column = next((name for name in columns if _are_numbers([row.values.get(name) for row in sample])), None)
    return None if column is None else msg("data.note_label_numbers", column=column)


def names_beside(sample: Sequence[Row]) -> tuple[str, str]:
    """Return the column of labels that are numbers, and the column with their names: label, label_desc; ("", "") if
    there is none."""
    for label in (str(name) for name in sample[0].values if str(name).strip().lower() in _LABELS):
        for name in map(str, sample[0].values):
            pairs = {(str(row.values.get(label)), str(row.values.get(name))) for row in sample}
            is_of_label = re.fullmatch(rf"{re.escape(label)}[\s_-]?{_NAME}", name, re.IGNORECASE) is not None
            if (
                is_of_label
                and _are_numbers([row.values.get(label) for row in sample])
                and len(dict(pairs)) == len(pairs)  # one name for each number
            ):
                return label, name
    return "", ""


def with_name_beside(row: Row, label: str, name: str) -> Row:
    """Return a row with the name of its label in place of the number, and no column of names."""
    values = {each: value for each, value in row.values.items() if each != name}
    return replace(row, values={**values, label: row.values.get(name)})


@dataclass(frozen=True)
class Classified:
    """The columns of texts with a class: of the text, whose parts are joined, and of the class."""

    texts: tuple[str, ...]
    label: str

    def apply(self, row: Row) -> Row:
        """Return a row with text and label; a column in the way of these names is dropped."""
        parts = [str(row.values.get(name) or "").strip() for name in self.texts]
        rest = {name: value for name, value in row.values.items() if name not in (*self.texts, self.label)}
        pair = {"text": "\n\n".join(filter(None, parts)), "label": row.values.get(self.label)}
        return replace(row, values={**pair, **{n: v for n, v in rest.items() if str(n).strip().lower() not in pair}})


def classified(sample: Sequence[Row], names: Names) -> Classified | None:
    """Return how a text (or two) with one class is read; None if there are several columns of classes, no text, or more
    than two."""
    if len(names) != 1:
        return None
    (label,) = names
    texts = [
        str(name)
        for name in dict.fromkeys(name for row in sample for name in row.values)
        if name != label and _is_text([row.values.get(name) for row in sample])
    ]
    return Classified(tuple(texts), label) if 1 <= len(texts) <= 2 else None  # two: premise, hypothesis


def _is_text(values: Sequence[Any]) -> bool:
    """Return True for texts, most of which have several words."""
    texts = [value for value in values if has_value(value)]
    if not texts or not all(isinstance(text, str) for text in texts):
        return False
    return 2 * sum(len(words_of(text)) > 1 for text in texts) > len(texts)
