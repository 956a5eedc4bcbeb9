"""Reads rows from JSON Lines and JSON: one object per line, one array, or an object around an array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from core.data.reading.file_rows import Limits, Problem, RawRow, Source, lines_of, lone_surrogate, too_big
from core.data.reading.json_text import JsonText, LargeValue
from core.data.reading.split_names import split_of
from core.data.shapes.cells import is_list_of_texts
from core.data.shapes.labelled import rows_in_object
from core.data.shapes.left_out import NEARLY_ALL, Omission, has_value
from core.data.shapes.nested import texts_in
from core.data.shapes.roles import MIN_WORDS, QUESTION_MARKS, meaning_of, words_of
from core.errors import DataError
from core.messages import Message, msg
from core.values import MIB

# A list under one of these is a conversation, so the object around it is a row and no wrapper of rows.
_CONVERSATIONS = {"messages", "conversations", "conversation"}
_PARTS_OF_A_ROW = _CONVERSATIONS | {
    "paragraphs",
    "qas",
    "qa_pairs",
    "chosen",
    "rejected",
    "prompt",
    "chat_messages",
    "worldinfo",
}
_NO_ROWS = _PARTS_OF_A_ROW | {"features"}  # the datasets server describes its columns by `features`
_TURNS = _CONVERSATIONS | {"dialog", "dialogue", "turns", "utterances"}
_WRAPPERS = {"data", "train", "rows", "examples", "items", "records", "dataset"}
_QUESTION = re.compile(r"\S\s+\S|[?？؟]\s*$")  # several words, which is no column's name
_LIST, _OBJECTS = re.compile(r"\["), re.compile(r"\[[ \t\r\n]*\{")
_OBJECTS_OR_LISTS = re.compile(r"\[[ \t\r\n]*[\[{]")
_ALIKE = "\0"  # no key of an object
# Words of a text that a name stands for; lists of texts that are columns; texts that are no columns of one row.
_LONG, _MAX_COLUMNS, _MANY = 20, 50, 12
_MIN_ROWS, _LOOKED_AT = 5, 20  # rows of lists that are columns; items that are searched for a text
_DECODER = json.JSONDecoder()


def jsonl_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem]:
    """Yield the rows of a JSON Lines file, of several for an object with a list of rows; a line that is no JSON, too
    large or no UTF-8 is a Problem of one row, padding with NULs a warning."""
    row, is_padded = 0, False
    broken = source.first_bad_byte is not None
    # surrogateescape turns bytes that are not UTF-8 into lone surrogates, so that one bad line costs one row.
    with source.path.open(encoding=source.encoding, errors="surrogateescape" if broken else "strict") as file:
        for number, line, size in lines_of(file, limits.row_bytes):
            if line is None:
                row += 1
                yield too_big(row, number, size, limits)
                continue
            line = line.rstrip()  # otherwise the error of an unclosed text would be at the line's end
            if not line:
                continue
            row += 1
            if broken and lone_surrogate(line):
                yield Problem(row=row, line=number, text=msg("data.line_not_utf8"))
                continue
            if line[0] == "\0" or line[-1] == "\0":
                line = line.strip("\0 \t")
                if not is_padded:
                    is_padded = True
                    yield _padding_warning(number)
                if not line:
                    row -= 1
                    continue
            try:
                value = decode_line(line)
            except RecursionError:
                yield Problem(row=row, line=number, text=msg("data.too_deep", limit=limits.depth))
            except ValueError as error:
                yield Problem(row=row, line=number, text=_why_not_json(error, line))
            else:
                # Only an object with a list in it can stand for several rows; most rows are none.
                if type(value) is not dict or list not in map(type, value.values()):
                    yield RawRow(row, value, number)
                    continue
                for row, one in enumerate([*rows_in_object(value)] or [value], row):  # noqa: B020 - goes on from it
                    yield RawRow(row, one, number)


def _padding_warning(line: int) -> Problem:
    """Return a warning for NULs in place of rows, which a crash leaves in the file that was being written."""
    return Problem(row=0, severity="warning", text=msg("data.nul_padding", line=line))


def decode_line(line: str) -> Any:
    """Return the value of a line of JSON, as `json.loads` does but twice as fast if no white space stands around the
    value. Raises ValueError if the line is not exactly one value."""
    try:
        value, end = _DECODER.raw_decode(line)
    except json.JSONDecodeError:
        end = -1
    return value if end == len(line) else json.loads(line)


def _why_not_json(error: ValueError, line: str) -> Message:
    """Return why a line is no JSON, with the column if known."""
    if "\0" in line:
        return msg("data.nul")
    if not isinstance(error, json.JSONDecodeError):  # an integer of more than 4,300 digits
        return msg("data.broken_number")
    if error.msg == "Extra data":
        return msg("data.two_on_a_line", column=error.colno)
    return msg("data.broken_json", column=error.colno, reason=_JSON_REASONS.get(error.msg, error.msg))


_JSON_REASONS = {
    "Expecting value": msg("data.json_value"),
    "Expecting ',' delimiter": msg("data.json_comma"),
    "Expecting ':' delimiter": msg("data.json_colon"),
    "Expecting property name enclosed in double quotes": msg("data.json_quotes"),
    "Illegal trailing comma before end of object": msg("data.json_trailing_comma"),
    "Illegal trailing comma before end of array": msg("data.json_trailing_comma"),
    "Unterminated string starting at": msg("data.json_unclosed"),
    "Invalid control character at": msg("data.json_control"),
    "Invalid \\escape": msg("data.json_escape"),
    "Invalid \\uXXXX escape": msg("data.json_escape"),
}


class _RowsText(JsonText):
    row = 1  # number of the row that is being read


def json_rows(source: Source, limits: Limits) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of a JSON file: a list, or an object with lists. Nothing can be read after a mistake: raises
    DataError with its row and line."""
    with source.path.open(encoding=source.encoding) as file:
        text = _RowsText(file, limits.row_bytes)
        try:
            yield from _object(text, _key_of_rows(source, limits)) if text.peek() == "{" else _list(text)
            if (rest := text.peek()) == "\0":
                yield _padding_warning(text.line)
            elif rest:
                raise text.wrong("Extra data")
        except UnicodeError:  # a ValueError too, about the encoding
            raise
        except (ValueError, RecursionError) as error:
            raise _broken_json_error(error, text, source, limits) from None


