"""Answers of one question that were ranked or scored: the best against the worst, as a preference pair.

Nectar, UltraFeedback, ELI5    answers | completions | ...: [{answer, rank}] | [{response, score}]
SHP                            human_ref_A, human_ref_B, with score_A, score_B
two answers                    response_a, response_b, with winner or chosen: "a", or with score_a, score_b
Chatbot Arena                  conversation_a, conversation_b, with winner: "model_a"
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from core.data.reading.file_rows import Flaw
from core.data.shapes.left_out import Columns, Notes, has_value
from core.data.shapes.numbering import number_of

_LISTS = ("answers", "completions", "responses", "candidates", "outputs", "generations", "summaries", "replies")
_QUESTIONS = ("prompt", "instruction", "question", "query", "input", "history", "post", "title")
_NO_PROMPTS = ("history", "post", "title")  # names that are a question only beside compared answers
_TEXTS = ("response", "answer", "text", "output", "completion", "content", "generated_text", "model_response", "body")
_RANKS = ("rank", "ranking", "position")  # the lowest is the best
_SCORES = ("overall_score", "score", "rating", "reward", "grade", "quality", "votes", "upvotes", "stars", "pm_score")
_SIDES = (("a", "b"), ("0", "1"), ("1", "2"))
_STEMS = ("human_ref", "response", "answer", "output", "completion", "summary", "text", "chatbot", "model", "assistant",
    "conversation")  # fmt: skip
_COMPARED = {*_LISTS, *(f"{stem}_{side}" for stem in _STEMS for sides in _SIDES for side in sides)}
_WINNERS = ("winner", "chosen", "preference", "preferred", "better", "choice", "best", "overall_preference",
    "better_response_id", "safer_response_id")  # fmt: skip
_NAME = re.compile(r"(?:model|response|answer|assistant|output|completion)?[\s_-]*")  # of "Response A"


def compared(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Take the columns of a comparison, and return the chosen and the rejected answer ("" if the best and worst of a
    list are equal), with their prompt if its column needs a new name, as columns; None for a row that ranks nothing.
    Raises Flaw for two answers that tie, and for a list without a ranked answer."""
    # In arenas `chosen` is A or B.
    if "messages" in values or "chosen" in values and _side(values.peek("chosen")) not in chain(*_SIDES):
        return None
    if not any(name in values for name in _QUESTIONS) and not isinstance(values.peek("conversation_a"), list):
        return None
    pair = _best_and_worst(values, notes) or _better_and_worse(values)
    if pair is None:
        return None
    name = next(name for name in _QUESTIONS if has_value(values.peek(name)) or name == _QUESTIONS[-1])
    prompt = values.peek(name)
    if name in _NO_PROMPTS:
        values.take(name)
        pair["prompt"] = prompt
    return pair


def may_compare(names: Iterable[str]) -> bool:
    """Return True if a row with these columns may compare answers."""
    return not _COMPARED.isdisjoint(names)


def _best_and_worst(values: Columns, notes: Notes) -> dict[str, Any] | None:
    """Return the answers with the best and the worst rank or score of a list, those between noted; rejected is "" if
    they are equal. None without such a list. Raises Flaw if no answer is ranked."""
    for name in _LISTS:
        answers = _objects(values.peek(name))
        if not answers:
            continue
        text = next((key for key in _TEXTS if all(isinstance(answer.get(key), str) for answer in answers)), None)
        key, sign = next(
            (
                (key, sign)
                # The lowest rank, but the highest score, is the best.
                for keys, sign in ((_RANKS, -1), (_SCORES, 1))
                for key in keys
                if any(_is_number(answer.get(key)) for answer in answers)
            ),
            ("", 0),
        )
        if text is None or not key:
            continue
        ranked = sorted(
            (answer for answer in answers if _is_number(answer.get(key)) and answer[text].strip()),
            key=lambda answer: -sign * float(answer[key]),  # noqa: B023 - used at once
        )
        if not ranked:
            raise Flaw("data.empty_answer")
        values.take(name)
        if len(ranked) > 2:
            notes.add_omission("between", name)
        best, worst = ranked[0], ranked[-1]
        return {"chosen": best[text], "rejected": worst[text] if float(best[key]) != float(worst[key]) else ""}
    return None


def _objects(value: object) -> list[dict[str, Any]]:
    """Return a list of objects, also from an object of lists; [] for anything else."""
    if isinstance(value, dict):
        # `datasets` writes it as an object of lists.
        lists = {key: part for key, part in value.items() if isinstance(part, list)}
        lengths = {len(part) for part in lists.values()}
        if len(lists) < 2 or len(lengths) != 1:
            return []
        return [dict(zip(lists, parts, strict=True)) for parts in zip(*lists.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        return []
    return value


def _is_number(value: object) -> bool:
    """Return True for a number, also as text; not for true and false."""
    if isinstance(value, str):
        return re.fullmatch(r"-?\d+(?:\.\d+)?", value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _better_and_worse(values: Columns) -> dict[str, Any] | None:
    """Take and return {chosen, rejected} of the two answers of a comparison. None if the row has none or names no
    winner. Raises Flaw for a tie."""
    for stem in _STEMS:
        for sides in _SIDES:
            names = [f"{stem}_{side}" for side in sides]
            if not all(isinstance(values.peek(name), str | list) and has_value(values.peek(name)) for name in names):
                continue
            better = _better(values, sides)
            if better is None:
                continue
            values.take(*names)
            return {"chosen": values.peek(names[better]), "rejected": values.peek(names[1 - better])}
    return None


def _better(values: Columns, sides: Sequence[str]) -> int | None:
    """Return the place (0 or 1) of the better of two answers, by a program's own winner columns, by scores, or by a
    column that names the winner; None if no column tells.

    The columns that decide are marked as read. Raises Flaw for a tie.
    """
    # From what only one program writes to a name that says who won.
    marks = [number_of(values.peek(f"winner_model_{side}")) for side in sides]
    if 1 in marks and 0 in marks:
        values.take(*(f"winner_model_{side}" for side in sides))
        return marks.index(1)
    for name in _SCORES:
        scores = [values.peek(f"{name}_{side}") for side in sides]
        if all(map(_is_number, scores)):
            values.take(*(f"{name}_{side}" for side in sides))
            if float(scores[0]) == float(scores[1]):
                raise Flaw("data.no_winner", found=f"{scores[0]} = {scores[1]}")
            return int(float(scores[1]) > float(scores[0]))
    return _named_winner(values, sides)


def _side(mark: object) -> str:
    """Return the side that a mark names, in its shortest form: "a" for "Response A", "1" for 1 or "model_1". A mark
    without a side gives its text in small letters."""
    number = number_of(mark)
    return str(number) if number is not None else _NAME.sub("", str(mark).strip().lower(), count=1)


def _named_winner(values: Columns, sides: Sequence[str]) -> int | None:
    """Return the place of the side that a column names as winner, and take that column; None if none does. Raises Flaw
    for a tie."""
    for name in (name for name in _WINNERS if name in values):
        mark = values.peek(name)
        text = _side(mark)
        if text in sides:
            values.take(name)
            return sides.index(text)
        # "tie", "tie (bothbad)", "neither"
        if isinstance(mark, str) and ("tie" in text or "both" in text or "neither" in text):
            raise Flaw("data.no_winner", found=mark[:40])
    return None
