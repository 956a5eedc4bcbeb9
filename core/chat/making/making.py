"""A making: the passages of some documents, and the rows that a model wrote from each. No torch.

<workspace>/making/<id>/: order.json and passages.jsonl, written once; written.jsonl, a line for each finished passage
with its rows and what was dropped; marks.jsonl, what a person decided on a row, the newest line counts. A crash loses
the passage that was being written, and nothing is written twice.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from core import files
from core.chat.making.drafts import Draft
from core.chat.making.passage_rows import messages, write_passage
from core.chat.making.passages import Passage
from core.chat.making.rows import SHOWN, Dropped, MadeRow, MakingOrder, Result, dropped
from core.chat.making.writers import RowWriter
from core.data.findings.near import Near
from core.data.findings.row_words import RowWords
from core.data.sets import working
from core.data.sets.info import DatasetInfo, Origin
from core.data.store import DatasetStore
from core.errors import ChatError, DataError
from core.files import JsonObject
from core.values import Frozen
from core.workspace import names
from core.workspace.folder import Workspace

FOLDER = "making"
ORDER, PASSAGES, WRITTEN, MARKS = "order.json", "passages.jsonl", "written.jsonl", "marks.jsonl"
Decision = Literal["accept", "reject", "more", "never"]


class Mark(Frozen):
    """A person's decision on a row. draft: the row as edited."""

    row: str
    decision: Decision
    draft: Draft | None = None


