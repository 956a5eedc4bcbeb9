"""The datasets of a workspace: imported files, the sample datasets that come with the app, and files in library
folders.

<root>/<id>/source.<kind>   the file as it was given, byte for byte
<root>/<id>/dataset.json    a DatasetInfo; written last, so a folder without it is an import that never finished
<root>/<id>/edits-*.jsonl, written-*.jsonl, edits.lock    its versions (core/data/sets/edits)
<root>/<id>/report-*.json      of versions (core/data/sets/changed); may be deleted at any time
<root>/<id>/importing       id of the importing process; removed when dataset.json exists
rows-*.arrow, .rows, .reports    what was read of them (core/data/sets/readings); may be deleted at any time
<root>/.trash-*             deleted, but a program still had a file open

An import is the only writer, and removes what a crash left behind. Ids from a browser are looked up, never joined to a
path unless they match a pattern without separators, and the resulting path must lie in its folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from core import files
from core.data.large import dataset_process
from core.data.reading import sniff
from core.data.reading.choices import NO_CHOICES, Choices
from core.data.reading.suffixes import DOCUMENTATION_SUFFIXES, SUFFIXES, data_suffix
from core.data.sets import changed
from core.data.sets.edits import Edits, files_of
from core.data.sets.info import OWN, DatasetInfo, Origin, facts_of, read_info
from core.data.sets.inspection import DataReport
from core.data.sets.readings import Readings, reading_key
from core.data.sets.stored_rows import Rows
from core.errors import DataError
from core.progress import Check, go_on
from core.recipe import Data, Format
from core.system import path_length
from core.values import MIB
from core.workspace.names import display_name, short_id, slug

IMPORTED = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")  # ids, and folder names, of imported datasets
_SAMPLE_STEM = re.compile(r"[A-Za-z0-9_-]{1,60}")
_STALE_S = 3600  # an import of 2 GiB takes minutes
LOCK_S = 10.0
WAIT_S = 0.2


class DatasetStore:
    """The datasets of a workspace.

    root: <workspace>/datasets; presets: the folder that holds samples/; library_folders: read, never written.
    """

    def __init__(self, root: Path, presets: Path, library_folders: Sequence[Path] = ()):
        self.root, self._samples, self._libraries = (
            Path(root),
            Path(presets) / "samples",
            tuple(map(Path, library_folders)),
        )
        self._importing = threading.Lock()
        self._readings = Readings(self.root)
        self._opened: weakref.WeakSet[Rows] = weakref.WeakSet()

    # --- listing ------------------------------------------------------------------------------------------------

    def list(self) -> list[DatasetInfo]:
        """Return imported datasets (newest first), samples, then library files; files above 1 MiB are not read."""
        imported = sorted(self._imported(), key=lambda info: info.imported or 0, reverse=True)
        others = [self._info(id, path) for id, path in {**self._sample_files(), **self._library_files()}.items()]
        return [*imported, *(info for info in others if info is not None)]

    def get(self, id: str) -> DatasetInfo:
        """Return the info of a dataset. Raises DataError for an unknown id, or a removed file."""
        path = self.path(id)
        info = read_info(path.parent) if IMPORTED.fullmatch(id) else self._info(id, path)
        if info is None:
            raise _unknown_error(id)
        return info

    def knows(self, id: str) -> bool:
        """Return True if there is a dataset of this id."""
        try:
            return bool(self.path(id))
        except DataError:
            return False

    def path(self, id: str) -> Path:
        """Return the data file of a dataset. Raises DataError for an unknown id, or a path outside its folder."""
        if not isinstance(id, str):
            raise _unknown_error(id)
        if IMPORTED.fullmatch(id):
            folder = self.root / id
            path = next(iter(sorted(folder.glob("source.*"))), None) if read_info(folder) else None
            path = path if path and _is_inside(path, self.root) else None
        else:
            path = (self._sample_files() if id.startswith("sample:") else self._library_files()).get(id)
        if path is None:
            raise _unknown_error(id)
        return path

    def _imported(self) -> Iterator[DatasetInfo]:
        """Yield the imported datasets; folders of unfinished imports are skipped."""
        if self.root.is_dir():
            for folder in sorted(self.root.iterdir()):
                if IMPORTED.fullmatch(folder.name):
                    info = read_info(folder)
                    if info is not None:
                        yield info

    def _sample_files(self) -> dict[str, Path]:
        """Return the app's sample files by id ("sample:NAME"); {} without their folder."""
        if not self._samples.is_dir():
            return {}
        paths = sorted(self._samples.glob("*.jsonl"))
        return {
            f"sample:{path.stem}": path
            for path in paths
            if _SAMPLE_STEM.fullmatch(path.stem) and _is_inside(path, self._samples)
        }

    def _library_files(self) -> dict[str, Path]:
        """Return files by id: `library:<file>`, or `library:<number of the folder>/<file>` for a name that an earlier
        folder has. Folders that cannot be read are skipped."""
        files_by_id: dict[str, Path] = {}
        for number, folder in enumerate(self._libraries, 1):
            try:
                # Markdown can be added by hand; in a folder it is most often a description of the data.
                paths = sorted(
                    path
                    for path in folder.iterdir()
                    if data_suffix(path.name) in SUFFIXES.keys() - DOCUMENTATION_SUFFIXES
                )
            except OSError:  # e.g. a drive that is not plugged in
                continue
            for path in paths:
                if path.is_file() and not path.name.startswith(".") and _is_inside(path, folder):
                    id = f"library:{path.name}"
                    files_by_id[id if id not in files_by_id else f"library:{number}/{path.name}"] = path
        return files_by_id

    def _info(self, id: str, path: Path) -> DatasetInfo | None:
        """Return the info of a file that was not imported, with counts only if it is small (then it is read) or was
        read before; None if it has been removed."""
        origin = "sample" if id.startswith("sample:") else "library"
        try:
            size = path.stat().st_size
            report = self._readings.report(path) if size <= MIB else self._readings.known_report(path)
        except OSError:
            return None
        except DataError:
            report = None
        name = path.stem if origin == "sample" else display_name(path.name)
        facts = facts_of(report) if report else {"bytes": size}
        return DatasetInfo(id=id, origin=origin, name=name, source_name=path.name, **facts)

    # --- importing and deleting ---------------------------------------------------------------------------------

    def import_file(
        self,
        path: str | Path,
        name: str = "",
        choices: Choices = NO_CHOICES,
        check: Check = go_on,
        origin: Origin = OWN,
    ) -> DatasetInfo:
        """Copy a file into the store under a new id, with its rows, and return its info. If a dataset with the same
        sha256 exists and its choices are equal, or none are given, its info is returned instead. name: for the screen,
        any characters. choices: kept with the dataset. origin: source on the Hub. check: called often, and may raise.
        Raises DataError if the file cannot be used, leaving nothing behind."""
        path_length.refuse(self.root.parent, DataError)
        path = Path(path)
        source = sniff.probe(path, choices=choices, check=check)
        shown_name = display_name(name) or display_name(path.stem) or "data"
        # One import at a time, so that what is removed here is not being written.
        with self._alone(check):
            self._clean()
            # A set from before validation rows were recognized has none of its own, so it is added anew.
            for info in self._imported():
                if (
                    info.sha256 == source.sha256
                    and (info.validation is not None or not any(part.validation for part in source.parts))
                    and info.corrects == origin.corrects
                    and (not choices.chosen or info.choices == choices)
                ):
                    return info
            try:
                with contextlib.ExitStack() as undo:  # also after a cancel and Ctrl-C
                    folder = self._new_folder(shown_name)
                    undo.callback(shutil.rmtree, folder, ignore_errors=True)
                    report = self._readings.read_into(folder, source, choices, check)
                    digest = _copy(path, folder / f"source.{source.stored_as or source.kind}", check)
                    # The file with the names of its classes is read beside the data, so it is kept beside it too.
                    if (beside := source.label_names.file) and not source.stored_as:
                        _copy(path.parent / beside, folder / beside, check)
                    # It may have changed between reading and copying.
                    if digest != report.sha256:
                        raise DataError("data.changed_while_reading", file=path.name)
                    info = DatasetInfo(
                        id=folder.name,
                        name=shown_name,
                        source_name=display_name(path.name, 200),
                        imported=round(time.time(), 3),
                        choices=choices,
                        **facts_of(report),
                        **origin.model_dump(),
                    )
                    files.replace_json(folder / "dataset.json", info.model_dump(mode="json"))
                    (folder / "importing").unlink()
                    undo.pop_all()  # from here on an error leaves the dataset there
            except OSError as error:
                raise DataError("data.cannot_store", name=shown_name, reason=error.strerror or str(error)) from error
        self._readings.store_report(report, None, choices)
        return info

    @contextlib.contextmanager
    def _alone(self, check: Check) -> Iterator[None]:
        """Context manager: the import lock; while waiting for it, `check` may cancel."""
        while not self._importing.acquire(timeout=WAIT_S):
            check()
        try:
            yield
        finally:
            self._importing.release()

    def _new_folder(self, name: str) -> Path:
        """Create a folder named after the dataset, with a short id if the name is taken, mark it as importing, and
        return it."""
        self.root.mkdir(parents=True, exist_ok=True)
        base = slug(name, fallback="data")
        id = base
        while True:
            try:
                # mkdir decides which of two processes has the name.
                (self.root / id).mkdir()
            except FileExistsError:
                id = f"{base}-{short_id()}"
                continue
            # Whether it lives tells if the import crashed.
            (self.root / id / "importing").write_text(str(os.getpid()), "ascii", newline="\n")
            return self.root / id

    def _clean(self) -> None:
        """Remove what an import or a deletion left behind when its process died. Called with the import lock held."""
        if not self.root.is_dir():
            return
        for folder in self.root.iterdir():
            if folder.name.startswith(".trash-"):
                shutil.rmtree(folder, ignore_errors=True)
            elif IMPORTED.fullmatch(folder.name) and folder.is_dir() and not (folder / "dataset.json").exists():
                if self._is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _is_abandoned(folder: Path) -> bool:
        """Return True if no import can still be writing into a folder without dataset.json: if it is empty for more
        than a minute, or its marker is of this process or older than an hour.

        Called with the import lock held, so that this process imports nothing else. False if the marker is missing or
        cannot be read.
        """
        marker = folder / "importing"
        try:
            if not any(folder.iterdir()):  # its import may be about to write the marker
                return time.time() - folder.stat().st_mtime > 60
            return marker.read_text("ascii") == str(os.getpid()) or time.time() - marker.stat().st_mtime > _STALE_S
        except (OSError, ValueError):
            return False

    def delete(self, id: str) -> None:
        """Remove an imported dataset, with its edits and all files of its folder. The opened rows of all datasets are
        closed first, and open again at their next use.

        Raises DataError for a dataset that was not imported, and if a program has one of its files open.
        """
        folder = self.path(id).parent
        if not IMPORTED.fullmatch(id):
            raise DataError("data.cannot_delete", id=id)
        trash = self.root / f".trash-{short_id()}"
        for opened in list(self._opened):  # Windows does not rename a folder with an open file
            opened.close()
        try:
            files.rename(folder, trash, files.MOMENT_S)
        except OSError as error:
            raise DataError("data.in_use", name=id, reason=error.strerror or str(error)) from error
        shutil.rmtree(trash, ignore_errors=True)

    # --- reading ------------------------------------------------------------------------------------------------

    def choose(self, id: str, choices: Choices) -> DatasetInfo:
        """Change how an imported dataset is read from now on and return its info; existing runs keep their reading.
        Raises DataError for datasets that were not imported, and, with nothing changed, if the file cannot be read that
        way."""
        path, info = self.path(id), self.get(id)
        if not IMPORTED.fullmatch(id):
            raise DataError("data.cannot_choose", id=id)
        facts = facts_of(self._readings.report(path, None, choices))
        facts |= {"validation": info.validation and facts["validation"]}  # None stays: runs of it split it themselves
        info = DatasetInfo.model_validate(info.model_dump() | {"choices": choices, **facts})
        try:
            with self._importing:
                files.replace_json(path.parent / "dataset.json", info.model_dump(mode="json"))
        except OSError as error:
            raise DataError("data.cannot_store", name=info.name, reason=error.strerror or str(error)) from error
        return self.get(id)

    def choices(self, id: str, overrides: Choices = NO_CHOICES) -> Choices:
        """Return how a dataset is to be read: overrides, then what is kept with it. One with edits from before a choice
        existed keeps the reading that they belong to. Raises DataError."""
        if not isinstance(id, str):
            raise _unknown_error(id)
        if not IMPORTED.fullmatch(id):
            return overrides
        chosen, path = overrides.with_defaults(self.get(id).choices), self.path(id)
        if chosen.header is None and next(path.parent.glob("edits-*.jsonl"), None):
            resolved, as_names = (
                self._readings.resolved_choices(path, chosen),
                chosen.model_copy(update={"header": True}),
            )
            if resolved.join_paragraphs and chosen.join_paragraphs is None:
                as_before = chosen.model_copy(update={"join_paragraphs": False})
                before, now = (self._reading(path, None, each) for each in (as_before, chosen))
                if files_of(path.parent, before)[0].exists() and not files_of(path.parent, now)[0].exists():
                    return as_before  # its edits were made when licences were rows
            if resolved.header is False and not files_of(path.parent, f"None|{resolved.key}")[0].exists():
                if files_of(path.parent, self._reading(path, None, as_names))[0].exists():
                    # its edits were made when every first row was taken for names: keep that reading
                    return as_names
        return chosen

    def _reading(self, path: Path, format: Format | None, choices: Choices) -> str:
        """Return the key in the names of the files with a dataset's edits, for the file as it is read with this format
        and these choices: edits belong to one way of reading. Whether the first row holds names is left out of the key
        if there are edits from before `header` could be chosen."""
        resolved = self._readings.resolved_choices(path, choices)
        is_joined = "|joined" if resolved.join_paragraphs else ""
        resolved = resolved.model_copy(update={"join_paragraphs": None})
        with_header, without_header = (
            f"{format}|{each.key}{is_joined}" for each in (resolved, resolved.model_copy(update={"header": None}))
        )
        is_older = (
            resolved.header
            and not files_of(path.parent, with_header)[0].exists()
            and files_of(path.parent, without_header)[0].exists()
        )
        return without_header if is_older else with_header

    def resolved_choices(self, id: str, overrides: Choices = NO_CHOICES) -> Choices:
        """Return the choices with every default filled in, so that later changes of the dataset's choices do not alter
        them."""
        return self._readings.resolved_choices(self.path(id), self.choices(id, overrides))

    def report(
        self, id: str, format: Format | None = None, choices: Choices = NO_CHOICES, check: Check = go_on
    ) -> DataReport:
        """Return all problems by row, and the counts, of a dataset's version; read from disk if the same bytes were
        inspected before. Raises DataError."""
        path, choices = self.path(id), self.choices(id, choices)
        report = self._readings.report(path, format, choices)
        edits = self._edits(path, format, choices)
        if not (version := edits.head if choices.version is None else choices.version):
            return report
        # A version never changes.
        cache_file = path.with_name(f"report-{reading_key(report.sha256, format, choices)[:24]}-{version}.json")
        as_added = choices.model_copy(update={"version": 0})

        def make_report() -> DataReport:
            """Return the report of this version, made in a process of its own for a large dataset."""
            if dataset_process.is_needed(rows=report.good_rows):
                newest = choices.model_copy(update={"version": version})
                return dataset_process.report(path, "report", format or "", newest.model_dump_json())
            return changed.report(report, edits, version, self.rows(id, format, as_added), check)

        return changed.cached_report(cache_file, make_report)

    def rows(
        self,
        id: str,
        format: Format | None = None,
        choices: Choices = NO_CHOICES,
        check: Callable[[], None] = lambda: None,
    ) -> Rows:
        """Return the rows of a dataset's version, mapped from disk, read from the file if these bytes were not yet read
        in this way; the store closes them before it deletes the dataset. check: called often, and may raise. Raises
        DataError if no row can be trained."""
        path = self.path(id)
        choices = self.choices(id, choices)
        rows = self._readings.rows(path, format, choices, check)
        rows.has_splits = not IMPORTED.fullmatch(id) or self.get(id).validation is not None
        rows.joins = choices.join_paragraphs is not False
        rows = self._edits(path, format, choices).rows(rows, choices.version)
        self._opened.add(rows)
        return rows

    # --- versions -------------------------------------------------------------------------------------------------

    def edits(self, id: str, format: Format | None = None, choices: Choices = NO_CHOICES) -> Edits:
        """Return the log of versions of a dataset as it is read with these choices, to look at only; it has no versions
        if the rows were never changed. To change rows, use `editing`."""
        return self._edits(self.path(id), format, self.choices(id, choices))

    def version(self, id: str, format: Format | None = None, choices: Choices = NO_CHOICES) -> int:
        """Return the version that choices name, else the current one of the dataset: the last change, or after an undo
        the one before it. 0 stands for the rows as they were imported."""
        edits = self.edits(id, format, choices)
        return edits.head if choices.version is None else choices.version

    def pinned(self, data: Data) -> Data:
        """Return data with all choices and, for an imported dataset, its version filled in. Raises DataError.

        A repeated run then reads the same rows, whatever is chosen or changed later.
        """
        data = data.model_copy(update=dict(self.resolved_choices(data.source, Choices.from_data(data)).chosen))
        version = self.version(data.source, data.format, Choices.from_data(data))
        return data.model_copy(update={"version": version}) if IMPORTED.fullmatch(data.source) else data

    @contextlib.contextmanager
    def editing(self, id: str) -> Iterator[tuple[Edits, Rows]]:
        """Context manager: lock an imported dataset for changes, and yield (its versions, its rows as they were
        imported).

        At the end the current version and its number of rows are written into dataset.json, unless the block raises.
        Raises DataError for a dataset that was not imported, if another process holds the lock for LOCK_S, or if the
        disk refuses.
        """
        path = self.path(id)
        if not IMPORTED.fullmatch(id):
            raise DataError("sets.not_yours", id=id)
        base = self.rows(id, choices=Choices(version=0))
        try:
            with FileLock(path.parent / "edits.lock").acquire(timeout=LOCK_S):
                edits = self._edits(path, None, self.choices(id), writes=True)
                yield edits, base
                info, count = self.get(id), len(edits.rows(base))
                changed = info.model_copy(update={"version": edits.head, "good_rows": count})
                files.replace_json(path.parent / "dataset.json", changed.model_dump(mode="json"))
        except Timeout:
            raise DataError("sets.being_changed", name=id) from None
        except OSError as error:
            raise DataError("data.cannot_store", name=id, reason=error.strerror or str(error)) from error

    def _edits(self, path: Path, format: Format | None, choices: Choices, writes: bool = False) -> Edits:
        """Return the versions of one reading; an empty Edits for a file that was not imported or, unless writes, was
        never changed."""
        if path.parent.parent != self.root or not (writes or next(path.parent.glob("edits-*.jsonl"), None)):
            return Edits(None, "")
        return Edits(path.parent, self._reading(path, format, choices))


def _copy(source: Path, target: Path, check: Callable[[], None]) -> str:
    """Copy a file to a new one, flushed to disk, and return the sha256 of what was written. check: called for each MiB,
    and may raise."""
    digest = hashlib.sha256()
    with open(source, "rb") as file, open(target, "xb") as copy:
        while chunk := file.read(MIB):
            check()
            digest.update(chunk)
            copy.write(chunk)
        # A power cut must not leave half a file.
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()


def _is_inside(path: Path, folder: Path) -> bool:
    """Return True if a path, its links followed, lies in a folder."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _unknown_error(id: object) -> DataError:
    """Return the DataError for an id that no dataset has; its sentence shows the id."""
    return DataError("data.unknown", id=display_name(id))