def _list(text: _RowsText, row: int = 0, validation: bool = False) -> Iterator[RawRow]:
    """Yield the rows of the JSON list at the position; an item with a list of rows gives several. If the first item is
    a text, each text becomes {"text": ...}. Sets text.row, the number of the row that is being read.

    row: number of the rows before it. validation: mark the rows as validation rows.
    """
    are_texts: bool | None = None  # if the first item is a text, each text is a row
    for _ in text.items():
        line, item = text.line, text.value()
        are_texts = type(item) is str if are_texts is None else are_texts
        for one in rows_in_object({"text": item} if are_texts and type(item) is str else item):
            row += 1
            yield RawRow(row, one, line, validation=validation)
        text.row = row + 1


def _key_of_rows(source: Source, limits: Limits) -> str:
    """Return the key of the list that holds a JSON object's rows where the first list of objects is not it; "" if the
    first one is right, and if the file is broken or larger than limits.row_bytes.

    It is the first list of pairs (question and answer, text and class, or conversations; these are named also if they
    come first). Without pairs, and if the first list has no text, the first list with sentences. _ALIKE, which is no
    key, if all lists together are the rows: columns, lists of one kind, or a lexicon.
    """
    # It is decided on the whole value, so only of a small file.
    if source.bytes > limits.row_bytes:
        return ""
    with source.path.open(encoding=source.encoding) as file:
        try:
            value = json.load(file)
        except (ValueError, RecursionError):
            return ""
    if _are_alike(value) or _are_columns(value) or _is_lexicon(value):
        return _ALIKE
    lists = [key for key, items in value.items() if isinstance(items, list) and items and isinstance(items[0], dict)]
    pairs = next((key for key in lists if _is_pair(value[key][0])), "")
    if lists and not pairs and lists[0].lower() not in _NO_ROWS and not _has_text(value[lists[0]], 1):
        parts = {key: part for key, part in value.items() if isinstance(part, list) and dict in map(type, part)}
        return next((key for key in parts if _has_text(parts[key], MIN_WORDS)), "")
    return pairs if pairs and (pairs != lists[0] or _holds_talk(value[pairs][0])) else ""


def _has_text(items: list[Any], words: int) -> bool:
    """Return True if one of the first _LOOKED_AT items of a list holds, at any depth, a text of at least `words`
    words."""
    return any(len(words_of(text)) >= words for item in items[:_LOOKED_AT] for _, text in texts_in({"": item}))


def _is_lexicon(value: dict[str, Any]) -> bool:
    """Return True for many words, each with a list of what it means."""
    return len(value) > _MAX_COLUMNS and all(map(is_list_of_texts, value.values()))


