"""Proposes a judge from the expected answers of a data set."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal

from core.errors import JudgeError
from core.judges.numbers import quantities
from core.judges.schema import violation
from core.judges.specs import (
    ChoiceJudge,
    ContainsJudge,
    JsonJudge,
    JudgeSpec,
    LabelJudge,
    NumberJudge,
    SimilarityJudge,
)
from core.judges.structured import parse
from core.judges.texts import comparable, is_cjk, narrow, without_thoughts, words
from core.language import COMMON_WORDS

MIN_SHARE = 0.9  # share of the answers that have to be of a kind
MAX_LABELS, TIMES_EACH, LABEL_WORDS = 50, 3, 6  # labels; how often each occurs on average; words of one
FACT_WORDS, SENTENCE_WORDS, KEY_WORDS = 4, 25, 6  # medians: of a short fact, of a sentence, of what is special to it
OTHER_LETTERS = 16  # letters beside a number, in an answer that is a number with its unit
# Short words that core/language does not have, because several languages share them.
_SHORT = frozenset(["a", "an", "in", "on", "at", "to", "im", "am", "um", "ins", "when"])
COMMON_IN = 0.15  # share of the different answers from which a word says nothing of one of them
_TYPES = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object",
          type(None): "null"}  # fmt: skip
_CHOICE = re.compile(r"[(\[]?([A-H])[)\]]?(?:[).:、].*)?", re.DOTALL)


def propose(expected_answers: Sequence[str]) -> JudgeSpec:
    """Return the judge that suits nearly all of the expected answers, thoughts left out: JSON, a choice, a number, a
    label, short facts, facts in sentences, else similarity. Raises JudgeError if there are none."""
    texts = [text for text in map(without_thoughts, expected_answers) if text]
    if not texts:
        raise JudgeError("judges.no_expected")
    if _share_of(texts, _is_json) >= MIN_SHARE:
        return _by_fields([parse(text)[0] for text in texts if _is_json(text)])
    choices = {match[1] for match in map(_CHOICE.fullmatch, map(narrow, texts)) if match}
    if len(choices) > 1 and _share_of(texts, lambda text: _CHOICE.fullmatch(narrow(text)) is not None) >= MIN_SHARE:
        return ChoiceJudge(letters="ABCDEFGH"[: max(4, "ABCDEFGH".index(max(choices)) + 1)])
    if _share_of(texts, _is_number) >= MIN_SHARE:
        return NumberJudge(decimal=_decimal(texts))
    by_label = Counter(map(comparable, texts))
    if (
        len(by_label) <= min(MAX_LABELS, len(texts) / TIMES_EACH)
        and max(len(words(text)) for text in by_label) <= LABEL_WORDS
    ):
        spelling = {comparable(text): text for text in reversed(texts)}
        return LabelJudge(labels=tuple(spelling[label] for label, _ in by_label.most_common()))
    if median(len(words(text)) for text in texts) <= FACT_WORDS:
        return ContainsJudge()
    return _facts(texts) or SimilarityJudge()


def _share_of(texts: Sequence[str], is_kind: object) -> float:
    """Return the share of texts, 0 to 1, for which is_kind(text) is true."""
    return sum(map(bool, map(is_kind, texts))) / len(texts)  # type: ignore[call-overload]


def _is_json(text: str) -> bool:
    """Return whether a text is a JSON object or list, perhaps in a code fence, and nothing else."""
    try:
        value, has_other_text = parse(text)
    except ValueError:
        return False
    return isinstance(value, dict | list) and not has_other_text


def _by_fields(values: Sequence[object]) -> JsonJudge:
    """Return a judge that compares all fields of a JSON answer. If all values are objects with the same fields, some of
    which hold free text, it compares only the other fields, and checks the answer against a schema of all fields'
    types. values: the expected answers."""
    rows = [value for value in values if isinstance(value, dict)]
    if len(rows) < len(values) or any(row.keys() != rows[0].keys() for row in rows):
        return JsonJudge()
    of_each = {name: [row[name] for row in rows] for name in rows[0]}
    fields = tuple(name for name, column in of_each.items() if not _is_free_text(column))
    if not fields or len(fields) == len(of_each):
        return JsonJudge()
    properties = {name: {"type": sorted({_TYPES[type(value)] for value in column})} for name, column in of_each.items()}
    schema = {"type": "object", "properties": properties, "required": list(of_each), "additionalProperties": False}
    return JsonJudge(fields=fields, json_schema=json.dumps(schema, ensure_ascii=False))


def _is_free_text(values: Sequence[object]) -> bool:
    """Return whether all values of a field are texts, of more than FACT_WORDS words in the median."""
    return all(isinstance(one, str) for one in values) and median(len(words(str(one))) for one in values) > FACT_WORDS


def schema_in(conversations: Sequence[Sequence[Mapping[str, object]]]) -> str:
    """Return the JSON schema that stands in a turn of each conversation; "" if it is not the same one in all."""
    schemas = {
        next(filter(None, (_schema_of(str(turn.get("content"))) for turn in turns)), "") for turns in conversations
    }
    return schemas.pop() if len(schemas) == 1 else ""


def _schema_of(text: str) -> str:
    """Return the JSON schema in a text, serialized anew: a JSON object with `properties`, alone, in a code fence or
    after other text.

    "" if the text has none, or one with a keyword that the JSON judge cannot check.
    """
    try:
        value, _ = parse(text)
        schema = json.dumps(value, ensure_ascii=False) if isinstance(value, dict) and "properties" in value else ""
        if schema:
            violation(schema, None)
    except (ValueError, JudgeError):
        return ""
    return schema


def _is_number(text: str) -> bool:
    """Return whether a text is one number and little else, as a unit."""
    numbers = quantities(text)
    return len(numbers) == 1 and sum(map(str.isalpha, text)) <= OTHER_LETTERS


def _decimal(texts: Sequence[str]) -> Literal["", ".", ","]:
    """Return the decimal separator of those numbers that can be read in one way only; "" if none or both occur."""
    separators = set[Literal[".", ","]]()
    for number in (number for text in texts for number in quantities(text)):
        readings = number.by_decimal
        if "." in readings and "," not in readings:
            separators.add(".")
        elif "," in readings and "." not in readings:
            separators.add(",")
    return separators.pop() if len(separators) == 1 else ""


def _facts(texts: Sequence[str]) -> ContainsJudge | None:
    """Return a judge that wants the telling words of a sentence, in any order: those that are not common to many of the
    answers or to the language; the common ones are listed in it.

    None if the sentences are long, have too many such words or mostly none, or are Chinese or Japanese, which have no
    spaces between words.
    """
    different = {comparable(text): words(text) for text in texts}
    if is_cjk("".join(different)) or median(map(len, different.values())) > SENTENCE_WORDS:
        return None
    in_answers = Counter(word for each in different.values() for word in set(each))
    least = max(3, COMMON_IN * len(different))
    common = {word for word, count in in_answers.items() if count >= least or word in COMMON_WORDS | _SHORT}
    special = [len(set(each) - common) for each in different.values()]
    if median(special) > KEY_WORDS or sum(map(bool, special)) < MIN_SHARE * len(special):
        return None
    return ContainsJudge(common=tuple(sorted(common)))
