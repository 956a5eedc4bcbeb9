"""A system prompt proposed from the training data: a plain template for each kind of answer, with the labels, the
fields or some answers of the data. It is what a person would write after reading the data."""

from __future__ import annotations

from collections.abc import Sequence

from core.judges.numbers import quantities
from core.judges.specs import ChoiceJudge, JsonJudge, JudgeSpec, LabelJudge, NumberJudge
from core.judges.structured import leaves, parse
from core.judges.texts import words
from core.language import language_of
from core.messages import msg

SHOWN = 3  # answers that show a style
MAX_CHARACTERS = 400  # of an answer that shows a style
FEW_WORDS = 4  # an answer of up to so many words is a short fact
LOOKED_AT = 200  # rows


def proposed(pairs: Sequence[tuple[str, str]], judge: JudgeSpec) -> str:
    """Return a system prompt for training rows, (question, answer), whose answers this judge suits; "" without rows.

    In the language of the rows, if the program knows it, else in English.
    """
    if not pairs:
        return ""
    answers = [answer.strip() for _, answer in pairs[:LOOKED_AT]]
    language = language_of("\n".join(question for question, _ in pairs[:LOOKED_AT])) or "en"
    if isinstance(judge, LabelJudge):
        return msg("evaluation.prompt_label", labels=", ".join(judge.labels)).render(language)
    if isinstance(judge, ChoiceJudge):
        return msg("evaluation.prompt_choice").render(language)
    if isinstance(judge, JsonJudge):
        return msg("evaluation.prompt_json", fields=", ".join(_fields(answers))).render(language)
    if isinstance(judge, NumberJudge) and quantities(answers[0]):  # not of a test set that the rows are unlike
        return msg("evaluation.prompt_number", example=answers[0]).render(language)
    in_order = sorted(answers, key=lambda answer: len(words(answer)))
    if len(words(in_order[len(in_order) // 2])) <= FEW_WORDS:
        return msg("evaluation.prompt_short").render(language)
    shown = [answer for answer in dict.fromkeys(answers) if len(answer) <= MAX_CHARACTERS][:SHOWN]
    return msg("evaluation.prompt_style", answers="\n".join(f"- {answer}" for answer in shown)).render(language)


def _fields(answers: Sequence[str]) -> list[str]:
    """Return the paths of the fields of the first answer that is JSON, with those inside others: a, b.c; [] without
    one."""
    for answer in answers:
        try:
            value, _ = parse(answer)
        except ValueError:
            continue
        return [path for path in dict(leaves(value)) if path]
    return []
