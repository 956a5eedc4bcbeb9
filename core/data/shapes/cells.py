"""The text that a cell without plain text stands for: a list of labels or answers, an object with a text.

Used for the columns of answers, labels and contexts; a question is always a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from core.data.reading.file_rows import Flaw, Row
from core.data.shapes.left_out import Notes, has_value
from core.data.shapes.options import parsed_cell

ANSWERS = ("label", "answer", "output", "completion")


def text_of_cell(value: object, name: str, column: str, notes: Notes) -> object:
    """Return the text that a cell of an answer or context stands for: of a list its only value, all labels or texts, or
    the first of several acceptable answers; of an object its text, or of one of scores the classes above a half. Any
    other value, and that of another column, as it is. name: the column's in the file; column: ours. Notes what is left
    out. Raises Flaw if it holds only positions in another text."""
    if column != "context" and column not in ANSWERS:
        return value
    if isinstance(value, dict) and column != "context" and are_scores(value):
        return ", ".join(str(label) for label, score in value.items() if score >= 0.5)
    if isinstance(value, dict) and (key := _text_key(value)):
        notes.add_unread("answer", value, (key,))
        return value[key]
    if column == "label" and are_spans(value):
        raise Flaw("data.only_spans", column=name)
    # [4.0] is a label of one number.
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], float):
        return value[0]
    if not isinstance(value, list) or not all(isinstance(one, str | int | bool) or _text_key(one) for one in value):
        if column != "context" and are_spans(value):
            raise Flaw("data.only_spans", column=name)
        return value
    texts = [str(one[_text_key(one)] if isinstance(one, dict) else one) for one in value]
    if len(texts) < 2:
        return texts[0] if texts else ""
    if column == "context":  # all passages belong to the question
        return "\n\n".join(texts)
    if column == "label":
        notes.assumed.add("labels_joined")
        return ", ".join(texts)
    if any(text != texts[0] for text in texts):
        notes.add_omission("answer", name)  # several acceptable answers
    return texts[0]


def columns_of_lists(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns of a table all of whose filled cells write a list of texts as Python or JSON does: "['a',
    'b']"."""
    cells = {name: [row.values.get(name) for row in rows] for name in rows[0].values}
    given = {str(name): [*filter(has_value, values)] for name, values in cells.items()}
    return tuple(n for n, values in given.items() if values and all(map(is_list_of_texts, map(parsed_cell, values))))


def columns_of_texts_or_lists(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns whose filled cells are all texts or lists of texts, at least one of them a list."""
    names = dict.fromkeys(str(name) for row in rows for name in row.values)
    given = {name: [value for row in rows if has_value(value := row.values.get(name))] for name in names}
    return tuple(
        name
        for name, values in given.items()
        if all(isinstance(value, str) or is_list_of_texts(value) for value in values)
        and any(isinstance(value, list) for value in values)
    )


def is_list_of_texts(value: object) -> bool:
    """Return True for a list in which every value is a text; True also for an empty list."""
    return isinstance(value, list) and all(isinstance(part, str) for part in value)


def with_lists_as_lines(row: Row, columns: tuple[str, ...]) -> Row:
    """Return a row in which each of these columns that holds a list of texts has one text instead, a line for each
    item; other cells stay as they are."""
    lists = {name: "\n".join(value) for name in columns if isinstance(value := row.values.get(name), list)}
    return replace(row, values={**row.values, **lists})


def with_joined_lists(row: Row, columns: tuple[str, ...]) -> Row:
    """Return a row with the lists in these columns joined to texts: by blanks if any item is a single character, as in
    a sentence of words and signs; else by ", ".

    A cell that writes a list as Python or JSON does counts as one.
    """
    parts = {name: parsed_cell(row.values.get(name)) for name in columns}
    joints = {name: " " if any(len(str(one)) == 1 for one in each or ()) else ", " for name, each in parts.items()}
    lists = {name: joints[name].join(map(str, each)) for name, each in parts.items() if isinstance(each, list)}
    return replace(row, values={**row.values, **lists})


def are_scores(value: object) -> bool:
    """Return True for the scores of two classes or more, all from 0 to 1: {"joy": 1, "anger": 0}."""
    scores = value.values() if isinstance(value, dict) else ()
    return len(scores) > 1 and all(isinstance(score, int | float) and 0 <= score <= 1 for score in scores)


def are_spans(value: object) -> bool:
    """Return True for places in a text with a name each, as annotation tools mark them: [0, 5, "PERSON"]."""
    return isinstance(value, list) and bool(value) and all(map(_is_span, value))


def _is_span(value: object) -> bool:
    """Return True for one marked place: an object with a start, or [start, end, name]."""
    if isinstance(value, dict):
        return "start" in value
    return isinstance(value, list) and len(value) == 3 and isinstance(value[2], str)


def leaves(value: object) -> Iterator[object]:
    """Yield the values in nested lists and objects that are neither."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def _text_key(value: object) -> str:
    """Return the key of an object's text: text, value, answer or name, else one that ends in _name or _text; "" if it
    has none."""
    if not isinstance(value, dict):
        return ""
    texts = [key for key, part in value.items() if isinstance(part, str)]
    exact = (key for key in ("text", "value", "answer", "name") if key in texts)
    return next(exact, next((key for key in texts if key.lower().endswith(("_name", "_text"))), ""))
