"""Test sets: questions with the answers that are expected, as files of the workspace. No torch.

<workspace>/evaluation/sets/<name>.jsonl: its first line is {"test_set": title, "judge": spec or null}, each other line
a prompt as core/chat/prompts reads it, with `source` and `tags`. The file is replaced as a whole; results keep the
fingerprint of the set that they used. The file is also what is exported: every file of prompts can be imported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

from pydantic import Field

from core import files
from core.chat.prompts import Prompt, Source, judge_from_value, prompt_from_value, record_of, values_of_file
from core.data.sets.heldout import HeldOut, load_heldout
from core.errors import ChatError
from core.files import JsonObject
from core.judges.specs import ContainsJudge, JudgeSpec, RegexJudge
from core.presets import PRESETS
from core.values import Frozen
from core.workspace import names
from core.workspace.folder import Workspace

FOLDER = "evaluation/sets"
MAX_ROWS = 1000


class TestSet(Frozen):
    """Questions with their expected answers. judge: of the questions without one of their own; None for one proposed
    from the answers."""

    __test__ = False  # to pytest a class of this name is a test

    title: str = Field(min_length=1)
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MAX_ROWS)
    judge: JudgeSpec | None = None

    @property
    def name(self) -> str:
        """The name of its file, without suffix: two titles that differ in more than ASCII letters have two names."""
        plain = names.slug(self.title, "set")
        return plain if self.title == plain else f"{plain}-{hashlib.sha256(self.title.encode()).hexdigest()[:6]}"

    @property
    def fingerprint(self) -> str:
        """16 digits that change with a question, an expected answer or a judge."""
        content = self.model_dump_json(include={"judge": True, "prompts": {"__all__": {"turns", "expected", "judge"}}})
        return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def create(title: str, prompts: Sequence[Prompt], judge: JudgeSpec | None = None) -> TestSet:
    """Make a set; a question that occurs twice is in it once, as it occurs last.

    Raises ChatError without a title, without questions or with too many.
    """
    title = names.display_name(title)
    newest = {json.dumps(prompt.turns): prompt for prompt in prompts}
    if not title:
        raise ChatError("evaluation.no_title")
    if not newest:
        raise ChatError("evaluation.no_questions", title=title)
    if len(newest) > MAX_ROWS:
        raise ChatError("evaluation.too_many", found=len(newest), most=MAX_ROWS)
    return TestSet(title=title, prompts=tuple(newest.values()), judge=judge)


def import_file(path: Path) -> TestSet:
    """Read a set that was exported, or any file of prompts. Raises ChatError with one sentence and its line."""
    values = values_of_file(path)
    first = values[0][1] if values else None
    header: JsonObject = first if isinstance(first, dict) and "test_set" in first else {}
    values = values[1:] if header else values
    prompts = [_prompt(value, path.name, number) for number, value in values]
    judge = None if header.get("judge") is None else judge_from_value(header["judge"], path.name, 1)
    return create(str(header.get("test_set") or path.stem), prompts, judge)


def of_sample(dataset: str) -> TestSet | None:
    """The questions that come with a sample dataset, sample:<name>; None for another dataset, or one without."""
    file = PRESETS / "samples" / f"{dataset.removeprefix('sample:')}.heldout.yaml"
    if not dataset.startswith("sample:") or not file.is_file():
        return None
    return create(dataset, [_of_check(one) for one in load_heldout(file)])


def _of_check(one: HeldOut) -> Prompt:
    """A question of a sample dataset with its check as a judge. Raises ValueError for a check that no judge has."""
    check, turns = one.check, ({"role": "user", "content": one.prompt},)
    if check.equals is not None:
        return Prompt(turns=turns, source="kept_apart", expected=check.equals)
    if check.regex is not None:
        return Prompt(
            turns=turns,
            source="kept_apart",
            judge=RegexJudge(pattern=check.regex, case_sensitive=check.case_sensitive),
        )
    if not (check.contains_any or check.contains_all):
        raise ValueError(f"{one.prompt}: expected equals, regex, contains_any or contains_all")
    judge = ContainsJudge(any_of=check.contains_any, all_of=check.contains_all, none_of=check.not_contains)
    return Prompt(turns=turns, source="kept_apart", expected=(check.contains_any or check.contains_all)[0], judge=judge)


def lines(test_set: TestSet) -> Iterator[str]:
    """The lines of a set's file."""
    for record in (
        {"test_set": test_set.title, "judge": test_set.judge and test_set.judge.model_dump(mode="json")},
        *(record_of(prompt) | {"source": prompt.source} for prompt in test_set.prompts),
    ):
        yield json.dumps(record, ensure_ascii=False) + "\n"


def save(workspace: Workspace, test_set: TestSet) -> Path:
    """Write a set to the workspace, in place of one with its title. Raises RunError if the disk refuses."""
    folder = workspace.root / FOLDER
    with files.writing(workspace.root):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{test_set.name}.jsonl"
        files.replace(path, "".join(lines(test_set)).encode("utf-8", "replace"))
    return path


def open_set(workspace: Workspace, name: str) -> TestSet:
    """The set with this name or title. Raises ChatError if there is none, or its file cannot be read."""
    path = workspace.root / FOLDER / f"{name}.jsonl"
    if re.fullmatch(r"[\w-]{1,80}", name) and path.is_file():
        return import_file(path)
    titled = next((one for one in all_sets(workspace) if one.title == name), None)
    if titled is None:
        known = ", ".join(one.name for one in all_sets(workspace)) or "-"
        raise ChatError("evaluation.unknown_set", name=name[:80], known=known[:300])
    return titled


def all_sets(workspace: Workspace) -> Iterator[TestSet]:
    """All sets of a workspace by name; files that cannot be read are skipped."""
    for path in sorted((workspace.root / FOLDER).glob("*.jsonl")):
        with suppress(ChatError):
            yield import_file(path)


def _prompt(value: object, file: str, number: int) -> Prompt:
    """A row of a file, with the source that it names."""
    source = value.get("source") if isinstance(value, dict) else None
    prompt = prompt_from_value(value, file, number)
    return prompt.model_copy(update={"source": source}) if source in get_args(Source) else prompt
