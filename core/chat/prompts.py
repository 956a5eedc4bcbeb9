"""The prompts of a comparison: from a run's data, or from a file. No torch."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.row_order import shuffle
from core.data.store import DatasetStore
from core.data.tokenizer import conversation
from core.data.validation_split import validation_rows
from core.errors import ChatError
from core.files import JsonObject
from core.judges.specs import JUDGE_SPEC, JudgeSpec
from core.recipe import NO_DATA
from core.runs.folder import RunFolder
from core.runs.scenes import neutral_prompts
from core.values import Frozen

MAX_CHARACTERS = 2000  # of a question from the data, which a person has to read
MAX_TAG = 60  # characters
MAX_BYTES = 16 << 20  # of a file: a thousand prompts of four pages
NEUTRAL = 2  # neutral questions at the end, unrelated to any dataset
Source = Literal["kept_apart", "trained", "own", "neutral", "file", "failure"]


class Prompt(Frozen):
    """A prompt. turns: up to the question. expected: the answer in the data or the file. examples: questions and
    answers of training rows, the nearest first. judge: its own, instead of that of its test set."""

    turns: tuple[JsonObject, ...] = Field(min_length=1)
    source: Source = "file"
    expected: str | None = None
    tags: tuple[str, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    judge: JudgeSpec | None = None

    @property
    def question(self) -> str:
        """The text of its last turn."""
        return str(self.turns[-1].get("content", ""))


def prompts_of(run: RunFolder, store: DatasetStore, count: int) -> list[Prompt]:
    """Return at most count questions: of held-out rows (of trained ones without any), the user's sample prompts, and
    neutral ones; of an adapter that was not trained here, neutral ones alone.

    The same for the same run. Raises DataError if its dataset is gone.
    """
    recipe, facts = run.recipe(), run.facts()
    if recipe.data.source == NO_DATA:
        return neutral("en")[:count]
    rows = store.rows(recipe.data.source, recipe.data.format, Choices.from_data(recipe.data)).examples
    held_out = validation_rows(rows, recipe) if facts.rows_measured else ()
    order = shuffle(held_out if len(held_out) else range(len(rows)), random.Random(f"{recipe.train.seed}/comparison"))
    sample_prompts = [
        Prompt(turns=({"role": "user", "content": question},), source="own") for question in recipe.train.sample_prompts
    ]
    by_question: dict[str, Prompt] = {}
    for number in order:
        if len(by_question) + len(sample_prompts) + NEUTRAL >= count:
            break
        if prompt := prompt_from_row(
            rows[number], "kept_apart" if len(held_out) else "trained", max_characters=MAX_CHARACTERS
        ):
            by_question.setdefault(prompt.question, prompt)
    is_chinese = any("\u4e00" <= sign <= "\u9fff" for prompt in by_question.values() for sign in prompt.question)
    return [*by_question.values(), *sample_prompts, *neutral("zh" if is_chinese else "en")[:NEUTRAL]][:count]


def neutral(language: str) -> list[Prompt]:
    """Return questions unrelated to any dataset as prompts; in English if there are none in language."""
    by_language = neutral_prompts().prompts
    return [
        Prompt(turns=({"role": "user", "content": question},), source="neutral")
        for question in by_language.get(language, by_language["en"])
    ]


def own_prompts(lines: str) -> list[Prompt]:
    """Return the lines of a text that are not empty as prompts, one question a line."""
    return [
        Prompt(turns=({"role": "user", "content": line.strip()},), source="own")
        for line in lines.splitlines()
        if line.strip()
    ]


def prompt_from_row(example: Example, source: Source, max_characters: int | None = None) -> Prompt | None:
    """Return the turns of a row before its first answer as a prompt, with that answer as the expected one. None for
    plain text, a row with tools, one marked as bad, one without a question before an answer, and one with more than
    max_characters before it."""
    if example.text is not None or example.tools or example.is_bad:
        return None
    turns = conversation(example)
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), 0)
    turns_before = turns[:first]
    length = sum(len(turn["content"]) for turn in turns_before)
    if (
        not turns_before
        or turns_before[-1]["role"] != "user"
        or not turns_before[-1]["content"].strip()
        or (max_characters is not None and length > max_characters)
    ):
        return None
    prompt_turns = tuple({"role": turn["role"], "content": turn["content"]} for turn in turns_before)
    return Prompt(turns=prompt_turns, source=source, expected=turns[first]["content"] or None)


def record_of(prompt: Prompt) -> JsonObject:
    """Return a prompt as prompt_from_value reads it, without source and examples."""
    record: JsonObject = {"prompt": prompt.question} if len(prompt.turns) == 1 else {"messages": prompt.turns}
    expected = {} if prompt.expected is None else {"expected": prompt.expected}
    judge = {"judge": prompt.judge.model_dump(mode="json")} if prompt.judge else {}
    return record | expected | ({"tags": prompt.tags} if prompt.tags else {}) | judge


def prompts_of_file(path: Path) -> list[Prompt]:
    """Return the prompts in a file. Raises ChatError with the line number.

    .txt: one prompt a line; .jsonl or .json: strings, or objects with `prompt` (or `question`, `instruction`), or
    `messages` up to the question, and optionally `expected` (or `answer`, `output`), `tags` and `judge`.
    """
    return [prompt_from_value(value, path.name, number) for number, value in values_of_file(path)]


def values_of_file(path: Path) -> list[tuple[int, object]]:
    """Return the values of a file of prompts, each with its line (in a .json file: its place). Raises ChatError for a
    file that is too large, unreadable, or not UTF-8 or JSON."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise ChatError("compare.too_large", file=path.name, found=size, most=MAX_BYTES)
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ChatError("compare.not_utf8", file=path.name) from None
    except OSError as error:
        raise ChatError("compare.cannot_read", file=path.name, reason=error.strerror or str(error)) from error
    # Not splitlines: U+2028 may stand in a text.
    numbered = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if path.suffix.lower() == ".txt":
        return [*numbered]
    if path.suffix.lower() != ".json":
        return [(number, _json_of(line, path.name, number)) for number, line in numbered]
    values = _json_of(text, path.name, 1)
    if not isinstance(values, list):
        raise ChatError("compare.no_list", file=path.name)
    return list(enumerate(values, 1))


