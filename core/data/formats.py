"""The format of a row, recognized by its columns; every format is converted to an Example.

format              columns (case does not matter)                  what is trained
messages            messages: [{role, content}, ...]                the assistant's turns
sharegpt            conversations: [{from, value}, ...]             the assistant's turns
alpaca              instruction, input (optional), output           output, as the assistant's answer
question_answer     question, context (optional), answer            answer, as the assistant's answer
prompt_completion   prompt, completion                              completion, as the assistant's answer
text_label          text, label                                     label, as the assistant's answer
text                text                                            all of it

A `system` column is used in all of them but the last and prompt_completion, `tools` in the first two; fields of a
message: core/data/conversation, other columns: core.data.shapes.left_out. A row whose `label` or `kto_tag` is false is
trained only by kto. A row with a better and a worse answer keeps both for preference training.
core/data/shapes/rewritten converts equivalent columns to these. To add a format: docs/map.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from core.data.conversation import ChatMessage, read_messages, split_thinking
from core.data.reading.file_rows import Flaw, Problem, Row, type_name
from core.data.shapes.cells import ANSWERS, text_of_cell
from core.data.shapes.known import COLUMNS, OPTIONAL
from core.data.shapes.labelled import is_rejected
from core.data.shapes.left_out import Columns, Notes, Omission, Tally, has_value, media_names, needs_picture
from core.data.shapes.plain import Turns, plain, require_question, with_context
from core.data.shapes.rewritten import rewritten
from core.data.shapes.tools import as_json, read_tools
from core.messages import msg
from core.recipe import Format

_GOOD_OR_BAD = ("label", "kto_tag")
_ENCODE = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would create one for each row


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: messages, or prompt and completion, or text. Prompt and completion are trained like a
    question and its answer, in the chat template.

    tools: JSON of the available tools. rejected: the whole conversation again, with the worse answer. is_bad: the
    answer is marked as bad.
    """

    messages: tuple[ChatMessage, ...] = ()
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    tools: str | None = None
    rejected: tuple[ChatMessage, ...] = ()
    is_bad: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly one of these is set: messages, prompt with completion, or text."""
        if (bool(self.messages), self.prompt is not None and self.completion is not None, self.text is not None).count(
            True
        ) != 1:
            raise ValueError("an Example has exactly one of messages, prompt with completion, text")

    def as_dict(self) -> dict[str, Any]:
        """Return its fields as JSON values, those that are empty left out; the inverse of `Example.from_dict`."""
        bad = {"is_bad": True} if self.is_bad else {}
        if self.messages:
            tools = {"tools": json.loads(self.tools)} if self.tools else {}
            worse = {"rejected": [m.as_dict() for m in self.rejected]} if self.rejected else {}
            return {"messages": [m.as_dict() for m in self.messages]} | worse | tools | bad
        if self.text is not None:
            return {"text": self.text} | bad
        return {"prompt": self.prompt, "completion": self.completion} | bad

    def as_json(self) -> str:
        """Return the example as one line of JSON with the fields that are not empty; letters beyond ASCII are kept as
        they are."""
        return _ENCODE(self.as_dict())

    @classmethod
    def from_turns(cls, turns: Turns) -> Example:
        """Return a conversation of these turns, (role, text) each, as an example."""
        return cls(messages=tuple(ChatMessage(speaker, content) for speaker, content in turns))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Example:
        """Return the example of the fields that `Example.as_dict` writes."""
        if "messages" in value:
            tools = as_json(value["tools"]) if value.get("tools") else None
            better, worse = (
                tuple(map(ChatMessage.from_dict, value.get(side, ()))) for side in ("messages", "rejected")
            )
            return cls(messages=better, tools=tools, rejected=worse, is_bad=value.get("is_bad", False))
        return cls(**value)


@dataclass(slots=True)
class ReadRow:
    """The result of reading a row.

    example: as JSON; None if the row cannot be trained. values: its columns; None if it is not a row. problems:
    warnings if it has an example, else the error. validation: it stands in a file of test or validation rows. joint,
    page: as in Row.
    """

    number: int
    line: int | None
    example: str | None
    values: Mapping[str, Any] | None
    problems: Sequence[Problem] = ()
    validation: bool = False
    joint: str | None = None
    page: int = 0

    def good(self) -> list[tuple[int, str]]:
        """Return [(number, example)], or [] if the row has no example."""
        return [] if self.example is None else [(self.number, self.example)]


# --- reading a row --------------------------------------------------------------------------------------------------


def read_example(
    row: Row, format: Format, tally: Tally | None = None, rated: bool = False
) -> tuple[Example | None, list[Problem]]:
    """Return the example in a row and warnings about it; (None, [the error]); or (None, []) for an answer marked as
    bad. tally: counts what was left out of the row. rated: an answer marked as bad is an example too, with is_bad
    set."""
    if turns := plain(row.values, format):
        if tally is not None and row.omissions:
            tally.add_each(row.omissions)
        return Example.from_turns(turns), []
    return read_example_closely(row, format, tally, rated)


def read_example_closely(
    row: Row, format: Format, tally: Tally | None = None, rated: bool = False
) -> tuple[Example | None, list[Problem]]:
    """Read a row like `read_example`, with all checks and conversions: `read_example` calls it for rows that are more
    than texts in the columns of the format. Return (example, warnings), (None, [the error]), also for an empty row or a
    question about a picture, or (None, []) for an answer marked as bad, unless rated."""
    if tally is not None:
        tally.add_each(row.omissions)
    notes, values = Notes(), Columns(row.values)
    try:
        if not any(has_value(value) or isinstance(value, list | dict) for value in row.values.values()):
            raise Flaw("data.empty_row")
        if row.flaw:
            raise Flaw(row.flaw.key, **row.flaw.params)
        # Other shapes become one of ours first, so that each format is converted in one place.
        values = rewritten(values, notes)
        example = _CONVERT[format](values, notes)
        require_question(
            [(m.role, m.content) for m in example.messages]
            or [("user", example.prompt or ""), ("assistant", example.completion or "")]
        )
        if notes.worse and example.messages:
            example = replace(example, rejected=_worse(notes, _system(values)))
        is_bad = is_rejected(values) or (format != "text_label" and _is_bad(values))
        notes.omissions += values.unused()
        # A question about a picture that is not read would teach the model to make its answer up.
        if needs_picture(notes.omissions, _texts(example)):
            raise Flaw("data.needs_picture", columns=media_names(notes.omissions))
    except Flaw as flaw:
        return None, [Problem(row=row.number, line=row.line, file=row.file, text=flaw.message)]
    if tally is not None:
        tally.add([Omission("row")] if is_bad and not rated else notes.omissions)
        tally.assumed |= notes.assumed
    if is_bad and not rated:
        return None, []
    return replace(example, is_bad=is_bad or example.is_bad), [
        Problem(row=row.number, line=row.line, file=row.file, text=w, severity="warning") for w in notes.warnings
    ]


def _worse(notes: Notes, system: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
    """Return the messages of the conversation in notes.worse, which ends with the worse answer. If it is invalid,
    return () and add a warning to notes, because the better answer can still be trained."""
    try:
        return read_messages(notes.worse, system, Notes())
    except Flaw as flaw:
        notes.warn("data.worse_unreadable", why=flaw.message)
        return ()


def _is_bad(values: Columns) -> bool:
    """Return True if the column `label` or `kto_tag` is false, as a boolean or as text: datasets for KTO mark a bad
    answer so. The first of them that is true or false decides and is marked as read. A number is ignored: it may be a
    class."""
    for name in _GOOD_OR_BAD:
        if (mark := str(values.peek(name)).strip().lower()) in ("true", "false"):
            values.take(name)
            return mark == "false"
    return False


def _texts(example: Example) -> Iterator[str]:
    """Yield the contents of all messages, then prompt, completion and text if they are filled; no thinking, no worse
    answer."""
    yield from (message.content for message in example.messages)
    yield from (text for text in (example.prompt, example.completion, example.text) if text)


def _name_of(values: Mapping[str, object], format: Format, column: str) -> str:
    """Return the first of the names of a format's column that the row has. Raises Flaw without any."""
    aliases = COLUMNS[format][column]
    name = next((alias for alias in aliases if alias in values), None)
    if name is None:
        raise Flaw("data.column_missing", column=aliases[0], found=list(values)[:20])
    return name


