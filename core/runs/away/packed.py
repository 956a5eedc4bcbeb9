"""A run as one file: packed on any PC, checked completely, and opened in another workspace.

The file is a zip. `lora-garage.json` is a Manifest; `run/...` the run's folder without its lock and last command;
`data/...` the folder of its data set (core/data/store), if that is an imported one and was requested. The manifest
names each file with its size and SHA-256: an archive with other files is refused. Nothing becomes visible in the
workspace before all of it is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

from filelock import Timeout
from pydantic import Field, StringConstraints, ValidationError

from core import __version__, files
from core.data.sets.info import read_info
from core.data.store import IMPORTED, DatasetStore
from core.errors import BusyError, RecipeError, RunError
from core.files import writing
from core.progress import Check, go_on
from core.runs.all import LOCK_S, Runs
from core.runs.folder import RUN_ID, RunFolder
from core.runs.states import BUSY
from core.system import path_length
from core.values import MIB, Frozen
from core.workspace import names
from core.workspace.folder import Workspace

MANIFEST = "lora-garage.json"
STAYS_BEHIND = {"run.lock", "control.json", "left.json"}  # these belong to this PC's processes and pages
DENSE = {".safetensors", ".pt", ".npy", ".npz", ".png"}  # stored uncompressed: compression would not make them smaller
PIECE = 4 * MIB
MAX_MANIFEST = 16 * MIB
MAX_FILES = 20_000
ROOM = 64 * MIB  # bytes that must stay free after unpacking
_PART = re.compile(r'[^\x00-\x1f/\\:*?"<>|]{1,200}')
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PackedFile(Frozen):
    bytes: int = Field(ge=0)
    sha256: Digest


class Manifest(Frozen):
    """Contents of lora-garage.json. run: its id; name: for the screen; data: the id of the data set in the archive."""

    lora_garage_run: Literal[1] = 1
    run: str = Field(pattern=f"^(?:{RUN_ID.pattern})$")  # pydantic's pattern matches anywhere
    name: str = Field("", max_length=200)
    app: str = Field("", max_length=60)
    data: str | None = Field(None, pattern=f"^(?:{IMPORTED.pattern})$")
    files: dict[str, PackedFile] = Field(max_length=MAX_FILES)


class Packer:
    """Writes files into a zip and hashes each one on the way."""

    def __init__(self, archive: zipfile.ZipFile, check: Check = go_on):
        self.archive, self.check, self.files = archive, check, dict[str, PackedFile]()

    def add(self, name: str, path: Path) -> None:
        """Copy a file into the zip under this name and note its size and SHA-256; check is called between pieces.
        Raises OSError, also if the file changes meanwhile."""
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.compress_type = zipfile.ZIP_STORED if path.suffix.lower() in DENSE else zipfile.ZIP_DEFLATED
        info.external_attr = (stat.S_IFREG | 0o644) << 16
        digest, done = hashlib.sha256(), 0
        with open(path, "rb") as source, self.archive.open(info, "w", force_zip64=True) as target:
            while piece := source.read(PIECE):
                self.check()
                digest.update(piece)
                target.write(piece)
                done += len(piece)
        self.files[name] = PackedFile(bytes=done, sha256=digest.hexdigest())

    def text(self, name: str, text: str, mode: int = 0o644) -> None:
        info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
        info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, (stat.S_IFREG | mode) << 16
        self.archive.writestr(info, text.encode())


@contextlib.contextmanager
def new_archive(target: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip for writing that appears under its name only when complete. Raises RunError if target exists or cannot
    be written."""
    if target.exists():
        raise RunError("away.exists", file=target)
    aside = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    with writing(target.parent):
        try:
            with zipfile.ZipFile(aside, "w") as archive:
                yield archive
            with open(aside, "rb+") as written:
                os.fsync(written.fileno())
            files.rename(aside, target)
        finally:
            aside.unlink(missing_ok=True)


