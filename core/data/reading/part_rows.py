"""The rows of a dataset of several files: one file after the other, each by its own format; and notes on its files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice, permutations

from core.data.chats import overview
from core.data.reading import folders, line_files
from core.data.reading.file_rows import Limits, Problem, Row, Source
from core.data.reading.reader import read_rows
from core.data.shapes.cells import leaves
from core.data.shapes.known import FORMATS
from core.data.shapes.nested import texts_in
from core.data.shapes.roles import MIN_WORDS, words_of
from core.data.shapes.sides import Decision
from core.errors import DataError
from core.messages import Message, msg
from core.recipe import Format
from core.values import MIB

_MAX_FILES_NAMED, _MAX_ID_ROWS = 20, 2_000
_MAX_CLASSES = 6  # files whose names may be classes
_LOOKED_AT, _MIN_SAME = 20, 3  # rows or columns of a file, rows with texts or ids
_MAX_BYTES = 64 * MIB  # of files whose texts are searched for the rows of others

# the source, its format, the decision on its columns, its rows
Started = tuple[Source, Format, Decision, Iterator[Row | Problem]]


def start_each(source: Source, start: Callable[[Source], Started], limits: Limits) -> Started:
    """Start reading each file of a source in its own format, and return the source with its parts and notes, the most
    frequent format, one decision for all, and an iterator of all rows.

    If text files may also be chats, or may each be a class, the decision is left to a person. Files that only repeat
    rows of others are dropped. A file that cannot be read is a warning after the last row; if none can, the first one's
    DataError is raised.
    """
    started, refused, parts = [], [], []
    for part in source.parts:
        try:
            started.append(start(part))
            parts.append(started[-1][0])
        except DataError as error:
            refused.append(error)
            parts.append(part)
    if not started:
        raise refused[0]
    # A set is often published in several formats side by side; its rows would be trained several times.
    started, same = _each_once(started, limits)
    parts = [part for part in parts if part.path.name not in same]
    most = Counter(chosen for _, chosen, _, _ in started).most_common(1)[0][0]
    doubts = [*_two_ways(started), *_as_classes(started)]
    decision = Decision(({"text": "text"},), "none") if doubts else Decision.merge(each for _, _, each, _ in started)
    known = {part.path.name: part.notes for part in source.parts}
    # Of a file's notes only those that reading its rows has added: the source has the others.
    of_rows = folders.distinct_notes(
        [replace(part, notes=part.notes[len(known[part.path.name]) :]) for part, _, _, _ in started]
    )
    again = (msg("data.note_same_rows", file=name, other=other) for name, other in same.items())
    # Where questions and answers are clear, it does not matter which files share ids.
    shared = _shared_ids(started, limits) if decision.evidence == "none" or most == "text" else []
    source = replace(source, notes=(*source.notes, *of_rows, *again, *shared, *doubts))
    warnings = (
        Problem(row=0, severity="warning", text=msg("data.note_refused_file", why=error.message)) for error in refused
    )
    # Warnings last: they belong to no row.
    items = chain(_one_after_another(source, started, limits), warnings)
    return replace(source, parts=tuple(parts)), most, decision, items


def _two_ways(started: Iterable[Started]) -> list[Message]:
    """Return one note in a list if some of a dataset's text files are read as chats and others as plain text, which
    then may be chats too; [] otherwise. Text files whose reading a person chose do not count."""
    chats = [source.path.name for source, *_ in started if source.kind == "txt" and source.chat]
    texts = [s.path.name for s, _, each, _ in started if s.kind == "txt" and s.is_prose and each.evidence != "chosen"]
    named = {"chats": chats[:_MAX_FILES_NAMED], "texts": texts[:_MAX_FILES_NAMED]}
    return [msg("data.two_ways", **named)] if chats and texts else []


def _as_classes(started: Sequence[Started]) -> list[Message]:
    """Return one note in a list if the files of a dataset may each be one class: two to _MAX_CLASSES text files, all
    with one entry a line and with a single word as name; [] otherwise, and if a person chose how one is read."""
    files = [source.path for source, *_ in started]
    if not 1 < len(files) <= _MAX_CLASSES or not all(
        source.kind == "txt"
        and source.is_prose
        and each.evidence != "chosen"
        and source.path.stem.isalpha()
        and line_files.has_entries(source.path, source.encoding)
        for source, _, each, _ in started
    ):
        return []
    return [msg("data.files_as_classes", files=[file.name for file in files])]


def _shared_ids(started: Sequence[Started], limits: Limits) -> list[Message]:
    """Return a note on the first file of which a column holds ids of the rows of another file; [] without one. Looks at
    the first files, rows and columns."""
    cells: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    # A table of messages is read as it is, an exported chat has no ids.
    for source in [s for s, *_ in started if not s.validation and (s.message_columns or not s.chat)][:_MAX_FILES_NAMED]:
        for row in _first_rows(replace(source, chat="", message_columns=None), limits, _MAX_ID_ROWS):
            for name, value in islice(row.values.items(), _LOOKED_AT if len(row.values) > 1 else 0):
                cells[source.path.name, str(name)].update(
                    one for one in map(str, leaves(value)) if 0 < len(one) < 60 and one.count(" ") < MIN_WORDS - 1
                )
    for (file, ids), (other, refers) in permutations(cells, 2):
        keys, values = cells[file, ids], cells[other, refers]
        # A short one says little, such as 1 to 9.
        are_named = ids.lower().endswith("id") and refers.lower().endswith(("id", "ids"))
        known = [values[key] for key in keys if key in values and (are_named or len(key) > 7)]
        is_key = len(keys) == keys.total() and (ids != refers or len(values) < values.total() or {*keys} == {*values})
        if file != other and is_key and len(known) > _MIN_SAME and 2 * sum(known) >= values.total():
            return [msg("data.note_shared_ids", file=file, ids=ids, other=other, refers=refers)]
    return []


def _each_once(started: list[Started], limits: Limits) -> tuple[list[Started], dict[str, str]]:
    """Return (the files without those that only repeat rows of others, {name of a file left out: name of the first file
    of those others}).

    Only files of the format that says most, such as conversations, count as the others; plain texts are never left out.
    A file repeats them if of each of its first rows two longer texts, or the only one, stand in their texts.
    """
    # FORMATS begins with conversations, which hold most.
    formats = sorted({chosen for _, chosen, _, _ in started} - {"text"}, key=FORMATS.index)
    telling = [each for each in started if each[1] == formats[0]] if len(formats) > 1 else []
    words = "\n".join(_texts_of(telling, limits))
    same: dict[str, str] = {}
    for source, chosen, *_ in started if words else ():
        rows = _longer_texts(source, limits) if chosen in formats[1:] else []
        # One text may be equal by chance, two are not.
        known = [sum(text in words for text in texts) >= min(2, len(texts)) for texts in rows]
        if len(rows) >= _MIN_SAME and all(known):
            same[source.path.name] = telling[0][0].path.name
    return [each for each in started if each[0].path.name not in same], same


def _texts_of(started: Iterable[Started], limits: Limits) -> Iterator[str]:
    """Yield all texts of files; nothing for chats, and if the files are large."""
    if sum(each[0].bytes for each in started) <= _MAX_BYTES:
        for source, *_ in started:
            items = [] if source.chat or source.message_columns else read_rows(source, limits)
            yield from (text for item in items if isinstance(item, Row) for _, text in texts_in(item.values))


def _longer_texts(source: Source, limits: Limits) -> list[set[str]]:
    """Return the longer texts (of MIN_WORDS or more) of each of the first rows that has any; nothing for chats, and for
    a file that cannot be read."""
    if source.chat or source.message_columns:  # to know their first rows, all of them are read
        return []
    rows = _first_rows(source, limits, _LOOKED_AT)
    each = ({text.strip() for _, text in texts_in(row.values) if len(words_of(text)) >= MIN_WORDS} for row in rows)
    return [*filter(None, each)]


def _first_rows(source: Source, limits: Limits, most: int) -> Iterator[Row]:
    """Yield the readable rows among the first `most` rows and problems of a file. If the file cannot be read on, just
    the rows before that; no error is raised."""
    with suppress(DataError):
        yield from (item for item in islice(read_rows(source, limits), most) if isinstance(item, Row))


def _one_after_another(source: Source, started: Iterable[Started], limits: Limits) -> Iterator[Row | Problem]:
    """Yield the rows of several files, numbered consecutively, each with its file, format and split. A file that breaks
    becomes a warning; too many rows raise DataError."""
    before = 0
    for part, chosen, _, items in started:
        last = before
        try:
            for item in items:
                if isinstance(item, Row):
                    item = replace(
                        item,
                        number=item.number + before,
                        file=part.path.name,
                        format=chosen,
                        validation=part.validation or item.validation,
                    )
                    last = max(last, item.number)
                elif item.row:
                    item = item.model_copy(update={"row": item.row + before, "file": part.path.name})
                    last = max(last, item.row)
                if last > limits.rows:
                    raise DataError("data.too_many_rows", file=source.path.name, limit=limits.rows)
                yield item
        # A broken file costs its own rows only.
        except DataError as error:
            if last > limits.rows:
                raise
            yield Problem(row=0, severity="warning", text=msg("data.note_refused_file", why=error.message))
        before = last


def origin_notes(source: Source, rows: Counter[str], apart: Counter[str], only_apart: bool) -> list[Message]:
    """Return notes on the files of a dataset, on how chats among them are read, and on its validation rows.

    rows: number of rows that were read of each file; apart: number of trainable rows of each file that are test or
    validation rows. only_apart: True if there are no other trainable rows, so that these are trained.
    """
    if not source.parts and (source.validation or only_apart and apart):
        return [msg("data.note_only_validation", files=[source.path.name])]
    if not source.parts:
        return [_validation_note(source, [source.path.name], apart.total())] if apart else []
    named = [
        msg("data.counted", name=name, count=count) for name, count in list(rows.items())[:_MAX_FILES_NAMED] if name
    ]
    listed: list[Message] | list[str] = named or [part.path.name for part in source.parts[:_MAX_FILES_NAMED]]
    notes = [msg("data.note_files", count=len(source.parts), files=listed)] if len(source.parts) > 1 else []
    if not source.chat:
        chats = [part for part in source.parts if part.chat][:_MAX_FILES_NAMED]
        notes += [msg("data.note_in_file", file=part.path.name, note=overview.read_as(part).note()) for part in chats]
    if apart:
        each = [msg("data.counted", name=name, count=count) for name, count in list(apart.items())[:_MAX_FILES_NAMED]]
        files = [*apart] if len(apart) == 1 else each
        is_only = msg("data.note_only_validation", files=files)
        notes.append(is_only if only_apart else _validation_note(source, files, apart.total()))
    return notes


def _validation_note(source: Source, files: Sequence[object], rows: int) -> Message:
    """Return the note on validation rows: their files, their number, and whether file names or a column say so."""
    by_name = any(part.validation for part in source.parts)
    column = "" if by_name else next((part.split_column for part in (source, *source.parts) if part.split_column), "")
    by = msg("data.split_by_column", column=column) if column else msg("data.split_by_files")
    return msg("data.note_validation", files=files, rows=rows, by=by)
