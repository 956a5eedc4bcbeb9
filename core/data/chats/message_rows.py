"""Reads tables with one message in each row: messages are grouped by conversation and put into order.

If roles are the speakers and it is known where conversations end, each conversation is one row (`conversation_rows`).
Otherwise the messages are read as a chat (`messages`). Rows are sorted in a temporary database on disk, so that
conversations may be mixed in a file of any size.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import chain, groupby
from typing import NamedTuple

from core.data.chats import dates, message_columns
from core.data.chats.exported_message import ExportedMessage, omission_of_text
from core.data.chats.message_columns import MessageColumns
from core.data.reading.file_rows import Limits, Problem, RawRow, Source, type_name
from core.data.reading.raw_rows import READERS, converted
from core.data.shapes.left_out import Omission, has_value
from core.errors import DataError
from core.files import JsonObject
from core.messages import msg

_AT_ONCE = 1_000  # rows written to the database
# Fields of a message beside its text, as core/data/conversation reads them.
_FIELDS = (
    "tool_calls",
    "function_call",
    "tool_call_id",
    "name",
    "weight",
    "reasoning_content",
    "reasoning",
    "thinking",
)


class _Message(NamedTuple):
    """A row of the table. thread: counts conversations; unread: columns with a value that nothing reads."""

    thread: int
    line: int | None
    speaker: object
    content: object
    when: float | None
    fields: JsonObject
    unread: list[str]


# --- conversations between roles -------------------------------------------------------------------------------------
def conversation_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield a numbered row {"messages": [...]} for each conversation; what was left out of it belongs to its row, or is
    yielded if it has none. Raises DataError if no message is answered."""
    columns, row = _columns(source), 0
    messages: Iterator[_Message | Problem | Omission] = _grouped(source, limits)
    for thread, group in groupby(messages, lambda item: item.thread if isinstance(item, _Message) else None):
        if thread is None:
            yield from (item for item in group if not isinstance(item, _Message))
            continue
        turns, omissions, line = _turns([item for item in group if isinstance(item, _Message)], columns)
        if turns:
            row += 1
            yield RawRow(row, {"messages": turns}, line, tuple(omissions))
        else:
            yield from omissions
    if not row:
        raise DataError("data.no_answered_messages", file=source.path.name, speaker=columns.speaker)


def _turns(messages: list[_Message], columns: MessageColumns) -> tuple[list[JsonObject], list[Omission], int | None]:
    """Return the turns of a conversation from its first question to its last answer, after a system message, with the
    omissions and its first line in the file. Successive texts of one role become one turn; no turns without an
    answer."""
    turns: list[JsonObject] = []
    omissions = [
        Omission("column", name) for name in dict.fromkeys(chain.from_iterable(each.unread for each in messages))
    ]
    for message in messages:
        role = columns.role(message.speaker)
        before = turns[-1]["role"] if turns else None
        if role is None or (role == "system" and before not in (None, "system")):
            omissions.append(Omission("message", str(message.speaker)))
        elif not has_value(message.content) and not message.fields:
            omissions.append(Omission("chat", "deleted"))
        elif role == "assistant" and before in (None, "system"):
            omissions.append(Omission("chat", "unasked"))
        elif before == role and not message.fields and isinstance(message.content, str) and _is_text(turns[-1]):
            turns[-1]["content"] += f"\n{message.content}"
        else:
            turns.append({"role": role, "content": message.content, **message.fields})
    # A conversation ends with an answer: a question at its end has nothing to learn from.
    while turns and turns[-1]["role"] != "assistant":
        omissions += [Omission("chat", "unanswered")] if turns.pop()["role"] != "system" else []
    return turns, omissions, messages[0].line


def _is_text(turn: Mapping[str, object]) -> bool:
    """Return True for a turn with a role and a text alone, which another text can be joined to."""
    return isinstance(turn["content"], str) and len(turn) == 2


