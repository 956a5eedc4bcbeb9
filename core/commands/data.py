"""`inspect`: the contents of a file, and what of it would be trained."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, print_json
from core.data.formats import Example, ReadRow
from core.data.hub_sets import adding
from core.data.labels import LongExamples
from core.data.preview import Preview
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.sniff import probe
from core.data.reading.suffixes import SUFFIXES
from core.data.sets import gathered
from core.data.sets.inspection import DataReport, inspect_file, taken_as, undecided
from core.data.sets.stored_rows import InMemory, Rows, example_of
from core.data.sets.trained_text import trained_text
from core.data.shapes.known import COLUMNS
from core.data.shapes.roles import parse, with_answer
from core.data.store import DatasetStore
from core.data.tokenizer import Tokenizer
from core.errors import DataError, TemplateError
from core.files import JsonObject
from core.hub.sets.name import SetName
from core.messages import Message, as_text, msg, terminal_language
from core.models.library import Models
from core.presets import PRESETS
from core.recipe import Data, Recipe
from core.workspace.folder import Workspace, expand

AnswerOption = Annotated[str, typer.Option(help="Which column is the answer, if the names do not show it.")]
AcceptGuessOption = Annotated[
    bool, typer.Option("--accept-guess", help="Train although only the contents show what the columns are.")
]
MAX_ROWS = 10_000  # of which the text is shown
SHOWN = 3  # rows that JSON shows as they are learned


def dataset_store(space: Workspace) -> DatasetStore:
    """Return the store of the workspace's datasets, samples and library folders."""
    return DatasetStore(space.datasets, PRESETS, space.library_folders)


def dataset_id(space: Workspace, source: str, relative_to: Path, choices: Choices = NO_CHOICES) -> str:
    """Return source as an id of the store. Raises DataError.

    source: an id, a file or folder (also in relative_to), which is added first (the same file only once), or a
    downloaded dataset of the Hub.
    """
    if not source.strip():
        raise DataError("data.no_name")
    store = dataset_store(space)
    for candidate in (expand(source), relative_to / source):
        if candidate.is_file():
            return store.import_file(candidate, candidate.stem, choices).id
    try:
        store.path(source)
    except DataError:
        for candidate in (expand(source), relative_to / source):
            if candidate.is_dir():
                return gathered.add(store, [candidate], candidate.name, choices).id
        if Path(source).suffix.lower() in SUFFIXES or not SetName.looks_like(source):
            raise
        info = adding.find_added(store, SetName.parse(source))
        if info is None:
            raise DataError("hub_set.not_here", name=source) from None
        return info.id
    return source


def with_imported_data(space: Workspace, recipe: Recipe, relative_to: Path, answer: str = "") -> Recipe:
    """Return recipe with its dataset, imported if it is a file, as an id of the store, and its columns. answer: the
    column that a person named as the answer. Raises DataError as `dataset_id`."""
    data = recipe.data
    source = dataset_id(space, data.source, relative_to, Choices.from_data(data))
    data = data.model_copy(update={"source": source})
    if answer:
        report = dataset_store(space).report(source, data.format, Choices.from_data(data))
        data = data.model_copy(update={"columns": dict(with_answer(report.possible, answer, report.columns))})
    return recipe.model_copy(update={"data": data})


