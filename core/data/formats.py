"""What a row means: its format is recognised by its shape, and every format becomes one kind of Example.

format              columns (case does not matter)                  what is learned
messages            messages: [{role, content}, ...]                the assistant's turns
sharegpt            conversations: [{from, value}, ...]             the assistant's turns
alpaca              instruction, input (optional), output           output, as the assistant's answer
question_answer     question, context (optional), answer            answer, as the assistant's answer
prompt_completion   prompt, completion                              completion, with no chat template around it
text_label          text, label                                     label, as the assistant's answer
text                text                                            all of it

A `system` column is honoured in all of them but the last and prompt_completion, `tools` in the first two; what a message may hold is in
core/data/conversation, what becomes of all other columns in core.data.shapes.left_out. A row whose `label` or `kto_tag` is false is never
learned. Other columns that say the same are written as these by core/data/shapes/rewritten. Adding a format means: a name in recipe.Format, its columns in core/data/shapes/known, and a function in _CONVERT. Cost: `inspect_file` takes 1.7 to 2.7 s for 100,000 rows (43 MB;
2 cores shared with others, 2026-11-25).
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.data.chats import overview
from core.data.chats.overview import Chat
from core.data.conversation import ChatMessage, read_messages, split_thinking
from core.data.findings.finding import Finding
from core.data.reading import several, sniff
from core.data.reading.choices import NOTHING_SAID, Choices
from core.data.reading.reader import read_rows
from core.data.reading.rows import DEFAULT_LIMITS, FileKind, Flaw, Limits, Problem, Row, Source, type_name
from core.data.shapes.known import COLUMNS, FORMATS, OPTIONAL, SAMPLE_ROWS, recognise
from core.data.shapes.labelled import is_rejected
from core.data.shapes.left_out import Columns, LeftOut, Loss, Notes, Tally, needs_picture, says
from core.data.shapes.plain import plain
from core.data.shapes.rewritten import rewritten
from core.data.shapes.roles import Role, guess, renamed, require
from core.data.shapes.tools import as_json, read_tools
from core.errors import DataError
from core.messages import Message, msg
from core.recipe import Format
from core.values import Frozen

_GOOD_OR_BAD = ("label", "kto_tag")


@dataclass(frozen=True, slots=True)
class Example:
    """One thing to learn from: messages, or prompt and completion (used as they stand), or text. tools: the JSON of what may be called."""

    messages: tuple[ChatMessage, ...] = ()
    prompt: str | None = None
    completion: str | None = None
    text: str | None = None
    tools: str | None = None

    def __post_init__(self) -> None:
        if (bool(self.messages), self.prompt is not None and self.completion is not None, self.text is not None).count(True) != 1:
            raise ValueError("an Example has exactly one of messages, prompt with completion, text")

    def as_dict(self) -> dict[str, Any]:
        """What it has, as JSON values; `Example.from_dict` is the way back."""
        if self.messages:
            tools = {"tools": json.loads(self.tools)} if self.tools else {}
            return {"messages": [m.as_dict() for m in self.messages]} | tools
        if self.text is not None:
            return {"text": self.text}
        return {"prompt": self.prompt, "completion": self.completion}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Example:
        if "messages" in value:
            tools = as_json(value["tools"]) if value.get("tools") else None
            return cls(messages=tuple(map(ChatMessage.from_dict, value["messages"])), tools=tools)
        return cls(**value)


class DataReport(Frozen):
    """All that was found in a data file before anything is trained on it.

    rows = good_rows + rows with an error + rows whose answer is marked as a bad one. problems: errors before warnings where
    there are more than the limit, in the order of rows; problem_count counts them all. duplicates: good rows that say exactly
    what an earlier row says. left_out: what nothing reads in rows without an error. roles: what columns were taken for, where
    their names are none of a format; guessed: nobody said so. chat: how an exported chat is read. findings: what is wrong with
    the good rows as a set.
    """

    format: Format
    kind: FileKind
    columns: tuple[str, ...]
    rows: int
    good_rows: int
    problems: tuple[Problem, ...]
    problem_count: int
    error_count: int
    duplicates: int
    sha256: str
    bytes: int
    encoding: str
    notes: tuple[Message, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    roles: dict[str, Role] = {}
    guessed: bool = False
    chat: Chat | None = None
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """What became of one row. values: its columns; None where it is no row at all. problems: warnings, where it has an example."""

    number: int
    line: int | None
    example: Example | None
    values: Mapping[str, Any] | None
    problems: Sequence[Problem] = ()


# --- what a row says -------------------------------------------------------------------------------------------------


def check(row: Row, format: Format, left: Tally | None = None) -> tuple[Example | None, list[Problem]]:
    """The example in a row and warnings about it; or None and the error; or None alone for an answer that is marked as a bad one.

    left: counts what was left out of the row.
    """
    if left is not None:
        left.add_each(row.left)
    if said := plain(row.values, format):
        return Example(messages=(ChatMessage("user", said[0]), ChatMessage("assistant", said[1]))), []
    notes, values = Notes(), Columns(row.values)
    try:
        if not any(says(value) or isinstance(value, list | dict) for value in row.values.values()):
            raise Flaw("data.empty_row")
        values = rewritten(values, notes)
        example = _CONVERT[format](values, notes)
        is_bad = is_rejected(values) or (format != "text_label" and _is_bad(values))
        notes.losses += values.left()
        if needs_picture(notes.losses, _texts(example)):
            raise Flaw("data.needs_picture")
    except Flaw as flaw:
        return None, [Problem(row=row.number, line=row.line, file=row.file, text=flaw.message)]
    if left is not None:
        left.add([Loss("row")] if is_bad else notes.losses)
    if is_bad:
        return None, []
    return example, [Problem(row=row.number, line=row.line, file=row.file, text=w, severity="warning") for w in notes.warnings]


def _is_bad(values: Columns) -> bool:
    """Whether a row says of its answer that it is a bad one, as sets for KTO do. A number is no such mark: it may be a class."""
    for name in _GOOD_OR_BAD:
        if (mark := str(values.peek(name)).strip().lower()) in ("true", "false"):
            values.take(name)
            return mark == "false"
    return False


def _texts(example: Example) -> Iterator[str]:
    yield from (message.content for message in example.messages)
    yield from (text for text in (example.prompt, example.completion, example.text) if text)


def _name_of(values: Mapping[str, Any], format: Format, column: str) -> str:
    """Under which name a row has one of a format's columns."""
    aliases = COLUMNS[format][column]
    name = next((alias for alias in aliases if alias in values), None)
    if name is None:
        raise Flaw("data.column_missing", column=aliases[0], found=list(values)[:20])
    return name


