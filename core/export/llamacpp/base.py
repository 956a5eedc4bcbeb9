"""A GGUF file as a base model, the reverse of an export. Its weights become a 16-bit folder of the library, which
counts only if real llama.cpp answers from the file as transformers does from the folder.

    <workspace>/models/from-gguf/NAME/     complete and proven, or not there
      from_gguf.json                       the file it was made of, and what the comparison found

llama.cpp computes with quantised weights in whole numbers (the starter's Q4_1: 0.005 nats from exact sums), so the file
is first unpacked by llama.cpp itself to 16 bit, and that is compared. No torch here: `unpack` and `questions` are
processes of their own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from core import files
from core.errors import ExportError
from core.export.llamacpp import child, tools
from core.messages import Message, msg
from core.models import headers
from core.workspace import names
from core.workspace.folder import Workspace

RECORD = "from_gguf.json"
MOST_DIVERGENCE, MOST_IN_16_BIT = 5e-4, 0.02  # nats, as of an export (core.export.llamacpp.judgement)
SPARE_BYTES = 1_000_000_000  # of a process with torch in it
Report = Callable[[str, float | None], None]
NAME = re.compile(r"\w(?:[\w .-]{0,78}\w)?")  # Windows drops a dot or a space at the end


@dataclass(frozen=True)
class Brought:
    """A base that was made of a GGUF file. id: as a recipe names it. divergence: nats. texts: that both read as the
    same tokens."""

    id: str
    folder: Path
    bytes: int
    divergence: float
    texts: int
    has_template: bool


def bring(
    workspace: Workspace,
    file: Path,
    name: str | None,
    report: Report = lambda *_: None,
    check: Callable[[], None] = lambda: None,
    source: str | None = None,
) -> Brought:
    """name: of the base, else after the file. source: what a person calls the file where its name says nothing
    (Ollama's).

    Raises ExportError or ModelError with what was found; nothing is left then, and the file stays as it is."""
    file = file.expanduser().absolute()
    if not file.is_file():
        raise ExportError("gguf.base_no_file", file=file)
    shape = headers.of_gguf(file, whole=True)
    called = name or names.slug(file.stem, fallback="model")
    if not NAME.fullmatch(called) or names.is_reserved(called):
        raise ExportError("gguf.base_name", found=called[:100])
    target = workspace.from_gguf / called
    scratch = workspace.from_gguf / f".{called}.part"
    with files.writing(workspace.from_gguf):
        workspace.from_gguf.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(workspace.from_gguf / f".{called}.lock", timeout=0):
                if target.exists():
                    raise ExportError("gguf.base_exists", name=called, folder=target)
                exact = room_for(shape.params, workspace.from_gguf, file.stat().st_size)
                try:
                    return _made(workspace, file, source or file.name, scratch, target, exact, report, check)
                finally:
                    files.remove_tree(scratch, files.MOMENT_S)
        except Timeout:
            raise ExportError("gguf.base_at_work", name=called) from None


def room_for(parameters: int, folder: Path, file_bytes: int) -> bool:
    """Whether the comparison has room for float32. Raises ExportError where disk or memory do not do: the folder,
    llama.cpp's 16-bit copy and, from another disk, the file on the disk, the model in 16 bit in memory."""
    free, need = shutil.disk_usage(folder).free, 4 * parameters + file_bytes + SPARE_BYTES
    if free < need:
        raise ExportError(
            "gguf.base_no_disk", free_gb=round(free / 1e9, 1), need_gb=round(need / 1e9, 1), folder=folder
        )
    free, need = psutil.virtual_memory().available, 2 * parameters + SPARE_BYTES
    if free < need:
        raise ExportError("gguf.base_no_memory", free_gb=round(free / 1e9, 1), need_gb=round(need / 1e9, 1))
    return free >= 4 * parameters + SPARE_BYTES


def _made(
    workspace: Workspace,
    file: Path,
    source: str,
    scratch: Path,
    target: Path,
    exact: bool,
    report: Report,
    check: Callable[[], None],
) -> Brought:
    there = tools.obtain(workspace, report, check)
    files.remove_tree(scratch, files.MOMENT_S)
    scratch.mkdir()
    log, out = scratch / "log.txt", scratch / "folder"
    # llama.cpp opens names in the current folder: letters beyond ASCII in a path are lost on Windows.
    files.link_or_copy(file, scratch / "file.gguf")
    report("unpacking_gguf", None)
    request = {
        "file": str(scratch / "file.gguf"),
        "out": str(out),
        "logs": str(scratch / "transformers.logs"),
        "exact": exact,
    }
    asked = child.ask("core.export.llamacpp.unpack", request, scratch, log, check, file.name)
    report("asking_llamacpp", None)
    found = _ask(there, asked, scratch, log, check)
    if (alike := sum(found["alike"])) < len(asked["texts"]):
        first = next(i for i, same in enumerate(found["alike"]) if not same)
        raise ExportError(
            "gguf.base_other_ids", alike=alike, texts=len(asked["texts"]), first=asked["texts"][first][:60]
        )
    most = MOST_DIVERGENCE if exact else MOST_IN_16_BIT
    if not found["divergence"] <= most:  # also where it is not a number
        raise ExportError("gguf.base_not_alike", found=found["divergence"], most=most)
    record = {
        "file": source,
        "bytes": file.stat().st_size,
        "divergence": found["divergence"],
        "texts": len(asked["texts"]),
    }
    files.replace_json(out / RECORD, record | {"llama_cpp": there.answers})
    files.sync_tree(out)
    files.rename(out, target)
    files.sync_folder(target.parent)
    size = sum(part.stat().st_size for part in target.iterdir())
    return Brought(
        f"library:{target.name}", target, size, found["divergence"], len(asked["texts"]), asked["has_template"]
    )


def _ask(
    there: tools.Tools, asked: dict[str, Any], scratch: Path, log: Path, check: Callable[[], None]
) -> dict[str, Any]:
    """llama.cpp's answer, from 16-bit weights that it unpacked itself."""
    common = {**there.runs_in, "folder": str(scratch), "threads": child.threads()}
    unpacked = {"do": "quantise", "source": "file.gguf", "target": "sixteen.gguf", "kind": "f16"}
    child.ask("core.export.llamacpp.library", common | unpacked, scratch, log, check, "sixteen.gguf")
    (scratch / "file.gguf").unlink()
    longest = max(len(ids) for ids in [*asked["prompts"], *(row["ids"] for row in asked["rows"])])
    question = {
        "do": "ask", "file": "sixteen.gguf", "against": "transformers.logs", "keep": None, "stops": [], "answers": 0,
        "answer": 0,
        "length": longest + 1, **{key: asked[key] for key in ("texts", "prompts", "rows", "words")},
    }  # fmt: skip
    return child.ask("core.export.llamacpp.questions", common | question, scratch, log, check, "sixteen.gguf")


def told(made: Brought) -> Message:
    values = {"megabytes": round(made.bytes / 1e6), "folder": made.folder, "texts": made.texts}
    return msg("gguf.base_is", id=made.id, divergence=made.divergence, **values)


def warning(workspace: Workspace, model_id: str) -> Message | None:
    """What is to be known of a base that was made of a GGUF file; None for any other."""
    folder = workspace.from_gguf / model_id.removeprefix("library:")
    record = files.read_object(folder / RECORD) if model_id.startswith("library:") else {}
    return msg("gguf.base_was_rounded", file=record["file"]) if record.get("file") else None