class Making:
    """The passages of some documents, and the rows that a model wrote from them, in a folder."""

    def __init__(self, path: Path, order: MakingOrder):
        """Store the folder and the order."""
        self.path, self.order = path, order

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def created(self) -> float:
        """Return the time at which the order was written, in seconds since 1970."""
        return (self.path / ORDER).stat().st_mtime

    @classmethod
    def prepare(cls, workspace: Workspace, order: MakingOrder, passages: Sequence[Passage]) -> Making:
        """Open the making with these passages and this order, whatever its title, or create its folder. Raises
        ChatError without a passage."""
        if not passages:
            raise ChatError("making.no_passages", title=order.title)
        for making in cls.all_of(workspace):
            if making.order.is_same(order) and making.passages() == list(passages):
                return cls(making.path, order)
        root = workspace.root / FOLDER
        root.mkdir(parents=True, exist_ok=True)
        target = root / f"{names.slug(order.title, 'rows')}-{names.short_id()}"
        with files.folder_aside(target) as folder:
            folder.mkdir()
            lines = (passage.model_dump_json() + "\n" for passage in passages)
            (folder / PASSAGES).write_text("".join(lines), "utf-8", newline="\n")
            files.replace_json(folder / ORDER, order.model_dump(mode="json"))
        return cls(target, order)

    @classmethod
    def open(cls, workspace: Workspace, id: str) -> Making:
        """Open a making. Raises ChatError if there is none of this id, or it cannot be read."""
        folder = workspace.root / FOLDER / id
        order = files.read_model(MakingOrder, folder / ORDER) if re.fullmatch(r"[\w-]{1,120}", id) else None
        if order is None:
            raise ChatError("making.unknown", id=id[:100])
        return cls(folder, order)

    @classmethod
    def all_of(cls, workspace: Workspace) -> Iterator[Making]:
        """All makings of a workspace; folders that cannot be read are skipped."""
        for folder in sorted((workspace.root / FOLDER).glob("*")):
            with suppress(ChatError):
                yield cls.open(workspace, folder.name)

    def passages(self) -> list[Passage]:
        """Return all passages, also those without rows."""
        return [Passage.model_validate(record) for record in files.read_lines(self.path / PASSAGES, 0).records]

    def results(self) -> dict[int, Result]:
        """Return what came of the finished passages, by their numbers, the first line of each; damaged lines are
        skipped."""
        results = dict[int, Result]()
        for record in files.read_lines(self.path / WRITTEN, 0).records:
            with suppress(ValidationError):
                result = Result.model_validate(record)
                results.setdefault(result.passage, result)
        return results

    def marks(self) -> dict[str, Mark]:
        """Return a person's newest decision on each row, by the row's id, the last decided last; unreadable ones are
        skipped."""
        marks = dict[str, Mark]()
        for record in files.read_lines(self.path / MARKS, 0).records:
            with suppress(ValidationError):
                mark = Mark.model_validate(record)
                marks.pop(mark.row, None)
                marks[mark.row] = mark
        return marks

    def mark(self, mark: Mark) -> None:
        """Keep a decision. Raises RunError if the disk refuses."""
        with files.writing(self.path):
            files.append_line(self.path / MARKS, mark.model_dump(mode="json"))

    def write(
        self, writer: RowWriter, stopped: Callable[[], bool] = lambda: False, first: int | None = None
    ) -> Iterator[Result]:
        """Write the rows of each missing passage and yield what came of it, saved at once. first: only of so many
        passages from the beginning. Raises ChatError if the writer cannot be used, or stopped."""
        done = self.results()
        for passage in self.passages()[:first]:
            if passage.number in done:
                continue
            if stopped():
                raise ChatError("compare.stopped")
            result = write_passage(self.order, passage, writer, *self._guidance())
            if stopped():
                raise ChatError("compare.stopped")
            with files.writing(self.path):
                files.append_line(self.path / WRITTEN, result.model_dump(mode="json"))
            yield result

    def _guidance(self) -> tuple[list[tuple[str, str]], list[str]]:
        """Return rows (question, answer) to follow and questions to avoid in what is written next, the newest SHOWN of
        each: the order's examples and the rows that a person marked "more", and those marked "never", in this making or
        an earlier one of the same documents."""
        to_follow, to_avoid = list(self.order.examples), list[str]()
        for making in [*self._earlier(), self]:
            rows = {row.id: row for row in making._all_rows()}
            for mark in making.marks().values():
                if (row := rows.get(mark.row)) and mark.decision in ("more", "never"):
                    step = (mark.draft or row.draft).steps[0]
                    if mark.decision == "more":
                        to_follow.append((step.question, step.answer))
                    else:
                        to_avoid.append(step.question)
        return to_follow[-SHOWN:], to_avoid[-SHOWN:]

    def _earlier(self) -> list[Making]:
        """Return the makings of the same documents that began before this one and have marks, the oldest first."""
        ids = dict(self.order.documents).keys()
        folders = [folder for folder in self.path.parent.glob("*") if (folder / MARKS).exists() and folder != self.path]
        orders = ((folder, files.read_model(MakingOrder, folder / ORDER)) for folder in folders)
        makings = [Making(folder, order) for folder, order in orders if order and dict(order.documents).keys() == ids]
        return sorted((one for one in makings if one.created <= self.created), key=lambda one: one.created)

    def _all_rows(self) -> Iterator[MadeRow]:
        """Return the rows of the finished passages, in their order."""
        results = self.results()
        return (row for number in sorted(results) for row in results[number].rows)

    def rows(self) -> tuple[list[MadeRow], list[Dropped]]:
        """Return the rows, as edited, without those that a person rejected or marked "never"; and those that repeat an
        earlier row, as dropped."""
        marks, kept, near = self.marks(), list[MadeRow](), Near()
        for row in self._all_rows():
            mark = marks.get(row.id)
            if mark is None or mark.decision in ("accept", "more"):
                kept.append(row.model_copy(update={"draft": mark.draft}) if mark and mark.draft else row)
        for place, row in enumerate(kept):
            near.add(RowWords(place, working.example_of({"messages": messages(row.draft.steps)})))
        repeats = {later for later, _, _ in near.pairs()}
        again = [dropped(kept[place].draft, kept[place].passage, "repeat") for place in sorted(repeats)]
        return [row for place, row in enumerate(kept) if place not in repeats], again

    def values(self, with_source: bool = True) -> Iterator[JsonObject]:
        """Yield the dataset's rows: one for each wording, with its split (if some passages are for validation) and, if
        wanted, its source."""
        passages = {passage.number: passage for passage in self.passages()}
        has_split = any(passage.validation for passage in passages.values())
        for row in self.rows()[0]:
            passage, (first, *others) = passages[row.passage], row.draft.steps
            source = {
                "file": passage.file, "headings": list(passage.headings), "rows": list(passage.rows),
                "characters": [passage.start, passage.end], "quote": [step.quote for step in row.draft.steps],
                **({"pages": passage.pages_of(row.spans)} if passage.pages else {}),
                "writer": self.order.writer, "known": row.known, "id": row.id,
            }  # fmt: skip
            split = {"split": "validation" if passage.validation else "train"} if has_split else {}
            for question in (first.question, *row.draft.wordings):
                steps = [first.model_copy(update={"question": question}), *others]
                yield {"messages": messages(steps), **split, **({"source": source} if with_source else {})}

    def dataset(self, workspace: Workspace, store: DatasetStore) -> DatasetInfo:
        """Add the rows so far to the workspace as a new dataset and return it. Raises DataError without a row, or if
        the disk refuses."""
        values = list(self.values())
        if not values:
            raise DataError("making.no_rows", title=self.order.title)
        folder = workspace.cache / "sets"
        file = folder / f"made-{names.short_id()}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_text(
                "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values),
                "utf-8",
                "replace",
                newline="\n",
            )
            return store.import_file(file, self.order.title, origin=Origin(made=self.id, made_by=self.order.writer))
        except OSError as error:
            raise DataError("data.cannot_store", name=self.order.title, reason=error.strerror or str(error)) from error
        finally:
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
