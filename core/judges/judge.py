"""Judging one answer: `judge(spec, expected, answer)`.

A judge that cannot judge (a broken pattern, an expected answer without a number) raises JudgeError; that says nothing
of the answer. Thoughts are left out first, and an answer without anything else is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

import regex

from core.errors import JudgeError
from core.judges.numbers import Quantity, quantities, same
from core.judges.schema import violation
from core.judges.similarity import chrf
from core.judges.specs import (
    ChoiceJudge,
    ContainsJudge,
    ExactJudge,
    JsonJudge,
    JudgeSpec,
    LabelJudge,
    LanguageJudge,
    LengthJudge,
    ModelJudge,
    NumberJudge,
    OneOfJudge,
    PersonJudge,
    RegexJudge,
    SimilarityJudge,
)
from core.judges.structured import equal, leaves, parse
from core.judges.texts import comparable, folded, has, narrow, quoted, without_thoughts, words
from core.language import language_of
from core.messages import Message, msg
from core.values import Frozen

PATTERN_S = 0.5  # for one answer, after which a pattern is given up: some take time exponential in its length

Outcome = Literal["right", "partly", "wrong"]


class Verdict(Frozen):
    """A judge's opinion of one answer. score: 1 for right, 0 to 1 otherwise."""

    outcome: Outcome
    score: float
    reason: Message


def judge(spec: JudgeSpec, expected: str, answer: str) -> Verdict:
    """Judge an answer without its thoughts; one with nothing else is wrong. expected: the dataset's answer, "" if there
    is none. Raises JudgeError if this judge cannot decide."""
    answer = without_thoughts(answer)
    if not answer:
        return scored(0.0, msg("judges.empty"))
    return _JUDGES[type(spec)](spec, without_thoughts(expected), answer)


def is_right(spec: JudgeSpec, expected: str, answer: str) -> bool:
    """Return whether an answer is entirely right. Raises JudgeError."""
    return judge(spec, expected, answer).outcome == "right"


def scored(score: float, reason: Message) -> Verdict:
    """Return a verdict with this score: right for 1, wrong for 0, else partly."""
    return Verdict(outcome="right" if score == 1 else "partly" if score else "wrong", score=score, reason=reason)


def _exact(_: ExactJudge, expected: str, answer: str) -> Verdict:
    """Return right (score 1) if the answer is the expected one but for case and marks at its ends, else wrong (0).
    Raises JudgeError without an expected one."""
    if not expected:
        raise JudgeError("judges.no_expected")
    if comparable(answer) == comparable(expected):
        return scored(1.0, msg("judges.same"))
    return scored(0.0, msg("judges.differs", expected=quoted(expected)))


def _one_of(spec: OneOfJudge, expected: str, answer: str) -> Verdict:
    """Return right if the answer is the expected one or one of the spec's, compared as by the exact judge (case, width,
    spaces and marks at the ends do not count), else wrong. Raises JudgeError if neither is there."""
    accepted = [text for text in (expected, *spec.answers) if text]
    if not accepted:
        raise JudgeError("judges.no_expected")
    if comparable(answer) in map(comparable, accepted):
        return scored(1.0, msg("judges.same"))
    return scored(0.0, msg("judges.none_of_them", count=len(accepted)))


def _contains(spec: ContainsJudge, expected: str, answer: str) -> Verdict:
    """Return wrong if a phrase of none_of occurs, or if any_of is given and none of it occurs. Otherwise the score is
    the share of all_of that occurs (0 below a half); right if all_of is empty. If any_of and all_of are both empty, the
    expected answer must occur (`_contains_expected`)."""
    text = folded(answer)
    for phrase in spec.none_of:
        if has(text, phrase):
            return scored(0.0, msg("judges.must_not", text=quoted(phrase)))
    if not spec.any_of and not spec.all_of:
        return _contains_expected(spec.common, expected, text)
    if spec.any_of and not any(has(text, phrase) for phrase in spec.any_of):
        return scored(0.0, msg("judges.lacks", texts=[quoted(phrase) for phrase in spec.any_of[:3]]))
    return _share(spec.all_of, [phrase for phrase in spec.all_of if not has(text, phrase)])