# --- a chat ----------------------------------------------------------------------------------------------------------
def messages(source: Source, limits: Limits) -> Iterator[ExportedMessage | Problem]:
    """Yield the messages of a table as those of a chat, with the reader's problems: for tables whose speakers are
    people, or whose conversations have no known end. What cannot be trained is yielded as a message with an omission
    that says why: an empty text, an unknown role, a value in a column that is not read."""
    columns = _columns(source)
    for item in _grouped(source, limits):
        if isinstance(item, Problem):
            yield item
            continue
        if isinstance(item, Omission):
            yield ExportedMessage("", "", omission=item)
            continue
        thread, text = str(item.thread), item.content if isinstance(item.content, str) else ""
        # Where ids tell conversations apart, a silence does not divide them.
        when = None if columns.conversation or columns.parent else item.when
        yield from (ExportedMessage("", "", thread=thread, omission=Omission("column", name)) for name in item.unread)
        role = columns.role(item.speaker)
        exported = ExportedMessage(str(item.speaker or "").strip(), text.strip(), when, thread, line=item.line)
        if columns.are_roles and role is not None:
            exported = exported._replace(person=role, is_model=role == "assistant", is_system=role == "system")
        is_other = role not in ("user", "assistant", "system") if columns.are_roles else not exported.person
        omission = Omission("message", str(item.speaker)) if is_other else omission_of_text(exported.text)
        yield exported._replace(omission=omission)


# --- order -----------------------------------------------------------------------------------------------------------
def _columns(source: Source) -> MessageColumns:
    """Return the source's message columns. Raises ValueError if it is no table of messages."""
    if source.message_columns is None:
        raise ValueError("the source is no table of messages")
    return source.message_columns


def _grouped(source: Source, limits: Limits) -> Iterator[_Message | Problem | Omission]:
    """Yield all messages of one conversation after those of another, each sorted by its parents, turn numbers or times,
    with problems and omissions between them.

    The file's order stays if the table has no column for conversation, parent or time.
    """
    columns = _columns(source)
    is_sorted = columns.conversation or columns.parent or columns.time
    return _sorted(source, limits) if is_sorted else _as_they_stand(source, limits)


def _as_they_stand(source: Source, limits: Limits) -> Iterator[_Message | Problem | Omission]:
    """Yield the messages in file order, numbering conversations by what begins them: a system message, or a turn number
    that is smaller than before."""
    columns, thread = _columns(source), 0
    before: tuple[float, ...] = ()
    for item in _items(source, limits):
        if not isinstance(item, RawRow):
            yield item
            continue
        message = _message(item, columns, None)
        if columns.begins == "system" and columns.role(message.speaker) == "system":
            thread += 1
        elif columns.begins == "turn" and columns.turn:
            number = message_columns.natural(item.value.get(columns.turn))
            # Equal numbers are several messages of one turn.
            thread, before = thread + (number < before), number
        yield message._replace(thread=thread)


_TABLE = """
    CREATE TABLE messages (conversation TEXT, place, rank REAL, number INTEGER, line INTEGER, happened REAL, content)"""
_INSERT = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?)"
_IN_ORDER = """
    SELECT first, line, happened, content, place FROM messages
    JOIN (SELECT conversation, min(number) AS first FROM messages GROUP BY conversation) USING (conversation)
    ORDER BY first, place, number"""
# Of messages that name the one that they answer (conversation: their id, place: that of the other): the best answers.
# Messages that name each other in a circle would have no end without the depth.
_BEST = """
    WITH RECURSIVE best AS (
        SELECT conversation AS id, place AS parent, row_number() OVER (
            PARTITION BY place ORDER BY rank IS NULL, rank, number) AS position FROM messages WHERE place IS NOT NULL),
    talk(first, depth, id) AS (
        SELECT min(number), 0, conversation FROM messages
        WHERE place IS NULL OR place NOT IN (SELECT conversation FROM messages) GROUP BY conversation
        UNION ALL SELECT first, depth + 1, best.id FROM talk JOIN best ON best.parent = talk.id AND position = 1
        WHERE depth < 1000)
    SELECT first, line, happened, content, depth FROM talk JOIN messages ON conversation = id
    GROUP BY first, depth ORDER BY first, depth"""


