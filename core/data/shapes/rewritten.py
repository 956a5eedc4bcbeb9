"""Converts rows with the meaning of one of our formats, in other columns, to its columns.

preference          prompt | messages | instruction, chosen, rejected     messages, that end with the chosen answer; the
                    other beside them (Notes.worse)
TRL's conversations prompt and completion as lists of messages            messages
answered apart      messages | prompt up to the question, ground_truth       messages
SQuAD               question, context, answers: {text: [...]}             question, context, answer: the first
turns               dialog | turns | ...: a list of texts, or of pairs    messages: user and assistant take turns
Open WebUI          chat: {messages: [...]}                               messages
xLAM                query, tools, answers: calls                          messages, tools
turns, Gemini       turns | contents | ...: a list of objects             messages
written turns       messages | conversations | ...: a text            messages, from JSON, Python or turn markers
labels              text, labels | cats: a name, a number, or a list       text, label

core/data/shapes/labelled converts rows of annotation tools, rankings those of ranked answers, traces those of
observability, trees those of trees and follow-up questions. A shape is recognized row by row by its columns and the
types of their values; other rows stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any

from core.data.conversation import CONTENT_KEYS, ROLE_KEYS
from core.data.reading.file_rows import Flaw
from core.data.shapes.labelled import json_min, label_studio, utterances_key
from core.data.shapes.left_out import Columns, Notes, has_value
from core.data.shapes.options import parsed_cell
from core.data.shapes.ranked import RANKED_COLUMNS, ranked
from core.data.shapes.rankings import compared, may_compare
from core.data.shapes.speakers import Role, role_of
from core.data.shapes.traces import TRACED_COLUMNS, prompt_test, traced
from core.data.shapes.trees import answered_turns, instances, questions_of_a_text, tree
from core.data.shapes.turn_markers import after_greeting, turns_in

TURNS = ("data", "dialog", "dialogue", "turns", "utterances", "contents", "messages", "conversations", "conversation")
_PROMPT_COLUMNS = ("prompt", "messages", "conversations", "conversation", "question", "instruction", "query", "input")
_CONVERSATIONS = TURNS[-3:]
_TEXTS, _LABELS, _MAX_LABELS = ("text", "sentence"), ("labels", "cats"), 20
_ANSWERS_APART = ("ground_truth", "reference_answer", "expected_answer", "answer", "solution")
_OPENS = re.compile(r"\s*\[\s*\{")
# Anthropic's hh-rlhf writes a conversation as one text.
_HUMAN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def rewritten(values: Columns, notes: Notes) -> Columns:
    """Return values, converted to the columns of a format if they have another known shape (the first that fits);
    otherwise as they are. Raises Flaw."""
    if turns := {name: each for name in values if (each := _written_list(values.peek(name)))}:
        values = values.changed(turns)
    compares, conversions = _possible(tuple(values))
    if compares and (pair := compared(values, notes)) is not None:
        values = values.changed(pair)
        # The pair has columns that another conversion needs.
        conversions = _possible(tuple(values))[1]
    for convert in conversions:
        columns = convert(values, notes)
        if columns is not None:
            return values.changed(columns)
    return values


def _written_list(cell: object) -> list[Any]:
    """Return the turns that a cell of a table writes as JSON or as Python does; [] for any other cell."""
    if not isinstance(cell, str) or not _OPENS.match(cell):
        return []
    turns = parsed_cell(cell)
    return turns if isinstance(turns, list) and all(isinstance(turn, dict) and _is_turn(turn) for turn in turns) else []


def _preference(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return the conversation with a row's better answer, and set notes.worse to the one with its worse answer.

    The columns are {"messages": turns}; notes.worse is [] if the worse answer is empty; if not, its column is noted as
    left out. None for any other row, and for a row as this app writes it (messages and rejected), which needs no
    conversion: notes.worse is then the list in `rejected`. Raises Flaw if the better answer is empty.
    """
    better, worse = ranked(values) or ("", "rejected")
    if not better:  # a row as this app writes it
        turns, rejected = values.peek("messages"), values.peek(worse)
        if isinstance(turns, list) and turns and _is_by("assistant", turns[-1]) and isinstance(rejected, list):
            notes.worse = list(rejected)
        return None
    chosen = values[better]
    if not has_value(chosen):
        raise Flaw("data.empty_answer")
    name = next((name for name in _PROMPT_COLUMNS if has_value(values.peek(name))), None)
    prompt = _turns(values[name], "user") if name else []
    if (
        # Alpaca's columns beside both answers.
        name == "instruction"
        and isinstance(values[name], str)
        and isinstance(more := values.peek("input"), str)
        and more.strip()
    ):
        values.take("input")
        prompt[-1]["content"] += f"\n\n{more}"
    answer = _turns(chosen, "assistant")
    # Some repeat the question before the answer, some do not.
    if prompt and [_words(turn) for turn in prompt] == [_words(turn) for turn in answer[: len(prompt)]]:
        for turn in prompt:
            if isinstance(turn, dict):
                notes.add_unread("field", turn, ("role", "from", "content", "value"))
        prompt = []
    chosen_turns, other = (
        [*prompt, *answer],
        _turns(values.peek(worse), "assistant") if has_value(values.peek(worse)) else [],
    )
    if other and _is_by("assistant", other[0]):  # the answer alone
        other = [*(prompt or chosen_turns[:-1]), *other]
    if has_value(values.peek(worse)):
        values.take(worse)
        notes.add_omission("worse", worse)
    notes.worse = other
    return {"messages": chosen_turns}