def _cell(values: Mapping[str, object], format: Format, column: str, notes: Notes) -> str:
    """Return the text of one of a format's columns; "" if it is missing and optional, or None. A number or truth as an
    answer becomes text. Raises Flaw for other values."""
    if column in OPTIONAL and not any(alias in values for alias in COLUMNS[format][column]):
        return ""
    name = _name_of(values, format, column)
    value = text_of_cell(values[name], name, column, notes)
    if value is None:
        return ""
    if isinstance(value, bool | int | float) and column in ANSWERS:
        # a class number, or the answer to a calculation, which Parquet and pandas write as 43.0
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if not isinstance(value, str):
        raise Flaw("data.wrong_type", column=name, found=type_name(value), expected=msg("data.type_text"))
    return value


def _system(values: Mapping[str, object]) -> tuple[ChatMessage, ...]:
    """Return (the row's system message,), its parts joined by lines; () if it is empty. Raises Flaw for a value that is
    no text."""
    value = values.get("system")
    if value is None or value == "":
        return ()
    if isinstance(value, list) and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value):
        value = "\n".join(part["text"] for part in value)  # as Bedrock has it
    if not isinstance(value, str):
        raise Flaw("data.wrong_type", column="system", found=type_name(value), expected=msg("data.type_text"))
    return (ChatMessage("system", value),) if value.strip() else ()


