"""Greedy answers of a finished GGUF export in llama.cpp, in a separate process that loads the file once for all
questions of a call. No torch."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

from core.data.conversation import Turn
from core.data.tokenizer import Tokenizer
from core.errors import ExportError
from core.export.exports import adapter_folder
from core.export.llamacpp import child, tools
from core.export.llamacpp.child import Refused
from core.export.llamacpp.library import Library, LlamaError
from core.export.llamacpp.runtime import LoadedGguf
from core.export.records import ExportResult, read_result
from core.files import JsonObject
from core.runs.all import Runs
from core.workspace.folder import Workspace


class GgufAnswer(NamedTuple):
    """seconds: of its generation alone; is_whole: the model ended it."""

    text: str
    tokens: int
    seconds: float
    is_whole: bool


def answers(
    workspace: Workspace,
    export: str,
    conversations: Sequence[Sequence[Turn]],
    most: int,
    thinks: bool | None = None,
    check: Callable[[], None] = lambda: None,
) -> list[GgufAnswer]:
    """Return the answers of an export to conversations that end with a question.

    export: its name. most: tokens of an answer. thinks: None as trained. check: called meanwhile; if it raises, the
    process ends. Raises ExportError without the export or llama.cpp, TemplateError.
    """
    result, runtime = _result(workspace, export), _tools(workspace).runtime
    run = Runs(workspace).get(result.run)
    thinks = run.facts().enable_thinking if thinks is None else thinks
    tokenizer = Tokenizer(adapter_folder(run, result.checkpoint))
    tokenizer = tokenizer if thinks is None else tokenizer.with_thinking(thinks)
    texts = [tokenizer.template.render(turns, True) for turns in conversations]
    request = {
        "runtime": str(runtime), "folder": str(workspace.exports / result.name), "file": result.gguf, "texts": texts,
        "length": max(len(tokenizer.encode(text)) for text in texts) + most + 8, "most": most,
        "threads": psutil.cpu_count(logical=False) or 2,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=workspace.cache) as folder:
        log = Path(folder) / "answers.log"
        given = child.ask("core.export.llamacpp.answers", request, Path(folder), log, check, result.gguf)
    return [
        GgufAnswer(tokenizer.decode(one["tokens"]).strip(), len(one["tokens"]), one["seconds"], one["is_whole"])
        for one in given["answers"]
    ]


def work(request: JsonObject) -> JsonObject:
    """Answer one request in this process. Raises Refused for an error of llama.cpp."""
    given = list[JsonObject]()
    os.chdir(request["folder"])
    try:
        library = Library(Path(request["runtime"]))
        with LoadedGguf(library, request["file"], request["length"], request["threads"]) as model:
            for text in request["texts"]:
                started = time.perf_counter()
                tokens = model.greedy(model.tokenize(text), request["most"])
                seconds, is_whole = time.perf_counter() - started, model.ends(tokens[-1])
                given.append({"tokens": tokens, "seconds": round(seconds, 4), "is_whole": is_whole})
    except LlamaError as error:
        raise Refused("llama_error", reason=str(error)[:300]) from error
    return {"answers": given}


def _result(workspace: Workspace, export: str) -> ExportResult:
    """Return the record of a finished GGUF export by its name. Raises ExportError if there is none."""
    # A name from outside must not lead out of the folder of exports.
    result = read_result(workspace.exports / export) if os.path.basename(export) == export else None
    if result is None or not result.gguf:
        raise ExportError("gguf.export_gone", name=export[:80])
    return result


def _tools(workspace: Workspace) -> tools.Tools:
    """Return the tools if they are downloaded; here they are never fetched. Raises ExportError with the reason."""
    downloaded = tools.find(workspace)
    if downloaded is None:
        raise ExportError(tools.state(workspace))
    return downloaded


if __name__ == "__main__":
    sys.exit(child.answer(work))
