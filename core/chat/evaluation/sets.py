"""Test sets: questions with the answers that are expected, as files of the workspace. No torch.

<workspace>/evaluation/sets/<name>.jsonl: its first line is {"test_set": title, "judge": spec or null, "version": n,
"base": model}, each other line a prompt as core/chat/prompts reads it, with `source` and `tags`. The file is replaced
as a whole, under the folder's lock; results keep the fingerprint of the set that they used. The file is also what is
exported: every file of prompts can be imported.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import get_args

from filelock import FileLock, Timeout
from pydantic import Field

from core import files
from core.chat.evaluation import votes
from core.chat.prompts import Prompt, Source, judge_from_value, prompt_from_value, record_of, values_of_file
from core.data.sets.heldout import load_heldout
from core.errors import ChatError
from core.files import JsonObject
from core.judges.propose import propose
from core.judges.specs import JudgeSpec, PersonJudge
from core.presets import PRESETS
from core.values import Frozen
from core.workspace import names
from core.workspace.folder import Workspace

FOLDER = "evaluation/sets"
MAX_ROWS = 1000
LOCK_S = 5.0


class TestSet(Frozen):
    """Questions with their expected answers. judge: of the questions without one of their own; None for one proposed
    from the answers. version: raised by `save` when the fingerprint changed. base: the model whose finished runs get
    these questions; "" for none."""

    __test__ = False  # to pytest a class of this name is a test

    title: str = Field(min_length=1)
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MAX_ROWS)
    judge: JudgeSpec | None = None
    version: int = Field(1, ge=1)
    base: str = ""

    @property
    def name(self) -> str:
        """The name of its file, without suffix: the title if that is a safe file name, else a readable form of it with
        six digits of its hash, so that different titles have different files."""
        plain = names.slug(self.title, "set")
        return plain if self.title == plain else f"{plain}-{hashlib.sha256(self.title.encode()).hexdigest()[:6]}"

    @property
    def fingerprint(self) -> str:
        """16 digits that change with a question, an expected answer or a judge."""
        content = self.model_dump_json(include={"judge": True, "prompts": {"__all__": {"turns", "expected", "judge"}}})
        return hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:16]


def create(title: str, prompts: Sequence[Prompt], judge: JudgeSpec | None = None, base: str = "") -> TestSet:
    """Return a new set, not saved yet; a question that occurs twice is in it once, as it occurs last. Raises ChatError
    without a title, without questions or with more than MAX_ROWS."""
    title = names.display_name(title)
    newest = {json.dumps(prompt.turns): prompt for prompt in prompts}
    if not title:
        raise ChatError("evaluation.no_title")
    if not newest:
        raise ChatError("evaluation.no_questions", title=title)
    if len(newest) > MAX_ROWS:
        raise ChatError("evaluation.too_many", found=len(newest), most=MAX_ROWS)
    return TestSet(title=title, prompts=tuple(newest.values()), judge=judge, base=base)


def read_file(path: Path) -> TestSet:
    """Read a set that was exported, or any file of prompts, titled by its name, and return it without saving it. Raises
    ChatError with one sentence and its line."""
    values = values_of_file(path)
    first = values[0][1] if values else None
    header: JsonObject = first if isinstance(first, dict) and "test_set" in first else {}
    values = values[1:] if header else values
    prompts = [_prompt(value, path.name, number) for number, value in values]
    judge = None if header.get("judge") is None else judge_from_value(header["judge"], path.name, 1)
    made = create(str(header.get("test_set") or path.stem), prompts, judge, str(header.get("base") or ""))
    version = header.get("version")
    return made.model_copy(update={"version": version if type(version) is int and version > 0 else 1})


def of_sample(dataset: str) -> TestSet | None:
    """Return the questions that come with a sample dataset, sample:<name>; None for another dataset, or one without."""
    file = PRESETS / "samples" / f"{dataset.removeprefix('sample:')}.heldout.yaml"
    if not dataset.startswith("sample:") or not file.is_file():
        return None
    return create(dataset, [
        Prompt(turns=({"role": "user", "content": one.prompt},), source="kept_apart", expected=one.expected or None,
            judge=one.judge)
        for one in load_heldout(file)
    ])  # fmt: skip


def lines(test_set: TestSet) -> Iterator[str]:
    """Yield the lines of a set's file: its title, judge, version and base, then the questions."""
    for record in (
        {
            "test_set": test_set.title,
            "judge": test_set.judge and test_set.judge.model_dump(mode="json"),
            "version": test_set.version,
            "base": test_set.base,
        },
        *(record_of(prompt) | {"source": prompt.source} for prompt in test_set.prompts),
    ):
        yield json.dumps(record, ensure_ascii=False) + "\n"


def save(workspace: Workspace, test_set: TestSet) -> TestSet:
    """Write a set to the workspace, in place of one with its title, whose next version it becomes if a question, an
    expected answer or a judge differs. Raises RunError if the disk refuses, ChatError as `_write`."""
    with _changing(workspace):
        return _write(workspace, test_set)