def _sorted(source: Source, limits: Limits) -> Iterator[_Message | Problem | Omission]:
    """Yield the messages by conversation and in order, sorted in a temporary database, so that memory does not grow;
    one without an id of its conversation is an omission. Raises DataError if the disk is full."""
    columns = _columns(source)
    order: dates.Order = "dmy"
    if columns.time:
        # The order of day and month follows from all times: the file is read twice.
        values = (item.value for item in _items(source, limits) if isinstance(item, RawRow))
        order = message_columns.date_order(message_columns.time_cell(value, columns.time) for value in values)
    try:
        with closing(sqlite3.connect("")) as database:  # a file that is deleted when it is closed
            database.execute(_TABLE)
            waiting: list[tuple[object, ...]] = []
            for number, item in enumerate(_items(source, limits)):
                if not isinstance(item, RawRow):
                    yield item
                    continue
                message = _message(item, columns, order)
                ids = [columns.message] if columns.message else [*columns.conversation]
                if ids and not any(has_value(item.value.get(name)) for name in ids):
                    yield Omission("chat", "nowhere")
                    continue
                # a separator that no id holds: 1 and 23 are another conversation than 12 and 3
                conversation = "\x1f".join(str(item.value.get(name)).strip() for name in ids)
                place, rank = _place(item.value, columns, message.when), _rank(item.value.get(columns.rank or ""))
                # Decides between messages at one place.
                number = -number if columns.newest_first else number
                content = json.dumps([*message[2:4], *message[5:]], default=str)
                waiting.append((conversation, place, rank, number, message.line, message.when, content))
                if len(waiting) == _AT_ONCE:
                    database.executemany(_INSERT, waiting)
                    waiting.clear()
            database.executemany(_INSERT, waiting)
            yield from _in_order(database, columns)
    except sqlite3.Error as error:  # the disk is full
        raise DataError("data.cannot_read", file=source.path.name, reason=str(error)) from error


def _in_order(database: sqlite3.Connection, columns: MessageColumns) -> Iterator[_Message | Omission]:
    """Yield the messages by conversation and in order. A message whose speaker and text another row at the same place
    has already is an omission, and so is each message on a branch that is not the best."""
    left = 0  # messages on other branches
    if columns.parent:
        database.execute("CREATE INDEX ids ON messages (conversation)")
        left = database.execute("SELECT count(*) FROM messages").fetchone()[0]
    records = database.execute(_BEST if columns.parent else _IN_ORDER)
    for thread, (_, group) in enumerate(groupby(records, lambda record: record[0])):
        for place, at_place in groupby(group, lambda record: record[4]):
            before: set[tuple[str, str]] = set()
            for _, line, when, content, _ in at_place:
                speaker, text, fields, unread = json.loads(content)
                is_again = place is not None and has_value(text) and (str(speaker), str(text)) in before
                before.add((str(speaker), str(text)))
                yield (
                    Omission("chat", "again")
                    if is_again
                    else _Message(thread, line, speaker, text, when, fields, unread)
                )
                left -= 1
    yield from (Omission("branch") for _ in range(left))


def _rank(value: object) -> float | None:
    """Return the first number in a cell; None without one."""
    numbers = message_columns.natural(value)
    return numbers[0] if numbers else None


def _place(values: Mapping[str, object], columns: MessageColumns, when: float | None) -> float | str | None:
    """Return the value that a message is sorted by: its parent's id (None for a first message), its turn number, or its
    time."""
    if columns.parent:
        parent = values.get(columns.parent)
        return None if message_columns.is_nothing(parent) else str(parent).strip()
    if columns.turn is None:
        return when
    numbers = message_columns.natural(values.get(columns.turn))
    # Of several numbers, as in "2-10", a text that sorts as they do.
    return numbers[0] if len(numbers) == 1 else " ".join(str(round(number * 1_000_000)).zfill(20) for number in numbers)


def _items(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield a file's rows as the readers give them, converted, with their omissions before them. A row that is no
    object is a Problem. Raises DataError for more rows than limits.rows."""
    for item in READERS[source.kind](source, limits):
        if isinstance(item, RawRow):
            if item.row > limits.rows:
                raise DataError("data.too_many_rows", file=source.path.name, limit=limits.rows)
            item = converted(item, source)
            if not isinstance(item.value, dict):
                yield Problem(row=item.row, line=item.line, text=msg("data.not_an_object", found=type_name(item.value)))
                continue
            yield from item.omissions
            item = replace(item, omissions=())
        yield item


def _message(raw: RawRow, columns: MessageColumns, order: dates.Order | None) -> _Message:
    """Return a row as a message of thread 0. If the speakers are roles, columns such as tool_calls are kept as its
    fields; other filled columns are listed as unread. order: of day and month in its time, None to read no time."""
    values: JsonObject = raw.value
    content = values.get(columns.content)
    if isinstance(content, int | float):
        content = str(content)
    when = dates.moment(message_columns.time_cell(values, columns.time), order) if columns.time and order else None
    others = [name for name, value in values.items() if name not in columns.used and has_value(value)]
    fields = {name: values[name] for name in others if columns.are_roles and name in _FIELDS}
    return _Message(
        0, raw.line, values.get(columns.speaker), content, when, fields, [n for n in others if n not in fields]
    )