def _cell(values: Mapping[str, Any], format: Format, column: str) -> str:
    """The text in one of a format's columns, "" where it is missing and need not be there."""
    if column in OPTIONAL and not any(alias in values for alias in COLUMNS[format][column]):
        return ""
    name = _name_of(values, format, column)
    value = values[name]
    if value is None:
        return ""
    if isinstance(value, bool | int | float) and column in ("label", "answer", "output", "completion"):
        return str(value)  # a class number, or the answer to a sum
    if not isinstance(value, str):
        raise Flaw("data.wrong_type", column=name, found=type_name(value), expected=msg("data.type_text"))
    return value


def _system(values: Mapping[str, Any]) -> tuple[ChatMessage, ...]:
    value = values.get("system")
    if value is None or value == "":
        return ()
    if not isinstance(value, str):
        raise Flaw("data.wrong_type", column="system", found=type_name(value), expected=msg("data.type_text"))
    return (ChatMessage("system", value),) if value.strip() else ()


def _pair(values: Columns, question: str, answer: str) -> Example:
    if not answer.strip():
        raise Flaw("data.empty_answer")
    if not question.strip():
        raise Flaw("data.empty_question")
    thought, said = split_thinking(answer)
    answered = ChatMessage("assistant", said, thought) if said.strip() else ChatMessage("assistant", answer)
    return Example(messages=(*_system(values), *_history(values), ChatMessage("user", question), answered))


def _history(values: Columns) -> Iterator[ChatMessage]:
    """Earlier turns, as LLaMA-Factory writes them beside an instruction: pairs of question and answer."""
    pairs = values.peek("history")
    is_pairs = isinstance(pairs, list) and all(
        isinstance(p, list) and len(p) == 2 and all(isinstance(s, str) and s.strip() for s in p) for p in pairs
    )
    if not is_pairs:  # named among what is left out
        return
    for question, answer in values["history"]:
        yield from (ChatMessage("user", question), ChatMessage("assistant", answer))