def pack(
    space: Workspace, store: DatasetStore, run: RunFolder, target: Path, with_data: bool = True, check: Check = go_on
) -> Manifest:
    """Pack the run's folder and, if with_data, its imported data set into target, holding its lock; return the
    manifest. Hidden files are left out. Raises RunError if target exists, BusyError while it is at work."""
    status = Runs(space).status(run)
    if status.state in BUSY:
        raise BusyError("away.busy", name=run.name)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(run.lock().acquire(timeout=LOCK_S))
        except Timeout:
            raise BusyError("away.busy", name=run.name) from None
        if run.status().attempt != status.attempt:  # resumed meanwhile
            raise BusyError("away.busy", name=run.name)
        if run.status().state != status.state:
            run.write_status(status)  # found interrupted, which nobody has recorded yet
        data = run.facts().data
        own = data.id if data and with_data and IMPORTED.fullmatch(data.id) and store.knows(data.id) else None
        with new_archive(target) as archive:
            packer = Packer(archive, check)
            for path in sorted(run.path.rglob("*")):
                below = path.relative_to(run.path)
                hidden = any(part.startswith(".") for part in below.parts)  # half-written files, and caches
                if path.is_file() and not hidden and below.as_posix() not in STAYS_BEHIND:
                    packer.add(f"run/{below.as_posix()}", path)
            if own:
                add_set(packer, "data", store, own)
            manifest = Manifest(run=run.id, name=run.name, app=__version__, data=own, files=packer.files)
            packer.text(MANIFEST, manifest.model_dump_json(indent=1))
    return manifest


def add_set(packer: Packer, top: str, store: DatasetStore, id: str) -> None:
    """Add the data set's file as imported, and its versions; caches are made anew elsewhere."""
    folder = store.path(id).parent
    for path in sorted(folder.iterdir()):
        if path.name in ("dataset.json", store.path(id).name) or re.fullmatch(r"(edits|written)-.*\.jsonl", path.name):
            packer.add(f"{top}/{path.name}", path)


def read_manifest(archive: zipfile.ZipFile, file: str) -> Manifest:
    """Return the manifest. Raises RunError for an archive that is not a packed run, has unsafe names, or whose names
    differ from the manifest's."""
    try:
        info = archive.getinfo(MANIFEST)
        if info.file_size > MAX_MANIFEST:
            raise RunError("away.not_one", file=file)
        with archive.open(info) as opened:
            text = opened.read(MAX_MANIFEST + 1)
        manifest = Manifest.model_validate_json(text)
    except (KeyError, ValidationError, *BROKEN) as error:
        raise RunError("away.not_one", file=file) from error
    for name in manifest.files:
        # before they are compared: on Windows zipfile reads every backslash of an archive as a slash
        if not _is_safe(name, manifest):
            raise RunError("away.unsafe", file=file, name=name[:200])
    inside = [info.filename for info in archive.infolist()]
    if sorted(inside) != sorted([MANIFEST, *manifest.files]):
        raise RunError(
            "away.damaged", file=file, name=next(iter(set(inside) ^ {MANIFEST, *manifest.files}), MANIFEST)[:200]
        )
    if len({name.casefold() for name in manifest.files}) < len(manifest.files):
        raise RunError("away.damaged", file=file, name=MANIFEST)
    return manifest


BROKEN = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    UnicodeDecodeError,
)  # errors of zipfile


def _is_safe(name: str, manifest: Manifest) -> bool:
    """Return whether a file of this name stays below run/ or data/ on any system: no hidden, reserved or odd parts, at
    most 6 deep."""
    path = PurePosixPath(name)
    top, below = path.parts[:1], path.parts[1:]
    if str(path) != name or top not in (("run",), ("data",) if manifest.data else ()) or not 0 < len(below) <= 6:
        return False
    return all(
        _PART.fullmatch(part) and part[0] != "." and part[-1] not in ". " and not names.is_reserved(part)
        for part in below
    )