def _json_of(text: str, file: str, number: int) -> object:
    """Parse text as JSON. Raises ChatError that names file and number."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ChatError("compare.no_json", file=file, number=number, reason=str(error)[:100]) from None


def prompt_from_value(value: object, file: str, number: int) -> Prompt:
    """Return the prompt in one value of a file of prompts, in a form of `prompts_of_file`. Raises ChatError, with file
    and number, without a question, or for a bad judge."""
    record = {"prompt": value} if isinstance(value, str) else value if isinstance(value, dict) else {}
    question = next(
        (record[name] for name in ("prompt", "question", "instruction") if isinstance(record.get(name), str)), ""
    )
    expected = next(
        (record[name] for name in ("expected", "answer", "output") if isinstance(record.get(name), str)), None
    )
    turns: Any = [{"role": "user", "content": question}] if question.strip() else record.get("messages") or [{}]
    is_valid = isinstance(turns, list) and all(map(_is_turn, turns)) and turns[-1]["role"] == "user"
    if not is_valid or not turns[-1]["content"].strip():
        raise ChatError("compare.no_prompt", file=file, number=number)
    tags, judge = record.get("tags"), record.get("judge")
    return Prompt(
        turns=tuple({"role": turn["role"], "content": turn["content"]} for turn in turns),
        expected=expected,
        tags=tuple(str(tag)[:MAX_TAG] for tag in tags) if isinstance(tags, list) else (),
        judge=None if judge is None else judge_from_value(judge, file, number),
    )


def judge_from_value(value: object, file: str, number: int) -> JudgeSpec:
    """Return the judge's spec in a value of a file. Raises ChatError, naming the wrong field."""
    try:
        return JUDGE_SPEC.validate_python(value)
    except ValidationError as error:
        detail = error.errors()[0]
        reason = ": ".join(filter(None, (".".join(map(str, detail["loc"])), detail["msg"])))
        raise ChatError("compare.bad_judge", file=file, number=number, reason=reason[:200]) from None


def _is_turn(value: object) -> bool:
    """Return whether value is a turn with a known role and a text."""
    roles = ("system", "user", "assistant")
    return isinstance(value, dict) and value.get("role") in roles and isinstance(value.get("content"), str)
