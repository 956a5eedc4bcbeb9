"""Imports a GGUF file as a base model, the reverse of an export. Its weights become a 16-bit folder of the library,
which counts only if real llama.cpp answers from the file as transformers does from the folder.

    <workspace>/models/from-gguf/NAME/     complete and verified, or absent
      from_gguf.json                       the source file, and the results of the comparison

llama.cpp computes with quantized weights in integers (the starter's Q4_1: 0.005 nats from exact sums), so llama.cpp
first unpacks the file to 16 bit, and that is compared. No torch here: `unpack` and `questions` are processes of their
own.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from core import files
from core.errors import ExportError
from core.export.llamacpp import child, tools
from core.files import JsonObject
from core.messages import Message, msg
from core.models import headers
from core.workspace import names
from core.workspace.folder import Workspace

RECORD = "from_gguf.json"
MAX_DIVERGENCE, MAX_DIVERGENCE_IN_16_BIT = 5e-4, 0.02  # nats, as for an export (core.export.llamacpp.judgement)
SPARE_BYTES = 1_000_000_000  # for a process that has imported torch
Report = Callable[[str, float | None], None]
NAME = re.compile(r"\w(?:[\w .-]{0,78}\w)?")  # Windows drops a dot or a space at the end


@dataclass(frozen=True)
class ImportedBase:
    """A base made from a GGUF file. id: as recipes name it. divergence: nats. texts: how many gave the same token ids
    on both sides."""

    id: str
    folder: Path
    bytes: int
    divergence: float
    texts: int
    has_template: bool


def import_file(
    workspace: Workspace,
    file: Path,
    name: str | None,
    report: Report = lambda *_: None,
    check: Callable[[], None] = lambda: None,
    source: str | None = None,
) -> ImportedBase:
    """Make a base model from file, verify it and return it.

    name: of the base; None: after the file. source: what the user calls the file if its name says nothing (Ollama's
    blobs). Raises ExportError or ModelError with the reason; nothing is left then, and the file stays as it is.
    """
    file = file.expanduser().absolute()
    if not file.is_file():
        raise ExportError("gguf.base_no_file", file=file)
    shape = headers.of_gguf(file, require_complete=True)
    base_name = name or names.slug(file.stem, fallback="model")
    if not NAME.fullmatch(base_name) or names.is_reserved(base_name):
        raise ExportError("gguf.base_name", found=base_name[:100])
    target = workspace.from_gguf / base_name
    scratch = workspace.from_gguf / f".{base_name}.part"
    with files.writing(workspace.from_gguf):
        workspace.from_gguf.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(workspace.from_gguf / f".{base_name}.lock", timeout=0):
                if target.exists():
                    raise ExportError("gguf.base_exists", name=base_name, folder=target)
                exact = fits_in_float32(shape.params, workspace.from_gguf, file.stat().st_size)
                try:
                    return _unpack_and_compare(
                        workspace, file, source or file.name, scratch, target, exact, report, check
                    )
                finally:
                    files.remove_tree(scratch, files.MOMENT_S)
        except Timeout:
            raise ExportError("gguf.base_at_work", name=base_name) from None


def fits_in_float32(parameters: int, folder: Path, file_bytes: int) -> bool:
    """Return whether memory suffices to compare in float32. Raises ExportError with too little disk or memory for 16
    bit.

    Disk holds the folder, llama.cpp's 16-bit copy and, from another disk, the file; memory holds the model in 16 bit.
    """
    free, need = shutil.disk_usage(folder).free, 4 * parameters + file_bytes + SPARE_BYTES
    if free < need:
        raise ExportError(
            "gguf.base_no_disk", free_gb=round(free / 1e9, 1), need_gb=round(need / 1e9, 1), folder=folder
        )
    free, need = psutil.virtual_memory().available, 2 * parameters + SPARE_BYTES
    if free < need:
        raise ExportError("gguf.base_no_memory", free_gb=round(free / 1e9, 1), need_gb=round(need / 1e9, 1))
    return free >= 4 * parameters + SPARE_BYTES


def _unpack_and_compare(
    workspace: Workspace,
    file: Path,
    source: str,
    scratch: Path,
    target: Path,
    exact: bool,
    report: Report,
    check: Callable[[], None],
) -> ImportedBase:
    """Unpack a GGUF base into a folder in scratch, compare it with what llama.cpp computes from the file, and move it
    to target. Raises ExportError if token ids or logits differ. exact: values are expected in float32."""
    gguf_tools = tools.obtain(workspace, report, check)
    files.remove_tree(scratch, files.MOMENT_S)
    scratch.mkdir()
    log, out = scratch / "log.txt", scratch / "folder"
    # llama.cpp gets names in the current folder: on Windows it cannot open paths with letters beyond ASCII.
    files.link_or_copy(file, scratch / "file.gguf")
    report("unpacking_gguf", None)
    request = {
        "file": str(scratch / "file.gguf"),
        "out": str(out),
        "logs": str(scratch / "transformers.logs"),
        "exact": exact,
    }
    reference = child.ask("core.export.llamacpp.unpack", request, scratch, log, check, file.name)
    report("asking_llamacpp", None)
    comparison = _ask_llamacpp(gguf_tools, reference, scratch, log, check)
    if (equal := sum(comparison["alike"])) < len(reference["texts"]):
        first_other = next(i for i, same in enumerate(comparison["alike"]) if not same)
        raise ExportError(
            "gguf.base_other_ids",
            alike=equal,
            texts=len(reference["texts"]),
            first=reference["texts"][first_other][:60],
        )
    limit = MAX_DIVERGENCE if exact else MAX_DIVERGENCE_IN_16_BIT
    if not comparison["divergence"] <= limit:  # also if it is NaN
        raise ExportError("gguf.base_not_alike", found=comparison["divergence"], most=limit)
    record = {
        "file": source,
        "bytes": file.stat().st_size,
        "divergence": comparison["divergence"],
        "texts": len(reference["texts"]),
    }
    files.replace_json(out / RECORD, record | {"llama_cpp": gguf_tools.runtime_build})
    # On disk before it has its name, by which a folder counts as complete.
    files.sync_tree(out)
    files.rename(out, target)
    files.sync_folder(target.parent)
    size = sum(part.stat().st_size for part in target.iterdir())
    return ImportedBase(
        f"library:{target.name}",
        target,
        size,
        comparison["divergence"],
        len(reference["texts"]),
        reference["has_template"],
    )


def _ask_llamacpp(
    gguf_tools: tools.Tools, reference: JsonObject, scratch: Path, log: Path, check: Callable[[], None]
) -> JsonObject:
    """Results of llama.cpp on the reference prompts, with 16-bit weights that it unpacked itself."""
    common = {**gguf_tools.library_paths, "folder": str(scratch), "threads": child.threads()}
    unpacked = {"do": "quantise", "source": "file.gguf", "target": "sixteen.gguf", "kind": "f16"}
    child.ask("core.export.llamacpp.library", common | unpacked, scratch, log, check, "sixteen.gguf")
    (scratch / "file.gguf").unlink()
    longest = max(len(ids) for ids in [*reference["prompts"], *(row["ids"] for row in reference["rows"])])
    question = {
        "do": "ask", "file": "sixteen.gguf", "against": "transformers.logs", "keep": None, "stops": [], "answers": 0,
        "answer": 0,
        "length": longest + 1, **{key: reference[key] for key in ("texts", "prompts", "rows", "words")},
    }  # fmt: skip
    return child.ask("core.export.llamacpp.questions", common | question, scratch, log, check, "sixteen.gguf")


def describe(imported: ImportedBase) -> Message:
    values = {"megabytes": round(imported.bytes / 1e6), "folder": imported.folder, "texts": imported.texts}
    return msg("gguf.base_is", id=imported.id, divergence=imported.divergence, **values)


def rounding_note(workspace: Workspace, model_id: str) -> Message | None:
    """A note for a base that was made from a GGUF file; None for any other."""
    folder = workspace.from_gguf / model_id.removeprefix("library:")
    record = files.read_object(folder / RECORD) if model_id.startswith("library:") else {}
    return msg("gguf.base_was_rounded", file=record["file"]) if record.get("file") else None
