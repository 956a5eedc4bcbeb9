"""`inspect` as a function: the contents of a file, and what of it would be trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.api.datasets import dataset_store
from core.data.formats import Example, ReadRow
from core.data.labels import LongExamples
from core.data.preview import Preview
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.sniff import probe
from core.data.sets.inspection import DataReport, inspect_file, taken_as, undecided_error
from core.data.sets.stored_rows import InMemory, Rows, example_of
from core.data.sets.trained_text import trained_text
from core.data.shapes.known import COLUMNS
from core.data.shapes.roles import with_answer
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.errors import DataError, TemplateError
from core.files import JsonObject
from core.messages import msg
from core.models.library import Models
from core.recipe import Data
from core.workspace.folder import Workspace, expand

SHOWN = 3  # rows that JSON shows as they are learned
MAX_LENGTH: int = Data.model_fields["max_length"].default


@dataclass(frozen=True)
class DataInspection:
    """The contents of a data file. examples: the first rows. tokens: counts under a model's tokenizer, None without a
    model. texts: the first rows as they are trained, None if none were asked for."""

    path: Path
    report: DataReport
    choices: Choices
    examples: tuple[Example, ...]
    tokens: JsonObject | None
    texts: list[JsonObject] | None

    @property
    def refusal(self) -> DataError | None:
        """The error with which training on it would end; None if there is none."""
        if not self.report.good_rows:
            return self.report.refusal(self.path.name)
        return undecided_error(self.report) if self.report.undecided else None

    def as_json(self) -> JsonObject:
        """Return what `inspect --json` prints: the report, each column's role, the first examples, the open
        questions."""
        report = self.report
        chat = {"people": [], "conversations": None} if report.chat is None else report.chat.model_dump(mode="json")
        return {
            "file": str(self.path),
            **report.model_dump(mode="json"),
            "kind": _kind(report, self.examples),
            "file_kind": report.kind,
            "columns": {name: _role(report, name) for name in report.columns},
            "examples": [example.as_dict() for example in self.examples],
            "people": chat["people"],
            "conversations": chat["conversations"],
            "questions": [*_answer_question(report), *_header_question(report.header, self.choices)],
            **({} if self.texts is None else {"trained_text": self.texts}),
            **({"learned": self.tokens} if self.tokens else {}),
        }


def inspect(
    data: str | Path,
    *,
    model: str | None = None,
    choices: Choices = NO_CHOICES,
    answer: str = "",
    max_length: int = MAX_LENGTH,
    long_examples: LongExamples = "cut",
    rows: int = 0,
    workspace: str | Path | None = None,
) -> DataInspection:
    """Return what is in a data file, folder, zip or dataset of the workspace, and its problems row by row.

    model: also count tokens with its tokenizer; the model is downloaded if needed. choices: how to read the file.
    answer: the column that is the answer. rows: so many texts, with what of them is trained. Raises DataError for what
    cannot be read; `refusal` says why what was read could not be trained.
    """
    space = Workspace.open(workspace)
    path, choices = located(dataset_store(space), str(data), choices)
    if answer:
        inspection = inspect_file(path, choices=choices)
        choices = choices.model_copy(
            update={"columns": dict(with_answer(inspection.possible, answer, inspection.columns))}
        )
    kept: list[tuple[int, str]] = []
    apart: set[int] = set()  # of the first rows: the dataset's own validation rows
    stored = InMemory()

    def keep_row(read: ReadRow) -> None:
        """Keep the first good rows, note which are for validation, and store each row if it is to be tokenized."""
        if len(kept) < max(SHOWN, rows):
            kept.extend(read.good())
            apart.update((read.number,) if read.validation else ())
        if model is not None:
            stored.add(read)

    report = inspect_file(path, choices=choices, keep=keep_row)
    examples = [(number, example_of(text)) for number, text in kept]
    if model is not None and not examples:
        raise report.refusal(path.name)
    preview = preview_of(space, model, stored.rows()) if model is not None else None
    texts = [
        {"row": number, "validation": bool(report.validation) and number in apart, **trained_text(example)}
        | ({"rendered": _rendered(preview, index, max_length, long_examples)} if preview else {})
        for index, (number, example) in enumerate(examples[:rows])
    ]
    first = tuple(example for _, example in examples[:SHOWN])
    tokens = training_tokens(preview, max_length, long_examples) if preview else None
    return DataInspection(path, report, choices, first, tokens, texts if rows else None)


def open_questions(path: Path, choices: Choices, error: DataError) -> list[JsonObject]:
    """Return the questions that remain for a file whose columns are unknown, as error says."""
    text = error.message.model_dump(mode="json")
    question = {"id": "columns", "text": text, "columns": text["params"]["columns"]}
    return [question, *_header_question(probe(path, choices=choices).header, choices)]


def located(store: DatasetStore, data: str, choices: Choices) -> tuple[Path, Choices]:
    """Return the path of a file, a folder or a dataset, and the choices to read it with (a dataset's stored ones
    added). Raises DataError."""
    if not data.strip():
        raise DataError("data.no_name")
    path = expand(data)
    if not os.path.isfile(path) and (store.knows(data) or not _exists(path)):
        return store.path(data), store.choices(data, choices)
    return path, choices


def _exists(path: Path) -> bool:
    """Return True if something is there, also a pipe, a device or a file that may not be looked at."""
    try:
        return bool(os.lstat(path))
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def _kind(report: DataReport, examples: Sequence[Example]) -> str:
    """Return what the rows are: preference, chat, text or instruction. examples: the first ones."""
    if any(example.rejected for example in examples):
        return "preference"
    if report.chat is not None or report.format in ("messages", "sharegpt"):
        return "chat"
    return "text" if report.format == "text" else "instruction"


def _role(report: DataReport, column: str) -> dict[str, object]:
    """Return the role of a column, and whether it is guessed. The role is None if the format does not have the column,
    which is then left out or rewritten."""
    ours = (name for name, names in COLUMNS[report.format].items() if column.lower() in names)
    return {"role": report.roles.get(column) or next(ours, None), "guessed": report.guessed and column in report.roles}


def _answer_question(report: DataReport) -> list[JsonObject]:
    """Return [the question which column is the answer, with the readings to choose from] if only contents or nothing
    decide it, else []."""
    if not report.readings:
        return []
    text = (
        undecided_error(report).message if report.undecided else msg("data.note_guessed", taken=taken_as(report.roles))
    )
    return [{"id": "answer", "text": text.model_dump(mode="json"), "readings": [dict(one) for one in report.readings]}]


def _header_question(header: bool | None, choices: Choices) -> list[JsonObject]:
    """Return [the question whether a table's first row holds the column names]; [] if `choices` already answer it, or
    for a file that is no table. header: the present assumption, which the question carries as `taken`; None for other
    files."""
    if header is None or choices.header is not None:
        return []
    text = msg("data.note_header_unsaid" if header else "data.note_no_header")
    return [{"id": "header", "text": text.model_dump(mode="json"), "taken": "yes" if header else "no"}]


def preview_of(space: Workspace, model: str, rows: Rows) -> Preview:
    """Return the preview of a dataset under a model's tokenizer and template, every row counted. Downloads the model if
    needed. Raises GarageError."""
    folder = Models(space).obtain(model, None, lambda stage, progress: None, lambda: None)
    # Every row, however many: in a terminal, exact numbers are worth the wait.
    return Preview.measure(rows, Tokenizer(folder), every_row=True)


def _rendered(
    preview: Preview, index: int, max_length: int, long_examples: LongExamples
) -> list[dict[str, str]] | None:
    """Return a row as the model's template renders it, as pieces {"kind", "text"} in their order, each of one kind:
    given, learned, or either of them cut off by max_length (cut_given, cut_learned). None if the template refuses the
    row."""
    try:
        view = preview.row(index, max_length, long_examples)
    except TemplateError:
        return None
    return [{"kind": piece.kind, "text": piece.text} for piece in view.pieces] if view else None


def training_tokens(preview: Preview, max_length: int, long_examples: LongExamples) -> JsonObject:
    """Return token statistics of a dataset's preview for this max_length: tokens, trained, truncated, split and refused
    rows, lengths."""
    counts = preview.counts(max_length, long_examples)
    return {
        "tokens": counts.tokens,
        "learned": counts.learned,
        "learned_percent": counts.learned_percent,
        "rows_cut": counts.rows_cut,
        "rows_split": counts.rows_split,
        "pieces": counts.pieces,
        "rows_without_answer": counts.rows_dropped,
        "rows_refused": counts.rows_refused,
        "refused": [sentence.model_dump() for sentence in preview.refused.messages(preview.counted)],
        "median_length": counts.median,
        "longest": counts.longest,
        "p99_length": counts.p99,
        "max_length": counts.max_length,
    }
