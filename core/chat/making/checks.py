"""Checks of a written row: its quote stands in the passage, and two answers say the same."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.errors import JudgeError
from core.judges.judge import judge
from core.judges.numbers import Quantity, quantities, same
from core.judges.propose import propose
from core.judges.specs import JudgeSpec, SimilarityJudge
from core.judges.texts import comparable, is_cjk, words
from core.language import COMMON_WORDS

MIN_WORDS, MIN_CJK = 3, 6  # of a quote that proves anything; of Chinese or Japanese characters
SAME_WORDS = 0.6  # share of the words of the shorter answer, without common ones, that the other has as well
_NO = {
    "not", "no", "never", "none", "without", "cannot", "nicht", "kein", "keine", "keinen", "keiner", "nie", "niemals",
    "ohne", "ne", "pas", "non", "nunca", "不", "没", "无", "别", "未",
}  # fmt: skip
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+")


def quote_span(passage: str, quote: str) -> tuple[int, int] | None:
    """Return where a quote stands in a passage, as characters (start, end).

    Its words have to follow one another as they do in the quote; case, spaces, punctuation and Markdown between them
    may differ. None if they do not, or for a quote of too few words.
    """
    words = _TOKEN.findall(quote)
    if sum(map(len, words)) < MIN_CJK if is_cjk(quote) else len(words) < min(MIN_WORDS, len(_TOKEN.findall(passage))):
        return None
    # [^\W\d_]+ takes a run of Chinese characters as one word: they follow one another there as well
    match = re.search(r"[\W_]*?".join(map(re.escape, words)), passage, re.IGNORECASE)
    if match is None or _is_inside_a_word(passage, *match.span()):
        return None
    return match.span()


def _is_inside_a_word(text: str, start: int, end: int) -> bool:
    """Return whether the part of text from start to end begins or ends within a word or number. Always False for
    Chinese, which has no spaces between words."""
    if is_cjk(text[start:end]):
        return False
    before, after = text[max(0, start - 1) : start], text[end : end + 1]
    return (before.isalnum() and text[start].isalnum()) or (after.isalnum() and text[end - 1].isalnum())


def judge_of(answers: Sequence[str]) -> JudgeSpec:
    """Return the judge that an evaluation would propose for these expected answers; by similarity if it proposes
    none."""
    try:
        return propose(answers)
    except JudgeError:
        return SimilarityJudge()


def says_the_same(spec: JudgeSpec, expected: str, answer: str, exactly: bool = False) -> bool:
    """Return whether an answer says what is expected. It must not be wrong by the judge, and has to have all numbers of
    the expected one. If the judge finds it partly right, or compares by similarity only, the two must also share most
    words. exactly: partly right is not enough. If the judge cannot judge, the texts must be the same apart from their
    form."""
    try:
        verdict = judge(spec, expected, answer)
    except JudgeError:
        return comparable(expected) == comparable(answer)
    if verdict.outcome == "wrong" or (exactly and verdict.outcome == "partly"):
        return False
    is_sure = verdict.outcome == "right" and not isinstance(spec, SimilarityJudge)
    if not is_sure and not _shares_words(expected, answer):
        return False
    given = quantities(answer)
    return all(has_number(number, given) for number in quantities(expected))


def _shares_words(one: str, other: str) -> bool:
    """Return whether two answers have most words in common, and both deny something or neither does: letters alone
    resemble each other also where "always" stands for "never"."""
    sets = sorted((set(words(text)) for text in (one, other)), key=len)
    if any(bool(each & _NO) != bool(sets[0] & _NO) for each in sets):
        return False
    special = sets[0] - COMMON_WORDS or sets[0]
    return len(special & sets[1]) >= SAME_WORDS * len(special)


def has_number(number: Quantity, others: Sequence[Quantity]) -> bool:
    """Return whether a number is one of the others, in whatever unit and with whatever decimal separator."""
    return any(same(number, other, 0.0, 0.0, any_reading=True) for other in others)
