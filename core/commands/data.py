"""`inspect`: the contents of a file, and what of it would be trained."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from core.api import inspecting as api
from core.api.datasets import dataset_store
from core.commands.terminal import JsonOption, WorkspaceOption, app, in_words, print_json
from core.data.labels import LongExamples
from core.data.reading.choices import Choices
from core.data.sets.inspection import DataReport
from core.data.shapes.roles import parse
from core.errors import DataError
from core.files import JsonObject
from core.messages import Message, as_text, msg, terminal_language
from core.workspace.folder import Workspace

AnswerOption = Annotated[str, typer.Option(help="Which column is the answer, if the names do not show it.")]
AcceptGuessOption = Annotated[
    bool, typer.Option("--accept-guess", help="Train although only the contents show what the columns are.")
]
MAX_ROWS = 10_000  # of which the text is shown


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
    max_length: int = api.MAX_LENGTH,
    long_examples: Annotated[LongExamples, typer.Option(help="What to do with rows longer than --max-length.")] = "cut",
    rows: Annotated[
        int, typer.Option(min=0, max=MAX_ROWS, help="Show the text of so many rows, and which part is trained.")
    ] = 0,
) -> None:
    """Show what is in a data file, folder or zip, its problems row by row, and (with --model) what would be trained."""
    choices = Choices(
        columns=parse(columns) if columns else None,
        encoding=encoding or None,
        sheet=sheet or None,
        header=None if header is None else header == "yes",
        voice=voice,
        gap_hours=gap_hours,
        pseudonyms=pseudonyms,
    )
    try:
        inspection = api.inspect(
            data, model=model, choices=choices, answer=answer, max_length=max_length, long_examples=long_examples,
            rows=rows, workspace=workspace,
        )  # fmt: skip
    except DataError as error:
        if as_json and error.message.key in (
            "data.unknown_format",
            "data.header_or_row",
        ):  # with the exit status of an error
            path, choices = api.located(dataset_store(Workspace.open(workspace)), data, choices)
            questions = api.open_questions(path, choices, error)
            print_json(in_words({"file": str(path), "good_rows": 0, "questions": questions}))
        raise
    if as_json:
        print_json(in_words(inspection.as_json()))
    else:
        _show(inspection.report, inspection.tokens, terminal_language())
        _show_texts(inspection.texts or [], terminal_language())
    if inspection.refusal:
        raise inspection.refusal


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
        print(as_text((part.render(language) for part in (finding.message, finding.meaning)), language))
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
