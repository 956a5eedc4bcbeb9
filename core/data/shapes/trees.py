"""Conversations as trees of answers (OpenAssistant), and questions that follow one another: one path of each, as turns.

OpenAssistant    prompt: {text, role, replies: [{text, role, rank, replies}]}, or a message with its replies
MT-Bench         turns: [question, ...], reference: [answer, ...]
CoQA             story, questions: [...], answers: {input_text: [...]}
self-instruct    instruction, instances: [{input, output}]
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from core.data.reading.file_rows import Flaw
from core.data.shapes.left_out import Columns, Notes, has_value


def tree(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return the path of best answers through a tree as messages, other branches noted; None for other rows. Raises
    Flaw for a row inside of another's tree."""
    root = values.peek("prompt")
    if not _is_node(root):
        root = {name: values.peek(name) for name in values} if isinstance(values.peek("replies"), list) else None
        if root is None or not _is_node(root):
            return None
        if has_value(values.peek("parent_id")):
            raise Flaw("data.inside_a_tree")  # the row is part of that tree too
        values.take("text", "role", "replies", "parent_id")
    else:
        values.take("prompt")
    turns = [_turn(root)]
    while replies := [node for node in root["replies"] if _is_node(node) and not node.get("deleted")]:
        if len(replies) > 1:
            notes.add_omission("branch")
        root = min(replies, key=_rank)
        turns.append(_turn(root))
    return {"messages": turns}


def _is_node(value: object) -> bool:
    """Return whether a value is a node of a tree: text, role and a list of replies."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("text"), str)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("replies", []), list)
        and "replies" in value
    )


def _rank(node: dict[str, Any]) -> float:
    """Return the rank of an answer, 0 the best; without one it comes last."""
    rank = node.get("rank")
    return float(rank) if isinstance(rank, int | float) else float("inf")


def _turn(node: dict[str, Any]) -> dict[str, Any]:
    """Return the message of a node of a conversation's tree: its role, and its text as content."""
    return {"role": node["role"], "content": node["text"]}


def answered_turns(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return a row of a benchmark such as MT-Bench as messages: the questions in `turns`, each with its reference
    answer, as far as there are answers. None for other rows. Raises Flaw if there are no reference answers."""
    questions = values.peek("turns")
    if "question_id" not in values or not _are_texts(questions):
        return None
    references: list[str] = next((values.peek(name) for name in ("reference", "references", "reference_answer")
        if _are_texts(values.peek(name))), [])  # fmt: skip
    if not references:
        raise Flaw("data.no_reference")
    values.take("turns", "reference", "references", "reference_answer")
    if len(references) < len(questions):
        notes.add_omission("turn")
    return {"messages": _alternating(questions, references)}


def questions_of_a_text(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return a text's questions, which follow one another, and their answers as messages, the text before the first.
    None for other rows."""
    questions, answers = values.peek("questions"), values.peek("answers")
    if isinstance(answers, dict):
        # CoQA: answers: {"input_text": [...]}
        answers = next((answers[key] for key in ("input_text", "text") if key in answers), None)
    if not _are_texts(questions) or not _are_texts(answers) or len(questions) != len(answers) or "options" in values:
        return None
    story = next((name for name in ("story", "context", "passage", "article") if has_value(values.peek(name))), None)
    values.take("questions", "answers", *([story] if story else []))
    text = str(values.peek(story)).strip() if story else ""
    first = f"{text}\n\n{questions[0]}" if text else questions[0]
    return {"messages": _alternating([first, *questions[1:]], answers)}


def _are_texts(value: Any) -> bool:
    """Return True for a list of texts none of which is blank; False for an empty list and any other value."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one.strip() for one in value)


def _alternating(questions: list[str], answers: list[str]) -> list[dict[str, str]]:
    """Return questions and answers as turns, up to the end of the shorter list."""
    pairs = zip(questions, answers, strict=False)
    return [
        *chain.from_iterable(({"role": "user", "content": q}, {"role": "assistant", "content": a}) for q, a in pairs)
    ]


def instances(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return input and output of the first instance of an instruction that has an output, as self-instruct has them;
    others are noted. None for other rows. Raises Flaw without an output."""
    each = values.peek("instances")
    if not isinstance(values.peek("instruction"), str) or not isinstance(each, list) or "output" in values:
        return None
    readable = [one for one in each if isinstance(one, dict) and has_value(one.get("output"))]
    values.take("instances")
    if not readable:
        raise Flaw("data.empty_answer")
    if len(each) > 1:
        notes.add_omission("answer", "instances")
    return {"input": readable[0].get("input") or "", "output": readable[0]["output"]}