def _alpaca(values: Columns, notes: Notes) -> Example:
    instruction, more = _cell(values, "alpaca", "instruction"), _cell(values, "alpaca", "input")
    question = "\n\n".join(part for part in (instruction, more) if part.strip())
    return _pair(values, question, _cell(values, "alpaca", "output"))


def _question_answer(values: Columns, notes: Notes) -> Example:
    asked = (_cell(values, "question_answer", "context"), _cell(values, "question_answer", "question"))
    question = "\n\n".join(part for part in asked if part.strip()) if asked[1].strip() else ""
    return _pair(values, question, _cell(values, "question_answer", "answer"))


def _text_label(values: Columns, notes: Notes) -> Example:
    return _pair(values, _cell(values, "text_label", "text"), _cell(values, "text_label", "label"))


def _prompt_completion(values: Columns, notes: Notes) -> Example:
    prompt = _cell(values, "prompt_completion", "prompt")
    completion = _cell(values, "prompt_completion", "completion")
    if not completion.strip():
        raise Flaw("data.empty_answer")
    if not prompt.strip():
        raise Flaw("data.empty_question")
    return Example(prompt=prompt, completion=completion)


def _text(values: Columns, notes: Notes) -> Example:
    content = _cell(values, "text", "text")
    if not content.strip():
        raise Flaw("data.empty_text")
    return Example(text=content)


def _conversation(values: Columns, notes: Notes, format: Format, column: str) -> Example:
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
    "text_label": _text_label,
    "text": _text,
}


# --- a whole file ----------------------------------------------------------------------------------------------------


def examples_of(
    path: str | Path | Source, format: Format | None = None, choices: Choices = NOTHING_SAID
) -> Iterator[tuple[int, Example]]:
    """(row number, example) of every row that can be learned from, streaming; what cannot is passed over.

    format: None recognises it. choices: what a person said of the file; of columns, it decides the format. Raises DataError where the file cannot
    be read, or after its end if no row was good.
    """
    source, chosen, _, items = _start(path, format, DEFAULT_LIMITS, choices)
    problem, found, bad = None, False, 0
    for item in items:
        problems = [item] if isinstance(item, Problem) else []
        if isinstance(item, Row):
            example, problems = check(item, item.format or chosen)
            if example is not None:
                found = True
                yield item.number, example
            bad += example is None and not problems
        problem = problem or next((p for p in problems if p.severity == "error"), None)
    if not found:
        raise (
            DataError("data.only_bad_answers", file=source.path.name, rows=bad)
            if bad and not problem
            else _nothing(source, problem)
        )


def inspect_file(
    path: str | Path | Source,
    format: Format | None = None,
    limits: Limits = DEFAULT_LIMITS,
    choices: Choices = NOTHING_SAID,
    keep: Callable[[Read], None] = lambda read: None,
) -> DataReport:
    """Read all of a file, once, and say what is in it and what is wrong with it.

    keep: is told what became of each row, in order; may raise to end it. Raises DataError where nothing can be said by row: it cannot be
    read, has no rows, or no known shape.
    """
    # Here, as below: a chat's worker reads this file before its pipe is laid aside, and numpy asks Windows for that handle.
    from core.data.findings.look import Look

    source, chosen, roles, items = _start(path, format, limits, choices)
    chat = overview.read_as(source) if source.chat else None
    names: dict[str, None] = dict.fromkeys(roles)
    hashes, places = array("q"), array("q")  # of good rows; their numbers and lines
    listed: dict[str, list[Problem]] = {"error": [], "warning": []}
    counts = {"error": 0, "warning": 0}
    left, look = Tally(), Look()
    files: Counter[str] = Counter()
    rows = 0
    before: tuple[Any, ...] = ()

    def note(problem: Problem) -> None:
        counts[problem.severity] += 1
        if len(listed[problem.severity]) < limits.problems:
            listed[problem.severity].append(problem)

    for item in items:
        if isinstance(item, Problem):
            rows += item.row > 0
            note(item)
            if item.row:
                keep(Read(item.row, item.line, None, None, (item,)))
            continue
        rows += 1
        if (given := tuple(item.values)) != before:
            names.update(dict.fromkeys(name for name in map(str, given) if name not in roles.values()))
            before = given
        files[item.file] += 1
        example, problems = check(item, item.format or chosen, left)
        for problem in problems:
            note(problem)
        keep(Read(item.number, item.line, example, item.values, problems))
        if example is not None:
            hashes.append(hash(example))
            look.add(item.number, example)
            places.extend((item.number, item.line or 0))
    repeated, duplicates = _repeated(hashes, places, limits.problems)
    counts["warning"] += duplicates
    listed["warning"] = sorted(listed["warning"] + repeated, key=lambda problem: problem.row)
    room = limits.problems - len(listed["error"])
    problems = sorted(listed["error"] + listed["warning"][:room], key=lambda problem: problem.row)
    return DataReport(
        format=chosen,
        kind=source.kind,
        columns=tuple(names)[:100],
        rows=rows,
        good_rows=len(hashes),
        problems=tuple(problems),
        problem_count=counts["error"] + counts["warning"],
        error_count=counts["error"],
        duplicates=duplicates,
        sha256=source.sha256,
        bytes=source.bytes,
        encoding=source.encoding,
        notes=(
            *source.notes,
            *several.of_files(source, files),
            *((chat.note(),) if chat else ()),
            *(() if choices.columns else _guessed(roles)),
        ),
        guessed=bool(roles) and not choices.columns,
        roles=dict(roles),
        left_out=left.said(),
        chat=chat,
        findings=look.found(),
    )