def _contains_expected(common: tuple[str, ...], expected: str, text: str) -> Verdict:
    """Return right if text, a folded answer, contains the expected answer as a whole.

    Otherwise, with `common` (words that do not count), the score is the share of the expected answer's other words that
    occur, 0 below a half; with an empty `common` it is wrong. Raises JudgeError without an expected answer.
    """
    if not expected:
        raise JudgeError("judges.no_expected")
    if has(text, expected):
        return scored(1.0, msg("judges.contains"))
    needed = [word for word in dict.fromkeys(words(expected)) if word not in common]
    if not common or not needed:
        return scored(0.0, msg("judges.lacks", texts=[quoted(expected)]))
    return _share(needed, [word for word in needed if not has(text, word)])


def _share(phrases: list[str] | tuple[str, ...], missing: list[str]) -> Verdict:
    """Return right if nothing is missing, else the share of phrases that are there as the score, 0 below a half."""
    if not missing:
        return scored(1.0, msg("judges.contains"))
    share = 1 - len(missing) / len(phrases)
    lacks = msg("judges.lacks", texts=[quoted(phrase) for phrase in missing[:3]])
    return scored(share if share >= 0.5 else 0.0, lacks)


def _number(spec: NumberJudge, expected: str, answer: str) -> Verdict:
    """Return right if the answer's last number is the expected one; a score of a half for one among the others, or one
    that can be read in two ways; of several expected numbers, the share that occurs. Raises JudgeError if none is
    expected."""
    needed, given = ([quantity.with_decimal(spec.decimal) for quantity in quantities(text)]
                     for text in (expected, answer))  # fmt: skip
    if not needed:
        raise JudgeError("judges.no_number", expected=quoted(expected))
    if not given:
        return scored(0.0, msg("judges.number_none"))

    def matches_any(one: Quantity, others: list[Quantity], any_reading: bool = False) -> bool:
        """Return True if a number equals one of the others within the tolerances of the judge. any_reading: numbers
        that can be read in two ways may be equal in either."""
        return any(same(one, other, spec.tolerance, spec.relative, any_reading) for other in others)

    if len(needed) > 1:
        hits = sum(matches_any(one, given) for one in needed)
        return scored(hits / len(needed), msg("judges.numbers", count=hits, total=len(needed)))
    [one], last = needed, given[-1]
    values = {"given": last.text, "expected": one.text}
    if matches_any(one, [last]):
        return scored(1.0, msg("judges.number_right", **values))
    if matches_any(one, given):
        return scored(0.5, msg("judges.number_among", **values))
    if matches_any(one, [last], any_reading=True):
        return scored(0.5, msg("judges.number_two_ways", **values))
    return scored(0.0, msg("judges.number_wrong", **values))


def _regex(spec: RegexJudge, _: str, answer: str) -> Verdict:
    """Return right if the pattern occurs in the answer, else wrong. Raises JudgeError if the pattern is broken, or
    searching takes longer than PATTERN_S."""
    pattern = _compiled(spec.pattern, spec.case_sensitive)
    try:
        match = pattern.search(answer, timeout=PATTERN_S, concurrent=True)
    except TimeoutError:
        raise JudgeError("judges.pattern_slow", pattern=quoted(spec.pattern), seconds=PATTERN_S) from None
    return scored(1.0, msg("judges.pattern_right")) if match else scored(0.0, msg("judges.pattern_wrong"))


@lru_cache(maxsize=32)
def _compiled(pattern: str, case_sensitive: bool) -> regex.Pattern[str]:
    """Return a compiled pattern, whose `.` matches newlines too. Raises JudgeError for a broken one."""
    try:
        return regex.compile(pattern, regex.DOTALL | (0 if case_sensitive else regex.IGNORECASE))
    except (regex.error, OverflowError, RecursionError) as error:
        raise JudgeError("judges.pattern_broken", pattern=quoted(pattern), reason=str(error)[:100]) from None


