"""Rows with a model's input and answer, nested as observability and test programs write them.

LangSmith         inputs: {question: ...} | {messages: [...]}, outputs: {answer: ...} | {generations: [...]}
Langfuse          input, expectedOutput | output: texts, objects, or messages
batches           body: {messages}, response: {body: {choices: [{message}]}}; also request and response of a log;
                  Anthropic's: params: {messages}, result: {message}
promptfoo         vars: {...}, assert: [{type: equals, value}]; __expected in a table
"""

from __future__ import annotations

import re
from typing import Any

from core.data.conversation import CONTENT_KEYS, ROLE_KEYS
from core.data.reading.file_rows import Flaw
from core.data.shapes.left_out import Columns, Notes, Omission, has_value
from core.data.shapes.options import parsed_cell
from core.data.shapes.roles import column_named

_PAIRS = (
    ("inputs", "outputs"), ("inputs", "reference_outputs"), ("input", "expectedoutput"), ("input", "expected_output"),
    ("input", "expected"), ("input", "output"), ("request", "response"), ("body", "response"), ("params", "result"),
    ("messages", "choices"),
)  # fmt: skip
# Of a batch, by OpenAI and others, and by Anthropic: the field with the answer, and the one with its question.
BATCHES = {"response": "body", "result": "params"}
TRACED_COLUMNS = (*(answered for _, answered in _PAIRS), "custom_id")
_TALK = ("messages", "message", "body", "kwargs", "data")
_HISTORY = ("chat_history", "history")
_SPEAKERS = {"HumanMessage": "user", "AIMessage": "assistant", "SystemMessage": "system", "ToolMessage": "tool"}
_EXPECTED = ("equals", "iequals", "similar", "levenshtein", "rouge-n", "bleu")  # promptfoo's, with a text to compare
# "similar(0.8): Paris", "equals: Paris", "Paris"
_ASSERTION = re.compile(r"(?:([\w-]+)(?:\([\d.]+\))?:\s?)?(.*)", re.DOTALL)


