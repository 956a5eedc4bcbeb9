"""Refusals of files whose rows are read by none of our formats: each names the fields that were found."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from core.data.reading.file_rows import Row
from core.data.shapes.left_out import has_value
from core.data.shapes.roles import MIN_WORDS, meaning_of, words_of
from core.errors import DataError

_MAX_ROWS, _MAX_VALUES = 20, 2_000  # that are looked at, of a file and of a row
_MAX_NAMED = 8
_TAG = re.compile(r"[BIO]|[BIESLUM]-[\w-]+|[\w-]+-[BIESLUM]")
_LETTERS = re.compile(r"[^\W\d_]")
# Links, dates and ids, which are one word of letters and other signs.
_NO_TEXT = re.compile(r"https?://\S+|(?=\S*\d)[\w:.+-]{10,}|true|false", re.IGNORECASE | re.ASCII)
_ACTIVITY = {"header", "title", "time", "products"}  # of Takeout
_CARD = {"first_mes", "mes_example"}  # of a character, as SillyTavern and others write it


def refuse_other_rows(values: Mapping[Any, Any]) -> None:
    """Raise DataError for a character card, which is one object with no conversation to train, and for an activity of a
    Google account."""
    if values.keys() >= _ACTIVITY:
        raise DataError("data.is_activity", header=str(values["header"])[:40])
    data = values.get("data")
    fields = data if isinstance(data, dict) and str(values.get("spec", "")).startswith("chara_card") else values
    if fields.keys() >= _CARD:
        raise DataError("data.is_character_card", name=str(fields.get("name") or "?")[:80])


def refuse_tags(rows: Sequence[Row]) -> None:
    """Raise DataError for texts with a tag for each of their words, between blanks."""
    if len(tagged := _written_tags(rows)) == 2:
        raise DataError("data.words_with_tags", words=tagged[0], tags=tagged[1])


def refusal(rows: Sequence[Row]) -> DataError | None:
    """Return the error of rows whose longest text is nested, that have none, or whose words have tags; None if the
    columns hold text."""
    texts: defaultdict[str, list[int]] = defaultdict(list)
    nested: dict[str, None] = {}
    columns: dict[str, None] = {}
    for row in rows[:_MAX_ROWS]:
        for name, value in row.values.items():
            columns[str(name)] = None
            if isinstance(value, dict | list) and has_value(value):
                nested[str(name)] = None
        for path, text in texts_in(row.values):
            if _LETTERS.search(text) and not _NO_TEXT.fullmatch(text.strip()):
                # A name or an id counts as 0: it is no text to train.
                texts[path].append(len(text) if len(words_of(text)) >= MIN_WORDS else 0)
    if not texts and nested:
        return _nested([*nested], [*nested])
    if len(texts) < 2 and not any(map(any, texts.values())):
        if len(tagged := _tagged(rows)) == 2:
            return DataError("data.words_with_tags", words=tagged[0], tags=tagged[1])
        return DataError("data.no_text", columns=[*columns][:20])
    # A long text in few rows tells little.
    longest = sorted(texts, key=lambda path: (-median(texts[path]) * len(texts[path]), -sum(texts[path])))
    if longest[0] in columns or not nested:
        return None
    return _nested([*nested], longest)


def _tagged(rows: Sequence[Row]) -> list[str]:
    """Return [the column of the words of each row, the first of those with a tag for each of them]; [] if there is
    none."""
    columns = [str(name) for name, value in rows[0].values.items() if isinstance(value, list) and value]
    words = next((name for name in columns if all(isinstance(word, str) for word in rows[0].values[name])), None)
    cells = {name: [row.values.get(name) for row in rows[:_MAX_ROWS]] for name in columns}
    lengths = {name: [len(cell) if isinstance(cell, list) else -1 for cell in cells[name]] for name in columns}
    same = [name for name in columns if words and name != words and lengths[name] == lengths[words]]
    return [words, same[0]] if words and same else []


def _written_tags(rows: Sequence[Row]) -> list[str]:
    """Return [the column of texts, the one of a tag for each of their words, between blanks]; [] if there is none."""
    cells = {
        str(name): [str(row.values.get(name) or "").split() for row in rows[:_MAX_ROWS]]
        for name, value in rows[0].values.items()
        if isinstance(value, str) and value
    }
    # "EU rejects it" beside "B-ORG O O"
    lengths = {name: [*map(len, parts)] for name, parts in cells.items()}
    tags = next((name for name, parts in cells.items() if _are_tags(chain.from_iterable(parts))), None)
    words = next((name for name in cells if tags and name != tags and lengths[name] == lengths[tags]), None)
    return [words, tags] if words and tags else []


def _are_tags(words: Iterable[str]) -> bool:
    """Return True for tags such as O, B-PER or PER-B."""
    tags = [*words]
    return "O" in tags and all(map(_TAG.fullmatch, tags))


def _nested(fields: Sequence[str], texts: Sequence[str]) -> DataError:
    """Return the error of nested texts; of lists with questions and answers, or texts and labels, with their names."""
    inside: defaultdict[str, set[str]] = defaultdict(set)
    for path in texts:
        around, _, name = path.rpartition(".")
        inside[around].add("answer" if name.lower() in ("label", "intent", "category") else meaning_of(name) or "")
    lists = [path for path, roles in inside.items() if path and "answer" in roles and roles & {"question", "text"}]
    named = [*fields][:_MAX_NAMED]
    if lists:
        return DataError("data.nested_lists", fields=named, lists=lists[:_MAX_NAMED])
    return DataError("data.nested", fields=named, texts=[*texts][:_MAX_NAMED])


def texts_in(values: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of a row, the last field first: "outputs.answer", "turns[].text". No recursion; of at most
    _MAX_VALUES values, and of a list the first _MAX_ROWS."""
    waiting: list[tuple[str, Any]] = [(str(name), value) for name, value in values.items()]
    for _ in range(_MAX_VALUES):
        if not waiting:
            return
        path, value = waiting.pop()
        if isinstance(value, str):
            yield path, value
        elif isinstance(value, dict):
            waiting += [(f"{path}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{path}[]", part) for part in value[:_MAX_ROWS]]