def _json(spec: JsonJudge, expected: str, answer: str) -> Verdict:
    """Score the share of fields that are equal in the answer's and the expected JSON; a field that only one of them has
    is not. With `fields` in the spec, only those of the top level count.

    Without an expected answer it is the share of the spec's fields that exist; 1 if it names none. The score is halved
    if other text stands around the JSON, and 0 for an answer that is no JSON or does not match the spec's schema.
    Raises JudgeError if the expected answer is no JSON, or the schema is none.
    """
    needed = dict[str, object]()
    if expected:
        try:
            value, _ = parse(expected)
        except ValueError:
            raise JudgeError("judges.expected_not_json", expected=quoted(expected)) from None
        needed = _compared(spec, value)
    try:
        value, has_other_text = parse(answer)
    except ValueError:
        return scored(0.0, msg("judges.not_json"))
    if spec.json_schema and (difference := violation(spec.json_schema, value)):
        return scored(0.0, msg("judges.schema_wrong", reason=difference))
    given = _compared(spec, value)
    if expected:
        wrong = [
            path
            for path in {**needed, **given}
            if path not in needed or path not in given or not equal(needed[path], given[path])
        ]
        total = len({**needed, **given})
    else:
        names = value if isinstance(value, dict) else ()
        wrong, total = [field for field in spec.fields if field not in names], len(spec.fields)
    score = 1 - len(wrong) / total if total else 1.0
    if wrong:
        reason = msg("judges.json_wrong", count=total - len(wrong), total=total, fields=sorted(wrong)[:3])
    else:
        reason = msg("judges.json_around" if has_other_text else "judges.json_right")
    return scored(score / 2 if has_other_text else score, reason)


def _compared(spec: JsonJudge, value: object) -> dict[str, object]:
    """Return {path: value} of the innermost values of a JSON value, only those of the spec's fields if it names any."""
    if not spec.fields:
        return dict(leaves(value))
    parts = value.items() if isinstance(value, dict) else ()
    return {path: leaf for name, part in parts if name in spec.fields for path, leaf in leaves(part, name)}


def _label(spec: LabelJudge, expected: str, answer: str) -> Verdict:
    """Return right if the answer names the expected label and no other, else wrong. Raises JudgeError if the expected
    answer is no label."""
    labels = {comparable(label): label for label in spec.labels}
    if comparable(expected) not in labels:
        raise JudgeError("judges.expected_no_label", expected=quoted(expected))
    label = label_in(spec, answer)
    if label is None:
        named = labels_in(spec, answer)
        return scored(0.0, msg("judges.label_several", labels=named) if named else msg("judges.label_none"))
    is_expected = comparable(label) == comparable(expected)
    reason = msg("judges.label_right") if is_expected else msg("judges.label_wrong", given=label, expected=expected)
    return scored(float(is_expected), reason)


def label_in(spec: LabelJudge, answer: str) -> str | None:
    """Return the one label that an answer is, or names; None if it names none or several."""
    exact = {comparable(label): label for label in spec.labels}.get(comparable(without_thoughts(answer)))
    named = [exact] if exact else labels_in(spec, without_thoughts(answer))
    return named[0] if len(named) == 1 else None


def labels_in(spec: LabelJudge, answer: str) -> list[str]:
    """Return the labels that an answer names; one that is a part of another only where it stands alone."""
    text, named = folded(answer), []
    for label in sorted(spec.labels, key=len, reverse=True):
        if has(text, label):
            named.append(label)
            text = text.replace(comparable(label), "\n")
    return named


_KEYWORD = r"(?i:answer|option|choice|antwort|lösung|答案|选项|选择|选|答)"


def _choice(spec: ChoiceJudge, expected: str, answer: str) -> Verdict:
    """Return right if the answer chooses the expected letter, else wrong. Raises JudgeError if the expected answer has
    none."""
    right = _letter(spec.letters, expected)
    if right is None:
        raise JudgeError("judges.expected_no_choice", expected=quoted(expected))
    letter = _letter(spec.letters, answer)
    if letter is None:
        return scored(0.0, msg("judges.choice_none"))
    return scored(float(letter == right), msg("judges.choice", given=letter, expected=right))