def unpack(space: Workspace, archive_file: Path, check: Check = go_on) -> RunFolder:
    """Add the packed run to this workspace, and its data set if it is missing, all files checked; return the run.

    Raises RunError if it is damaged, exists already or there is no room, with the workspace unchanged.
    """
    path_length.refuse(space.root, RunError)
    try:
        opened = zipfile.ZipFile(archive_file)
    except OSError as error:
        raise RunError("away.cannot_open", file=archive_file, reason=error.strerror or str(error)) from error
    except BROKEN as error:
        raise RunError("away.not_one", file=archive_file.name) from error
    with opened as archive:
        manifest = read_manifest(archive, archive_file.name)
        target = space.runs / manifest.run
        if target.exists():
            raise RunError("away.here_already", name=manifest.name or manifest.run, run=manifest.run)
        needed = sum(each.bytes for each in manifest.files.values()) + ROOM
        if (free := shutil.disk_usage(space.root).free) < needed:
            raise RunError("away.no_room", file=archive_file.name, needed_mb=-(-needed // 10**6), free_mb=free // 10**6)
        asides = {"run": space.runs / f".{manifest.run}.part", "data": space.datasets / f".{manifest.data}.part"}
        with writing(space.root), contextlib.ExitStack() as undo:
            for top, aside in asides.items():
                shutil.rmtree(aside, ignore_errors=True)  # left by an interrupted attempt
                undo.callback(shutil.rmtree, aside, ignore_errors=True)
                _extract(archive, manifest, top, aside, archive_file.name, check)
            _require_run(RunFolder(asides["run"]), manifest, archive_file.name)
            (asides["run"] / "checkpoints").mkdir(exist_ok=True)
            if manifest.data:
                _take_set(space, manifest.data, asides["data"], archive_file.name)
            files.sync_tree(asides["run"])
            files.rename(asides["run"], target)
            files.sync_folder(space.runs)
    return RunFolder(target)


def _extract(archive: zipfile.ZipFile, manifest: Manifest, top: str, aside: Path, file: str, check: Check) -> None:
    """Write the files below top/ of the archive into aside. Raises RunError if one is damaged."""
    for name, expected in manifest.files.items():
        if not name.startswith(f"{top}/"):
            continue
        path = aside.joinpath(*PurePosixPath(name).parts[1:])
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with archive.open(name) as source, open(path, "wb") as target:
                is_intact = _copied(source, target, expected.bytes, check) == expected.sha256
        except BROKEN as error:
            raise RunError("away.damaged", file=file, name=name) from error
        if not is_intact:
            raise RunError("away.damaged", file=file, name=name)


def _copied(source: IO[bytes], target: IO[bytes], size: int, check: Check) -> str | None:
    """Copy exactly size bytes and return their SHA-256; None for another size, as in a zip bomb."""
    digest, left = hashlib.sha256(), size
    while piece := source.read(min(PIECE, left + 1)):
        check()
        if len(piece) > left:
            return None
        left -= len(piece)
        digest.update(piece)
        target.write(piece)
    return digest.hexdigest() if left == 0 else None


def _require_run(run: RunFolder, manifest: Manifest, file: str) -> None:
    """Raise RunError unless run has a readable recipe, a state that is not queued or at work, and the manifest's data
    set."""
    try:
        run.recipe()
    except RecipeError as error:
        raise RunError("away.no_run", file=file, reason=error.message) from error
    if not (run.path / "state.json").is_file() or run.status().state in BUSY:
        raise RunError("away.damaged", file=file, name="run/state.json")
    facts = run.facts()
    if manifest.data and (facts.data is None or facts.data.id != manifest.data):
        raise RunError("away.damaged", file=file, name="run/run.json")


def _take_set(space: Workspace, id: str, aside: Path, file: str) -> None:
    """Move an unpacked data set from aside into the workspace. An existing one of that id stays, and must hold the same
    file, by its SHA-256.

    Raises RunError.
    """
    info = read_info(aside)
    if info is None or not any(aside.glob("source.*")):
        raise RunError("away.damaged", file=file, name="data/dataset.json")
    existing = read_info(space.datasets / id)
    if existing is None and (info_file := space.datasets / id / "dataset.json").exists():
        raise RunError("away.data_unreadable", file=file, data=id, told=info_file)
    if existing is None:
        shutil.rmtree(space.datasets / id, ignore_errors=True)  # an import that never finished
        files.sync_tree(aside)
        files.rename(aside, space.datasets / id)
    elif existing.sha256 != info.sha256:
        raise RunError("away.other_data", file=file, data=id, name=existing.name)