def _start(
    path: str | Path | Source, format: Format | None, limits: Limits, choices: Choices
) -> tuple[Source, Format, dict[str, Role], Iterator[Row | Problem]]:
    """The file, its format, what its columns are taken for where no format has their names, and all its rows."""
    if format is not None and format not in FORMATS:
        raise DataError("data.no_such_format", found=str(format)[:60], expected=list(FORMATS))
    source = path if isinstance(path, Source) else sniff.probe(path, limits, choices)
    if source.chat:
        source = replace(source, choices=choices)
        return source, "messages", {}, read_rows(source, limits)
    if source.parts:
        return several.start_each(source, lambda part: _start(part, format, limits, choices), limits)
    if choices.voice:
        raise DataError("data.not_a_chat", file=source.path.name, voice=choices.voice[:80])
    # Read from the beginning again afterwards: a file may have a million broken rows before its first good one.
    rows: list[Row] = []
    problem: Problem | None = None
    for item in read_rows(source, limits):
        if isinstance(item, Row):
            rows.append(item)
        elif problem is None and item.severity == "error":
            problem = item
        if len(rows) == (SAMPLE_ROWS if format is None or choices.columns else 1):
            break
    if not rows:
        raise _nothing(source, problem)
    if choices.columns:
        require(choices.columns, rows)
        roles = dict(choices.columns)
    elif format is not None:
        return source, format, {}, read_rows(source, limits)
    else:
        try:
            return source, recognise(rows), {}, read_rows(source, limits)
        except DataError:
            guessed = guess(rows)
            if guessed is None:
                raise
            roles = guessed
    chosen: Format = "text" if "text" in roles.values() else "question_answer"
    return source, chosen, roles, (renamed(item, roles) if isinstance(item, Row) else item for item in read_rows(source, limits))


def _repeated(hashes: array[int], places: array[int], most: int) -> tuple[list[Problem], int]:
    """The first rows that say what an earlier one says, and how many there are."""
    import numpy as np

    from core.data.sets.earliest import earliest

    first = earliest(np.array(hashes))
    later = np.flatnonzero(first != np.arange(len(first)))
    return [
        Problem(row=places[2 * i], line=places[2 * i + 1] or None, text=msg("data.duplicate", first=places[2 * first[i]]), severity="warning")
        for i in map(int, later[:most])
    ], len(later)  # fmt: skip


def _guessed(roles: Mapping[str, Role]) -> list[Message]:
    taken = [msg("data.column_as", column=name, role=msg(f"data.role_{role}")) for name, role in roles.items()]
    return [msg("data.note_guessed", taken=taken)] if taken else []


def _nothing(source: Source, problem: Problem | None) -> DataError:
    if problem is None:
        return DataError("data.no_rows", file=source.path.name)
    return DataError("data.no_good_rows", file=source.path.name, problem=problem.sentence)
