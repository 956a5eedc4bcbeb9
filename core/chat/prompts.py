"""The prompts of a comparison: from a run's data, or from a file. No torch."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from core.data.formats import Example
from core.data.reading.choices import Choices
from core.data.row_order import mixed
from core.data.store import DatasetStore
from core.data.tokenizer import conversation
from core.data.validation_split import validation_rows
from core.errors import ChatError
from core.runs.folder import RunFolder
from core.runs.scenes import neutral_prompts
from core.values import Frozen

MOST_CHARACTERS = 2000  # of a question from the data, that a person is to read twice
MOST_BYTES = 16 << 20  # of a file: a thousand prompts of four pages each
NEUTRAL = 2  # questions that no data set is about, at the end
Source = Literal["kept_apart", "trained", "own", "neutral", "file"]


class Prompt(Frozen):
    """turns: up to the question. expected: what the data, or a file, says."""

    turns: tuple[dict[str, Any], ...] = Field(min_length=1)
    source: Source = "file"
    expected: str | None = None

    @property
    def asked(self) -> str:
        return str(self.turns[-1].get("content", ""))


def prompts_of(run: RunFolder, store: DatasetStore, count: int) -> list[Prompt]:
    """Questions of rows that the run kept apart (of trained ones where it kept none), the person's own, and neutral
    ones: count at most. The same for the same run. Raises DataError where its set is gone."""
    recipe, facts = run.recipe(), run.facts()
    rows = store.rows(recipe.data.source, recipe.data.format, Choices.from_data(recipe.data)).examples
    apart = validation_rows(rows, recipe) if facts.rows_measured else ()
    order = mixed(apart if len(apart) else range(len(rows)), random.Random(f"{recipe.train.seed}/comparison"))
    own = [Prompt(turns=({"role": "user", "content": asked},), source="own") for asked in recipe.train.sample_prompts]
    found: dict[str, Prompt] = {}
    for number in order:
        if len(found) + len(own) + NEUTRAL >= count:
            break
        if prompt := _of_row(rows[number], "kept_apart" if len(apart) else "trained"):
            found.setdefault(prompt.asked, prompt)
    is_chinese = any("\u4e00" <= sign <= "\u9fff" for prompt in found.values() for sign in prompt.asked)
    return [*found.values(), *own, *neutral("zh" if is_chinese else "en")[:NEUTRAL]][:count]


def neutral(language: str) -> list[Prompt]:
    """What no data set is about; in English where nobody has written any in language."""
    told = neutral_prompts().prompts
    return [
        Prompt(turns=({"role": "user", "content": asked},), source="neutral")
        for asked in told.get(language, told["en"])
    ]


def own_prompts(lines: str) -> list[Prompt]:
    """A question a line."""
    return [
        Prompt(turns=({"role": "user", "content": line.strip()},), source="own")
        for line in lines.splitlines()
        if line.strip()
    ]


def _of_row(example: Example, source: Literal["kept_apart", "trained"]) -> Prompt | None:
    """A row up to its first answer; None for plain text, tools, a bad answer, and what nobody would read."""
    if example.text is not None or example.tools or example.is_bad:
        return None
    turns = conversation(example)
    first = next((place for place, turn in enumerate(turns) if turn["role"] == "assistant"), 0)
    asked = turns[:first]
    length = sum(len(turn["content"]) for turn in asked)
    if not asked or asked[-1]["role"] != "user" or not asked[-1]["content"].strip() or length > MOST_CHARACTERS:
        return None
    said = tuple({"role": turn["role"], "content": turn["content"]} for turn in asked)
    return Prompt(turns=said, source=source, expected=turns[first]["content"] or None)


def lines(prompts: Iterable[Prompt]) -> Iterator[str]:
    """As a .jsonl file has them: prompts_of_file reads the same."""
    for one in prompts:
        asked = {"prompt": one.asked} if len(one.turns) == 1 else {"messages": one.turns}
        yield (
            json.dumps(asked | ({} if one.expected is None else {"expected": one.expected}), ensure_ascii=False) + "\n"
        )


def prompts_of_file(path: Path) -> list[Prompt]:
    """.txt: a prompt a line; .jsonl or .json: text, or objects with `prompt` (or `question`, `instruction`), or
    `messages` up to the question, and, where they like, `expected` (or `answer`, `output`). Raises ChatError naming the
    line."""
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ChatError("compare.too_large", file=path.name, found=size, most=MOST_BYTES)
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise ChatError("compare.not_utf8", file=path.name) from None
    except OSError as error:
        raise ChatError("compare.cannot_read", file=path.name, reason=error.strerror or str(error)) from error
    if path.suffix.lower() == ".txt":
        values: list[Any] = [line for line in text.splitlines() if line.strip()]
    else:
        try:
            whole = path.suffix.lower() == ".json"
            # Not splitlines: U+2028 may stand in a text.
            values = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
        except (ValueError, RecursionError) as error:
            raise ChatError("compare.no_json", file=path.name, reason=str(error)[:100]) from None
    if not isinstance(values, list):
        raise ChatError("compare.no_list", file=path.name)
    return [_of_value(value, path.name, number) for number, value in enumerate(values, 1)]


def _of_value(value: Any, file: str, number: int) -> Prompt:
    given = {"prompt": value} if isinstance(value, str) else value if isinstance(value, dict) else {}
    asked = next(
        (given[name] for name in ("prompt", "question", "instruction") if isinstance(given.get(name), str)), ""
    )
    expected = next(
        (given[name] for name in ("expected", "answer", "output") if isinstance(given.get(name), str)), None
    )
    turns: Any = [{"role": "user", "content": asked}] if asked.strip() else given.get("messages") or [{}]
    is_asked = isinstance(turns, list) and all(map(_is_turn, turns)) and turns[-1]["role"] == "user"
    if not is_asked or not turns[-1]["content"].strip():
        raise ChatError("compare.no_prompt", file=file, number=number)
    return Prompt(turns=tuple({"role": turn["role"], "content": turn["content"]} for turn in turns), expected=expected)


def _is_turn(value: Any) -> bool:
    roles = ("system", "user", "assistant")
    return isinstance(value, dict) and value.get("role") in roles and isinstance(value.get("content"), str)
