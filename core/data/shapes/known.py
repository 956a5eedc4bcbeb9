"""The format of a row, recognized by its columns and the types of their values, whatever the file's name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from core.data.reading.file_rows import Flaw, Row
from core.data.shapes.left_out import Columns, Notes
from core.data.shapes.nested import refuse_other_rows
from core.data.shapes.rewritten import rewritten
from core.errors import DataError
from core.messages import msg
from core.recipe import Format

FORMATS: tuple[Format, ...] = get_args(Format)  # in the order in which they are tried

_WRITTEN_LIST = re.compile(r"\s*(?:\Z|\[\s*[\[{\]'\"]|\{)")  # of turns, as JSON

SAMPLE_ROWS = 100  # rows by which the format of a file is recognized

# Our name of a column, with the names in files; the first that a row has is used.
COLUMNS: dict[Format, dict[str, tuple[str, ...]]] = {
    "messages": {"messages": ("messages", "conversations", "conversation")},
    "sharegpt": {"conversations": ("conversations", "conversation", "messages")},
    "alpaca": {
        "instruction": ("instruction", "指令"),
        "output": ("output", "response", "输出"),
        "input": ("input", "context", "输入"),
    },
    "question_answer": {
        "question": ("question", "q", "问题", "问"),
        "answer": ("answer", "a", "答案", "回答", "答"),
        "context": ("context", "passage", "body", "上下文"),
    },
    "prompt_completion": {"prompt": ("prompt", "提示"), "completion": ("completion", "response", "补全")},
    "text_label": {"text": ("text", "sentence", "文本"), "label": ("label", "标签")},
    "text": {"text": ("text", "文本")},
}
OPTIONAL = {"input", "context"}


def recognize_format(sample_rows: Iterable[Row]) -> Format:
    """Return the format whose shape most of the sample's rows have, of equals the first of FORMATS. Raises DataError
    with the columns of the sample and the known shapes, or the first row's problem."""
    votes: Counter[Format | None] = Counter()
    flaw: Flaw | None = None
    columns: dict[str, None] = {}
    for row in sample_rows:
        refuse_other_rows(row.values)
        columns.update(dict.fromkeys(map(str, row.values)))
        try:
            votes[format_of(row.values)] += 1
        except Flaw as error:
            flaw = flaw or error
    # A majority, because single rows of a file are often broken.
    known = max(FORMATS, key=lambda name: (votes[name], -FORMATS.index(name)))
    # A column called text may stand in a few rows of another kind.
    if votes[known] and (known != "text" or votes[known] >= votes[None]):
        return known
    if flaw is not None:
        raise DataError("data.every_row", problem=flaw.message)
    raise DataError("data.unknown_format", columns=list(columns)[:20] or [msg("data.none")], shapes=msg("data.shapes"))


def format_of(values: Mapping[str, Any]) -> Format | None:
    """Return the first format whose required columns a row has, under any of their names; None if it has none. Raises
    Flaw."""
    present = rewritten(Columns(values), Notes())
    for name in FORMATS:
        needed = [aliases for ours, aliases in COLUMNS[name].items() if ours not in OPTIONAL]
        if all(any(alias in present for alias in aliases) for aliases in needed):
            if name not in ("messages", "sharegpt"):
                return name
            if format := _format_of_conversation(present):
                return format
    return None


def _format_of_conversation(values: Mapping[str, object]) -> Format | None:
    """Return the format by the keys of the first turn, or by the column's name if there is no turn; None for a text."""
    column = next(alias for alias in COLUMNS["messages"]["messages"] if alias in values)
    turns = values[column]
    if isinstance(turns, list) and turns and isinstance(turns[0], dict):
        return "sharegpt" if "from" in turns[0] else "messages"
    if isinstance(turns, str) and not _WRITTEN_LIST.match(turns):
        return None
    return "messages" if column == "messages" else "sharegpt"