def _letter(letters: str, text: str) -> str | None:
    """Return the letter that a text chooses, as a capital: "B", "(b) Paris", "The answer is B", "选B"; None if that is
    unclear. letters: those of the options."""
    text = narrow(text)
    some = f"[{letters}]"
    start = re.match(rf"[\s(\[*\"']*({some}|{some.lower()}(?=[).:\]]|\W*\Z))[*)\]\"']*(?:[).:、,。，]|\s*\Z)", text)
    if start:
        return start[1].upper()
    letter = rf"(?<![A-Za-z])({some})(?![A-Za-z'’])"
    named = re.findall(rf"{_KEYWORD}\W*(?:is|ist|lautet|是|为)?\W*{letter}", text)
    # "A" is a letter here unless a word follows: "A good answer"
    letter = rf"(?!A\s+(?!(?:and|or|und|oder)\b)[a-z]){letter}"
    alone = set(named[-1:] or re.findall(letter, text))
    return alone.pop() if len(alone) == 1 else None


def _language(spec: LanguageJudge, expected: str, answer: str) -> Verdict:
    """Return right if the answer is in the spec's language, or else the expected answer's; otherwise wrong. Raises
    JudgeError if the language of either text is unknown."""
    language, given = spec.language or language_of(expected), language_of(answer)
    if language is None or given is None:
        raise JudgeError("judges.language_unknown", text=quoted(expected if language is None else answer))
    names = {"given": msg(f"judges.language_{given}"), "expected": msg(f"judges.language_{language}")}
    return scored(float(language == given), msg("judges.language", **names))


def _length(spec: LengthJudge, _: str, answer: str) -> Verdict:
    """Return right if the answer's length in words or characters is within the limits, else wrong; the score falls with
    the distance to them."""
    count = len(words(answer)) if spec.unit == "words" else len(answer)
    most = count if spec.most is None else spec.most
    score = min(1.0, most / count, count / spec.least if spec.least else 1.0) if count else 0.0
    is_right = spec.least <= count <= most
    return Verdict(
        outcome="right" if is_right else "wrong", score=score, reason=msg(f"judges.length_{spec.unit}", count=count)
    )


def _similarity(spec: SimilarityJudge, expected: str, answer: str) -> Verdict:
    """Score the chrF of answer and expected answer: right or partly from the spec's limits on. Raises JudgeError
    without an expected answer."""
    if not expected:
        raise JudgeError("judges.no_expected")
    score = chrf(folded(answer), folded(expected))
    outcome: Outcome = "right" if score >= spec.right else "partly" if score >= spec.partly else "wrong"
    return Verdict(outcome=outcome, score=score, reason=msg("judges.similarity", percent=round(100 * score)))


def voted(outcome: Outcome) -> Verdict:
    """Return a person's vote as a verdict, with the score 1, 0.5 or 0."""
    return scored({"right": 1.0, "partly": 0.5, "wrong": 0.0}[outcome], msg("judges.voted"))


def _person(_: PersonJudge, expected: str, answer: str) -> Verdict:
    """Raise JudgeError: nobody has voted on this answer yet."""
    raise JudgeError("judges.no_vote")


def _model(spec: ModelJudge, expected: str, answer: str) -> Verdict:
    """Raise JudgeError: the model has not been sent this answer yet."""
    raise JudgeError("judges.not_asked", judge=spec.model)


_JUDGES: dict[type, Callable[[Any, str, str], Verdict]] = {
    ExactJudge: _exact,
    OneOfJudge: _one_of,
    ContainsJudge: _contains,
    NumberJudge: _number,
    RegexJudge: _regex,
    JsonJudge: _json,
    LabelJudge: _label,
    ChoiceJudge: _choice,
    LanguageJudge: _language,
    LengthJudge: _length,
    SimilarityJudge: _similarity,
    PersonJudge: _person,
    ModelJudge: _model,
}
