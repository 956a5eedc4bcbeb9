"""Held-out prompts with automatic checks on the answers: "did the model learn it?" as a number.

Reads `presets/samples/<name>.heldout.yaml`: a list of

    - prompt: What does it run on?          # the full user message, in words the training file does not have
      check: {contains_any: [pinecone, pinecones]}

A check has one or more of the keys of `AnswerCheck`; all of them must hold. Letter case is ignored unless
`case_sensitive: true`. No model, no torch: the caller generates, this module only checks. An answer that passes is not
necessarily good; a check compares words, not meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from core.data.repeats import same_prompt_key
from core.values import Strict


class AnswerCheck(Strict):
    """Conditions on an answer. Words are matched as full words: `7` is not found in `17`, nor `art` in `party`."""

    contains_all: tuple[str, ...] = Field((), description="Every one of these words or phrases is in the answer.")
    contains_any: tuple[str, ...] = Field((), description="At least one of these words or phrases is in the answer.")
    not_contains: tuple[str, ...] = Field((), description="None of these words or phrases is in the answer.")
    starts_with_any: tuple[str, ...] = Field((), description="The answer begins with one of these, spaces aside.")
    equals: str | None = Field(None, description="The answer is this and nothing else, spaces around it aside.")
    regex: str | None = Field(
        None, description="Found somewhere in the answer by re.search; `.` also matches newlines."
    )
    case_sensitive: bool = Field(False, description="A and a are different.")

    @field_validator("contains_all", "contains_any", "not_contains", "starts_with_any")
    @classmethod
    def _no_blank_words(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if any(not word.strip() for word in words):
            raise ValueError("an empty word is in every answer: remove it")
        return words

    @field_validator("regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        """Raise ValueError unless the pattern is a regular expression."""
        if pattern is not None:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    @model_validator(mode="after")
    def _checks_something(self) -> AnswerCheck:
        words = (self.contains_all, self.contains_any, self.not_contains, self.starts_with_any)
        if not any(words) and self.equals is None and self.regex is None:
            raise ValueError("a check without a condition passes every answer: give it one")
        return self


class HeldOut(Strict):
    """One question that is not in the training file, and the conditions on its answer."""

    prompt: str = Field(min_length=1)
    check: AnswerCheck


def load_heldout(path: Path | str) -> list[HeldOut]:
    """Return the held-out prompts of a file, in its order.

    Raises ValueError that names the file and every bad entry (counted from 1), for anything but a list of {prompt,
    check}, an unknown or empty check, a broken regular expression, or a repeated prompt; FileNotFoundError and
    yaml.YAMLError unchanged. These files are the project's own, so this is no GarageError.
    """
    path = Path(path)
    entries = yaml.safe_load(path.read_text("utf-8"))
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path.name}: expected a list of prompts with their checks, found {type(entries).__name__}")
    heldout, problems = [], []
    first_entries: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            item = HeldOut.model_validate(entry)
        except ValidationError as error:
            problems += [f"entry {number}: {_problem(detail)}" for detail in error.errors()]
            continue
        first = first_entries.setdefault(same_prompt_key(item.prompt), number)
        if first != number:
            problems.append(f"entry {number}: the same prompt as entry {first}")
        heldout.append(item)
    if problems:
        raise ValueError(f"{path.name}: " + "; ".join(problems))
    return heldout


def passes(check: AnswerCheck, answer: str) -> bool:
    """Return True if answer (without special tokens such as <|im_end|>) meets every condition of check."""
    flags = re.DOTALL if check.case_sensitive else re.DOTALL | re.IGNORECASE
    answer = answer.strip()

    def has(word: str) -> bool:
        # No ASCII letter or digit may touch the word; Chinese has no spaces between words.
        return re.search(rf"(?<![0-9A-Za-z]){re.escape(word.strip())}(?![0-9A-Za-z])", answer, flags) is not None

    return (
        all(has(word) for word in check.contains_all)
        and (not check.contains_any or any(has(word) for word in check.contains_any))
        and not any(has(word) for word in check.not_contains)
        and (
            not check.starts_with_any
            or any(re.match(re.escape(s.strip()), answer, flags) for s in check.starts_with_any)
        )
        and (check.equals is None or re.fullmatch(re.escape(check.equals.strip()), answer, flags) is not None)
        and (check.regex is None or re.search(check.regex, answer, flags) is not None)
    )


def _problem(detail: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else detail["msg"]