def _are_columns(value: dict[str, Any]) -> bool:
    """Return True for lists of one length beside each other that are columns: some hold objects, and some do not."""
    lists = {name: part for name, part in value.items() if isinstance(part, list) and part}
    is_other = any(split_of(name) or name.lower() in _WRAPPERS | _NO_ROWS | _TURNS for name in lists)
    lengths, kinds = {*map(len, lists.values())}, {isinstance(part[0], dict) for part in lists.values()}
    return not is_other and len(kinds) == 2 and len(lengths) == 1 and min(lengths) >= _MIN_ROWS


def _are_alike(value: dict[str, Any]) -> bool:
    """Return True for several lists of objects with mostly the same keys: of subjects, lessons, sessions."""
    if len(value) < 2 or any(split_of(name) or name.lower() in _WRAPPERS for name in value):
        return False
    firsts = [rows[0] if isinstance(rows, list) and rows else None for rows in value.values()]
    keys = [{*first} if isinstance(first, dict) else set() for first in firsts]
    return all(2 * len(each & keys[0]) > len(each | keys[0]) for each in keys)


def _is_pair(item: dict[str, Any]) -> bool:
    """Return True for an object with a question and its answer, a text and its class, or a conversation."""
    names = {name.lower() for name, part in item.items() if has_value(part)}
    has_text, has_class = (not names.isdisjoint(each) for each in (("text", "content"), ("intent", "label", "role")))
    return _holds_talk(item) or {"question", "answer"} <= {*map(meaning_of, names)} or has_text and has_class


def _holds_talk(item: dict[str, Any]) -> bool:
    """Return True if an object has a list under "messages", "conversations" or "conversation"."""
    return any(isinstance(item.get(name), list) for name in _CONVERSATIONS)


def _object(text: _RowsText, pairs: str) -> Iterator[RawRow | Problem | Omission]:
    """Yield the rows of a JSON object: those of its first list of objects ("data", ...), or of all lists under "train",
    "test" and the like.

    Without such a list, the rows of another shape (`rows_of_other_shapes`, conversations), or the object itself as one
    row. pairs: the key to use instead of the first list; "" for none. Each other filled field becomes an Omission;
    other lists are named in one warning at the end.
    """
    fields: dict[str, Any] = {}
    used: str | None = None
    lists: list[str] = []
    for key in text.items():
        name, is_list, split = key.lower(), text.peek() == "[", split_of(key)
        if used is not None and split_of(used) and split and is_list:
            # Beside "train" a list "test": its rows follow.
            yield from _list(text, text.row - 1, split == "validation")
        elif used is not None:
            lists += [key] if is_list else []
            if _has_value(text) and not is_list:
                yield Omission("beside", key)
        elif (key == pairs if pairs else name not in _NO_ROWS) and text.opens_with(
            _LIST if pairs or name in _WRAPPERS else _OBJECTS_OR_LISTS if split and not _is_row(fields) else _OBJECTS
        ):
            yield from (Omission("beside", beside) for beside, value in fields.items() if has_value(value))
            used = key
            yield from _list(text, 0, split == "validation")
            text.row = text.row if split else 1
        else:
            # Kept, for without a list of rows the object itself is one.
            fields[key] = text.value()
    if used is None:
        objects = _conversations_in(fields) or rows_of_other_shapes(fields) or [fields]
        for number, one in enumerate((one for row in objects for one in rows_in_object(row)), 1):
            yield RawRow(number, one, 1)
    elif lists:
        yield Problem(row=0, severity="warning", text=msg("data.other_lists", used=used, left_out=lists[:10]))


def _is_row(fields: dict[str, Any]) -> bool:
    """Return True if one of the fields read so far is a text of several words or a question: then a list of `tests`
    beside them is part of the same row."""
    return any(isinstance(value, str) and _QUESTION.search(value) for value in fields.values())


def _has_value(text: _RowsText) -> bool:
    """Return True if the value that begins here is not empty, and move after it. It is read in parts, however large it
    is."""
    if text.peek() not in ("[", "{"):
        return has_value(text.value())
    has_content = False
    for _ in text.items():
        has_content = has_value(text.value()) or has_content
    return has_content


