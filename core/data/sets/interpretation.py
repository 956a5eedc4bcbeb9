"""Decides how the rows of a data file are read: the file, its format, the roles of its columns, and its rows so.

The first SAMPLE_ROWS rows decide. In this order: an exported chat; a table with one message in each row; the columns
that a person chose; multiple choice; classes with names; a format by its columns; the sides of other tables
(core/data/shapes/sides); turn markers in a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

from core.data.chats import message_columns, overview
from core.data.formats import read_example_closely
from core.data.reading import part_rows, sniff
from core.data.reading.choices import Choices
from core.data.reading.file_rows import Limits, Problem, Row, Source, doubled
from core.data.reading.label_names import NO_NAMES
from core.data.reading.part_rows import Started
from core.data.reading.reader import read_rows
from core.data.reading.split_names import split_column, without_split_column
from core.data.reading.suffixes import DOCUMENTS, MARKDOWN, SPREADSHEETS
from core.data.shapes import class_names, header, marked_rows, multiple_choice, prose, sides
from core.data.shapes.cells import columns_of_lists, columns_of_texts_or_lists, with_joined_lists, with_lists_as_lines
from core.data.shapes.known import COLUMNS, FORMATS, SAMPLE_ROWS, recognize_format
from core.data.shapes.left_out import MEDIA, has_value
from core.data.shapes.nested import refusal, refuse_tags
from core.data.shapes.roles import Roles, meaning_of, renamed, require
from core.data.shapes.sides import Decision
from core.errors import DataError
from core.messages import Message, msg
from core.recipe import Format

_MAX_TABLES = 20  # named in a refusal
_TABLES = ("csv", "sqlite", *SPREADSHEETS)  # whose cells are texts
_UNREAD = ("data.nested", "data.nested_lists", "data.unknown_format", "data.no_text", "data.no_answer_column")
CHECK_EVERY = 20  # rows, of up to 4 MiB


@dataclass(frozen=True)
class _Meaning:
    """The reading of a source: its format, and the conversions of each row in their order."""

    source: Source
    format: Format
    decision: Decision = Decision()
    conversions: tuple[Callable[[Row], Row | Problem], ...] = ()

    def started(self, limits: Limits) -> Started:
        """Return source, format, decision, and an iterator of all rows with the conversions applied."""
        items = read_rows(self.source, limits)
        for convert in self.conversions:
            items = _with_rows_converted(items, convert)
        return self.source, self.format, self.decision, items


def interpret(
    path: str | Path | Source,
    format: Format | None,
    limits: Limits,
    choices: Choices,
    check: Callable[[], None] = lambda: None,
) -> Started:
    """Return the file with notes, its format, the roles of its columns if no format has their names, and an iterator of
    all its rows. Raises DataError if the file cannot be read, has no rows, or no shape that can be trained. check:
    called often, and may raise."""
    if format is not None and format not in FORMATS:
        raise DataError("data.no_such_format", found=str(format)[:60], expected=list(FORMATS))
    source = path if isinstance(path, Source) else sniff.probe(path, limits, choices, check)
    # What the file itself says (an app's export, several files) comes before guesses about its columns.
    if source.chat:
        return _chat_meaning(replace(source, choices=choices), check).started(limits)
    if source.parts:
        return part_rows.start_each(source, lambda part: interpret(part, format, limits, choices, check), limits)
    may_be_messages = format in (None, "messages")
    # If a person names the format, nothing is inferred from the rows: one shows that the file can be read.
    rows = _sample(source, limits, SAMPLE_ROWS if may_be_messages or choices.columns else 1, check)
    source = _noted_as_pairs(source, rows[0])
    if may_be_messages and not choices.columns and (grouped := _with_messages(source, rows, choices)):
        return (_chat_meaning(grouped, check) if grouped.chat else _Meaning(grouped, "messages")).started(limits)
    if choices.voice:
        raise DataError("data.not_a_chat", file=source.path.name, voice=choices.voice[:80])

    def every_row() -> Iterator[Row | Problem]:
        """Return an iterator of all rows of the file, read anew at each call and a Problem in place of each unreadable
        one, which calls check before every CHECK_EVERY rows. Numbers of classes are replaced by their names once those
        are known."""
        return _checked(read_rows(source, limits), check)

    source, rows = _with_class_names(source, rows, every_row)
    with _saying_more(source, [*map(str, rows[0].values)]):
        decide = partial(_meaning, format=format, choices=choices, every_row=every_row)
        return _table_meaning(source, rows, choices.columns or {}, decide).started(limits)


def _chat_meaning(source: Source, check: Callable[[], None]) -> _Meaning:
    """Return how an exported chat is read: as conversations in which one person's or assistant's messages are the
    answers.

    The decision counts as a guess ("content") if no person chose whose messages those are and they are not an
    assistant's; else it is by "names". check: called often, and may raise.
    """
    chat = overview.read_as(source, lambda rows=0: check())
    return _Meaning(source, "messages", Decision((), "content" if chat.guessed and not chat.known else "names"))


@contextmanager
def _saying_more(source: Source, names: Sequence[str]) -> Iterator[None]:
    """Context manager: raises a DataError of the block again, with more that may explain it.

    If the first row of a table may be data and not names, the error also names the columns, unless a person chose about
    the header; for one table or sheet of several it names the other ones. names: of the columns. Other exceptions pass.
    """
    try:
        yield
    except DataError as error:
        others = [name for name in source.sheets if name not in (source.sheet, *source.sheet.split(" / "))]
        # Nothing may fit because a row was taken for names.
        is_open = source.header or source.header is None and source.kind in _TABLES and header.may_be_row(names)
        if is_open and source.choices.header is None and error.message.key in _UNREAD:
            error = DataError("data.header_or_row", columns=[*names][:20], problem=error.message)
        if source.sheet and others:
            about = {"table": source.sheet, "tables": others[:_MAX_TABLES], "problem": error.message}
            error = DataError("data.in_table", **about)
        raise error


def _table_meaning(
    source: Source, rows: list[Row], chosen: Roles, decide: Callable[[Source, list[Row]], _Meaning]
) -> _Meaning:
    """Return how a table's rows are read, as `decide` tells for the source and rows, after two preparations: a column
    that names the split is removed and marks validation rows; columns whose name the table has twice are left out.

    chosen: columns that a person chose. Raises DataError for doubled names if a person chose such a column, or if
    without them the rows are no clear pairs of question and answer; if the person has to choose anyway, all columns are
    offered.
    """
    if twice := doubled([str(name) for name in rows[0].values]):
        name, first, second = next(iter(twice.values()))
        error = DataError("data.csv_duplicate_header", file=source.path.name, column=name, first=first, second=second)
        every = rows
        rows = [replace(row, values={n: v for n, v in row.values.items() if n not in twice}) for row in rows]
        if not rows[0].values or not twice.keys().isdisjoint(chosen):
            raise error
        # What is left may be clear without them.
        try:
            meaning = _table_meaning(source, rows, chosen, decide)
        except DataError:
            raise error from None
        if meaning.format == "text" or meaning.decision.evidence == "content":
            raise error
        if meaning.decision.evidence == "none":  # a person chooses from all of them
            complete = decide(source, every)
            return complete if complete.decision.evidence == "none" else meaning
        return meaning
    column = split_column(rows)
    if not column or column in chosen:
        return decide(source, rows)
    apart = partial(without_split_column, column=column)
    meaning = decide(replace(source, split_column=column), [*map(apart, rows)])
    return replace(meaning, conversions=(apart, *meaning.conversions))


def _sample(source: Source, limits: Limits, most: int, check: Callable[[], None]) -> list[Row]:
    """Return the first rows (at most `most`) that can be read, of which a file may have a million broken ones before.
    Raises DataError with the first problem if there are none."""
    rows: list[Row] = []
    problem: Problem | None = None
    for item in _checked(read_rows(source, limits), check):
        if isinstance(item, Row):
            rows.append(item)
        elif problem is None and item.severity == "error":
            problem = item
        if len(rows) == most:
            break
    if not rows:
        raise _no_rows_error(source, problem)
    return rows


def _meaning(
    source: Source,
    rows: list[Row],
    format: Format | None,
    choices: Choices,
    every_row: Callable[[], Iterator[Row | Problem]],
) -> _Meaning:
    """Return how the rows of a table, or of a list of objects, are read: quiz questions first, then cells that hold
    lists, then texts. Raises DataError if they cannot be."""
    # Options are lists too, but stay together.
    if format is None and not choices.columns and (written := multiple_choice.decided(rows, every_row)):
        return _Meaning(_noted(source, written.note()), "question_answer", conversions=(written.apply,))
    if format is None and not choices.columns:
        multiple_choice.refuse_unread(rows)
    chosen = {name: role for name, role in (choices.columns or {}).items() if role not in ("ignore", "context")}
    if lists := columns_of_lists(rows) if source.kind in _TABLES else ():
        join = partial(with_joined_lists, columns=lists)
    # A list that a person chose is its lines; one that is called answers, several acceptable ones.
    elif lists := tuple(
        n for n in columns_of_texts_or_lists(rows) if n in chosen and not chosen[n] == meaning_of(n) == "answer"
    ):
        join = partial(with_lists_as_lines, columns=lists)
    else:
        try:
            meaning = _of_texts(source, rows, format, choices)
            is_guess = meaning.format == "text" and meaning.decision.evidence in ("content", "none")
            if not is_guess or not (lists := columns_of_texts_or_lists(rows)):
                return meaning
        except DataError as error:
            if error.message.key not in _UNREAD or not (lists := columns_of_texts_or_lists(rows)):
                raise
        join = partial(with_lists_as_lines, columns=lists)
    source = _noted(source, msg("data.note_lists", columns=[*lists]))
    meaning = _of_texts(source, [*map(join, rows)], format, choices)
    return replace(meaning, conversions=(join, *meaning.conversions))


def _of_texts(source: Source, rows: list[Row], format: Format | None, choices: Choices) -> _Meaning:
    """Return how rows are read: by the chosen columns, the chosen format, classes, a known format or the roles of their
    columns, in this order. Raises DataError if none fits."""
    # A person's word first, then names, and only then what the values look like.
    if choices.columns:
        require(choices.columns, rows)
        return _by_roles(source, rows, Decision((choices.columns,), "chosen"))
    if format is not None:
        return _Meaning(source, format)
    if by_class := _classified(rows, source):
        return _Meaning(source, "text_label", conversions=(by_class.apply,))
    known = _recognized(rows)
    if source.lines == "cards":  # or settings, or prose with dashes
        return _by_roles(source, rows, Decision(sides.CARDS, "content"))
    if isinstance(known, Decision):
        return _by_roles(source, rows, known)
    if known == "text":
        return _text_meaning(_Meaning(source, known), rows)
    if known == "prompt_completion" and (pair := marked_rows.marked_pair(rows)):
        return _Meaning(_noted(source, pair[0]), "question_answer", conversions=(pair[1],))
    if known != "text_label":
        return _Meaning(source, known)
    label, name = class_names.names_beside(rows)
    if label:
        note = msg("data.note_label_beside", column=label, names=name)
        return _Meaning(
            _noted(source, note), known, conversions=(partial(class_names.with_name_beside, label=label, name=name),)
        )
    unnamed = class_names.unnamed(rows, source.class_names)
    return _Meaning(_noted(source, unnamed) if unnamed else source, known)


def _with_usable_readings(decision: Decision, rows: Sequence[Row]) -> Decision:
    """Reduce a decision that a person has to make to at most MAX_READINGS readings with which at least one row can be
    trained and whose answers tell something. If just one of several is left, it is taken as a guess.

    A single reading from the start stays a question; without a usable reading the first ones stay. A decision that is
    made already is returned as it is.
    """
    if decision.evidence != "none":
        return decision

    def has_readable_row(roles: Roles) -> bool:
        """Return True if at least one of the sample rows gives an example with these roles."""
        format: Format = "text" if "text" in roles.values() else "question_answer"
        return any(read_example_closely(renamed(row, roles), format)[0] for row in rows)

    useful = sides.with_useful_answers(decision.readings, rows)
    readings = (
        tuple(islice(filter(has_readable_row, useful), sides.MAX_READINGS)) or decision.readings[: sides.MAX_READINGS]
    )
    is_only = len(readings) == 1 < len(useful)
    return Decision(readings, "content" if is_only else "none")


def _by_roles(source: Source, rows: list[Row], decision: Decision) -> _Meaning:
    """Return the reading of rows by the roles of their columns: as texts (or conversations in them) if one is a text,
    else as question and answer.

    An undecided decision loses the readings that no row fits. A note is added if an answer column holds numbers of
    classes.
    """
    decision = _with_usable_readings(decision, rows)
    roles = decision.roles
    convert = partial(renamed, roles=roles)
    # Answers of few values are labels.
    few = (
        name
        for each in decision.readings
        for name, role in each.items()
        if role == "answer" and 2 * len({str(row.values.get(name)) for row in rows}) <= len(rows)
    )
    if bare := class_names.note_numbers(rows, few):
        source = _noted(source, bare)
    if "text" not in roles.values():
        return _Meaning(source, "question_answer", decision, (convert,))
    return _text_meaning(_Meaning(source, "text", decision, (convert,)), [convert(row) for row in rows])


def _text_meaning(meaning: _Meaning, rows: list[Row]) -> _Meaning:
    """Return how texts are read: as conversations if a column has turn markers in it, with a note; else as texts. If
    their lines seem to be no running text, a person has to decide, unless one has already chosen the columns."""
    column = None if meaning.source.is_prose and meaning.source.kind == "txt" else marked_rows.marked(rows)
    if column is None:
        return meaning if meaning.decision.evidence in ("chosen", "none") else _if_running(meaning, rows)
    source, conversions = _noted(meaning.source, column[0]), (*meaning.conversions, column[1])
    return replace(meaning, source=source, format="messages", conversions=conversions)


def _if_running(meaning: _Meaning, rows: Sequence[Row]) -> _Meaning:
    """Return meaning as it is if the texts seem to be running text; else with a decision that a person has to make,
    whether to train them as text, and a note why.

    Texts with a known shape of lines are not doubted. Code is doubted if it is a list of data, or if files of data
    stand beside it, which has a note already.
    """
    source, decision = meaning.source, meaning.decision
    if source.kind == "code" and (entry := prose.entry_in(str(row.values["text"]) for row in rows)):
        note = msg("data.code_of_data", example=entry)
        return replace(meaning, source=_noted(source, note), decision=Decision(({"text": "text"},), "none"))
    if source.kind == "code" or source.lines:
        return replace(meaning, decision=Decision(({"text": "text"},), "none")) if source.beside else meaning
    is_named = decision.evidence == "names" and source.kind != "txt"  # or a document, with headings and lists
    is_document = is_named or source.kind in DOCUMENTS or source.path.suffix.lower() in MARKDOWN
    names = COLUMNS["text"]["text"]
    column = next((str(name) for name in rows[0].values if str(name).strip().lower() in names), "")
    why = prose.doubt((text for row in rows if isinstance(text := row.values.get(column), str)), is_document)
    if why is None:
        return meaning
    roles = decision.readings or ({column: "text"},)
    return replace(meaning, source=_noted(source, msg("data.no_prose", why=why)), decision=Decision(roles, "none"))


def _noted(source: Source, note: Message) -> Source:
    """Return the source with one more note."""
    return replace(source, notes=(*source.notes, note))


def _recognized(rows: list[Row]) -> Format | Decision:
    """Return the format of the rows, or the decision on their columns. Raises DataError if there is neither, with the
    reason that fits (rankings, tags, pictures, nested fields)."""
    try:
        format = recognize_format(rows)
    except DataError as error:
        if error.message.key != "data.unknown_format":
            raise
        # A guess would take an option for the answer.
        multiple_choice.refuse_without_key(rows)
        refuse_tags(rows)
        decision = sides.decide(rows)
        # Named columns may stand beside nested ones.
        if (decision is None or decision.evidence != "names") and (nested := refusal(rows)):
            raise nested from error
        if decision is None:
            raise
        if decision.evidence == "content" and "text" in decision.roles.values() and (media := _media_of(rows)):
            raise DataError("data.every_row", problem=msg("data.needs_picture", columns=media)) from error
        return decision
    beside = sides.beside_text(rows) if format == "text" else sides.beside_pair(rows, format)
    return beside or format


def _media_of(rows: Sequence[Row]) -> list[str]:
    """Return the columns that hold a picture, film or sound in every row."""
    names = (str(name) for name in rows[0].values if str(name).strip().lower() in MEDIA)
    return [name for name in names if all(has_value(row.values.get(name)) for row in rows)]


def _classified(rows: list[Row], source: Source) -> class_names.Classified | None:
    """Return how rows of a text and a named class are read; None if no class has a name, or if the columns' names
    already show a format other than plain text."""
    if not source.class_names:
        return None
    try:
        if recognize_format(rows) != "text":
            return None
    except DataError:
        pass
    return class_names.classified(rows, source.class_names)


def _with_rows_converted(
    items: Iterator[Row | Problem], convert: Callable[[Row], Row | Problem]
) -> Iterator[Row | Problem]:
    """Return an iterator of the items with each row converted; problems pass as they are."""
    return (convert(item) if isinstance(item, Row) else item for item in items)


def _with_class_names(
    source: Source, sample: list[Row], rows: Callable[[], Iterator[Row | Problem]]
) -> tuple[Source, list[Row]]:
    """Return the source and its first rows, with the names of classes in place of numbers and a note, if a description
    has them; else both as they are. rows: all of the file."""
    if source.label_names == NO_NAMES:
        return source, sample
    names = class_names.names_by_column(source.label_names, sample, rows)
    if not names:
        return source, sample
    note = class_names.note(source.label_names.file, names)
    named = replace(_noted(source, note), class_names=names)
    return named, [replace(row, values=class_names.with_names(row.values, names)) for row in sample]


def _checked(items: Iterator[Row | Problem], check: Callable[[], None]) -> Iterator[Row | Problem]:
    """Yield the items, calling check, which may raise, before every CHECK_EVERY of them."""
    for number, item in enumerate(items):
        if number % CHECK_EVERY == 0:
            check()
        yield item


def _with_messages(source: Source, rows: Sequence[Row], choices: Choices) -> Source | None:
    """Return a table with one message in each row as the source of its conversations, with a note; None for any other
    file."""
    try:
        by_name = recognize_format(rows)
    except DataError as error:
        if error.message.key != "data.unknown_format":
            return None
        by_name = "text"
    # `conversation` may hold an id.
    names = COLUMNS["messages"]["messages"]
    values = [value for row in rows for name, value in row.values.items() if str(name).lower() in names]
    is_id = by_name in ("messages", "sharegpt") and bool(values) and not any(isinstance(v, list) for v in values)
    if source.layout or not (by_name in ("text", "text_label") or is_id):
        return None
    columns = message_columns.find([row.values for row in rows])
    if columns is None or (by_name == "text_label" and not (columns.are_roles and columns.conversation)):
        return None
    chat = "" if columns.are_roles and columns.ends_known else "roles" if columns.are_roles else "names"
    return replace(source, message_columns=columns, chat=chat, choices=choices, notes=(*source.notes, columns.note()))


def _noted_as_pairs(source: Source, row: Row) -> Source:
    """Return the source with a note that it is read as questions and answers, in place of the note on paragraphs, if it
    is a page of questions or a notebook of pairs; any other source as it is. row: its first row, which shows it."""
    if "question" not in row.values or not (source.is_prose or source.kind == "ipynb"):
        return source
    others = (note for note in source.notes if note.key not in ("data.note_paragraphs", "data.note_document"))
    return replace(source, notes=(*others, msg("data.note_questions" if source.is_prose else "data.note_notebook")))


def _no_rows_error(source: Source, problem: Problem | None) -> DataError:
    """Return the error of a file without rows, or without usable ones: problem is then the first."""
    if problem is None:
        return DataError("data.no_rows", file=source.path.name)
    return DataError("data.no_good_rows", file=source.path.name, problem=problem.sentence)