def add_failure(
    workspace: Workspace,
    base: str,
    turns: Sequence[JsonObject],
    answer: str = "",
    expected: str = "",
    judge: JudgeSpec | None = None,
    tags: Sequence[str] = (),
) -> TestSet:
    """Keep a question that a model answered badly as a test of its base, and return the set of that base's failures,
    which is created if there is none.

    turns: up to the question. answer: the bad one, for which also a person's vote "wrong" is written. expected: a
    correct one, if the person wrote it. Without it and without a judge, a person judges the answers to come; but a
    question that the set has already then keeps its judge and expected answer, and gets the new tags. Raises ChatError
    without a question, or if the set is full.
    """
    value: JsonObject = {"messages": list(turns), "tags": list(tags)} | (
        {"expected": expected} if expected.strip() else {}
    )
    prompt = prompt_from_value(value, "-", 1)
    if answer.strip():
        votes.vote(workspace, prompt.turns, answer, "wrong")
    there = {one.title: one for one in all_sets(workspace)}
    title = f"failures-{names.slug(base.rpartition('/')[2], 'model')}"
    if title in there and there[title].base != base:  # of a model of that name by somebody else
        title += f"-{hashlib.sha256(base.encode()).hexdigest()[:6]}"
    kept = next((one for one in there[title].prompts if one.turns == prompt.turns), None) if title in there else None
    if judge is None and not expected.strip() and kept is not None:  # an answer that was expected before still is
        tagged = tuple(dict.fromkeys([*kept.tags, *prompt.tags]))
        return add(workspace, title, [kept.model_copy(update={"tags": tagged})], base)
    if judge is None:
        judge = propose([expected]) if expected.strip() else PersonJudge()
    return add(workspace, title, [prompt.model_copy(update={"judge": judge, "source": "failure"})], base)


def add(workspace: Workspace, title: str, prompts: Sequence[Prompt], base: str = "") -> TestSet:
    """Add questions to the set with this title, or create it, and return it; one that it has already is replaced. base:
    the set's model, if it has none yet. Raises ChatError."""
    with _changing(workspace):
        there = next((one for one in all_sets(workspace) if one.title == title), None)
        if there is None:
            return _write(workspace, create(title, prompts, base=base))
        return _write(workspace, create(title, [*there.prompts, *prompts], there.judge, base or there.base))


def give_base(workspace: Workspace, name: str, base: str) -> None:
    """Write base into a test set as its model, whose later runs are tested on it; a set that has a model already stays
    as it is. Raises ChatError for an unknown set."""
    if not open_set(workspace, name).base:
        with _changing(workspace):
            _write(workspace, open_set(workspace, name).model_copy(update={"base": base}))


def remove_questions(workspace: Workspace, name: str, places: Collection[int]) -> TestSet | None:
    """Take the questions at these places, from 0, out of a set and return it; without a question left the set is
    deleted (None). Raises ChatError for an unknown set."""
    with _changing(workspace):
        test_set = open_set(workspace, name)
        kept = tuple(prompt for place, prompt in enumerate(test_set.prompts) if place not in places)
        if kept:
            return _write(workspace, test_set.model_copy(update={"prompts": kept}))
        _file(workspace, test_set).unlink(missing_ok=True)
        return None


def remove(workspace: Workspace, name: str) -> None:
    """Delete a set; results that used it keep its questions. Raises ChatError for an unknown set."""
    with _changing(workspace):
        _file(workspace, open_set(workspace, name)).unlink(missing_ok=True)


def _file(workspace: Workspace, test_set: TestSet) -> Path:
    """Return the path of a set's file."""
    return workspace.root / FOLDER / f"{test_set.name}.jsonl"


@contextmanager
def _changing(workspace: Workspace) -> Iterator[None]:
    """Context manager: the lock of the sets, so that two failures at once are both kept. Raises ChatError if it is held
    for LOCK_S, RunError if the disk refuses."""
    folder = workspace.root / FOLDER
    with files.writing(workspace.root):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / ".lock", timeout=LOCK_S):
                yield
        except Timeout:
            raise ChatError("evaluation.sets_busy") from None


def _write(workspace: Workspace, test_set: TestSet) -> TestSet:
    """Write a set to its file and return it; the caller holds the lock. Its version becomes one more than that of the
    file if a question, an expected answer or a judge differs, and stays if it is larger already. Raises ChatError for a
    damaged file, which stays."""
    path = _file(workspace, test_set)
    if path.exists():  # one that cannot be read, damaged or edited by hand, stays as it is
        before = read_file(path)
        version = before.version + (before.fingerprint != test_set.fingerprint)
        test_set = test_set.model_copy(update={"version": max(version, test_set.version)})
    files.replace(path, "".join(lines(test_set)).encode("utf-8", "replace"))
    return test_set


def open_set(workspace: Workspace, name: str) -> TestSet:
    """Return the set with this name or title. Raises ChatError if there is none, or its file cannot be read."""
    path = workspace.root / FOLDER / f"{name}.jsonl"
    if re.fullmatch(r"[\w-]{1,80}", name) and path.is_file():
        return read_file(path)
    titled = next((one for one in all_sets(workspace) if one.title == name), None)
    if titled is None:
        known = ", ".join(one.name for one in all_sets(workspace)) or "-"
        raise ChatError("evaluation.unknown_set", name=name[:80], known=known[:300])
    return titled


def all_sets(workspace: Workspace) -> Iterator[TestSet]:
    """All sets of a workspace by name; files that cannot be read are skipped."""
    for path in sorted((workspace.root / FOLDER).glob("*.jsonl")):
        with suppress(ChatError):
            yield read_file(path)


def _prompt(value: object, file: str, number: int) -> Prompt:
    """Return the prompt in a value of a set's file, with the source that it names. Raises ChatError as
    `prompt_from_value`."""
    source = value.get("source") if isinstance(value, dict) else None
    prompt = prompt_from_value(value, file, number)
    return prompt.model_copy(update={"source": source}) if source in get_args(Source) else prompt