def traced(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return a trace as messages, None for a row that is none. Raises Flaw for one without an answer, with a number for
    it, with several texts, or with only one side of a batch."""
    for input_key, answered in _PAIRS:
        given, reply = _sides(values, input_key, answered)
        if given is None or input_key == "messages" and not _is_completion(reply):
            continue
        values.take(input_key, answered)
        if not has_value(reply):
            raise Flaw("data.trace_unanswered", field=answered)
        question = _turns(given, "user", input_key, notes)
        answer = _turns(reply, "assistant", answered, notes)
        # A number for several texts is the score of a test.
        if input_key not in BATCHES.values() and not any(_is_text(turn) for turn in answer):
            keys = [*given] if isinstance(given, dict) else [input_key]
            if len(keys) > 1:
                raise Flaw("data.trace_score", field=answered, fields=[f"{input_key}.{key}" for key in keys][:10])
        return {"messages": [*question, *answer]}
    _refuse_half_of_batch(values)
    return None


def _sides(values: Columns, input_key: str, output_key: str) -> tuple[Any, Any]:
    """Return both sides of a trace, JSON in them decoded; (None, None) if the columns hold something else, such as two
    texts."""
    given, reply = values.peek(input_key), values.peek(output_key)
    if output_key not in values or input_key == "input" and any(name in values for name in ("instruction", "question")):
        return None, None
    if (input_key, output_key) != ("input", "output") and isinstance(given := parsed_cell(given), dict | list):
        reply = parsed_cell(reply)  # a table has both as JSON; an answer beside a text may be JSON that is learned
    if not isinstance(given, dict | list) and not (isinstance(given, str) and isinstance(reply, dict)):
        return None, None
    if isinstance(given, list) and not _are_objects(given) or isinstance(reply, list) and not _is_readable(reply):
        return None, None
    return given, reply


def _refuse_half_of_batch(values: Columns) -> None:
    """Raise Flaw for a batch API's row (one with custom_id) that has a request or an answer. Only for rows in which
    `traced` found no pair of both: it does not look for the other side."""
    if "custom_id" not in values:
        return
    for answered, request in BATCHES.items():
        if isinstance(values.peek(answered), dict):
            raise Flaw("data.batch_without_input", answered=answered, asked=request)
        if isinstance(values.peek(request), dict):
            raise Flaw("data.batch_without_output", answered=answered, asked=request)


def _are_objects(value: list[Any]) -> bool:
    """Return True for a list of nothing but objects; False for an empty list."""
    return bool(value) and all(isinstance(one, dict) for one in value)


def _is_completion(value: object) -> bool:
    """Return True for the choices of an API's answer, each with a message or a text."""
    return isinstance(value, list) and _are_objects(value) and any(key in value[0] for key in ("message", "text"))


def _is_readable(value: list[Any]) -> bool:
    """Return True if a list can be the answer side of a trace: if it is empty, holds only objects, or holds exactly one
    list."""
    return not value or _are_objects(value) or len(value) == 1 and isinstance(value[0], list)


def _is_text(turn: Any) -> bool:
    """Return False for a turn whose content is a number or a truth: the score of a test, not an answer."""
    return (
        not isinstance(turn, dict)
        or not isinstance(turn.get("content"), str)
        or not _is_number_or_truth(turn["content"])
    )


def _is_number_or_truth(text: str) -> bool:
    """Return True for a text that is a number, or one of the words true and false in any case."""
    return re.fullmatch(r"-?\d+(?:\.\d+)?|true|false", text.strip(), re.IGNORECASE) is not None


def _turns(value: Any, role: str, path: str, notes: Notes) -> list[Any]:
    """Return one side of a trace as turns, however it is nested. role: of a text. path: its field, for what is left out
    of it. Raises Flaw without an answer, or if several texts could be meant."""
    if isinstance(value, list):
        if len(value) == 1 and isinstance(value[0], list):  # LangChain's generations
            return _turns(value[0], role, path, notes)
        if role == "assistant" and _are_objects(value) and not _is_turn(value[0]):
            return _turns(value[0], role, path, notes)
        return [_turn(one) for one in value]
    if isinstance(value, str | int | float):
        return [{"role": role, "content": _as_text(value)}]
    if not isinstance(value, dict):
        raise Flaw("data.trace_unanswered", field=path)
    if _is_turn(value):
        return [_turn(value)]
    if isinstance(value.get("choices"), list) and value["choices"]:
        return _turns(value["choices"][0], role, path, notes)
    for key in ("generations", "output", *_TALK) if role == "assistant" else _TALK:
        part = value.get(key)
        if isinstance(part, dict) and part or isinstance(part, list) and part and isinstance(part[0], dict | list):
            system = [{"role": "system", "content": value["system"]}] if isinstance(value.get("system"), str) else []
            return [*system, *_turns(part, role, f"{path}.{key}", notes)]
    texts = {
        str(key): part
        for key, part in value.items()
        if isinstance(part, str | int | float) and has_value(part) and key not in ROLE_KEYS
    }
    return [*_history(value), *_joined_texts(texts, value, role, path, notes)]


def _joined_texts(texts: dict[str, Any], value: dict[str, Any], role: str, path: str, notes: Notes) -> list[Any]:
    """Return [one turn of an object's texts], a context before the question; other fields are noted. Raises Flaw if
    several could be meant."""
    strings = [key for key, part in texts.items() if isinstance(part, str)] or [*texts]
    key = strings[0] if len(strings) == 1 else column_named(strings, "question" if role == "user" else "answer")
    if key is None:
        raise Flaw("data.several_texts", field=path, fields=[f"{path}.{name}" for name in value][:10])
    context = column_named([name for name in strings if name != key], "context") if role == "user" else None
    parts = [_as_text(texts[name]) for name in (context, key) if name]
    notes.omissions += [
        Omission("column", f"{path}.{name}")
        for name, part in value.items()
        if str(name) not in (key, context, *_HISTORY) and has_value(part)
    ]
    return [{"role": role, "content": "\n\n".join(parts)}]


def _history(value: dict[str, Any]) -> list[Any]:
    """Return the earlier turns in an object; [] if it has none."""
    turns: list[Any] = next((value[key] for key in _HISTORY if isinstance(value.get(key), list)), [])
    return [_turn(turn) for turn in turns] if _are_objects(turns) else []


def _as_text(value: object) -> str:
    """Return a value as text, a whole number without ".0"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_turn(value: dict[str, Any]) -> bool:
    """Return whether an object is a turn: a role with content, or LangChain's class of one."""
    return (
        any(isinstance(value.get(key), str) for key in ROLE_KEYS)
        and any(key in value for key in CONTENT_KEYS)
        or value.get("type") in ("human", "ai", "system")
        or _kind(value) is not None
    )


def _kind(value: dict[str, Any]) -> str | None:
    """Return the speaker of a message that LangChain wrote with the name of its class; None for any other."""
    names = value.get("id")
    return _SPEAKERS.get(str(names[-1])) if isinstance(names, list) and names else None


def _turn(value: Any) -> Any:
    """Return LangChain's turn as role and content; others as they are."""
    if not isinstance(value, dict):
        return value
    # {"id": [..., "HumanMessage"], "kwargs": {"content": ...}}
    inner = next((value[key] for key in ("kwargs", "data") if isinstance(value.get(key), dict)), None)
    kind = _kind(value)
    if inner is not None and (kind or value.get("type")):
        return {"role": kind or value["type"], "content": inner.get("content")}
    if "role" not in value and value.get("type") in ("human", "ai", "system"):
        return {"role": value["type"], **{key: part for key, part in value.items() if key != "type"}}
    return value


def prompt_test(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return a test of promptfoo as a question and the first text that is expected; others are noted. None for other
    rows. Raises Flaw if it expects none."""
    variables, checks = values.peek("vars"), values.peek("assert")
    column = next((name for name in ("__expected", "__expected1") if name in values), None)
    if isinstance(variables, dict) and isinstance(checks, list):
        values.take("vars", "assert")
        texts = [
            check["value"]
            for check in checks
            if isinstance(check, dict) and check.get("type") in _EXPECTED and isinstance(check.get("value"), str)
        ]
    elif column:
        match = _ASSERTION.fullmatch(str(values[column] or ""))
        texts = [match[2]] if match and match[1] in (None, *_EXPECTED) and match[2] else []
        variables = {name: values.peek(name) for name in values if not name.startswith("__")}
        values.take(*variables)
    else:
        return None
    if not texts:
        raise Flaw("data.test_without_text", kinds=[*_EXPECTED])
    if len(texts) > 1:
        notes.add_omission("answer", "assert")
    filled = {str(name): part for name, part in variables.items() if isinstance(part, str) and has_value(part)}
    return {
        "messages": [*_joined_texts(filled, filled, "user", "vars", notes), {"role": "assistant", "content": texts[0]}]
    }