def _is_by(role: Role, turn: object) -> bool:
    """Return True for a turn of this role, in either notation."""
    return isinstance(turn, dict) and role_of(turn.get("role", turn.get("from"))) == role


def _words(turn: object) -> Any:
    """Return the text of a turn, by which two turns are compared; what is no turn as it is."""
    words = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
    return words.strip() if isinstance(words, str) else turn


def _turns(value: object, role: str) -> list[Any]:
    """Return one side of a row as turns: a list or object of turns as it is, a text as a turn of role, or as the turns
    of a full conversation in Anthropic's notation."""
    if isinstance(value, list):
        return list(value)
    if isinstance(value, dict):
        return list(value["messages"]) if isinstance(value.get("messages"), list) else [value]
    parts = _HUMAN.split(value) if isinstance(value, str) else []
    if len(parts) < 3 or parts[0].strip():
        return [{"role": role, "content": value}]
    if not parts[-1].strip():  # the answer is apart
        parts = parts[:-2]
    speakers = ({"Human": "user", "Assistant": "assistant"}[speaker] for speaker in parts[1::2])
    return [{"role": role, "content": text.strip()} for role, text in zip(speakers, parts[2::2], strict=True)]


def _prompt_and_completion(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return a prompt of turns together with its answer as messages. None for other rows."""
    answer_column = next((name for name in ("completion", "response") if has_value(values.peek(name))), None)
    prompt = values.peek("prompt")
    if (
        answer_column is None
        or not isinstance(prompt, list)
        or not prompt
        or not all(isinstance(turn, dict) for turn in prompt)
    ):
        return None
    values.take("prompt")
    return {"messages": [*prompt, *_turns(values[answer_column], "assistant")]}


def _answered_apart(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return a conversation up to the question (messages, else prompt) with the answer of another column as its last
    message, as sets for reinforcement learning have it.

    The answer is a text or number in one of _ANSWERS_APART (ground_truth, answer, ...), else in reward_model or its
    ground_truth; it becomes text. Both columns are marked as taken. None for other rows.
    """
    turns_column = next((name for name in ("messages", "prompt") if isinstance(values.peek(name), list)), None)
    if turns_column is None:
        return None
    turns, reward = values.peek(turns_column), values.peek("reward_model")
    column = next((name for name in _ANSWERS_APART if isinstance(values.peek(name), str | int | float)), "reward_model")
    answer = (
        reward.get("ground_truth") if column == "reward_model" and isinstance(reward, dict) else values.peek(column)
    )
    if not turns or not _is_by("user", turns[-1]) or not isinstance(answer, str | int | float):
        return None
    values.take(turns_column, column)
    return {"messages": [*turns, {"role": "assistant", "content": str(answer)}]}


def _answered_by_calls(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return the question of a row like xLAM's and its answers, a list of tool calls, as two messages.

    The question is the text in query, question or instruction; it and answers are marked as taken, tools stays a
    column. None for other rows: without tools, or with answers that are no calls with a name and arguments.
    """
    prompt_column = next(
        (name for name in ("query", "question", "instruction") if isinstance(values.peek(name), str)), None
    )
    calls = values.peek("answers")
    if prompt_column is None or not has_value(values.peek("tools")) or not calls:
        return None
    calls = parsed_cell(calls)
    if (
        not isinstance(calls, list)
        or not all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls)
        or not calls
    ):
        return None
    values.take(prompt_column, "answers")
    return {
        "messages": [
            {"role": "user", "content": values[prompt_column]},
            {"role": "assistant", "content": None, "tool_calls": calls},
        ]
    }


def _labels(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return {"label": ...} of a text's `labels` or `cats`, if they are few names or numbers of classes: not marked
    spans, not a label for each word. None for other rows."""
    column = next((name for name in _LABELS if name in values), "")
    labels = values.peek(column)
    are = labels if isinstance(labels, list) else [labels]
    # spaCy and doccano: {"text": ..., "cats": ["spam"]}
    if "label" in values or not any(isinstance(values.peek(name), str) for name in _TEXTS):
        return None
    if len(are) > _MAX_LABELS or not all(isinstance(one, str | int) and not isinstance(one, bool) for one in are):
        return None
    values.take(column)
    return {"label": labels}


def _open_webui(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return the last conversation of an export of Open WebUI; the tree of all answers is noted as left out. None for
    other rows."""
    chat = values.peek("chat")
    if not isinstance(chat, dict) or not isinstance(chat.get("messages"), list) or "messages" in values:
        return None
    values.take("chat")
    notes.add_unread("field", chat, ("messages",))
    return {"messages": chat["messages"]}


def _squad(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return SQuAD's first answer ("" if there is none); different further ones and other fields are noted. None for
    other rows. Raises Flaw for numbers alone."""
    answers = values.peek("answers")
    if "question" not in values or "answer" in values or not isinstance(answers, dict | list):
        return None
    values.take("answers")
    # Perhaps numbers of lines, which are no answer.
    if answers and isinstance(answers, list) and all(isinstance(one, int) for one in answers):
        raise Flaw("data.only_numbers", column="answers", example=answers[0])
    answer_texts = (
        answers.get("text")
        if isinstance(answers, dict)
        else [a.get("text") if isinstance(a, dict) else a for a in answers]
    )
    texts = [
        text
        for text in (answer_texts if isinstance(answer_texts, list) else [answer_texts])
        if isinstance(text, str) and text.strip()
    ]
    for beside in [answers] if isinstance(answers, dict) else answers:
        if isinstance(beside, dict):
            notes.add_unread("answer", beside, ("text",))
    if any(text != texts[0] for text in texts):
        notes.add_omission("answer", "text")
    return {"answer": texts[0] if texts else ""}


def _written_turns(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return {column: turns} that a conversation column holds as a text: JSON, or names before each turn, which is
    noted as assumed. None for other rows."""
    name = next((name for name in _CONVERSATIONS if isinstance(values.peek(name), str)), "")
    text = str(values.peek(name)).strip()
    turns = parsed_cell(text) if name else None
    if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns):
        return {name: turns}
    if not name or (marked := turns_in(text)) is None:
        return None
    notes.assumed.add("marked_turns")
    marked, omissions = after_greeting(marked)
    notes.omissions += omissions
    return {name: marked}


def _alternating(values: Columns, notes: Notes) -> dict[str, object] | None:
    """Return turns that have no roles (user first, noted as assumed), pairs, or turns in another column, as messages.
    None for other rows."""
    name = next((name for name in TURNS if isinstance(values.peek(name), list) and values.peek(name)), None)
    turns = values.peek(name) if name else []
    if name and name == utterances_key(values.peek):  # wordings of one intent
        return None
    if name and all(isinstance(turn, dict) for turn in turns):
        if all(turn.keys() == {"input", "output"} for turn in turns):
            turns = [[turn["input"], turn["output"]] for turn in turns]
        elif not any(other in values for other in _CONVERSATIONS) and all(map(_is_turn, turns)):
            values.take(name)
            key = next(
                (k for k in ("systeminstruction", "system_instruction") if isinstance(values.peek(k), dict)), None
            )
            return {"messages": [*([{**values[key], "role": "system"}] if key else []), *turns]}
    if all(isinstance(pair, list) and len(pair) == 2 for pair in turns):
        turns = list(chain.from_iterable(turns))
    if name is None or not all(isinstance(turn, str) for turn in turns) or len(turns) < 2:
        return None
    values.take(name)
    notes.assumed.add("turns")
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)]}


def _is_turn(turn: Mapping[str, object]) -> bool:
    """Return True for an object with a role and a content, under any of their names."""
    return any(name in turn for name in ROLE_KEYS) and any(name in turn for name in CONTENT_KEYS)


_Converter = Callable[[Columns, Notes], dict[str, Any] | None]
# Each conversion with columns of which a row must have one, in the order in which they are tried.
_SHAPES: dict[_Converter, tuple[str, ...]] = {
    instances: ("instances",),
    tree: ("prompt", "replies"),
    _open_webui: ("chat",),
    _preference: (*RANKED_COLUMNS, "rejected"),
    _prompt_and_completion: ("completion", "response"),
    _answered_apart: (*_ANSWERS_APART, "reward_model"),
    _answered_by_calls: ("answers",),
    questions_of_a_text: ("questions",),
    _squad: ("answers",),
    traced: TRACED_COLUMNS,
    prompt_test: ("vars", "__expected", "__expected1"),
    answered_turns: ("turns",),
    label_studio: ("annotations", "completions"),
    json_min: ("annotation_id",),
    _written_turns: _CONVERSATIONS,
    _alternating: TURNS,
    _labels: _LABELS,
}


@lru_cache(maxsize=256)
def _possible(columns: tuple[str, ...]) -> tuple[bool, tuple[_Converter, ...]]:
    """Return True if a row with these columns may compare answers, and the conversions that may apply to it."""
    names = set(columns)
    may_apply = tuple(convert for convert, needed in _SHAPES.items() if not names.isdisjoint(needed))
    return may_compare(columns), may_apply