def _pair(values: Columns, question: str, answer: str) -> Example:
    """Return a question and its answer as a conversation, after the row's system message and history, with thinking
    split off unless nothing else is left. Raises Flaw if one is empty."""
    if not answer.strip():
        raise Flaw("data.empty_answer")
    if not question.strip():
        raise Flaw("data.empty_question")
    thought, text = split_thinking(answer)
    message = ChatMessage("assistant", text, thought) if text.strip() else ChatMessage("assistant", answer)
    return Example(messages=(*_system(values), *_history(values), ChatMessage("user", question), message))


def _history(values: Columns) -> Iterator[ChatMessage]:
    """Yield earlier turns, as LLaMA-Factory writes them beside an instruction: pairs of question and answer; nothing
    for any other value of `history`."""
    pairs = values.peek("history")
    is_pairs = isinstance(pairs, list) and all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(s, str) and s.strip() for s in p) for p in pairs
    )
    if not is_pairs:  # reported as left out
        return
    for question, answer in values["history"]:
        yield from (ChatMessage("user", question), ChatMessage("assistant", answer))


def _alpaca(values: Columns, notes: Notes) -> Example:
    """Return the example of instruction, input and output, as Alpaca has them. Raises Flaw."""
    instruction, more = _cell(values, "alpaca", "instruction", notes), _cell(values, "alpaca", "input", notes)
    question = "\n\n".join(part for part in (instruction, more) if part.strip())
    return _pair(values, question, _cell(values, "alpaca", "output", notes))


def _question_answer(values: Columns, notes: Notes) -> Example:
    """Return the example of a question, after its context, and its answer. Raises Flaw."""
    parts = (_cell(values, "question_answer", "context", notes), _cell(values, "question_answer", "question", notes))
    question = with_context(parts[1], parts[0]) if parts[1].strip() else ""
    return _pair(values, question, _cell(values, "question_answer", "answer", notes))


def _prompt_completion(values: Columns, notes: Notes) -> Example:
    """Return the example of a prompt and its completion. Raises Flaw if one is missing, empty or no text."""
    prompt = _cell(values, "prompt_completion", "prompt", notes)
    completion = _cell(values, "prompt_completion", "completion", notes)
    if not completion.strip():
        raise Flaw("data.empty_answer")
    if not prompt.strip():
        raise Flaw("data.empty_question")
    return Example(prompt=prompt, completion=completion)


def _text(values: Columns, notes: Notes) -> Example:
    """Return the text. Raises Flaw for an empty one."""
    content = _cell(values, "text", "text", notes)
    if not content.strip():
        raise Flaw("data.empty_text")
    return Example(text=content)


def _conversation(values: Columns, notes: Notes, format: Format, column: str) -> Example:
    """Return the conversation in a column of turns, with its tools. Raises Flaw for another value or no turns."""
    name = _name_of(values, format, column)
    turns = values[name]
    if not isinstance(turns, list):
        raise Flaw("data.wrong_type", column=name, found=type_name(turns), expected=msg("data.type_turns"))
    if not turns:
        raise Flaw("data.no_turns", column=name)
    tools = next((values[alias] for alias in ("tools", "functions") if values.get(alias)), None)
    return Example(messages=read_messages(turns, _system(values), notes), tools=read_tools(tools, notes))


_CONVERT: dict[Format, Callable[[Columns, Notes], Example]] = {
    "messages": partial(_conversation, format="messages", column="messages"),
    "sharegpt": partial(_conversation, format="sharegpt", column="conversations"),
    "alpaca": _alpaca,
    "question_answer": _question_answer,
    "prompt_completion": _prompt_completion,
    "text_label": lambda values, notes: _pair(
        values, _cell(values, "text_label", "text", notes), _cell(values, "text_label", "label", notes)
    ),
    "text": _text,
}
