"""`make`: a dataset of questions and answers that a model writes from documents, each checked against its source."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, get_args

import typer

from core.api.contestants import named_contestants
from core.api.datasets import dataset_id, dataset_store
from core.chat.contest import chat_target
from core.chat.endpoint import Endpoint
from core.chat.evaluation.model_judge import KEY
from core.chat.making import writers
from core.chat.making.drafts import Kind
from core.chat.making.making import Making
from core.chat.making.passage_rows import size_message
from core.chat.making.passages import blocks_of, passages_of
from core.chat.making.rows import SHOWN, MakingOrder
from core.chat.prompts import prompts_of_file
from core.commands.terminal import JsonOption, WorkspaceOption, app, print_json, progress_on_terminal, say
from core.errors import ChatError, RecipeError
from core.files import JsonObject
from core.messages import msg
from core.workspace.folder import Workspace

MIN_SHARE = 0.3  # of the rows that pass, below which a larger model is advised
ROWS_SHOWN = 3


@app.command()
def make(
    documents: Annotated[list[str], typer.Argument(help="Files, folders or datasets of plain text.")],
    to: Annotated[str, typer.Option(help="Name of the new dataset. Default: that of the first document.")] = "",
    writer: Annotated[
        str | None, typer.Option(help="The model that writes: base:MODEL, RUN, RUN@checkpoint-40, ...")
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(help=f"Instead: URL of a server with OpenAI's chat completions, up to /v1. API key: {KEY}."),
    ] = None,
    model: Annotated[str, typer.Option(help="The server's model.")] = "",
    kind: Annotated[str, typer.Option(help="questions, instructions, conversation or summary.")] = "questions",
    language: Annotated[str, typer.Option(help="Two letters. Default: the document's.")] = "",
    count: Annotated[int, typer.Option(min=1, max=8, help="Rows of a passage, at most.")] = 3,
    wordings: Annotated[int, typer.Option(min=1, max=4, help="Wordings of each question.")] = 1,
    absent: Annotated[
        float, typer.Option(min=0, max=0.5, help="Share of passages with a question that they do not answer.")
    ] = 0.0,
    examples: Annotated[
        Path | None, typer.Option(help="A file with up to three rows (prompt, expected) whose style is followed.")
    ] = None,
    passages: Annotated[int | None, typer.Option(min=1, help="The first N passages only.")] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the rows with their sources to this file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how much there is to do.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Send the passages to a server that is not on this PC.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a model write questions and answers from documents; keep what can be proved from them, as a dataset."""
    space = Workspace.open(workspace)
    if kind == "absent" or kind not in get_args(Kind):
        raise RecipeError("making.unknown_kind", found=kind[:60])
    if (writer is None) == (server is None):
        raise RecipeError("making.no_writer")
    endpoint = None if server is None else Endpoint.parse(server, model, os.environ.get(KEY, ""))
    store = dataset_store(space)
    ids = [dataset_id(space, document, Path.cwd()) for document in documents]
    order = MakingOrder(
        title=to or store.get(ids[0]).name,
        documents=tuple((id, store.version(id)) for id in ids),
        writer=endpoint.name if endpoint else writer or "",
        kind=kind,
        language=language,
        count=count,
        wordings=wordings,
        absent=absent,
        examples=_examples(examples),
    )
    divided = passages_of(block for id in ids for block in blocks_of(store, id))
    if not as_json:
        say(size_message(order.count, divided[:passages]))
    if dry_run:
        print_json({"passages": [one.model_dump(mode="json") for one in divided[:passages]]}) if as_json else None
        return
    if endpoint and not endpoint.is_on_this_pc and not yes:
        raise ChatError("making.leaves", url=endpoint.url, count=len(divided[:passages]))
    with _writer(space, writer or "", endpoint) as chosen:
        making = Making.prepare(space, order, divided)
        _write(making, chosen, passages, as_json)
    result = _result(making)
    if not as_json:
        _show(making, result)
    result["dataset"] = making.dataset(space, store).id
    if out:
        lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in making.values())
        out.write_text("".join(lines), "utf-8", "replace", newline="\n")
    print_json(result) if as_json else say(msg("making.added", dataset=result["dataset"]))


def _examples(file: Path | None) -> tuple[tuple[str, str], ...]:
    """Return (question, answer) of the first rows that have an answer, at most SHOWN; () without a file. Raises
    ChatError."""
    rows = prompts_of_file(file) if file else []
    return tuple((row.question, row.expected) for row in rows if row.expected)[:SHOWN]


@contextmanager
def _writer(space: Workspace, word: str, endpoint: Endpoint | None) -> Iterator[writers.RowWriter]:
    """Context manager: yield the model that writes the rows. With an endpoint it is the model behind that server and
    word is ignored; else the model of word, a run such as RUN@0.8, loaded on this PC until the context ends. Raises
    GarageError."""
    if endpoint is not None:
        yield writers.ServerWriter(endpoint)
        return
    [contestant] = named_contestants(space, [word])
    with writers.local_writer(space, chat_target(space, contestant), word) as local:
        yield local


def _write(making: Making, writer: writers.RowWriter, first: int | None, as_json: bool) -> None:
    """Let the model write the rows of the first passages (first: how many; None: all) that have no result yet, with the
    progress on a terminal unless as_json. Each finished passage is stored at once, so that it is kept if the command is
    ended."""
    total = len(making.passages()[:first])
    results = {number: result for number, result in making.results().items() if number < total}
    done, rows = len(results), sum(len(one.rows) for one in results.values())
    dropped, seconds = sum(len(one.dropped) for one in results.values()), list[float]()
    with progress_on_terminal(quiet=as_json) as show:
        for result in making.write(writer, first=first):
            done, rows, dropped = done + 1, rows + len(result.rows), dropped + len(result.dropped)
            seconds.append(result.seconds)
            minutes = (total - done) * sum(seconds) / len(seconds) / 60
            show(msg("making.progress", done=done, total=total, rows=rows, dropped=dropped, minutes=minutes))


def _result(making: Making) -> JsonObject:
    """Return the object that --json prints: the numbers of rows, of known ones (which the writer also answers without
    the passage), and of dropped ones by reason."""
    rows, repeats = making.rows()
    dropped = [one for result in making.results().values() for one in result.dropped] + repeats
    return {
        "making": making.id,
        "folder": str(making.path),
        "rows": len(rows),
        "known": sum(row.known for row in rows),
        "dropped": dict(Counter(one.why for one in dropped)),
    }


def _show(making: Making, result: JsonObject) -> None:
    """Print some rows with their quotes, then what was dropped and why."""
    for row in making.rows()[0][:ROWS_SHOWN]:
        for step in row.draft.steps:
            print("\n  ".join([step.question, step.answer, *([f"“{step.quote}”"] if step.quote else [])]))
    say(msg("making.result", rows=result["rows"], known=result["known"], passages=len(making.results())))
    for why, number in sorted(result["dropped"].items()):
        say(msg(f"making.dropped_{why}", count=number))
    total = result["rows"] + sum(result["dropped"].values())
    if 0 < result["rows"] < MIN_SHARE * total:
        say(msg("making.few", share=round(100 * result["rows"] / total)))