def _broken_json_error(error: Exception, text: _RowsText, source: Source, limits: Limits) -> DataError:
    """Return the DataError for an exception while a JSON file was read: a value that is too large or too deep, more
    text after the end, or broken JSON. It names the row (except after the end) and line."""
    about = {"file": source.path.name, "row": text.row, "line": text.line}
    if isinstance(error, LargeValue):
        return DataError("data.json_row_too_large", **about, limit_mib=round(limits.row_bytes / MIB, 2))
    if isinstance(error, RecursionError):
        return DataError("data.json_too_deep", **about, limit=limits.depth)
    reason: Message | str = msg("data.broken_number")
    if isinstance(error, json.JSONDecodeError):
        about["line"], character = text.line_of(error), error.doc[error.pos : error.pos + 1]
        if error.msg == "Extra data":
            return DataError("data.json_more_after_end", file=about["file"], found=character, line=about["line"])
        reason = msg("data.nul") if character == "\0" else _JSON_REASONS.get(error.msg, error.msg)
        if not character and error.msg.startswith("Expecting ','"):
            reason = msg("data.json_expected", expected=",", found=msg("data.json_end"))
    return DataError("data.broken_json_file", **about, reason=reason)


def _conversations_in(value: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row {key: turns} for each conversation of an object whose "messages", "conversations" or "conversation"
    is a list of lists of turns; [] without such a key.

    Also [] if every list is two texts: that may be a single conversation, given as pairs.
    """
    for name, talks in value.items():
        if name.lower() in _CONVERSATIONS and isinstance(talks, list) and talks and all(map(_is_talk, talks)):
            if any(len(talk) != 2 or not isinstance(talk[0], str) for talk in talks):
                return [{name: talk} for talk in talks]
    return []


def _is_talk(value: object) -> bool:
    """Return True for a filled list whose items have one type."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, type(value[0])) for turn in value)


def rows_of_other_shapes(value: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of an object that holds them in another shape than as one list of rows; None if it has none of
    these shapes.

    The shapes: several lists of objects with the same keys; texts, or lists of texts, by their names (rows of key and
    value); columns, each a list of equal length, or as pandas writes it {"0": ..., "1": ...}; rows by a key of theirs;
    answers by their questions. A column of turns that end with a question and one of replies become conversations.
    """
    columns = list(value.values())
    if _are_alike(value):
        return [{"key": name, **row} for name, rows in value.items() for row in rows if isinstance(row, dict)]
    if not columns or any(name.lower() in _TURNS for name in value):
        return None
    # {"When are you open?": "From 9 to 5.", ...}, with several words in each name; or with lists of answers
    are_pairs = all(isinstance(answer, str) and _QUESTION.search(name) for name, answer in value.items())
    have_lists = all(is_list_of_texts(each) and name.endswith(QUESTION_MARKS) for name, each in value.items())
    if len(value) > 1 and (are_pairs or have_lists):
        return [{"question": name, "answer": answer} for name, answer in value.items()]
    if _is_lexicon(value):
        return [{"key": name, "value": "\n".join(texts)} for name, texts in value.items()]
    long = [isinstance(t, str) and (len(t.split()) >= _LONG or len(columns) >= _MANY) for t in columns]
    # {"The Fox": "Long ago ...", ...} or many terms, not {"question": ...}
    if len(value) > 2 and sum(long) >= (NEARLY_ALL if len(value) >= _MANY else 1) * len(long):
        if 10 * sum(meaning_of(name, exact=True) is not None for name in value) <= len(value):
            return [{"key": name, "value": text} for name, text in value.items() if isinstance(text, str)]
    # {"q1": {"question": ..., "answer": ...}, "q2": ...}
    if len(value) > 1 and all(
        isinstance(row, dict) and row.keys() == columns[0].keys() and "0" not in row for row in columns
    ):
        return [{"key": name, **row} for name, row in value.items()]
    if all(isinstance(column, dict) and "0" in column for column in columns):
        # pandas: {"question": {"0": ..., "1": ...}, "answer": ...}
        if any(column.keys() != columns[0].keys() for column in columns):
            return None
        return [{name: column[key] for name, column in value.items()} for key in columns[0]]
    lists = {name: column for name, column in value.items() if isinstance(column, list) and column}
    if not _are_columns(value) and (len(lists) < len(value) or len({*map(len, lists.values())}) > 1):
        return None
    # What stands beside the lists holds for every row.
    rows = [value | dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]
    # Turns up to a question, and a reply to them.
    prompts = [name for name in lists if all(_is_talk(row[name]) and isinstance(row[name][-1], dict) for row in rows)]
    prompts = [name for name in prompts if all(row[name][-1].get("role") == "user" for row in rows)]
    replies = [name for name in lists if all(isinstance(row[name], dict) and row[name].get("content") for row in rows)]
    if len(prompts) != 1 or len(replies) != 1:
        return rows
    (turns,), (reply,) = prompts, replies
    return [
        row | {"messages": [*row[turns], row[reply] | {"role": "assistant"}], turns: None, reply: None} for row in rows
    ]