@app.command()
def inspect(
    data: Annotated[str, typer.Argument(help="A file, a folder, a zip, or a dataset's id.")],
    model: Annotated[
        str | None, typer.Option(help="Count tokens for this model and show what would be trained.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
    columns: Annotated[str, typer.Option(help="What each column is, e.g. question=Frage,answer=Antwort.")] = "",
    answer: AnswerOption = "",
    encoding: Annotated[str | None, typer.Option(help="Text encoding: utf-8, gb18030, cp1252, ...")] = None,
    sheet: Annotated[str | None, typer.Option(help="Which sheet of a workbook to read.")] = None,
    header: Annotated[
        Literal["yes", "no"] | None, typer.Option(help="Whether the first row has the column names.")
    ] = None,
    voice: Annotated[str | None, typer.Option(help="In a chat: whose messages are the answers.")] = None,
    gap_hours: Annotated[
        float | None, typer.Option(min=0.25, max=8760, help="In a chat: a pause this long starts a new conversation.")
    ] = None,
    pseudonyms: Annotated[
        bool | None, typer.Option(help="In a chat: replace others' names, numbers and addresses.")
    ] = None,
    max_length: int = Data.model_fields["max_length"].default,
    long_examples: Annotated[LongExamples, typer.Option(help="What to do with rows longer than --max-length.")] = "cut",
    rows: Annotated[
        int, typer.Option(min=0, max=MAX_ROWS, help="Show the text of so many rows, and which part is trained.")
    ] = 0,
) -> None:
    """Show what is in a data file, folder or zip, its problems row by row, and (with --model) what would be trained."""
    space = Workspace.open(workspace)
    roles = parse(columns) if columns else None
    choices = Choices(
        columns=roles,
        encoding=encoding or None,
        sheet=sheet or None,
        header=None if header is None else header == "yes",
        voice=voice,
        gap_hours=gap_hours,
        pseudonyms=pseudonyms,
    )
    path, choices = _path_of(dataset_store(space), data, choices)
    if answer:
        found = inspect_file(path, choices=choices)
        choices = choices.model_copy(update={"columns": dict(with_answer(found.possible, answer, found.columns))})
    kept: list[tuple[int, str]] = []
    apart: set[int] = set()  # of the first rows: the dataset's own validation rows
    stored = InMemory()

    def keep(read: ReadRow) -> None:
        if len(kept) < max(SHOWN, rows):
            kept.extend(read.good())
            apart.update((read.number,) if read.validation else ())
        if model is not None:
            stored.add(read)

    try:
        report = inspect_file(path, choices=choices, keep=keep)
    except DataError as error:
        if as_json and error.message.key in ("data.unknown_format", "data.header_or_row"):
            # the questions that remain, with the exit status of an error
            text = error.message.model_dump(mode="json")
            question = {"id": "columns", "text": text, "columns": text["params"]["columns"]}
            more = _header_question(probe(path, choices=choices).header, choices)
            print_json(in_words({"file": str(path), "good_rows": 0, "questions": [question, *more]}))
        raise
    examples = [(number, example_of(text)) for number, text in kept]
    first = [example for _, example in examples[:SHOWN]]
    if model is not None and not examples:
        raise report.refusal(path.name)
    preview = preview_of(space, model, stored.rows()) if model is not None else None
    learned = training_tokens(preview, max_length, long_examples) if preview else None
    texts = [
        {"row": number, "validation": bool(report.validation) and number in apart, **trained_text(example)}
        | ({"rendered": _rendered(preview, index, max_length, long_examples)} if preview else {})
        for index, (number, example) in enumerate(examples[:rows])
    ]
    if as_json:
        value = _as_json(path, report, first, choices) | ({"trained_text": texts} if rows else {})
        print_json(in_words(value | ({"learned": learned} if learned else {})))
    else:
        _show(report, learned, terminal_language())
        _show_texts(texts, terminal_language())
    if not report.good_rows:
        raise report.refusal(path.name)
    if report.undecided:
        raise undecided(report)


def _path_of(store: DatasetStore, data: str, choices: Choices) -> tuple[Path, Choices]:
    """Return the path of a file, a folder or a dataset, and the choices to read it with (a dataset's stored ones
    added). Raises DataError."""
    if not data.strip():
        raise DataError("data.no_name")
    path = expand(data)
    if not os.path.isfile(path) and (store.knows(data) or not _exists(path)):
        return store.path(data), store.choices(data, choices)
    return path, choices


def _as_json(path: Path, report: DataReport, first: list[Example], choices: Choices) -> JsonObject:
    """Return what `inspect --json` prints: the report, each column's role, the first examples, the open questions."""
    chat = {"people": [], "conversations": None} if report.chat is None else report.chat.model_dump(mode="json")
    return {
        "file": str(path),
        **report.model_dump(mode="json"),
        "kind": _kind(report, first),
        "file_kind": report.kind,
        "columns": {name: _role(report, name) for name in report.columns},
        "examples": [example.as_dict() for example in first],
        "people": chat["people"],
        "conversations": chat["conversations"],
        "questions": [*_answer_question(report), *_header_question(report.header, choices)],
    }


def _answer_question(report: DataReport) -> list[JsonObject]:
    """Return [the question which column is the answer, with the readings to choose from] if only contents or nothing
    decide it, else []."""
    if not report.readings:
        return []
    text = undecided(report).message if report.undecided else msg("data.note_guessed", taken=taken_as(report.roles))
    return [{"id": "answer", "text": text.model_dump(mode="json"), "readings": [dict(one) for one in report.readings]}]


def _exists(path: Path) -> bool:
    """Return True if something is there, also a pipe, a device or a file that may not be looked at."""
    try:
        return bool(os.lstat(path))
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False


def _kind(report: DataReport, examples: list[Example]) -> str:
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


def _show(report: DataReport, learned: JsonObject | None, language: str) -> None:
    """Print the report as sentences; duplicates are a finding, not problems too. learned: None without a model."""
    count = report.problem_count - report.duplicates
    problems = [problem for problem in report.problems if problem.text.key != "data.duplicate"]
    print(msg("command.inspect_summary", format=report.format, rows=report.rows, good=report.good_rows,
               duplicates=report.duplicates, problems=count).render(language))  # fmt: skip
    for note in report.notes:
        print(note.render(language))
    for left in report.left_out:
        print(msg("left_out.line", what=left.what, count=left.count, why=left.why).render(language))
    for finding in report.findings:
        print(as_text((part.render(language) for part in (finding.said, finding.meaning)), language))
        for example in finding.examples[:3]:
            print("    " + example.sentence.render(language))
    for problem in problems[:20]:
        print(msg("command.problem", row=problem.row or "-", problem=problem.text).render(language))
    if count > 20:
        print(msg("command.more_problems", count=count - 20).render(language))
    if learned:
        print(msg("command.inspect_learned", **learned).render(language))
        for sentence in learned["refused"]:
            print(Message.model_validate(sentence).render(language))


def _show_texts(texts: list[JsonObject], language: str) -> None:
    """Print the text of rows as it is trained, part by part, with a mark whether the part is learned."""
    for each in texts:
        print(msg("command.trained_row", row=each["row"]).render(language))
        answer = "command.part_validation" if each["validation"] else "command.part_trained"
        for part in each["parts"]:
            key = answer if part["trained"] else "command.part_context"
            text = ": ".join(filter(None, (part["role"], part["text"])))
            print(msg(key, text=text.replace("\n", "\n    ")).render(language))


def _header_question(header: bool | None, choices: Choices) -> list[dict[str, object]]:
    """Return [the question whether a table's first row holds names], [] if that is answered, or for other files. taken:
    the present assumption."""
    if header is None or choices.header is not None:
        return []
    text = msg("data.note_header_unsaid" if header else "data.note_no_header")
    return [{"id": "header", "text": text.model_dump(mode="json"), "taken": "yes" if header else "no"}]


def preview_of(space: Workspace, model: str, rows: Rows) -> Preview:
    """Return the preview of a dataset under a model's tokenizer and template. Downloads the model if needed."""
    folder = Models(space).obtain(model, None, lambda stage, progress: None, lambda: None)
    # Every row, however many: in a terminal, exact numbers are worth the wait.
    return Preview.measure(rows, Tokenizer(folder), every_row=True)


def _rendered(
    preview: Preview, index: int, max_length: int, long_examples: LongExamples
) -> list[dict[str, str]] | None:
    """Return a row as the template renders it, in pieces of one kind (core/data/sets/row_view); null if it is
    refused."""
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
